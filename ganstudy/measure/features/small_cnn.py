"""A classifier of the data's own labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import cross_entropy

from ganstudy.gan.datasets import SPLITS, Dataset, Split, normalize
from ganstudy.gan.seeding import derive, seeded_init
from ganstudy.measure.features.base import FEATURES, Extractor, FeatureNetwork, check_images
from ganstudy.measure.features.cache import cached, content_hash
from ganstudy.registry import component


@FEATURES.register("small_cnn")
@component
class SmallCNN(FeatureNetwork):
    """A small classifier trained on the train split's own labels; 64 penultimate features.

    Two convolutions with max-pooling, one hidden layer, five epochs of Adam. Weights are cached
    under a hash of the data, these options and the torch version.
    """

    units: ClassVar[int] = 64
    classifies = True
    own_classes = True

    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the train split."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the classifier's own streams."""

    def dimension(self, dataset: Dataset) -> int:
        return self.units

    def check(self, dataset: Dataset) -> None:
        check_images(self.name, dataset, 4, (1, 2, 3, 4))
        if dataset.labels("train") is None:
            raise ValueError(
                f"small_cnn trains on labels and {dataset.name} has none; use the features "
                f"random_conv, or lite0 or pixels with the metric kernel_distance"
            )

    def extractor(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        classifier = self.classifier(dataset, cache)
        assert isinstance(classifier.embed, nn.Sequential)
        return replace(classifier, embed=classifier.embed[:-1].eval(), head=classifier.embed[-1])

    def classifier(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        """Return the whole network, images -> logits of the classes, trained first if it must."""
        images, labels = dataset.images("train"), dataset.labels("train")
        assert labels is not None  # check() has refused data without labels
        depends = content_hash(images, labels, repr(self), torch.__version__)
        saved = cached(f"small_cnn-{depends}.pt", cache, lambda: self._train(dataset))
        network = self._network(dataset)
        network.load_state_dict(saved["weights"])
        network.eval()
        # Half the time of contiguous convolutions on CPU.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights = content_hash(*saved["weights"].values())
        return Extractor(network, weights, saved["facts"])

    def _network(self, dataset: Dataset) -> nn.Sequential:
        channels, height, width = dataset.image_shape
        labels = dataset.labels("train")
        assert labels is not None
        flat = 32 * (height // 4) * (width // 4)
        with seeded_init(self.seed, "small_cnn/init"):
            return nn.Sequential(
                nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                nn.Linear(flat, self.units), nn.ReLU(),
                nn.Linear(self.units, int(labels.max()) + 1),
            )  # fmt: skip

    def _train(self, dataset: Dataset) -> dict[str, Any]:
        """Return weights and held-out accuracies of a freshly trained classifier."""
        images, labels = dataset.images("train"), dataset.labels("train")
        assert labels is not None
        network = self._network(dataset)
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        rng = torch.Generator().manual_seed(derive(self.seed, "small_cnn/data"))
        for _ in range(self.epochs):
            for batch in torch.randperm(len(images), generator=rng).split(64):
                optimizer.zero_grad()
                logits = network(normalize(images[batch]))
                cross_entropy(logits, labels[batch]).backward()
                optimizer.step()
        return {
            "weights": network.state_dict(),
            "facts": {
                f"accuracy_{split}": self._accuracy(network, dataset, split) for split in SPLITS
            },
        }

    @staticmethod
    def _accuracy(network: nn.Module, dataset: Dataset, split: Split) -> float:
        labels = dataset.labels(split)
        assert labels is not None
        logits = Extractor(network.eval(), hash="")(dataset.images(split))
        return float((logits.argmax(1) == labels.numpy()).mean())
