"""Forecast archives of anybody, opened as those of aeris are laid out, lazily.

What differs between archives in the shape of WeatherBench 2 is put in order here: names of dimensions and variables, rows from the
south, columns from 180° west. Values stay as they are; those in other units than the truth's are refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from aeris.data.canonical import resolve
from aeris.data.coordinates import LEVEL_NAMES, with_grid, with_members
from aeris.data.formats import open_path, open_url
from aeris.data.units import CONVERSIONS, Sample, find_conversion, fits, spelling
from aeris.data.variables import VARIABLES, Variable
from aeris.errors import DataError, StoreError

LEAD = "prediction_timedelta"
CELLS = ("latitude", "longitude")
START_NAMES = ("init_time", "initial_time", "forecast_reference_time", "init")
LEAD_NAMES = ("lead_time", "lead", "step", "leadtime")


def open_archive(source: xr.Dataset | str | Path) -> xr.Dataset:
    """Opens a forecast archive lazily; a single forecast gets a member dimension of one.

    Args:
        source: A Dataset, or the path or URL of a Zarr store or NetCDF file.

    Raises:
        DataError: A dimension of an archive is missing, stands twice, or the leads are not time differences.
        StoreError: There is nothing at that path.
    """
    archive = _in_order(source if isinstance(source, xr.Dataset) else _opened(str(source)))
    need_dimensions("the forecast", archive, ("time", LEAD, *CELLS))
    if archive[LEAD].dtype.kind != "m":
        raise DataError(
            f"The leads of the forecast have dtype {archive[LEAD].dtype}",
            f"{LEAD} is a time difference",
            f"Convert hours with fc.assign_coords({LEAD}=fc.{LEAD} * np.timedelta64(1, 'h'))",
        )
    return archive if "number" in archive.dims else archive.expand_dims(number=[0])


def _opened(source: str) -> xr.Dataset:
    if "://" not in source and not Path(source).exists():
        rule = "A path must lead to a forecast archive (Zarr)"
        raise StoreError(f"There is no forecast at {source}", rule, "Check the path, or run the forecast first")
    if Path(source).is_dir():
        return xr.open_zarr(source, chunks=None, consolidated=False, decode_timedelta=True)
    raw = open_url(source) if "://" in source else open_path(Path(source))
    if len(raw) > 1:
        raise DataError(
            f"{source} is a file of several kinds of fields", "An archive is a Zarr store or NetCDF file", "Convert it, for example to Zarr"
        )
    archive = xr.decode_cf(raw[0], decode_timedelta=True)
    archive.encoding["source"] = source
    return archive


def _in_order(raw: xr.Dataset) -> xr.Dataset:
    """The archive with the names of aeris, rows from north to south and columns from 0° eastward."""
    raw = with_members(raw)
    for name, others in (("time", START_NAMES), (LEAD, LEAD_NAMES), ("level", LEVEL_NAMES)):
        given = next((str(dim) for dim in raw.dims if str(dim).lower() in others), name)
        if name not in raw.dims and given in raw.dims:
            raw = raw.drop_vars(name, errors="ignore").rename({given: name})
    known = {str(name): found[0] for name in raw.data_vars if (found := resolve(str(name)))}
    fitting = {name: own for name, own in known.items() if own not in raw and VARIABLES[own].pressure == ("level" in raw[name].dims)}
    return with_grid(raw.rename(fitting), "the forecast")


def need_dimensions(owner: str, ds: xr.Dataset, dims: tuple[str, ...]) -> None:
    """Raises a DataError where a dimension is missing, has no coordinate, or has one value twice."""
    begin = owner[0].upper() + owner[1:]
    missing = [dim for dim in dims if dim not in ds.dims or dim not in ds.coords]
    if missing:
        raise DataError(
            f"{begin} has no coordinate {', '.join(missing)}; its dimensions are {', '.join(map(str, ds.dims))}",
            f"{begin} needs the dimensions {', '.join(dims)} with their coordinates",
            "Keep a dimension of one with fc.sel(time=[...]) rather than fc.sel(time=...)",
        )
    for dim in (*dims, "level", "number"):
        if dim in ds.indexes and ds.indexes[dim].has_duplicates:
            twice = ds.indexes[dim][ds.indexes[dim].duplicated()][0]
            raise DataError(f"{begin} has {dim} {twice} twice", "A coordinate is unique", f"Prune it with ds.drop_duplicates({dim!r})")


def need_same_units(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    """Refuses fields that are not in the unit of the registry, or of variables that it does not know in the same as the truth.

    A unit that is stated counts, unless the values contradict it. Where the values of one of the two make sense in another unit alone,
    they count. One field of each variable is read.

    Raises:
        DataError: A unit differs.
    """
    for name in map(str, forecast.data_vars):
        known = VARIABLES.get(name)
        units = _units_of(known, forecast[name], truth[name]) if known else _given(forecast[name], truth[name])
        if any(unit != (known.units if known else units[1]) for unit in units):
            raise DataError(
                f"{name} is in {units[0]} in the forecast and in {units[1]} in the truth",
                f"Forecast and truth must be in {known.units if known else 'the same unit'}",
                "Convert it, set its attribute 'units', and pass the Dataset; aeris.open_era5 converts a truth",
            )


def _given(*fields: xr.DataArray) -> tuple[str, ...]:
    """The units that fields of an unknown variable state; nothing where one of them states none."""
    units = tuple(spelling(str(field.attrs.get("units", ""))) for field in fields)
    return units if all(units) else ()


def _units_of(variable: Variable, *fields: xr.DataArray) -> tuple[str, ...]:
    """The units in which fields are: those that they state, or, where only one of them makes sense in the unit of the registry, tell."""
    stated = tuple(_stated(variable, field) for field in fields)
    if any(unit != variable.units for unit in stated):
        return stated
    told = tuple(_told(variable, field) for field in fields)
    return told if len(set(told)) > 1 and all(told) else stated


def _sample(field: xr.DataArray) -> Sample:
    """One time, lead and member, on the levels from 50 to 1000 hPa for which the registry has bounds."""
    if "level" in field.dims:
        field = field.isel(level=np.flatnonzero((field.level >= 50) & (field.level <= 1000)))
    return Sample.of(field.isel({dim: 0 for dim in field.dims if dim not in ("level", *CELLS)}))


def _stated(variable: Variable, field: xr.DataArray) -> str:
    """The unit that a field states; that of the registry where it states none, or one that its values contradict."""
    stated = str(field.attrs.get("units", "")).strip()
    known = find_conversion(stated, variable.units)
    if not stated or (known is not None and known.identity):
        return variable.units
    sample = _sample(field)
    stale = fits(variable, sample) and not (known is not None and fits(variable, sample.converted(known)))
    return variable.units if stale else stated


def _told(variable: Variable, field: xr.DataArray) -> str:
    """The unit in which values make sense, that of the registry if in none; nothing where all values are missing."""
    sample = _sample(field)
    if np.isnan(sample.low):
        return ""
    fitting = [known.unit for known in CONVERSIONS[variable.units] if fits(variable, sample.converted(known))]
    return fitting[0] if fitting else variable.units
