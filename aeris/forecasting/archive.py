"""The forecast archive: a Zarr 3 store in WeatherBench 2's dimensions, laid out in full before the first field is computed.

One shard holds one initial time, one group of members and one lead, so that a writer owns whole shards. The ledger, a small
array in a group of its own, counts the leads that each group has finished, and is written after the fields. What the ledger does
not count reads as missing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from aeris.data.grid import Grid, drop_pole_row, restore_pole_row
from aeris.data.states import stack
from aeris.data.variables import VARIABLES, parse_channel
from aeris.errors import StoreError
from aeris.model.presets import SamplingRecipe

FORMAT = 1
TILE = (180, 360)
"""Largest rows and columns of an inner chunk, and so its largest size: small enough that a map of a region reads little."""


@dataclass(frozen=True, eq=False)
class Archive:
    """A forecast archive that is being written or went unfinished.

    Attributes:
        path: The store.
        channels: State channels in the network's order.
        grid: The network's grid; the archive's has both poles where one was dropped.
        times: Initial times, datetime64[ns].
        members: Number of members.
        group: Members a shard.
        leads: Leads, timedelta64[ns].
    """

    path: Path
    channels: tuple[str, ...]
    grid: Grid
    times: np.ndarray
    members: int
    group: int
    leads: np.ndarray

    @property
    def groups(self) -> int:
        """Number of groups of members."""
        return -(-self.members // self.group)

    def numbers(self, group: int) -> range:
        """Members of a group."""
        return range(group * self.group, min((group + 1) * self.group, self.members))

    @cached_property
    def _root(self) -> zarr.Group:
        return zarr.open_group(self.path, mode="r+", zarr_format=3)

    @property
    def _ledger(self) -> zarr.Array:
        return self._root["ledger/leads"]  # type: ignore[return-value]

    def lay_out(self, configuration: Mapping[str, Any]) -> None:
        """Makes the store, or finds the one that it goes on with.

        Args:
            configuration: All that decides the numbers, kept in the store.

        Raises:
            StoreError: Something else is in the way, or a forecast of another configuration.
        """
        asked = _plain(configuration)
        if self.path.exists():
            _check_same(self.path, asked)
            return
        partial = self.path.with_name(f".{self.path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _write_coordinates(partial, self, asked)
        root = zarr.open_group(partial, mode="r+", zarr_format=3)
        for name, levels in _levels(self.channels).items():
            _create_variable(root, name, levels, self)
        shape = (len(self.times), self.groups)
        root.create_array("ledger/leads", shape=shape, chunks=(1, 1), dtype="int32", fill_value=0, dimension_names=("time", "group"))
        os.replace(partial, self.path)

    def finished(self, time: int, group: int) -> int:
        """Number of leads that a group of members has finished."""
        return int(self._ledger[time, group])  # type: ignore[arg-type]

    def write(self, time: int, group: int, lead: int, states_MCHW: np.ndarray) -> None:
        """Writes one lead of one group of members, then counts it in the ledger.

        Args:
            time: Index of the initial time.
            group: Number of the group.
            lead: Index of the lead, from 0.
            states_MCHW: Physical states, float32.

        Raises:
            StoreError: The disk is full or does not take the fields.
        """
        numbers = self.numbers(group)
        where = (time, slice(numbers.start, numbers.stop), lead)
        try:
            for name, field in self._variables(states_MCHW).items():
                self._root[name][where] = field  # type: ignore[index]
            self._ledger[time, group] = lead + 1
        except OSError as error:
            raise StoreError(
                f"{self.path} could not be written at lead {lead + 1}: {error}",
                "What the ledger counts is whole, the rest reads as missing",
                "Free space and call the same forecast again: it goes on from there",
            ) from error

    def read(self, time: int, group: int, lead: int) -> np.ndarray:
        """The states that were written for one lead of a group, ``(M, C, H, W)`` on the network's grid."""
        numbers = self.numbers(group)
        opened = xr.open_zarr(self.path, consolidated=False).isel(
            time=time, number=slice(numbers.start, numbers.stop), prediction_timedelta=lead
        )
        opened = opened if self.grid.dropped_pole is None else drop_pole_row(opened, self.grid.dropped_pole)
        return stack(opened.drop_vars("time").rename(number="time"), self.channels)

    def _variables(self, states_MCHW: np.ndarray) -> dict[str, np.ndarray]:
        """Channels regrouped into variables, with the dropped pole row put back."""
        fields = {}
        for name, levels in _levels(self.channels).items():
            indices = [self.channels.index(name if level is None else f"{name}_{level}") for level in levels]
            stacked = states_MCHW[:, indices] if VARIABLES[name].pressure else states_MCHW[:, indices[0]]
            fields[name] = (("number", *("level",) * VARIABLES[name].pressure, "latitude", "longitude"), stacked)
        ds = xr.Dataset(fields, coords={"latitude": self.grid.latitude, "longitude": self.grid.longitude})
        ds = restore_pole_row(ds) if self.grid.pole_dropped else ds
        return {name: field.values for name, field in ds.data_vars.items()}  # type: ignore[misc]


def _levels(channels: Sequence[str]) -> dict[str, list[int | None]]:
    """Levels of each variable, in the channels' order."""
    levels: dict[str, list[int | None]] = {}
    for name in channels:
        channel = parse_channel(name)
        levels.setdefault(channel.variable.name, []).append(channel.level)
    return levels


