"""Indices against published numbers, loops over cells and cases, and closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aeris.data.grid import Grid
from aeris.data.sources import open_era5
from aeris.errors import ConfigurationError, DataError
from aeris.verification import seasons
from aeris.verification.climate import NINO, bivariate_skill, box_mean, box_weights, hovmoller, index_anomalies, nino, plume, verify_index
from aeris.verification.seasons import AnnualCycle

LEAD, SEA = "prediction_timedelta", "sea_surface_temperature"


@pytest.fixture(scope="session")
def ersst(shared_data) -> xr.Dataset:
    return open_era5(shared_data / "xarray-tutorial" / "sst.mnmean.nc")


def test_nino_34_of_december_2015(ersst):
    """29.25 °C (the reference number is unweighted); the other months against NOAA's own series, from another analysis."""
    index = nino(ersst, "3.4") - 273.15
    assert float(index.sel(time="2015-12-01").squeeze()) == pytest.approx(29.25, abs=0.01)


@pytest.mark.parametrize("region", NINO)
def test_nino_regions_against_noaa(ersst, shared_data, region):
    """NOAA makes its indices of OISST, this one is of ERSST: they agree to some tenths."""
    theirs = pd.read_csv(shared_data / "pythia-datasets" / "enso_data.csv", index_col=0, parse_dates=True)[
        f"Nino{region.replace('.', '').replace('+', '')}"
    ]
    ours = (nino(ersst, region) - 273.15).to_series()
    both = pd.concat([ours, theirs], axis=1, join="inner").dropna()
    assert len(both) == 128
    assert both.corr().iloc[0, 1] > 0.98 and abs(both.iloc[:, 0] - both.iloc[:, 1]).mean() < 0.3


def test_anomalies_against_noaa(ersst, shared_data):
    """NOAA's base is 1991 to 2020, ours the ten years of the file: the course is the same but for a constant."""
    index = nino(ersst)
    ours = index_anomalies(index, AnnualCycle.fit(index)).to_series()
    theirs = pd.read_csv(shared_data / "pythia-datasets" / "enso_data.csv", index_col=0, parse_dates=True).Nino34anom
    both = pd.concat([ours, theirs], axis=1, join="inner")
    assert both.corr().iloc[0, 1] > 0.99
    assert both.iloc[:, 0].idxmax() == both.Nino34anom.idxmax()


def by_points(grid: Grid, field: np.ndarray, box: tuple[float, float, float, float], count: int = 400) -> float:
    """Mean over a box of very many points, equally spaced in sin φ and longitude."""
    south, north, west, east = box
    share = (np.arange(count) + 0.5) / count
    sines = np.sin(np.deg2rad(south)) + share * (np.sin(np.deg2rad(north)) - np.sin(np.deg2rad(south)))
    edges = np.concatenate([[90], (grid.latitude[1:] + grid.latitude[:-1]) / 2, [-90]])
    rows = np.searchsorted(-edges, -np.rad2deg(np.arcsin(sines))) - 1
    step = 360 / grid.shape[1]
    columns = np.floor((west + share * (east - west) - grid.longitude[0]) / step + 0.5).astype(int) % grid.shape[1]
    values = field[np.ix_(rows, columns)]
    return float(np.nanmean(values))


@settings(max_examples=40, deadline=None)
@given(
    south=st.floats(-85, 70),
    height=st.floats(5, 60),
    west=st.floats(-180, 400),
    width=st.floats(5, 360),
    shape=st.sampled_from([(8, 16), (9, 16), (33, 24)]),
    seed=st.integers(0, 999),
)
def test_a_box_mean_is_that_of_many_points(south, height, west, width, shape, seed):
    grid, box = Grid.regular(*shape), (south, min(90.0, south + height), west, west + width)
    values = np.random.default_rng(seed).standard_normal(shape)
    field = xr.DataArray(values, {"latitude": grid.latitude, "longitude": grid.longitude}, ["latitude", "longitude"])
    assert float(box_mean(field, box)) == pytest.approx(by_points(grid, values, box), abs=0.03)
    assert float(box_weights(grid, box).sum()) == pytest.approx(1.0)
    assert float(box_mean(xr.ones_like(field), box)) == pytest.approx(1.0)


