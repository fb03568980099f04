"""A classifier of the data's own labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from scipy.stats import binomtest
from torch import nn
from torch.nn.functional import cross_entropy

from ganstudy.gan.datasets import SPLITS, Dataset, Split, normalize
from ganstudy.gan.seeding import derive, seeded_init
from ganstudy.measure.features.base import FEATURES, Extractor, FeatureNetwork, check_images
from ganstudy.measure.features.cache import cached, content_hash, read_user_cache
from ganstudy.registry import component

BATCH = 64
"""Training images in one update."""


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

    def known_facts(self, dataset: Dataset) -> dict[str, Any]:
        saved = read_user_cache(self._file(dataset))
        return {} if saved is None else saved["facts"] | held_out_facts(dataset, saved["facts"])

    def training_updates(self, dataset: Dataset) -> int:
        return self.epochs * math.ceil(len(dataset.images("train")) / BATCH)

    def _file(self, dataset: Dataset) -> str:
        """Return the name of the file that keeps the weights."""
        images, labels = dataset.images("train"), dataset.labels("train")
        assert labels is not None  # check() has refused data without labels
        return f"small_cnn-{content_hash(images, labels, repr(self), torch.__version__)}.pt"

    def classifier(self, dataset: Dataset, cache: Path | None = None) -> Extractor:
        """Return the whole network, images -> logits of the classes, trained first if it must."""
        saved = cached(self._file(dataset), cache, lambda: self._train(dataset))
        network = self._network(dataset)
        network.load_state_dict(saved["weights"])
        network.eval()
        # Half the time of contiguous convolutions on CPU.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights = content_hash(*saved["weights"].values())
        facts = saved["facts"] | held_out_facts(dataset, saved["facts"])
        return Extractor(network, weights, facts)

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
            for batch in torch.randperm(len(images), generator=rng).split(BATCH):
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


def held_out_facts(dataset: Dataset, facts: Mapping[str, float]) -> dict[str, Any]:
    """Compute how well a classifier reads the images that it was not trained on.

    Select and report are pooled: the classifier has seen neither.

    Args:
        dataset: The data, with labels.
        facts: `accuracy_select` and `accuracy_report`, shares of each split.

    Returns:
        `held_out`: the accuracy, its exact 95 % interval (Clopper and Pearson 1934), the number
        of images n, chance (the share of n in the largest class, which a constant answer
        reaches), the number of classes in train, and the number of training images.
    """
    splits: tuple[Split, ...] = ("select", "report")
    labels = {split: dataset.labels(split) for split in (*splits, "train")}
    known = {split: found for split, found in labels.items() if found is not None}
    n = sum(len(known[split]) for split in splits)
    if not n:
        return {}
    right = sum(round(facts[f"accuracy_{split}"] * len(known[split])) for split in splits)
    ends = binomtest(right, n).proportion_ci(0.95, method="exact")
    largest = torch.cat([known[split] for split in splits]).bincount().max()
    return {
        "held_out": {
            "accuracy": right / n,
            "low": float(ends.low),
            "high": float(ends.high),
            "n": n,
            "chance": int(largest) / n,
            "classes": len(known["train"].unique()),
            "n_train": len(known["train"]),
        }
    }
