"""Which past states stand for a valid time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from aeris.data.grid import Grid
from aeris.errors import DataError
from aeris.verification.climatology import climatology_of, ensemble_climatology

LEAD = "prediction_timedelta"
LEADS = np.array([0, 6, 30], "timedelta64[h]").astype("timedelta64[ns]")


def states(start: str, end: str, step: str = "6h") -> xr.Dataset:
    """A dataset whose values are its own times, in hours since 1970."""
    times = pd.date_range(start, end, freq=step)
    grid = Grid.regular(4, 8)
    hour = (times - pd.Timestamp("1970-01-01")) / pd.Timedelta(hours=1)
    field = xr.DataArray(hour.values, {"time": times}, "time").expand_dims(latitude=grid.latitude, longitude=grid.longitude)
    return field.to_dataset(name="2m_temperature").transpose("time", ...)


def times_in(members: xr.Dataset, lead: int) -> pd.DatetimeIndex:
    hours = members["2m_temperature"].isel({LEAD: lead, "latitude": 0, "longitude": 0}).values
    return pd.DatetimeIndex(pd.Timestamp("1970-01-01") + pd.to_timedelta(hours[~np.isnan(hours)], unit="h"))


def test_members_are_of_the_season_and_hour_of_the_valid_time():
    past = states("1999-01-01", "2001-12-31T18")
    members = ensemble_climatology(past, days=10).after(np.datetime64("2003-06-15T18"), LEADS)
    assert set(members["2m_temperature"].dims) == {"number", LEAD, "latitude", "longitude"}
    for lead, valid in enumerate(pd.DatetimeIndex(np.datetime64("2003-06-15T18") + LEADS)):
        found = times_in(members, lead)
        assert len(found) == 3 * 21
        assert set(found.hour) == {valid.hour}
        assert max(abs(found.day_of_year - valid.day_of_year)) == 10
    assert (members[LEAD].values == LEADS).all()


def test_the_season_goes_on_over_new_year():
    past = states("1999-01-01", "2001-12-31T18")
    found = times_in(ensemble_climatology(past, days=3).after(np.datetime64("2005-01-02T00"), LEADS), 0)
    assert {(time.month, time.day) for time in found} == {(12, 30), (12, 31), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5)}


def test_the_verified_time_itself_is_never_a_member():
    past = states("1999-01-01", "2001-12-31T18")
    moment = np.datetime64("2000-06-15T18")
    found = times_in(ensemble_climatology(past, days=10, apart=30).after(moment, LEADS), 0)
    assert len(found) == 2 * 21 and set(found.year) == {1999, 2001}


def test_fewer_members_at_one_valid_time_are_filled_with_nan():
    past = states("2000-06-01", "2000-06-20T18")
    members = ensemble_climatology(past, days=5).after(np.datetime64("2003-06-14T18"), np.array([0, 72], "timedelta64[h]"))
    assert [len(times_in(members, lead)) for lead in (0, 1)] == [11, 10]


def test_no_state_of_the_season_is_refused():
    with pytest.raises(DataError, match=r"2003-01-15T00:00.*2000-06-01 to 2000-06-20.*other year"):
        ensemble_climatology(states("2000-06-01", "2000-06-20")).after(np.datetime64("2003-01-15"), LEADS)


def test_a_file_by_day_of_year_and_hour():
    year = states("2000-01-01", "2000-12-31T18")
    stacked = year.assign_coords(dayofyear=("time", year.time.dt.dayofyear.data), hour=("time", year.time.dt.hour.data))
    by_day = stacked.set_index(time=("dayofyear", "hour")).unstack("time")
    found = climatology_of(by_day).after(np.datetime64("2019-03-01T18"), LEADS)
    assert found.sizes["number"] == 1
    # Day 60 of 2000 is 29 February.
    assert [times_in(found, lead)[0] for lead in range(3)] == list(pd.DatetimeIndex(["2000-02-29T18", "2000-03-01T00", "2000-03-02T00"]))
    with pytest.raises(DataError, match="no hour 3"):
        climatology_of(by_day).after(np.datetime64("2019-03-01T03"), LEADS)


def test_a_daily_file_serves_all_hours():
    by_day = states("2001-01-01", "2001-01-06", "24h").rename(time="dayofyear").assign_coords(dayofyear=np.arange(1, 7))
    found = climatology_of(by_day).after(np.datetime64("2022-01-02T12"), LEADS)
    assert [times_in(found, lead)[0].day for lead in range(3)] == [2, 2, 3]
    with pytest.raises(DataError, match=r"no dayofyear 7.*1 to 6"):
        climatology_of(by_day).after(np.datetime64("2022-01-06T18"), LEADS)


def test_a_file_with_the_valid_times_themselves():
    found = climatology_of(states("2020-01-01", "2020-01-05")).after(np.datetime64("2020-01-02T00"), LEADS)
    assert [time.strftime("%dT%H") for lead in range(3) for time in times_in(found, lead)] == ["02T00", "02T06", "03T06"]
    with pytest.raises(DataError, match="climatology lacks 1 of the times"):
        climatology_of(states("2020-01-01", "2020-01-02T06")).after(np.datetime64("2020-01-02T00"), LEADS)


def test_a_dataset_without_any_such_dimension_is_refused():
    with pytest.raises(DataError, match=r"latitude.*dayofyear"):
        climatology_of(states("2020-01-01", "2020-01-05").isel(time=0))
