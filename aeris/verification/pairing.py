"""A forecast archive beside the truth: what can be compared, and in pieces that fit into memory.

An *archive* is a Dataset with dimensions ``time`` (initial time), ``number`` (member), ``prediction_timedelta``, ``level`` where a
variable has it, ``latitude`` and ``longitude``. The *truth* is a canonical dataset; a forecast is held against it at initial time
plus lead. An archive may be far larger than memory: everything here is lazy until a `Case` is read, and a case is one piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from aeris.data.grid import Grid
from aeris.data.variables import VARIABLES
from aeris.errors import ConfigurationError, DataError
from aeris.verification.archives import CELLS, LEAD, need_dimensions, need_same_units, open_archive

Gaps = Literal["refuse", "skip"]
CUT = " with fc.sel(time=..., prediction_timedelta=...)"
PIECE_VALUES = 2**26
"""Most values of one system that are read at once: 256 MiB in float32, one level of 50 members at 0.25°."""

BAND_VALUES = 2**21
"""Most values of the members that are computed with at once: 16 MiB in float64."""

Piece = dict[str, slice]
"""Positions along ``prediction_timedelta`` and ``level`` that are read at once."""

NO_CLIMATOLOGY = xr.Variable((), np.nan)


@dataclass(frozen=True)
class Case:
    """An ensemble beside what happened, for some leads and levels of one initial time and variable.

    The fields are xarray Variables: they have named dimensions but no coordinates that arithmetic would have to compare.

    Attributes:
        members: ``(number, prediction_timedelta, [level,] latitude, longitude)``, in the number format of the archive; a missing
            member is NaN throughout.
        truth: The same without ``number``; NaN cells are left out of every score.
        climatology: The climatological mean at the valid times, shaped as `truth`; NaN where there is none.
        there: Which members are there, ``(number, prediction_timedelta, [level])``.
    """

    members: xr.Variable
    truth: xr.Variable
    climatology: xr.Variable
    there: xr.Variable

    @classmethod
    def of(cls, members: xr.Variable, truth: xr.Variable, climatology: xr.Variable = NO_CLIMATOLOGY) -> Case:
        """A case of fields in memory: a member is there where it has any value."""
        return cls(members, truth, climatology, members.notnull().any(CELLS))

    def bands(self) -> Iterator[tuple[slice, Case]]:
        """The case in bands of rows, in float64: a whole one in float64, with what is computed from it, would take gigabytes."""
        rows = self.truth.sizes["latitude"]
        step = max(1, BAND_VALUES * rows // self.members.size)
        for first in range(0, rows, step):
            band = slice(first, first + step)
            members, truth, climatology = (
                field.isel(latitude=band, missing_dims="ignore").astype("float64") for field in (self.members, self.truth, self.climatology)
            )
            yield band, Case(members, truth, climatology, self.there)

    @cached_property
    def known(self) -> xr.Variable:
        """Where the truth is known."""
        return self.truth.notnull()

    @cached_property
    def count(self) -> xr.Variable:
        """Members that are there, ``(prediction_timedelta, [level])``."""
        return self.there.sum("number")

    @cached_property
    def mean(self) -> xr.Variable:
        """The ensemble mean, shaped as `truth`."""
        return self.members.mean("number")

    @cached_property
    def variance(self) -> xr.Variable:
        """The unbiased ensemble variance, shaped as `truth`; NaN for one member."""
        squares = ((self.members - self.mean) ** 2).sum("number")
        return squares / (self.count - 1.0).where(self.count > 1)


@dataclass(frozen=True)
class Pairing:
    """A forecast archive and the truth, checked against each other and cut to what both hold.

    Attributes:
        forecast: The archive with the common variables and levels, lazy.
        truth: The truth with the common variables and levels, on the same grid, lazy.
        absent: By variable, cells ``([level,] latitude, longitude)`` that no system is scored on, because a reference lacks them.
        notes: What the references are, and what is left out because of them.
        left_out_starts: Initial times that were left out because the truth lacks them.
    """

    forecast: xr.Dataset
    truth: xr.Dataset
    absent: Mapping[str, xr.DataArray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out_starts: int = 0

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables that are compared."""
        return tuple(str(name) for name in self.forecast.data_vars)

    @property
    def times(self) -> np.ndarray:
        """Initial times."""
        return self.forecast.time.values

    @property
    def leads(self) -> np.ndarray:
        """Leads, ``timedelta64``."""
        return self.forecast[LEAD].values

    @cached_property
    def cell_area(self) -> xr.Variable:
        """Area of a cell of each row over the mean cell area, ``(latitude,)``."""
        return xr.Variable("latitude", Grid.of(self.forecast).area)

    def at(self, time: np.datetime64) -> Pairing:
        """The part of one initial time."""
        return replace(self, forecast=self.forecast.sel(time=[time]))

    def members(self, time: np.datetime64) -> xr.Dataset:
        """The forecast from one initial time, lazy."""
        return self.forecast.sel(time=time, drop=True)

    def truth_after(self, time: np.datetime64) -> xr.Dataset:
        """What happened at each lead after `time`, lazy, with ``prediction_timedelta`` in place of ``time``."""
        valid = self.truth.sel(time=time + self.leads)
        valid = valid.assign({name: valid[name].where(~cells) for name, cells in self.absent.items()})
        return valid.rename(time=LEAD).assign_coords({LEAD: self.leads})

    def cases(self, name: str) -> Iterator[tuple[Piece, Case]]:
        """Reads the cases of one variable, initial time by initial time and piece by piece."""
        alone = Pairing(self.forecast[[name]], self.truth[[name]])
        for time in self.times:
            members, truth = alone.members(time)[name], alone.truth_after(time)[name]
            for piece in pieces(members):
                yield piece, read_case(members.isel(piece), truth.isel(piece))

    def room(self, name: str, leading: Mapping[str, Any], fill: float) -> xr.DataArray:
        """Room for numbers of one variable: the leading dimensions, then ``prediction_timedelta`` and ``level`` where it has one."""
        field = self.forecast[name]
        coordinates = {**leading} | {dim: field[dim] for dim in (LEAD, "level") if dim in field.dims}
        return xr.DataArray(fill, coordinates, list(coordinates), attrs=attributes_of(field))


