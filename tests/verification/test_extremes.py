"""The extreme forecast index against its integral, and return periods against known distributions, scipy and loops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification import daily as daily_room
from aeris.verification.extremes import (
    empirical_return_periods,
    extreme_forecast_index,
    fit_gev,
    return_level,
    return_period,
    yearly_extremes,
)

LEAD, T2M = "prediction_timedelta", "2m_temperature"


def daily_states(start: str, count: int, seed: int) -> xr.Dataset:
    grid = Grid.regular(3, 4)
    values = 280 + np.random.default_rng(seed).standard_normal((count, 3, 4))
    coordinates = {"time": pd.date_range(start, periods=count), "latitude": grid.latitude, "longitude": grid.longitude}
    return xr.Dataset({T2M: (("time", "latitude", "longitude"), values)}, coordinates)


def ensemble(values: np.ndarray, start: str = "2005-07-01") -> xr.Dataset:
    """An archive of daily values ``(number, prediction_timedelta, latitude, longitude)``."""
    grid = Grid.regular(3, 4)
    coordinates = {
        "time": pd.DatetimeIndex([start]),
        LEAD: pd.to_timedelta(np.arange(1, values.shape[1] + 1), unit="D"),
        "number": np.arange(len(values)),
        "latitude": grid.latitude,
        "longitude": grid.longitude,
    }
    return xr.Dataset({T2M: (("time", "number", LEAD, "latitude", "longitude"), values[None])}, coordinates)


def by_quadrature(members: np.ndarray, sample: np.ndarray) -> float:
    """2/π ∫ (p − F(p)) / √(p(1 − p)) dp, piece by piece between the steps of F."""
    rank = np.array([((sample < one).sum() + (sample <= one).sum()) / (2 * len(sample)) for one in members])
    edges = np.unique(np.concatenate([[0.0, 1.0], rank]))
    total = 0.0
    for low, high in pairwise(edges):
        share = np.mean(rank <= low)
        total += integrate.quad(lambda t, share=share: 2 * (np.sin(t) ** 2 - share), np.arcsin(np.sqrt(low)), np.arcsin(np.sqrt(high)))[0]
    return 2 / np.pi * total


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-4, 4), members=st.integers(1, 9))
def test_the_index_is_its_integral(seed, shift, members):
    past = daily_states("2001-01-01", 730, seed)
    values = 280 + shift + np.random.default_rng([seed, 1]).standard_normal((members, 2, 3, 4))
    found = extreme_forecast_index(ensemble(values), past, T2M, days=20)
    for lead, day in enumerate(pd.DatetimeIndex(["2005-07-02", "2005-07-03"])):
        near = [abs(time.day_of_year - day.day_of_year) <= 20 for time in pd.DatetimeIndex(past.time.values)]
        sample = past[T2M].values[near][:, 1, 2]
        assert float(found.efi[0, lead, 1, 2]) == pytest.approx(by_quadrature(values[:, lead, 1, 2], sample), abs=1e-9)
        upper = (np.percentile(values[:, lead, 1, 2], 90) - np.percentile(sample, 99)) / np.diff(np.percentile(sample, [90, 99]))
        assert float(found.shift_of_upper_tail[0, lead, 1, 2]) == pytest.approx(upper[0], rel=1e-9)


def test_the_index_of_known_ensembles():
    """All above is 1, all below -1; the climatology itself is 0; a half that is above all and a half that is below all is 0."""
    past = daily_states("2001-01-01", 730, 0)
    same = np.stack([np.repeat(past[T2M].values[165:200, None], 1, 1)], 1)[:, 0]
    for shift, expected in ((50, 1.0), (-50, -1.0)):
        index = extreme_forecast_index(ensemble(np.full((3, 1, 3, 4), 280.0 + shift)), past, T2M)
        np.testing.assert_allclose(index.efi, expected)
        tail, other = ("shift_of_upper_tail", "shift_of_lower_tail") if shift > 0 else ("shift_of_lower_tail", "shift_of_upper_tail")
        assert (index[tail] > 0).all() and (index[other] < 0).all()
    assert abs(float(extreme_forecast_index(ensemble(same), past, T2M).efi.mean())) < 0.05
    halves = np.concatenate([np.full((2, 1, 3, 4), 200.0), np.full((2, 1, 3, 4), 330.0)])
    np.testing.assert_allclose(extreme_forecast_index(ensemble(halves), past, T2M).efi, 0.0, atol=1e-12)


@pytest.mark.slow
def test_an_ensemble_from_the_climatology_has_no_index_on_average():
    rng = np.random.default_rng(0)
    mean = [
        float(
            extreme_forecast_index(
                ensemble(280 + rng.standard_normal((4, 5, 3, 4))), daily_states("2001-01-01", 366, seed), T2M, days=5
            ).efi.mean()
        )
        for seed in range(30)
    ]
    assert abs(np.mean(mean)) < 4 * np.std(mean) / np.sqrt(len(mean))


def test_missing_members_and_a_missing_past(monkeypatch):
    past = daily_states("2001-01-01", 730, 0)
    past[T2M][:, 0, 0] = np.nan
    past[T2M][100:300, 2, 2] = np.nan
    values = 280 + np.random.default_rng(1).standard_normal((4, 1, 3, 4))
    values[3] = np.nan
    values[1, 0, 1, 1] = np.nan
    found = extreme_forecast_index(ensemble(values), past, T2M)
    assert found.attrs["missing_members"] == 11 + 1
    assert found.attrs["smallest_sample"] == 31
    assert found.efi.isnull().sum() == 1 and found.efi[0, 0, 0, 0].isnull()
    monkeypatch.setattr(daily_room, "PIECE_VALUES", 1)
    xr.testing.assert_identical(extreme_forecast_index(ensemble(values), past, T2M), found)


def test_a_past_of_another_season_or_grid_is_refused():
    values = np.full((2, 1, 3, 4), 280.0)
    with pytest.raises(DataError, match=r"No past day stands for 2005-07-02.*2001-01-01 to 2001-03-01"):
        extreme_forecast_index(ensemble(values), daily_states("2001-01-01", 60, 0), T2M)
    with pytest.raises(DataError, match="The past stands on the grid"):
        extreme_forecast_index(ensemble(values), daily_states("2001-01-01", 400, 0).isel(latitude=slice(0, 2)), T2M)


@pytest.mark.parametrize("shape", [-0.2, 1e-9, 0.2])
def test_the_parameters_of_a_known_distribution_come_back(shape):
    drawn = stats.genextreme.rvs(shape, loc=310, scale=3, size=(4, 20000), random_state=0)
    fit = fit_gev(xr.DataArray(drawn, dims=["cell", "year"], attrs={"units": "K"}))
    np.testing.assert_allclose(fit["shape"], shape, atol=0.02)
    np.testing.assert_allclose(fit.location, 310, atol=0.1)
    np.testing.assert_allclose(fit.scale, 3, rtol=0.03)
    levels = return_level(fit, [10, 100])
    np.testing.assert_allclose(levels[:, 0], stats.genextreme.ppf([0.9, 0.99], shape, 310, 3), atol=0.5)
    assert levels.attrs["units"] == "K"


def test_moments_are_those_of_scipy():
    """A fit has the first two L-moments of its sample, and nearly the third ratio, by which Hosking's estimator is made."""
    sample = stats.gumbel_r.rvs(300, 3, size=40, random_state=1)
    fit = fit_gev(xr.DataArray(sample, dims=["year"]))
    l1, l2, l3 = stats.lmoment(sample, order=[1, 2, 3], standardize=False)
    k, location, scale = (float(fit[name]) for name in ("shape", "location", "scale"))
    quantile = lambda u: stats.genextreme.ppf(u, k, location, scale)  # noqa: E731
    moments = [
        integrate.quad(lambda u, p=p: quantile(u) * p(u), 0, 1)[0]
        for p in (lambda u: 1, lambda u: 2 * u - 1, lambda u: 6 * u**2 - 6 * u + 1)
    ]
    np.testing.assert_allclose(moments[:2], [l1, l2], rtol=1e-6)
    assert moments[2] / l2 == pytest.approx(l3 / l2, abs=2e-3)


