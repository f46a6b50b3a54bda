"""A forecast archive as a person looks at it: only the slice that is shown is read, and what is not there yet is missing."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from aeris.data.grid import Grid
from aeris.data.sharded_field import ShardedField
from aeris.data.variables import VARIABLES
from aeris.errors import DataError, StoreError
from aeris.views.ensemble_statistics import band_mean, cell_areas
from aeris.views.slices import CELLS, LEAD, Channel, Place, at_place, band_rows
from aeris.views.style import choose_level

AXES = ("time", LEAD, *CELLS)


class ForecastReader:
    """Reads slices of a forecast archive. The last few are kept, so that going back to one costs nothing.

    Args:
        forecast: Archive ``(time, number, prediction_timedelta, [level,] latitude, longitude)``; NaN where a member is not there yet.
        leads_done: Leads that each member has finished, ``(time, number)``; None where the archive has no ledger: a member is then
            there where it has a value.
        path: Where the archive stands, None for one in memory.

    Raises:
        DataError: A dimension is missing, no variable is there, or the grid is not global.

    Attributes:
        forecast: The archive.
        path: Where it stands.
        members: ``members(channel, time, lead)`` gives the members that are there, ``(number, latitude, longitude)``.
        first: ``first(channel, time, lead, most)`` gives the first of them.
        member: ``member(channel, time, lead, number)`` gives one of them, with ``number`` of length one, or of none where it is not there.
        series: ``series(channel, time, place)`` gives ``(number, prediction_timedelta)`` at the cell nearest to a place.
        band: ``band(channel, time, south, north)`` gives the mean over a band, ``(number, prediction_timedelta, longitude)``.
    """

    def __init__(self, forecast: xr.Dataset, leads_done: np.ndarray | None = None, path: Path | None = None) -> None:
        self.forecast, self.path, self._leads_done = _checked(forecast), path, leads_done
        self._shards = lru_cache(maxsize=None)(self._open_shards)
        self.members = lru_cache(maxsize=2)(self._members)
        self.first = lru_cache(maxsize=8)(self._first)
        self.member = lru_cache(maxsize=16)(self._member)
        self.series = lru_cache(maxsize=16)(self._series)
        self.band = lru_cache(maxsize=4)(self._band)

    @property
    def variables(self) -> list[str]:
        """Names of the variables that can be shown, in the order of the registry, then those it does not know."""
        names = [str(name) for name, field in self.forecast.data_vars.items() if {"number", *AXES} <= set(field.dims)]
        return sorted(names, key=lambda name: list(VARIABLES).index(name) if name in VARIABLES else len(VARIABLES))

    @property
    def times(self) -> np.ndarray:
        """Initial times."""
        return self.forecast.time.values

    @property
    def leads(self) -> np.ndarray:
        """Leads, timedelta64."""
        return self.forecast[LEAD].values

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of all members, there or not."""
        return self.forecast.number.values

    @property
    def leads_done(self) -> np.ndarray | None:
        """Leads that each member has finished, ``(time, number)``; None where there is no ledger."""
        return self._leads_done

    def levels(self, variable: str) -> list[int]:
        """Levels of a variable in hPa; none where it has none."""
        return self.forecast.level.values.tolist() if "level" in self.forecast[variable].dims else []

    def count(self, time: np.datetime64, lead: np.timedelta64) -> int:
        """How many members the ledger counts at a lead; all where there is no ledger."""
        return int((self._done(time) > self._index(lead)).sum())

    @property
    def values_per_lead(self) -> int:
        """Values of all members of one channel at one initial time and lead."""
        return int(np.prod([self.forecast.sizes[dim] for dim in ("number", *CELLS)]))

    def check_variable(self, variable: str) -> str:
        """The variable, where the archive has it.

        Raises:
            DataError: It has not.
        """
        if variable not in self.variables:
            raise DataError(
                f"The forecast has no variable {variable!r}",
                f"It has {', '.join(self.variables)}",
                "Choose one of these",
            )
        return variable

    def _index(self, lead: np.timedelta64) -> int:
        return int(self.forecast.get_index(LEAD).get_loc(lead))

    def _field(self, channel: Channel) -> xr.DataArray:
        return choose_level(self.forecast[self.check_variable(channel[0])], channel[1])

    def _done(self, time: np.datetime64) -> np.ndarray:
        """Leads that each member has finished from one initial time; all where there is no ledger."""
        if self._leads_done is None:
            return np.full(len(self.numbers), len(self.leads))
        return self._leads_done[self.forecast.get_index("time").get_loc(time)]

    def _read(self, channel: Channel, time: np.datetime64, lead: np.timedelta64, chosen: np.ndarray | None = None) -> xr.DataArray:
        """Members that the ledger counts, among the `chosen`, lazy: ``(number, latitude, longitude)``."""
        there = self._done(time) > self._index(lead)
        if chosen is not None:
            there = there & chosen
        field = self._field(channel).sel({"time": time, LEAD: lead}).transpose("number", *CELLS)
        return field if there.all() else field.isel(number=np.flatnonzero(there))

    def _open_shards(self, variable: str) -> ShardedField | None:
        """The files of a variable, where `aeris.forecast` wrote them."""
        return None if self.path is None or self._leads_done is None else ShardedField.open(self.path / variable)

    def _load(
        self,
        channel: Channel,
        time: np.datetime64,
        lead: np.timedelta64,
        chosen: np.ndarray | None = None,
        rows: slice = slice(None),
    ) -> xr.DataArray:
        """As `_read`, some rows of it, in memory."""
        field, shards = self._read(channel, time, lead, chosen).isel(latitude=rows), self._shards(channel[0])
        if shards is None:
            return field.load()
        numbers = self.forecast.get_index("number").get_indexer(field.number.values)
        place = self._place("time", time), numbers, self._index(lead), self._place("level", channel[1])
        return field.copy(data=shards.read(*place, rows))

    def _place(self, dim: str, value: Any) -> Any:
        """Where a coordinate has a value; None where there is none."""
        return None if value is None else int(self.forecast.get_index(dim).get_loc(value))

    def _members(self, channel: Channel, time: np.datetime64, lead: np.timedelta64) -> xr.DataArray:
        return self._with_values(self._load(channel, time, lead))

    def _first(self, channel: Channel, time: np.datetime64, lead: np.timedelta64, most: int) -> xr.DataArray:
        there = np.flatnonzero(self._done(time) > self._index(lead))[:most]
        return self._with_values(self._load(channel, time, lead, np.isin(np.arange(len(self.numbers)), there)))

    def _member(self, channel: Channel, time: np.datetime64, lead: np.timedelta64, number: int) -> xr.DataArray:
        return self._with_values(self._load(channel, time, lead, self.numbers == number))

    def _with_values(self, members: xr.DataArray) -> xr.DataArray:
        """The members that have a value anywhere; where there is a ledger, it has said so already."""
        if self._leads_done is not None:
            return members
        there = members.notnull().any(CELLS).values
        return members if there.all() else members.isel(number=np.flatnonzero(there))

    def _series(self, channel: Channel, time: np.datetime64, place: Place) -> xr.DataArray:
        series = at_place(self._field(channel).sel(time=time), place).transpose("number", LEAD)
        done, shards = self._done(time), self._shards(channel[0])
        if shards is None:
            return series.load().where(np.arange(len(self.leads)) < done[:, None])
        row, column = (self._place(name, series[name].values[()]) for name in CELLS)
        cell = slice(row, row + 1), slice(column, column + 1)
        values = np.full(series.shape, np.nan, np.float32)
        for lead in range(done.max()):
            there = np.flatnonzero(done > lead)
            read = shards.read(self._place("time", time), there, lead, self._place("level", channel[1]), *cell)
            values[there, lead] = read[:, 0, 0]
        return series.copy(data=values)

    def _band(self, channel: Channel, time: np.datetime64, south: float, north: float) -> xr.DataArray:
        """Read lead by lead: the rows of all leads and members together would not fit into memory at 0.25°."""
        leads = [self._band_at(channel, time, lead, south, north) for lead in self.leads]
        return xr.concat(leads, LEAD, join="outer", combine_attrs="override").transpose("number", LEAD, "longitude")

    def _band_at(self, channel: Channel, time: np.datetime64, lead: np.timedelta64, south: float, north: float) -> xr.DataArray:
        members = self._load(channel, time, lead, rows=band_rows(self.forecast.latitude.values, south, north))
        return band_mean(members, south, north, cell_areas(self.forecast)).reindex(number=self.numbers)


