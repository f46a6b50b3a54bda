"""The climate of the simulated planet: its land and mountains, the mean of every field through the year, and its storm tracks.

All of it follows from the grid and the planet's seed. Continents, mountains and the waves that they force are smooth random fields;
the profiles along the meridian are made after the zonal means of the earth. The seasons are one cosine of the year, thirty days
behind the sun, so that each climatological field is `mean + season · c(t)`.

The climate of wind, geopotential and temperature is a streamfunction like that of the weather (`planet.py`), and hence obeys the
same balances.

Symbols
    φ, λ  latitude and longitude       s = sin φ       c(t)  season, +1 in the northern summer and -1 in the southern
    x = ln(1000 hPa / p)               H, W  rows and columns of the grid         N  packed harmonic coefficients, K = 3 vertical modes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike

from aeris.data.forcing import SOLAR_IRRADIANCE, sun
from aeris.data.spherical import RADIUS, Harmonics, degree_order, linear_balance
from aeris.data.variables import GRAVITY

GAS_CONSTANT = 287.05
"""Gas constant of dry air R in J kg⁻¹ K⁻¹."""

LEVELS = (250, 500, 850)
"""The pressure levels of the simulated planet in hPa."""

_WIND_LEVELS = (250, 500, 1000)
_LAND_DEGREE = 12
_LAND_PURPOSE, _MOUNTAIN_PURPOSE = 1, 2

_TOP = np.log(1000 / 250)
_VERTICAL = [Polynomial(form)(Polynomial([0, 1 / _TOP])) for form in ([0.55, 1.10, -0.40], [-0.85, 1.70], [1, -6, 6])]
_TEMPERATURE = Polynomial.fit(np.log(1000 / np.array([850, 500, 250])), [280.0, 259.5, 223.0], 2).convert()


def vertical_modes(pressure: ArrayLike) -> np.ndarray:
    """Streamfunction of the three vertical modes: equivalent barotropic, first and second baroclinic.

    They are parabolas in x, so that hydrostatic temperature is linear in x and three levels determine the column.

    Args:
        pressure: hPa, shape ``(P,)`` or a single one.

    Returns:
        Shape ``(K, P)`` or ``(K,)``.
    """
    return np.stack([mode(_x(pressure)) for mode in _VERTICAL])


def vertical_temperature(pressure: ArrayLike) -> np.ndarray:
    """Temperature per unit of geopotential of the three vertical modes, R⁻¹ dV/dx in K m⁻² s², shaped as `vertical_modes`."""
    return np.stack([mode.deriv()(_x(pressure)) for mode in _VERTICAL]) / GAS_CONSTANT


def mean_temperature(pressure: ArrayLike) -> np.ndarray:
    """Global mean temperature in K: a parabola in x through about the earth's 280, 259.5 and 223 K at 850, 500 and 250 hPa."""
    return _TEMPERATURE(_x(pressure))


def mean_geopotential(pressure: ArrayLike) -> np.ndarray:
    """Global mean geopotential in m² s⁻², in hydrostatic balance with `mean_temperature`: 930 m² s⁻² + R ∫ T dx from 1000 hPa."""
    return 930.0 + GAS_CONSTANT * _TEMPERATURE.integ()(_x(pressure))


def _x(pressure: ArrayLike) -> np.ndarray:
    return np.log(1000 / np.asarray(pressure, np.float64))


@dataclass(frozen=True)
class Seasonal:
    """A climatological quantity `mean + season · c`: two arrays of one shape and type."""

    mean: np.ndarray
    season: np.ndarray

    @classmethod
    def of(cls, climate: Callable[[float], np.ndarray]) -> Seasonal:
        """From its values at the extremes c = ±1, in single precision."""
        july, january = climate(1.0), climate(-1.0)
        single = np.complex64 if np.iscomplexobj(july) else np.float32
        return cls(((july + january) / 2).astype(single), ((july - january) / 2).astype(single))

    def at(self, c: np.ndarray) -> np.ndarray:
        """Its value for each season of `c`, shape ``(len(c), ...)``."""
        value = c.astype(np.float32).reshape(-1, *[1] * self.mean.ndim) * self.season
        value += self.mean
        return value


