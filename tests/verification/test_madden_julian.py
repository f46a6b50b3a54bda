"""The two indices of the tropics: waves whose indices are known, and forecasts of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification.climate import bivariate_skill
from aeris.verification.madden_julian import MaddenJulian, bands, without_background

LEAD, U = "prediction_timedelta", "u_component_of_wind"
PERIOD = 45.0
"""Days in which the wave of wavenumber 1 goes around."""


def wave(start: str, days: int, noise: float = 0.2, seed: int = 0) -> xr.Dataset:
    """An eastward wave, in 850 and 200 hPa of opposite sign and other size, with a year's course and weather."""
    grid, times = Grid.regular(12, 24), pd.date_range(start, periods=days)
    rng = np.random.default_rng(seed)
    day = np.asarray((times - pd.Timestamp("2001-01-01")) / pd.Timedelta("1D"))
    phase = np.deg2rad(grid.longitude - 80) - 2 * np.pi * day[:, None] / PERIOD
    pattern = np.stack([2 * np.cos(phase), -5 * np.cos(phase)], 1)[:, :, None, :]
    course = 6 * np.cos(2 * np.pi * day / 365.2425)[:, None, None, None] * np.cos(np.deg2rad(grid.longitude))
    values = 3 + course + pattern + noise * rng.standard_normal((days, 2, 12, 24))
    coordinates = {"time": times, "level": [850, 200], "latitude": grid.latitude, "longitude": grid.longitude}
    return xr.Dataset({U: (tuple(coordinates), values, {"units": "m s**-1"})}, coordinates)


@pytest.fixture(scope="module")
def fitted() -> MaddenJulian:
    return MaddenJulian.fit(wave("2001-01-01", 4 * 365))


def test_the_patterns_are_those_of_the_wave(fitted):
    """A wave that travels is a pair of patterns in quadrature that explain the same; westerlies at 80° east in the first."""
    angle = np.deg2rad(fitted.eofs.longitude.values - 80)
    shapes = [np.concatenate([f(angle), -f(angle)]) / np.sqrt(24) for f in (np.cos, np.sin)]
    flat = fitted.eofs.values.reshape(2, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(2), atol=1e-10)
    # Two modes of one variance may turn within their plane.
    np.testing.assert_allclose(np.linalg.norm(flat @ np.stack(shapes).T, axis=1), 1.0, atol=0.01)
    assert float(fitted.variance.sum()) > 0.9 and abs(float(fitted.variance[0] - fitted.variance[1])) < 0.05
    assert float(fitted.eofs[0, 0].sel(longitude=slice(60, 100)).mean()) > 0


def test_patterns_are_eigenvectors_of_the_covariance(fitted):
    past = wave("2001-01-01", 4 * 365)
    anomalies = without_background(fitted.cycle.anomalies(bands(past)), 120).dropna("time")
    flat = (anomalies / fitted.scale).transpose("time", "field", "longitude").values.reshape(anomalies.sizes["time"], -1)
    size, vectors = np.linalg.eigh(np.cov(flat.T))
    np.testing.assert_allclose(fitted.variance, size[::-1][:2] / size.sum(), rtol=1e-9)
    np.testing.assert_allclose(abs(np.sum(vectors[:, ::-1][:, :2] * fitted.eofs.values.reshape(2, -1).T, axis=0)), 1.0, atol=1e-9)


def test_indices_turn_with_the_wave(fitted):
    """Anticlockwise once in the period, with a deviation of one, in days that were not fitted."""
    indices = fitted.indices(wave("2009-01-01", 400, seed=1))
    assert indices.attrs["missing"] == 120
    known = indices.dropna("time")
    angle = np.unwrap(np.arctan2(known.isel(mode=1), known.isel(mode=0)))
    turn = np.polyfit(np.arange(len(angle)), angle, 1)[0]
    assert turn == pytest.approx(2 * np.pi / PERIOD, rel=0.01)
    np.testing.assert_allclose(known.std("time"), 1.0, atol=0.06)


def archive(starts: list[str], truth: xr.Dataset, leads: int = 20, size: float = 1.0) -> xr.Dataset:
    """Members that are what happens, their wave made larger or smaller, with noise of their own."""
    members = []
    for start in starts:
        ahead = truth.sel(time=pd.date_range(start, periods=leads + 1)[1:]).rename(time=LEAD)
        ahead = ahead.assign_coords({LEAD: pd.to_timedelta(np.arange(1, leads + 1), unit="D")})
        members.append(xr.concat([ahead, ahead], "number").assign_coords(number=[0, 1]))
    return size * xr.concat(members, pd.DatetimeIndex(starts, name="time"))


def test_a_perfect_forecast_has_the_indices_of_the_truth(fitted):
    """The background of its later days is made of truth and of itself."""
    truth = wave("2009-01-01", 300, seed=1)
    found = fitted.forecast_indices(archive(["2009-06-01", "2009-07-11"], truth), truth)
    observed = fitted.indices(truth)
    assert found.dims == ("time", "number", LEAD, "mode") and found.attrs["missing"] == 0
    for start in found.time.values:
        valid = start + found[LEAD].values
        np.testing.assert_allclose(found.sel(time=start).isel(number=1), observed.sel(time=valid), atol=1e-9)
    skill = bivariate_skill(found, observed)
    np.testing.assert_allclose(skill.correlation, 1.0)
    np.testing.assert_allclose(skill.rmse, 0.0, atol=1e-9)
    worse = bivariate_skill(fitted.forecast_indices(archive(["2009-06-01", "2009-07-11"], truth, size=0.5), truth), observed)
    assert (worse.rmse > 0.3).all()


def test_patterns_may_be_given(fitted):
    past = wave("2001-01-01", 4 * 365)
    given = MaddenJulian.fit(past, eofs=-fitted.eofs)
    xr.testing.assert_allclose(given.indices(past), -fitted.indices(past))
    with pytest.raises(DataError, match="two modes, 2 fields and the 24 longitudes"):
        MaddenJulian.fit(past, eofs=fitted.eofs.isel(longitude=slice(None, None, 2)))


def test_what_is_missing_is_counted_or_refused(fitted):
    truth = wave("2009-01-01", 300, seed=1)
    fc = archive(["2009-06-01"], truth)
    fc[U][0, 1, 5] = np.nan
    found = fitted.forecast_indices(fc, truth)
    assert found.attrs["missing"] == 15  # the day, and those in whose background it lies
    with pytest.raises(DataError, match=r"lacks 28 of the 120 days before 2009-06-02"):
        fitted.forecast_indices(archive(["2009-06-01"], truth), truth.sel(time=slice("2009-03-02", None)))
    with pytest.raises(DataError, match="year of tropical fields"):
        MaddenJulian.fit(wave("2001-01-01", 400))
    with pytest.raises(DataError, match="no v_component"):
        MaddenJulian.fit(truth, (("v_component_of_wind", 850),))
    with pytest.raises(ConfigurationError, match="-1 days"):
        without_background(bands(truth), -1)
