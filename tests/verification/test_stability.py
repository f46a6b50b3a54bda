"""The verdict: forecasts from the climate pass as often as they should, and every kind of failure fails."""

from __future__ import annotations

import ducc0
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from aeris.data.grid import coarsen
from aeris.data.planet import Planet
from aeris.data.spherical import degree_order
from aeris.errors import ConfigurationError, DataError
from aeris.verification import seasons
from aeris.verification.seasons import AnnualCycle
from aeris.verification.spectra import power
from aeris.verification.stability import climate_statistics, departures, reasons, stability

LEAD, T2M, SEA = "prediction_timedelta", "2m_temperature", "sea_surface_temperature"
NAMES = [T2M, "geopotential", SEA]


@pytest.fixture(scope="module")
def world() -> Planet:
    return Planet(grid=(16, 32), seed=0)


@pytest.fixture(scope="module")
def past(world) -> xr.Dataset:
    """Four years at 00 UTC."""
    return world.simulate(years=4.0, start="2001-01-01")[NAMES].sel(level=[500, 850]).isel(time=slice(None, None, 4))


@pytest.fixture(scope="module")
def forecast(world) -> xr.Dataset:
    """Ninety days, three members of the exact ensemble."""
    state = world.simulate(years=0.003, start="2005-01-05", seed=1).isel(time=[0])
    return world.forecast(state, lead=[f"{day}d" for day in range(1, 91)], members=3)[NAMES].sel(level=[500, 850])


@pytest.fixture(scope="module")
def normal(past, forecast) -> xr.Dataset:
    """The climate at the valid times of the forecast."""
    valid = forecast.time.values[0] + forecast[LEAD].values
    fields = {name: AnnualCycle.fit(past[name], 2).at(valid, LEAD).assign_coords({LEAD: forecast[LEAD]}) for name in NAMES}
    return xr.Dataset(fields)


def days_of(forecast: xr.Dataset) -> xr.DataArray:
    return forecast[LEAD] / np.timedelta64(1, "D")


def test_the_exact_ensemble_is_stable(past, forecast):
    verdict = stability(forecast, past)
    assert bool(verdict.stable) and reasons(verdict) == []
    assert verdict.attrs["comparisons"] == 9 * 4 * 6 and verdict.attrs["past_windows"] == 146
    assert float(abs(verdict["departure.geopotential"]).max()) > 0.5
    table = departures(verdict)
    assert len(table) == 9 * 4 * 6 and table.level.isna().sum() == 2 * 9 * 6
    row = table.query("variable == 'geopotential' and level == 850 and statistic == 'power 1' and day == 30")
    at = {"level": 850, "statistic": "power 1", LEAD: np.timedelta64(30, "D")}
    assert row.departure.item() == float(verdict["departure.geopotential"].sel(at))


def test_a_drift_is_unstable(past, forecast):
    verdict = stability(forecast[[T2M]] + 0.02 * days_of(forecast), past)
    assert not bool(verdict.stable)
    late = verdict["departure.2m_temperature"].sel(statistic="mean")
    assert float(late[-1]) > float(verdict.limit) > abs(float(late[0]))
    (reason,) = reasons(verdict)
    assert reason.startswith("mean of 2m_temperature by day ") and "; by day 90 +1." in reason


def test_a_dying_forecast_is_unstable(past, forecast, normal):
    verdict = stability(normal + (forecast - normal) * np.exp(-days_of(forecast) / 60), past)
    assert not bool(verdict.stable)
    late = verdict["departure.geopotential"].sel(statistic="variance").isel({LEAD: -1})
    assert (late < -float(verdict.limit)).all()
    assert all(", -" in reason and " 0." in reason for reason in reasons(verdict))  # a part of the climate's power
    assert reasons(verdict, 99)[0] == reasons(verdict, 1)[0] and len(reasons(verdict, 99)) > 5


def blurred(field: xr.DataArray, keep: float) -> xr.DataArray:
    """A field whose degrees from eight on are multiplied by `keep`."""
    rows, columns = field.sizes["latitude"], field.sizes["longitude"]
    degree, _ = degree_order(rows - 1)
    maps = field.values.reshape(-1, 1, rows, columns).astype("float64")
    sharp = np.empty_like(maps)
    for one, out in zip(maps, sharp, strict=True):
        alm = ducc0.sht.analysis_2d(map=one, spin=0, lmax=rows - 1, geometry="F1")
        out[:] = ducc0.sht.synthesis_2d(
            alm=alm * np.where(degree >= 8, keep, 1.0), spin=0, lmax=rows - 1, ntheta=rows, nphi=columns, geometry="F1"
        )
    return field.copy(data=sharp.reshape(field.shape))


@pytest.mark.parametrize("keep", [0.5, 1.8])
def test_lost_or_gathered_small_scales_are_unstable(past, forecast, normal, keep):
    """By the high degrees, while the mean stays as it was."""
    name = "geopotential"
    anomaly = (forecast[name] - normal[name]).transpose(*forecast[name].dims)
    changed = (blurred(anomaly, keep) + normal[name]).transpose(*forecast[name].dims).to_dataset(name=name)
    verdict = stability(changed, past)
    departure = verdict[f"departure.{name}"]
    assert not bool(verdict.stable)
    assert (abs(departure.sel(statistic="power 8-11")) > float(verdict.limit)).all()
    assert (abs(departure.sel(statistic=["mean", "power 1", "power 2-3"])) < float(verdict.limit)).all()


