"""Statistics of an ensemble against plain numpy, and laws that hold of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from aeris.data.grid import Grid
from aeris.errors import DataError
from aeris.views.ensemble_statistics import (
    Quantity,
    band_mean,
    daily_maxima,
    exceedance_probability,
    hottest_days,
    quantiles,
    round_threshold,
    zonal_power,
)

LEAD = "prediction_timedelta"
GRID = Grid.regular(12, 24)


@pytest.fixture
def members() -> xr.DataArray:
    """Five members of noise on 12×24, with one cell missing in all of them."""
    values = np.random.default_rng(0).normal(280, 5, (5, 12, 24)).astype(np.float32)
    values[:, 3, 4] = np.nan
    coords = {"number": [0, 1, 2, 4, 7], "latitude": GRID.latitude, "longitude": GRID.longitude}
    return xr.DataArray(values, coords, ["number", "latitude", "longitude"], "2m_temperature", {"units": "K"})


def test_quantities_are_those_of_numpy(members):
    values = members.values.astype(np.float64)
    np.testing.assert_allclose(Quantity("mean").of(members), values.sum(0) / 5, rtol=1e-6)
    expected = np.sqrt(((values - values.sum(0) / 5) ** 2).sum(0) / 4)
    np.testing.assert_allclose(Quantity("spread").of(members), expected, rtol=1e-5)
    np.testing.assert_array_equal(Quantity("member", member=4).of(members), members.values[3])


def test_the_probability_counts_members_and_keeps_what_is_missing(members):
    above, below = (exceedance_probability(members, 281.5, side) for side in (True, False))
    counted = np.array([(members.values[:, j, i] > 281.5).sum() / 5 for j in range(12) for i in range(24)]).reshape(12, 24)
    counted[3, 4] = np.nan
    np.testing.assert_allclose(above, counted)
    np.testing.assert_allclose((above + below).values[np.isfinite(counted)], 1.0)
    assert Quantity("probability", threshold=281.5).of(members).attrs["units"] == "1"


def test_a_value_on_the_threshold_does_not_exceed_it():
    at = xr.DataArray([300.0, 300.0, 301.0], dims="number")
    assert float(exceedance_probability(at, 300.0)) == pytest.approx(1 / 3)
    assert float(exceedance_probability(at, 300.0, above=False)) == 0.0


def test_too_few_members_are_refused(members):
    with pytest.raises(DataError, match=r"Member 3 has not come this far.*0, 1, 2, 4, 7"):
        Quantity("member", member=3).of(members)
    with pytest.raises(DataError, match="0 members"):
        Quantity("mean").of(members.isel(number=[]))
    with pytest.raises(DataError, match="spread needs at least 2"):
        Quantity("spread").of(members.isel(number=[0]))


def test_quantities_in_words():
    assert Quantity("probability", threshold=20.0).text("m s**-1") == "probability of more than 20 m s⁻¹"
    assert Quantity("probability", threshold=0.5, above=False).text("1") == "probability of less than 0.5"
    assert Quantity("member", member=3).text("K") == "member 3"


def test_quantiles_leave_members_out_that_are_missing():
    series = xr.DataArray([[1.0, 5.0], [2.0, np.nan], [4.0, 7.0]], dims=("number", LEAD))
    np.testing.assert_allclose(quantiles(series, (0.0, 0.5, 1.0)), [[1, 5], [2, 6], [4, 7]])


def test_a_band_mean_is_weighted_by_area_and_leaves_missing_cells_out(members):
    rows = [j for j, latitude in enumerate(GRID.latitude) if 30 <= latitude <= 60]
    edges = np.sin(np.deg2rad(np.linspace(90, -90, 13)))
    weight = (edges[:-1] - edges[1:])[rows]
    values = members.values[:, rows].astype(np.float64)
    there = np.isfinite(values)
    expected = (np.where(there, values, 0) * weight[:, None]).sum(1) / (there * weight[:, None]).sum(1)
    np.testing.assert_allclose(band_mean(members, 30, 60), expected, rtol=1e-6)


@pytest.mark.parametrize("columns", [24, 25])
def test_zonal_power_sums_to_the_mean_square(columns):
    grid = Grid.regular(8, columns)
    values = np.random.default_rng(1).normal(size=(8, columns))
    field = xr.DataArray(values, {"latitude": grid.latitude, "longitude": grid.longitude}, ["latitude", "longitude"])
    mean_square = (grid.area[:, None] * values**2).mean()
    assert float(zonal_power(field, -90, 90).sum()) == pytest.approx(mean_square)


def test_a_wave_has_its_power_at_its_wavenumber():
    """3 cos(4λ) has the mean square 9/2, all of it at wavenumber 4."""
    wave = 3 * np.cos(4 * np.deg2rad(GRID.longitude) + 0.3) * np.ones((12, 1))
    field = xr.DataArray(wave, {"latitude": GRID.latitude, "longitude": GRID.longitude}, ["latitude", "longitude"])
    power = zonal_power(field, 30, 60)
    np.testing.assert_allclose(power, np.where(power.wavenumber == 4, 4.5, 0.0), atol=1e-12)


def test_power_is_that_of_the_sum_over_the_rows_of_the_band(members):
    members = members.fillna(0.0)
    rows = [j for j, latitude in enumerate(GRID.latitude) if -60 <= latitude <= 0]
    angle = np.deg2rad(GRID.longitude)
    expected = np.zeros(13)
    for j in rows:
        for k in range(13):
            c = (members.values[2, j] * np.exp(-1j * k * angle)).sum() / 24
            expected[k] += GRID.area[j] / GRID.area[rows].sum() * abs(c) ** 2 * (1 if k in (0, 12) else 2)
    np.testing.assert_allclose(zonal_power(members, -60, 0)[2], expected, rtol=1e-9)


def test_a_spectrum_with_missing_cells_is_refused(members):
    with pytest.raises(DataError, match="missing cells"):
        zonal_power(members, -90, 90)
    assert np.isfinite(zonal_power(members, -90, 0)).all()


def test_daily_maxima_are_of_whole_days_in_utc():
    start = np.datetime64("2001-01-01T12", "ns")
    leads = (np.arange(1, 11) * np.timedelta64(6, "h")).astype("timedelta64[ns]")
    values = np.random.default_rng(2).normal(size=(3, 10))
    values[2, 6:] = np.nan
    series = xr.DataArray(values, {"number": [0, 1, 2], LEAD: leads}, ["number", LEAD], attrs={"units": "K"})
    maxima = daily_maxima(series, start)
    frame = pd.DataFrame(values.T, index=pd.DatetimeIndex(start + leads))
    expected = frame.groupby(frame.index.date).agg(lambda day: day.max(skipna=False))
    np.testing.assert_allclose(maxima.values, expected.values.T)
    assert maxima.leads.values.tolist() == [1, 4, 4, 1]
    assert pd.DatetimeIndex(maxima.day.values).strftime("%m-%d").tolist() == ["01-01", "01-02", "01-03", "01-04"]


def test_the_hottest_days_come_first():
    days = np.array(["2001-07-01", "2001-07-02", "2001-07-03"], "datetime64[ns]")
    maxima = xr.DataArray([[300.0, 310.0, np.nan], [302.0, 304.0, np.nan]], {"number": [0, 1], "day": days}, ["number", "day"])
    found = hottest_days(maxima, 303.0)
    assert found.day.values.tolist() == days[[1, 0]].tolist()
    assert found["mean"].values.tolist() == [307.0, 301.0] and found["probability"].values.tolist() == [1.0, 0.0]
    assert found["lowest"].values.tolist() == [304.0, 300.0] and found["highest"].values.tolist() == [310.0, 302.0]


def test_a_first_threshold_is_round_and_high(members):
    threshold = round_threshold(members)
    assert float(f"{threshold:.3g}") == threshold
    assert 0.02 < np.nanmean(members > threshold) < 0.25