def pair(forecast: xr.Dataset | str | Path, truth: xr.Dataset, gaps: Gaps = "refuse", starts: bool = False) -> Pairing:
    """Checks that a forecast can be held against the truth, before more than a field of each variable is read.

    Args:
        forecast: An archive, or the path or URL of one.
        truth: Canonical dataset with ``time``; may hold fewer variables and levels.
        gaps: Where the truth lacks a time, ``"refuse"``, or ``"skip"``: it is then as if it were missing in every cell.
        starts: Whether the truth at the initial times is needed too: with ``gaps="skip"`` those without it are left out.

    Returns:
        Both, cut to the common variables and levels.

    Raises:
        DataError: Dimensions are missing, the grids or units differ, no variable, level or time is common, or the truth has gaps.
        ConfigurationError: `gaps` is something else.
        StoreError: There is no archive at that path.
    """
    if gaps not in get_args(Gaps):
        raise ConfigurationError(f"gaps={gaps!r}", "Gaps of the truth are refused or skipped", "Use gaps='refuse' or gaps='skip'")
    archive = open_archive(forecast)
    need_dimensions("the truth", truth, ("time", *CELLS))
    need_same_grid("the truth", truth, archive)
    names = _common_variables(archive, truth)
    archive, truth = archive[names], truth[names]
    if "level" in archive.dims:
        levels = _common_levels(archive, truth)
        archive, truth = archive.sel(level=levels), truth.sel(level=levels)
    need_same_units(archive, truth)
    if gaps == "skip":
        return _skipping(archive, truth, starts)
    need_times("the truth", truth, _valid(archive).ravel(), f"{CUT}, or leave such cases out with gaps='skip' (--gaps skip)")
    return Pairing(archive, truth)


