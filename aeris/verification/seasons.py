"""The course of the year: mean and harmonics of the annual cycle, and departures from it.

One tool for monthly indices, daily fields and six-hourly states: y(t) = a₀ + Σ_k a_k cos(2πk t/T) + b_k sin(2πk t/T), T = 365.2425 days,
by least squares, for each hour of the day by itself. Three harmonics are those of Wheeler and Hendon (2004).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from aeris.errors import ConfigurationError, DataError
from aeris.verification.pairing import PIECE_VALUES

SEASONS = ("DJF", "MAM", "JJA", "SON")
"""Three months each, by their initials."""

YEAR = np.timedelta64(1, "D").astype("timedelta64[ns]").astype(np.int64) * 365.2425


@dataclass(frozen=True)
class AnnualCycle:
    """A fitted annual cycle.

    Attributes:
        coefficients: ``(hour, term, ...)`` in the unit of the series: the mean, the cosines, the sines. NaN where the past has gaps; the
            attribute ``incomplete_places`` counts the places that have some.
        harmonics: How many.
    """

    coefficients: xr.DataArray
    harmonics: int

    @classmethod
    def fit(cls, past: xr.DataArray, harmonics: int = 3) -> AnnualCycle:
        """Fits the cycle to a series, read in pieces along ``time``.

        A time at which all is missing is left out. A place that lacks other times has no cycle that could be compared with its
        neighbours': it is NaN in the fit, and counted.

        Args:
            past: ``(time, ...)``, lazy or not.
            harmonics: Of the year, 0 for the mean alone.

        Raises:
            DataError: The times of some hour of the day do not cover the year, or nothing is there.
            ConfigurationError: A number of harmonics that cannot be.
        """
        if harmonics < 0:
            raise ConfigurationError(f"{harmonics} harmonics", "There are none or more", "Give for example 3")
        past = past.transpose("time", ...)
        hours = past.get_index("time").hour
        fits = [_fit(past.isel(time=np.flatnonzero(hours == hour)), harmonics) for hour in np.unique(hours)]
        joined = xr.concat(fits, pd.Index(np.unique(hours), name="hour"), combine_attrs="override")
        incomplete = max(fit.attrs["incomplete_places"] for fit in fits)
        return cls(joined.assign_attrs(past.attrs, incomplete_places=incomplete), harmonics)

    def at(self, times: np.ndarray, dim: str = "time") -> xr.DataArray:
        """The cycle at given times, ``(dim, ...)``.

        Raises:
            DataError: The past held no state at one of the hours of the day.
        """
        index = pd.DatetimeIndex(times)
        unknown = index.hour.difference(self.coefficients.get_index("hour"))
        if len(unknown):
            raise DataError(
                f"The annual cycle knows the hours {self.coefficients.hour.values.tolist()}, and {unknown[0]} UTC was asked for",
                "The hour of the day must be one of the past's",
                "Fit it to states of the same hours",
            )
        basis = _basis(index.values, self.harmonics)
        values = np.empty((len(index), *self.coefficients.shape[2:]))
        for hour in index.hour.unique():
            on = index.hour == hour
            values[on] = np.einsum("tk,k...->t...", basis[on], self.coefficients.sel(hour=hour).values)
        coordinates = {key: value for key, value in self.coefficients.coords.items() if key not in ("hour", "term")}
        return xr.DataArray(values, {**coordinates, dim: times}, [dim, *self.coefficients.dims[2:]], attrs=self.coefficients.attrs)

    def anomalies(self, series: xr.DataArray, valid: np.ndarray | None = None, dim: str = "time") -> xr.DataArray:
        """Departures of a series from the cycle.

        Args:
            series: With dimension `dim`.
            valid: The times of `dim`, where it is a lead.
            dim: The dimension of time.
        """
        cycle = self.at(series[dim].values if valid is None else valid, dim).assign_coords({dim: series[dim]})
        return (series - cycle).transpose(*series.dims).assign_attrs(series.attrs)


def sums_by_season(parts: Iterable[xr.Dataset], times: np.ndarray, seasons: bool) -> xr.Dataset:
    """Sums of what single initial times gave.

    Args:
        parts: A dataset for each initial time, of one shape.
        times: The initial times.
        seasons: Whether to sum over the initial times of each season too.

    Returns:
        The sum; with `seasons` along ``season``: ``"all"``, then those that occur.
    """
    sums: dict[str, xr.Dataset] = {}
    for part, name in zip(parts, pd.DatetimeIndex(times).month % 12 // 3, strict=True):
        for season in ("all", SEASONS[name]) if seasons else ("all",):
            sums[season] = sums[season] + part if season in sums else part
    held = [season for season in ("all", *SEASONS) if season in sums]
    return xr.concat([sums[season] for season in held], xr.Variable("season", np.array(held, object))) if seasons else sums["all"]


def _basis(times: np.ndarray, harmonics: int) -> np.ndarray:
    """The functions of the annual cycle at given times, ``(time, 1 + 2 harmonics)``."""
    phase = 2 * np.pi * times.astype("datetime64[ns]").astype(np.int64) / YEAR
    turns = phase[:, None] * np.arange(1, harmonics + 1)
    return np.concatenate([np.ones((len(times), 1)), np.cos(turns), np.sin(turns)], axis=1)


def _fit(past: xr.DataArray, harmonics: int) -> xr.DataArray:
    """Least squares from sums over pieces of time: XᵀX and Xᵀy."""
    terms = 1 + 2 * harmonics
    square, product = np.zeros((terms, terms)), np.zeros((terms, *past.shape[1:]))
    known = np.zeros(past.shape[1:], int)
    times: list[np.ndarray] = []
    for piece in pieces_along(past, "time"):
        values = piece.values.astype("float64")
        there = ~np.isnan(values.reshape(len(values), -1)).all(axis=1)
        basis, values = _basis(piece.time.values[there], harmonics), values[there]
        square += basis.T @ basis
        product += np.einsum("tk,t...->k...", basis, np.nan_to_num(values))
        known += (~np.isnan(values)).sum(axis=0)
        times.append(piece.time.values[there])
    used = sum(map(len, times))
    if used < terms or (harmonics and _longest_gap(np.concatenate(times)) > 0.5 / harmonics):
        raise DataError(
            f"{used} known times from {pd.Timestamp(past.time.values[0]):%Y-%m-%d} to {pd.Timestamp(past.time.values[-1]):%Y-%m-%d}",
            f"{harmonics} harmonics of the year need {terms} times or more, and no gap longer than half the shortest period",
            "Give at least one whole year, better ten, or harmonics=0 for the mean alone",
        )
    coefficients = np.where(known == used, np.linalg.solve(square, product.reshape(terms, -1)).reshape(product.shape), np.nan)
    coordinates = {key: value for key, value in past.coords.items() if "time" not in value.dims}
    about = {"incomplete_places": int(((known > 0) & (known < used)).sum())}
    return xr.DataArray(coefficients, {**coordinates, "term": np.arange(terms)}, ["term", *past.dims[1:]], attrs=about)


def _longest_gap(times: np.ndarray) -> float:
    """The longest part of the year in which no time falls, as a fraction of it."""
    phase = np.sort(times.astype("datetime64[ns]").astype(np.int64) / YEAR % 1)
    return float(np.diff(phase, append=phase[0] + 1).max())


def pieces_along(field: xr.DataArray, dim: str) -> Iterator[xr.DataArray]:
    """Cuts a field along one dimension into pieces of at most ``PIECE_VALUES`` values, one step at least."""
    step = max(1, PIECE_VALUES * field.sizes[dim] // max(1, field.size))
    for first in range(0, field.sizes[dim], step):
        yield field.isel({dim: slice(first, first + step)})
