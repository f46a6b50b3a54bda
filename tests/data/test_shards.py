from __future__ import annotations

import numpy as np
import pytest
import zarr

from aeris.data.disk import Ledger, write_whole
from aeris.data.shards import checksum, read_shard, shard_bytes, write_shard
from aeris.errors import StoreError

SHAPE, CHUNK = (3, 24, 48), 6
WHOLE = slice(None)


@pytest.fixture
def state() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def test_zarr_reads_what_is_written(tmp_path, state):
    array = zarr.create_array(
        tmp_path / "state", shape=(2, *SHAPE), dtype="f4", chunks=(1, 3, CHUNK, CHUNK), shards=(1, *SHAPE), compressors=None
    )
    path = tmp_path / "state" / "c" / "1" / "0" / "0" / "0"
    crc = write_shard(path, state, CHUNK)
    np.testing.assert_array_equal(array[1], state)
    np.testing.assert_array_equal(array[1, :, 5:19, 40:48], state[:, 5:19, 40:48])
    assert path.stat().st_size == shard_bytes(SHAPE, CHUNK) and checksum(path) == crc


def test_what_zarr_writes_is_read(tmp_path, state):
    array = zarr.create_array(
        tmp_path / "state", shape=(1, *SHAPE), dtype="f4", chunks=(1, 3, CHUNK, CHUNK), shards=(1, *SHAPE), compressors=None
    )
    array[0] = state  # its chunks stand in Morton order
    np.testing.assert_array_equal(read_shard(tmp_path / "state" / "c" / "0" / "0" / "0" / "0", SHAPE, CHUNK, WHOLE, WHOLE), state)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(WHOLE, WHOLE), (slice(6, 12), slice(42, 48)), (slice(5, 7), slice(0, 13)), (slice(-1, None), slice(3)), (slice(4, 4), WHOLE)],
)
def test_any_part_is_read(tmp_path, state, rows, columns):
    write_shard(tmp_path / "0", state, CHUNK)
    part = read_shard(tmp_path / "0", SHAPE, CHUNK, rows, columns)
    np.testing.assert_array_equal(part, state[:, rows, columns])
    assert part.dtype == np.float32 and part.flags.c_contiguous and part.flags.writeable


@pytest.mark.parametrize("cut", [1, 100, -1])
def test_a_damaged_file_is_refused(tmp_path, state, cut):
    path = tmp_path / "0"
    write_shard(path, state, CHUNK)
    content = path.read_bytes()
    path.write_bytes(content[:cut] if cut > 0 else content[:-20] + bytes(20))
    with pytest.raises(StoreError, match=r"cut short|does not fit"):
        read_shard(path, SHAPE, CHUNK, WHOLE, WHOLE)


def test_another_shape_and_a_missing_file_are_refused(tmp_path, state):
    write_shard(tmp_path / "0", state, CHUNK)
    with pytest.raises(StoreError, match="does not fit its grid"):
        read_shard(tmp_path / "0", (2, 24, 48), CHUNK, WHOLE, WHOLE)
    with pytest.raises(StoreError, match="is missing"):
        read_shard(tmp_path / "1", SHAPE, CHUNK, WHOLE, WHOLE)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    def parts():
        yield b"new"
        raise OSError("the disk is gone")

    write_whole(tmp_path / "file", [b"old"])
    with pytest.raises(OSError, match="gone"):
        write_whole(tmp_path / "file", parts())
    assert (tmp_path / "file").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_ledger_forgets_only_the_line_that_was_cut_short(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert ledger.read() == []
    ledger.append({"index": 0, "mean": [0.1, 1e-300]})
    with ledger.path.open("ab") as file:
        file.write(b'\n{"index": 1, "mean": [0.')
    ledger.append({"index": 2})
    assert ledger.read() == [{"index": 0, "mean": [0.1, 1e-300]}, {"index": 2}]
