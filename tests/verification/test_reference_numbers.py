"""Numbers that others computed from real files: whoever reads them rightly and scores them rightly finds the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import aeris
from aeris.data.variables import GRAVITY
from aeris.verification.balance import geostrophic_wind

LEAD = "prediction_timedelta"


def days(*count: int) -> np.ndarray:
    return np.array(count, "timedelta64[D]").astype("timedelta64[ns]")


def ncep(folder: Path, file: str, name: str) -> xr.DataArray:
    """A variable of NCEP/NCAR Reanalysis 1 from 1 to 5 January 2022, or of its climatology of 1 to 6 January, at 500 hPa."""
    field = xr.open_dataset(folder / "easyclimate-data" / file, decode_times=False)[name].sel(level=[500])
    return field.rename(lat="latitude", lon="longitude").astype("float64")


@pytest.fixture(scope="module")
def heights(shared_data: Path) -> tuple[xr.Dataset, xr.Dataset]:
    """Geopotential of five days, and its climatology by valid time; the file of the latter counts its rows from the south."""
    times = np.datetime64("2022-01-01", "ns") + days(0, 1, 2, 3, 4)
    analysis = ncep(shared_data, "hgt_2022_day5.nc", "hgt").assign_coords(time=times)
    normal = ncep(shared_data, "hgt_day_ltm_1991_2020_0to6day.nc", "hgt").isel(time=slice(5))
    normal = normal.assign_coords(time=times, latitude=analysis.latitude)
    return tuple((field * GRAVITY).to_dataset(name="geopotential") for field in (analysis, normal))


def test_persistence_of_heights_and_of_their_anomalies(heights):
    """Root mean square error and anomaly correlation of the state held, and of its departure from the climatology held."""
    truth, normal = heights
    leads = days(1, 2, 3, 4)
    start = (truth - normal).isel(time=[0]).expand_dims({LEAD: leads})
    valid = xr.DataArray(truth.time.values[:1, None] + leads, {"time": truth.time[:1], LEAD: leads}, ["time", LEAD])
    anomalies = start + normal.rename(time="valid").sel(valid=valid).drop_vars("valid")
    scores = aeris.verify(anomalies, truth, normal, baselines="persistence", metrics=["rmse", "acc"]).sel(level=500)
    rmse = scores["rmse.geopotential"].sel(system="persistence") / GRAVITY
    # By cell areas; with the cosine of latitude the last is 110.2 m.
    assert rmse.values.round(1).tolist() == [52.5, 82.3, 97.9, 110.3]
    acc = scores["acc.geopotential"].round(3)
    assert acc.sel(system="persistence").values.tolist() == [0.915, 0.798, 0.717, 0.655]
    assert acc.sel(system="forecast").values.tolist() == [0.911, 0.795, 0.722, 0.662]


def test_the_wind_of_a_reanalysis_is_nearly_geostrophic(heights, shared_data):
    """From 30°N to 70°N at 500 hPa."""
    wind = ncep(shared_data, "uwnd_2022_day5.nc", "uwnd").isel(time=0, level=0)
    balanced, _ = geostrophic_wind(heights[0]["geopotential"].isel(time=0, level=0))
    band = {"latitude": slice(70, 30)}
    area = np.cos(np.deg2rad(wind.latitude)).broadcast_like(wind).sel(band)
    assert round(float(xr.corr(wind.sel(band), balanced.sel(band), weights=area)), 3) == 0.977


def test_persistence_of_winds_with_an_analysis_missing(shared_data):
    """GFS of 6 to 16 October 2018: forty analyses, of which one is missing on the way; pairs that lack one are skipped and counted."""
    name, leads = "10m_u_component_of_wind", (np.array([6, 24, 72, 120]) * np.timedelta64(1, "h")).astype("timedelta64[ns]")
    truth = aeris.open_era5(shared_data / "simple-wind" / "gfs_1deg_u10v10_6h_20181006-20181016_michael.nc")[[name]]
    held = truth.expand_dims({LEAD: leads})
    scores = aeris.verify(held, truth, baselines=(), metrics="rmse", gaps="skip")
    assert scores[f"rmse.{name}"].sel(system="forecast").values.round(2).tolist() == [2.37, 4.26, 5.26, 5.46]
    assert scores.attrs["missing_truth"] == 4 * 40 - (38 + 35 + 27 + 20)