def season(times: np.ndarray) -> np.ndarray:
    """c(t): the cosine of the year, +1 thirty days after the northern solstice, of the shape of `times` (``datetime64``)."""
    day = (times.astype("datetime64[s]") - np.datetime64("2000-07-21", "s")) / np.timedelta64(86400, "s")
    return np.cos(2 * np.pi * day / 365.2425)


def daily_insolation(times: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Mean insolation of the day over the solar irradiance, (H sin φ sin δ + cos φ cos δ sin H) / π d², cos H = -tan φ tan δ.

    Hartmann, Global Physical Climatology, equation 2.17.

    Args:
        times: ``datetime64``, shape ``(time,)``.
        phi: Latitude in radians, shape ``(latitude,)``.

    Returns:
        Shape ``(time, latitude)``.
    """
    position = sun(times)
    delta = position.declination[:, None]
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(delta), -1, 1))
    mean = sunset * np.sin(phi) * np.sin(delta) + np.cos(phi) * np.cos(delta) * np.sin(sunset)
    return mean / np.pi / position.distance[:, None] ** 2


class Climate:
    """The planet's surface and its mean state.

    Args:
        grid: Harmonics on the planet's grid.
        seed: The planet's seed.

    Attributes:
        gauss: Harmonics on Gauss-Legendre rows, for analyses.
        land: Fraction of land, shape ``(H, W)``.
        surface_geopotential: m² s⁻², shape ``(H, W)``.
    """

    def __init__(self, grid: Harmonics, seed: int) -> None:
        self._grid, self._seed = grid, seed
        self.gauss = Harmonics.gauss(grid.truncation, grid.truncation + 9, 2 * grid.truncation + 18)
        self.land = _land_fraction(grid, seed)
        self.surface_geopotential = _mountains(grid, seed, self.land)

    @cached_property
    def streamfunction(self) -> Seasonal:
        """Coefficients of the mean streamfunction of each vertical mode in m² s⁻¹, complex ``(K, N)``.

        A zonal part with the jets of `_zonal_wind`, and a stationary wave of the first mode that the continents force.
        """
        wave = self._stationary_wave()
        return Seasonal.of(lambda c: self._limited(self._zonal_streamfunction(c) + wave))

    def _zonal_streamfunction(self, c: float) -> np.ndarray:
        """From u = -a⁻¹ ∂ψ/∂φ by integration along the meridian, at three pressures, then by vertical mode."""
        phi = np.linspace(-np.pi / 2, np.pi / 2, 2001)
        wind = _zonal_wind(phi, c)
        psi = -RADIUS * (phi[1] - phi[0]) * (np.cumsum(wind, axis=-1) - wind / 2)
        profile = np.stack([np.interp(_latitude(self.gauss), phi, level) for level in psi])
        levels = self.gauss.analysis(np.broadcast_to(profile, (3, self.gauss.rows, self.gauss.columns)))
        return np.linalg.solve(vertical_modes(_WIND_LEVELS).T, levels)

    def _stationary_wave(self) -> np.ndarray:
        """A steady anticyclone over the continents of the middle latitudes, and a cyclone over the seas between."""
        continents, phi = _land_pattern(self.gauss, self._seed), _latitude(self.gauss)
        wave = (continents - continents.mean(-1, keepdims=True)) * np.sin(2 * phi) * np.abs(np.sin(2 * phi))
        return np.outer([5e6, 0, 0], self.gauss.analysis(wave))

    def _limited(self, psi: np.ndarray) -> np.ndarray:
        """Without the global mean, and without the highest degree, which the balanced geopotential needs for itself."""
        return np.where((self.gauss.degree > 0) & (self.gauss.degree < self.gauss.truncation), psi, 0)

    @cached_property
    def storm_track(self) -> Seasonal:
        """Factor by which the streamfunction of the weather is multiplied, on the rows and columns of `gauss`.

        Two belts about 52° that are stronger in winter and over sea, above a floor at the equator and the poles; always positive.
        """
        degrees = np.rad2deg(_latitude(self.gauss))
        sea = 1 - 0.2 * np.tanh(_land_pattern(self.gauss, self._seed))

        def belts(c: float) -> np.ndarray:
            north = (1 - 0.30 * c) * np.exp(-(((degrees - 52) / 24) ** 2))
            south = (1 + 0.15 * c) * np.exp(-(((degrees + 52) / 24) ** 2))
            return (0.35 + 0.75 * (north + south)) * sea

        return Seasonal.of(belts)

    def through_storm_track(self, psi: np.ndarray, c: np.ndarray) -> np.ndarray:
        """A streamfunction times the storm track, projected back on the harmonics.

        The track is positive, so this is a positive definite operator and can be undone.

        Args:
            psi: Packed coefficients ``(B, K, N)``.
            c: Season, ``(B,)``.

        Returns:
            Packed coefficients ``(B, K, N)`` without the global mean and the highest degree.
        """
        field = self.gauss.synthesis(psi)
        field *= self.storm_track.at(c)[:, None]
        return self._limited(self.gauss.analysis(field))

    @cached_property
    def ground_warmth(self) -> Seasonal:
        """Temperature in K that the climate's streamfunction brings to 1000 hPa, less the global mean, ``(H, W)``."""

        def warmth(psi: np.ndarray) -> np.ndarray:
            phi = self._grid.synthesis(linear_balance(psi, self._grid.degree, self._grid.order))
            return np.tensordot(vertical_temperature(1000), phi, axes=1).astype(np.float32)

        return Seasonal(warmth(self.streamfunction.mean), warmth(self.streamfunction.season))

    @cached_property
    def air_temperature(self) -> Seasonal:
        """2 m temperature in K without the diurnal cycle, ``(H, W)``; 6.5 K colder for every km of height."""
        s = np.sin(_latitude(self._grid))
        mean = 299.5 - 20 * s**2 - 25 * s**4 - 6.5e-3 * self.surface_geopotential / GRAVITY
        return Seasonal.of(lambda c: mean + c * s * (4 + 12 * self.land))

    @cached_property
    def sea_surface_temperature(self) -> Seasonal:
        """K before freezing, ``(H, 1)``: 301 K at the equator, 286 K at 45°, freezing near 75°."""
        s = np.sin(_latitude(self._grid))
        return Seasonal.of(lambda c: 301 - 26 * s**2 - 6 * s**4 + c * 3.5 * s * (1.4 - s**2))

    @cached_property
    def humidity(self) -> Seasonal:
        """Logit of relative humidity on `LEVELS`, ``(P, H, W)``: a moist equator that follows the sun, dry subtropics and land."""
        degrees = np.rad2deg(_latitude(self._grid))

        def belts(c: float) -> np.ndarray:
            rain = np.exp(-(((degrees - 7 * c) / 9) ** 2))
            dry = np.exp(-(((degrees - 5 * c - 24) / 10) ** 2)) + np.exp(-(((degrees - 5 * c + 24) / 10) ** 2))
            return np.stack([level + rain - 0.9 * dry - 0.3 * self.land for level in (-0.5, -0.4, 0.9)])

        return Seasonal.of(belts)

    def diurnal(self, times: np.ndarray, radiation: np.ndarray) -> np.ndarray:
        """Diurnal departure of 2 m temperature in K: land warms with the radiation of the hour less that of the day.

        Args:
            times: ``datetime64``, shape ``(time,)``.
            radiation: `toa_incident_solar_radiation` at those times, ``(time, H, W)``.
        """
        mean = daily_insolation(times, _latitude(self._grid)[:, 0])[:, :, None].astype(np.float32)
        return (9.0 * self.land).astype(np.float32) * (radiation / np.float32(3600 * SOLAR_IRRADIANCE) - mean)


def _zonal_wind(phi: np.ndarray, c: float) -> np.ndarray:
    """Mean eastward wind in m s⁻¹ at 250, 500 and 1000 hPa, ``(3, len(phi))``: jets that are stronger and nearer in winter."""
    degrees = np.rad2deg(phi)
    north = np.exp(-(((degrees - 40 - 4 * c) / 14) ** 2)) * (29 - 9 * c)
    south = np.exp(-(((degrees + 42 - 3 * c) / 14) ** 2)) * (31 + 5 * c)
    trades = np.exp(-(((degrees - 3 * c) / 17) ** 2))
    polar = np.exp(-(((np.abs(degrees) - 80) / 12) ** 2))
    upper = north + south + 6 * np.cos(phi) ** 2
    surface = 0.2 * (north + south) - 5.5 * trades - 1.5 * polar
    return np.stack([upper - 6 * trades, 0.55 * upper - 4 * trades, surface]) * np.minimum(1, 4 * np.cos(phi))


def _latitude(points: Harmonics) -> np.ndarray:
    """Latitudes of the rows in radians, ``(H, 1)``."""
    return np.pi / 2 - points.colatitude[:, None]


def _random_coefficients(seed: int, purpose: int, slope: float) -> np.ndarray:
    """Coefficients of degrees 2 to 12 of a smooth random field of unit variance, with power l^-slope."""
    degree, order = degree_order(_LAND_DEGREE)
    real, imaginary = np.random.default_rng([purpose, seed]).standard_normal((2, len(degree)))
    power = np.where(degree > 1, np.maximum(degree, 1.0) ** -slope, 0.0)
    total = (power * np.where(order > 0, 2, 1)).sum() / (4 * np.pi)
    return np.where(order > 0, (real + 1j * imaginary) / np.sqrt(2), real) * np.sqrt(power / total)


def _random_field(points: Harmonics, seed: int, purpose: int, slope: float) -> np.ndarray:
    """That field on the rows and columns of `points`, ``(H, W)``; the same at every resolution."""
    coefficients = _random_coefficients(seed, purpose, slope)
    return Harmonics(_LAND_DEGREE, points.colatitude, points.columns).synthesis(coefficients).astype(np.float64)


def _land_pattern(points: Harmonics, seed: int) -> np.ndarray:
    """A smooth field, positive on the three tenths of the planet that are land, ``(H, W)``."""
    globe = Harmonics.gauss(_LAND_DEGREE, 48, 96)
    assert globe.weights is not None
    pattern = _random_field(globe, seed, _LAND_PURPOSE, slope=2.4)
    share = np.repeat(globe.weights, globe.columns) / (2 * globe.columns)
    rising = np.argsort(pattern, axis=None)
    shore = pattern.ravel()[rising][np.searchsorted(np.cumsum(share[rising]), 0.7)]
    return _random_field(points, seed, _LAND_PURPOSE, slope=2.4) - shore


def _land_fraction(points: Harmonics, seed: int) -> np.ndarray:
    """Fraction of land, with coasts a few degrees wide, ``(H, W)``."""
    return 1 / (1 + np.exp(-_land_pattern(points, seed) / 0.1))


def _mountains(points: Harmonics, seed: int, land: np.ndarray) -> np.ndarray:
    """Surface geopotential in m² s⁻²: plains of some 250 m, and ranges along the ridges of a second random field."""
    ridge = np.exp(-((_random_field(points, seed, _MOUNTAIN_PURPOSE, slope=2.8) / 0.4) ** 2))
    return GRAVITY * land * (250 + 3000 * ridge)
