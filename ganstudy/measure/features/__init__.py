"""Feature networks: images -> (n, d).

A score carries the name of its network. Only those on the Inception network may be called FID
and KID.
"""

from ganstudy.measure.features.base import FEATURES, Extractor, FeatureNetwork
from ganstudy.measure.features.cache import cached, content_hash, write_torch
from ganstudy.measure.features.inception import Inception
from ganstudy.measure.features.lite0 import EfficientNetLite0, Lite0
from ganstudy.measure.features.plain import Pixels, RandomConv
from ganstudy.measure.features.small_cnn import SmallCNN

__all__ = [
    "FEATURES",
    "EfficientNetLite0",
    "Extractor",
    "FeatureNetwork",
    "Inception",
    "Lite0",
    "Pixels",
    "RandomConv",
    "SmallCNN",
    "cached",
    "content_hash",
    "write_torch",
]