@given(years=st.floats(1.5, 500), side=st.sampled_from(["above", "below"]))
def test_level_and_period_are_inverses(years, side):
    fit = fit_gev(xr.DataArray(280 + np.random.default_rng(0).standard_normal(30), dims=["year"]), side=side)
    assert float(return_period(fit, return_level(fit, years)).item()) == pytest.approx(years, rel=1e-6)


def test_smallest_values_are_the_mirror_of_largest():
    sample = xr.DataArray(280 + np.random.default_rng(0).standard_normal(30), dims=["year"])
    cold, hot = fit_gev(sample, side="below"), fit_gev(-sample)
    np.testing.assert_allclose(return_level(cold, [5, 50]), -return_level(hot, [5, 50]))
    assert float(return_period(cold, 200.0)) > 1e3 > float(return_period(cold, 279.0))


def test_ranks_give_plotting_positions():
    values = xr.DataArray([3.0, 1.0, np.nan, 2.0, 2.0], dims=["year"])
    np.testing.assert_allclose(empirical_return_periods(values), [5 / 1, 5 / 4, np.nan, 5 / 2.5, 5 / 2.5])
    np.testing.assert_allclose(empirical_return_periods(values, side="below"), [5 / 4, 5 / 1, np.nan, 5 / 2.5, 5 / 2.5])


