"""Data sets by name: images with named splits, decoded once per node.

The splits are disjoint and each has one use: networks and feature networks train on `train`,
checkpoints and configurations are chosen on `select`, numbers are told on `report`.
"""

from ganstudy.gan.datasets import arrays, cifar, folders, idx, packaged, polygons, toys
from ganstudy.gan.datasets.base import (
    DATASETS,
    SPLITS,
    Dataset,
    Labelled,
    Split,
    loaded,
    normalize,
    split_by_size,
)
from ganstudy.gan.datasets.sampler import BatchSampler

__all__ = [
    "DATASETS",
    "SPLITS",
    "BatchSampler",
    "Dataset",
    "Labelled",
    "Split",
    "arrays",
    "cifar",
    "folders",
    "idx",
    "loaded",
    "normalize",
    "packaged",
    "polygons",
    "split_by_size",
    "toys",
]