def test_a_forecast_that_blows_up_is_unstable_and_not_an_error(past, forecast):
    broken = forecast[[T2M]].copy(deep=True)
    broken[T2M][:, 1, 70:, 3, 3] = np.inf
    broken[T2M][:, 1, 70:, 3, 4] = -np.inf
    verdict = stability(broken, past)
    assert not bool(verdict.stable) and verdict.attrs["missing_members"] == 0 and "inf" in reasons(verdict)[0]
    huge = forecast[[T2M]].where(days_of(forecast) < 50, 1e9)
    assert not bool(stability(huge, past).stable)
    still = forecast[["geopotential"]].copy(deep=True)
    still["geopotential"][:] = still["geopotential"].mean()
    assert not bool(stability(still, past).stable)


def test_a_noisy_forecast_is_unstable(past, forecast):
    """White noise of three degrees, most of which stands in the smallest scales."""
    noise = 3.0 * np.random.default_rng(0).standard_normal(forecast[T2M].shape)
    verdict = stability(forecast[[T2M]] + noise, past)
    assert not bool(verdict.stable)
    late = verdict[f"departure.{T2M}"].isel({LEAD: -1})
    assert late.sel(statistic="power 8-11") > verdict.limit > abs(late.sel(statistic=["power 1", "power 2-3"])).max()
    assert reasons(verdict)[0].startswith("power 8-11 of 2m_temperature by day")


def test_a_member_that_vanishes_is_not_stable(past, forecast):
    """It may have left the finite numbers; what is left of it is stable."""
    fc = forecast[[T2M]].copy(deep=True)
    fc[T2M][0, 2, 40:] = np.nan
    verdict = stability(fc, past)
    assert not bool(verdict.stable) and bool(verdict[f"stable.{T2M}"])
    assert verdict.attrs["missing_members"] == 50 and reasons(verdict) == ["50 fields of members are missing"]


@pytest.mark.slow
def test_a_year_of_the_planet_is_stable_and_a_slow_drift_is_not(world, past):
    """A degree in a year is too little for ninety days, and is seen in the end."""
    state = world.simulate(years=0.003, start="2005-01-05", seed=1).isel(time=[0])
    year = world.forecast(state, lead=[f"{day}d" for day in range(1, 361)], members=2)[[T2M]]
    verdict = stability(year, past)
    assert bool(verdict.stable) and verdict.sizes[LEAD] == 36
    drifting = year + days_of(year) / 360
    assert bool(stability(drifting.isel({LEAD: slice(0, 90)}), past).stable)
    verdict = stability(drifting, past)
    assert not bool(verdict.stable) and reasons(verdict)[0].startswith("mean of 2m_temperature")


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_stated(world, past):
    """Ninety days of other weather of the same planet, one member each: at a risk of 0.2 no more than a fifth is called unstable."""
    past = coarsen(past[[T2M]], (8, 16))
    weather = world.simulate(years=7.5, start="2011-01-01", seed=5)[[T2M]].isel(time=slice(None, None, 4))
    weather = coarsen(weather, (8, 16))
    leads = pd.to_timedelta(np.arange(1, 91), unit="D")
    alarms = []
    for start in range(0, weather.sizes["time"] - 91, 91):
        ahead = weather.isel(time=slice(start + 1, start + 91)).rename(time=LEAD).assign_coords({LEAD: leads})
        fc = ahead.expand_dims(time=weather.time.values[start : start + 1], number=[0])
        alarms.append(not bool(stability(fc, past, risk=0.2).stable))
    assert len(alarms) == 30 and 1 <= sum(alarms) <= 12


def test_the_departure_written_out(past, forecast):
    """For the global mean, from sums over all cells, parts and windows by slices, and scipy's least squares."""
    from scipy.linalg import lstsq

    area = np.cos(np.deg2rad(past.latitude.values))  # equal bands: the sine of half a band is a constant factor

    def basis(times: np.ndarray) -> np.ndarray:
        turn = 2 * np.pi * (times - np.datetime64("1970-01-01")) / np.timedelta64(1, "D") / 365.2425
        return np.stack([np.ones(len(turn)), np.cos(turn), np.cos(2 * turn), np.sin(turn), np.sin(2 * turn)], 1)

    mean = np.average(past[T2M].values.mean(-1, dtype="float64"), axis=1, weights=area)
    of_past, residual = basis(past.time.values), np.empty(1461)
    for part in (slice(0, 366), slice(366, 731), slice(731, 1096), slice(1096, 1461)):
        others = np.delete(np.arange(1461), part)
        residual[part] = mean[part] - of_past[part] @ lstsq(of_past[others], mean[others])[0]
    course = lstsq(of_past, residual)[0]
    windows = (residual - of_past @ course)[:1460].reshape(146, 10).mean(1)
    sigma = np.sqrt((windows**2).sum() / (146 - 5))
    valid = forecast.time.values[0] + forecast[LEAD].values
    ours = np.average(forecast[T2M].isel(time=0).values.mean(-1, dtype="float64"), axis=-1, weights=area).mean(0)
    value = (ours - basis(valid) @ (lstsq(of_past, mean)[0] + course)).reshape(9, 10).mean(1)
    verdict = stability(forecast[[T2M]], past)
    found = verdict.sel(statistic="mean")
    np.testing.assert_allclose(found[f"value.{T2M}"], value, atol=1e-3 * sigma)
    np.testing.assert_allclose(found[f"departure.{T2M}"], value / (sigma * np.sqrt(1 + 5 / 146)), atol=2e-3)
    assert float(verdict.limit) == pytest.approx(stats.t.ppf(1 - 0.05 / 2 / (9 * 6), 141))


