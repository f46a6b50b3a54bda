"""Boxes and bands against published numbers, and against means of very many points."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from aeris.data.grid import Grid
from aeris.data.sources import open_era5
from aeris.errors import ConfigurationError, DataError
from aeris.verification import seasons
from aeris.verification.climate import NINO, box_mean, box_weights, hovmoller, nino
from aeris.verification.indices import index_anomalies
from aeris.verification.seasons import AnnualCycle

LEAD, SEA = "prediction_timedelta", "sea_surface_temperature"


@pytest.fixture(scope="session")
def ersst(shared_data) -> xr.Dataset:
    return open_era5(shared_data / "xarray-tutorial" / "sst.mnmean.nc")


def test_nino_34_of_december_2015(ersst):
    """29.25 °C is the plain mean of the cells whose centres lie in the box; by area, the cells on its edges by half, it is 29.26 °C."""
    sea = ersst[SEA].sel(time="2015-12").squeeze("time")
    centres = sea.sel(latitude=slice(5, -5), longitude=slice(190, 240)) - 273.15
    assert round(float(centres.mean()), 2) == 29.25
    edges = np.array([0.5, *[1.0] * 24, 0.5])
    area = np.cos(np.deg2rad(centres.latitude.values)) * [1.0] * 5
    expected = np.average(centres.values, weights=area[:, None] * edges)
    index = nino(ersst, "3.4").sel(time="2015-12").item() - 273.15
    assert index == pytest.approx(expected, abs=1e-3) and round(index, 2) == 29.26


def test_nino_regions_are_those_of_noaa():
    """0 to 10°S, 90°W to 80°W; 5°N to 5°S, 150°W to 90°W; 170°W to 120°W; 160°E to 150°W."""
    equator = {region: (-5, 5, *edges) for region, edges in {"3": (-150, -90), "3.4": (-170, -120), "4": (160, -150)}.items()}
    published = {"1+2": (-10, 0, -90, -80), **equator}
    assert {region: (south, north, west % 360, east % 360) for region, (south, north, west, east) in published.items()} == NINO


@pytest.mark.parametrize("region", NINO)
def test_nino_indices_against_noaa(ersst, shared_data, region):
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
    turns=st.integers(-1, 1),
    shape=st.sampled_from([(8, 16), (9, 16), (33, 24)]),
    seed=st.integers(0, 999),
)
def test_a_box_mean_is_that_of_many_points(south, height, west, width, turns, shape, seed):
    grid, box = Grid.regular(*shape), (south, min(90.0, south + height), west, west + width)
    values = np.random.default_rng(seed).standard_normal(shape)
    field = xr.DataArray(values, {"latitude": grid.latitude, "longitude": grid.longitude}, ["latitude", "longitude"])
    turned = (*box[:3], box[3] + 360 * turns)
    assert float(box_mean(field, turned)) == pytest.approx(by_points(grid, values, box), abs=0.03)
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
    with pytest.raises(ConfigurationError, match="South lies below north"):
        box_mean(field, (10, -10, 155, 215))
    with pytest.raises(DataError, match="pole to pole"):
        box_mean(field.isel(latitude=slice(4, 14)), (-10, 10, 155, 215))


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
