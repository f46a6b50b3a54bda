"""Fields read straight from the shards of an archive are those that zarr-python reads."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from aeris.data.grid import Grid
from aeris.data.sharded_field import ShardedField
from aeris.errors import StoreError
from aeris.forecasting.archive import Archive

CHANNELS = ("2m_temperature", "geopotential_500", "geopotential_850")
LEADS = np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]")


def archive(path, shape: tuple[int, int], members: int = 5, group: int = 2) -> Archive:
    """Two initial times, a last group that is not full, and one group that was never written."""
    made = Archive(path, CHANNELS, Grid.regular(*shape), np.array(["2001-01-01", "2001-01-02"], "datetime64[ns]"), members, group, LEADS)
    made.lay_out({"batch": group})
    rng = np.random.default_rng(0)
    for number in range(made.groups):
        for lead in range(2):
            made.write(1, number, lead, rng.normal(280, 5, (len(made.numbers(number)), 3, *shape)).astype(np.float32))
    return made


@pytest.mark.parametrize("shape", [(16, 32), (181, 720)], ids=["chunks of many members and levels", "many chunks of one"])
def test_any_part_is_what_zarr_reads(tmp_path, shape):
    made = archive(tmp_path / "f.zarr", shape)
    rng = np.random.default_rng(1)
    for name, levels in (("2m_temperature", (None,)), ("geopotential", (0, 1))):
        array, field = zarr.open_array(made.path / name, mode="r"), ShardedField.open(made.path / name)
        whole = array[1]
        for level in levels:
            of_level = whole if level is None else whole[:, :, level]
            np.testing.assert_array_equal(field.read(1, np.arange(5), 1, level), of_level[:, 1])
            for _ in range(20):
                (top, bottom), (left, right) = (sorted(rng.choice(size + 1, 2, replace=False)) for size in shape)
                numbers = rng.permutation(5)[:3]
                part = field.read(1, numbers, 0, level, slice(top, bottom), slice(left, right))
                np.testing.assert_array_equal(part, of_level[numbers, 0, top:bottom, left:right])


def test_what_was_never_written_is_missing(tmp_path):
    made = archive(tmp_path / "f.zarr", (16, 32))
    field = ShardedField.open(made.path / "2m_temperature")
    assert np.isnan(field.read(0, np.arange(5), 0)).all()
    array = zarr.open_array(made.path / "2m_temperature", mode="r+")
    array[0, 0, 0] = 1.0  # of its shard, the member beside it is not there
    np.testing.assert_array_equal(field.read(0, np.array([1, 0]), 0), array[0, [1, 0], 0])


def test_a_shard_that_is_cut_short_or_changed_is_refused(tmp_path):
    made = archive(tmp_path / "f.zarr", (16, 32))
    field = ShardedField.open(made.path / "2m_temperature")
    file = made.path / "2m_temperature" / "c" / "1" / "0" / "0" / "0" / "0"
    whole = file.read_bytes()
    for damaged in (whole[:-8], whole[:10], whole[:-10] + b"?" + whole[-9:]):
        file.write_bytes(damaged)
        with pytest.raises(StoreError, match="index that does not fit"):
            field.read(1, np.array([0]), 0)


@pytest.mark.parametrize(
    "change",
    [
        {"compressors": zarr.codecs.ZstdCodec()},
        {"dtype": "float64"},
        {"shards": (1, 2, 2, 4, 8)},
        {"dimension_names": ("number", "time", "prediction_timedelta", "latitude", "longitude")},
        {"shards": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_layouts_are_left_to_zarr(tmp_path, change):
    ours = {"shape": (1, 4, 2, 4, 8), "chunks": (1, 1, 1, 2, 4), "shards": (1, 2, 1, 4, 8), "dtype": "float32", "compressors": None}
    names = ("time", "number", "prediction_timedelta", "latitude", "longitude")
    for name, how in (("ours", ours), ("other", {**ours, **change})):
        zarr.create_array(tmp_path / name, **{"dimension_names": names, **how}, fill_value=np.nan)
    assert ShardedField.open(tmp_path / "ours") is not None
    assert ShardedField.open(tmp_path / "other") is None
