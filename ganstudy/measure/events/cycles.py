"""A statistical test for a cycle in a series of readings, and the windows that it looks at."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc

Array = NDArray[np.float64]

PERIODS = 2.8
"""Least number of periods in a window: three, with room for the coarse grid of long windows."""
SHORTEST = 3.0
"""Readings of the shortest period."""
HARMONICS = 3
"""Harmonics that belong to a cycle, the fundamental included: modes taken in turn are no sine."""
FINE = 4
"""Frequencies of the grid per 1 / readings."""
LONG = 24
"""Readings from which on the trend of a window is a parabola, not a line."""
SUPPORTS_HARMONICS = 20
"""Readings from which on a window supports harmonics."""
HOPELESS = 0.4
"""Share of the variation at a frequency and its harmonics below which no fit is tried."""
REFINED = 1e-2
"""Probability of a peak below which its frequency is refined."""
PHIS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97, 0.99)
"""Coefficients of autoregressive noise that a cycle is compared with."""
LEAST = 9
"""Readings of the shortest series that is tested."""


class Cycle(NamedTuple):
    """A swing that repeats.

    Attributes:
        period: In the unit of `times`.
        correlation: Share of the variation about the trend that repeats with the period.
        log_p: Natural logarithm of the probability of such a peak in noise, before any correction
            for the number of tests.
        first: Width of the swing in the first third of the window, of the component that swings
            most.
        last: Its width in the last third.
        ratio: Amplitude of all components together in the last third over that in the first.
        ratio_error: Standard error of the ratio.
        readings: Readings in the window.
        frequencies: Independent frequencies that were searched.
    """

    period: float
    correlation: float
    log_p: float
    first: float
    last: float
    ratio: float
    ratio_error: float
    readings: int
    frequencies: float


class Pyramid:
    """The last readings of one series at full resolution, and longer windows at coarser ones.

    Each level holds the same number of readings; each reading of a level is the mean of two of
    the level below. So memory grows with the logarithm of the run's length only, and every period
    from a few readings up to a third of the run fits into some level.
    """

    def __init__(self, window: int) -> None:
        """Start with nothing seen; `window` readings are kept at each level."""
        self.window = window
        self._levels: list[Resolution] = []

    def add(self, at: int, values: Sequence[float]) -> Iterator[tuple[int, Resolution]]:
        """Take a reading; yield the levels that are due for a look, each with its number."""
        time, vector = float(at), np.asarray(values, dtype=np.float64)
        number = 0
        while True:
            if number == len(self._levels):
                self._levels.append(Resolution(self.window))
            level = self._levels[number]
            if level.append(time, vector):
                yield number, level
            if level.pending is None:
                level.pending = time, vector
                return
            (before, other), level.pending = level.pending, None
            time, vector = (before + time) / 2, (other + vector) / 2
            number += 1


class Resolution:
    """The last readings at one resolution."""

    def __init__(self, window: int) -> None:
        """Start with nothing seen."""
        self.times: deque[float] = deque(maxlen=window)
        self.vectors: deque[Array] = deque(maxlen=window)
        self.pending: tuple[float, Array] | None = None
        """A reading that waits for its neighbour, whose mean the level above takes."""
        self.seen = 0
        self._due = LEAST

    def append(self, time: float, vector: Array) -> bool:
        """Take a reading; return whether enough are new for a look: a sixteenth of the window."""
        self.times.append(time)
        self.vectors.append(vector)
        self.seen += 1
        if self.seen < self._due:
            return False
        self._due = self.seen + max(1, len(self.times) // 16)
        return True


def find_cycle(times: Sequence[float], series: Sequence[Array]) -> Cycle | None:
    """Return the strongest cycle in a series of vectors, None where none stands out at all.

    The readings are modelled as a polynomial trend, a sine whose amplitude changes linearly, its
    harmonics, and noise that is autoregressive of order 1 (a red background). The peak is compared
    with the spectrum of that noise at its frequency: their ratio has approximately an F
    distribution, whose denominator's degrees of freedom are those of the estimated spectrum.

    Args:
        times: When the readings were taken, ascending.
        series: The readings, n vectors of (components,), finite.
    """
    x = np.asarray(series, dtype=np.float64)
    n = len(x)
    if n < LEAST:
        return None
    scale = float(np.abs(x).max())
    if not 0 < scale < math.inf:
        return None
    t = np.asarray(times, dtype=np.float64)
    step = (t[-1] - t[0]) / (n - 1)
    grid = _grid(tuple(np.round((t - t[0]) / step, 6).tolist()))
    x = x / scale
    x = x - grid.trend @ (grid.trend.T @ x)
    total = float((x**2).sum())
    if total <= n * 1e-12:  # rounding
        return None
    shares = (np.abs(grid.waves @ x) ** 2).sum(axis=1) * (2 / (n * total))
    fits = [_fit(grid.times, x, f, total) for f in _candidates(grid, shares)]
    best = min((fit for fit in fits if fit is not None), key=lambda c: c.log_p, default=None)
    if best is None:
        return None
    return best._replace(
        period=best.period * step, first=best.first * scale, last=best.last * scale
    )


class _Grid(NamedTuple):
    """What depends on the times of the readings only."""

    times: tuple[float, ...]
    """In units of their mean distance, from 0 on."""
    trend: Array
    """Orthonormal polynomials, (n, degree + 1)."""
    waves: NDArray[np.complex128]
    """exp(-2 pi i f t), (frequencies, n)."""
    lowest: int
    """Index of the lowest frequency of which enough periods fit into the window."""
    highest: int


class _Model(NamedTuple):
    """What depends on the times and on the frequency only.

    Attributes:
        design: Columns that are fitted, (n, columns).
        inverse: Its pseudo-inverse, (columns, n).
        squares: Expected sum of squared residuals under noise of variance 1, for each of `PHIS`.
        correlations: Expected correlation of neighbouring residuals, for each of `PHIS`.
    """

    design: Array
    inverse: Array
    squares: Array
    correlations: Array


@functools.lru_cache(maxsize=256)
def _grid(times: tuple[float, ...]) -> _Grid:
    n = len(times)
    t = np.array(times)
    trend = np.linalg.qr(np.vander(2 * t / t[-1] - 1, 3 if n >= LONG else 2))[0]
    frequencies = np.arange(FINE * n // 2 + 1) / (FINE * n)
    waves = np.exp(-2j * np.pi * frequencies[:, None] * t)
    lowest, highest = math.ceil(PERIODS * FINE - 1e-9), math.floor(FINE * n / SHORTEST + 1e-9)
    return _Grid(times, trend, waves, lowest, highest)


def _orders(n: int) -> range:
    """Return which harmonics a window of n readings supports."""
    return range(1, (HARMONICS if n >= SUPPORTS_HARMONICS else 1) + 1)


def _candidates(grid: _Grid, shares: Array) -> list[float]:
    """Return frequencies that may be the fundamental one: the peak, and what it is harmonic of.

    Frequencies that explain far too little are left out, which saves most of the time.
    """
    n = len(grid.times)
    if grid.lowest > grid.highest:
        return []
    peak = grid.lowest + int(shares[grid.lowest : grid.highest + 1].argmax())
    found = []
    for order in _orders(n):
        index = peak / order
        harmonics = [round(index * h) for h in _orders(n) if index * h < len(shares) - 0.5]
        if index >= grid.lowest and shares[harmonics].sum() > HOPELESS:
            found.append(index / (FINE * n))
    return found


def _design(times: tuple[float, ...], frequency: float) -> Array:
    """Return the columns that are fitted: the sine, its change, its harmonics and the trend."""
    t, n = np.array(times), len(times)
    u, w = 2 * t / t[-1] - 1, 2 * math.pi * frequency
    cos, sin = np.cos(w * t), np.sin(w * t)
    columns = [cos, sin, u * cos, u * sin]
    for order in _orders(n)[1:]:
        above = order * frequency - 0.5
        if above < 0.5 / n:
            columns.append(np.cos(order * w * t))
        if above < -0.5 / n:  # at half a cycle per reading the sine is nothing
            columns.append(np.sin(order * w * t))
    return np.column_stack([*columns, _grid(times).trend])


@functools.lru_cache(maxsize=512)
def _model(times: tuple[float, ...], frequency: float) -> _Model:
    design = _design(times, frequency)
    basis = np.linalg.qr(design)[0]
    squares, lagged = np.array([_residual_moments(basis, phi) for phi in PHIS]).T
    correlations = np.maximum.accumulate(lagged / squares)
    inverse = np.asarray(np.linalg.pinv(design), dtype=np.float64)
    return _Model(design, inverse, squares, correlations)


def _residual_moments(basis: Array, phi: float) -> tuple[float, float]:
    """Return the expected sums of squares and of lagged products of the residuals of a fit.

    Args:
        basis: Orthonormal, of the space that the fit takes away, (n, columns).
        phi: Coefficient of the noise, whose variance is 1.
    """
    n = len(basis)
    spread = _covariance(n, phi) @ basis
    inner = basis @ (basis.T @ spread)
    square = n - float((basis * spread).sum())
    lagged = (n - 1) * phi + float(
        (inner[:-1] * basis[1:]).sum()
        - (spread[:-1] * basis[1:]).sum()
        - (basis[:-1] * spread[1:]).sum()
    )
    return square, lagged


@functools.lru_cache(maxsize=64)
def _covariance(n: int, phi: float) -> Array:
    lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    return np.asarray(phi**lags, dtype=np.float64)


def _fit(times: tuple[float, ...], x: Array, frequency: float, total: float) -> Cycle | None:
    """Fit one frequency to detrended readings and compare its power with the noise around it."""
    model, n = _model(times, frequency), len(x)
    freedom = n - model.design.shape[1]
    if freedom < 1:
        return None
    beta = model.inverse @ x
    rest = x - model.design @ beta
    now, change = _amplitudes(beta)
    size = float((np.abs(now) ** 2).sum())
    level, dof = _background(rest, model, 2 * math.pi * frequency)
    dimensions = _dimensions(rest, freedom)
    excess = size * n / 4 / max(level, 1e-12 * total)
    p = float(fdtrc(2 * dimensions, dof * dimensions, excess))
    if p < REFINED:
        # A phase that drifts over the window is a frequency beside that of the grid.
        frequency += float((change * now.conj()).imag.sum()) / size / math.pi / times[-1]
        design = _design(times, frequency)
        beta = np.asarray(np.linalg.lstsq(design, x, rcond=None)[0], dtype=np.float64)
        rest = x - design @ beta
        freedom = n - design.shape[1]
        now, change = _amplitudes(beta)
    left = float((rest**2).sum())
    # The change has three times the variance of the mean amplitude, which is 2 / n of the noise's.
    noise = 6 * left / (max(1, freedom) * x.shape[1] * n)
    first, last = np.abs(now - 2 / 3 * change), np.abs(now + 2 / 3 * change)
    widest = int(np.abs(now).argmax())
    before, after = float(np.linalg.norm(first)), float(np.linalg.norm(last))
    return Cycle(
        period=1 / frequency,
        correlation=1 - left / total,
        log_p=math.log(max(p, 1e-300)),
        first=2 * float(first[widest]),
        last=2 * float(last[widest]),
        ratio=after / before if before > 0 else math.inf,
        ratio_error=4 / 3 * math.sqrt(noise) / float(np.linalg.norm(now)),
        readings=n,
        frequencies=max(1.0, n * (1 / SHORTEST - PERIODS / n)),
    )


def _amplitudes(beta: Array) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Return each component's amplitude in the middle of the window, and its change."""
    return beta[0] - 1j * beta[1], beta[2] - 1j * beta[3]


