"""Filling a training store: states are streamed, checked, written and entered in the ledger, one time after another."""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from aeris.data import states
from aeris.data.contents import Contents, minute
from aeris.data.disk import Ledger, write_whole
from aeris.data.shards import read_shard, shard_bytes, write_shard
from aeris.data.statistics import HOUR, Moments, Statistics, area_weights, forcing_moments, summarize
from aeris.errors import StoreError

LEDGER = "state/ledger.jsonl"
STATISTICS = "state/statistics.json"
GO_ON = "Run aeris.prepare again with the same arguments; it goes on where it stopped"

_READ_AT_ONCE = 512 << 20
_KEPT = 2 << 30


def shard_path(path: Path, index: int) -> Path:
    """The file of state `index` in the store at `path`, where Zarr looks for it."""
    return path / "state" / "c" / str(index) / "0" / "0" / "0"


def read_records(path: Path) -> dict[int, dict[str, Any]]:
    """The ledger of a store by the position of the state; the newest record counts."""
    return {record["index"]: record for record in Ledger(path / LEDGER).read()}


def read_statistics(path: Path) -> Statistics | None:
    """The statistics of a finished store, None where it is unfinished."""
    file = path / STATISTICS
    return Statistics.from_dict(json.loads(file.read_text())) if file.exists() else None


def missing_states(path: Path, contents: Contents) -> list[int]:
    """Positions of the states that are not in the ledger, or whose file is not there in full size."""
    done, size = read_records(path), shard_bytes(contents.shape, contents.chunk)
    return [index for index in range(len(contents.times)) if index not in done or _size(shard_path(path, index)) != size]


def refuse_other_values(path: Path, ds: xr.Dataset, contents: Contents, todo: list[int]) -> None:
    """Compares the first and the last state that are in the store with the dataset.

    Raises:
        StoreError: One holds other values, so that the store was made from other data.
    """
    done = sorted(set(range(len(contents.times))) - set(todo))
    for index, state in _stream(ds, contents, sorted({done[0], done[-1]}) if done else []):
        if not np.array_equal(_read(path, contents, index), state):
            raise StoreError(
                f"The store {path} holds another state at {minute(contents.times[index])} than the dataset",
                "A store is filled from one dataset",
                "Choose another path, or delete the directory first",
            )


def refuse_small_disk(path: Path, contents: Contents, count: int) -> None:
    """Refuses to begin what will not fit.

    Raises:
        StoreError: `count` states need more space than is free.
    """
    need, free = count * shard_bytes(contents.shape, contents.chunk), shutil.disk_usage(path).free
    if need > free:
        raise StoreError(
            f"{count} states need {need / 1e9:.3g} GB, {free / 1e9:.3g} GB are free at {path}",
            "A store holds every state uncompressed",
            "Free space, choose another path, or prepare a shorter period, fewer levels or a coarser grid",
        )


def fill(path: Path, ds: xr.Dataset, contents: Contents, todo: list[int]) -> None:
    """Writes the states `todo`, each followed by its line in the ledger.

    Args:
        path: The store, laid out.
        ds: Canonical dataset on the grid of `contents`.
        contents: What the store holds.
        todo: Positions of the states to be written, rising.

    Raises:
        DataError: A value is missing or unphysical.
        StoreError: A state could not be written; those before it are kept.
    """
    previous = _Previous(path, contents)
    weights = area_weights(contents.grid, contents.channels, contents.sea_mask)
    with progress("prepare", len(contents.times), len(contents.times) - len(todo)) as shown:
        for index, state in _stream(ds, contents, todo):
            _write(path, contents, index, state, Moments.of(state, weights), previous.changes(index, state, weights))
            previous.keep(index, state)
            shown.update()


def progress(what: str, total: int, done: int = 0) -> Any:
    """A progress bar over states that shows in a terminal and in a notebook, and nowhere else."""
    from tqdm.notebook import tqdm_notebook

    from aeris.progress import tqdm

    in_notebook = issubclass(tqdm, tqdm_notebook)
    return tqdm(total=total, initial=done, unit="state", desc=what, disable=False if in_notebook else None)


