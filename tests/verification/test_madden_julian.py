"""The two indices of the tropics: waves whose indices are known, and forecasts of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification.madden_julian import MaddenJulian, amplitude_and_phase, bands, bivariate_skill, without_background

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


def test_only_the_band_of_15_degrees_counts():
    ds = wave("2001-01-01", 5)
    xr.testing.assert_allclose(bands(ds.where(abs(ds.latitude) < 15, 77.0)), bands(ds))
    assert not np.allclose(bands(ds.where(abs(ds.latitude) > 15, 77.0)), bands(ds))


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
    apart = archive(["2009-06-01"], truth).isel({LEAD: slice(None, None, 2)})
    with pytest.raises(DataError, match="lacks days between its leads"):
        fitted.forecast_indices(apart, truth)


def circle(days: int, period: float = 45.0) -> xr.DataArray:
    angle = 2 * np.pi * np.arange(days) / period
    values = np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], 1)
    return xr.DataArray(values, {"time": pd.date_range("2001-01-01", periods=days)}, ["time", "mode"])


@given(turn=st.floats(0, 2 * np.pi), size=st.floats(0.1, 3))
@settings(max_examples=25, deadline=None)
def test_the_bivariate_scores_of_a_turned_forecast(turn, size):
    """Turned by α and stretched by s, COR is cos α and the RMSE √(2 (1 + s² − 2 s cos α))."""
    truth = circle(90)
    turned = size * truth.values @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    lead = pd.to_timedelta([0], unit="D")
    forecast = xr.DataArray(turned[:, None, None], {"time": truth.time, "number": [0], LEAD: lead}, ["time", "number", LEAD, "mode"])
    found = bivariate_skill(forecast, truth)
    assert float(found.correlation[0]) == pytest.approx(np.cos(turn), abs=1e-9)
    assert float(found.rmse[0]) == pytest.approx(np.sqrt(max(0, 2 * (1 + size**2 - 2 * size * np.cos(turn)))), abs=1e-6)
    assert int(found.cases[0]) == 90
    forecast[7, 0, 0, 1] = np.nan
    assert int(bivariate_skill(forecast, truth).cases[0]) == 89
    with pytest.raises(DataError, match="two modes"):
        bivariate_skill(forecast.isel(mode=[0]), truth)


def test_phases_are_the_eighths_of_the_circle():
    """By the signs and sizes that bound each sector of the diagram of Wheeler and Hendon."""
    rng = np.random.default_rng(0)
    indices = xr.DataArray(rng.standard_normal((200, 2)), dims=["time", "mode"])
    indices[7, 1] = np.nan
    found = amplitude_and_phase(indices)
    sectors = {
        1: lambda x, y: x < 0 and y < 0 and x < y,
        2: lambda x, y: x < 0 and y < 0 and x >= y,
        3: lambda x, y: x > 0 and y < 0 and x < -y,
        4: lambda x, y: x > 0 and y < 0 and x >= -y,
        5: lambda x, y: x > 0 and y > 0 and x > y,
        6: lambda x, y: x > 0 and y > 0 and x <= y,
        7: lambda x, y: x < 0 and y > 0 and -x < y,
        8: lambda x, y: x < 0 and y > 0 and -x >= y,
    }
    for (x, y), phase, amplitude in zip(indices.values, found.phase.values, found.amplitude.values, strict=True):
        if np.isnan(y):
            assert np.isnan(phase) and np.isnan(amplitude)
        else:
            assert sectors[phase](x, y) and amplitude == pytest.approx(np.hypot(x, y))
    assert amplitude_and_phase(xr.DataArray([-1.0, 0.0], dims="mode")).phase in (1, 8)


def test_the_observed_oscillation_moves_eastward(shared_data):
    """Through rising phases, about once in fifty days while it is active; its strongest days stand in the file at 4.64."""
    raw = xr.open_dataset(shared_data / "climpred-data" / "RMM1.observed.interannual.1974-06.2017-07.nc")
    raw = raw.sel(time=raw.time.notnull())
    indices = xr.concat([raw.rmm1, raw.rmm2], "mode").transpose("time", "mode")
    known = amplitude_and_phase(indices)
    assert round(float(known.amplitude.max()), 2) == 4.64
    step = (known.phase.diff("time") + 4) % 8 - 4
    active = known.amplitude.isel(time=slice(1, None)) > 1.5
    assert 35 < 8 / float(step.where(active).mean()) < 75
