"""The simulated planet: invented weather whose true forecast distribution is known exactly.

It is a measuring instrument. Its weather is a linear Gaussian process, so the best possible ensemble from a given state can be
drawn, and a trained model is judged against it. It needs no data and no network.

Three rooms: `planet_modes.py` holds the hidden modes and their exact transition, `planet_climate.py` the surface and the mean
state, and this one turns modes into fields. One time of those fields determines the streamfunction in turn, so that a model which
sees the fields alone can reach the optimum.

Shapes
    B  times, or (time, member, lead) in a row     M = 5  hidden fields     N  packed harmonic coefficients     K = 3  vertical modes
    P = 3  pressure levels                         H, W   rows and columns
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from aeris.data.forcing import toa_incident_solar_radiation
from aeris.data.grid import Grid
from aeris.data.planet_climate import (
    GAS_CONSTANT,
    LEVELS,
    Climate,
    mean_geopotential,
    mean_temperature,
    season,
    vertical_modes,
    vertical_temperature,
)
from aeris.data.planet_modes import HIDDEN_FIELDS, modes_of
from aeris.data.spherical import RADIUS, Harmonics, linear_balance
from aeris.data.variables import PRESSURE, RADIATION, SEA, SEA_ICE_POINT, STATIC, SURFACE, VARIABLES, state_channels
from aeris.errors import ConfigurationError, DataError

STEP = np.timedelta64(6 * 3600 * 10**9, "ns")
"""Interval of the simulated data."""

MODES = "planet_modes"
"""The variable that carries the hidden modes."""

Lead = str | timedelta | np.timedelta64
"""How a lead time may be given: ``"24h"``, or a `timedelta` of Python, numpy or pandas."""

_MODE_DIMS = ("planet_field", "planet_coefficient", "planet_part")
_VERSION = 1
_SIMULATE, _FORECAST = 11, 12
_POINTS_AT_ONCE = 1 << 17


class Planet:
    """A planet with known weather.

    From hidden modes to fields:

    - The weather's streamfunction is multiplied by the storm track, projected back on the harmonics, and added to the climate's.
    - Wind is its rotation, u = -a⁻¹ ∂ψ/∂φ and v = (a cos φ)⁻¹ ∂ψ/∂λ; near the ground, that at 1000 hPa slowed by friction.
    - Geopotential is in linear balance with it, ∇²Φ = ∇·(f ∇ψ); mean sea level pressure is that of the geopotential at 1000 hPa.
    - Temperature is hydrostatic, T = R⁻¹ ∂Φ/∂x with x = ln(1000 hPa / p). At 2 m its weather is damped and joined by that of
      the sea surface; land warms by day.
    - Specific humidity is the logistic function of climate and humidity mode, times saturation.
    - Sea surface temperature freezes at 271.35 K and is missing over land.

    Only the last two are not linear in the modes.

    Args:
        grid: Rows (even, at least 16) and columns (even, at least twice the rows).
        seed: Which planet: its continents, mountains and everything that follows from them.

    Attributes:
        grid: The `Grid`.
        channels: Names of its 20 state channels.
        climate: Its `Climate`.
        modes: The law of its weather, `Modes`.

    Raises:
        ConfigurationError: A grid or a seed that cannot be.
    """

    def __init__(self, grid: tuple[int, int] = (32, 64), seed: int = 0) -> None:
        rows, columns = _checked_grid(grid)
        self.seed = _checked_count(seed, "seed", 0)
        self.grid = Grid.regular(rows, columns)
        self.channels = state_channels(sea=True, levels=LEVELS)
        self._harmonics = Harmonics(rows - 1, np.deg2rad(90 - self.grid.latitude), columns)
        self.climate = Climate(self._harmonics, self.seed)
        self.modes = modes_of(rows - 1)

    @classmethod
    def of(cls, ds: xr.Dataset) -> Planet:
        """The planet on which a dataset was simulated, from its attributes.

        Raises:
            DataError: The dataset is of no simulated planet, or of another version of it.
        """
        rows, columns, seed = _identity(ds)
        return cls((rows, columns), seed)

    @property
    def gaussian_channels(self) -> tuple[str, ...]:
        """The channels that are linear in the modes, and hence Gaussian given any earlier state."""
        return tuple(name for name in self.channels if name != SEA and not name.startswith("specific_humidity"))

    def simulate(self, years: float = 1.0, start: str | np.datetime64 = "2001-01-01", seed: int = 0) -> xr.Dataset:
        """Weather every six hours, from its stationary distribution on.

        Args:
            years: Length in years of 365.25 days. A longer simulation with the same seed begins like a shorter one.
            start: First time, UTC.
            seed: Which weather.

        Returns:
            Canonical dataset of 20 state channels, two static fields, radiation, and the hidden modes.

        Raises:
            ConfigurationError: A length, start or seed that cannot be.
        """
        times, seed = _checked_times(years, start), _checked_count(seed, "seed", 0)
        rng = np.random.default_rng([_SIMULATE, self.seed, seed])
        factor, noise = self.modes.transition(STEP)
        modes = np.empty((len(times), *factor.shape), np.complex64)
        present = modes[0] = self.modes.draw(rng, 1)[0]
        for step in range(1, len(times)):
            present = modes[step] = factor * present + noise * self.modes.draw(rng, 1)[0]
        ds = self._dataset(self._fields(modes, times), {"time": times})
        for name, field in zip(STATIC, (self.climate.surface_geopotential, self.climate.land), strict=True):
            ds[name] = (("latitude", "longitude"), field.astype(np.float32), _attributes(name))
        ds[MODES] = (("time", *_MODE_DIMS), modes.view(np.float32).reshape(*modes.shape, 2), _MODES_ATTRIBUTES)
        ds.attrs = {"title": "weather of a simulated planet", **self._signature, "weather_seed": seed}
        return ds

    def forecast(self, state: xr.Dataset, lead: Lead | Sequence[Lead] = "24h", members: int = 24, seed: int = 0) -> xr.Dataset:
        """An ensemble from the exact forecast distribution, on which no model can improve.

        A member is a function of the planet, the state, the leads, `seed` and its own number, whatever the number of members and of
        initial times. Its leads belong to one trajectory.

        Args:
            state: One or more times of a dataset of this planet with its hidden modes: ``ds.isel(time=0)``, ``ds.sel(time=[...])``.
            lead: How far ahead: any positive time, or several that rise.
            members: Size of the ensemble.
            seed: Which draw.

        Returns:
            The 20 state channels with dims ``time, number, prediction_timedelta, level, latitude, longitude``, `time` being the
            initial time; without `time` when the state has no such dimension, without `prediction_timedelta` when `lead` is one.

        Raises:
            DataError: The state lacks the hidden modes, or is of another planet.
            ConfigurationError: A lead, a number of members or a seed that cannot be.
        """
        leads, members, seed = _checked_leads(lead), _checked_count(members, "members", 1), _checked_count(seed, "seed", 0)
        self._check_state(state)
        times = np.atleast_1d(state.time.values.astype("datetime64[ns]"))
        initial = state[MODES].transpose(..., *_MODE_DIMS).values.astype(np.float32).view(np.complex64)
        modes = self._futures(initial.reshape(len(times), *self.modes.deviation.shape), times, leads, members, seed)
        valid = np.broadcast_to(times[:, None, None] + leads, modes.shape[:3])
        fields = self._fields(modes.reshape(-1, *modes.shape[3:]), valid.ravel())
        shaped = {name: field.reshape(*valid.shape, *field.shape[1:]) for name, field in fields.items() if name != RADIATION}
        ds = self._dataset(shaped, {"time": times, "number": np.arange(members), "prediction_timedelta": leads})
        ds.attrs = {"title": "exact forecast for a simulated planet", **self._signature, "forecast_seed": seed}
        single = {"time": "time" in state.dims, "prediction_timedelta": not isinstance(lead, Lead)}
        return ds.isel({dim: 0 for dim, kept in single.items() if not kept})

    def _futures(self, initial: np.ndarray, times: np.ndarray, leads: np.ndarray, members: int, seed: int) -> np.ndarray:
        """Hidden modes ``(time, member, lead, M, N)`` from initial ones ``(time, M, N)``; each member has a stream of its own."""
        transitions = [self.modes.transition(interval) for interval in np.diff(leads, prepend=np.timedelta64(0, "ns"))]
        modes = np.empty((len(times), members, len(leads), *initial.shape[1:]), np.complex64)
        for i, j in np.ndindex(len(times), members):
            rng = np.random.default_rng([_FORECAST, self.seed, seed, int(times[i].astype(np.int64)) % 2**64, j])
            present = initial[i]
            for k, (factor, noise) in enumerate(transitions):
                present = modes[i, j, k] = factor * present + noise * self.modes.draw(rng, 1)[0]
        return modes

    def _check_state(self, state: xr.Dataset) -> None:
        dims = set(state[MODES].dims) - {"time"} if MODES in state else set()
        if dims != set(_MODE_DIMS) or "time" not in state.coords:
            raise DataError(
                f"The state has no {MODES!r} at one or more times; it has {', '.join(map(str, state.variables)) or 'nothing'}",
                "The exact forecast starts from the hidden modes, which Planet.simulate writes",
                "Give ds.isel(time=0) of a dataset of aeris.simulate_planet, with all its variables",
            )
        rows, columns, seed = _identity(state)
        if (rows, columns) != self.grid.shape or seed != self.seed:
            found = f"The state is of Planet(grid={(rows, columns)}, seed={seed})"
            raise DataError(found, f"This is {self}", "Use aeris.Planet.of(ds).forecast(...)")

    @property
    def _signature(self) -> dict[str, int]:
        rows, columns = self.grid.shape
        return {"planet_rows": rows, "planet_columns": columns, "planet_seed": self.seed, "planet_version": _VERSION}

    def __repr__(self) -> str:
        return f"Planet(grid={self.grid.shape}, seed={self.seed})"

    def _fields(self, modes: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
        """All fields that change with time, float32 ``(B, [P,] H, W)`` by name, of modes ``(B, M, N)`` at times ``(B,)``."""
        rows, columns = self.grid.shape
        levels = {name: (len(LEVELS),) if VARIABLES[name].pressure else () for name in (*SURFACE, *PRESSURE, SEA, RADIATION)}
        out = {name: np.empty((len(times), *level, rows, columns), np.float32) for name, level in levels.items()}
        block = max(1, _POINTS_AT_ONCE // (rows * columns))
        for first in range(0, len(times), block):
            part = slice(first, first + block)
            self._write(modes[part], times[part], {name: field[part] for name, field in out.items()})
        return out

    def _write(self, modes: np.ndarray, times: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
        """Computes the fields of a block of times into `out`."""
        c = season(times)
        psi = self.climate.through_storm_track(modes[:, :3], c) + self.climate.streamfunction.at(c)
        eastward, northward = self._harmonics.gradient(psi / np.float32(RADIUS))
        phi = self._harmonics.synthesis(linear_balance(psi, self.modes.degree, self.modes.order))
        humidity, sea = np.moveaxis(self._harmonics.synthesis(modes[:, 3:]), 1, 0)
        _write_upper(-northward, eastward, phi, self.climate.humidity.at(c) + humidity[:, None], out)
        _write_ground(-northward, eastward, phi, self.climate.land, out)
        self._write_surface(phi, sea, times, out)

    def _write_surface(self, phi: np.ndarray, sea: np.ndarray, times: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
        """Radiation and the temperatures of air and sea, of geopotential ``(B, K, H, W)`` and sea departure ``(B, H, W)``."""
        c, land = season(times), self.climate.land.astype(np.float32)
        out[RADIATION][:] = toa_incident_solar_radiation(times, self.grid.latitude, self.grid.longitude)
        aloft = _on_levels(vertical_temperature([1000]), phi)[:, 0] - self.climate.ground_warmth.at(c)
        mean = self.climate.air_temperature.at(c) + self.climate.diurnal(times, out[RADIATION])
        out["2m_temperature"][:] = mean + (0.65 + 0.35 * land) * aloft + 0.6 * (1 - land) * sea
        water = np.maximum(self.climate.sea_surface_temperature.at(c) + sea, np.float32(SEA_ICE_POINT))
        out[SEA][:] = np.where(land > 0.5, np.float32(np.nan), water)

    def _dataset(self, fields: dict[str, np.ndarray], leading: dict[str, np.ndarray]) -> xr.Dataset:
        """A dataset of fields whose first dimensions are `leading`."""
        coords = {
            **leading,
            "level": ("level", np.array(LEVELS), {"units": "hPa", "long_name": "pressure"}),
            "latitude": ("latitude", self.grid.latitude, {"units": "degrees_north", "long_name": "latitude"}),
            "longitude": ("longitude", self.grid.longitude, {"units": "degrees_east", "long_name": "longitude"}),
        }
        dims = {name: (*leading, *(["level"] if VARIABLES[name].pressure else []), "latitude", "longitude") for name in fields}
        return xr.Dataset({name: (dims[name], field, _attributes(name)) for name, field in fields.items()}, coords)


def simulate_planet(
    years: float = 1.0, start: str | np.datetime64 = "2001-01-01", grid: tuple[int, int] = (32, 64), seed: int = 0
) -> xr.Dataset:
    """Simulated weather in one call: ``Planet(grid, seed).simulate(years, start, seed)``."""
    return Planet(grid, seed).simulate(years, start, seed)


def saturation(temperature: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    """Saturation specific humidity over water in kg kg⁻¹.

    e = 611.2 exp(17.67 (T - 273.15) / (T - 29.65)) Pa (Bolton 1980, equation 10), q = 0.622 e / (p - 0.378 e).

    Args:
        temperature: K.
        pressure: hPa.
    """
    vapour = 6.112 * np.exp(17.67 * (temperature - 273.15) / (temperature - 29.65))
    return 0.622 * vapour / (pressure - 0.378 * vapour)


def _write_upper(u: np.ndarray, v: np.ndarray, phi: np.ndarray, moisture: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
    """Fields on pressure levels, of wind and geopotential by vertical mode ``(B, K, H, W)`` and moisture ``(B, P, H, W)``."""
    out["u_component_of_wind"][:] = _on_levels(vertical_modes(LEVELS), u)
    out["v_component_of_wind"][:] = _on_levels(vertical_modes(LEVELS), v)
    out["geopotential"][:] = _on_levels(vertical_modes(LEVELS), phi) + _column(mean_geopotential(LEVELS))
    out["temperature"][:] = _on_levels(vertical_temperature(LEVELS), phi) + _column(mean_temperature(LEVELS))
    out["specific_humidity"][:] = saturation(out["temperature"], _column(LEVELS)) / (1 + np.exp(-moisture))


def _write_ground(u: np.ndarray, v: np.ndarray, phi: np.ndarray, land: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
    """Wind at 10 m and mean sea level pressure, from 1000 hPa; the pressure rises as that of air at rest, by Φ / R T."""
    friction = (0.8 - 0.3 * land).astype(np.float32)
    out["10m_u_component_of_wind"][:] = friction * _on_levels(vertical_modes([1000]), u)[:, 0]
    out["10m_v_component_of_wind"][:] = friction * _on_levels(vertical_modes([1000]), v)[:, 0]
    density = 1e5 / (GAS_CONSTANT * mean_temperature(1000))
    height = _on_levels(vertical_modes([1000]), phi)[:, 0] + np.float32(mean_geopotential(1000))
    out["mean_sea_level_pressure"][:] = 1e5 + np.float32(density) * height


def _on_levels(coefficients: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Fields on levels ``(B, P, H, W)`` from those of the vertical modes ``(B, K, H, W)`` and coefficients ``(K, P)``."""
    batch, modes, *shape = fields.shape
    levels = coefficients.T.astype(np.float32) @ fields.reshape(batch, modes, -1)
    return levels.reshape(batch, -1, *shape)


