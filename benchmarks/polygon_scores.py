"""What precision and recall on the polygons cost, and whether their searches converge.

    python benchmarks/polygon_scores.py [--updates N] [--state FILE]

Trains an infogan of width 16 on the polygons (some minutes), or takes the trainer's state of one
from FILE, and scores it on one thread. Seconds are the processor's. Goal: the second half of the
inversion's steps changes recall by less than 0.01.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from ganstudy.gan.config import TrainConfig  # noqa: E402
from ganstudy.gan.datasets import normalize  # noqa: E402
from ganstudy.gan.trainer import NetworkTrainer, build_trainer  # noqa: E402
from ganstudy.measure.features.cache import read_torch  # noqa: E402
from ganstudy.measure.metrics import Drawn, Latents, Sample  # noqa: E402
from ganstudy.measure.metrics.polygons import (  # noqa: E402
    PolygonF1,
    PolygonPrecision,
    PolygonRecall,
    fit,
    pool,
)

GOAL = 0.01
SETTINGS: dict[str, Any] = {
    "dataset": {"name": "polygons", "train": 20_000, "test": 2000},
    "architecture": {"name": "infogan", "width": 16, "momentum": 0.02},
    "loss": "non_saturating",
    "optimizer": {"name": "adam", "lr": 2e-4, "beta1": 0.5},
    "batch_size": 64,
}


def trained(updates: int, state: Path | None) -> NetworkTrainer:
    """Return a trainer after `updates`, or at `state`."""
    trainer = build_trainer(TrainConfig.from_dict(SETTINGS | {"discriminator_updates": updates}))
    if state is None:
        trainer.advance(updates)
    else:
        trainer.load_state_dict(read_torch(state))
    return trainer


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor's seconds of `act`, and what it returned."""
    begun = time.process_time()
    found = act()
    return time.process_time() - begun, found


def drawn(images: torch.Tensor, latents: Latents | None = None) -> Drawn:
    """Return images with features that nothing here reads."""
    return Drawn(images, Sample(np.arange(len(images), dtype=float)[:, None]), latents)


def print_fit(name: str, images: torch.Tensor) -> None:
    """Print precision with and without refinement, and its seconds."""
    seconds, found = timed(lambda: fit(images.numpy()))
    median, most = np.median(found.refined), found.refined.max()
    share, plain = ((d <= 0.75).mean() for d in (found.refined, found.pooled))
    print(
        f"precision of {name} (n = {len(images):,}): {share:.3f}, without "
        f"refinement {plain:.3f}; distance {median:.4f} in the median, "
        f"{most:.3f} at most; {seconds / len(images) * 1000:.1f} s for 1,000 images"
    )


def print_recall(name: str, metric: PolygonRecall, made: Drawn, real: Drawn) -> None:
    """Print recall, what the second half of the steps changed and its seconds."""
    seconds, score = timed(lambda: metric(made, real))
    change = metric.convergence(made, real)
    print(
        f"recall, {name}: {score.value:.3f} +- {score.standard_error:.3f} (n = {metric.images}); "
        f"second half of the steps {change:+.4f}, goal below {GOAL}: "
        f"{'reached' if change < GOAL else 'MISSED'}; {seconds:.1f} s"
    )


def main() -> None:
    """Print precision, recall and F1 of one generator, with seconds and convergence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--state", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trainer = trained(arguments.updates, arguments.state)
    images = trainer.sample(1000, torch.Generator().manual_seed(0))
    latents = Latents(trainer.generate, trainer.draw_latents)
    held_out = normalize(trainer.config.dataset.images("select")[:1000])
    made, real = drawn(images, latents), drawn(held_out)
    print(f"torch {torch.__version__}, numpy {np.__version__}, one thread, processor's time")
    print(f"pool: {timed(lambda: pool('published'))[0]:.1f} s, once per process")
    print_fit("held-out images", held_out)
    print_fit("the generator", images)
    recall = PolygonRecall()
    print_recall("defaults", recall, made, real)
    print_recall("150 steps", replace(recall, steps=150), made, real)
    print_recall("600 steps", replace(recall, steps=600), made, real)
    print_recall("4 restarts", replace(recall, restarts=4), made, real)
    print_recall("100 draws", replace(recall, draws=100), made, real)
    print_recall("not clamped", replace(recall, clamp=False), made, real)
    PolygonPrecision()(made, real)
    seconds, f1 = timed(lambda: PolygonF1()(made, real))
    print(f"F1: {f1.value:.3f} +- {f1.standard_error:.3f}; beside the other two {seconds:.2f} s")


if __name__ == "__main__":
    main()
