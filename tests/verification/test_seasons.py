"""The annual cycle against scipy's least squares, and against series of which it is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from aeris.errors import ConfigurationError, DataError
from aeris.verification import seasons
from aeris.verification.seasons import AnnualCycle


def series(start: str, periods: int, freq: str, seed: int = 0, cells: int = 3) -> xr.DataArray:
    times = pd.date_range(start, periods=periods, freq=freq)
    values = np.random.default_rng(seed).standard_normal((periods, cells))
    return xr.DataArray(values, {"time": times}, ["time", "cell"])


@settings(max_examples=20, deadline=None)
@given(years=st.integers(1, 4), freq=st.sampled_from(["MS", "7D", "1D"]), harmonics=st.integers(0, 3), seed=st.integers(0, 999))
def test_the_fit_is_that_of_scipy(years, freq, harmonics, seed):
    past = series("2001-01-01", {"MS": 12, "7D": 53, "1D": 366}[freq] * years, freq, seed)
    turn = 2 * np.pi * (past.time.values - np.datetime64("1970-01-01")) / np.timedelta64(1, "D") / 365.2425
    basis = np.stack([np.ones(len(turn)), *(f(k * turn) for f in (np.cos, np.sin) for k in range(1, harmonics + 1))], 1)
    expected = np.stack([basis @ lsq_linear(basis, past.values[:, cell]).x for cell in range(3)], 1)
    np.testing.assert_allclose(AnnualCycle.fit(past, harmonics).at(past.time.values), expected, atol=1e-8)


def test_a_course_by_hour_comes_back_at_any_time():
    def course(times: pd.DatetimeIndex) -> np.ndarray:
        days = (times - pd.Timestamp("1970-01-01")) / pd.Timedelta("1D")
        warmth = 10 * np.cos(2 * np.pi * days / 365.2425 - 1) * (1 + (times.hour == 12))
        return np.asarray(280 + warmth + 5 * (times.hour == 12))

    past = pd.date_range("2001-01-01", periods=2 * 4 * 365, freq="6h")
    later = pd.date_range("2013-07-01", periods=9, freq="6h")
    cycle = AnnualCycle.fit(xr.DataArray(course(past), {"time": past}, ["time"]), 1)
    np.testing.assert_allclose(cycle.at(later.values), course(later), atol=1e-6)
    with pytest.raises(DataError, match=r"hours \[0, 6, 12, 18\], and 3 UTC"):
        cycle.at(pd.DatetimeIndex(["2013-07-01T03"]).values)


def test_pieces_of_any_size_and_gaps(monkeypatch):
    past = series("2001-01-01", 800, "1D")
    past[100:120] = np.nan  # nothing is known
    past[:, 2] = np.nan  # an island
    whole = AnnualCycle.fit(past)
    kept = AnnualCycle.fit(past.isel(time=np.r_[:100, 120:800]))
    np.testing.assert_allclose(whole.coefficients, kept.coefficients, atol=1e-12)
    assert whole.coefficients.isel(cell=2).isnull().all() and whole.coefficients.attrs["incomplete_places"] == 0
    monkeypatch.setattr(seasons, "PIECE_VALUES", 7)
    np.testing.assert_allclose(AnnualCycle.fit(past).coefficients, whole.coefficients, atol=1e-12)
    past[5, 0] = np.nan
    partly = AnnualCycle.fit(past)
    assert partly.coefficients.isel(cell=0).isnull().all() and partly.coefficients.attrs["incomplete_places"] == 1


def test_half_a_year_has_no_cycle():
    with pytest.raises(DataError, match="183 known times from 2001-01-01 to 2001-07-02"):
        AnnualCycle.fit(series("2001-01-01", 183, "1D"))
    with pytest.raises(ConfigurationError, match="-1 harmonics"):
        AnnualCycle.fit(series("2001-01-01", 183, "1D"), -1)
    assert AnnualCycle.fit(series("2001-01-01", 183, "1D"), 0).coefficients.sizes["term"] == 1


@pytest.mark.parametrize(("level", "expected"), [(500, (39.0, 46.5)), (200, (58.8, 63.2))])
def test_monthly_heights_of_other_years(shared_data, level, expected):
    """2017 to 2024: how far the cycle of 1981 to 2010 is off, in m, which as a reference goes by calendar months, and its anomaly held."""
    height = xr.open_dataset(shared_data / "easyclimate" / f"test_input_z{level}_mon.nc").hgt.load()
    area = np.cos(np.deg2rad(height.lat)).clip(min=0.0)
    found = AnnualCycle.fit(height.sel(time=slice("1981", "2010")), 5).anomalies(height.sel(time=slice("2017", "2024")))
    later, before = found.isel(time=slice(1, None)), found.isel(time=slice(None, -1)).values
    errors = [float((error**2).weighted(area).mean()) ** 0.5 for error in (later, later - before)]
    assert errors == pytest.approx(expected, abs=0.15)
