"""Made traces: one trial's points, probes and reads at 0, 100, 200 ..."""

from __future__ import annotations

from ganstudy.measure.events import DETECTORS, replay
from ganstudy.records import Event, Point

EVERY = 100


def points(series: dict[str, list[float]]) -> list[Point]:
    """Return points read together, in the order of `series`; None is left out."""
    length = max(len(values) for values in series.values())
    return [
        Point(name, EVERY * i, EVERY * i, 6400 * i, float(i), values[i])
        for i in range(length)
        for name, values in series.items()
        if i < len(values)
    ]


def events(kind: str, series: dict[str, list[float]], **options: object) -> list[Event]:
    """Return what the detector of `kind` makes of the series."""
    return replay(points(series), [DETECTORS.build(kind, **options)])


def probes(
    score: list[float], error: float = 1.0, **values: list[float]
) -> dict[str, list[float]]:
    """Return the series of probes: named values, then the standard error and the score."""
    series = {f"probe/{name.replace('__', '/')}": v for name, v in values.items()}
    series["probe/frechet_distance_se"] = [error] * len(score)
    return series | {"probe/frechet_distance": score}


FALLING = [2000.0, 900.0, 400.0, 200.0, 120.0, 90.0, 80.0, 75.0, 70.0, 68.0, 66.0, 65.0]
HEALTHY = {
    "generator_loss": [0.7, 0.9, 1.1, 1.0, 1.2, 1.1, 1.0, 1.1, 1.2, 1.0, 1.1, 1.2],
    "discriminator_loss": [1.4, 1.2, 1.1, 1.2, 1.1, 1.2, 1.2, 1.1, 1.2, 1.2, 1.1, 1.2],
    "real_logits_mean": [0.0, 0.5, 0.8, 0.7, 0.9, 0.8, 0.9, 0.7, 0.8, 0.9, 0.8, 0.8],
    "fake_logits_mean": [0.0, -0.5, -0.7, -0.8, -0.9, -0.7, -0.8, -0.8, -0.7, -0.9, -0.8, -0.7],
    "discriminator_auc": [0.5, 0.99, 0.99, 0.98, 0.97, 0.97, 0.96, 0.97, 0.97, 0.96, 0.97, 0.96],
    "generator_logit_slope": [0.5, 0.7, 0.6, 0.6, 0.7, 0.6, 0.6, 0.6, 0.7, 0.6, 0.6, 0.7],
    "discriminator_input_grad_norm": [0.1, 0.5, 0.8, 1.0, 1.1, 1.0, 1.2, 1.1, 1.0, 1.1, 1.2, 1.0],
    "generator_grad_norm": [0.1, 0.5, 0.4, 0.9, 2.0, 0.7, 0.6, 0.8, 0.7, 0.9, 0.5, 1.5],
    "discriminator_grad_norm": [0.1, 0.5, 0.4, 0.9, 2.0, 0.7, 0.6, 0.8, 0.7, 0.9, 0.5, 1.5],
    **probes(
        FALLING,
        error=5.0,
        floor=[20.0],
        share__0=[0.0, 0.0, 0.3, 0.6, 0.8, 0.9, 0.9, 1.0, 0.9, 1.0, 0.9, 1.0],
        share__1=[2.0, 1.5, 1.4, 1.2, 1.1, 1.1, 1.1, 1.0, 1.1, 1.0, 1.1, 1.0],
        effective_modes=[0.1, 0.2, 0.5, 0.7, 0.8, 0.85, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9],
        diversity=[0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.9, 0.9, 0.9, 0.9],
        auc=[0.5, 1.0, 1.0, 0.99, 0.98, 0.97, 0.97, 0.96, 0.95, 0.95, 0.95, 0.95],
        checkerboard=[25.0, 12.0, 9.0, 4.0, 3.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        checkerboard_se=[0.5] * 12,
        memorization=[40.0, 20.0, 9.0, 4.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.2, -0.2, -0.3],
    ),
}
