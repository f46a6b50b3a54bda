"""Climatology: what a place is like at this hour of this day of the year.

A `Climatology` gives an ensemble of fields for every valid time. Its members as they are make the probabilistic climatological
forecast; their mean is the climatology from which anomalies are taken. A climatology file has one field for each valid time, an
ensemble of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from aeris.data.coordinates import with_grid
from aeris.data.formats import is_zarr, open_path, open_url
from aeris.data.sources import open_era5
from aeris.errors import DataError
from aeris.verification.pairing import LEAD, need_times

Selection = dict[str, xr.DataArray]
"""Positions along dimensions of the stored fields, with dims ``prediction_timedelta`` and, for an ensemble, ``number``; -1 for none."""


@dataclass(frozen=True)
class Climatology:
    """Fields that stand for each valid time.

    Attributes:
        fields: The stored fields: canonical variables with other dimensions in place of ``time``, or with the ``time`` of the past.
        select: Finds the fields that stand for given valid times, ``(count,)`` -> positions.
    """

    fields: xr.Dataset
    select: Callable[[np.ndarray], Selection]

    def after(self, time: np.datetime64, leads: np.ndarray) -> xr.Dataset:
        """The members at each lead after `time`, lazy where the fields are.

        Returns:
            Dataset ``(number, prediction_timedelta, [level,] latitude, longitude)``; where one valid time has fewer members than
            another the rest is NaN.

        Raises:
            DataError: There is no field for one of the valid times.
        """
        positions = self.select(time + leads)
        members = self.fields.isel(positions).drop_vars(list(positions), errors="ignore")
        for position in positions.values():
            members = members if (position >= 0).all() else members.where(position >= 0)
        members = members if "number" in members.dims else members.expand_dims(number=[0])
        return members.assign_coords({LEAD: leads})


def climatology_of(source: xr.Dataset | Climatology) -> Climatology:
    """A climatology from what people have.

    Args:
        source: A `Climatology` as it is; a dataset with ``dayofyear`` (and ``hour`` where it has a daily cycle), as WeatherBench 2
            stores them; or a dataset with ``time``, whose times are then the valid times themselves.

    Raises:
        DataError: The dataset has none of these dimensions.
    """
    if isinstance(source, Climatology):
        return source
    if "dayofyear" in source.dims:
        return Climatology(source, lambda valid: _by_day_of_year(source, pd.DatetimeIndex(valid)))
    if "time" in source.dims:
        return Climatology(source, lambda valid: _by_time(source, valid))
    raise DataError(
        f"The climatology has the dimensions {', '.join(map(str, source.dims))}",
        "A climatology needs dayofyear (and hour), or time equal to the valid times",
        "Rename its time axis, or make one from past states with ensemble_climatology(ds)",
    )


def open_climatology(source: str | Path) -> Climatology:
    """A climatology from a path or URL.

    Args:
        source: A store by ``dayofyear`` (and ``hour``), as `aeris.verification.climatology_smoothing.write_climatology` and WeatherBench 2
            write it, its rows in either order; or anything else that `aeris.open_era5` opens: past states, of which `ensemble_climatology`
            is made.

    Raises:
        DataError: It cannot be understood.
    """
    where, path = str(source), Path(source)
    parts = open_url(where) if "://" in where else open_path(path) if path.is_file() or is_zarr(path) else []
    if len(parts) == 1 and "dayofyear" in parts[0].dims:
        return climatology_of(with_grid(parts[0], where))
    return ensemble_climatology(open_era5(source))


def ensemble_climatology(ds: xr.Dataset, days: int = 10, apart: int = 30) -> Climatology:
    """The probabilistic climatology: past states from about the same day of the year, at the same hour.

    Args:
        ds: Canonical dataset of past states. It may reach into the verified period, because of `apart`.
        days: How far a member may be from the valid day of the year.
        apart: States within so many days of the valid time are left out: they would know the weather of the day.

    Returns:
        A climatology of about ``(2 days + 1) × years`` members.

    Raises:
        DataError: Later, for a valid time for which `ds` has no such state.
    """
    # In memory an index array would copy every variable at once; as one chunk each is copied when it is read.
    return Climatology(ds.chunk(), lambda valid: _past_states(ds.get_index("time"), pd.DatetimeIndex(valid), days, apart))


def _past_states(past: pd.DatetimeIndex, valid: pd.DatetimeIndex, days: int, apart: int) -> Selection:
    chosen = [_season(past, moment, days, apart) for moment in valid]
    positions = np.full((len(valid), max(map(len, chosen))), -1)
    for row, found in zip(positions, chosen, strict=True):
        row[: len(found)] = found
    return {"time": xr.DataArray(positions, dims=(LEAD, "number"))}


def _season(past: pd.DatetimeIndex, moment: pd.Timestamp, days: int, apart: int) -> np.ndarray:
    """Positions of the states at the hour and season of one moment, but not around it."""
    distance = np.abs(past.day_of_year - moment.day_of_year)
    year = 365 + np.where(past.day_of_year > moment.day_of_year, past.is_leap_year, moment.is_leap_year)
    in_season = np.minimum(distance, year - distance) <= days
    same_hour = past - past.normalize() == moment - moment.normalize()
    elsewhere = np.abs(past - moment) > pd.Timedelta(days=apart)
    found = np.flatnonzero(in_season & same_hour & elsewhere)
    if not len(found):
        raise DataError(
            f"No past state stands for {moment:%Y-%m-%dT%H:%M}: the dataset holds {past.min():%Y-%m-%d} to {past.max():%Y-%m-%d}",
            f"A climatology needs states of the same hour within {days} days of that day of another year, more than {apart} days away",
            "Give a dataset of at least one other year, for example the training period",
        )
    return found


def _by_day_of_year(source: xr.Dataset, valid: pd.DatetimeIndex) -> Selection:
    found = {"dayofyear": valid.day_of_year} | ({"hour": valid.hour} if "hour" in source.dims else {})
    return {dim: xr.DataArray(_positions(source, dim, pd.Index(values)), dims=LEAD) for dim, values in found.items()}


def _positions(source: xr.Dataset, dim: str, wanted: pd.Index) -> np.ndarray:
    positions = source.get_index(dim).get_indexer(wanted)
    if (positions < 0).any():
        raise DataError(
            f"The climatology has no {dim} {wanted[positions < 0][0]}",
            f"It must hold the {dim} of every valid time",
            f"Its {dim} runs from {source[dim].values[0]} to {source[dim].values[-1]}; cut the forecast or give a whole climatology",
        )
    return positions


def _by_time(source: xr.Dataset, valid: np.ndarray) -> Selection:
    need_times("the climatology", source, valid)
    return {"time": xr.DataArray(source.get_index("time").get_indexer(pd.DatetimeIndex(valid)), dims=LEAD)}
