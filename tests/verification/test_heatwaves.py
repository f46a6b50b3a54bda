"""Thresholds, runs and probabilities against xclim and against loops over days, members and cells."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification import daily as daily_room
from aeris.verification.heatwaves import (
    COLD_SPELL,
    HEAT_WAVE,
    WIND_STORM,
    Spell,
    beyond,
    outcomes,
    percentile_by_day,
    probabilities,
    run_lengths,
    spells,
    thresholds,
)

LEAD, T2M = "prediction_timedelta", "2m_temperature"


def series(start: str, end: str, cells: int = 3, seed: int = 0) -> xr.DataArray:
    """Daily temperatures with a year's course and weather that lasts for days."""
    times = pd.date_range(start, end)
    rng, weather = np.random.default_rng(seed), np.zeros((len(times), cells))
    for t in range(1, len(times)):
        weather[t] = 0.8 * weather[t - 1] + 2 * rng.standard_normal(cells)
    course = -12 * np.cos(2 * np.pi * (times.day_of_year.values - 20) / 365.25)
    return xr.DataArray(283 + course[:, None] + weather, {"time": times}, ["time", "cell"], T2M, {"units": "K"})


@pytest.fixture(scope="module")
def world() -> dict[str, xr.Dataset]:
    """Two years of past, and an ensemble of five over nine days beside what happened, on 4×8."""
    grid = Grid.regular(4, 8)

    def fields(start: str, count: int, seed: int) -> xr.Dataset:
        times = pd.date_range(start, periods=count, freq="6h")
        rng, weather = np.random.default_rng(seed), np.zeros((count, 4, 8))
        for t in range(1, count):
            weather[t] = 0.96 * weather[t - 1] + rng.standard_normal((4, 8))
        course = -12 * np.cos(2 * np.pi * (times.day_of_year.values - 20) / 365.25)[:, None, None]
        coordinates = {"time": times, "latitude": grid.latitude, "longitude": grid.longitude}
        return xr.Dataset({T2M: (("time", "latitude", "longitude"), 283 + course + weather, {"units": "K"})}, coordinates)

    members = [fields("2005-07-01T06", 40, 10 + m).drop_vars("time") for m in range(10)]
    leads = pd.to_timedelta(np.arange(1, 41) * 6, unit="h")
    starts = pd.DatetimeIndex(["2005-07-01T00", "2005-07-02T12"])
    ensembles = [xr.concat(members[5 * i : 5 * i + 5], "number") for i in range(2)]
    fc = xr.concat(ensembles, "start").rename(start="time", time=LEAD).assign_coords({"time": starts, LEAD: leads, "number": np.arange(5)})
    return {"past": fields("2001-01-01", 2 * 1461, 0), "truth": fields("2005-07-01", 60, 1), "fc": fc}


@pytest.mark.parametrize(("percentile", "window"), [(90, 5), (10, 5), (98, 15), (50, 1)])
def test_thresholds_are_those_of_xclim(percentile, window):
    calendar = pytest.importorskip("xclim.core.calendar")
    days = series("1999-01-01", "2004-12-31")
    days[400:403] = np.nan  # a gap in the record
    days[1000, 1] = np.nan  # a gap in one cell
    expected = calendar.percentile_doy(days, window=window, per=percentile).isel(percentiles=0).transpose("dayofyear", "cell")
    found = percentile_by_day(days, percentile, window)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.sizes["dayofyear"] == 366


@pytest.mark.parametrize(("spell", "index"), [(replace(HEAT_WAVE, days=6), "warm"), (replace(COLD_SPELL, days=6), "cold")])
def test_days_in_spells_are_those_of_xclim(spell, index):
    """xclim takes the thresholds of this room as they are."""
    indices = pytest.importorskip("xclim.indices")
    days = series("1999-01-01", "2004-12-31", cells=20)
    threshold = percentile_by_day(days, spell.percentile)
    theirs = getattr(indices, f"{index}_spell_duration_index")(days, threshold, window=6, freq="YS")
    assert theirs.sum() > 20
    for year, expected in zip(range(1999, 2005), theirs.transpose("time", "cell"), strict=True):
        np.testing.assert_array_equal(spells(days.sel(time=str(year)), threshold, spell)["days"], expected)


