"""Regularisers by name; to add one is to add a class to one of these files."""

from ganstudy.gan.regularizers import gradients, outputs, weights
from ganstudy.gan.regularizers.base import REGULARIZERS, Regularizer
from ganstudy.gan.regularizers.gradients import input_gradient_norm
from ganstudy.gan.regularizers.outputs import flipped_and_shifted

__all__ = [
    "REGULARIZERS",
    "Regularizer",
    "flipped_and_shifted",
    "gradients",
    "input_gradient_norm",
    "outputs",
    "weights",
]
