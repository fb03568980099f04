from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from matplotlib.path import Path
from scipy.ndimage import convolve

from ganstudy.gan.datasets import DATASETS, SPLITS
from ganstudy.gan.datasets.polygons import draw_polygons, rasterize

PUBLISHED = "dd767e55879507733c333b83957af57b5c4cfcd2a6c9a14ec8c456e89e0c8afd"
"""sha256 of the levels of all 80,000 images, as the recipe below drew them, one by one."""


def recipe(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, 28, 28) float64 and vertices (n, 3, 2): the published generator, slowly.

    Image by image, with the libraries that the published code calls.
    """
    rng = np.random.RandomState(seed)
    images, corners = np.zeros((n, 28, 28)), np.zeros((n, 3, 2))
    segment, least = 360.0 / 3, 20
    grid = np.mgrid[0:224, 0:224].reshape(2, -1).T
    for index in range(n):
        degrees = np.array(
            [i * segment + least / 2.0 + rng.rand() * (segment - least / 2.0) for i in range(3)]
        )
        radians = degrees * np.pi / 180.0
        unit = (np.column_stack((np.cos(radians), np.sin(radians))) + 1.0) / 2.0
        theta = np.radians(rng.rand() * 2 * np.pi)
        turn = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
        vertices = np.dot(unit, turn) * (28 * 0.75)
        vertices += 28 / 2.0 - vertices.mean(axis=0)
        inside = Path(vertices * 8).contains_points(grid).reshape(224, 224)
        mask = np.array(~inside, dtype=np.float32)
        images[index] = convolve(mask, np.ones((8, 8)), mode="constant", cval=1.0)[::8, ::8] / 64
        corners[index] = vertices
    order = rng.permutation(n)
    return images[order], corners[order]


def test_equal_to_the_published_recipe_bit_for_bit():
    images, vertices = recipe(300)
    drawn = draw_polygons(300)
    assert np.array_equal(drawn.levels / 64, images)
    # A product of two matrices may round otherwise than a sum of two products.
    assert np.allclose(drawn.vertices, vertices, rtol=0, atol=1e-13)


@pytest.mark.slow
def test_equal_to_the_published_recipe_on_thousands():
    assert np.array_equal(draw_polygons(5000).levels / 64, recipe(5000)[0])
    assert np.array_equal(draw_polygons(1000, seed=7).levels / 64, recipe(1000, seed=7)[0])


@pytest.mark.slow
def test_equal_to_the_whole_published_set():
    levels = draw_polygons(80_000).levels
    assert hashlib.sha256(levels.tobytes()).hexdigest() == PUBLISHED


def contained(vertices: np.ndarray) -> np.ndarray:
    """Return the levels of one polygon by matplotlib and scipy."""
    grid = np.mgrid[0:224, 0:224].reshape(2, -1).T
    outside = ~Path(vertices * 8).contains_points(grid).reshape(224, 224)
    boxes = convolve(outside.astype(np.float32), np.ones((8, 8)), mode="constant", cval=1.0)
    return boxes[::8, ::8]


def test_any_triangle_is_rastered_as_matplotlib_does():
    rng = np.random.default_rng(0)
    # Of either orientation, many with a part or all of them outside of the image.
    triangles = rng.uniform(-15, 43, (100, 3, 2))
    for triangle, levels in zip(triangles, rasterize(triangles), strict=True):
        assert np.array_equal(levels, contained(triangle))


def test_edges_that_meet_sub_pixels_are_rastered_as_matplotlib_does():
    rng = np.random.default_rng(0)
    # On the grid of sub-pixels: edges along it, through its points, and triangles without area.
    triangles = rng.integers(-8, 232, (150, 3, 2)) / 8
    triangles[:30, 1, 0] = triangles[:30, 0, 0]
    triangles[30:60, 1, 1] = triangles[30:60, 0, 1]
    triangles[60:70, 2] = triangles[60:70, 1]
    for triangle, levels in zip(triangles, rasterize(triangles), strict=True):
        assert np.array_equal(levels, contained(triangle))


def central_angles(vertices: np.ndarray) -> np.ndarray:
    """Return the three central angles of each triangle, (n, 3) in degrees, increasing."""
    around = np.roll(vertices, 1, axis=1)
    sides = np.sort(np.linalg.norm(vertices - around, axis=-1), axis=1)
    # A chord of a circle of radius 10.5; the largest angle is what the others leave.
    smaller = 2 * np.degrees(np.arcsin(sides[:, :2] / 21))
    return np.column_stack((smaller, 360 - smaller.sum(axis=1)))


def test_the_published_least_angle_is_10_degrees_and_the_corrected_one_20():
    # Gaps near the limit are rare: two of four draws must be near the ends of their range.
    published = central_angles(draw_polygons(20_000).vertices).min()
    corrected = central_angles(draw_polygons(20_000, "corrected").vertices).min()
    assert 10 <= published < 12
    assert 20 <= corrected < 22


def test_the_published_rotation_is_a_few_degrees_and_the_corrected_one_any():
    def first_corner(vertices: np.ndarray) -> np.ndarray:
        """Return the direction of the first vertex from the circle's centre, in degrees."""
        a, b, c = vertices.transpose(1, 2, 0)
        # The circumcentre, by the usual determinants.
        d = 2 * (a[0] * (b[1] - c[1]) + b[0] * (c[1] - a[1]) + c[0] * (a[1] - b[1]))
        squares = [(corner**2).sum(axis=0) for corner in (a, b, c)]
        pairs = ((squares[0], b, c), (squares[1], c, a), (squares[2], a, b))
        x = sum(square * (p[1] - q[1]) for square, p, q in pairs) / d
        y = sum(square * (q[0] - p[0]) for square, p, q in pairs) / d
        return np.degrees(np.arctan2(a[1] - y, a[0] - x)) % 360

    # The first vertex lies 10 to 120 degrees round, less the rotation, which turns clockwise.
    published = first_corner(draw_polygons(5000).vertices)
    assert 10 - 2 * np.pi <= published.min() < published.max() <= 120
    corrected = first_corner(draw_polygons(5000, "corrected").vertices)
    counts = np.histogram(corrected, bins=8, range=(0, 360))[0]
    # Uniform: 625 a bin, standard deviation 23.
    assert abs(counts - 625).max() < 120


def test_splits_are_the_published_ones():
    images = [DATASETS.build("polygons", train=60, test=10).images(split) for split in SPLITS]
    levels = draw_polygons(80).levels
    train, select, report = (np.rint(part.numpy()[:, 0] * (64 / 255)) for part in images)
    assert np.array_equal(train, levels[:60])
    assert np.array_equal(report, levels[60:70])
    assert np.array_equal(select, levels[70:])


def test_rounding_keeps_all_levels_and_errs_by_half_a_step_at_most():
    from ganstudy.gan.datasets.polygons import GREYS

    exact = np.arange(65) * (255 / 64)
    assert abs(GREYS - exact).max() == 0.5
    assert len(set(GREYS.tolist())) == 65
    assert (GREYS[0], GREYS[-1]) == (0, 255)


def test_the_seed_and_the_variant_decide_the_images():
    default = DATASETS.build("polygons", train=60, test=10).images("train")
    for options in ({"seed": 1}, {"variant": "corrected"}):
        other = DATASETS.build("polygons", train=60, test=10, **options).images("train")
        assert not torch.equal(default, other)
