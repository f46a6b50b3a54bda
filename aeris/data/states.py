"""From a canonical dataset to the state, an array of channels, with every check that can be made on the way.

Shapes: T times, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from aeris.data.units import find_conversion
from aeris.data.variables import PRESSURE, SEA, SEA_ICE_POINT, STATIC, SURFACE, VARIABLES, Variable, parse_channel, state_channels
from aeris.errors import DataError

_CANONICAL = "Open the data with aeris.open_era5, which also takes a Dataset"


def channels_of(ds: xr.Dataset) -> tuple[str, ...]:
    """The state channels that a canonical dataset holds, in the order of the registry.

    Nothing is loaded: names, dimensions, units and levels are looked at. Variables that the registry does not know are left
    aside, unless they are known under another name.

    Raises:
        DataError: There is none, or one has another name, unit, dimensions or levels than the canonical dataset gives it.
    """
    _refuse_aliases(ds)
    held = [name for name in (*SURFACE, *PRESSURE, SEA) if name in ds]
    if not held:
        raise DataError(
            f"None of the variables {', '.join(map(str, ds.data_vars)) or '(there are none)'} is a state variable",
            f"A state has at least one of {', '.join((*SURFACE, *PRESSURE, SEA))}",
            _CANONICAL,
        )
    for name in held:
        check_variable(ds[name])
    levels = _levels(ds) if any(name in PRESSURE for name in held) else []
    return tuple(name for name in state_channels(levels=levels) if parse_channel(name).variable.name in held)


def check_variable(field: xr.DataArray) -> None:
    """Checks the dimensions and the unit of one variable of a canonical dataset; a missing ``units`` attribute is let pass.

    Raises:
        DataError: One of them is another than the registry says.
    """
    variable = VARIABLES[str(field.name)]
    wanted = _dimensions(variable)
    if set(field.dims) != set(wanted):
        raise DataError(f"{field.name} has the dimensions {field.dims}", f"In a canonical dataset it has {wanted}", _CANONICAL)
    units = field.attrs.get("units", variable.units)
    conversion = find_conversion(units, variable.units)
    if conversion is None or not conversion.identity:
        raise DataError(f"{field.name} is in {units!r}", f"In a canonical dataset it is in {variable.units!r}", _CANONICAL)


def stack(ds: xr.Dataset, channels: Sequence[str]) -> np.ndarray:
    """The states of a canonical dataset as one array, sea surface temperature still missing over land.

    Args:
        ds: Canonical dataset that holds the channels.
        channels: Their names, in the order wanted.

    Returns:
        Float32 array of shape ``(T, C, H, W)``.
    """
    ds = ds[sorted({parse_channel(name).variable.name for name in channels})].compute()
    out = np.empty((ds.sizes["time"], len(channels), ds.sizes["latitude"], ds.sizes["longitude"]), np.float32)
    for c, channel in enumerate(map(parse_channel, channels)):
        field = ds[channel.variable.name] if channel.level is None else ds[channel.variable.name].sel(level=channel.level)
        out[:, c] = field.transpose("time", "latitude", "longitude").values
    return out


def stack_static(ds: xr.Dataset) -> tuple[tuple[str, ...], np.ndarray]:
    """The static fields that a canonical dataset holds: their names and values, float32 of shape ``(S, H, W)``.

    Raises:
        DataError: One has a time dimension, another unit, missing values, or values out of its bounds.
    """
    names = tuple(name for name in STATIC if name in ds)
    for name in names:
        check_variable(ds[name])
    fields = [ds[name].transpose("latitude", "longitude").values.astype(np.float32) for name in names]
    for name, field in zip(names, fields, strict=True):
        _check_values(field, name, VARIABLES[name].bounds, "")
    return names, np.array(fields, np.float32).reshape(len(names), ds.sizes["latitude"], ds.sizes["longitude"])


def sea_mask(state: np.ndarray, channels: Sequence[str]) -> np.ndarray | None:
    """Where sea surface temperature is defined, bool of shape ``(H, W)``; None where it is no channel.

    Raises:
        DataError: It is missing everywhere.
    """
    if SEA not in channels:
        return None
    sea = ~np.isnan(state[list(channels).index(SEA)])
    if not sea.any():
        raise DataError(
            f"{SEA} is missing everywhere", "It is missing over land only", f"Leave it out, with ds.drop_vars({SEA!r}), or mend the source"
        )
    return sea


def check_state(state: np.ndarray, channels: Sequence[str], sea: np.ndarray | None, time: np.datetime64) -> None:
    """Checks that all values are present and physical, and that the sea is where it was.

    Args:
        state: Shape ``(C, H, W)``, sea surface temperature missing over land.
        channels: Names of the channels.
        sea: Where sea surface temperature is defined, shape ``(H, W)``.
        time: The state's time, for the message.

    Raises:
        DataError: Naming channel, time, number of grid points and the bounds.
    """
    when = f" at {np.datetime_as_string(time, unit='m')}"
    for name, field in zip(channels, state, strict=True):
        if name == SEA and sea is not None:
            _check_coast(field, sea, when)
            field = field[sea]
        _check_values(field, name, parse_channel(name).variable.bounds, when)


def fill_land(state: np.ndarray, channels: Sequence[str], sea: np.ndarray | None) -> np.ndarray:
    """Fills sea surface temperature over land in place, and returns the state.

    Args:
        state: Shape ``(..., C, H, W)``, sea surface temperature missing over land.
        channels: Names of the channels.
        sea: Where sea surface temperature is defined, shape ``(H, W)``: elsewhere it becomes the freezing point of sea water. None, for
            weights of others that predict it over land too: what is missing becomes the smallest of its field.
    """
    if SEA not in channels:
        return state
    field = state[..., list(channels).index(SEA), :, :]
    if sea is not None:
        field[..., ~sea] = SEA_ICE_POINT
    elif np.isnan(field).any():
        np.copyto(field, np.nanmin(field, axis=(-2, -1), keepdims=True), where=np.isnan(field))
    return state


def _dimensions(variable: Variable) -> tuple[str, ...]:
    time = () if variable.kind == "static" else ("time",)
    return (*time, *(("level",) if variable.pressure else ()), "latitude", "longitude")


def _refuse_aliases(ds: xr.Dataset) -> None:
    """A known field under another name would be left out in silence."""
    other_names = {alias: variable.name for variable in VARIABLES.values() for alias in (variable.short, *variable.aliases)}
    for name in map(str, ds.data_vars):
        if name.lower() in other_names:
            raise DataError(f"The dataset holds {name!r}", f"A canonical dataset calls it {other_names[name.lower()]!r}", _CANONICAL)


def _levels(ds: xr.Dataset) -> list[int]:
    """The levels in hPa, rising from the top."""
    found = ds.level.values if "level" in ds.coords else np.array([])
    numbers = np.issubdtype(found.dtype, np.number) and found.size > 0
    if not numbers or np.any(found != np.round(found)) or np.any((found <= 0) | (found > 1100)) or len(np.unique(found)) != len(found):
        raise DataError(
            f"The levels are {found.tolist() or 'not named'}",
            "Levels are different whole numbers of hPa from 1 to 1100, in a coordinate called level",
            _CANONICAL,
        )
    return sorted(int(level) for level in found)


def _check_coast(field: np.ndarray, sea: np.ndarray, when: str) -> None:
    moved = int(np.count_nonzero(np.isnan(field) == sea))
    if moved:
        raise DataError(
            f"{SEA}{when} is missing on other grid points than before, {moved} of {field.size}",
            "The sea stays where it is at the first time",
            "Fill the holes in the source, or leave the variable or the time out",
        )


def _check_values(field: np.ndarray, name: str, bounds: tuple[float, float], when: str) -> None:
    """Refuses missing, infinite and unphysical values; the smallest and the largest tell whether there can be any.

    A thousandth of the range is allowed beyond the bounds, for the rounding of packed files.
    """
    low, high = bounds
    slack = 1e-3 * (high - low)
    if low - slack <= np.min(field) and np.max(field) <= high + slack:
        return
    missing, infinite = int(np.count_nonzero(np.isnan(field))), int(np.count_nonzero(np.isinf(field)))
    if missing or infinite:
        kind, count = ("missing", missing) if missing else ("infinite", infinite)
        raise DataError(
            f"{name}{when} has {count} {kind} values of {field.size}",
            f"Only {SEA} may be missing, and that over land",
            "Mend or leave out this time, level or variable",
        )
    raise DataError(
        f"{name}{when} lies between {np.min(field):.6g} and {np.max(field):.6g}",
        f"On Earth it lies between {low:g} and {high:g} {VARIABLES[parse_channel(name).variable.name].units}",
        f"Look at its unit and packing; {_CANONICAL[0].lower()}{_CANONICAL[1:]}",
    )