def _valid(archive: xr.Dataset) -> np.ndarray:
    """Valid times, ``(time, prediction_timedelta)``."""
    return archive.time.values[:, None] + archive[LEAD].values


def _skipping(archive: xr.Dataset, truth: xr.Dataset, starts: bool) -> Pairing:
    """The initial times that have any truth, which is missing in every cell at the valid times that it lacks."""
    held, valid = truth.get_index("time"), _valid(archive)
    known = np.isin(valid, held).any(axis=1) & (np.isin(archive.time, held) | (not starts))
    if not known.any():
        raise DataError(
            f"The forecast is valid from {_minute(valid.min())} to {_minute(valid.max())}, the truth holds {_minute(held.min())} to "
            f"{_minute(held.max())}" + (", and not the initial times" if np.isin(valid, held).any() else ""),
            "Forecast and truth must have times in common",
            "Give a truth of those times",
        )
    lacking = pd.DatetimeIndex(np.unique(valid[known])).difference(held)
    if len(lacking):
        lazy = truth if truth.chunks else truth.chunk(time=1)  # in memory, or unread, reindex would copy or read everything
        truth = lazy.reindex(time=held.union(lacking))
    return Pairing(archive.isel(time=np.flatnonzero(known)), truth, left_out_starts=int((~known).sum()))


def _minute(time: Any) -> str:
    return f"{pd.Timestamp(time):%Y-%m-%dT%H:%M}"


def need_times(owner: str, ds: xr.Dataset, times: np.ndarray, cut: str = CUT) -> None:
    """Raises a DataError that names the first of `times` that `ds` lacks, and how many there are; `cut` tells how to cut the forecast."""
    missing = pd.DatetimeIndex(np.unique(times)).difference(ds.get_index("time"))
    if len(missing):
        held = ds.get_index("time")
        raise DataError(
            f"{_begin(owner)} lacks {len(missing)} of the times that are needed, the first is {_minute(missing[0])}",
            f"Every initial time plus lead must be there; it holds {_minute(held.min())} to {_minute(held.max())}",
            f"Give a longer truth, or cut the forecast{cut}",
        )


def _begin(owner: str) -> str:
    """At the beginning of a sentence; str.capitalize would also change the rest of a name."""
    return owner[0].upper() + owner[1:]


def need_same_grid(owner: str, ds: xr.Dataset, archive: xr.Dataset) -> None:
    """Raises a DataError where a dataset stands on another grid than the forecast."""
    theirs, ours = _grid_of(owner, ds), _grid_of("the forecast", archive)
    if not theirs.same_as(ours):
        raise DataError(
            f"{_begin(owner)} stands on the grid {theirs}, the forecast on {ours}",
            "Both must stand on the same grid",
            f"Bring the finer one onto the other grid, for example with aeris.coarsen(ds, {min(theirs.shape, ours.shape)})",
        )


def _grid_of(owner: str, ds: xr.Dataset) -> Grid:
    try:
        return Grid.of(ds)
    except DataError as refusal:
        raise DataError(f"In {owner}: {refusal.found}", refusal.rule, refusal.remedy) from None


def _common_variables(archive: xr.Dataset, truth: xr.Dataset) -> list[str]:
    """Names of the predicted fields that both hold."""
    names = [str(name) for name in archive.data_vars if name in truth and _is_predicted(archive[name])]
    if not names:
        raise DataError(
            f"The forecast holds {', '.join(map(str, archive.data_vars))}; the truth holds {', '.join(map(str, truth.data_vars))}",
            "At least one predicted variable must be in both",
            "Name the variables as WeatherBench 2 does; aeris.open_era5 does it",
        )
    for name in names:
        if ("level" in archive[name].dims) != ("level" in truth[name].dims):
            raise DataError(
                f"{name} has the dimensions {truth[name].dims} in the truth and {archive[name].dims} in the forecast",
                "A variable has a level dimension in both or in none",
                "Keep a dimension of one level with ds.sel(level=[500]) rather than ds.sel(level=500)",
            )
    return names


