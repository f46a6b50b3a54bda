"""Time, ensemble members, latitude, longitude and pressure levels of an opened dataset, made canonical.

Every function here returns its input unchanged where there is nothing to do.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd
import xarray as xr

from aeris.data.units import find_conversion
from aeris.errors import DataError

DIMENSIONS = ("time", "number", "level", "latitude", "longitude")
"""The order of dimensions: an ensemble's members stand after time, as in the forecast archive."""

TIME_NAMES = ("valid_time", "time", "datetime", "date")
MEMBER_NAMES = ("number", "realization", "realisation", "member", "ensemble", "ens")
LATITUDE_NAMES = ("latitude", "lat", "nav_lat", "xlat")
LONGITUDE_NAMES = ("longitude", "lon", "long", "nav_lon", "xlong")
LEVEL_NAMES = ("level", "levelist", "lev", "plev", "pressure", "pressure_level", "isobaric", "isobaricinhpa", "isobaricinpa")

ERA5_LEVELS = (
    1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400, 450, 500, 550, 600, 650, 700, 750, 775, 800,
    825, 850, 875, 900, 925, 950, 975, 1000,
)  # fmt: skip
"""The 37 pressure levels of ERA5 in hPa."""


def find_coordinate(ds: xr.Dataset | xr.DataArray, names: tuple[str, ...], standard_name: str, units: str = "") -> str | None:
    """The dimension or coordinate that has one of `names` (in either case), a CF standard name or, where given, a unit."""
    present = {str(name).lower(): str(name) for name in (*ds.dims, *ds.coords)}
    for name in names:
        if name in present:
            return present[name]
    for key, coordinate in ds.coords.items():
        stated = str(coordinate.attrs.get("units", "")).lower()
        if coordinate.attrs.get("standard_name") == standard_name or (units and stated.startswith(units)):
            return str(key)
    return None


def listed(words: Iterable[object]) -> str:
    """Words joined by commas, at most twelve of them."""
    texts = [str(word) for word in words]
    return ", ".join(texts[:12]) + (f" and {len(texts) - 12} more" if len(texts) > 12 else "")


# --- time and members -----------------------------------------------------------------------------------------------------------


def with_time(raw: xr.Dataset, where: str) -> xr.Dataset:
    """Names the time of validity ``time``, as ``datetime64[ns]``, and checks that it is a standard one that rises."""
    name = find_coordinate(raw, TIME_NAMES, "time")
    if name is None or name not in raw.coords:
        return raw if name in (None, "time") else raw.rename({name: "time"})
    if raw[name].ndim > 1:
        raise DataError(
            f"The times of {where} depend on {' and '.join(map(str, raw[name].dims))}",
            "A field of the canonical dataset has one time, at which it is valid",
            "Select one lead time, for example ds.isel(step=0), or open a forecast of this package with aeris.open_forecast",
        )
    times = _decoded(raw[name], where)
    _check_rising(pd.DatetimeIndex(np.atleast_1d(times)), where)
    if name == "time" and times.dtype == raw["time"].dtype:
        return raw
    return _with_times(raw, name, times)


def _with_times(raw: xr.Dataset, name: str, times: np.ndarray) -> xr.Dataset:
    """Puts `times` of the coordinate `name` in the place of ``time`` (which in a forecast is the initial time)."""
    dims = raw[name].dims
    attrs = {key: value for key, value in raw[name].attrs.items() if key not in ("units", "calendar")}
    raw = raw.drop_vars([coordinate for coordinate in {"time", name} if coordinate in raw.coords])
    if dims and dims[0] != "time":
        raw = raw.rename_dims({dims[0]: "time"})
    return raw.assign_coords(time=(("time",) if dims else (), times, attrs))


