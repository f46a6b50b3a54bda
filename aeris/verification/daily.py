"""Daily values: the largest, smallest or mean value of a UTC day, of states or of the leads of a forecast.

A day counts if all of its steps are there. The first day of a forecast that starts at 00 UTC with leads from 6 h on lacks its first
step; it is left out, and so is a last day that was begun. What is left out is counted in the attribute ``incomplete_days``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from aeris.data.units import find_conversion
from aeris.data.variables import VARIABLES
from aeris.errors import ConfigurationError, DataError
from aeris.verification.pairing import LEAD, PIECE_VALUES, attributes_of

DAY = np.timedelta64(1, "D").astype("timedelta64[ns]")
WIND_SPEED = "10m_wind_speed"
"""A quantity that is made of the two winds at 10 m where a dataset does not hold it."""

How = Literal["max", "min", "mean"]
_REDUCTIONS = {"max": np.maximum, "min": np.minimum, "mean": np.add}
_WINDS = ("10m_u_component_of_wind", "10m_v_component_of_wind")


def quantity(ds: xr.Dataset, name: str, level: int | None = None) -> xr.DataArray:
    """A variable of a dataset, on one level where it stands on levels; wind speed from its components.

    Raises:
        DataError: The dataset lacks it, or it has another unit than the registry's.
    """
    if name == WIND_SPEED and name not in ds:
        u, v = (quantity(ds, component) for component in _WINDS)
        speed: xr.DataArray = xr.apply_ufunc(np.hypot, u, v, dask="allowed")
        return speed.rename(name).assign_attrs(units="m s**-1", long_name="wind speed at 10 m")
    if name not in ds:
        raise DataError(
            f"There is no {name} among {', '.join(map(str, ds.data_vars)) or 'nothing'}",
            "The dataset must hold the variable that is asked for",
            "Name the variables as WeatherBench 2 does; aeris.open_era5 does it",
        )
    field = ds[name]
    if ("level" in field.dims) != (level is not None) or (level is not None and level not in field.level.values):
        held = f"the levels {field.level.values.tolist()}" if "level" in field.dims else "no levels"
        raise DataError(
            f"{name} has {held}, and level={level} was asked for",
            "A variable on levels needs one of them, any other none",
            "Give level=..., in hPa",
        )
    need_units("The dataset", field)
    chosen = field if level is None else field.sel(level=level, drop=True)
    return chosen.assign_attrs(attributes_of(field))


def need_units(owner: str, field: xr.DataArray) -> None:
    """Raises a DataError where a variable of the registry states a unit that is not the registry's."""
    known, stated = VARIABLES.get(str(field.name)), field.attrs.get("units")
    conversion = find_conversion(stated, known.units) if known and stated else None
    if known and stated and (conversion is None or not conversion.identity):
        raise DataError(
            f"{owner} holds {field.name} in {stated}", f"It must be in {known.units}", "Open the file with aeris.open_era5, which converts"
        )


def need_plausible(name: str, values: np.ndarray) -> None:
    """Raises a DataError where values lie outside the bounds of their variable: most likely they are in another unit."""
    known = VARIABLES.get(name)
    if known is None or np.isnan(values).all():
        return
    low, high = np.nanmin(values), np.nanmax(values)
    if low < known.bounds[0] or high > known.bounds[1]:
        raise DataError(
            f"{name} from {low:.4g} to {high:.4g}",
            f"It lies between {known.bounds[0]:g} and {known.bounds[1]:g} {known.units}",
            "Convert its unit, for example by opening the file with aeris.open_era5",
        )


def steps_per_day(offsets: np.ndarray) -> int:
    """How many values a whole day has, of times or leads that rise; data once a day or less have one.

    Raises:
        DataError: The shortest interval does not divide a day.
    """
    step = np.diff(offsets).min() if len(offsets) > 1 else DAY
    if step >= DAY:
        return 1
    if step <= np.timedelta64(0, "ns") or DAY % step:
        raise DataError(
            f"An interval of {pd.Timedelta(step)} between two times",
            "Daily values need times that rise by a divisor of a day",
            "Sort the times and leave out what stands twice, or take every sixth hour",
        )
    return int(DAY / step)


