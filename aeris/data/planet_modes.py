"""The hidden modes of the simulated planet and their law: damped, rotating Ornstein-Uhlenbeck processes.

Each spherical-harmonic coefficient of each hidden field obeys

    da = (-1/τ + iω) a dt + σ √(2/τ) dW,

and is advanced over any interval Δ without error (Gillespie 1996, doi:10.1103/PhysRevE.54.2084; ω turns its phase):

    a(t+Δ) = exp((-1/τ + iω) Δ) a(t) + √(1 - exp(-2Δ/τ)) σ ε,    ε standard normal.

The numbers are chosen so that deviations and six-hourly changes are those of the earth's weather (see `tests/data/test_planet.py`).

Symbols
    l, m  degree and order      Ω, a  rotation rate and radius      M = 5  hidden fields      N  packed harmonic coefficients
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aeris.data.spherical import RADIUS, ROTATION, degree_order

HIDDEN_FIELDS = ("streamfunction_1", "streamfunction_2", "streamfunction_3", "humidity", "sea_surface_temperature")
"""The hidden fields in their order: three vertical modes of the streamfunction (m² s⁻¹), logit of relative humidity, K."""

_DAY = 86400.0


@dataclass(frozen=True, eq=False)
class Modes:
    """The law of the hidden modes.

    A coefficient of order m > 0 has E|a|² = σ², shared equally by its real and its imaginary part; one of order 0 is real.

    Attributes:
        degree: Degree of each packed coefficient, shape ``(N,)``.
        order: Order of each packed coefficient, shape ``(N,)``.
        damping_time: τ in s, shape ``(M, N)``.
        frequency: ω in rad s⁻¹, shape ``(M, N)``; a wave of order m travels eastward at -ω/m.
        deviation: Stationary standard deviation σ, shape ``(M, N)``.
    """

    degree: np.ndarray
    order: np.ndarray
    damping_time: np.ndarray
    frequency: np.ndarray
    deviation: np.ndarray

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Independent draws from the stationary distribution, complex128 of shape ``(count, M, N)``."""
        parts = rng.standard_normal((count, *self.deviation.shape, 2))
        parts *= (self.deviation * np.where(self.order > 0, np.sqrt(0.5), 1.0))[..., None]
        parts[..., 1] *= self.order > 0
        return parts.view(np.complex128)[..., 0]

    def transition(self, interval: np.timedelta64) -> tuple[np.ndarray, np.ndarray]:
        """What advances the modes by `interval`: the factor of the present, and that of a stationary draw, each ``(M, N)``."""
        seconds = interval / np.timedelta64(1, "s")
        decay = np.exp(-seconds / self.damping_time)
        return decay * np.exp(1j * self.frequency * seconds), np.sqrt(1 - decay**2)


def modes_of(truncation: int) -> Modes:
    """The law of all hidden fields to a triangular truncation."""
    degree, order = degree_order(truncation)
    laws = [
        _rossby_waves(degree, order, rms=1.65e7, speed=20.0, stretching=8.0),
        _rossby_waves(degree, order, rms=9.5e6, speed=16.0, stretching=30.0),
        _rossby_waves(degree, order, rms=3.2e6, speed=12.0, stretching=80.0),
        _tracer(degree, order, rms=0.9, scale=8.0, days=2 + 4 * np.exp(-((degree / 14) ** 2)), speed=10.0),
        _tracer(degree, order, rms=1.0, scale=5.0, days=np.full(len(degree), 60.0), speed=0.0),
    ]
    damping_time, frequency, deviation = (np.stack(part) for part in zip(*laws, strict=True))
    for field in range(3):  # the balanced geopotential is one degree higher and must fit the truncation too
        deviation[field, degree == truncation] = 0
    return Modes(degree, order, damping_time, frequency, deviation)


class _Law(NamedTuple):
    damping_time: np.ndarray
    frequency: np.ndarray
    deviation: np.ndarray


def _rossby_waves(degree: np.ndarray, order: np.ndarray, rms: float, speed: float, stretching: float) -> _Law:
    """A vertical mode of the streamfunction.

    Rossby-Haurwitz waves on a superrotating sphere (Haurwitz 1940, J. Marine Res. 3, 254-267) travel eastward at the angular speed
    U/a - 2 (Ω + U/a) / (l(l+1) + F); F is the squared ratio of radius to deformation radius. Kinetic energy at degree l is
    (l/5)² (1 + (l/5)²)^-5/2, which falls with the third power at small scales as that of the atmosphere does (Boer and Shepherd
    1983, doi:10.1175/1520-0469(1983)040<0164:LSTDTI>2.0.CO;2). Large waves live 14 days, small ones 4.

    Args:
        degree: l of each coefficient.
        order: m of each coefficient.
        rms: Deviation of the streamfunction over the globe, m² s⁻¹, before the storm track.
        speed: U, speed of the mean flow at the equator, m s⁻¹.
        stretching: F.
    """

    def variance(n: np.ndarray) -> np.ndarray:
        ratio = (n / 5) ** 2
        return ratio * (1 + ratio) ** -2.5 / (n * (n + 1))

    turning = speed / RADIUS
    frequency = -order * (turning - 2 * (ROTATION + turning) / (degree * (degree + 1) + stretching))
    damping_time = _DAY * (4 + 10 * np.exp(-((degree / 14) ** 2)))
    return _Law(damping_time, frequency, rms * _deviation(degree, variance))


def _tracer(degree: np.ndarray, order: np.ndarray, rms: float, scale: float, days: np.ndarray, speed: float) -> _Law:
    """A field that drifts eastward, with variance (1 + (l/scale)²)^-3/2 at degree l.

    Args:
        degree: l of each coefficient.
        order: m of each coefficient.
        rms: Deviation of the field over the globe.
        scale: Degree at which the spectrum bends.
        days: τ of each coefficient in days.
        speed: Speed of the drift at the equator, m s⁻¹.
    """
    return _Law(_DAY * days, -order * speed / RADIUS, rms * _deviation(degree, lambda n: (1 + (n / scale) ** 2) ** -1.5))


def _deviation(degree: np.ndarray, variance: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """σ of each coefficient, for a variance by degree that sums to one over degrees 1 to 200, whatever the truncation.

    A field of orthonormal harmonics has the variance Σ (2l+1) σ_l² / 4π.
    """
    total = variance(np.arange(1.0, 201.0)).sum()
    power = 4 * np.pi * variance(np.maximum(degree, 1.0)) / (total * (2 * degree + 1))
    return np.where(degree > 0, np.sqrt(power), 0.0)