def _decoded(times: xr.DataArray, where: str) -> np.ndarray:
    """Times as ``datetime64[ns]``."""
    if times.dtype.kind in "iuf" and "since" in str(times.attrs.get("units", "")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", xr.SerializationWarning)
                times = xr.decode_cf(xr.Dataset({"decoded": times.variable}))["decoded"].load()
        except ValueError as error:
            raise _time_error(f"The times of {where} in {times.attrs['units']!r} cannot be decoded") from error
    values = np.asarray(times.values)
    if values.dtype == object:
        values = _from_calendar(values, where)
    if values.dtype.kind != "M":
        raise _time_error(f"The times of {where} are {np.ravel(values)[:2]} without a unit such as 'hours since 1900-01-01'")
    if np.isnat(values).any():
        raise _time_error(f"A time of {where} is missing")
    years = values.astype("datetime64[Y]").astype(int) + 1970
    if years.min() < 1678 or years.max() > 2261:
        raise _time_error(f"The times of {where} begin in the year {years.min()}, as those of a climatology do")
    return values.astype("datetime64[ns]")


def _from_calendar(values: np.ndarray, where: str) -> np.ndarray:
    """Dates of a calendar object as ``datetime64``, if the calendar is the common one."""
    calendar = getattr(np.ravel(values)[0], "calendar", "standard")
    if calendar not in ("standard", "gregorian", "proleptic_gregorian"):
        raise _time_error(f"The times of {where} are in the calendar {calendar!r}")
    return np.reshape([np.datetime64(value.isoformat(), "us") for value in np.ravel(values)], values.shape)


def _time_error(found: str) -> DataError:
    return DataError(
        found,
        "Fields need times of the standard calendar between 1678 and 2261",
        "Assign the times they stand for, for example ds.assign_coords(time=pd.date_range('2022-01-01', periods=ds.sizes['time'])), "
        "and pass the Dataset",
    )


def _check_rising(times: pd.DatetimeIndex, where: str) -> None:
    if times.is_monotonic_increasing and times.is_unique:
        return
    wrong = int(np.flatnonzero(times[1:] <= times[:-1])[0])
    before, here = times[wrong], times[wrong + 1]
    found = f"{here} stands twice" if here == before else f"{here} follows {before}"
    raise DataError(
        f"In the times of {where}, {found}",
        "Times must rise and be unique",
        "Sort and prune them with ds.sortby('time').drop_duplicates('time') and pass the Dataset",
    )


def with_members(raw: xr.Dataset) -> xr.Dataset:
    """Names an ensemble dimension ``number``."""
    name = next((str(name) for name in raw.dims if str(name).lower() in MEMBER_NAMES), "number")
    return raw if name == "number" else raw.drop_vars("number", errors="ignore").rename({name: "number"})


# --- latitude and longitude -----------------------------------------------------------------------------------------------------


def with_grid(raw: xr.Dataset, where: str) -> xr.Dataset:
    """Names latitude and longitude and sorts them: rows north to south, columns from the smallest in 0..360 eastward."""
    rows = find_coordinate(raw, LATITUDE_NAMES, "latitude", "degrees_n")
    columns = find_coordinate(raw, LONGITUDE_NAMES, "longitude", "degrees_e")
    axes = [raw[name].dims if name in raw.coords else () for name in (rows, columns)]
    if [len(dims) for dims in axes] != [1, 1] or axes[0] == axes[1]:
        raise DataError(
            f"{where} has {_shape(raw, rows)} for latitude and {_shape(raw, columns)} for longitude",
            "Fields must stand on a latitude/longitude grid: one latitude for each row and one longitude for each column",
            "Regrid the data first, for example with cdo remapbil,r360x181, or ask the archive for a regular grid",
        )
    for name, (dim,), target in zip((rows, columns), axes, ("latitude", "longitude"), strict=True):
        raw = raw if dim == name else raw.swap_dims({dim: name})
        raw = raw if name == target else raw.rename({name: target})
    return _eastward(_southward(raw, where), where)


def _shape(raw: xr.Dataset, name: str | None) -> str:
    if name is None or name not in raw.coords:
        return "no coordinate"
    return f"{name!r} along {' and '.join(map(str, raw[name].dims)) or 'no dimension'}"


def _southward(raw: xr.Dataset, where: str) -> xr.Dataset:
    steps = np.diff(raw.latitude.values)
    if len(steps) and (steps > 0).all():
        return raw.isel(latitude=slice(None, None, -1))
    if not (steps < 0).all() or np.abs(raw.latitude.values).max(initial=0.0) > 90.001:
        raise DataError(
            f"The latitudes of {where} run {listed(raw.latitude.values)}",
            "Rows must rise or fall throughout, between -90 and 90 degrees north",
            "Sort them with ds.sortby('latitude', ascending=False).drop_duplicates('latitude') and pass the Dataset",
        )
    return raw


def _eastward(raw: xr.Dataset, where: str) -> xr.Dataset:
    """Longitudes in 0..360, rising; a column given at both 0° and 360° is kept once."""
    stated = raw.longitude.values
    if not np.isfinite(stated).all() or np.abs(stated).max(initial=0.0) > 540.0:
        raise DataError(
            f"The longitudes of {where} run {listed(stated)}", "Longitudes are degrees east", "Correct them and pass the Dataset"
        )
    east = np.mod(stated, 360.0)
    east[east > 360.0 - 1e-5] = 0.0
    _, order = np.unique(np.round(east, 5), return_index=True)
    if np.array_equal(order, np.arange(len(east))) and np.array_equal(east, stated):
        return raw
    return raw.assign_coords(longitude=("longitude", east, raw.longitude.attrs)).isel(longitude=order)


# --- levels ---------------------------------------------------------------------------------------------------------------------


def level_coordinate(array: xr.DataArray) -> str | None:
    """The dimension or coordinate that tells the levels of an array, whatever kind they are."""
    return find_coordinate(array, LEVEL_NAMES, "air_pressure") or find_coordinate(
        array, ("hybrid", "model_level", "sigma"), "atmosphere_hybrid_sigma_pressure_coordinate"
    )


def pressure_coordinate(array: xr.DataArray) -> str | None:
    """The coordinate that holds the pressure of an array, if it stands on pressure levels."""
    name = level_coordinate(array)
    if name is None or name not in array.coords or array[name].ndim > 1:
        return None
    units = array[name].attrs.get("units")
    return name if not units or find_conversion(str(units), "Pa") else None


def height_above_ground(array: xr.DataArray) -> int | None:
    """Height above the ground in m where a variable stands at one."""
    for name, coordinate in array.coords.items():
        named = str(name).lower() in ("heightaboveground", "height") or coordinate.attrs.get("standard_name") == "height"
        if coordinate.size == 1 and (named or (str(name).lower() in LEVEL_NAMES and coordinate.attrs.get("units") == "m")):
            return round(float(coordinate.item()))
    return None


def with_levels(array: xr.DataArray, name: str, where: str) -> xr.DataArray:
    """Names the pressure coordinate `name` ``level``, in whole hPa and rising; a single level becomes a dimension."""
    pressure = _in_hectopascal(array[name], where)
    if name == "level" and array.level.dims and array.level.dtype.kind == "i" and np.array_equal(array.level, np.unique(pressure)):
        return array
    dims = array[name].dims
    array = array.drop_vars({"level", name} & set(array.coords))
    if dims and dims[0] != "level":
        array = array.rename({dims[0]: "level"})
    # Levels between whole hPa lie above 1 hPa and have no channel name.
    whole = np.flatnonzero(pressure == np.round(pressure))
    order = whole[np.argsort(pressure[whole], kind="stable")]
    levels = pressure[order].astype(int)
    if not len(levels) or len(np.unique(levels)) < len(levels):
        raise DataError(
            f"The levels of {where} are {listed(f'{value:g}' for value in pressure)} hPa",
            "Levels must be unique and whole hPa",
            "Choose them, for example with ds.drop_duplicates('level'), and pass the Dataset",
        )
    if not dims:
        return with_level(array, int(levels[0]))
    return array.isel(level=order).assign_coords(level=("level", levels, {"units": "hPa", "long_name": "pressure"}))


def with_level(array: xr.DataArray, level: int) -> xr.DataArray:
    """Gives an array the one level in hPa on which it stands."""
    return array.expand_dims(level=xr.Variable("level", [level], {"units": "hPa", "long_name": "pressure"}))


def _in_hectopascal(coordinate: xr.DataArray, where: str) -> np.ndarray:
    """Pressures in hPa; without a unit they are Pa above 1100, and hPa where all are levels of ERA5."""
    values = np.atleast_1d(np.asarray(coordinate.values, dtype=np.float64))
    conversion = find_conversion(str(coordinate.attrs.get("units", "")), "Pa")
    if conversion is not None:
        return np.round(values * conversion.scale / 100.0, 4)
    if values.max() > 1100.0 and values.min() >= 100.0:
        return np.round(values / 100.0, 4)
    if str(coordinate.name).lower() == "isobaricinhpa" or set(values.tolist()) <= set(ERA5_LEVELS):
        return values
    raise DataError(
        f"The levels of {where}, {listed(f'{value:g}' for value in values)}, have no unit and are not the pressure levels of ERA5",
        "Levels are pressures in hPa or Pa; model levels must be interpolated to pressure first",
        f"If they are pressures, say so with ds[{str(coordinate.name)!r}].attrs['units'] = 'hPa' and pass the Dataset",
    )