def test_extremes_of_years(shared_data):
    """Eleven years of daily maxima over the Horn of Africa, against a loop; the fit against that of xclim by likelihood."""
    generic = pytest.importorskip("xclim.indices.stats")
    from scipy.io import loadmat

    values = loadmat(shared_data / "cdt" / "ncep-ncar.mat")["TMAX"][:3, :4].astype("float64")
    days = xr.DataArray(values, {"time": pd.date_range("2008-01-01", periods=values.shape[-1])}, ["y", "x", "time"], attrs={"units": "K"})
    found = yearly_extremes(days)
    loop = [[[row[days.time.dt.year == year].max() for year in range(2008, 2019)] for row in column] for column in values]
    np.testing.assert_array_equal(found.transpose("y", "x", "year"), loop)
    theirs = generic.fa(found.rename(year="time").assign_coords(time=pd.date_range("2008", periods=11, freq="YS")), t=5, dist="genextreme")
    assert abs(return_level(fit_gev(found), 5) - theirs.transpose("return_period", "y", "x").values).max() < 0.35  # K


def test_years_that_are_not_whole_are_counted():
    days = daily_states("2001-03-01", 1200, 0)[T2M]
    found = yearly_extremes(days)
    assert found.year.values.tolist() == [2001, 2002, 2003, 2004]
    assert found.notnull().all(("latitude", "longitude")).values.tolist() == [False, True, True, False]
    assert found.attrs["incomplete_years"] == 2 * 12


def test_too_few_years_are_refused():
    with pytest.raises(DataError, match=r"9 blocks.*at least 10"):
        fit_gev(xr.DataArray(np.arange(9.0), dims=["year"]))
    few = xr.DataArray(np.random.default_rng(0).standard_normal((2, 12)), dims=["cell", "year"])
    few[0, :4] = np.nan
    fit = fit_gev(few)
    assert fit["shape"].isnull().values.tolist() == [True, False] and fit.blocks.values.tolist() == [8, 12]
    with pytest.raises(ConfigurationError, match="more than one year"):
        return_level(fit, 1)
    with pytest.raises(ConfigurationError, match="'above' or 'below'"):
        yearly_extremes(daily_states("2001-03-01", 400, 0)[T2M], "beside")