def test_a_mean_that_the_truth_keeps_is_known_to_a_hundredth_of_its_anomalies(past, forecast):
    """What the truth keeps to the last digit no forecast keeps so exactly; that alone is no drift."""
    area = xr.DataArray(np.cos(np.deg2rad(past.latitude)), dims="latitude")
    kept, ours = (ds[[T2M]] - ds[[T2M]].weighted(area).mean(("latitude", "longitude")) + 280 for ds in (past, forecast))
    kept[T2M].attrs, ours[T2M].attrs = past[T2M].attrs, forecast[T2M].attrs
    verdicts = [stability(ours + share, kept) for share in (0.02, 0.5)]
    assert [bool(verdict.stable) for verdict in verdicts] == [True, False]
    assert reasons(verdicts[1])[0].startswith(f"mean of {T2M}")
    sigma = float(verdicts[0][f"error.{T2M}"].sel(statistic="mean"))
    assert 0.01 < sigma < 0.1, "a hundredth of some kelvins"


def test_statistics_are_those_of_the_spectrum(past):
    cycle = AnnualCycle.fit(past[T2M], 2)
    found = climate_statistics(past[T2M].isel(time=slice(3)), cycle)
    spectrum = power(cycle.anomalies(past[T2M]).isel(time=slice(3)))
    assert found.statistic.values.tolist() == ["mean", "variance", "power 1", "power 2-3", "power 4-7", "power 8-11"]
    np.testing.assert_allclose(np.exp(found.sel(statistic="power 4-7")), spectrum.sel(degree=slice(4, 7)).sum("degree"))
    np.testing.assert_allclose(np.exp(found.sel(statistic="variance")), spectrum[:, 1:].sum("degree"))
    assert cycle.coefficients.sizes["term"] == 5


def test_pieces_of_any_size_say_the_same(past, forecast, monkeypatch):
    fc, past = forecast[[T2M]].isel({LEAD: slice(0, 30)}).copy(deep=True), past[[T2M]].isel(time=slice(0, 740))
    whole = stability(fc, past)
    monkeypatch.setattr(seasons, "PIECE_VALUES", 10_000)
    xr.testing.assert_allclose(stability(fc, past), whole)
    fc[T2M][0, :, 20] = np.nan
    with pytest.raises(DataError, match="no member at 21 days"):
        stability(fc, past)


def test_a_last_window_that_is_not_full_is_left_out(past, forecast):
    verdict = stability(forecast[[T2M]].isel({LEAD: slice(0, 47)}), past)
    assert verdict.attrs["leads_left_out"] == 7 and verdict.sizes[LEAD] == 4


def test_what_does_not_fit_is_refused(past, forecast):
    fc = forecast[[T2M]]
    with pytest.raises(DataError, match="At least 20"):
        stability(fc, past.isel(time=slice(0, 740)), days=45)
    with pytest.raises(DataError, match="A past of 369 days"):
        stability(fc, past.isel(time=slice(0, 370)))
    with pytest.raises(DataError, match="no time at 12 UTC"):
        stability(fc.assign_coords(time=fc.time + np.timedelta64(12, "h")), past)
    with pytest.raises(DataError, match="different hours"):
        stability(xr.concat([fc, fc.assign_coords(time=fc.time + np.timedelta64(12, "h"))], "time"), past)
    with pytest.raises(DataError, match="between 160 and 345"):
        stability(fc - 273.15, past)
    with pytest.raises(DataError, match="not 10m_u"):
        stability(fc, past, variables=["10m_u_component_of_wind"])
    with pytest.raises(DataError, match="two windows"):
        stability(fc, past, days=60)
    with pytest.raises(ConfigurationError, match="at least one step"):
        stability(fc, past, days=0.5)
    with pytest.raises(ConfigurationError, match="risk of 2"):
        stability(fc, past, risk=2)
    holed = fc.copy(deep=True)
    holed[T2M][0, 0, 5, 3, 3] = np.nan
    with pytest.raises(DataError, match="1 values of 2m_temperature"):
        stability(holed, past)
    with pytest.raises(DataError, match="1 fields of the past"):
        stability(fc, past.where(past.time != past.time[7]))
