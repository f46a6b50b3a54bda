"""A field of a forecast archive, read straight from its shards.

Who goes from lead to lead of fifty members at 0.25° reads 200 MB at every step, and who clicks on a place one value of each member and
lead. An archive is uncompressed, so that a value is a piece of a file as it stands: the file is mapped into memory, and only pages that
are asked for are read. zarr-python reads whole inner chunks and copies them several times.

A file follows the sharding codec of Zarr 3 (ZEP 2, zarr-specs.readthedocs.io, "sharding codec", 1.0): the chunks, then the offset and
length of every chunk, then a CRC-32C of that index.

    field[time, member, lead, level, row, column]; a shard holds one time, a group of members, one lead, and all levels, rows and columns
    M members, Z levels, R rows, C columns
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from aeris.errors import StoreError

MISSING = 2**64 - 1
"""Offset of a chunk that was never written."""

DIMENSIONS = ("time", "number", "prediction_timedelta", "latitude", "longitude")
"""In their order; levels stand before latitude."""


@dataclass(frozen=True)
class ShardedField:
    """Where the values of a field stand.

    Attributes:
        path: Folder of the array.
        shard: Members, levels, rows and columns of a shard.
        chunk: The same of an inner chunk, which divide them.
    """

    path: Path
    shard: tuple[int, int, int, int]
    chunk: tuple[int, int, int, int]

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """The field of an array that `aeris.forecast` laid out; None for one of another layout.

        Args:
            path: Folder of the array.
        """
        array = zarr.open_array(path, mode="r")
        if array.shards is None or not _is_plain(array) or len(array.shape) not in (5, 6):
            return None
        with_level = [size if len(size) == 6 else (*size[:3], 1, *size[3:]) for size in (array.shape, array.shards, array.chunks)]
        (_, _, _, *whole), (one_time, members, one_lead, *shard), (_, in_chunk, _, *chunk) = with_level
        if (one_time, one_lead) != (1, 1) or shard != whole:
            return None
        return cls(path, (members, *shard), (in_chunk, *chunk))  # type: ignore[arg-type]

    def read(
        self,
        time: int,
        numbers: np.ndarray,
        lead: int,
        level: int | None = None,
        rows: slice = slice(None),
        columns: slice = slice(None),
    ) -> np.ndarray:
        """Values of some members at one lead.

        Args:
            time: Index of the initial time.
            numbers: Indices of the members.
            lead: Index of the lead.
            level: Index of the level; None where the field has none.
            rows: Rows, without a step.
            columns: Columns, without a step.

        Returns:
            Float32 ``(member, row, column)``, NaN where nothing was written.

        Raises:
            StoreError: A file is damaged.
        """
        shape = tuple(len(range(*part.indices(size))) for part, size in zip((rows, columns), self.shard[2:], strict=True))
        values = np.empty((len(numbers), *shape), np.float32)
        for group in np.unique(numbers // self.shard[0]):
            places = np.flatnonzero(numbers // self.shard[0] == group)
            file = self.path.joinpath("c", *map(str, (time, group, lead, *(() if level is None else (0,)), 0, 0)))
            if not file.exists():
                values[places] = np.nan
                continue
            mapped = np.memmap(file, np.uint8, "r")
            index = self._index(file, mapped)
            for place, member in zip(places, numbers[places] % self.shard[0], strict=True):
                self._copy(mapped, index, member, level or 0, (rows, columns), values[place])
        return values

    def _index(self, file: Path, mapped: np.ndarray) -> np.ndarray:
        """Offset and length of every chunk, ``(members, levels, rows, columns, 2)``, each axis counted in chunks."""
        counts = tuple(size // part for size, part in zip(self.shard, self.chunk, strict=True))
        raw = mapped[-16 * prod(counts) - 4 :].tobytes()
        if len(raw) != 16 * prod(counts) + 4 or google_crc32c.value(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            raise StoreError(
                f"{file} has an index that does not fit it", "A shard ends with the places of its chunks", "Compute the forecast again"
            )
        return np.frombuffer(raw[:-4], "<u8").reshape(*counts, 2)

    def _copy(
        self, mapped: np.ndarray, index: np.ndarray, member: int, level: int, parts: tuple[slice, slice], values_RC: np.ndarray
    ) -> None:
        """Copies the chunks, or the parts of chunks, of one member and level."""
        (in_chunk, levels, *cells), offsets = self.chunk, index[member // self.chunk[0], level // self.chunk[1], ..., 0]
        for row, from_rows, to_rows in _cut(parts[0], self.shard[2], cells[0]):
            for column, from_columns, to_columns in _cut(parts[1], self.shard[3], cells[1]):
                offset = int(offsets[row, column])
                if offset == MISSING:
                    values_RC[to_rows, to_columns] = np.nan
                    continue
                chunk = mapped[offset : offset + 4 * prod(self.chunk)].view("<f4").reshape(self.chunk)
                values_RC[to_rows, to_columns] = chunk[member % in_chunk, level % levels, from_rows, from_columns]


def _is_plain(array: zarr.Array) -> bool:
    """Whether values stand in the file as they are, and the index at its end as it is by default."""
    metadata: Any = array.metadata
    (sharding,) = metadata.codecs if len(metadata.codecs) == 1 else (None,)
    return (
        isinstance(sharding, ShardingCodec)
        and tuple(name for name in metadata.dimension_names or () if name != "level") == DIMENSIONS
        and array.dtype == np.float32
        and sharding.codecs == (BytesCodec(endian="little"),)
        and sharding.index_codecs == (BytesCodec(endian="little"), Crc32cCodec())
        and sharding.index_location.value == "end"
        and metadata.encode_chunk_key((0, 1)) == "c/0/1"
    )


def _cut(part: slice, size: int, chunk: int) -> Iterator[tuple[int, slice, slice]]:
    """The chunks of an axis that a part of it touches: which chunk, where in the chunk, and where in the part."""
    start, stop, _ = part.indices(size)
    for number in range(start // chunk, -(-stop // chunk)):
        low, high = max(start, number * chunk), min(stop, (number + 1) * chunk)
        yield number, slice(low - number * chunk, high - number * chunk), slice(low - start, high - start)
