"""What a training store holds apart from its states: channels, grid, times, interval, static fields; laid out and read back."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
import zarr

from aeris.data import states
from aeris.data.grid import Grid
from aeris.data.variables import STATIC, VARIABLES
from aeris.errors import ConfigurationError, DataError, StoreError

FORMAT = 1
"""Version of what stands on disk."""

Interval = str | timedelta | np.timedelta64
"""A length of time, such as ``"6h"``."""

LARGEST_CHUNK = 30
"""Edge in grid points up to which a chunk is chosen: the smaller window of AERIS."""

CHUNKS_IN_A_COLUMN = 4
"""At least so many chunks are left from pole to pole, so that small grids can be cut into windows too."""


@dataclass(frozen=True, eq=False)
class Contents:
    """What a training store holds apart from its states.

    Attributes:
        channels: Names of the state channels, in the order of the registry.
        static: Names of the static fields.
        grid: The grid, without a row at the south pole.
        interval: Time from a state to the one that is learnt from it, ``timedelta64[ns]``.
        chunk: Edge of the square pieces in which states are read, in grid points.
        times: Times of the states, ``datetime64[ns]`` of shape ``(times,)``.
        sea_mask: Where sea surface temperature is defined, bool of shape ``(rows, columns)``, or None.
        static_fields: Float32 of shape ``(static, rows, columns)`` in physical units.
        further: Further intervals whose changes are known, rising multiples of the first.
    """

    channels: tuple[str, ...]
    static: tuple[str, ...]
    grid: Grid
    interval: np.timedelta64
    chunk: int
    times: np.ndarray
    sea_mask: np.ndarray | None
    static_fields: np.ndarray
    further: tuple[np.timedelta64, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of a state."""
        return len(self.channels), *self.grid.shape

    @cached_property
    def later(self) -> np.ndarray:
        """Of every state the position of the one that stands an interval later, or -1."""
        return _positions(self.times, self.times + self.interval)

    @cached_property
    def earlier(self) -> tuple[np.ndarray, ...]:
        """Of every state the position of the one that stands an interval earlier, or -1; then so for each further interval."""
        return tuple(_positions(self.times, self.times - interval) for interval in (self.interval, *self.further))


def plan(ds: xr.Dataset, interval: Interval, chunk: int | None, gaps: str, further: Sequence[Interval] = ()) -> Contents:
    """Plans a store for a canonical dataset; reads no field but the static ones and the first state.

    Args:
        ds: Canonical dataset without a row at the south pole.
        interval: Time from a state to the one that is learnt from it.
        chunk: Edge of the pieces in which states are read, or None.
        gaps: ``"refuse"`` or ``"skip"``.
        further: Further intervals.

    Raises:
        ConfigurationError: An argument cannot be.
        DataError: The dataset is not what a store can be made of.
    """
    channels, step = states.channels_of(ds), parse_interval(interval)
    grid = Grid.of(ds)
    grid.check_global()
    times = _times(ds)
    _check_gaps(times, step, gaps)
    longer = _further(further, step, times)
    edge = choose_chunk(grid, chunk)
    static, fields = states.stack_static(ds)
    sea = states.sea_mask(states.stack(ds.isel(time=[0]), channels)[0], channels)
    return Contents(channels, static, grid, step, edge, times, sea, fields, longer)


def parse_interval(interval: Interval) -> np.timedelta64:
    """Reads an interval such as ``"6h"``.

    Raises:
        ConfigurationError: It is no positive length of time.
    """
    try:
        step = pd.Timedelta(interval).to_timedelta64().astype("timedelta64[ns]")
    except (ValueError, TypeError):
        step = np.timedelta64("NaT", "ns")
    if not step > np.timedelta64(0, "ns"):
        raise ConfigurationError(f"The interval {interval!r}", "An interval is a positive length of time", "Use for example '6h' or '24h'")
    return step


def _further(intervals: Sequence[Interval], first: np.timedelta64, times: np.ndarray) -> tuple[np.timedelta64, ...]:
    """Further intervals, each once and rising; the first may stand among them."""
    longer = tuple(sorted({parse_interval(interval) for interval in intervals} - {first}))
    for interval in longer:
        whole_hours = interval % np.timedelta64(1, "h") == np.timedelta64(0)
        if interval < first or interval % first or not whole_hours:
            raise ConfigurationError(
                f"The further interval of {hours(interval)} beside {hours(first)}",
                "Further intervals are multiples of the first, in whole hours",
                f"Use for example {hours(2 * first)!r}",
            )
        if not np.any(_positions(times, times + interval) >= 0):
            raise DataError(
                f"No two of the {len(times)} times are {hours(interval)} apart",
                "What is known of a change comes from pairs of states that far apart",
                "Leave the interval out, or prepare a longer period",
            )
    return longer


