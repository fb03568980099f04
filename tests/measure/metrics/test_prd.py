from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans

from ganstudy.measure import metrics
from ganstudy.measure.metrics import METRICS, Sample
from ganstudy.measure.metrics.order import canonical_order
from ganstudy.measure.metrics.prd import histogram_prd, max_f_beta
from tests.measure.metrics.samples import sample


def distribution(k: int, seed: int):
    return np.random.default_rng(seed).dirichlet(np.ones(k))


def blobs(n: int, kept, seed: int = 0):
    """`n` points around the corners `kept` of a cube of side 20, equally many at each."""
    corners = np.array([[x, y, z] for x in (0, 20) for y in (0, 20) for z in (0, 20)])
    rng = np.random.default_rng(seed)
    return corners[np.resize(kept, n)] + rng.normal(size=(n, 3)) * 0.1


def by_definition(generated, real, slope):
    """alpha(l) = sum over states of min(l p, q), beta = alpha / l, state by state."""
    alpha = sum(min(slope * p, q) for q, p in zip(generated, real, strict=True))
    return alpha, alpha / slope


def test_the_curve_is_the_definition_at_each_slope():
    generated, real = distribution(7, 0), distribution(7, 1)
    generated[2] = 0
    generated /= generated.sum()
    precision, recall = histogram_prd(generated, real, angles=9)
    # Angles of pi / 16, 2 pi / 16, ...: the ends lie 1e-10 within, and slope 1 in the middle.
    for i in range(1, 8):
        expected = by_definition(generated, real, np.tan(i * np.pi / 16))
        assert (precision[i], recall[i]) == pytest.approx(expected, rel=1e-8)
    assert recall[0] == pytest.approx(real[generated > 0].sum(), abs=1e-9)
    assert precision[-1] == pytest.approx(1, abs=1e-9)
    assert precision[4] == pytest.approx(np.minimum(generated, real).sum())


def test_equal_distributions_reach_precision_and_recall_1_at_once():
    p = distribution(5, 0)
    precision, recall = histogram_prd(p, p)
    assert (precision[500], recall[500]) == pytest.approx((1, 1), abs=1e-12)
    assert max(precision.max(), recall.max()) == 1
    slopes = np.tan(np.linspace(1e-10, np.pi / 2 - 1e-10, 1001))
    np.testing.assert_allclose(precision, np.minimum(slopes, 1))


