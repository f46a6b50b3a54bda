"""References: published forecasts of others, brought beside a forecast.

The archives of WeatherBench 2 differ in small things. Members are called ``number`` (IFS ENS), ``sample`` (GenCast) or ``realization``
(NeuralGCM), and are not there in IFS HRES and in ensemble means. Rows run from the south, and longitude stands before latitude. Leads
begin at zero and are time differences or hours. `open_reference` makes one shape of them; `meet` finds what can be compared: the initial
times that all systems have, on the forecast's grid, beside the same truth. What falls away is counted and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import dask.array
import numpy as np
import pandas as pd
import xarray as xr

from aeris.data.coordinates import listed, with_grid, with_members
from aeris.data.formats import open_path, open_url
from aeris.data.grid import Grid, regrid
from aeris.data.units import find_conversion
from aeris.data.variables import VARIABLES
from aeris.errors import DataError, StoreError
from aeris.verification.pairing import CELLS, LEAD, Pairing

Others = Mapping[str, xr.Dataset | str | Path]
"""Forecast archives by name: open, or by path or URL."""

Members = Callable[[np.datetime64], xr.Dataset]
"""The members that are forecast from an initial time."""

LEAD_NAMES = (LEAD, "lead_time")
TIME_NAMES = ("time", "init_time")
SAMPLE = "sample"
"""What GenCast calls a member; elsewhere the word stands for other things."""

HOURS = ("hours", "hour", "hrs", "hr", "h")
LONGEST = 24 * 400
"""Hours up to which a bare number is taken for a lead in hours."""


def open_reference(source: xr.Dataset | str | Path) -> xr.Dataset:
    """Opens a published forecast archive in the shape of our own, lazily.

    Args:
        source: Path or URL of a Zarr store in WeatherBench 2's shape, or an open Dataset: variables of its names in SI units,
            ``time`` or ``init_time`` (initial time), ``prediction_timedelta`` or ``lead_time`` (time differences, or hours), a member
            dimension of any usual name or none, ``level``, latitude and longitude in any order. Variables without these are left out.

    Returns:
        The archive with the dimensions ``time, [number,] prediction_timedelta, [level,] latitude, longitude``, in any order, on its own
        grid. Nothing of it is read.

    Raises:
        DataError: A dimension is missing or cannot be read, a coordinate stands twice, a unit is another, or no variable is known.
        StoreError: There is nothing at that path.
    """
    where, raw = _opened(source)
    raw = _with_leads(_named(raw, TIME_NAMES, where), where)
    raw = raw.rename({SAMPLE: "number"}) if SAMPLE in raw.dims else with_members(raw)
    archive = with_grid(raw, where)
    names = [str(name) for name, field in archive.items() if {"time", LEAD, *CELLS} <= set(field.dims)]
    if not names:
        raise DataError(
            f"{where} holds {listed(archive.data_vars)}, none with time, {LEAD}, latitude and longitude",
            "A reference holds forecasts of one variable at least",
            "Name another archive",
        )
    for name in VARIABLES.keys() & set(names):
        _check_unit(archive[name], where)
    for dim in ("time", LEAD):
        _check_unique(archive, dim, where)
    reference = archive[names].drop_vars([name for name in archive.coords if name not in archive.dims])
    reference.encoding["source"] = where
    return reference


def meet(pairing: Pairing, baselines: Iterable[str | Others] | str | Others) -> tuple[Pairing, list[str | Others]]:
    """Opens the references among the baselines and cuts what is compared to what can be compared with all of them.

    No system is scored on initial times that a reference lacks, nor on cells in which it has no value although the truth has one: a sea
    with another coast. Where a reference lacks only leads, levels or variables, it alone is missing there.

    Args:
        pairing: The forecast and its truth.
        baselines: Names of baselines, and mappings of further names to archives.

    Returns:
        The pairing with fewer initial times and cells, whose `Pairing.notes` say what each reference is and lacks; and the baselines, with
        their archives opened.

    Raises:
        DataError: A reference has nothing in common with the forecast, or a coarser grid.
        StoreError: There is nothing at a path.
    """
    items = [baselines] if isinstance(baselines, str | Mapping) else list(baselines)
    opened = [item if isinstance(item, str) else {name: open_reference(source) for name, source in item.items()} for item in items]
    references = {name: archive for item in opened if not isinstance(item, str) for name, archive in item.items()}
    for name, archive in references.items():
        _check_fit(name, archive, pairing)
    common = pd.DatetimeIndex(pairing.times)
    for archive in references.values():
        common = common[common.isin(archive.get_index("time"))]
    if not len(common):
        raise DataError(
            f"{' and '.join(references)} have no initial time in common with the forecast",
            "Systems are scored on the same initial times",
            "Forecast from times that all of them have, or give fewer references",
        )
    met = replace(pairing, forecast=pairing.forecast.sel(time=common) if len(common) < len(pairing.times) else pairing.forecast)
    islands = {name: _islands(archive, met) for name, archive in references.items()}
    notes = tuple(_note(name, archive, pairing, islands[name]) for name, archive in references.items())
    return replace(met, absent=_together(islands.values()), notes=notes), list(opened)


def members_of(archive: xr.Dataset, pairing: Pairing) -> Members:
    """What a reference forecasts from an initial time: on the grid of what is compared, NaN where it has nothing.

    Args:
        archive: From `open_reference`.
        pairing: What is compared.
    """
    grid = Grid.of(pairing.forecast)
    wanted = {dim: pairing.forecast.get_index(dim) for dim in (LEAD, "level") if dim in pairing.forecast.dims}
    own = archive[[name for name in pairing.variables if name in archive]]
    own = own.isel({dim: np.flatnonzero(own.get_index(dim).isin(index)) for dim, index in wanted.items() if dim in own.dims})
    indexers = {dim: index for dim, index in wanted.items() if dim in own.dims}
    lacking = any(len(index.difference(own.get_index(dim))) for dim, index in indexers.items())
    absent = {name: _nothing(pairing.forecast[name], archive.sizes.get("number", 1)) for name in pairing.variables if name not in own}
    same = grid.same_as(Grid.of(archive))

    def members(time: np.datetime64) -> xr.Dataset:
        found = own.sel(time=time, drop=True)
        if same and not lacking and "number" in found.dims:
            return found.sel(indexers).assign(absent)
        found = found.map(_lazy)
        found = found if "number" in found.dims else found.expand_dims(number=[0])
        found = found if same else regrid(found, grid)
        return (found.reindex(indexers) if lacking else found.sel(indexers)).assign(absent)

    return members


def _opened(source: xr.Dataset | str | Path) -> tuple[str, xr.Dataset]:
    """What messages call a source, and what it holds, decoded."""
    if isinstance(source, xr.Dataset):
        return str(source.encoding.get("source", "the Dataset")), source
    where = str(source)
    if "://" not in where and not Path(where).exists():
        raise StoreError(f"There is no forecast at {where}", "A path or URL must lead to a forecast archive (Zarr)", "Check the path")
    parts = open_url(where, dask=False) if "://" in where else open_path(Path(where), dask=False)
    if len(parts) > 1:
        raise DataError(f"{where} holds fields of {len(parts)} kinds", "A reference is one archive", "Convert it to Zarr")
    return where, xr.decode_cf(parts[0], decode_timedelta=True)


def _named(raw: xr.Dataset, names: tuple[str, ...], where: str) -> xr.Dataset:
    """Gives a dimension the first of its possible names."""
    name = next((name for name in names if name in raw.dims and name in raw.coords), None)
    if name is None:
        raise DataError(
            f"{where} has the dimensions {listed(raw.dims)} and the coordinates {listed(raw.coords)}",
            f"A forecast archive has a dimension {' or '.join(names)} with its coordinate",
            "Name it so, and pass the Dataset",
        )
    return raw if name == names[0] else raw.rename({name: names[0]})


def _with_leads(raw: xr.Dataset, where: str) -> xr.Dataset:
    """Leads as time differences under our name."""
    raw = _named(raw, LEAD_NAMES, where)
    values, unit = raw[LEAD].values, str(raw[LEAD].attrs.get("units", HOURS[0])).lower()
    if values.dtype.kind == "m":
        return raw.assign_coords({LEAD: values.astype("timedelta64[ns]")})
    if values.dtype.kind not in "iuf" or unit not in HOURS or values.min() < 0 or values.max() > LONGEST:
        raise DataError(
            f"The leads of {where} are {listed(values)} of dtype {values.dtype}" + (f" in {unit}" if unit not in HOURS else ""),
            "Leads are time differences, or hours",
            f"Assign them, as in ds.assign_coords({LEAD}=ds.{LEAD} * np.timedelta64(1, 'D')), and pass the Dataset",
        )
    return raw.assign_coords({LEAD: (values * 3600e9).round().astype("timedelta64[ns]")})


def _check_unit(field: xr.DataArray, where: str) -> None:
    stated, unit = str(field.attrs.get("units", "")), VARIABLES[str(field.name)].units
    conversion = find_conversion(stated, unit)
    if stated.lower() not in ("", "unknown") and (conversion is None or not conversion.identity):
        raise DataError(f"{field.name} of {where} is in {stated}", f"A reference holds it in {unit}", "Convert it and pass the Dataset")


def _check_unique(archive: xr.Dataset, dim: str, where: str) -> None:
    index = archive.get_index(dim)
    if not index.is_unique:
        raise DataError(
            f"In {where}, {dim} {index[index.duplicated()][0]} stands twice", f"Every {dim} stands once", f"Use ds.drop_duplicates({dim!r})"
        )


def _check_fit(name: str, archive: xr.Dataset, pairing: Pairing) -> None:
    """Refuses a reference that is coarser than the forecast, or has nothing in common with it."""
    theirs, ours = Grid.of(archive), Grid.of(pairing.forecast)
    if theirs.shape[0] < ours.shape[0] or theirs.shape[1] < ours.shape[1]:
        raise DataError(
            f"The forecast {name!r} stands on the grid {theirs}, coarser than that of the forecast, {ours}",
            "A reference is averaged onto the grid of the forecast; on a finer one its values would be invented",
            "Bring forecast and truth onto its grid with aeris.regrid(ds, aeris.Grid.of(reference)), and verify there",
        )
    common = [variable for variable in pairing.variables if _in_common(archive, pairing.forecast, variable)]
    for variable in common:
        if ("level" in archive[variable].dims) != ("level" in pairing.forecast[variable].dims):
            raise DataError(
                f"{variable} has the dimensions {archive[variable].dims} in {name!r} and {pairing.forecast[variable].dims} in the forecast",
                "A variable has a level dimension in both or in none",
                "Keep a dimension of one level with ds.sel(level=[500]) rather than ds.sel(level=500)",
            )
    if not common:
        raise DataError(
            f"{name!r} holds {listed(archive.data_vars)} at leads {_hours(archive[LEAD].values)}",
            "A reference has a variable, a level and a lead in common with the forecast",
            f"The forecast holds {listed(pairing.variables)} at leads {_hours(pairing.leads)}",
        )


def _in_common(archive: xr.Dataset, forecast: xr.Dataset, variable: str) -> bool:
    """Whether both hold a variable at one level and lead at least."""
    if variable not in archive:
        return False
    dims = {LEAD, "level"} & set(archive[variable].dims) & set(forecast[variable].dims)
    return all(archive.get_index(dim).isin(forecast.get_index(dim)).any() for dim in dims)


def _lazy(field: xr.DataArray) -> xr.DataArray:
    """A field as a dask array, cut into leads as it is stored, so that what is computed of it is computed when it is read."""
    return field if field.chunks else field.chunk({LEAD: field.encoding.get("preferred_chunks", {}).get(LEAD, 1)})


def _nothing(field: xr.DataArray, members: int) -> xr.DataArray:
    """Members without a value, shaped as a forecast from one initial time."""
    sizes = {dim: members if dim == "number" else size for dim, size in field.sizes.items() if dim != "time"}
    return xr.DataArray(dask.array.full(tuple(sizes.values()), np.nan, dtype="float32"), dims=list(sizes))


def _islands(archive: xr.Dataset, pairing: Pairing) -> dict[str, xr.DataArray]:
    """Cells ``([level,] latitude, longitude)`` in which a reference has no value and the truth has, where there are any.

    They are looked for in variables of which the truth is missing somewhere, such as sea surface temperature: others are there or not as
    a whole. The first common lead from the first initial time at which the reference is there stands for all.
    """
    masked = [str(name) for name, field in pairing.truth_after(pairing.times[0]).isel({LEAD: 0}).items() if field.isnull().any()]
    lead = next(lead for lead in pairing.leads if lead in archive.get_index(LEAD))
    found = {name: _island(members_of(archive, pairing), name, lead, pairing) for name in masked if name in archive}
    return {name: cells for name, cells in found.items() if cells.any()}


def _island(members: Members, name: str, lead: np.timedelta64, pairing: Pairing) -> xr.DataArray:
    for time in pairing.times:
        there, happened = (
            ds[name].sel({LEAD: lead}, drop=True).notnull().reset_coords(drop=True) for ds in (members(time), pairing.truth_after(time))
        )
        there = there.isel(number=0).transpose(*happened.dims).compute()
        if there.any():
            return xr.DataArray(happened.variable & ~there.variable).load()
    return xr.DataArray(False)


def _together(islands: Iterable[Mapping[str, xr.DataArray]]) -> dict[str, xr.DataArray]:
    """Cells that any of the references lacks."""
    union: dict[str, xr.DataArray] = {}
    for one in islands:
        union |= {name: union[name] | cells if name in union else cells for name, cells in one.items()}
    return union


def _note(name: str, archive: xr.Dataset, pairing: Pairing, islands: Mapping[str, xr.DataArray]) -> str:
    """What a reference is, and what falls away because of it."""
    theirs = Grid.of(archive)
    same = theirs.same_as(Grid.of(pairing.forecast))
    members = archive.sizes.get("number", 1)
    facts = [f"{members} members" if members > 1 else "one member"]
    facts += [] if same else [f"averaged from the grid {theirs}"]
    times = pd.DatetimeIndex(pairing.times).difference(archive.get_index("time"))
    if len(times):
        facts.append(
            f"{len(times)} of {len(pairing.times)} initial times are left out because it lacks them, the first {times[0]:%Y-%m-%dT%H:%M}"
        )
    facts += [f"{int(cells.sum())} cells of {variable} are left out because it lacks them" for variable, cells in islands.items()]
    lacking = [variable for variable in pairing.variables if variable not in archive]
    leads = pairing.forecast.get_index(LEAD).difference(archive.get_index(LEAD))
    lacking += [f"leads {_hours(leads.values)}"] if len(leads) else []
    if "level" in pairing.forecast.dims and "level" in archive.dims:
        levels = pairing.forecast.get_index("level").difference(archive.get_index("level"))
        lacking += [f"levels {listed(levels)} hPa"] if len(levels) else []
    facts += [f"it lacks {', '.join(lacking)}"] if lacking else []
    return f"{name}: {'; '.join(facts)}"


def _hours(leads: np.ndarray) -> str:
    hours = (f"{lead / np.timedelta64(1, 'h'):g}" for lead in leads)
    return f"{listed(hours)} h"