def test_five_cities(shared_data):
    """ERA5 of Halifax, Montréal, Iqaluit, Saskatoon and Victoria, 1990 to 1993, against xclim."""
    indices, calendar = pytest.importorskip("xclim.indices"), pytest.importorskip("xclim.core.calendar")
    ds = xr.open_dataset(shared_data / "xclim-testdata" / "daily_surface_cancities_1990-1993.nc")
    for name, spell, index in (("tasmax", HEAT_WAVE, "warm"), ("tasmin", COLD_SPELL, "cold")):
        days = ds[name].load()
        threshold = percentile_by_day(days, spell.percentile)
        expected = calendar.percentile_doy(days, per=spell.percentile).isel(percentiles=0).transpose(*threshold.dims)
        np.testing.assert_allclose(threshold, expected, rtol=1e-6)
        theirs = getattr(indices, f"{index}_spell_duration_index")(days, threshold, window=3, freq="YS").transpose("time", "location")
        ours = [spells(days.sel(time=str(year)), threshold, spell)["days"].values for year in range(1990, 1994)]
        np.testing.assert_array_equal(ours, theirs)
        assert np.sum(ours) >= 40


hits = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 25)), elements=st.sampled_from([0.0, 0.0, 1.0, 1.0, 1.0, np.nan]))


@given(hits)
def test_run_lengths_are_those_of_a_walk_along_the_series(values):
    found = run_lengths(xr.DataArray(values, dims=["cell", "time"])).values
    for row, lengths in zip(values, found, strict=True):
        if np.isnan(row).any():
            assert np.isnan(lengths).all()
            continue
        walked = [size if value else 0 for value, run in groupby(row) for size in [len(list(run))] for _ in range(size)]
        assert lengths.tolist() == walked


@given(hits, st.integers(1, 5))
def test_spells_add_up(values, least):
    days = xr.DataArray(280 + values.T, {"time": pd.date_range("2001-12-20", periods=values.shape[1])}, ["time", "cell"], T2M)
    threshold = xr.DataArray(np.full(366, 280.5), {"dayofyear": np.arange(1, 367)}, ["dayofyear"])
    found = spells(days, threshold, replace(HEAT_WAVE, days=least))
    for cell, row in enumerate(values):
        if np.isnan(row).any():
            assert np.isnan([found[name][cell] for name in found]).all()
            continue
        runs = [len(list(run)) for value, run in groupby(row) if value]
        long = [size for size in runs if size >= least]
        assert [float(found[name][cell]) for name in ("count", "days", "longest")] == [len(long), sum(long), max(runs, default=0)]
    assert found.attrs["missing_series"] == np.isnan(values).any(1).sum()


def brute_force(fc: xr.Dataset, threshold: xr.DataArray, spell: Spell, start: int) -> dict[str, np.ndarray]:
    """Member by member and cell by cell, from the definition."""
    one = fc.isel(time=start)
    valid = pd.DatetimeIndex(one.time.values + one[LEAD].values)
    days = [day for day in sorted(set(valid.floor("D"))) if (valid.floor("D") == day).sum() == 4]
    shape = (len(days), fc.sizes["latitude"], fc.sizes["longitude"])
    result = {name: np.zeros(shape) for name in ("exceedance", "persistence", "in_spell")} | {"any_spell": np.zeros(shape[1:])}
    for number, row, column in np.ndindex(fc.sizes["number"], *shape[1:]):
        values = one[T2M].isel(number=number, latitude=row, longitude=column).values
        extreme = [getattr(values[valid.floor("D") == day], spell.daily)() for day in days]
        limit = [float(threshold.isel(latitude=row, longitude=column).sel(dayofyear=day.day_of_year)) for day in days]
        hit = [value > edge if spell.side == "above" else value < edge for value, edge in zip(extreme, limit, strict=True)]
        runs = [size if value else 0 for value, run in groupby(hit) for size in [len(list(run))] for _ in range(size)]
        place = (slice(None), row, column)
        result["exceedance"][place] += hit
        result["persistence"][place] += np.cumprod(hit)
        result["in_spell"][place] += np.array(runs) >= spell.days
        result["any_spell"][row, column] += max(runs) >= spell.days
    return {name: field / fc.sizes["number"] for name, field in result.items()}