def choose_chunk(grid: Grid, chunk: int | None) -> int:
    """Checks a chunk, or takes the largest divisor of rows and columns that suits the grid: 8 on 32×64, 30 on 720×1440.

    Args:
        grid: The grid.
        chunk: Edge in grid points; None takes the largest up to `LARGEST_CHUNK` that leaves `CHUNKS_IN_A_COLUMN`.

    Raises:
        ConfigurationError: It does not divide both axes.
    """
    rows, columns = grid.shape
    common = math.gcd(rows, columns)
    divisors = [edge for edge in range(1, common + 1) if common % edge == 0]
    if chunk is None:
        return max(edge for edge in divisors if edge == 1 or edge <= min(LARGEST_CHUNK, rows // CHUNKS_IN_A_COLUMN))
    if chunk not in divisors:
        raise ConfigurationError(
            f"A chunk of {chunk} on {rows}×{columns} grid points", "A chunk divides rows and columns", f"Choose among {divisors}"
        )
    return int(chunk)


def lay_out(contents: Contents, path: Path) -> None:
    """Makes the directory of a store with everything but its states, all at once.

    Raises:
        OSError: It cannot be written.
    """
    passing = path.with_name(f".{path.name}.partial")
    shutil.rmtree(passing, ignore_errors=True)
    passing.parent.mkdir(parents=True, exist_ok=True)
    _to_dataset(contents).to_zarr(passing, zarr_format=3, consolidated=False)
    zarr.create_array(
        passing / "state",
        shape=(len(contents.times), *contents.shape),
        dtype=np.float32,
        chunks=(1, len(contents.channels), contents.chunk, contents.chunk),
        shards=(1, *contents.shape),
        compressors=None,
        fill_value=np.nan,
        dimension_names=("time", "channel", "latitude", "longitude"),
    )
    os.replace(passing, path)


def read(path: Path) -> Contents:
    """Reads what a store holds, finished or not.

    Raises:
        StoreError: There is no store at `path`, or one of another format.
    """
    _check_format(path)
    ds = xr.open_zarr(path, consolidated=False, chunks=None).drop_vars("state").load()
    static = tuple(name for name in STATIC if name in ds)
    grid = Grid.of(ds)
    return Contents(
        channels=tuple(map(str, ds.channel.values)),
        static=static,
        grid=grid,
        interval=parse_interval(ds.attrs["interval"]),
        chunk=ds.attrs["chunk"],
        times=ds.time.values.astype("datetime64[ns]"),
        sea_mask=ds.sea_mask.values.astype(bool) if "sea_mask" in ds else None,
        static_fields=np.array([ds[name].values for name in static], np.float32).reshape(-1, *grid.shape),
        further=tuple(parse_interval(interval) for interval in ds.attrs.get("further_intervals", [])),
    )


def refuse_mixing(path: Path, there: Contents, asked: Contents) -> None:
    """Refuses to go on with a store that holds something else than what is asked for.

    Raises:
        StoreError: Naming what differs, and both values.
    """
    both = there, asked
    differences = (
        (there.channels != asked.channels, "channels", [_besides(a.channels, b.channels) for a, b in (both, both[::-1])]),
        (there.static != asked.static, "static fields", [_besides(a.static, b.static) for a, b in (both, both[::-1])]),
        (not there.grid.same_as(asked.grid), "grid", [str(a.grid) for a in both]),
        (there.interval != asked.interval, "interval", [hours(a.interval) for a in both]),
        (there.further != asked.further, "further intervals", [f"({', '.join(map(hours, a.further))})" for a in both]),
        (there.chunk != asked.chunk, "chunk", [str(a.chunk) for a in both]),
        (not np.array_equal(there.times, asked.times), "times", _different_times(there.times, asked.times)),
        (not _same_fields(there, asked), "static fields or sea", ["other values", "those of the dataset"]),
    )
    for differs, what, (old, new) in differences:
        if differs:
            raise StoreError(
                f"The store {path} has the {what} {old}, this call asks for {new}",
                "A store holds one set of channels and times on one grid, for one interval",
                "Choose another path, or delete the directory first",
            )


def hours(interval: np.timedelta64) -> str:
    """An interval in words."""
    return f"{interval / np.timedelta64(1, 'h'):g} h"


def minute(time: np.datetime64) -> str:
    """A time in words."""
    return str(np.datetime_as_string(time, unit="m"))


def _positions(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted time stands among rising `times`, or -1."""
    found = np.minimum(np.searchsorted(times, wanted), len(times) - 1)
    return np.where(times[found] == wanted, found, -1)


def _times(ds: xr.Dataset) -> np.ndarray:
    """The times of the dataset, each later than the one before."""
    times = ds.time.values if "time" in ds.coords else np.array([])
    if not np.issubdtype(times.dtype, np.datetime64) or times.ndim != 1 or np.isnat(times).any():
        raise DataError(
            "The dataset has no usable times", "A time coordinate holds datetime64, none missing", "Open the data with aeris.open_era5"
        )
    back = np.flatnonzero(np.diff(times) <= np.timedelta64(0, "ns"))
    if len(back):
        kind = "twice" if times[back[0]] == times[back[0] + 1] else "out of order"
        raise DataError(
            f"The time {minute(times[back[0] + 1])} stands {kind}",
            "Times rise, each stands once",
            "Use ds.drop_duplicates('time').sortby('time')",
        )
    return times.astype("datetime64[ns]")


def _check_gaps(times: np.ndarray, interval: np.timedelta64, gaps: str) -> None:
    """Refuses holes, unless they may be skipped, and an interval that no two times have."""
    if gaps not in ("refuse", "skip"):
        raise ConfigurationError(f"gaps={gaps!r}", "Gaps in time are refused or skipped", "Use 'refuse' or 'skip'")
    wide = np.flatnonzero(np.diff(times) > interval)
    paired = np.any(_positions(times, times + interval) >= 0)
    if len(wide) and paired and gaps == "refuse":
        raise DataError(
            f"{len(wide)} gaps of more than {hours(interval)}, the first from {minute(times[wide[0]])} to {minute(times[wide[0] + 1])}",
            "States follow one another by the interval or less",
            "Fill the gaps, or leave out the pairs across them with gaps='skip'",
        )
    if not paired:
        spacing = hours(np.diff(times).min()) if len(times) > 1 else "no second time"
        raise DataError(
            f"No two of the {len(times)} times are {hours(interval)} apart",
            "The network learns from pairs of states one interval apart",
            f"Choose an interval that occurs; the smallest spacing here is {spacing}",
        )


def _to_dataset(contents: Contents) -> xr.Dataset:
    """What stands beside the states."""
    horizontal = ("latitude", "longitude")
    given = dict(zip(contents.static, contents.static_fields, strict=True))
    fields = {name: (horizontal, field, _attributes(name)) for name, field in given.items()}
    if contents.sea_mask is not None:
        fields["sea_mask"] = (horizontal, contents.sea_mask, {"long_name": "where sea surface temperature is defined"})
    return xr.Dataset(
        fields,
        coords={
            "time": contents.times,
            "channel": np.array(contents.channels, dtype=object),
            "latitude": ("latitude", contents.grid.latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", contents.grid.longitude, {"units": "degrees_east"}),
        },
        attrs={
            "aeris_training_store": FORMAT,
            "interval": pd.Timedelta(contents.interval).isoformat(),
            "chunk": contents.chunk,
            **({"further_intervals": [pd.Timedelta(interval).isoformat() for interval in contents.further]} if contents.further else {}),
        },
    )


def _attributes(name: str) -> dict[str, str]:
    return {"units": VARIABLES[name].units, "long_name": VARIABLES[name].long_name}


def _check_format(path: Path) -> None:
    """Refuses what is no training store, or one that another version wrote."""
    if not path.exists():
        raise StoreError(f"Nothing is at {path}", "A training store is a directory", "Make one with aeris.prepare(ds, path)")
    try:
        found = json.loads((path / "zarr.json").read_text())["attributes"]["aeris_training_store"]
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(
            f"What stands at {path} is no training store", "Only aeris.prepare makes one", "Choose a path where nothing is yet"
        ) from None
    if found != FORMAT:
        raise StoreError(f"The store {path} has format {found}", f"This version of aeris reads format {FORMAT}", "Prepare it again")


def _besides(own: Sequence[str], other: Sequence[str]) -> str:
    """A list of names by their number and what only it has."""
    only = [name for name in own if name not in other]
    return f"({len(own)}{', among them ' if only else ''}{', '.join(only[:6])}{' ...' if len(only) > 6 else ''})"


def _different_times(there: np.ndarray, asked: np.ndarray) -> list[str]:
    """Both sequences by number and ends, and the first time that only one of them has."""
    only = np.setxor1d(there, asked)
    first = f", first difference at {minute(only[0])}" if len(only) else ""
    return [f"({len(times)} from {minute(times[0])} to {minute(times[-1])})" + tail for times, tail in ((there, ""), (asked, first))]


def _same_fields(there: Contents, asked: Contents) -> bool:
    """Whether the static fields and the sea are the same; grids and names are known to be."""
    one, other = (np.ones(held.grid.shape, bool) if held.sea_mask is None else held.sea_mask for held in (there, asked))
    return np.array_equal(one, other) and np.array_equal(there.static_fields, asked.static_fields)