def test_disjoint_distributions_have_no_curve_but_zero():
    precision, recall = histogram_prd(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert precision.max() == recall.max() == max_f_beta(precision, recall, 8) == 0


@pytest.mark.parametrize(("lost", "best"), [(2, (1, 0.6)), (4, (1, 0.2))])
def test_dropped_modes_cost_recall_and_invented_ones_precision(lost, best):
    real = np.full(5, 0.2)
    kept = np.where(np.arange(5) < lost, 0, 1 / (5 - lost))
    precision, recall = histogram_prd(kept, real, angles=100_001)
    at = (precision > 1 - 1e-4).argmax()
    assert (precision[at], recall[at]) == pytest.approx(best, abs=1e-3)
    assert recall.max() == pytest.approx(best[1])
    invented = histogram_prd(real, kept, angles=100_001)
    np.testing.assert_allclose(invented, (recall[::-1], precision[::-1]), rtol=1e-5)


def test_f_8_weighs_recall_and_f_1_8_precision():
    # The curve of kept modes is the corner (1, r): F_beta there is (1 + b^2) r / (b^2 + r).
    kept, real = np.array([1.0, 0.0, 0.0, 0.0]), np.full(4, 0.25)
    curve = histogram_prd(kept, real, angles=100_001)
    assert max_f_beta(*curve, 8) == pytest.approx(65 * 0.25 / 64.25, rel=1e-4)
    assert max_f_beta(*curve, 1 / 8) == pytest.approx((65 / 64) * 0.25 / (1 / 64 + 0.25), rel=1e-4)
    assert max_f_beta(*curve, 8) < 0.26 < 0.95 < max_f_beta(*curve, 1 / 8)


def test_samples_that_lose_modes_have_the_curve_of_their_shares():
    real, made = blobs(400, range(8)), blobs(400, range(6), seed=1)
    # Within a corner clusters split what both samples share: as many clusters as corners.
    precision, recall = metrics.prd_curve(made, real, clusters=8)
    assert recall.max() == pytest.approx(6 / 8, abs=1e-9)
    assert precision.max() == 1
    # Equal shares of six corners and none of two: precision 1 from slope 8 / 6 on.
    shares = (np.repeat([1 / 6, 0], [6, 2]), np.full(8, 1 / 8))
    # 400 points deal out 66 or 67 to a corner.
    np.testing.assert_allclose((precision, recall), histogram_prd(*shares), atol=2 * 67 / 400 / 66)


def test_two_samples_of_one_distribution_are_near_the_corner():
    f_8 = METRICS.build("prd_f8")(sample(600), sample(600, seed=1)).value
    # 0.985 to 0.989 over six pairs of samples: the noise of shares of 20 clusters.
    assert 0.97 < f_8 < 0.995


def test_swapped_samples_swap_precision_and_recall():
    x, y = Sample(sample(100)), Sample(sample(100, seed=1, scale=0.7))
    there, back = metrics.prd_curve(x, y), metrics.prd_curve(y, x)
    np.testing.assert_allclose(there, (back[1][::-1], back[0][::-1]), rtol=1e-6)
    for one, other in (("prd_f8", "prd_f1_8"), ("prd_f1_8", "prd_f8")):
        score = METRICS.build(one)(x, y).value
        assert METRICS.build(other)(y, x).value == pytest.approx(score, rel=1e-6)


def test_the_curve_agrees_with_the_published_recipe():
    """Vertically stacked samples, unseeded minibatch k-means, the mean over ten runs."""
    x, y = sample(500, scale=0.8), sample(500, seed=1)
    curves = []
    for seed in range(100, 110):
        k_means = MiniBatchKMeans(20, n_init=10, batch_size=100, random_state=seed)
        labels = k_means.fit(np.vstack([x, y])).labels_
        shares = (np.bincount(part, minlength=20) / 500 for part in (labels[:500], labels[500:]))
        curves.append(histogram_prd(*shares))
    theirs = np.mean(curves, axis=0)
    # One clustering's curve has a deviation of 0.023 at most, the difference of two means of ten
    # one of 0.010: three of those.
    np.testing.assert_allclose(metrics.prd_curve(x, y), theirs, atol=0.03)


def test_the_larger_sample_has_no_more_say():
    made, real = sample(200, seed=1, shift=1.5), sample(200, seed=10)
    plain = metrics.prd_curve(made, real)
    # The same real points twenty times over: clusters that follow them move it by 0.38, and the
    # seeds of the clusterings by 0.02.
    repeated = metrics.prd_curve(made, np.repeat(real, 20, axis=0))
    np.testing.assert_allclose(repeated, plain, atol=0.1)


def test_the_global_seed_and_the_order_of_rows_change_nothing():
    x, y = sample(200), sample(200, seed=1, shift=0.3)
    known = metrics.prd_curve(x, y, runs=2)
    np.random.seed(7)  # noqa: NPY002
    shuffled = [np.random.default_rng(s).permutation(z) for s, z in enumerate((x, y))]
    np.testing.assert_array_equal(metrics.prd_curve(*shuffled, runs=2), known)


def test_canonical_order_is_one_of_all_rows():
    x = np.random.default_rng(0).integers(3, size=(50, 2, 2)).astype(float)
    mixed = np.random.default_rng(1).permutation(x)
    assert sorted(canonical_order(x)) == list(range(50))
    np.testing.assert_array_equal(x[canonical_order(x)], mixed[canonical_order(mixed)])


def test_both_scores_share_one_clustering():
    made, real = Sample(sample(100)), Sample(sample(100, seed=1))
    curve = metrics.prd_curve(made, real)
    for name, beta in (("prd_f8", 8), ("prd_f1_8", 1 / 8)):
        metric = METRICS.build(name)
        assert metric(made, real).value == max_f_beta(*curve, beta)
        (line,) = metric.curves(made, real)
        assert line.x is curve[1]
        assert line.y is curve[0]
        assert (line.x_name, line.y_name) == ("recall (PRD)", "precision (PRD)")
    assert metrics.prd_curve(made, real, clusters=10) is not curve


def test_too_few_samples_for_the_clusters_are_refused():
    with pytest.raises(ValueError, match="20 clusters need more rows .* got 20 generated and 50"):
        metrics.prd_curve(sample(20), sample(50))
    with pytest.raises(ValueError, match="at least 3 angles, got 2"):
        histogram_prd(np.ones(1), np.ones(1), angles=2)
    metric = METRICS.build("prd_f8", clusters=50)
    with pytest.raises(ValueError, match="more samples than its 50 clusters, the splits offer 50"):
        metric.check_size(50, 4)
    metric.check_size(51, 4)