def whole_days(valid: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The UTC days of which `count` times are there.

    Args:
        valid: Times that rise.
        count: Steps of a whole day.

    Returns:
        The whole days, the position of the first time of each, and how many days were begun and are not whole.
    """
    days, first, found = np.unique(valid.astype("datetime64[D]"), return_index=True, return_counts=True)
    whole = found == count
    return days[whole].astype("datetime64[ns]"), first[whole], int((~whole).sum())


def reduce_days(values: np.ndarray, first: np.ndarray, count: int, how: How) -> np.ndarray:
    """The largest, smallest or mean of `count` values along the first axis from each position on; NaN where one is missing."""
    if how not in _REDUCTIONS:
        raise ConfigurationError(f"Daily values by {how!r}", f"A day has its {', '.join(_REDUCTIONS)}", "Give one of these")
    reduced = _REDUCTIONS[how].reduce([values[first + step] for step in range(count)], axis=0)
    return reduced / count if how == "mean" else reduced


def daily(ds: xr.Dataset, name: str, how: How, level: int | None = None) -> xr.DataArray:
    """Daily values of states, in memory.

    Args:
        ds: Dataset with ``time`` and any other dimensions.
        name: Variable, or ``"10m_wind_speed"``.
        how: ``"max"``, ``"min"`` or ``"mean"`` of the steps of a UTC day.
        level: hPa, for a variable on levels.

    Returns:
        ``(time, ...)``, float32 or as the data, one time at 00 UTC for every day from the first to the last whole one. A day that is
        not whole is NaN; the attribute ``incomplete_days`` counts those that lack a step or are absent.

    Raises:
        DataError: No day is whole, times do not divide a day, or the variable or its unit is not what it should be.
    """
    field = quantity(ds, name, level).transpose("time", ...)
    order = field.get_index("time")
    count = steps_per_day(order.values)
    days, first, begun = whole_days(order.values, count)
    if not len(days):
        raise DataError(
            f"None of the {begun} days from {order.min():%Y-%m-%d} on is whole", f"A day has {count} steps", "Give whole days, 00 to 23 UTC"
        )
    values = field.values
    need_plausible(name, values)
    calendar = pd.date_range(days[0], days[-1])
    series = np.full((len(calendar), *values.shape[1:]), np.nan, values.dtype)
    series[calendar.get_indexer(pd.DatetimeIndex(days))] = reduce_days(values, first, count, how)
    coordinates = {key: value for key, value in field.coords.items() if "time" not in value.dims}
    absent = len(calendar.difference(pd.DatetimeIndex(np.unique(order.floor("D")))))
    about = {**field.attrs, "long_name": f"daily {how}, {field.attrs['long_name']}", "incomplete_days": begun + absent}
    return xr.DataArray(series, {**coordinates, "time": calendar.values}, field.dims, name, about)


def lead_days(time: np.datetime64, leads: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
    """The whole days of a forecast from one initial time.

    Returns:
        Each as a lead, which is the time from the *day* of the initial time; the position of its first lead; the steps of a day; and
        how many days were begun and are not whole.
    """
    count = steps_per_day(leads)
    days, first, begun = whole_days(time + leads, count)
    return days - time.astype("datetime64[D]").astype("datetime64[ns]"), first, count, begun


def daily_members(members: xr.Dataset, time: np.datetime64, name: str, how: How, level: int | None = None) -> xr.DataArray:
    """Daily values of the members that start at one time, in memory.

    Args:
        members: Fields ``(number, prediction_timedelta, ...)``, as ``archive.sel(time=time)``.
        time: Their initial time.
        name: Variable, or ``"10m_wind_speed"``.
        how: ``"max"``, ``"min"`` or ``"mean"`` of the steps of a UTC day.
        level: hPa, for a variable on levels.

    Returns:
        ``(prediction_timedelta, number, ...)``, the lead being a whole number of days from the day of the initial time: one day is
        tomorrow. Attribute ``incomplete_days`` as in `daily`.

    Raises:
        DataError: No day is whole, or what `daily` refuses.
    """
    field = quantity(members, name, level).transpose(LEAD, "number", ...)
    days, first, count, begun = lead_days(time, field[LEAD].values)
    if not len(days):
        raise DataError(
            f"The leads from {pd.Timestamp(time):%Y-%m-%dT%H} cover no whole UTC day",
            f"A day has {count} steps; a first day that begins after 00 UTC is not whole",
            "Give longer leads",
        )
    values = field.values
    need_plausible(name, values)
    coordinates = {key: value for key, value in field.coords.items() if LEAD not in value.dims and key != "time"}
    about = {**field.attrs, "long_name": f"daily {how}, {field.attrs['long_name']}", "incomplete_days": begun}
    reduced = reduce_days(values, first, count, how)
    return xr.DataArray(reduced, {**coordinates, LEAD: days}, field.dims, name, about)


def row_blocks(rows: int, values_per_row: int, most: int | None = None) -> Iterator[slice]:
    """Cuts rows into blocks of at most `most` values, one row at least."""
    step = max(1, (most or PIECE_VALUES) // max(1, values_per_row))
    for first in range(0, rows, step):
        yield slice(first, min(first + step, rows))