def finish(path: Path, contents: Contents) -> None:
    """Computes the statistics and writes them: from now on the store is finished.

    Raises:
        DataError: A channel never changes.
        StoreError: They could not be written.
    """
    text = json.dumps(statistics_of(contents, read_records(path)).to_dict())
    try:
        write_whole(path / STATISTICS, [text.encode()])
    except OSError as error:
        raise unwritable(path, error) from error


def statistics_of(contents: Contents, records: dict[int, dict[str, Any]]) -> Statistics:
    """The statistics that follow from a ledger, put together in the order of time."""
    in_order = [records[index] for index in range(len(contents.times))]
    lengths = [str(round(interval / HOUR)) for interval in contents.further]
    return summarize(
        contents.channels,
        (_moments(record["state"]) for record in in_order),
        (_moments(record["change"]) for record in in_order if record["change"]),
        forcing_moments(contents.times, contents.grid, contents.static, contents.static_fields),
        {int(hours): [_moments(record["further"][hours]) for record in in_order if record["further"][hours]] for hours in lengths},
    )


def unwritable(path: Path, error: OSError) -> StoreError:
    """The refusal of the file system, with what is to be done."""
    return StoreError(
        f"{path} could not be written: {error.strerror or error}", "What was written before is kept", f"Make room or mend it. {GO_ON}"
    )


class _Previous:
    """The states of the recent past, from which changes are computed: in memory as far as they fit, else read back."""

    def __init__(self, path: Path, contents: Contents) -> None:
        self.path, self.contents = path, contents
        self.kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def keep(self, index: int, state: np.ndarray) -> None:
        self.kept[index] = state
        while len(self.kept) > max(1, _KEPT // state.nbytes):
            self.kept.popitem(last=False)

    def changes(self, index: int, state: np.ndarray, weights: list[np.ndarray]) -> list[Moments | None]:
        """Moments of the change up to state `index` over one interval and over each further one; None where there is no earlier state."""
        return [self._change(int(earlier[index]), state, weights) for earlier in self.contents.earlier]

    def _change(self, before: int, state: np.ndarray, weights: list[np.ndarray]) -> Moments | None:
        if before < 0:
            return None
        earlier = self.kept[before] if before in self.kept else _read(self.path, self.contents, before)
        return Moments.of((now.astype(np.float64) - then for now, then in zip(state, earlier, strict=True)), weights)


def _stream(ds: xr.Dataset, contents: Contents, indices: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Position and state, checked and with the land filled, of each of the indices; read from the source in portions."""
    portion = max(1, _READ_AT_ONCE // shard_bytes(contents.shape, contents.chunk))
    rest = iter(indices)
    while chosen := list(islice(rest, portion)):
        for index, state in zip(chosen, states.stack(ds.isel(time=chosen), contents.channels), strict=True):
            states.check_state(state, contents.channels, contents.sea_mask, contents.times[index])
            yield index, states.fill_land(state, contents.channels, contents.sea_mask)


def _write(path: Path, contents: Contents, index: int, state: np.ndarray, moments: Moments, changes: list[Moments | None]) -> None:
    """Writes a state, then its line in the ledger."""
    change, *longer = map(_lists, changes)
    further = {str(round(interval / HOUR)): lists for interval, lists in zip(contents.further, longer, strict=True)}
    try:
        checksum = write_shard(shard_path(path, index), state, contents.chunk)
        record = {"index": index, "time": minute(contents.times[index]), "crc32c": checksum, "state": _lists(moments), "change": change}
        Ledger(path / LEDGER).append({**record, "further": further} if further else record)
    except OSError as error:
        raise unwritable(path, error) from error


def _read(path: Path, contents: Contents, index: int) -> np.ndarray:
    return read_shard(shard_path(path, index), contents.shape, contents.chunk, slice(None), slice(None))


def _lists(moments: Moments | None) -> list[list[float]] | None:
    """The moments of one time, as the ledger holds them."""
    return None if moments is None else [moments.mean.tolist(), moments.squares.tolist()]


def _moments(lists: list[list[float]]) -> Moments:
    """The moments of one time, from the ledger."""
    mean, squares = map(np.array, lists)
    return Moments(1.0, mean, squares)


def _size(path: Path) -> int:
    """Size of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