@pytest.mark.parametrize("spell", [HEAT_WAVE, COLD_SPELL, replace(HEAT_WAVE, percentile=60, days=2, daily="mean")])
def test_probabilities_are_those_of_a_loop(world, spell):
    threshold = thresholds(world["past"], spell)
    found = probabilities(world["fc"], threshold, spell)
    for start in range(2):
        for name, expected in brute_force(world["fc"], threshold, spell, start).items():
            field = found[name].isel(time=start)
            np.testing.assert_allclose(field.dropna(LEAD) if LEAD in field.dims else field, expected, atol=1e-6)
    assert found.in_spell.attrs["long_name"].startswith("probability of a day in a spell")
    assert found.in_spell.max() > 0 and (found.members == 5).all()
    assert found.attrs["incomplete_days"] == 4 and found.attrs["missing_series"] == 0


def test_probabilities_are_ordered(world):
    """Persistence falls; no day is in a spell more often than it is beyond, nor than any spell is there; a longer spell is rarer."""
    threshold = thresholds(world["past"], HEAT_WAVE)
    found, longer = (probabilities(world["fc"], threshold, replace(HEAT_WAVE, days=days)) for days in (2, 4))
    assert (found.persistence.diff(LEAD).fillna(0) <= 1e-6).all()
    assert (found.in_spell.fillna(0) <= found.exceedance.fillna(0) + 1e-6).all()
    assert (found.in_spell.fillna(0) <= found.any_spell + 1e-6).all()
    assert (longer.any_spell <= found.any_spell + 1e-6).all() and longer.any_spell.sum() < found.any_spell.sum()


def test_pieces_of_any_size_give_the_same(world, monkeypatch):
    whole_limit = thresholds(world["past"], HEAT_WAVE)
    whole = probabilities(world["fc"], whole_limit, HEAT_WAVE)
    monkeypatch.setattr(daily_room, "PIECE_VALUES", 1)
    xr.testing.assert_identical(thresholds(world["past"], HEAT_WAVE), whole_limit)
    xr.testing.assert_identical(probabilities(world["fc"], whole_limit, HEAT_WAVE), whole)


def test_an_archive_on_disk_gives_the_same(world, tmp_path):
    world["fc"].to_zarr(tmp_path / "fc.zarr", consolidated=False)
    threshold = thresholds(world["past"].chunk(time=100), HEAT_WAVE)
    xr.testing.assert_allclose(probabilities(tmp_path / "fc.zarr", threshold, HEAT_WAVE), probabilities(world["fc"], threshold, HEAT_WAVE))


def test_members_that_lack_a_value_are_left_out_and_counted(world):
    threshold = thresholds(world["past"], HEAT_WAVE)
    fc = world["fc"].copy(deep=True)
    fc[T2M][0, 3] = np.nan  # a member that is not there
    fc[T2M][1, 2, 20, 1, 1] = np.nan  # a hole
    fc[T2M][:, :, :, 0, 0] = np.nan  # an island
    found = probabilities(fc, threshold, HEAT_WAVE)
    four = probabilities(fc.isel(number=[0, 1, 2, 4]), threshold, HEAT_WAVE)
    xr.testing.assert_allclose(found.exceedance[0], four.exceedance[0])
    assert found.members[1, 1, 1] == 4 and found.members[0, 2, 2] == 4 and found.members[1, 2, 2] == 5
    assert found.attrs["missing_series"] == 31 + 1 and found.attrs["missing_cells"] == 2
    assert found[["exceedance", "any_spell", "in_spell", "persistence"]].isel(latitude=0, longitude=0).to_array().isnull().all()


