"""The reader: what is on disk and no more, whole members only, and little of a large archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import aeris
from aeris.data.grid import Grid
from aeris.errors import DataError, StoreError
from aeris.forecasting.archive import Archive
from aeris.views.archive_reader import open_reader

LEAD = "prediction_timedelta"


def test_a_slice_is_that_of_the_archive(growing):
    reader, ds = open_reader(growing.path), growing.expected(leads_done=[3, 1])
    assert reader.variables == ["2m_temperature", "geopotential"]
    assert reader.levels("geopotential") == [500, 850] and reader.levels("2m_temperature") == []
    for channel in (("2m_temperature", None), ("geopotential", 850)):
        field = ds[channel[0]].isel(time=0)
        field = field if channel[1] is None else field.sel(level=channel[1])
        first, second = ds[LEAD].values[:2]
        xr.testing.assert_equal(reader.members(channel, ds.time.values[0], first).drop_attrs(), field.sel({LEAD: first}).drop_attrs())
        later = reader.members(channel, ds.time.values[0], second)
        assert later.number.values.tolist() == [0, 1]
        np.testing.assert_array_equal(later, field.sel({LEAD: second})[:2])
        np.testing.assert_array_equal(reader.member(channel, ds.time.values[0], second, 1)[0], field.sel({LEAD: second, "number": 1}))
        assert reader.member(channel, ds.time.values[0], second, 2).sizes["number"] == 0
        series = reader.series(channel, ds.time.values[0], (10.0, 359.0))
        np.testing.assert_array_equal(series, field.sel(latitude=10.0, method="nearest").isel(longitude=0))
        assert reader.band(channel, ds.time.values[0], 0.0, 60.0).notnull().sum() == (3 * 2 + 1 * 2) * 32


@pytest.mark.parametrize("band", [(0.0, 60.0), (-90.0, 90.0), (40.0, 41.0)], ids=str)
def test_a_band_read_straight_from_the_files_is_that_of_the_whole_fields(growing, band):
    """Some rows, all, and the one that is nearest to a band between two rows."""
    reader, whole = open_reader(growing.path), open_reader(growing.expected(leads_done=[3, 1]))
    for channel in (("2m_temperature", None), ("geopotential", 850)):
        found, expected = (one.band(channel, reader.times[0], *band) for one in (reader, whole))
        assert found.dims == ("number", LEAD, "longitude") and found.notnull().sum() == (3 * 2 + 1 * 2) * 32
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_the_ledger_does_not_count_is_missing(growing):
    """A fault between the fields and the ledger leaves fields on disk that nobody shall see."""
    root = zarr.open_group(growing.path, mode="r+")
    root["2m_temperature"][0, 2:, 2] = 1e6
    reader = open_reader(growing.path)
    time, lead = reader.times[0], reader.leads[2]
    assert reader.members(("2m_temperature", None), time, lead).number.values.tolist() == [0, 1]
    assert float(reader.series(("2m_temperature", None), time, (0.0, 0.0)).max()) < 1e6


def test_the_reader_agrees_with_open_forecast(growing):
    opened, reader = aeris.open_forecast(growing.path), open_reader(growing.path)
    for time in opened.time.values:
        for lead in opened[LEAD].values:
            whole = opened["2m_temperature"].sel({"time": time, LEAD: lead}).dropna("number", how="all")
            np.testing.assert_array_equal(reader.members(("2m_temperature", None), time, lead), whole)


def test_in_memory_a_member_without_values_is_missing(growing):
    reader = open_reader(growing.expected(leads_done=[3, 1]))
    assert reader.members(("2m_temperature", None), reader.times[0], reader.leads[1]).number.values.tolist() == [0, 1]


def test_a_single_forecast_is_an_ensemble_of_one(growing):
    reader = open_reader(growing.expected(leads_done=[3, 3]).isel(number=0, drop=True))
    assert reader.members(("geopotential", 500), reader.times[0], reader.leads[0]).shape == (1, 16, 32)


class Counting(zarr.storage.LocalStore):
    """A store on disk that counts the bytes that are read of a variable."""

    read = 0

    async def get(self, key, prototype, byte_range=None):
        found = await super().get(key, prototype, byte_range)
        if found is not None and "/c/" in key and not key.startswith(("ledger", "time", "number", LEAD, "lat", "lon", "level")):
            Counting.read += len(found.to_bytes())
        return found


def test_only_the_slice_that_is_shown_is_read(tmp_path):
    """On 180×360 cells: nothing to open, one chunk for a member's map, half of the rows for a band, one chunk each for a series."""
    grid = Grid.regular(360, 720)
    archive = Archive(
        tmp_path / "f.zarr",
        ("2m_temperature", "geopotential_500", "geopotential_850"),
        grid,
        np.array(["2001-01-01"], "datetime64[ns]"),
        4,
        2,
        np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]"),
    )
    archive.lay_out({"batch": 2})
    rng = np.random.default_rng(0)
    for group in range(2):
        for lead in range(2):
            archive.write(0, group, lead, rng.normal(280, 5, (2, 3, 360, 720)).astype(np.float32))
    Counting.read = 0
    ds = xr.open_zarr(Counting(archive.path, read_only=True), chunks=None, consolidated=False, decode_timedelta=True)
    reader = open_reader(ds)
    assert Counting.read == 0
    channel, time, lead = ("geopotential", 850), reader.times[0], reader.leads[1]
    one_map = 4 * 360 * 720
    reader.member(channel, time, lead, 3)
    assert 0.5 * one_map < Counting.read < 1.3 * one_map
    Counting.read = 0
    reader.members(channel, time, lead)
    assert 2 * one_map < Counting.read < 4.6 * one_map
    Counting.read = 0
    reader.members(channel, time, lead)
    assert Counting.read == 0, "the last slice is kept"
    reader.series(channel, time, (-40.0, 100.0))
    assert Counting.read < 4 * 2 * one_map / 4 * 1.3
    Counting.read = 0
    reader.band(channel, time, 30.0, 60.0)
    assert Counting.read < 4 * 2 * one_map / 2 * 1.3


@pytest.mark.parametrize("name", ["none.zarr", "a_file", "a_folder"])
def test_what_is_no_archive_is_refused(tmp_path, name):
    (tmp_path / "a_file").write_text("x")
    (tmp_path / "a_folder").mkdir()
    with pytest.raises(StoreError, match=rf"{name} is no forecast archive"):
        open_reader(tmp_path / name)


def test_what_is_not_shaped_as_a_forecast_is_refused(forecast, tmp_path):
    with pytest.raises(DataError, match="prediction_timedelta"):
        open_reader(forecast.truth)
    forecast.truth.to_zarr(tmp_path / "truth.zarr", consolidated=False)
    with pytest.raises(DataError, match="prediction_timedelta"):
        open_reader(Path(tmp_path / "truth.zarr"))
    with pytest.raises(DataError, match=r"no variable 'rain'.*2m_temperature"):
        open_reader(forecast.forecast).check_variable("rain")
    with pytest.raises(DataError, match="pole to pole"):
        open_reader(forecast.forecast.isel(latitude=slice(4, 9)))
