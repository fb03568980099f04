"""Feature networks: images -> (n, d). The last torch on the road to a score.

A score carries the name of its network. None of these is the Inception network, so no score here
is a FID.
"""

from ganstudy.measure.features.base import (
    FEATURES,
    Extractor,
    FeatureNetwork,
    cached,
    content_hash,
    write_torch,
)
from ganstudy.measure.features.lite0 import EfficientNetLite0, Lite0
from ganstudy.measure.features.plain import Pixels
from ganstudy.measure.features.small_cnn import SmallCNN

__all__ = [
    "FEATURES",
    "EfficientNetLite0",
    "Extractor",
    "FeatureNetwork",
    "Lite0",
    "Pixels",
    "SmallCNN",
    "cached",
    "content_hash",
    "write_torch",
]
