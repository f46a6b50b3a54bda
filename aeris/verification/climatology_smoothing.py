"""The climatology by day of the year and hour, smoothed over the calendar, as WeatherBench 2 makes and stores it.

::

    C(d, h) = Σ_y Σ_j w_j x(y, d + j, h) / Σ_y Σ_j w_j,    w_j = 1 − |j| / k,    j = −k ... k,    k = (window − 1) / 2

x(y, d, h) is the state of year y, day d = 1 ... 366 and hour h. Days go round the new year. In a year of 365 days the last one stands for
day 366 too. Missing values are left out of both sums. The outermost weights are zero: a window of 61 days reaches 29 days to either side.
(Rasp et al. 2024, https://doi.org/10.1029/2023MS004019; the script compute_climatology of WeatherBench 2, with its weighted mean.)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dask.array
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from scipy import sparse

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError, StoreError
from aeris.verification.pairing import CELLS

DAYS = 366
PIECE_VALUES = 2**27
"""Most values, over days, hours, levels and cells, whose sums are held at once: with what else is needed about 2 GiB."""
BLOCK_VALUES = 2**24
"""Most values that are read at once: 64 MiB in float32."""
CHUNK_VALUES = 2**18
"""About the values of a chunk: 1 MiB in float32."""

Piece = tuple[slice, slice, slice]
"""Positions of hours, levels and rows that are summed at once."""


def write_climatology(ds: xr.Dataset, path: str | Path, window: int = 61) -> xr.Dataset:
    """Writes the smoothed climatology of past states in WeatherBench 2's shape.

    The states are read in order, in blocks, once for each piece of the result that fits into memory. The store is whole or not there.

    Args:
        ds: Canonical dataset of past states, at best of whole years. Variables without time or cells are left out.
        path: The Zarr store to write.
        window: Days of the window, an odd number. 3 smooths nothing.

    Returns:
        The climatology, lazy: ``(hour, dayofyear, [level,] latitude, longitude)`` in float32, with the hours that `ds` has; NaN where no
        state of the window has a value. `aeris.verify` takes it as ``climatology``.

    Raises:
        ConfigurationError: The window is even or too short or long.
        DataError: The times are not at whole hours, or some day and hour has no state in its window.
        StoreError: Something is at `path`.
    """
    path = Path(path)
    index, weights = _times(ds), day_weights(window)
    hours = np.unique(index.hour)
    _check_cover(index, hours, weights, window)
    if path.exists():
        raise StoreError(f"{path} exists", "Nothing that is there is replaced", "Choose another path, or remove it")
    names = [str(name) for name, field in ds.data_vars.items() if {"time", *CELLS} <= set(field.dims)]
    fields = ds[names].transpose("time", "level", *CELLS, missing_dims="ignore")
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _lay_out(fields, hours, partial, {"window": window, "states": len(index), "period": f"{index[0]} to {index[-1]}"})
    store = zarr.open_group(partial, mode="r+", zarr_format=3)
    for name in names:
        for hour, level, row in _pieces(fields[name], len(hours)):
            part = fields[name].isel(_levels(fields[name], level) | {"latitude": row})
            place = (hour, slice(None), *((level,) if "level" in part.dims else ()), row)
            store[name][place] = _smoothed(part, index, hours[hour], weights)  # type: ignore[index]
    partial.rename(path)
    return xr.open_zarr(path, chunks=None, consolidated=False)


def day_weights(window: int) -> sparse.csr_array:
    """Weights w of the days of the year around each day, ``(366, 366)``, round the new year.

    Raises:
        ConfigurationError: The window is even or too short or long.
    """
    if window % 2 == 0 or not 3 <= window <= DAYS - 1:
        raise ConfigurationError(f"window={window}", f"A window is an odd number of days from 3 to {DAYS - 1}", "Use for example 61")
    offsets = np.arange(-(window // 2), window // 2 + 1)
    values = 1.0 - np.abs(offsets) / (window // 2)
    days = np.repeat(np.arange(DAYS), window)
    return sparse.csr_array((np.tile(values, DAYS), (days, (days + np.tile(offsets, DAYS)) % DAYS)), shape=(DAYS, DAYS))


def _times(ds: xr.Dataset) -> pd.DatetimeIndex:
    Grid.of(ds)
    index = ds.indexes.get("time")
    if not isinstance(index, pd.DatetimeIndex) or not any({"time", *CELLS} <= set(field.dims) for field in ds.values()):
        raise DataError("No past state has times and cells", "A climatology is made of states with time", "Open them with aeris.open_era5")
    odd = index[index != index.floor("h")]
    if len(odd):
        raise DataError(f"The state of {odd[0]}", "A climatology is by whole hours", "Choose states at whole hours with ds.sel(time=...)")
    return index


def _check_cover(index: pd.DatetimeIndex, hours: np.ndarray, weights: sparse.csr_array, window: int) -> None:
    """Refuses a day and hour without a state in its window."""
    there = np.zeros((DAYS, len(hours)))
    for moment in index:
        there[_days(moment), np.searchsorted(hours, moment.hour)] = 1
    empty = np.argwhere(weights @ there == 0)
    if len(empty):
        day, hour = empty[0]
        raise DataError(
            f"No past state stands within the window of {window} days around day {day + 1} of the year at {hours[hour]:02d} UTC; "
            f"there are {len(index)}, from {index.min():%Y-%m-%dT%H} to {index.max():%Y-%m-%dT%H}",
            "Every day of the year and hour needs one",
            "Give whole years of states, all at the same hours",
        )


def _days(moment: pd.Timestamp) -> list[int]:
    """Positions in the year for which a state stands, from zero."""
    return [364, 365] if moment.day_of_year == 365 and not moment.is_leap_year else [moment.day_of_year - 1]


def _pieces(field: xr.DataArray, hours: int) -> Iterator[Piece]:
    """Pieces of one variable: hours are parted before levels, levels before rows, because states of other hours need not be read again."""
    hour_step, level_step, row_step = _steps(field, hours)
    for hour in range(0, hours, hour_step):
        for level in range(0, field.sizes.get("level", 1), level_step):
            for row in range(0, field.sizes["latitude"], row_step):
                yield slice(hour, hour + hour_step), slice(level, level + level_step), slice(row, row + row_step)


def _steps(field: xr.DataArray, hours: int) -> tuple[int, int, int]:
    levels, rows, per_row = field.sizes.get("level", 1), field.sizes["latitude"], DAYS * field.sizes["longitude"]
    return (
        max(1, min(hours, PIECE_VALUES // (per_row * rows * levels))),
        max(1, min(levels, PIECE_VALUES // (per_row * rows))),
        max(1, min(rows, PIECE_VALUES // per_row)),
    )


def _levels(field: xr.DataArray, level: slice) -> dict[str, slice]:
    return {"level": level} if "level" in field.dims else {}


def _lay_out(fields: xr.Dataset, hours: np.ndarray, path: Path, attributes: dict[str, int | str]) -> None:
    """Makes the store with everything but its values."""
    coordinates = {name: one for name, one in fields.coords.items() if name in ("level", *CELLS)}
    empty = xr.Dataset(coords={"hour": hours.astype("int64"), "dayofyear": np.arange(1, DAYS + 1), **coordinates}, attrs=attributes)
    encoding = {}
    for name, field in fields.items():
        dims = [dim for dim in field.dims if dim != "time"]
        shape = (len(hours), DAYS, *(field.sizes[dim] for dim in dims))
        _, level_step, row_step = _steps(field, len(hours))
        chunk = {dim: {"level": level_step, "latitude": row_step}.get(str(dim), field.sizes[dim]) for dim in dims}
        days = int(np.clip(CHUNK_VALUES // np.prod(list(chunk.values())), 1, DAYS))
        encoding[name] = {"chunks": (1, days, *chunk.values()), "fill_value": np.float32(np.nan)}
        values = dask.array.full(shape, np.nan, dtype="float32", chunks=encoding[name]["chunks"])
        empty[name] = (("hour", "dayofyear", *dims), values, field.attrs)
    empty.to_zarr(path, zarr_format=3, consolidated=False, compute=False, encoding=encoding)


def _smoothed(field: xr.DataArray, index: pd.DatetimeIndex, hours: np.ndarray, weights: sparse.csr_array) -> np.ndarray:
    """C of one piece, ``(hour, dayofyear, [level,] latitude, longitude)``."""
    chosen = np.flatnonzero(index.hour.isin(hours))
    sums = np.zeros((len(hours), DAYS, *field.shape[1:]))
    counts = np.zeros(sums.shape, "uint16")
    block = max(1, BLOCK_VALUES // int(np.prod(field.shape[1:])))
    for start in range(0, len(chosen), block):
        positions = chosen[start : start + block]
        for moment, values in zip(index[positions], field.isel(time=positions).values, strict=True):
            known, hour = ~np.isnan(values), np.searchsorted(hours, moment.hour)
            for day in _days(moment):
                sums[hour, day] += np.where(known, values, 0.0)
                counts[hour, day] += known
    smoothed = np.empty(sums.shape, "float32")
    for place in np.ndindex(len(hours), *field.shape[1:-1]):
        cut = (place[0], slice(None), *place[1:])
        weight = weights @ counts[cut].astype("float64")
        smoothed[cut] = weights @ sums[cut] / np.where(weight > 0, weight, np.nan)
    return smoothed
