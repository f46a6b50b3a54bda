"""Daily values against loops over calendar days."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification.daily import LEAD, daily, daily_members, quantity, row_blocks

T2M = "2m_temperature"


def states(start: str, count: int, step: str = "6h", seed: int = 0) -> xr.Dataset:
    grid, times = Grid.regular(4, 8), pd.date_range(start, periods=count, freq=step)
    values = 280 + 5 * np.random.default_rng(seed).standard_normal((count, 4, 8))
    return xr.Dataset(
        {T2M: (("time", "latitude", "longitude"), values)},
        {"time": times, "latitude": grid.latitude, "longitude": grid.longitude},
    )


@settings(max_examples=40, deadline=None)
@given(
    first=st.integers(0, 3),
    count=st.integers(8, 25),
    hole=st.integers(0, 24),
    step=st.sampled_from([3, 6, 12]),
    how=st.sampled_from(["max", "min", "mean"]),
)
def test_days_are_those_of_a_loop_over_the_calendar(first, count, hole, step, how):
    """Whatever the first step, and with any one time absent."""
    count = max(count, 3 * 24 // step)
    ds = states("2001-02-26", count + first, f"{step}h").isel(time=slice(first, None))
    ds = ds.isel(time=[i for i in range(count) if i != hole])
    expected = {}
    for day, group in ds[T2M].groupby(ds.time.dt.floor("D")):
        if group.sizes["time"] == 24 // step:
            expected[day] = getattr(group, how)("time").values
    if not expected:
        return
    found = daily(ds, T2M, how)
    calendar = pd.date_range(min(expected), max(expected))
    assert (found.time.values == calendar.values).all()
    for day in calendar:
        wanted = expected.get(np.datetime64(day, "ns"), np.full((4, 8), np.nan))
        np.testing.assert_allclose(found.sel(time=day), wanted, rtol=1e-12)
    begun = {pd.Timestamp(time).floor("D") for time in ds.time.values} - {pd.Timestamp(day) for day in expected}
    absent = {day for day in calendar if day not in set(pd.DatetimeIndex(ds.time.values).floor("D"))}
    assert found.attrs["incomplete_days"] == len(begun | absent)


def test_daily_data_are_taken_as_they_are():
    ds = states("2001-02-26T12", 5, "24h")
    np.testing.assert_array_equal(daily(ds, T2M, "max"), ds[T2M])


def test_a_cell_that_lacks_a_step_lacks_the_day():
    ds = states("2001-02-26", 8)
    ds[T2M][5, 1, 2] = np.nan
    found = daily(ds, T2M, "max").isnull()
    assert found[1, 1, 2] and found.sum() == 1


def test_wind_speed_is_made_of_its_components_at_each_step():
    u = states("2001-02-26", 8)[T2M] - 280
    v = states("2001-02-26", 8, seed=1)[T2M] - 280
    ds = xr.Dataset({"10m_u_component_of_wind": u, "10m_v_component_of_wind": v})
    expected = np.sqrt(u.values**2 + v.values**2).reshape(2, 4, 4, 8).max(1)
    np.testing.assert_allclose(daily(ds, "10m_wind_speed", "max"), expected, rtol=1e-12)


@pytest.mark.parametrize(("start", "days", "begun"), [("2001-02-26T00", [1, 2], 1), ("2001-02-26T18", [1, 2], 1)])
def test_days_of_a_forecast_are_those_of_its_valid_times(start, days, begun):
    """From 00 UTC the day of the start lacks its first step; from 18 UTC only the last day is not whole."""
    leads = pd.to_timedelta(np.arange(1, 12) * 6, unit="h").values
    time = np.datetime64(start, "ns")
    field = states("2001-01-01", 22)[T2M].values.reshape(2, 11, 4, 8)
    fields = xr.Dataset({T2M: (("number", LEAD, "latitude", "longitude"), field)}, {LEAD: leads})
    found = daily_members(fields, time, T2M, "mean")
    assert (found[LEAD].values / np.timedelta64(1, "D")).tolist() == days
    assert found.attrs["incomplete_days"] == begun
    valid = pd.DatetimeIndex(time + leads)
    for day in days:
        on_day = valid.floor("D") == pd.Timestamp(start).floor("D") + pd.Timedelta(days=day)
        np.testing.assert_allclose(found.sel({LEAD: np.timedelta64(day, "D")}), field[:, on_day].mean(1), rtol=1e-12)


def test_what_cannot_be_taken_by_day_is_refused():
    ds = states("2001-02-26", 8)
    with pytest.raises(DataError, match="no geopotential"):
        daily(ds, "geopotential", "max")
    with pytest.raises(DataError, match=r"in degC.*must be in K"):
        daily(ds.assign({T2M: ds[T2M].assign_attrs(units="degC")}), T2M, "max")
    with pytest.raises(DataError, match="between 160 and 345 K"):
        daily(ds - 273.15, T2M, "max")
    with pytest.raises(DataError, match="05:00:00"):
        daily(states("2001-02-26", 8, "5h"), T2M, "max")
    with pytest.raises(DataError, match="None of the 2 days"):
        daily(ds.isel(time=slice(2, 6)), T2M, "max")
    with pytest.raises(DataError, match="no levels"):
        quantity(ds, T2M, 500)
    with pytest.raises(ConfigurationError, match="median"):
        daily(ds, T2M, "median")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no whole UTC day"):
        short = ds.isel(time=slice(3)).rename(time=LEAD).assign_coords({LEAD: pd.to_timedelta([6, 12, 18], unit="h")})
        daily_members(short.expand_dims(number=[0]), np.datetime64("2001-02-26", "ns"), T2M, "max")


@given(rows=st.integers(1, 50), per_row=st.integers(1, 100), most=st.integers(1, 500))
def test_blocks_of_rows_cover_all_rows_once(rows, per_row, most):
    blocks = list(row_blocks(rows, per_row, most))
    assert [row for block in blocks for row in range(rows)[block]] == list(range(rows))
    assert all((block.stop - block.start) * per_row <= max(most, per_row) for block in blocks)