def test_land_is_left_out_and_what_is_left_may_be_too_little():
    grid = Grid.regular(18, 36)
    field = xr.DataArray(
        np.broadcast_to(grid.longitude, (2, 18, 36)).copy(),
        {"time": pd.date_range("2001", periods=2), "latitude": grid.latitude, "longitude": grid.longitude},
        ["time", "latitude", "longitude"],
    )
    field[0, :, 20:] = np.nan
    mean = box_mean(field, (-10, 10, 155, 215))
    assert mean.values.tolist() == pytest.approx([np.mean([160, 170, 180, 190]), np.mean([160, 170, 180, 190, 200, 210])])
    field[0, :, 18:] = np.nan
    mean = box_mean(field, (-10, 10, 155, 215))
    assert mean.isnull().values.tolist() == [True, False] and mean.attrs["missing"] == 1
    with pytest.raises(DataError, match="At least 50% of the box"):
        box_mean(field.isel(time=[0]), (-10, 10, 175, 215))
    with pytest.raises(ConfigurationError, match="west before east"):
        box_mean(field, (-10, 10, 215, 155))


def test_a_nino_index_of_an_archive_is_read_in_pieces(monkeypatch, tmp_path):
    world = Grid.regular(16, 32)
    rng = np.random.default_rng(0)
    coordinates = {
        "time": pd.date_range("2001-01-01", periods=4, freq="30D"),
        "number": [0, 1],
        LEAD: pd.to_timedelta([30, 60], unit="D"),
        "latitude": world.latitude,
        "longitude": world.longitude,
    }
    fc = xr.Dataset({SEA: (tuple(coordinates), 300 + rng.standard_normal((4, 2, 2, 16, 32)))}, coordinates)
    fc[SEA][1, 1] = np.nan
    whole = nino(fc, "4")
    assert whole.dims == ("time", "number", LEAD) and whole.attrs["missing"] == 2
    fc.to_zarr(tmp_path / "fc.zarr", consolidated=False)
    monkeypatch.setattr(seasons, "PIECE_VALUES", 1)
    xr.testing.assert_allclose(nino(xr.open_zarr(tmp_path / "fc.zarr", chunks=None, consolidated=False), "4"), whole)
    with pytest.raises(ConfigurationError, match=r"'5'.*1\+2, 3, 3.4, 4"):
        nino(fc, "5")
    with pytest.raises(DataError, match="between"):
        nino(fc - 273.15)
    with pytest.raises(DataError, match="degC"):
        nino(fc.assign({SEA: fc[SEA].assign_attrs(units="degC")}))


def index_case(seed: int = 0, starts: int = 30, members: int = 5, leads: int = 3) -> tuple[xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(seed)
    days = pd.date_range("2001-01-01", periods=starts + leads + 1)
    signal = rng.standard_normal(len(days))
    truth = xr.DataArray(signal + 0.5 * rng.standard_normal(len(days)), {"time": days}, ["time"])
    valid = np.arange(starts)[:, None] + np.arange(1, leads + 1)
    values = signal[valid][:, None] + 0.5 * rng.standard_normal((starts, members, leads))
    coordinates = {"time": days[:starts], "number": np.arange(members), LEAD: pd.to_timedelta(np.arange(1, leads + 1), unit="D")}
    return xr.DataArray(values, coordinates, list(coordinates)), truth


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), holes=st.integers(0, 8))
def test_scores_of_an_index_are_those_of_a_loop(seed, holes):
    forecast, truth = index_case(seed)
    rng = np.random.default_rng(seed)
    for _ in range(holes):
        forecast[rng.integers(30), rng.integers(5), rng.integers(3)] = np.nan
    truth[10] = np.nan
    found = verify_index(forecast, truth)
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
        variances = [x.var(ddof=1) for x, _ in pairs if len(x) > 1]
        at = found.isel({LEAD: lead})
        assert int(at.cases) == len(pairs)
        assert float(at.correlation) == pytest.approx(stats.pearsonr(means, ys).statistic)
        assert float(at.rmse) == pytest.approx(np.sqrt(np.mean((means - ys) ** 2)))
        assert float(at.bias) == pytest.approx(np.mean(means - ys))
        assert float(at.crps) == pytest.approx(np.mean(crps))
        assert float(at.spread) == pytest.approx(np.sqrt(np.mean(variances)))
    assert found.attrs == {"missing_members": int(forecast.isnull().sum()), "missing_truths": 3}


def test_an_index_that_cannot_be_scored_is_refused():
    forecast, truth = index_case()
    with pytest.raises(DataError, match=r"truth lacks 2 of the times"):
        verify_index(forecast, truth.isel(time=slice(-3)))
    with pytest.raises(DataError, match="in K, its truth in degC"):
        verify_index(forecast.assign_attrs(units="K"), truth.assign_attrs(units="degC"))
    empty = forecast.copy()
    empty[2:, :, 1] = np.nan
    with pytest.raises(DataError, match="2 initial times at 2 days"):
        verify_index(empty, truth)


