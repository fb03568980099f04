from __future__ import annotations

import contextlib
import io
import math
import tracemalloc

import numpy as np
import pytest
from prdc import compute_prdc
from scipy.spatial.distance import cdist, pdist

from ganstudy.measure import metrics
from ganstudy.measure.metrics import METRICS, balls, screening
from tests.measure.metrics.samples import sample

NAMES = ("precision", "recall", "density", "coverage")


def by_definition(generated, real, k, inside=np.less_equal):
    """Return the four scores from all distances, told one by one in float64."""

    def radii(x):
        return np.sort(cdist(x, x), axis=1)[:, k]  # column 0 is the row itself

    generated, real = generated.astype(np.float64), real.astype(np.float64)
    distances = cdist(generated, real)
    in_real = inside(distances, radii(real))
    in_generated = inside(distances, radii(generated)[:, None])
    return (
        in_real.any(axis=1).mean(),
        in_generated.any(axis=0).mean(),
        in_real.sum() / (k * len(generated)),
        in_real.any(axis=0).mean(),
    )


def reference(generated, real, k):
    with contextlib.redirect_stdout(io.StringIO()):
        found = compute_prdc(real.astype(np.float64), generated.astype(np.float64), k)
    return tuple(found[name] for name in NAMES)


def network_like(n, d, seed, kind=np.float32):
    """Return features as a network's: not negative, mostly along few directions."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(8, d))
    noise = 0.3 * rng.normal(size=(n, d))
    return np.maximum(rng.normal(size=(n, 8)) @ directions + noise, 0).astype(kind)


@pytest.fixture(params=["float64", "float32"])
def screen(request, monkeypatch):
    """Screen even small samples in float32, and in tiles that do not divide them evenly."""
    if request.param == "float32":
        monkeypatch.setattr(screening, "FLOAT32_FROM", 0)
    monkeypatch.setattr(screening, "TILE", 192)
    return request.param


def test_precision_and_recall_by_hand():
    # Real balls have radius 1 around 0, 1, 2 (k = 1); generated balls have radius 10.
    real, generated = np.array([[0.0], [1.0], [2.0]]), np.array([[0.5], [10.5], [20.5]])
    assert metrics.precision_recall(generated, real, k=1) == (1 / 3, 1.0)
    assert metrics.density_coverage(generated, real, k=1) == (2 / 3, 2 / 3)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "m", "d", "k"), [(300, 250, 8, 5), (250, 400, 70, 3), (9, 8, 6, 6)])
def test_equal_to_the_reference_implementation(screen, kind, n, m, d, k):
    # With few features, what is cut off at 0 leaves rows that repeat: ties.
    draw = network_like if d > 20 else sample
    generated, real = draw(n, d, 0).astype(kind), draw(m, d, 1).astype(kind)
    # Counts over n, m and k n: equal to the last count, but for the rounding of the division.
    assert metrics.prdc(generated, real, k) == pytest.approx(
        reference(generated, real, k), rel=1e-12
    )


TIES = {
    "repeated rows": lambda rng: np.repeat(rng.normal(size=(40, 5)), 5, axis=0),
    "constant features": lambda rng: np.pad(rng.normal(size=(200, 3)), ((0, 0), (0, 4))) + 1e6,
    "a lattice": lambda rng: rng.integers(0, 4, size=(200, 4)).astype(float),
    "pixels": lambda rng: rng.integers(0, 3, size=(200, 36)) / 2.0 - 0.5,
    "all equal": lambda rng: np.full((200, 5), 0.1),
    "two points": lambda rng: np.where(rng.random((200, 1)) < 0.03, 1.0, 0.3) * np.ones(5),
    "two values": lambda rng: np.repeat(rng.normal(size=(2, 5)), (196, 4), axis=0),
    "tight modes": lambda rng: (
        rng.integers(0, 3, (200, 1)) * 16.0 + rng.integers(0, 9, (200, 4)) / 2**18
    ),
    "an outlier": lambda rng: rng.normal(size=(200, 5)) * 1e20 ** (np.arange(200)[:, None] == 7),
}  # fmt: skip


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("which", TIES)
def test_ties_are_decided_as_by_exact_distances(screen, which, kind):
    rng = np.random.default_rng(3)
    x, y = TIES[which](rng).astype(kind), TIES[which](rng).astype(kind)
    x[:30] = y[30:60]  # real rows among the generated ones
    for k in (1, 3, 5):
        assert metrics.prdc(x, y, k) == pytest.approx(by_definition(x, y, k), rel=1e-12)


def test_a_rim_is_inside_as_in_the_paper_and_not_as_in_the_package():
    x = np.arange(12.0)[:, None]
    ours, theirs = metrics.prdc(x, x, 1), reference(x, x, 1)
    assert ours == (1.0, 1.0, 34 / 12, 1.0)  # a ball of k = 1 holds its centre and both sides
    assert theirs == by_definition(x, x, 1, inside=np.less)
    assert theirs[2] == 1.0  # the centre alone: every neighbour is on the rim


def test_an_output_that_repeats_a_real_row_is_at_distance_zero():
    real = sample(50)
    same = np.tile(real[:1], (50, 1))
    precision, recall, density, coverage = metrics.prdc(same, real, 5)
    assert precision == 1.0
    assert recall == 1 / 50  # radius 0: the repeated row itself
    assert coverage == pytest.approx(5 * density / 50)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30, 2.0**-120])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_scale_of_features_is_nothing(screen, scale, kind):
    x, y = network_like(200, 6, 0), network_like(200, 6, 1)
    power = 2.0 ** round(math.log2(scale))  # exact, so that nothing may change
    a, b = (x * kind(power)).astype(kind), (y * kind(power)).astype(kind)
    assert metrics.prdc(a, b) == metrics.prdc(x, y)
    assert metrics.diversity(a, b) == pytest.approx(metrics.diversity(x, y), rel=1e-6)


def test_features_beyond_the_range_of_squares_are_refused():
    with pytest.raises(ValueError, match=r"spread over 1e-100 to 1e100, got 4\.75e\+200"):
        metrics.prdc(sample(20) * 0 + 1e200 * np.arange(20)[:, None] / 2, sample(20))


def test_the_statistics_of_a_sample_are_those_of_all_distances(screen):
    x = network_like(300, 20, 0, np.float64)
    x[5] = x[6]
    found = balls.neighbourhoods(x, 7)
    wanted = np.sort(cdist(x, x), axis=1)[:, 1:8]
    # Squares of float64 sums of 20 terms against scipy's roots of such sums.
    np.testing.assert_allclose(np.sqrt(found["squares"]), wanted, rtol=1e-14)
    rounding = {"float64": 1e-13, "float32": 1e-7}[screen]
    assert float(found["mean_distance"]) == pytest.approx(pdist(x).mean(), rel=rounding)


def test_bounds_hold_and_are_of_the_size_of_rounding():
    for scale, seed in ((1.0, 0), (1e-3, 1), (40.0, 2)):
        x, y = network_like(200, 300, seed), network_like(150, 300, seed + 9) * np.float32(scale)
        screen = screening.Screen(x, y)
        truth = cdist(x.astype(np.float64), y.astype(np.float64), "sqeuclidean") * screen.unit
        (left,), (right,) = screen.left, screen.right
        for tile, rounding in zip(screen.tiles(left, right), (1e-4, 1e-12), strict=False):
            slack = tile.left.slack[:, None].astype(float) + tile.right.slack
            assert (tile.lower <= truth).all()
            assert (truth <= tile.lower + 2 * slack).all()
            assert (slack <= rounding * (truth.max() + truth)).all()


def test_an_exact_distance_is_the_same_wherever_it_is_asked_for():
    x = network_like(300, 37, 0)
    i, j = (np.random.default_rng(s).integers(0, 300, 2000) for s in (0, 1))
    many = screening.exact_squares(x, x, i, j)
    np.testing.assert_array_equal(many, screening.exact_squares(x, x, j, i))
    one_by_one = [screening.exact_squares(x[a : a + 1], x[b : b + 1], *np.zeros((2, 1), int))
                  for a, b in zip(i, j, strict=True)]  # fmt: skip
    np.testing.assert_array_equal(many, np.concatenate(one_by_one))
    np.testing.assert_allclose(many, ((x[i].astype(float) - x[j]) ** 2).sum(1), rtol=1e-14)


def test_order_of_rows_is_nothing_and_exchange_swaps_precision_and_recall(screen):
    x, y = network_like(250, 12, 0), network_like(200, 12, 1)
    mixed = np.random.default_rng(0).permutation(200)
    for k in (1, 4):
        found = metrics.prdc(x, y, k)
        assert metrics.prdc(x, y[mixed], k) == found
        assert metrics.prdc(y, x, k)[:2] == (found.recall, found.precision)


def test_precision_falls_with_quality_and_recall_with_variety():
    real = sample(400)
    far = metrics.precision_recall(sample(400, seed=1, shift=5), real)
    narrow = metrics.precision_recall(sample(400, seed=1, scale=0.2), real)
    assert far[0] < 0.1
    assert narrow[0] > 0.9
    assert narrow[1] < 0.3


def test_dropped_modes_cost_recall_and_coverage_and_not_precision():
    rng = np.random.default_rng(0)
    centres = 8.0 * np.eye(8)

    def drawn(modes):
        return centres[rng.integers(0, modes, 800)] + 0.5 * rng.normal(size=(800, 8))

    real = drawn(8)
    found = [metrics.prdc(drawn(modes), real) for modes in (8, 6, 4, 2, 1)]
    for kept, score in zip((8, 6, 4, 2, 1), found, strict=True):
        assert score.recall <= kept / 8 + 0.05  # the real share of a mode is 1/8 +- 0.012
        assert score.coverage <= kept / 8 + 0.05
        assert score.precision >= found[0].precision - 0.05
    assert sorted(found, key=lambda s: -s.recall) == found
    assert sorted(found, key=lambda s: -s.coverage) == found


@pytest.mark.parametrize(("n", "m"), [(300, 200), (150, 450)])
def test_coverage_and_density_of_two_samples_of_one_distribution(n, m):
    k = 5
    found = [
        metrics.density_coverage(sample(n, 4, s), sample(m, 4, s + 999), k) for s in range(40)
    ]
    density, coverage = np.mean(found, axis=0)
    # N of the closed form is the real m, M the generated n; exchanged it would be 0.27 off or
    # more. Simulated spread of the mean of 40: 0.003 and 0.006.
    expected = 1 - math.prod((m - i) / (n + m - i) for i in range(1, k + 1))
    assert coverage == pytest.approx(expected, abs=0.012)
    assert density == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", ["precision", "density"])
def test_standard_errors_are_the_spread_over_generated_samples(name):
    real, metric = metrics.Sample(sample(150, 3)), METRICS.build(name)
    scores = [metric(sample(150, 3, s, shift=0.4), real) for s in range(1, 201)]
    stated = np.sqrt(np.mean([score.standard_error**2 for score in scores]))
    # A standard deviation of 200 draws is known to 5 %.
    assert stated == pytest.approx(np.std([score.value for score in scores], ddof=1), rel=0.2)


@pytest.mark.parametrize("name", ["recall", "coverage"])
def test_no_standard_error_is_made_up(name):
    assert math.isnan(METRICS.build(name)(sample(50), sample(50, seed=1)).standard_error)


def test_density_of_a_sample_against_itself():
    x = sample(100)
    for k in (1, 5):
        assert METRICS.build("density", k=k)(x, x).value == pytest.approx((k + 1) / k)
    assert METRICS.get("density").identity_value is None


@pytest.mark.parametrize(
    "score", [metrics.precision_recall, metrics.density_coverage, metrics.prdc]
)
@pytest.mark.parametrize(("n", "m", "k"), [(5, 20, 5), (20, 5, 5), (20, 20, 0), (20, 20, -1)])
def test_k_needs_more_rows_than_neighbours(score, n, m, k):
    with pytest.raises(ValueError, match=rf"k = {k} nearest neighbours need 1 <= k < {min(n, m)}"):
        score(sample(n), sample(m), k)
    if k > 0:
        score(sample(n + 1), sample(m + 1), k)


def test_all_scores_of_two_samples_share_their_passes(monkeypatch):
    passes = []
    for name in ("neighbourhoods", "overlap"):
        real_pass = getattr(metrics.neighbours, name)
        monkeypatch.setattr(
            metrics.neighbours,
            name,
            lambda *args, f=real_pass, n=name: passes.append(n) or f(*args),
        )
    built = [METRICS.build(name) for name in (*NAMES, "diversity")]
    real = metrics.Sample(sample(60))
    for metric in built:
        metric.prepare(real)
    assert passes == ["neighbourhoods"]
    generated = metrics.Sample(sample(60, seed=1))
    scores = {metric.name: metric(generated, real).value for metric in built}
    assert passes == ["neighbourhoods", "neighbourhoods", "overlap"]
    plain = by_definition(sample(60, seed=1), sample(60), 3)
    assert (scores["precision"], scores["recall"]) == plain[:2]
    passes.clear()
    metrics.prdc(sample(60, seed=1), sample(60))
    assert sorted(passes) == ["neighbourhoods", "neighbourhoods", "overlap"]
    assert METRICS.build("precision", k=9)(generated, real).value >= scores["precision"]


def test_diversity_is_scale_and_zero_for_a_constant():
    x = sample(100)
    assert metrics.diversity(3 * x, x) == pytest.approx(3)
    assert metrics.diversity(np.full((50, 4), 0.1), x) == 0
    assert metrics.diversity(x, np.ones((50, 4))) == math.inf
    assert metrics.diversity(np.zeros((2, 4)), np.ones((50, 4))) == 1
    assert metrics.diversity(sample(2), sample(3)) > 0


def test_memory_does_not_grow_with_the_product_of_the_sizes():
    x, y = network_like(4096, 16, 0), network_like(4096, 16, 1)
    tracemalloc.start()
    try:
        metrics.prdc(x, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4096 * 4096 * 4 / 2  # half of one matrix of all pairs in float32
