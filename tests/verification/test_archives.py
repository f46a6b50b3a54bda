"""Archives as others lay them out: the same scores, or a refusal that says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import aeris
from aeris.errors import DataError, StoreError
from aeris.verification.archives import open_archive

LEAD = "prediction_timedelta"


@pytest.fixture
def physical(beside):
    """An archive and its truth in values that occur."""

    def make(**how):
        means = {"2m_temperature": 280.0, "geopotential": 55_000.0}
        return tuple(ds.assign({name: ds[name] + mean for name, mean in means.items()}) for ds in beside(levels=(500,), **how))

    return make


def as_weatherbench(fc: xr.Dataset) -> xr.Dataset:
    """One member, longitude before latitude, rows from the south."""
    single = fc.isel(number=0, drop=True).isel(latitude=slice(None, None, -1))
    return single.transpose("time", LEAD, "level", "longitude", "latitude")


def test_weatherbench_2_stores_are_read_as_they_are(beside, tmp_path):
    """Zarr 2 with consolidated metadata, rows from the south, longitude first, without a member dimension."""
    fc, truth = beside(members=1, leads=tuple(range(6, 126, 6)))
    as_weatherbench(fc).to_zarr(tmp_path / "wb2.zarr", zarr_format=2, consolidated=True)
    xr.testing.assert_allclose(aeris.verify(tmp_path / "wb2.zarr", truth), aeris.verify(fc, truth))


@pytest.mark.parametrize(
    "names",
    [
        {"number": "realization"},
        {"time": "init_time", LEAD: "lead_time"},
        {"latitude": "lat", "longitude": "lon", "level": "pressure_level"},
        {"2m_temperature": "t2m", "geopotential": "z"},
    ],
    ids=lambda names: next(iter(names.values())),
)
def test_other_names_mean_the_same(beside, names):
    fc, truth = beside()
    xr.testing.assert_identical(aeris.verify(fc.rename(names), truth), aeris.verify(fc, truth))


def test_columns_from_180_west_are_turned(beside):
    fc, truth = beside()
    west = fc.assign_coords(longitude=(fc.longitude + 180) % 360 - 180).sortby("longitude")
    xr.testing.assert_allclose(aeris.verify(west, truth), aeris.verify(fc, truth))


def test_a_netcdf_file_is_an_archive_too(beside, tmp_path):
    pytest.importorskip("netCDF4")
    fc, truth = beside()
    fc.to_netcdf(tmp_path / "fc.nc")
    xr.testing.assert_allclose(aeris.verify(tmp_path / "fc.nc", truth), aeris.verify(fc, truth))


def test_nothing_and_something_else_are_refused(tmp_path):
    with pytest.raises(StoreError, match="no forecast at"):
        open_archive(tmp_path / "none.zarr")
    (tmp_path / "notes.txt").write_text("no archive")
    with pytest.raises(DataError, match=r"notes\.txt"):
        open_archive(tmp_path / "notes.txt")


@pytest.mark.parametrize("dim", ["time", LEAD, "number"])
def test_a_coordinate_that_stands_twice_is_refused(beside, dim):
    fc, truth = beside()
    twice = fc.isel({dim: [0, 0, 1]})
    with pytest.raises(DataError, match=f"{dim}.*twice"):
        aeris.verify(twice, truth)


# ------------------------------------------------------------------ units


@pytest.mark.parametrize(
    ("name", "change", "unit"),
    [
        ("2m_temperature", lambda field: field - 273.15, "degC"),
        ("geopotential", lambda field: field / 9.80665, "m"),
        ("geopotential", lambda field: field / 98.0665, "dam"),
    ],
)
@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("whose", ["forecast", "truth"])
def test_another_unit_is_refused_whether_it_is_said_or_seen(physical, name, change, unit, said, whose):
    both = dict(zip(("forecast", "truth"), physical(), strict=True))
    both[whose][name] = change(both[whose][name]).assign_attrs({"units": unit} if said else {})
    with pytest.raises(DataError, match=f"{name} is in .*{unit} in the {whose}"):
        aeris.verify(both["forecast"], both["truth"])


def test_a_label_that_the_values_contradict_is_not_believed(physical):
    fc, truth = physical()
    expected = aeris.verify(fc, truth)
    fc["2m_temperature"].attrs["units"] = "degC"
    xr.testing.assert_allclose(aeris.verify(fc, truth), expected)


def test_an_unknown_unit_and_those_of_unknown_variables_are_refused(physical):
    fc, truth = physical()
    fc["2m_temperature"].attrs["units"] = "furlong"
    with pytest.raises(DataError, match="furlong"):
        aeris.verify(fc - 400, truth)
    fc, truth = (ds[["2m_temperature"]].rename({"2m_temperature": "rain"}) for ds in (fc, truth))
    fc["rain"].attrs["units"], truth["rain"].attrs["units"] = "mm", "m"
    with pytest.raises(DataError, match="rain is in mm in the forecast and in m in the truth"):
        aeris.verify(fc, truth)
    truth["rain"].attrs["units"] = ""
    assert "rmse.rain" in aeris.verify(fc, truth)


def test_a_forecast_far_off_is_scored(physical):
    """Values that occur in no unit are a bad forecast, not another unit."""
    fc, truth = physical()
    s = aeris.verify(fc + 3000.0, truth)
    np.testing.assert_allclose(s["bias.2m_temperature"][0], 3000, atol=1)
