"""The smoothed climatology against a loop over all pairs of days and states, and beside what WeatherBench 2 publishes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from test_scores import refused

import aeris
from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError, StoreError
from aeris.verification import climatology_smoothing
from aeris.verification.climatology import open_climatology
from aeris.verification.climatology_smoothing import day_weights, write_climatology


def past(start: str = "1999-01-01", end: str = "2001-12-31T18", step: str = "12h", shape: tuple[int, int] = (2, 4)) -> xr.Dataset:
    """Noise about a yearly cycle; a place without values, and single ones missing."""
    rng, grid = np.random.default_rng(0), Grid.regular(*shape)
    times = pd.date_range(start, end, freq=step).as_unit("ns")
    season = np.cos(2 * np.pi * times.day_of_year.values / 365.25)[:, None, None]
    surface = 280 + 10 * season + rng.standard_normal((len(times), *shape))
    surface[:, 0, 1] = np.nan
    surface[rng.random(surface.shape) < 0.1] = np.nan
    upper = np.array([5.5e4, 1.4e4])[:, None, None] + 1e3 * season[:, None] + 100 * rng.standard_normal((len(times), 2, *shape))
    fields = {
        "2m_temperature": (("time", "latitude", "longitude"), surface, {"units": "K"}),
        "geopotential": (("time", "level", "latitude", "longitude"), upper, {"units": "m**2 s**-2"}),
        "land_sea_mask": (("latitude", "longitude"), np.ones(shape), {"units": "1"}),
    }
    return xr.Dataset(fields, {"time": times, "level": [500, 850], "latitude": grid.latitude, "longitude": grid.longitude})


def by_the_loop(field: xr.DataArray, day: int, hour: int, window: int) -> np.ndarray:
    """The formula, state by state."""
    half, total, weight = (window - 1) / 2, 0.0, 0.0
    for time, state in zip(pd.DatetimeIndex(field.time.values), field.values, strict=True):
        days = {time.day_of_year} | ({366} if time.day_of_year == 365 and not time.is_leap_year else set())
        for distance in [min(abs(day - other), 366 - abs(day - other)) for other in days]:
            share = max(0.0, 1 - distance / half) * (time.hour == hour) * ~np.isnan(state)
            total, weight = total + share * np.nan_to_num(state), weight + share
    with np.errstate(invalid="ignore"):
        return total / weight


@pytest.mark.parametrize("window", [61, 5])
def test_it_is_the_weighted_mean_of_the_window_and_of_all_years(tmp_path, window):
    ds = past()
    found = write_climatology(ds, tmp_path / "c.zarr", window)
    for name in ("2m_temperature", "geopotential"):
        for day, hour in ((1, 0), (30, 12), (60, 0), (180, 12), (337, 0), (365, 12), (366, 0), (366, 12)):
            expected = by_the_loop(ds[name], day, hour, window)
            np.testing.assert_allclose(found[name].sel(dayofyear=day, hour=hour), expected, rtol=2e-6, err_msg=f"{name} {day}")
    assert np.isnan(found["2m_temperature"][:, :, 0, 1]).all() and found["geopotential"].notnull().all()


def test_it_has_the_shape_of_those_that_are_published(tmp_path):
    ds = past()
    found = write_climatology(ds.chunk(time=100), tmp_path / "c.zarr")
    assert found["geopotential"].dims == ("hour", "dayofyear", "level", "latitude", "longitude")
    assert found["2m_temperature"].dims == ("hour", "dayofyear", "latitude", "longitude") and found["2m_temperature"].dtype == np.float32
    assert found.hour.values.tolist() == [0, 12] and found.dayofyear.values.tolist() == list(range(1, 367))
    assert set(found.data_vars) == {"2m_temperature", "geopotential"} and found["2m_temperature"].attrs["units"] == "K"
    assert found.attrs == {"window": 61, "states": 2192, "period": "1999-01-01 00:00:00 to 2001-12-31 12:00:00"}
    assert [path.name for path in tmp_path.iterdir()] == ["c.zarr"]


def test_the_weights_fall_to_zero_at_the_ends_of_the_window():
    weights = day_weights(61).toarray()
    assert weights[100, 100] == 1 and weights[100, 70] == weights[100, 130] == 0
    np.testing.assert_allclose([weights[100, 71], weights[0, 365], weights[365, 0], weights[5, 345]], [1 / 30, 29 / 30, 29 / 30, 4 / 30])
    np.testing.assert_allclose(weights.sum(1), 30.0)


@pytest.mark.parametrize("values", [1, 366 * 4 * 3, 366 * 4 * 2 * 3])
def test_pieces_and_blocks_do_not_change_it(tmp_path, monkeypatch, values):
    whole = write_climatology(past(), tmp_path / "whole.zarr").load()
    monkeypatch.setattr(climatology_smoothing, "PIECE_VALUES", values)
    monkeypatch.setattr(climatology_smoothing, "BLOCK_VALUES", 7 * 8)
    xr.testing.assert_identical(write_climatology(past(), tmp_path / "pieces.zarr").load(), whole)


def test_an_archive_larger_than_memory_is_read_in_blocks(tmp_path, monkeypatch):
    ds = past("2000-01-01", "2001-12-31", "24h", (16, 32))[["2m_temperature"]].astype("float32")
    ds = xr.concat([ds] * 8, pd.Index([10, 50, 100, 200, 300, 500, 700, 850], name="level")).rename({"2m_temperature": "temperature"})
    ds.transpose("time", ...).to_zarr(
        tmp_path / "past.zarr", zarr_format=3, encoding={"temperature": {"chunks": (60, 1, 16, 32)}}, consolidated=False
    )
    size = ds.nbytes
    del ds
    monkeypatch.setattr(climatology_smoothing, "PIECE_VALUES", 366 * 32 * 16)
    monkeypatch.setattr(climatology_smoothing, "BLOCK_VALUES", 32 * 16 * 60)
    lazy = xr.open_zarr(tmp_path / "past.zarr", chunks=None, consolidated=False)
    tracemalloc.start()
    write_climatology(lazy, tmp_path / "c.zarr")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 2


def test_verify_takes_it_and_anomalies_of_the_climatology_itself_are_none(tmp_path):
    climatology = write_climatology(past(), tmp_path / "c.zarr")
    truth = past("2004-02-25", "2004-03-10")[["geopotential"]]
    lead = np.array([12, 24], "timedelta64[h]").astype("timedelta64[ns]")
    valid = truth.time[:20] + xr.DataArray(lead, {"prediction_timedelta": lead}, "prediction_timedelta")
    normal = climatology[["geopotential"]].sel(dayofyear=valid.dt.dayofyear, hour=valid.dt.hour).drop_vars(["dayofyear", "hour"])
    s = aeris.verify(normal, truth, climatology, baselines="climatology", metrics=["rmse", "acc"])
    np.testing.assert_allclose(s["rmse.geopotential"].sel(system="forecast"), s["rmse.geopotential"].sel(system="climatology"), rtol=1e-6)
    halfway = (normal + truth.rename(time="valid").sel(valid=valid).drop_vars("valid")) / 2
    acc = aeris.verify(halfway, truth, climatology, baselines=(), metrics="acc")["acc.geopotential"]
    np.testing.assert_allclose(acc, 1.0, rtol=1e-6)


def published(climatology: xr.Dataset, path: Path) -> Path:
    """As WeatherBench 2 has it: rows from the south, longitude first, Zarr 2."""
    turned = climatology.isel(latitude=slice(None, None, -1)).transpose("hour", "dayofyear", "level", "longitude", "latitude")
    turned.drop_encoding().chunk(dayofyear=50).to_zarr(path, zarr_format=2, consolidated=True)
    return path


def test_published_and_own_climatologies_and_past_states_are_opened_alike(tmp_path):
    climatology = write_climatology(past(), tmp_path / "own.zarr").load()
    leads = np.array([12, 36], "timedelta64[h]").astype("timedelta64[ns]")
    own = open_climatology(tmp_path / "own.zarr").after(np.datetime64("2004-02-28"), leads)
    theirs = open_climatology(published(climatology, tmp_path / "theirs.zarr")).after(np.datetime64("2004-02-28"), leads)
    xr.testing.assert_identical(theirs.transpose(*own["geopotential"].dims).load().drop_vars("level"), own.load().drop_vars("level"))
    expected = climatology["geopotential"].sel(dayofyear=59, hour=12).values
    np.testing.assert_array_equal(own["geopotential"].isel(number=0, prediction_timedelta=0), expected)
    past().to_zarr(tmp_path / "past.zarr", zarr_format=3, consolidated=False)
    assert open_climatology(str(tmp_path / "past.zarr")).after(np.datetime64("2004-02-28"), leads).sizes["number"] == 63


def test_what_makes_no_climatology_is_refused_before_anything_is_written(tmp_path):
    for window in (60, 1, 367):
        with refused(ConfigurationError, f"window={window}", "odd"):
            write_climatology(past(), tmp_path / "c.zarr", window)
    with refused(DataError, "day 1 of the year at 00 UTC", "from 1999-03-31T00", "whole years"):
        write_climatology(past("1999-03-31", "1999-11-01"), tmp_path / "c.zarr")
    odd = past("1999-01-01", "1999-12-31T18")
    odd = xr.concat([odd, odd.isel(time=[-1]).assign_coords(time=[np.datetime64("2000-01-01T03", "ns")])], "time", data_vars="minimal")
    with refused(DataError, "at 03 UTC"):
        write_climatology(odd, tmp_path / "c.zarr")
    with refused(DataError, "1999-01-01 00:30:00", "whole hours"):
        write_climatology(past("1999-01-01T00:30", "1999-12-31T18"), tmp_path / "c.zarr")
    with refused(DataError, "times and cells"):
        write_climatology(past().isel(time=0), tmp_path / "c.zarr")
    assert not list(tmp_path.iterdir())
    (tmp_path / "c.zarr").mkdir()
    with refused(StoreError, "c.zarr exists"):
        write_climatology(past(), tmp_path / "c.zarr")


def test_what_breaks_off_leaves_nothing_at_the_path_and_can_be_begun_again(tmp_path, monkeypatch):
    smooth, done = climatology_smoothing._smoothed, []

    def fail(*arguments):
        if done:
            raise OSError("the disk is full")
        done.append(True)
        return smooth(*arguments)

    monkeypatch.setattr(climatology_smoothing, "_smoothed", fail)
    with pytest.raises(OSError, match="full"):
        write_climatology(past(), tmp_path / "c.zarr")
    assert not (tmp_path / "c.zarr").exists()
    monkeypatch.setattr(climatology_smoothing, "_smoothed", smooth)
    assert write_climatology(past(), tmp_path / "c.zarr")["geopotential"].notnull().all()
    assert [path.name for path in tmp_path.iterdir()] == ["c.zarr"]