def _column(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, np.float32)[:, None, None]


_MODES_ATTRIBUTES = {
    "long_name": "hidden modes of the simulated planet",
    "fields": " ".join(HIDDEN_FIELDS),
    "comment": "planet_coefficient: the harmonic (l, m) stands at m(2T+1-m)/2 + l, T being the number of rows less one; "
    "planet_part: real and imaginary part",
}


def _attributes(name: str) -> dict[str, str]:
    return {"units": VARIABLES[name].units, "long_name": VARIABLES[name].long_name}


def _identity(ds: xr.Dataset) -> tuple[int, int, int]:
    """Rows, columns and seed of the planet on which a dataset was simulated."""
    rows, columns, seed, version = (ds.attrs.get(f"planet_{name}") for name in ("rows", "columns", "seed", "version"))
    if rows is None or columns is None or seed is None:
        raise DataError(
            "The dataset has no attributes planet_rows, planet_columns and planet_seed",
            "Only what Planet.simulate wrote says on which planet it was made",
            "Give a dataset of aeris.simulate_planet with its attributes kept",
        )
    if version != _VERSION:
        raise DataError(
            f"The dataset was made on version {version} of the simulated planet",
            f"This package knows version {_VERSION} alone",
            "Simulate it anew with aeris.simulate_planet",
        )
    return int(rows), int(columns), int(seed)


