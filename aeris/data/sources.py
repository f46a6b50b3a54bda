"""`open_era5`: the fields that people have, as the canonical dataset.

A source is a Zarr store, a NetCDF or GRIB file, a URL, a pattern, a folder, an open Dataset, or a list of these. Every file is
made canonical by itself, so that files with different names, units and orders go together; then the same variable of several
files is joined along time and level, and the variables are put side by side.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from aeris.data.canonical import Field, find_fields, resolve, to_si
from aeris.data.coordinates import listed
from aeris.data.formats import FILE_ENDINGS, is_zarr, open_path, open_url
from aeris.data.variables import VARIABLES
from aeris.errors import DataError

Source = str | os.PathLike | xr.Dataset | Sequence[str | os.PathLike | xr.Dataset]
Times = slice | str | date | np.datetime64 | Sequence[str | date | np.datetime64]


def open_era5(
    source: Source,
    variables: str | Sequence[str] | None = None,
    levels: int | Sequence[int] | None = None,
    time: Times | None = None,
) -> xr.Dataset:
    """Opens fields from what people have as the canonical dataset, lazily.

    Names may be those of WeatherBench 2, ECMWF, GRIB, CMIP and NCEP or CF standard names; pressure in hPa or Pa, latitude in
    either order, longitude in -180..180 or 0..360, dimensions in any order. Units decide: heights become geopotential, °C
    become K, and one time of every variable is read to hold its values against its unit. Other variables of a file are left
    out (the logger ``aeris.data`` lists them at level INFO), except those of a simulated planet whose names begin with
    ``planet_``.

    Where variables stand on different levels or times, those that all have are kept, with a warning that names the others;
    name `levels` or `variables` to choose. Static fields carry no time. A pressure-level variable whose file names no level
    stands on the one that `levels` names; without it, a global geopotential finds its level by its mean.

    Args:
        source: Path or URL of a Zarr store, path or URL of a NetCDF or GRIB file, pattern with ``*``, folder of such files, an
            open Dataset, or a list of these in any order. The network is touched only for a URL.
        variables: The only variables to open, by canonical or other known name.
        levels: The only pressure levels in hPa.
        time: The only times: a slice that includes both ends, one time or period such as ``"2018-10"``, or a list of times.

    Returns:
        Dataset with dims among ``time, number, level, latitude, longitude`` in this order (``number`` for ensembles), latitude
        falling, longitude in 0..360 rising, level in whole hPa rising, WeatherBench 2 names, SI units, float32.

    Raises:
        DataError: Something cannot be understood, is not there, or contradicts itself. The message names the file, the
            variable, what was found and what to do.
    """
    wanted = _names(variables)
    pressures = _pressures(levels)
    opened = [pair for number, part in enumerate(_parts(source)) for pair in _opened(part, number)]
    level = pressures[0] if len(pressures) == 1 else None
    fields = [field for where, raw in opened for field in find_fields(raw, where, wanted, level)]
    _check_variables(fields, wanted, opened)
    _check_any_level(fields, pressures)
    for name, parts in _by_name(fields).items():
        _check_levels(name, parts, pressures)
        _check_times(name, parts, time)
    chosen = [part for field in fields if (part := _restricted(field, pressures, time))]
    by_file = defaultdict(list)
    for field in chosen:
        by_file[field.where].append(field)
    converted = [field for group in by_file.values() for field in to_si(group)]
    ds = _side_by_side({name: _joined(parts) for name, parts in _by_name(converted).items()})
    return ds.assign_attrs(xr.merge([xr.Dataset(attrs=raw.attrs) for _, raw in opened], combine_attrs="drop_conflicts").attrs)


# --- what was asked for ---------------------------------------------------------------------------------------------------------


def _names(variables: str | Sequence[str] | None) -> tuple[str, ...]:
    """Canonical names of the variables that were asked for."""
    names = []
    for given in [variables] if isinstance(variables, str) else variables or ():
        found = resolve(str(given))
        if found is None:
            known = [name for variable in VARIABLES.values() for name in (variable.name, variable.short)]
            close = difflib.get_close_matches(str(given), known)
            raise DataError(
                f"Unknown variable {given!r}",
                f"The variables are {', '.join(VARIABLES)}",
                f"Did you mean {' or '.join(map(repr, close))}?" if close else "Use one of these names or its ECMWF short name",
            )
        names.append(found[0])
    return tuple(names)


def _pressures(levels: int | Sequence[int] | None) -> tuple[int, ...]:
    """Levels that were asked for, in whole hPa and rising."""
    given = np.atleast_1d([] if levels is None else np.asarray(levels))
    if given.dtype.kind not in "iuf" or (given != np.round(given)).any() or (given <= 0).any() or (given > 1100).any():
        raise DataError(f"levels={levels!r}", "Levels are whole hPa from 1 to 1100", "Use for example levels=[850, 500]")
    return tuple(sorted({int(level) for level in given}))


def _chosen_times(index: pd.DatetimeIndex, time: Times | None) -> np.ndarray:
    """Positions in a rising index that belong to the times that were asked for."""
    if time is None:
        return np.arange(len(index))
    try:
        if isinstance(time, str):
            time = slice(time, time)
        if isinstance(time, slice):
            return np.arange(len(index))[index.slice_indexer(time.start, time.stop)]
        return np.flatnonzero(index.isin(_listed_times(time)))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"time={time!r}", "A time is a date, or a slice or list of dates", "Use for example time=slice('2018-10-01', '2018-10-31')"
        ) from error


def _listed_times(time: Any) -> pd.DatetimeIndex:
    return pd.to_datetime(np.atleast_1d(np.asarray(time)), utc=True, format="ISO8601").tz_localize(None)


def _check_variables(fields: list[Field], wanted: tuple[str, ...], opened: list[tuple[str, xr.Dataset]]) -> None:
    missing = set(wanted) - {field.name for field in fields}
    if missing:
        held = dict.fromkeys(name for _, raw in opened for name in raw.data_vars)
        files = dict.fromkeys(where for where, _ in opened)
        raise DataError(
            f"{listed(sorted(missing))} {'is' if len(missing) == 1 else 'are'} not in {listed(files)}",
            "Every variable that is asked for must be there",
            f"There is {listed(held) or 'none'}",
        )


def _check_any_level(fields: list[Field], pressures: tuple[int, ...]) -> None:
    if pressures and not any(field.variable and field.variable.pressure for field in fields):
        raise DataError(
            f"levels={list(pressures)}, and no variable of {_wheres(fields)} stands on levels",
            "Every level that is asked for must be there",
            f"Leave levels= out; there is {listed(_by_name(fields))}",
        )


def _check_levels(name: str, parts: list[Field], pressures: tuple[int, ...]) -> None:
    there = sorted({int(level) for part in parts if part.variable and "level" in part.array.dims for level in part.array.level.values})
    missing = [level for level in pressures if there and level not in there]
    if missing:
        raise DataError(
            f"{name} of {_wheres(parts)} does not stand on {listed(missing)} hPa",
            "Every level that is asked for must be there for every variable",
            f"It stands on {', '.join(map(str, there))} hPa; choose among these, or leave the variable out with variables=",
        )


def _check_times(name: str, parts: list[Field], time: Times | None) -> None:
    indexes = [part.array.indexes["time"] for part in parts if "time" in part.array.dims]
    if time is None or not indexes:
        return
    there = indexes[0].append(indexes[1:]).sort_values()
    if isinstance(time, slice | str):
        period = f"{time.start or 'the start'} to {time.stop or 'the end'}" if isinstance(time, slice) else time
        missing = [] if len(_chosen_times(there, time)) else [period]
    else:
        _chosen_times(there, time)
        missing = [str(one) for one in _listed_times(time) if one not in there]
    if missing:
        raise DataError(
            f"{name} of {_wheres(parts)} has no time {listed(missing)}",
            "Every time that is asked for must be there",
            f"It holds {len(there)} times from {there[0]} to {there[-1]}",
        )


def _restricted(field: Field, pressures: tuple[int, ...], time: Times | None) -> Field | None:
    """The part of a field that was asked for, or None where there is none in this file."""
    array = field.array
    if "time" in array.dims:
        positions = _chosen_times(array.indexes["time"], time)
        if len(positions) < array.sizes["time"]:
            array = array.isel(time=positions)
    if pressures and field.variable and "level" in array.dims and tuple(array.level.values) != pressures:
        array = array.isel(level=np.flatnonzero(array.level.isin(pressures)))
    return Field(array, field.source, field.where) if array.size else None


# --- from a source to what it holds -----------------------------------------------------------------------------------------------


def _parts(source: Source) -> list[Any]:
    """The single paths, URLs and Datasets of a source."""
    if isinstance(source, xr.Dataset) or (isinstance(source, str) and _is_url(source)):
        return [source]
    if isinstance(source, str | os.PathLike):
        return _paths(Path(source).expanduser())
    if isinstance(source, Iterable) and not isinstance(source, xr.DataArray | bytes):
        parts = [part for one in source for part in _parts(one)]  # type: ignore[arg-type]
        if parts:
            return parts
    raise DataError(
        f"source={source!r}" if not isinstance(source, xr.DataArray) else "A DataArray was passed",
        "A source is a path, a URL, a pattern, a folder, a Dataset or a list of these",
        "Pass for example 'era5/*.nc', or array.to_dataset(name='geopotential')",
    )


def _is_url(source: str) -> bool:
    return re.match(r"([a-z0-9]+::)*[a-z][a-z0-9+]+://", source) is not None


def _paths(path: Path) -> list[Path]:
    """The stores and files that a path, folder or pattern stands for, in the order of their names."""
    rule, remedy = "A source must exist", f"Check the path; the current folder is {Path.cwd()}"
    if path.is_dir() and not is_zarr(path):
        inside = [one for one in sorted(path.iterdir()) if not one.name.startswith(".")]
        found = [one for one in inside if is_zarr(one) or one.name.lower().endswith(FILE_ENDINGS)]
        rule = f"A folder is a Zarr store, or holds such stores or files ending in {', '.join(FILE_ENDINGS)}"
        remedy = "Name the files, for example 'folder/*.dat'"
    elif path.exists():
        return [path]
    else:
        found = [Path(one) for one in sorted(glob.glob(str(path), recursive=True))]
    if not found:
        raise DataError(f"There is nothing to open at {path}", rule, remedy)
    return found


def _opened(part: Any, number: int) -> list[tuple[str, xr.Dataset]]:
    """What one part of a source holds, and how messages call it."""
    if isinstance(part, xr.Dataset):
        return [(str(part.encoding.get("source") or ("the Dataset" if number == 0 else f"Dataset number {number + 1}")), part)]
    opened = open_path(part) if isinstance(part, Path) else open_url(part)
    return [(str(part), raw) for raw in opened]


# --- from fields to a dataset ---------------------------------------------------------------------------------------------------


def _by_name(fields: Iterable[Field]) -> dict[str, list[Field]]:
    grouped: dict[str, list[Field]] = defaultdict(list)
    for field in fields:
        grouped[field.name].append(field)
    return dict(grouped)


def _wheres(fields: Iterable[Field]) -> str:
    return listed(dict.fromkeys(field.where for field in fields))


def _joined(parts: list[Field]) -> Field:
    """One variable of several files, joined along time and then along level."""
    first = parts[0]
    if len(parts) == 1 or "time" not in first.array.dims:
        return first
    parts = [_on_grid_of(first, part) for part in parts]
    by_levels: dict[tuple[int, ...], list[Field]] = defaultdict(list)
    for part in parts:
        by_levels[tuple(part.array.level.values) if "level" in part.array.dims else ()].append(part)
    whole = [_joined_in_time(same) for same in by_levels.values()]
    return _joined_in_level(whole) if len(whole) > 1 else whole[0]


def _on_grid_of(first: Field, part: Field) -> Field:
    """Gives a field the coordinates of the first one, if it stands on the same grid to 1e-4 degrees."""
    for name in ("latitude", "longitude"):
        if name not in first.array.dims or name not in part.array.dims:
            continue
        mine, theirs = part.array[name].values, first.array[name].values
        if len(mine) != len(theirs) or not np.allclose(mine, theirs, atol=1e-4):
            raise DataError(
                f"{first.name} of {first.where} and {part.name} of {part.where} have {len(theirs)} and {len(mine)} {name}s, "
                f"from {theirs[0]:g} to {theirs[-1]:g} and from {mine[0]:g} to {mine[-1]:g}",
                "Fields that are opened together must stand on one grid",
                "Open them apart, and bring the finer one to the grid of the other, for example with aeris.coarsen",
            )
        if not np.array_equal(mine, theirs):
            part = Field(part.array.assign_coords({name: first.array[name]}), part.source, part.where)
    return part


def _joined_in_time(parts: list[Field]) -> Field:
    indexes = [part.array.indexes["time"] for part in parts]
    times = indexes[0].append(indexes[1:])
    if times.has_duplicates:
        twice = times[times.duplicated()].min()
        holders = [part.where for part, index in zip(parts, indexes, strict=True) if twice in index]
        raise DataError(
            f"{parts[0].name} at {twice} stands in both {holders[0]} and {holders[1]}",
            "Every time of a variable may be given once",
            "Leave one of the files out, or open them apart, choose with time=, and pass the Datasets as a list",
        )
    if len(parts) == 1:
        return parts[0]
    in_order = sorted(parts, key=lambda part: part.array.indexes["time"][0])
    array = _concatenated([part.array for part in in_order], "time")
    if not array.indexes["time"].is_monotonic_increasing:
        array = array.sortby("time")
    return Field(array, parts[0].source, _wheres(in_order))


def _joined_in_level(parts: list[Field]) -> Field:
    levels = np.concatenate([part.array.level.values for part in parts])
    if len(np.unique(levels)) < len(levels):
        raise DataError(
            f"{parts[0].name} stands on different but overlapping levels in {' and in '.join(part.where for part in parts)}",
            "Files of one variable must hold the same levels, or different ones",
            "Choose with levels=[...], or open the files apart",
        )
    arrays = _common({part.where: part.array for part in parts}, "time")
    array = _concatenated(list(arrays.values()), "level")
    return Field(array.sortby("level"), parts[0].source, _wheres(parts))


def _concatenated(arrays: list[xr.DataArray], dim: str) -> xr.DataArray:
    return xr.concat(arrays, dim, join="override", coords="minimal", compat="override", combine_attrs="override")


def _side_by_side(fields: dict[str, Field]) -> xr.Dataset:
    """Variables in one dataset, on the times and levels that all of them have."""
    known = [field for field in fields.values() if field.variable]
    arrays = {name: (_on_grid_of(known[0], field) if field.variable else field).array for name, field in fields.items()}
    for dim in ("level", "time"):
        arrays = _common(arrays, dim)
    return xr.Dataset(arrays)


def _common(arrays: dict[str, xr.DataArray], dim: str) -> dict[str, xr.DataArray]:
    """Restricts arrays to the coordinates along `dim` that all of them have, and says so."""
    indexes = {name: array.indexes[dim] for name, array in arrays.items() if dim in array.indexes}
    if all(index.equals(next(iter(indexes.values()))) for index in indexes.values()):
        return arrays
    shared = next(iter(indexes.values()))
    union = shared
    for index in indexes.values():
        shared, union = shared.intersection(index), union.union(index)
    lacking = [name for name, index in indexes.items() if len(index) < len(union)]
    if not len(shared):
        raise DataError(
            f"{' and '.join(indexes)} have no {dim} in common",
            "Variables that are opened together need the same times and levels",
            f"Open them apart, or name those with variables= that share a {dim}",
        )
    warnings.warn(
        f"Left out {dim} {listed(union.difference(shared))}, which {listed(lacking)} lack; open the others alone to keep them",
        stacklevel=4,
    )
    return {name: array.sel({dim: shared}) if name in indexes else array for name, array in arrays.items()}