def test_what_happened_follows_the_same_rule(world):
    spell = replace(HEAT_WAVE, percentile=60, days=2)
    threshold = thresholds(world["past"], spell)
    happened = outcomes(world["fc"], world["truth"], threshold, spell)
    assert set(np.unique(happened.in_spell.dropna(LEAD))) == {0.0, 1.0}
    days = daily_room.daily(world["truth"], T2M, "max")
    for start in world["fc"].time.values:
        single = happened.exceedance.sel(time=start).dropna(LEAD)
        valid = start.astype("datetime64[D]") + single[LEAD].values
        np.testing.assert_array_equal(single, beyond(days, threshold, "above").sel(time=valid))
    with pytest.raises(DataError, match="lacks 24 of the times"):
        outcomes(world["fc"], world["truth"].isel(time=slice(0, 23)), threshold, spell)


def test_wind_storms_by_the_same_rule(world):
    """A storm is a day whose strongest of four winds is beyond the percentile of the season."""
    weather = (world["past"][T2M] - 283).assign_attrs(units="m s**-1")
    past = xr.Dataset({"10m_u_component_of_wind": 0.6 * weather, "10m_v_component_of_wind": -0.8 * weather})
    speed = abs(world["past"][T2M].values[:2920] - 283).reshape(-1, 4, 4, 8).max(1)
    days = xr.DataArray(speed, {"time": pd.date_range("2001-01-01", periods=len(speed))}, ["time", "latitude", "longitude"])
    threshold = thresholds(past.isel(time=slice(2920)), WIND_STORM)
    np.testing.assert_allclose(threshold, percentile_by_day(days, 98), rtol=1e-9)
    winds = (world["fc"][T2M] - 283).assign_attrs(units="m s**-1")
    fc = xr.Dataset(dict.fromkeys(past, winds))
    blown = probabilities(fc * 8, threshold, WIND_STORM)
    assert float(blown.any_spell.mean()) == 1.0
    assert float(probabilities(fc * 0, threshold, WIND_STORM).any_spell.mean()) == 0.0


def test_a_season_without_past_is_refused():
    with pytest.raises(DataError, match=r"days of the year have no past, the first is day 1;.*2001-06-01 to 2001-08-31"):
        percentile_by_day(series("2001-06-01", "2001-08-31"), 90)
    with pytest.raises(DataError, match="not a day apart"):
        percentile_by_day(series("2001-01-01", "2001-12-31").isel(time=slice(None, None, 2)), 90)
    with pytest.raises(ConfigurationError, match="window of 4 days"):
        percentile_by_day(series("2001-01-01", "2001-12-31"), 90, window=4)


def test_what_does_not_fit_is_refused(world):
    threshold = thresholds(world["past"], HEAT_WAVE)
    with pytest.raises(DataError, match="one unit"):
        probabilities(world["fc"], threshold.assign_attrs(units="degC"), HEAT_WAVE)
    with pytest.raises(DataError, match="between 160 and 345"):
        probabilities(world["fc"] - 273.15, threshold, HEAT_WAVE)
    with pytest.raises(DataError, match="threshold stands on the grid"):
        probabilities(world["fc"], threshold.isel(latitude=slice(0, 3)), HEAT_WAVE)
    with pytest.raises(DataError, match="lasts at least 12 days"):
        probabilities(world["fc"], threshold, replace(HEAT_WAVE, days=12))
    with pytest.raises(ConfigurationError, match="percentile 190"):
        Spell(T2M, "max", 190, "above", 3)
    with pytest.raises(DataError, match="no 10m_u_component_of_wind"):
        probabilities(world["fc"], threshold, WIND_STORM)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(5, 95))
def test_hot_and_cold_are_mirrors(seed, percentile):
    """A cold spell is a heat wave of the negative."""
    days = series("2001-01-01", "2002-12-31", cells=1, seed=seed)
    hot, cold = percentile_by_day(days, percentile), percentile_by_day(-days, 100 - percentile)
    np.testing.assert_allclose(hot, -cold, rtol=1e-9)
    np.testing.assert_array_equal(beyond(days, hot, "above"), beyond(-days, -hot, "below"))
