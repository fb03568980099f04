"""How fast the published polygons are drawn.

    python benchmarks/polygons.py [--images N] [--sample N]

Draws the training images of the data set `polygons` on one core, and a sample of them by the
published recipe, image by image; the two must be equal. Goal: 60,000 images in 60 seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from ganstudy.gan.datasets.polygons import draw_polygons  # noqa: E402
from tests.gan.test_polygons import recipe  # noqa: E402

GOAL_SECONDS = 60


def timed(draw: Callable[[int], Any], n: int) -> tuple[float, Any]:
    """Return the processor's seconds for `n` images, and the images."""
    begun = time.process_time()
    drawn = draw(n)
    return time.process_time() - begun, drawn


def main() -> None:
    """Time both and print seconds and ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--sample", type=int, default=500)
    arguments = parser.parse_args()
    draw_polygons(10)
    # The recipe before and after, so that a drift of the machine shows.
    before, _ = timed(recipe, arguments.sample)
    seconds, _ = timed(draw_polygons, arguments.images)
    after, (images, _) = timed(recipe, arguments.sample)
    equal = np.array_equal(draw_polygons(arguments.sample).levels / 64, images)
    verdict = "reached" if seconds <= GOAL_SECONDS * arguments.images / 60_000 else "MISSED"
    each, theirs = seconds / arguments.images, sorted((before, after))
    print(f"numpy {np.__version__}, one core, processor's time")
    print(f"ours: {seconds:.2f} s for {arguments.images:,} images, {each * 1e6:.0f} us an image")
    print(f"goal: {GOAL_SECONDS} s for 60,000: {verdict}")
    low, high = (other / arguments.sample for other in theirs)
    print(
        f"published recipe: {low * 1e3:.2f} to {high * 1e3:.2f} ms an image ({arguments.sample})"
    )
    print(f"ratio: {low / each:.0f} to {high / each:.0f}; equal images: {equal}")


if __name__ == "__main__":
    main()
