"""Scores of indices against loops over cases, scipy, and the known skill of real hindcasts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy import stats

import aeris
from aeris.errors import DataError
from aeris.verification.events import event_table, reliability_diagram
from aeris.verification.indices import as_field, correlation, plume_table

LEAD = "prediction_timedelta"


def index_case(seed: int = 0, starts: int = 30, members: int = 5, leads: int = 3) -> tuple[xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(seed)
    days = pd.date_range("2001-01-01", periods=starts + leads + 1)
    signal = rng.standard_normal(len(days))
    truth = xr.DataArray(signal + 0.5 * rng.standard_normal(len(days)), {"time": days}, ["time"])
    valid = np.arange(starts)[:, None] + np.arange(1, leads + 1)
    values = signal[valid][:, None] + 0.5 * rng.standard_normal((starts, members, leads))
    coordinates = {"time": days[:starts], "number": np.arange(members), LEAD: pd.to_timedelta(np.arange(1, leads + 1), unit="D")}
    return xr.DataArray(values, coordinates, list(coordinates)), truth


@settings(max_examples=4, deadline=None, phases=[Phase.explicit, Phase.generate])  # shrinking would take minutes
@given(seed=st.integers(0, 999), holes=st.integers(0, 8))
def test_scores_of_an_index_are_those_of_a_loop(seed, holes):
    """By `aeris.verify`, to which the index is a field."""
    forecast, truth = index_case(seed)
    rng = np.random.default_rng(seed)
    for _ in range(holes):
        forecast[rng.integers(30), rng.integers(5), rng.integers(3)] = np.nan
    truth[10] = np.nan
    scores = aeris.verify(as_field(forecast), as_field(truth), baselines=()).sel(system="forecast")
    found = correlation(forecast, truth)
    for lead in range(3):
        pairs = []
        for start in range(30):
            y = float(truth[start + lead + 1])
            x = [value for value in forecast.values[start, :, lead] if not np.isnan(value)]
            if x and not np.isnan(y):
                pairs.append((np.array(x), y))
        means, ys = np.array([x.mean() for x, _ in pairs]), np.array([y for _, y in pairs])
        crps = [
            np.mean(abs(x - y)) - sum(abs(a - b) for a in x for b in x) / (2 * len(x) * (len(x) - 1)) if len(x) > 1 else abs(x[0] - y)
            for x, y in pairs
        ]
        at = scores.isel({LEAD: lead})
        assert int(found.cases[lead]) == len(pairs)
        assert float(found.correlation[lead]) == pytest.approx(stats.pearsonr(means, ys).statistic)
        assert float(at["rmse.index"]) == pytest.approx(np.sqrt(np.mean((means - ys) ** 2)))
        assert float(at["crps.index"]) == pytest.approx(np.mean(crps))
    assert found.attrs == {"missing_members": int(forecast.isnull().sum()), "missing_truths": 3}


def test_an_index_that_cannot_be_scored_is_refused():
    forecast, truth = index_case()
    with pytest.raises(DataError, match=r"truth lacks 2 of the times"):
        correlation(forecast, truth.isel(time=slice(-3)))
    with pytest.raises(DataError, match="in K, its truth in degC"):
        correlation(forecast.assign_attrs(units="K"), truth.assign_attrs(units="degC"))
    twice = truth.isel(time=[0, *range(truth.sizes["time"])])
    for refusing in (as_field, lambda index: correlation(forecast, index), lambda index: plume_table(forecast, index)):
        with pytest.raises(DataError, match="1 stand twice"):
            refusing(twice)
    forecast[2:, :, 1] = np.nan
    with pytest.raises(DataError, match="2 initial times at 2 days"):
        correlation(forecast, truth)


@pytest.fixture(scope="module")
def rmm(shared_data) -> tuple[xr.DataArray, xr.DataArray]:
    """GEOS hindcasts of RMM1 and what was observed. Leads are centred on the day: half a day is the day of the start."""
    raw = xr.open_dataset(shared_data / "climpred-data" / "GMAO-GEOS-V2p1.RMM1.nc", decode_times=False)
    starts = pd.Timestamp("1960-01-01") + pd.to_timedelta(raw.S.values.astype("float64"), unit="D")
    leads = pd.to_timedelta(np.floor(raw.L.values).astype(int), unit="D")
    forecast = raw.RMM1.rename(S="time", M="number", L=LEAD).assign_coords({"time": starts, LEAD: leads}).assign_attrs(units="1")
    observed = xr.open_dataset(shared_data / "climpred-data" / "RMM1.observed.interannual.1974-06.2017-07.nc").rmm1.load()
    return forecast.load(), observed


def test_correlations_of_the_geos_hindcasts(rmm):
    forecast, observed = rmm
    with pytest.raises(DataError, match="145 times of the index are not known"):
        correlation(forecast, observed)
    found = correlation(forecast, observed.sel(time=observed.time.notnull())).correlation
    assert [round(float(value), 2) for value in found.isel({LEAD: [0, 14, 29]})] == [0.98, 0.79, 0.45]


def test_reliability_of_the_geos_hindcasts_by_counting(rmm):
    """An index as a field has an event table."""
    forecast, observed = rmm
    forecast = forecast.isel(time=slice(0, 60), **{LEAD: [14]})
    observed = observed.sel(time=observed.time.notnull())
    diagram = reliability_diagram(event_table(as_field(forecast), as_field(observed.rename("RMM1")), {"RMM1": [0.5]})).squeeze()
    foretold = (forecast > 0.5).sum("number").values[:, 0]
    happened = observed.sel(time=forecast.time.values + forecast[LEAD].values[0]).values > 0.5
    for k in range(5):
        assert float(diagram["used.RMM1"][k]) == pytest.approx(np.mean(foretold == k))
        assert float(diagram["came.RMM1"][k]) == pytest.approx(happened[foretold == k].mean())


def test_a_plume_is_a_table():
    forecast, truth = index_case(members=9)
    forecast[3, 2:, 1] = np.nan
    truth = truth.isel(time=slice(0, 31))
    table = plume_table(forecast, truth)
    row = table.loc[(forecast.time.values[3], forecast[LEAD].values[1])]
    assert row.members == 2 and row.valid == pd.Timestamp("2001-01-06")
    assert row["mean"] == pytest.approx(float(forecast[3, :2, 1].mean())) and row.truth == float(truth[5])
    row = table.iloc[0]
    assert row.q25 == pytest.approx(np.quantile(forecast[0, :, 0], 0.25)) and row.deviation == pytest.approx(
        forecast.values[0, :, 0].std(ddof=1)
    )
    assert table.attrs["missing_members"] == 7 and table.attrs["missing_truths"] == int(table.truth.isna().sum()) == 3
