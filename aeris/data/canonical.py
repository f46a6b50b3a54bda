"""Turns an opened dataset into canonical fields: names, units, orders and times, or one error that says what is wrong.

What decides, in this order: the name of a variable (WeatherBench 2, ECMWF, GRIB and the aliases of the registry), then its CF
standard name. A variable of the free atmosphere needs a pressure level; a wind or temperature at a height of 10 or 2 m is the
surface field. Nothing is read here but one time of each wanted variable, to hold its values against its unit.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import dask
import numpy as np
import xarray as xr

from aeris.data.coordinates import (
    DIMENSIONS,
    height_above_ground,
    level_coordinate,
    listed,
    pressure_coordinate,
    with_grid,
    with_level,
    with_levels,
    with_members,
    with_time,
)
from aeris.data.units import Sample, choose_conversion, find_conversion, mean_geopotential
from aeris.data.variables import LEVELS, VARIABLES, Variable
from aeris.errors import DataError

log = logging.getLogger(__name__)

PLANET = "planet_"
"""Variables with this prefix carry the hidden state of the simulated planet and travel untouched."""

STANDARD_NAMES = {
    "geopotential": "geopotential",
    "geopotential_height": "geopotential",
    "eastward_wind": "u_component_of_wind",
    "northward_wind": "v_component_of_wind",
    "air_temperature": "temperature",
    "specific_humidity": "specific_humidity",
    "air_pressure_at_mean_sea_level": "mean_sea_level_pressure",
    "air_pressure_at_sea_level": "mean_sea_level_pressure",
    "sea_surface_temperature": "sea_surface_temperature",
    "toa_incoming_shortwave_flux": "toa_incident_solar_radiation",
    "surface_geopotential": "geopotential_at_surface",
    "surface_altitude": "geopotential_at_surface",
    "land_area_fraction": "land_sea_mask",
    "land_binary_mask": "land_sea_mask",
}
"""CF standard names of the variables."""

AT_HEIGHT = {
    ("temperature", 2): "2m_temperature",
    ("u_component_of_wind", 10): "10m_u_component_of_wind",
    ("v_component_of_wind", 10): "10m_v_component_of_wind",
}
"""What a variable of the free atmosphere is at a height in metres above the ground."""


@dataclass(frozen=True)
class Field:
    """A variable as one file holds it.

    Attributes:
        array: Named and ordered canonically.
        source: Its name in the file.
        where: The file, for messages.
    """

    array: xr.DataArray
    source: str
    where: str

    @property
    def name(self) -> str:
        """The canonical name."""
        return str(self.array.name)

    @property
    def variable(self) -> Variable | None:
        """What the registry knows of it; None for the hidden state of a simulated planet."""
        return VARIABLES.get(self.name)


def find_fields(raw: xr.Dataset, where: str, wanted: Collection[str] = (), level: int | None = None) -> list[Field]:
    """Finds the known variables of a dataset and gives them canonical names, coordinates and order; values stay untouched.

    Args:
        raw: What was opened.
        where: The file, for messages.
        wanted: Canonical names of the only variables to look at; empty for all.
        level: Pressure in hPa of variables that stand on one level which the file does not name.

    Returns:
        The fields, still in the file's units, in the order of the dataset.

    Raises:
        DataError: No variable is known, or grid, level or time cannot be understood.
    """
    raw = with_grid(with_members(with_time(raw, where)), where)
    sources = _identify(raw, where, wanted)
    hidden = {str(name): str(name) for name in raw.data_vars if str(name).startswith(PLANET)}
    if not sources and not wanted:
        raise DataError(
            f"No variable of {where} is known: it holds {listed(raw.data_vars) or 'none'}",
            f"At least one must be among {', '.join(VARIABLES)}, or carry an ECMWF, GRIB, CMIP or NCEP name of these",
            "Leave the file out, or rename what you mean, as in ds.rename(tmp_iso='temperature'), and pass the Dataset",
        )
    ignored = sorted({str(name) for name in raw.data_vars} - set(sources) - set(hidden))
    if ignored:
        log.info("%s: ignored %s", where, ", ".join(ignored))
    names = sources | hidden
    return [_field(raw[name], names[str(name)], where, level) for name in raw.data_vars if name in names]


def to_si(fields: Iterable[Field]) -> list[Field]:
    """Converts fields to SI and float32, after holding one time of each against its unit.

    Raises:
        DataError: A unit is unknown, missing where the values do not tell it, or contradicted by the values.
    """
    fields = list(fields)
    known = [field for field in fields if field.variable]
    first = dict(zip((id(field) for field in known), dask.compute(*(_first_time(field.array) for field in known)), strict=True))
    return [_in_si(field, Sample.of(first[id(field)])) if field.variable else field for field in fields]


def _in_si(field: Field, sample: Sample) -> Field:
    variable, array = field.variable, field.array
    assert variable is not None
    conversion = choose_conversion(variable, str(array.attrs.get("units", "")).strip(), sample, field.source, field.where)
    attrs = array.attrs
    if field.source != variable.name or attrs.get("units") != variable.units or "long_name" not in attrs:
        attrs = {"units": variable.units, "long_name": variable.long_name}
    if not conversion.identity:
        array = array * conversion.scale + conversion.offset
    array = array.astype(np.float32, copy=False).copy(deep=False)
    array.attrs = dict(attrs)
    return replace(field, array=array)


def _first_time(array: xr.DataArray) -> xr.DataArray:
    """The first time and member of an array, on the levels from 50 to 1000 hPa for which the registry has bounds."""
    if "level" in array.dims:
        array = array.isel(level=np.flatnonzero((array.level >= 50) & (array.level <= 1000)))
    return _without_time(array)


# --- names ----------------------------------------------------------------------------------------------------------------------

_BY_ATTRIBUTE, _BY_STANDARD_NAME = 100, 900


def resolve(name: str) -> tuple[str, int] | None:
    """The variable that a name in either case belongs to, and how well: 0 is its own name, then its short name and aliases."""
    for variable in VARIABLES.values():
        names = (variable.name, variable.short, *variable.aliases)
        if name.lower() in names:
            return variable.name, names.index(name.lower())
    return None


def _identify(raw: xr.Dataset, where: str, wanted: Collection[str]) -> dict[str, str]:
    """Variables of the dataset and the canonical names that they carry best."""
    best: dict[str, tuple[int, str]] = {}
    for source in map(str, raw.data_vars):
        name, rank = _meaning(raw[source])
        if name is None or (wanted and name not in wanted):
            continue
        if name in best and best[name][0] == rank:
            raise DataError(
                f"Variables {best[name][1]!r} and {source!r} of {where} both look like {name}",
                "One variable of a file may stand for it",
                f"Drop one, for example ds.drop_vars({source!r}), and pass the Dataset",
            )
        if name not in best or rank < best[name][0]:
            best[name] = rank, source
    return {source: name for name, (_, source) in best.items()}


def _meaning(array: xr.DataArray) -> tuple[str | None, int]:
    """The canonical name of one variable, or None, and how well it fits (smaller is better)."""
    if not {"latitude", "longitude"} <= set(array.dims):
        return None, 0
    labels = [str(array.name), *(str(array.attrs.get(key, "")) for key in ("GRIB_shortName", "GRIB_cfVarName", "short_name"))]
    for position, label in enumerate(labels):
        if found := resolve(label):
            return _in_its_place(array, found[0]), position * _BY_ATTRIBUTE + found[1]
    name = STANDARD_NAMES.get(str(array.attrs.get("standard_name", "")))
    extreme = any(word in str(array.attrs.get("cell_methods", "")) for word in ("maximum", "minimum", "deviation", "variance"))
    if name is None or extreme:
        return None, 0
    if VARIABLES[name].pressure and not pressure_coordinate(array):
        name = AT_HEIGHT.get((name, height_above_ground(array) or 0))
    return name, _BY_STANDARD_NAME


def _in_its_place(array: xr.DataArray, name: str) -> str | None:
    """Corrects a name by where the variable stands: ``z`` at the surface is orography, ``u`` at 10 m the surface wind."""
    if not VARIABLES[name].pressure or pressure_coordinate(array):
        return name
    kind = str(array.attrs.get("GRIB_typeOfLevel", "isobaric"))
    if name == "geopotential" and (kind == "surface" or _says_surface(array) or _spans_mountains(array)):
        return "geopotential_at_surface"
    height = height_above_ground(array)
    if height is not None or not kind.startswith("isobaric"):
        return AT_HEIGHT.get((name, height or 0))
    return name


def _says_surface(array: xr.DataArray) -> bool:
    """Whether a description speaks of the ground, and not of an isobaric surface."""
    text = " ".join(str(array.attrs.get(key, "")) for key in ("long_name", "standard_name", "var_desc", "level_desc")).lower()
    return "orograph" in text or ("surface" in text and "isobar" not in text and "pressure" not in text)


def _spans_mountains(array: xr.DataArray) -> bool:
    """Whether a geopotential reaches from the sea to the high mountains, as no pressure level does."""
    conversion = find_conversion(str(array.attrs.get("units") or "m"), "m**2 s**-2")
    if conversion is None or level_coordinate(array):
        return False
    sample = Sample.of(_first_time(array)).converted(conversion)
    return sample.low < 3_000.0 and sample.high > 20_000.0


# --- dimensions -----------------------------------------------------------------------------------------------------------------


def _field(array: xr.DataArray, name: str, where: str, level: int | None) -> Field:
    """One variable with canonical dimensions in canonical order; the hidden state of a planet as it is."""
    source = str(array.name)
    if name not in VARIABLES:
        return Field(array, source, where)
    variable = VARIABLES[name]
    if variable.pressure:
        array = _on_levels(array, where, level)
    array = _without_time(array) if variable.kind == "static" else _in_time(array, where)
    array = _on_known_dimensions(array, variable, where)
    array = array.drop_vars([coordinate for coordinate in array.coords if coordinate not in array.dims])
    return Field(array.transpose(*(dim for dim in DIMENSIONS if dim in array.dims)).rename(name), source, where)


def _without_time(array: xr.DataArray) -> xr.DataArray:
    return array.isel({dim: 0 for dim in ("time", "number") if dim in array.dims})


def _in_time(array: xr.DataArray, where: str) -> xr.DataArray:
    """Makes a single time a dimension."""
    if "time" in array.coords:
        return array if "time" in array.dims else array.expand_dims("time")
    count = array.sizes.get("time")
    found = f"Variable {array.name!r} of {where} has no time" if count is None else f"The {count} times of {where} have no coordinate"
    given = "pd.Timestamp('2012-10-28')" if count is None else f"pd.date_range('2012-10-28', periods={count})"
    raise DataError(
        found, "A field that changes needs its time", f"Assign it, for example ds.assign_coords(time={given}), and pass the Dataset"
    )


def _on_known_dimensions(array: xr.DataArray, variable: Variable, where: str) -> xr.DataArray:
    """Drops other dimensions of one element, and refuses those of more."""
    known = [dim for dim in DIMENSIONS if dim != "level" or variable.pressure]
    array = array.squeeze([dim for dim in array.dims if dim not in known and array.sizes[dim] == 1])
    other = next((dim for dim in array.dims if dim not in known), None)
    if other is None:
        return array
    raise DataError(
        f"Variable {array.name!r} of {where} has a dimension {other!r} of {array.sizes[other]}",
        f"{variable.name} stands on {', '.join(known)}",
        f"Select one of them, for example ds.isel({other}=0), or combine them, and pass the Dataset",
    )


def _on_levels(array: xr.DataArray, where: str, level: int | None) -> xr.DataArray:
    """Puts an array on its pressure levels: those of the file, else the one that was named, else the one that its values tell."""
    name = pressure_coordinate(array)
    if name is not None:
        return with_levels(array, name, where)
    given = level_coordinate(array)
    if given is None:
        level = level or _standard_level(array)
        if level is not None:
            log.info("%s: %r stands on %d hPa", where, array.name, level)
            return with_level(array, level)
    raise _level_error(array, given, where)


def _level_error(array: xr.DataArray, given: str | None, where: str) -> DataError:
    rule = "A field of the free atmosphere needs its pressure in hPa or Pa, and a surface field its own name"
    if given is None:
        twin = {name: surface for (name, _), surface in AT_HEIGHT.items()} | {"geopotential": "geopotential_at_surface"}
        found = resolve(str(array.name))
        rename = f", rename it with ds.rename({array.name}={twin[found[0]]!r}) and pass the Dataset" if found and found[0] in twin else ""
        remedy = f"Name its one level, as in open_era5(..., levels=500){rename}, or leave it out with variables="
        return DataError(f"Variable {array.name!r} of {where} names no level", rule, remedy)
    unit = array[given].attrs.get("units") if given in array.coords else None
    return DataError(
        f"Variable {array.name!r} of {where} stands on {given!r} " + (f"in {unit!r}" if unit else "without a coordinate"),
        rule,
        f"Interpolate it to pressure levels, or assign pressures with ds.assign_coords({given}=[...]), and pass the Dataset",
    )


def _standard_level(array: xr.DataArray) -> int | None:
    """The usual level whose global mean geopotential a global field has, if no other comes near it.

    Near the ground, where orography has such means too, it stays open.
    """
    rows, columns = array.latitude.values, array.longitude.values
    conversion = find_conversion(str(array.attrs.get("units") or "m"), "m**2 s**-2")
    found = resolve(str(array.name))
    global_field = len(rows) > 1 and len(columns) > 1 and np.ptp(rows) > 150.0 and np.ptp(columns) + np.diff(columns).max() > 359.0
    if not global_field or conversion is None or found is None or found[0] != "geopotential":
        return None
    mean = Sample.of(_first_time(array)).converted(conversion).means[0]
    distance = np.abs([mean_geopotential(level) - mean for level in LEVELS])
    nearest, second = np.argsort(distance)[:2]
    return LEVELS[nearest] if distance[nearest] < 0.2 * distance[second] and LEVELS[nearest] <= 850 else None
