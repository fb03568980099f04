"""Generators and discriminators by name; to add one is to add a class to one of these files."""

from ganstudy.gan.architectures import (
    dcgan,
    dirac,
    infogan,
    mlp,
    patch,
    progressive,
    resnet,
    sndcgan,
    style,
)
from ganstudy.gan.architectures.base import ARCHITECTURES, Architecture, ImageShape

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "ImageShape",
    "dcgan",
    "dirac",
    "infogan",
    "mlp",
    "patch",
    "progressive",
    "resnet",
    "sndcgan",
    "style",
]