def _plain(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration is after it was written and read."""
    plain: dict[str, Any] = json.loads(json.dumps(configuration))
    return plain


def _check_same(path: Path, asked: dict[str, Any]) -> None:
    try:
        found = dict(zarr.open_group(path, mode="r").attrs).get("forecast")
    except (FileNotFoundError, ValueError, zarr.errors.GroupNotFoundError):
        found = None
    if not isinstance(found, dict):
        raise StoreError(
            f"{path} exists and is no forecast archive", "A forecast never replaces what is there", "Choose another name for out"
        )
    if "sampling" in found:  # an older archive lacks what was added since; it had the defaults
        found = {**found, "sampling": _plain(asdict(SamplingRecipe(**found["sampling"])))}
    differing = [name for name in {**asked, **found} if asked.get(name) != found.get(name)]
    if differing:
        name = differing[0]
        raise StoreError(
            f"{path} holds a forecast with {name}={found.get(name)}, not {asked.get(name)}",
            "An archive goes on only with the arguments that it began with",
            "Use the same arguments, or another name for out",
        )


def _write_coordinates(path: Path, archive: Archive, configuration: dict[str, Any]) -> None:
    levels = sorted({level for levels in _levels(archive.channels).values() for level in levels if level is not None})
    coords: dict[str, Any] = {
        "time": ("time", archive.times, {"long_name": "initial time"}),
        "number": ("number", np.arange(archive.members), {"long_name": "ensemble member"}),
        "prediction_timedelta": ("prediction_timedelta", archive.leads, {"long_name": "lead time"}),
        "latitude": ("latitude", archive.grid.whole.latitude, {"units": "degrees_north"}),
        "longitude": ("longitude", archive.grid.longitude, {"units": "degrees_east"}),
    }
    if levels:
        coords["level"] = ("level", np.array(levels, dtype=np.int64), {"units": "hPa"})
    attrs = {"format": FORMAT, "forecast": configuration, "source": "aeris"}
    encoding = {
        "time": {"units": "seconds since 1970-01-01", "dtype": "int64"},
        "prediction_timedelta": {"units": "seconds", "dtype": "int64"},
    }
    xr.Dataset(coords=coords, attrs=attrs).to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)


def _create_variable(root: zarr.Group, name: str, levels: list[int | None], archive: Archive) -> None:
    variable = VARIABLES[name]
    rows, columns = archive.grid.whole.shape
    level = (len(levels),) if variable.pressure else ()
    tile = tuple(_side(size, largest) for size, largest in zip((rows, columns), TILE, strict=True))
    # On a small grid a chunk takes in levels and members too: many small chunks are slow to read.
    room = max(1, prod(TILE) // prod(tile))
    level_chunk = tuple(_divisor(size, room) for size in level)
    member_chunk = _divisor(archive.group, room // prod(level_chunk)) if level_chunk == level else 1
    root.create_array(
        name,
        shape=(len(archive.times), archive.members, len(archive.leads), *level, rows, columns),
        chunks=(1, member_chunk, 1, *level_chunk, *tile),
        shards=(1, archive.group, 1, *level, rows, columns),
        dtype="float32",
        compressors=None,  # of a forecast it saves a few per cent, and costs a map of all members half of its time
        fill_value=np.nan,
        dimension_names=("time", "number", "prediction_timedelta", *("level",) * len(level), "latitude", "longitude"),
        attributes={"units": variable.units, "long_name": variable.long_name},
    )


def _side(size: int, largest: int) -> int:
    """Side of an inner chunk: the largest divisor up to `largest`; the whole where only slivers would divide it."""
    side = _divisor(size, largest)
    return side if 4 * side >= min(size, largest) else size


def _divisor(size: int, largest: int) -> int:
    """Largest divisor of `size` that is not above `largest`."""
    return max(part for part in range(1, max(1, min(size, largest)) + 1) if size % part == 0)


def open_forecast(path: str | Path) -> xr.Dataset:
    """Opens a forecast archive, finished or not.

    Returns:
        Lazy dataset with dimensions ``time`` (initial time), ``number``, ``prediction_timedelta``, ``level``, ``latitude``,
        ``longitude``. Fields that are not there yet are NaN; ``attrs["complete"]`` is the share of fields that are.

    Raises:
        StoreError: There is no forecast archive at `path`.
    """
    path = Path(path)
    try:
        ds = xr.open_zarr(path, consolidated=False)
        ledger = zarr.open_array(path / "ledger" / "leads", mode="r")[:]
    except (FileNotFoundError, zarr.errors.GroupNotFoundError, zarr.errors.ArrayNotFoundError) as error:
        raise StoreError(
            f"{path} is no forecast archive", "An archive is a Zarr store written by aeris.forecast", "Name the directory given as out"
        ) from error
    group = int(ds.attrs["forecast"]["batch"])
    done = xr.DataArray(np.repeat(np.asarray(ledger), group, axis=1)[:, : ds.sizes["number"]], dims=("time", "number"))
    ds.attrs["complete"] = float((done / ds.sizes["prediction_timedelta"]).mean())
    if ds.attrs["complete"] < 1:
        index = xr.DataArray(np.arange(ds.sizes["prediction_timedelta"]), dims="prediction_timedelta")
        ds = ds.where(index < done)
    return ds
