"""The trainers: updates of a GAN (or a VAE), yielding signals and nothing else.

They repair nothing (a NaN goes out as NaN) and log nowhere. Any object with the four methods of
`Trainer` can take their place in a study.
"""

from ganstudy.gan.config import TrainConfig
from ganstudy.gan.losses import Loss
from ganstudy.gan.trainer.base import NetworkTrainer, Trainer
from ganstudy.gan.trainer.game import GanTrainer
from ganstudy.gan.trainer.vae import VaeTrainer

__all__ = ["GanTrainer", "NetworkTrainer", "Trainer", "VaeTrainer", "build_trainer"]


def build_trainer(config: TrainConfig, device: str = "cpu") -> NetworkTrainer:
    """Return the trainer of `config`: of a game, or of a model without a discriminator."""
    game = isinstance(config.loss, Loss)
    return GanTrainer(config, device) if game else VaeTrainer(config, device)