def _checked_grid(grid: tuple[int, int]) -> tuple[int, int]:
    shape = tuple(grid) if isinstance(grid, Sequence) else (grid,)
    whole = len(shape) == 2 and all(isinstance(size, int | np.integer) for size in shape)
    if not whole or shape[0] % 2 or shape[1] % 2 or shape[0] < 16 or shape[1] < 2 * shape[0]:
        raise ConfigurationError(
            f"grid={grid!r}",
            "A simulated planet has an even number of rows, at least 16, and an even number of columns, at least twice the rows",
            "Use for example grid=(32, 64)",
        )
    return int(shape[0]), int(shape[1])


def _checked_count(value: int, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigurationError(f"{name}={value!r}", f"This is a whole number of at least {least}", f"Use for example {name}={least}")
    return int(value)


def _checked_times(years: float, start: str | np.datetime64) -> np.ndarray:
    steps = years * (np.timedelta64(31_557_600, "s") / STEP)
    if not 0.5 <= steps <= 1e6:
        raise ConfigurationError(
            f"years={years!r}", "A simulation lasts between one step of six hours and 684 years", "Use for example years=1.0"
        )
    try:
        first = pd.Timestamp(start).as_unit("ns")
        return pd.date_range(first, periods=round(steps), freq=pd.Timedelta(STEP)).to_numpy("datetime64[ns]")
    except (ValueError, TypeError, OverflowError) as reason:
        raise ConfigurationError(
            f"start={start!r} with years={years!r}",
            f"All times lie between the years 1678 and 2262, in UTC ({reason})",
            "Use for example start='2001-01-01'",
        ) from reason


def _checked_leads(lead: Lead | Sequence[Lead]) -> np.ndarray:
    try:
        parts = [lead] if isinstance(lead, Lead) else list(getattr(lead, "values", lead))
        known = all(isinstance(part, Lead) for part in parts)
        parts = [re.sub(r"(\d\s*)d\b", r"\1D", part) if isinstance(part, str) else part for part in parts]  # pandas spells a day D
        leads = pd.to_timedelta(parts if known else []).to_numpy("timedelta64[ns]")
    except (ValueError, TypeError):
        leads = np.array([], "timedelta64[ns]")
    if not len(leads) or np.diff(leads, prepend=np.timedelta64(0, "ns")).min() < np.timedelta64(1, "s"):
        raise ConfigurationError(
            f"lead={lead!r}", "Leads are positive times with a unit, and rise", "Use for example lead='24h' or lead=['6h', '24h']"
        )
    return leads