def open_reader(source: xr.Dataset | str | Path) -> ForecastReader:
    """Opens a forecast archive, finished or not, of aeris or any in WeatherBench 2's shape.

    Args:
        source: The archive, or its path.

    Returns:
        A reader that has read nothing but coordinates and the ledger.

    Raises:
        StoreError: There is no archive at that path.
        DataError: It is not shaped as a forecast archive.
    """
    if isinstance(source, xr.Dataset):
        return ForecastReader(source)
    path = Path(source)
    try:
        # Without dask: a large archive has millions of chunks, and a graph of them takes longer than the one slice that is read.
        forecast = xr.open_zarr(path, chunks=None, consolidated=False, decode_timedelta=True)
    except (FileNotFoundError, NotADirectoryError, zarr.errors.GroupNotFoundError) as error:
        raise StoreError(
            f"{path} is no forecast archive",
            "An archive is a Zarr store written by aeris.forecast, or one of WeatherBench 2's shape",
            "Name the directory given as out",
        ) from error
    return ForecastReader(forecast, _ledger(path, forecast), path)


def _ledger(path: Path, forecast: xr.Dataset) -> np.ndarray | None:
    """Leads that each member has finished, ``(time, number)``; None where the archive keeps no ledger."""
    if not (path / "ledger" / "leads").exists():
        return None
    finished = np.asarray(zarr.open_array(path / "ledger" / "leads", mode="r")[:])
    return np.repeat(finished, int(forecast.attrs["forecast"]["batch"]), axis=1)[:, : forecast.sizes["number"]]


def _checked(forecast: xr.Dataset) -> xr.Dataset:
    missing = [axis for axis in AXES if axis not in forecast.dims or axis not in forecast.coords]
    if missing or not any({*AXES} <= set(field.dims) for field in forecast.data_vars.values()):
        raise DataError(
            f"The forecast has the dimensions {', '.join(map(str, forecast.dims))}",
            f"An archive has fields with {', '.join(AXES)} and their coordinates",
            "Keep a dimension of one with fc.sel(time=[...]) rather than fc.sel(time=...)",
        )
    Grid.of(forecast).check_global()
    return forecast if "number" in forecast.dims else forecast.expand_dims(number=[0])
