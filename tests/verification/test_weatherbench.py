"""Scores in another project's layout."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from test_scores import CELLS, area_weights, refused, truth_at_valid_times

import aeris
from aeris.errors import DataError
from aeris.verification.weatherbench import to_weatherbench2


def test_errors_are_mean_squares_under_the_other_project_s_names(beside):
    fc, truth = beside()
    table = to_weatherbench2(aeris.verify(fc, truth))
    assert table["geopotential"].dims == ("metric", "region", "lead_time", "level")
    assert table["2m_temperature"].dims == ("metric", "region", "lead_time")
    assert set(table.metric.values) == {"crps", "ensemble_mean_mse", "debiased_ensemble_mean_mse", "ensemble_variance"}
    assert table.region.values.tolist() == ["global"]
    happened, weights = truth_at_valid_times(fc, truth)["2m_temperature"], area_weights(fc)

    def mean(field: xr.DataArray) -> np.ndarray:
        return field.weighted(weights).mean(("time", *CELLS)).values

    found = table["2m_temperature"].isel(region=0)
    members = fc["2m_temperature"]
    np.testing.assert_allclose(found.sel(metric="ensemble_mean_mse"), mean((members.mean("number") - happened) ** 2))
    np.testing.assert_allclose(found.sel(metric="ensemble_variance"), mean(members.var("number", ddof=1)))


def test_a_single_forecast_has_the_names_of_the_deterministic_evaluation(beside):
    s = aeris.verify(*beside(), regions=["global", "tropics"], seasons=True)
    table = to_weatherbench2(s, "persistence")
    assert set(table.metric.values) == {"mse", "mae", "bias"}
    assert table.region.values.tolist() == ["global", "tropics"]
    expected = s["rmse.geopotential"].sel(system="persistence", season="all", region="tropics") ** 2
    np.testing.assert_allclose(table["geopotential"].sel(metric="mse", region="tropics"), expected)


def test_it_is_written_as_netcdf(beside, tmp_path):
    pytest.importorskip("netCDF4", reason="netCDF4 is not installed")
    table = to_weatherbench2(aeris.verify(*beside()))
    table.to_netcdf(tmp_path / "scores.nc")
    with xr.open_dataset(tmp_path / "scores.nc", decode_timedelta=True) as back:
        xr.testing.assert_allclose(back.load(), table)


def test_what_has_no_place_is_refused(beside):
    s = aeris.verify(*beside(), metrics=["rmse_member"])
    with refused(DataError, "'other'", "forecast, persistence"):
        to_weatherbench2(s, "other")
    with refused(DataError, "rmse_member", "has a place there"):
        to_weatherbench2(s)