def rmm(shared_data) -> tuple[xr.DataArray, xr.DataArray]:
    """GEOS hindcasts of RMM1 and what was observed. Leads are centred on the day: half a day is the day of the start."""
    raw = xr.open_dataset(shared_data / "climpred-data" / "GMAO-GEOS-V2p1.RMM1.nc", decode_times=False)
    starts = pd.Timestamp("1960-01-01") + pd.to_timedelta(raw.S.values.astype("float64"), unit="D")
    leads = pd.to_timedelta(np.floor(raw.L.values).astype(int), unit="D")
    forecast = raw.RMM1.rename(S="time", M="number", L=LEAD).assign_coords({"time": starts, LEAD: leads}).assign_attrs(units="1")
    observed = xr.open_dataset(shared_data / "climpred-data" / "RMM1.observed.interannual.1974-06.2017-07.nc").rmm1.load()
    return forecast.load(), observed


def test_correlations_of_the_geos_hindcasts(shared_data):
    forecast, observed = rmm(shared_data)
    with pytest.raises(DataError, match="145 times of the truth are not known"):
        verify_index(forecast, observed)
    observed = observed.sel(time=observed.time.notnull())
    scores = verify_index(forecast, observed)
    found = scores.correlation.isel({LEAD: [0, 14, 29]})
    np.testing.assert_allclose(found, [0.98, 0.79, 0.45], atol=0.005)
    mean = forecast.mean("number").values[:, 14]
    truth = observed.sel(time=forecast.time.values + forecast[LEAD].values[14]).values
    both = ~np.isnan(mean) & ~np.isnan(truth)
    assert float(scores.correlation[14]) == pytest.approx(stats.pearsonr(mean[both], truth[both]).statistic)
    assert scores.attrs["missing_members"] == int(forecast.isnull().sum())


def test_a_plume_is_a_table(shared_data):
    forecast, truth = index_case(members=9)
    forecast[3, 2:, 1] = np.nan
    truth = truth.isel(time=slice(0, 31))
    table = plume(forecast, truth)
    row = table.loc[(forecast.time.values[3], forecast[LEAD].values[1])]
    assert row.members == 2 and row.valid == pd.Timestamp("2001-01-06")
    assert row["mean"] == pytest.approx(float(forecast[3, :2, 1].mean())) and row.truth == float(truth[5])
    row = table.iloc[0]
    assert row.q25 == pytest.approx(np.quantile(forecast[0, :, 0], 0.25)) and row.deviation == pytest.approx(
        forecast.values[0, :, 0].std(ddof=1)
    )
    assert table.attrs["missing_members"] == 7 and table.attrs["missing_truths"] == int(table.truth.isna().sum()) == 3


def test_a_hovmoller_diagram_is_a_band_mean():
    grid = Grid.regular(18, 36)
    times = pd.date_range("2001-01-01", periods=800)
    rng = np.random.default_rng(0)
    field = xr.DataArray(
        rng.standard_normal((800, 18, 36)),
        {"time": times, "latitude": grid.latitude, "longitude": grid.longitude},
        ["time", "latitude", "longitude"],
        "u",
    )
    field[:, 8, 3] = np.nan
    band = hovmoller(field, -12, 20)
    weights = np.array(
        [
            max(0.0, np.sin(np.deg2rad(min(high, 20))) - np.sin(np.deg2rad(max(low, -12))))
            for low, high in ((80 - 10 * i, 90 - 10 * i) for i in range(18))
        ]
    )
    assert band.dims == ("time", "longitude")
    known = ~np.isnan(field.values)
    expected = np.einsum("tyx,y->tx", np.nan_to_num(field.values), weights) / np.einsum("tyx,y->tx", known, weights)
    np.testing.assert_allclose(band, expected, atol=1e-12)
    cycle = AnnualCycle.fit(band)
    np.testing.assert_allclose(hovmoller(field, -12, 20, cycle), band - cycle.at(times.values).values, atol=1e-12)
    ahead = field.isel(time=slice(1, 5)).assign_coords(time=times[1:5] - times[0]).rename(time=LEAD).assign_coords(time=times[0])
    np.testing.assert_allclose(hovmoller(ahead, -12, 20, cycle), hovmoller(field, -12, 20, cycle)[1:5], atol=1e-12)


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