def _is_predicted(field: xr.DataArray) -> bool:
    known = VARIABLES.get(str(field.name))
    return {"time", LEAD, *CELLS} <= set(field.dims) and (known is None or known.kind == "state")


def _common_levels(archive: xr.Dataset, truth: xr.Dataset) -> list[int]:
    levels = [level for level in archive.level.values.tolist() if level in truth.level.values]
    if not levels:
        raise DataError(
            f"The forecast has the levels {archive.level.values.tolist()}, the truth {truth.level.values.tolist()} hPa",
            "At least one level must be in both",
            "Levels are pressures in hPa; give a truth with one of the forecast's levels",
        )
    return levels


def need_cover(owner: str, ds: xr.Dataset, pairing: Pairing, dims: tuple[str, ...] = ("time", LEAD)) -> xr.Dataset:
    """Checks that another system covers what is compared, and cuts it to that.

    Args:
        owner: What to call it in an error.
        ds: Its fields.
        pairing: What is compared.
        dims: Dimensions, besides ``level``, along which it must hold every coordinate of the forecast.

    Returns:
        The compared variables, levels and coordinates.

    Raises:
        DataError: Its grid is another, or a variable or coordinate is missing; the error names it.
    """
    need_same_grid(owner, ds, pairing.forecast)
    absent = [name for name in pairing.variables if name not in ds]
    levels = ("level",) if "level" in pairing.forecast.dims else ()
    wanted = {dim: pairing.forecast.get_index(dim) for dim in (*dims, *levels)}
    lacking = {dim: index.difference(ds.get_index(dim)) for dim, index in wanted.items() if dim in ds.dims}
    absent += [f"{dim} {values[0]}" for dim, values in lacking.items() if len(values)]
    absent += [dim for dim in wanted if dim not in ds.dims]
    if absent:
        raise DataError(
            f"{_begin(owner)} lacks {', '.join(absent)}",
            "A system that is scored beside the forecast must cover all that the forecast is scored on",
            "Cut the forecast or the truth to what all of them hold, or leave this system out",
        )
    return ds[list(pairing.variables)].sel(wanted)


def attributes_of(field: xr.DataArray) -> dict[str, str]:
    """Unit and name of a variable: from the registry, or from itself where the registry does not know it."""
    known = VARIABLES.get(str(field.name))
    own = {"units": field.attrs.get("units", ""), "long_name": field.attrs.get("long_name", str(field.name))}
    return {"units": known.units, "long_name": known.long_name} if known else own


def pieces(field: xr.DataArray, most: int | None = None) -> Iterator[Piece]:
    """Indexers that cut a field along the lead, and where that is not enough along the level, into pieces of at most `most` values."""
    most = most or PIECE_VALUES
    leads, levels = field.sizes[LEAD], field.sizes.get("level", 1)
    per_level = field.size // (leads * levels)
    level_step = max(1, min(levels, most // max(1, per_level)))
    lead_step = max(1, most // max(1, per_level * levels))
    for lead in range(0, leads, lead_step):
        for level in range(0, levels, level_step):
            yield {LEAD: slice(lead, lead + lead_step)} | ({"level": slice(level, level + level_step)} if "level" in field.dims else {})


def read_case(members: xr.DataArray, truth: xr.DataArray | xr.Variable, climatology: xr.DataArray | xr.Variable = NO_CLIMATOLOGY) -> Case:
    """Reads one case into memory.

    A member that lacks a cell where the truth is known is missing as a whole; where no member is there, the truth is left out too.
    """
    ensemble, happened, normal = _read(members), _read(truth), _read(climatology)
    values = ensemble.notnull()
    whole = (values | happened.isnull()).all(CELLS)
    if not whole.all():
        ensemble, happened = ensemble.where(whole), happened.where(whole.any("number"))
    return Case(ensemble, happened, normal, whole & values.any(CELLS))


def _read(field: xr.DataArray | xr.Variable) -> xr.Variable:
    """Values with the dimensions in the order of an archive."""
    field = field.transpose("number", LEAD, "level", *CELLS, missing_dims="ignore")
    return xr.Variable(field.dims, field.values)
