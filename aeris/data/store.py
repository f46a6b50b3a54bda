"""The training store: states of the atmosphere on disk, in pieces that are windows.

::

    store.zarr/
      zarr.json               interval, chunk, format
      state/                  (time, channel, latitude, longitude), one file a time; inner chunks hold all channels of one window
      time, channel, latitude, longitude, sea_mask, geopotential_at_surface, land_sea_mask
      state/ledger.jsonl      one line for each state that is written: its checksum and its moments
      state/statistics.json   written last; a store without it is unfinished

Any rank reads only the bytes of its own windows, and nothing is ever cut anew for another layout. It is plain Zarr 3, so that
``xarray.open_zarr(path, consolidated=False)`` opens it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from aeris.data import contents, preparation, shards
from aeris.data.contents import Contents, Interval, hours, minute
from aeris.data.grid import drop_pole_row
from aeris.data.statistics import Statistics
from aeris.errors import ConfigurationError, DataError, StoreError


@dataclass(frozen=True, eq=False, repr=False)
class Store(Contents):
    """A finished training store.

    Attributes:
        channels: Names of the state channels, in the order of the registry.
        static: Names of the static fields that it holds.
        grid: The grid, without a row at the south pole.
        interval: Time from a state to the one that is learnt from it, ``timedelta64[ns]``.
        chunk: Edge of the square pieces in which states are read, in grid points.
        times: Times of the states, ``datetime64[ns]`` of shape ``(times,)``.
        sea_mask: Where sea surface temperature is defined, bool of shape ``(rows, columns)``, or None.
        static_fields: Float32 of shape ``(static, rows, columns)`` in physical units.
        further: Further intervals whose changes are known, rising multiples of the first.
        path: Its directory.
        statistics: What standardizes its channels and forcings.
    """

    path: Path
    statistics: Statistics

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Opens a finished store.

        Raises:
            StoreError: There is none at `path`, it is unfinished, or another version of the format.
        """
        path = Path(path)
        held = contents.read(path)
        statistics = preparation.read_statistics(path)
        if statistics is None:
            raise StoreError(
                f"The store {path} is unfinished, {len(preparation.read_records(path))} of {len(held.times)} states are written",
                "A store is used when all its states and its statistics are written",
                preparation.GO_ON,
            )
        return cls(**{field.name: getattr(held, field.name) for field in fields(held)}, path=path, statistics=statistics)

    def read(self, index: int, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Reads one state or a part of it; no more bytes than the chunks that the part touches, and an index.

        Safe to call from several threads.

        Args:
            index: Position in `times`.
            rows: Rows wanted, without a step.
            columns: Columns wanted, without a step.

        Returns:
            Float32 of shape ``(channels, rows, columns)`` in physical units; sea surface temperature over land is
            `aeris.data.variables.SEA_ICE_POINT`.

        Raises:
            StoreError: The state's file is missing or damaged.
            ConfigurationError: `index` is none of the store's, or a slice has a step.
        """
        if not 0 <= index < len(self.times) or rows.step not in (None, 1) or columns.step not in (None, 1):
            raise ConfigurationError(
                f"State {index}, {rows} of the rows and {columns} of the columns",
                f"States are numbered from 0 to {len(self.times) - 1}, and parts have no step",
                "Read for example store.read(0, rows=slice(0, 8))",
            )
        return shards.read_shard(preparation.shard_path(self.path, index), self.shape, self.chunk, rows, columns)

    def read_windows(self, index: int, window: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
        """Reads some windows of one state, and no other bytes.

        Args:
            index: Position in `times`.
            window: Rows and columns of a window.
            rows: Window rows wanted, for example every second one.
            columns: Window columns wanted.

        Returns:
            Float32 ``(channels, rows, columns)``: the windows side by side, as :meth:`read` gives their pixels.
        """
        grid = [range(size // side) for size, side in zip(self.grid.shape, window, strict=True)]
        chosen_rows, chosen_columns = grid[0][rows], grid[1][columns]
        if len(chosen_rows) == len(grid[0]) and len(chosen_columns) == len(grid[1]):
            return self.read(index)
        strips = [slice(row * window[0], (row + 1) * window[0]) for row in chosen_rows]
        if len(chosen_columns) == len(grid[1]):
            return np.concatenate([self.read(index, strip) for strip in strips], axis=1)
        cuts = [slice(column * window[1], (column + 1) * window[1]) for column in chosen_columns]
        return np.concatenate([np.concatenate([self.read(index, strip, cut) for cut in cuts], axis=2) for strip in strips], axis=1)

    def partner(self, index: int, steps: int = 1) -> int:
        """Position of the state so many intervals after state `index`, each of which ends at a state of the store.

        Raises:
            DataError: There is none.
        """
        found = index
        for _ in range(steps):
            position, found = found, int(self.later[found])
            if found < 0:
                raise DataError(
                    f"No state stands {hours(self.interval)} after {minute(self.times[position])}",
                    f"{steps + 1} states follow each other one interval apart",
                    f"Choose among store.pairs(steps={steps})",
                )
        return found

    def pairs(self, period: slice | None = None, steps: int = 1) -> np.ndarray:
        """Positions of the states that so many others follow, each one interval after the last, all within `period`.

        Args:
            period: First and last time, both included; a string such as ``"2018"`` means the whole year.
            steps: How many follow; one makes a pair.

        Returns:
            Rising integers of shape ``(pairs,)``; none where the store has no such states within `period`.

        Raises:
            ConfigurationError: `period` cannot be read.
        """
        inside = np.zeros(len(self.times), bool)
        inside[self._slice(slice(None) if period is None else period)] = True
        begins, reached = inside, np.arange(len(self.times))
        for _ in range(steps):
            reached = np.where(reached >= 0, self.later[reached], -1)
            begins = begins & (reached >= 0) & inside[reached]
        return np.flatnonzero(begins)

    def check_window(self, window: tuple[int, int]) -> None:
        """Refuses a window that would have to read the bytes of others.

        Args:
            window: Rows and columns.

        Raises:
            ConfigurationError: An edge is no multiple of the chunk.
        """
        if any(edge < 1 or edge % self.chunk for edge in window):
            raise ConfigurationError(
                f"Windows of {window[0]}×{window[1]} grid points",
                f"The edges of a window are multiples of the store's chunk, {self.chunk}",
                f"Choose for example {self.chunk}×{self.chunk}, or prepare a store with a chunk that divides the window",
            )

    def check(self) -> str:
        """Reads the whole store and compares it with its ledger.

        Returns:
            A summary for people.

        Raises:
            StoreError: A state is missing, damaged or not finite, or the statistics are not those of the states.
        """
        records = preparation.read_records(self.path)
        with preparation.progress("check", len(self.times)) as shown:
            for index in range(len(self.times)):
                self._check_state(index, records.get(index))
                shown.update()
        if preparation.statistics_of(self, records) != self.statistics:
            raise StoreError(
                f"The statistics of {self.path} do not follow from its ledger",
                "They are those of the states in the store",
                f"Delete {self.path / preparation.STATISTICS}. {preparation.GO_ON}",
            )
        return f"{self}. All states are whole and finite. Statistics {self.statistics.id[:12]}"

    def _check_state(self, index: int, record: dict[str, Any] | None) -> None:
        """Compares one state's file with its line in the ledger."""
        file = preparation.shard_path(self.path, index)
        if record is None or not np.isfinite(self.read(index)).all() or shards.checksum(file) != record["crc32c"]:
            raise StoreError(
                f"The state at {minute(self.times[index])} is not the one that was written",
                "Every file has the checksum that the ledger recorded",
                f"Delete {file}. {preparation.GO_ON}",
            )

    def _slice(self, period: slice) -> slice:
        """The positions within `period`, whose ends may be strings, dates or ``datetime64``."""
        try:
            return pd.DatetimeIndex(self.times).slice_indexer(period.start, period.stop, period.step)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(
                f"The period {period} cannot be read, {error}",
                "A period is a slice of two times, both included",
                "Write for example slice('1979', '2018') or slice('2001-01-01', '2001-06-30T18')",
            ) from error

    def __str__(self) -> str:
        longer = f", changes over {', '.join(map(hours, self.further))} too" if self.further else ""
        size = len(self.times) * shards.shard_bytes(self.shape, self.chunk)
        return (
            f"{self.path}: {len(self.times)} states from {minute(self.times[0])} to {minute(self.times[-1])}, "
            f"{len(self.pairs())} pairs {hours(self.interval)} apart{longer}, {len(self.channels)} channels and "
            f"{len(self.static)} static fields on {self.grid}, chunk {self.chunk}, {size / 1e9:.3g} GB"
        )

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"


def prepare(
    ds: Any,
    path: str | Path,
    interval: Interval = "6h",
    chunk: int | None = None,
    gaps: str = "refuse",
    intervals: Sequence[Interval] = (),
) -> Store:
    """Writes a training store, or goes on with one that was broken off.

    The south pole row of a grid with both poles is dropped, 721 rows becoming 720. What can be checked without reading the fields
    is checked first, the values as they pass. Progress shows in a terminal and in a notebook.

    Args:
        ds: Canonical dataset, lazy or not; or anything that `aeris.open_era5` opens.
        path: Directory of the store, on a local or shared file system.
        interval: Time from a state to the one that is learnt from it.
        chunk: Edge of the pieces in which states are read, in grid points; it divides rows and columns, and windows are multiples
            of it. None takes the largest that suits the grid: 8 on 32×64, 30 on 720×1440.
        gaps: ``"refuse"`` holes in time that are longer than the interval, or ``"skip"`` the pairs across them.
        intervals: Further intervals, multiples of the first, whose changes a network of several intervals is trained on too.

    Returns:
        The finished store. One that is finished already and has the same content is returned at once.

    Raises:
        ConfigurationError: `interval`, `chunk`, `gaps` or `intervals` cannot be.
        DataError: The dataset is not what a store can be made of; the message says where.
        StoreError: Something else stands at `path`, or it cannot be written there.
    """
    path = _directory(path)
    ds = drop_pole_row(_opened(ds))
    planned = contents.plan(ds, interval, chunk, gaps, intervals)
    if path.exists() and (path.is_file() or any(path.iterdir())):
        contents.refuse_mixing(path, contents.read(path), planned)
    else:
        _lay_out(planned, path)
    todo = preparation.missing_states(path, planned)
    preparation.refuse_other_values(path, ds, planned, todo)
    if todo:
        preparation.refuse_small_disk(path, planned, len(todo))
        preparation.fill(path, ds, planned, todo)
    if todo or preparation.read_statistics(path) is None:
        preparation.finish(path, planned)
    return Store.open(path)


def sample_order(count: int, seed: int, position: int, size: int) -> np.ndarray:
    """The `size` sample numbers at `position` in an endless shuffled stream.

    Every epoch of `count` samples is a permutation of its own: the order of the random integers of Philox (Salmon et al. 2011,
    doi:10.1145/2063384.2063405) keyed by seed and epoch. The stream is a pure function, so that any number of readers, in any
    portions and after any pause, walks along the same one.

    Args:
        count: Number of samples in an epoch.
        seed: Seed of the order, not negative.
        position: Samples already taken from the stream.
        size: Samples wanted.

    Returns:
        Integers from 0 to ``count - 1``, shape ``(size,)``.

    Raises:
        ConfigurationError: `count` is less than one, or another argument is negative.
    """
    if count < 1 or min(seed, position, size) < 0:
        raise ConfigurationError(
            f"count {count}, seed {seed}, position {position}, size {size}",
            "There is at least one sample, and nothing is negative",
            "Use for example sample_order(1000, seed=0, position=0, size=4)",
        )
    epochs = range(position // count, -(-(position + size) // count))
    stream = np.concatenate([np.empty(0, np.int64), *(_permutation(count, seed, epoch) for epoch in epochs)])
    return stream[position % count :][:size]


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """Order of raw generator output, which numpy keeps the same in every version (NEP 19)."""
    return np.argsort(np.random.Philox(key=[seed, epoch]).random_raw(count), kind="stable")


def _directory(path: str | Path) -> Path:
    """The path of a store that can be written."""
    if "://" in str(path):
        raise StoreError(f"The path {path}", "A training store stands in a file system", "Give a directory such as 'era5.zarr'")
    return Path(path)


def _opened(ds: Any) -> xr.Dataset:
    """The canonical dataset, opened where it is not one."""
    if isinstance(ds, xr.Dataset):
        return ds
    from aeris.data.sources import open_era5

    return open_era5(ds)


def _lay_out(planned: Contents, path: Path) -> None:
    try:
        contents.lay_out(planned, path)
    except OSError as error:
        raise preparation.unwritable(path, error) from error
