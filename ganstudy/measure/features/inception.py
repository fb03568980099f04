"""The Inception network of 2015, the one that FID and KID are defined on."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import io
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ganstudy.gan.datasets import Dataset
from ganstudy.gan.datasets.files import AbsolutePath
from ganstudy.measure.features.base import FEATURES, Extractor, FeatureNetwork, check_images
from ganstudy.measure.features.cache import content_hash
from ganstudy.registry import component
from ganstudy.store import cache_folder

FILE = "pt_inception-2015-12-05-6726825d.pth"
"""What pytorch-fid calls the weights; torch-fidelity's weights-inception-... is the same file."""
PUBLISHED = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""SHA-256 of that file."""


@FEATURES.register("inception", paper="Heusel et al. 2017, arXiv:1706.08500")
@component
class Inception(FeatureNetwork):
    """EXPERIMENTAL: the Inception-v3 of 2015 that FID and KID are defined on; 2,048 features.

    Experimental since it has not been run with its weights. It needs the extra `inception`
    (torch-fidelity) and the published file of weights, which is not downloaded; any other file is
    refused, since scores on other weights are no FID. Images are rounded to the 256 levels, grey
    tiled to three channels, and resized to 299 px as TensorFlow 1 did: bilinear, not antialiased,
    corners not aligned. The head gives the logits without bias that the Inception Score reads.
    """

    classifies = True
    score_names: ClassVar = {"fd": "fid", "kd_subsets": "kid", "is": "is"}

    weights: AbsolutePath | None = None
    """The file of weights; null for weights/pt_inception-2015-12-05-6726825d.pth in the user's
    cache ($GANSTUDY_CACHE), by which a study runs on other machines too."""

    @property
    def resize(self) -> str:
        return "bilinear to 299 px as in TensorFlow 1, not antialiased"

    def dimension(self, dataset: Dataset) -> int:
        return 2048

    def check(self, dataset: Dataset) -> None:
        check_images(self.name, dataset, 4, (1, 3))
        self._checked()
        network_class()

    def extractor(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        path, sha256 = self._checked()
        network = loaded(path)
        weight = network.get_parameter("fc.weight")
        return Extractor(
            lambda images: network(levels(images))[0],
            content_hash(sha256),
            {"experimental": "not yet run with its weights", "weights_sha256": sha256},
            head=lambda features: linear(features, weight),
            batch=32,  # one image is 64 maps of 147 x 147 within, 5.5 MB
        )

    def _checked(self) -> tuple[Path, str]:
        """Return the file of weights and its SHA-256; raise ValueError unless it is that file."""
        path = Path(self.weights) if self.weights else cache_folder() / "weights" / FILE
        if not path.is_file():
            raise ValueError(
                f"inception needs its weights, and there is no file {path}; put {FILE} there (of "
                f"the releases of pytorch-fid on GitHub) or give its path as `weights`"
            )
        stat = path.stat()
        sha256 = file_sha256(path, stat.st_size, stat.st_mtime_ns)
        if sha256 != PUBLISHED:
            raise ValueError(
                f"{path} is not {FILE}: its SHA-256 begins {sha256[:8]}, not {PUBLISHED[:8]}, and "
                f"scores on other weights are no FID; download it again"
            )
        return path, sha256


@functools.lru_cache(maxsize=4)
def file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Return the SHA-256 of a file, read anew when `size` or `mtime_ns` differ."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def levels(images: Tensor) -> Tensor:
    """Return images in [-1, 1] as the nearest of 256 levels, (n, 3, height, width) uint8."""
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1)


def loaded(path: Path) -> nn.Module:
    """Return the network with the weights of the file `path`.

    The package reads files of weights as any pickle, so it is given one that holds tensors only.
    """
    file = io.BytesIO()
    torch.save(torch.load(path, weights_only=True), file)
    file.seek(0)
    with torch.random.fork_rng(devices=[]):  # its random weights are drawn, and overwritten
        network: nn.Module = network_class()("inception", ["2048"], file)
    return network.eval()


def network_class() -> type[nn.Module]:
    """Return torch-fidelity's network; raise ValueError with what to install if it cannot be had.

    The package's torchvision is the part that fails: built for another torch, it raises
    RuntimeError at its import.
    """
    if importlib.util.find_spec("torch_fidelity") is None:
        raise ValueError(
            "inception needs the package torch-fidelity; pip install 'ganstudy[inception]'"
        )
    remedy = f"install the torchvision that was built for torch {torch.__version__}"
    _imported("torchvision", remedy)
    module = _imported("torch_fidelity.feature_extractor_inceptionv3", "install it again")
    return module.FeatureExtractorInceptionV3


def _imported(name: str, remedy: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError) as error:
        said = str(error).splitlines()[0]
        raise ValueError(
            f"inception needs torch-fidelity, and its {name} fails ({said}); {remedy}"
        ) from None