def _background(rest: Array, model: _Model, w: float) -> tuple[float, float]:
    """Return the noise's power at angular frequency `w`, and the degrees of freedom it has.

    The noise is autoregressive of order 1, with the coefficient under which the residuals of this
    design are expected to be as correlated as they are: the fit itself takes low frequencies away.
    Noise is never taken to be weaker than white noise of the same energy. The delta method gives
    the variance of the logarithm of the spectrum, 2 / degrees of freedom for a chi-squared mean.
    """
    freedom = len(rest) - model.design.shape[1]
    energy = float((rest**2).sum())
    seen = float((rest[1:] * rest[:-1]).sum()) / energy if energy > 0 else 0.0
    phi = float(np.interp(seen, model.correlations, PHIS))
    variance = energy / float(np.interp(phi, PHIS, model.squares))
    damping = 1 + phi**2 - 2 * phi * math.cos(w)
    level = max(variance * (1 - phi**2) / damping, energy / freedom)
    slope = (2 * math.cos(w) - 2 * phi) / damping
    return level, freedom / (1 + slope**2 * (1 - phi**2) / 2)


def _dimensions(rest: Array, freedom: int) -> float:
    """Return of how many independent components the noise is, from its covariance.

    This is (trace C)^2 / trace C^2 with the estimate of the denominator that is unbiased for few
    normal readings (Bai & Saranadasa 1996): with n readings the plain one is less than n.
    """
    components = rest.shape[1]
    if components == 1 or freedom < 2:
        return 1.0
    covariance = rest.T @ rest / freedom
    trace, square = float(np.trace(covariance)), float((covariance**2).sum())
    unbiased = (square - trace**2 / freedom) * freedom**2 / ((freedom - 1) * (freedom + 2))
    if trace == 0:
        return 1.0
    return trace**2 / max(unbiased, trace**2 / components)
