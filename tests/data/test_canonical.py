"""Names, units, orders and times: scrambled datasets come back as they were, and doubtful ones are refused."""

from __future__ import annotations

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aeris import open_era5, simulate_planet
from aeris.data.variables import GRAVITY, VARIABLES
from aeris.errors import DataError


def planet() -> xr.Dataset:
    return simulate_planet(years=4 / 365, grid=(16, 32), seed=0)


@pytest.fixture(scope="module")
def simulated() -> xr.Dataset:
    return planet()


@pytest.fixture(scope="module")
def known(simulated: xr.Dataset) -> xr.Dataset:
    """A canonical dataset of every variable."""
    return simulated[[name for name in simulated.data_vars if name in VARIABLES]]


def surface(field: float = 280.0, units: str | None = "K", name: str = "t2m", **attrs: str) -> xr.Dataset:
    """One small global surface field."""
    shape = (2, 4, 8)
    values = np.full(shape, field) + np.linspace(0, 1, np.prod(shape)).reshape(shape) * abs(field) * 1e-3
    coords = {"time": pd.date_range("2020", periods=2), "latitude": [67.5, 22.5, -22.5, -67.5], "longitude": np.arange(8) * 45.0}
    attrs = attrs | ({"units": units} if units else {})
    return xr.Dataset({name: (("time", "latitude", "longitude"), values, attrs)}, coords)


def upper(value: float, level: object, units: str | None, name: str, level_units: str | None = "hPa") -> xr.Dataset:
    """One small global field on one level."""
    ds = surface(value, units, name).expand_dims(level=[level], axis=1)
    if level_units:
        ds.level.attrs["units"] = level_units
    return ds


# --- what is canonical stays ----------------------------------------------------------------------------------------------------


def test_a_canonical_dataset_passes_unchanged(simulated: xr.Dataset) -> None:
    ds = open_era5(simulated)
    xr.testing.assert_identical(ds, simulated)
    assert list(ds) == list(simulated)
    assert all(np.shares_memory(ds[name].values, simulated[name].values) for name in ds)
    assert any(str(name).startswith("planet_") for name in ds)


def test_the_hidden_state_of_a_planet_goes_with_the_selection(simulated: xr.Dataset) -> None:
    part = open_era5(simulated, variables="t2m", time=slice("2001-01-02", "2001-01-02"))
    hidden = [name for name in simulated if str(name).startswith("planet_")]
    assert hidden and list(part) == ["2m_temperature", *hidden]
    xr.testing.assert_identical(part[hidden], simulated[hidden].sel(time="2001-01-02"))


def test_the_input_is_not_changed(known: xr.Dataset) -> None:
    before = known.copy(deep=True)
    open_era5(known.rename(latitude="lat", temperature="t"))
    xr.testing.assert_identical(known, before)


# --- what was scrambled comes back ----------------------------------------------------------------------------------------------

FOREIGN_UNITS = {
    "K": ("degC", 1.0, -273.15),
    "Pa": ("millibars", 0.01, 0.0),
    "m s**-1": ("knots", 3600 / 1852, 0.0),
    "kg kg**-1": ("g/kg", 1000.0, 0.0),
    "m**2 s**-2": ("gpm", 1 / GRAVITY, 0.0),
    "J m**-2": ("W m-2", 1 / 3600, 0.0),
    "1": ("%", 100.0, 0.0),
}


def with_other_names(ds: xr.Dataset, number: int) -> xr.Dataset:
    """Gives every variable the `number`-th of its other names, every second one in capitals."""
    others = {name: (VARIABLES[name].short, *VARIABLES[name].aliases) for name in map(str, ds.data_vars)}
    chosen = {name: names[number % len(names)] for name, names in others.items()}
    return ds.rename({name: other.upper() if number % 2 else other for name, other in chosen.items()})


def in_other_units(ds: xr.Dataset) -> xr.Dataset:
    ds = ds.copy()
    for name, array in ds.data_vars.items():
        units, scale, offset = FOREIGN_UNITS[array.attrs["units"]]
        ds[name] = (array.astype("float64") * scale + offset).assign_attrs(units=units)
    return ds


def with_other_levels(ds: xr.Dataset, kind: int) -> xr.Dataset:
    name, scale, units = [("plev", 100.0, "Pa"), ("isobaricInhPa", 1.0, None), ("lev", 1.0, "mb"), ("pressure_level", 1.0, "hPa")][kind]
    ds = ds.assign_coords(level=ds.level.values[::-1] * scale).isel(level=slice(None, None, -1)) if kind == 3 else ds
    ds = ds.assign_coords(level=("level", ds.level.values * (1.0 if kind == 3 else scale), {"units": units} if units else {}))
    return ds.rename(level=name)


def west_and_east(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign_coords(longitude=(ds.longitude.values + 180.0) % 360.0 - 180.0).sortby("longitude")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    names=st.integers(0, 9), units=st.booleans(), levels=st.integers(0, 2), south_first=st.booleans(), west=st.booleans(),
    short_coordinates=st.booleans(), dims=st.permutations(["time", "level", "latitude", "longitude"]), lazy=st.booleans(),
)  # fmt: skip
def test_a_scrambled_dataset_comes_back(
    known: xr.Dataset,
    names: int,
    units: bool,
    levels: int,
    south_first: bool,
    west: bool,
    short_coordinates: bool,
    dims: list[str],
    lazy: bool,
) -> None:
    ds = known.transpose(*dims)
    ds = in_other_units(ds) if units else ds
    ds = west_and_east(ds) if west else ds
    ds = ds.isel(latitude=slice(None, None, -1)) if south_first else ds
    ds = with_other_levels(with_other_names(ds, names), levels)
    ds = ds.rename(latitude="lat", longitude="lon", time="valid_time") if short_coordinates else ds
    opened = open_era5(ds.chunk() if lazy else ds)
    assert set(opened) == set(known)
    assert all(opened[name].dims == known[name].dims and opened[name].dtype == np.float32 for name in known)
    assert all(opened[name].attrs["units"] == VARIABLES[str(name)].units for name in known)
    xr.testing.assert_allclose(opened, known, rtol=3e-6, atol=3e-5)
    for name in ("time", "level", "latitude", "longitude"):
        np.testing.assert_allclose(opened[name].values.astype(float), known[name].values.astype(float))


# --- units ----------------------------------------------------------------------------------------------------------------------

SPELLINGS = {
    ("t2m", 280.0, 1.0, 0.0): ["K", "kelvin", "degK", "degrees_K"],
    ("t2m", 12.0, 1.0, 273.15): ["degC", "deg_C", "Celsius", "degrees C", "°C", "degree_Celsius"],
    ("msl", 101_000.0, 1.0, 0.0): ["Pa", "Pascals"],
    ("slp", 1010.0, 100.0, 0.0): ["hPa", "millibar", "mb", "mbar", "millibars"],
    ("prmsl", 101.0, 1000.0, 0.0): ["kPa"],
    ("u10", 5.0, 1.0, 0.0): ["m s**-1", "m/s", "m s-1", "m.s-1", "m s^-1", "m*s**-1", "meters/second", "metre s-1"],
    ("v10", 5.0, 0.514444, 0.0): ["knots", "kts"],
    ("v10", 18.0, 1 / 3.6, 0.0): ["km/h", "km h-1"],
    ("tisr", 1e6, 1.0, 0.0): ["J m**-2", "J m-2", "J/m^2"],
    ("rsdt", 300.0, 3600.0, 0.0): ["W m**-2", "W/m2", "W/m^2", "Wm-2"],
    ("lsm", 0.5, 1.0, 0.0): ["1", "(0 - 1)", "fraction"],
    ("sftlf", 50.0, 0.01, 0.0): ["%", "percent"],
    ("orog", 900.0, 9.80665, 0.0): ["m", "gpm", "metres"],
    ("z_sfc", 900.0, 1.0, 0.0): ["m**2 s**-2", "m2/s2", "m2 s-2", "m^2/s^2", "J/kg"],
    ("sst", 20.0, 1.0, 273.15): ["degC"],
}
"""Name in the file, value, and what it must be multiplied by and increased by, for every spelling of one unit."""


@pytest.mark.parametrize("name,value,scale,offset,units", [(*case, units) for case, spellings in SPELLINGS.items() for units in spellings])
def test_every_usual_unit_becomes_si(name: str, value: float, scale: float, offset: float, units: str) -> None:
    raw = surface(value, units, name)
    (array,) = open_era5(raw).data_vars.values()
    source = raw[name] if "time" in array.dims else raw[name][0]
    np.testing.assert_allclose(array, source * scale + offset, rtol=1e-5)


@pytest.mark.parametrize(
    "units,name,value",
    [
        ("m**2 s**-2", "z", 55_000.0),
        ("m2 s-2", "phi", 55_000.0),
        ("m", "z", 5_608.0),
        ("gpm", "gh", 5_608.0),
        ("dam", "z", 560.8),
        ("", "hgt", 5_608.0),
    ],
)
def test_heights_and_geopotential_are_told_apart(units: str, name: str, value: float) -> None:
    assert float(open_era5(upper(value, 500, units, name)).geopotential.mean()) == pytest.approx(55_000.0, rel=2e-3)


INFERRED = [
    ("t2m", 280.0, 280.0), ("t2m", 12.0, 285.15), ("msl", 101_000.0, 101_000.0), ("msl", 1010.0, 101_000.0), ("sst", 20.0, 293.15),
    ("lsm", 1.0, 1.0), ("lsm", 90.0, 0.9), ("tisr", 2e6, 2e6), ("tisr", 600.0, 2.16e6), ("q", 0.012, 0.012), ("q", 12.0, 0.012),
    ("z", 55_000.0, 55_000.0), ("z", 5_600.0, 54_917.0), ("t", 250.0, 250.0), ("t", -20.0, 253.15),
]  # fmt: skip


@pytest.mark.parametrize("name,value,expected", INFERRED)
def test_a_missing_unit_is_inferred_where_the_values_tell_it(name: str, value: float, expected: float) -> None:
    raw = upper(value, 500, None, name) if len(name) == 1 else surface(value, None, name)
    (array,) = open_era5(raw).data_vars.values()
    assert float(array.mean()) == pytest.approx(expected, rel=2e-3)


DOUBTFUL = {
    "wind without a unit": (surface(60.0, None, "u10"), ["'u10'", "no unit", "m s**-1, knots or km h**-1", "attrs['units']"]),
    "little humidity without a unit": (upper(0.001, 500, None, "q"), ["'q'", "no unit", "0.001", "fit none of"]),
    "orography without a unit": (surface(6_000.0, None, "z_sfc"), ["no unit", "m**2 s**-2 or m"]),
    "Celsius labelled Kelvin": (surface(15.0, "K"), ["values from 15 to", "between 160 and 345 K", "look like degC", "= 'degC'"]),
    "Kelvin labelled Celsius": (surface(288.0, "degC"), ["288", "look like K"]),
    "metres labelled m² s⁻²": (upper(5_600.0, 500, "m**2 s**-2", "z"), ["at 500 hPa", "near 55509", "look like m:"]),
    "m² s⁻² labelled metres": (upper(14_000.0, 850, "m", "z"), ["at 850 hPa", "look like m**2 s**-2"]),
    "Pa labelled hPa": (surface(101_000.0, "hPa", "msl"), ["look like Pa"]),
    "g/kg labelled kg/kg": (upper(12.0, 500, "kg/kg", "q"), ["look like g kg**-1"]),
    "another quantity": (surface(3.0, "mm", "t2m"), ["unit 'mm'", "needs K or degC"]),
    "fill values": (surface(-9999.0, "K"), ["-9999", "fill values"]),
    "classes": (surface(3.0, "1", "lsm"), ["3", "land_sea_mask", "== 1"]),
    "lower than the sea ice": (surface(200.0, "K", "sst"), ["sea_surface_temperature lies between 268 and 313 K"]),
}


@pytest.mark.parametrize("raw,words", DOUBTFUL.values(), ids=DOUBTFUL)
def test_a_doubtful_unit_is_refused(raw: xr.Dataset, words: list[str]) -> None:
    with pytest.raises(DataError) as refusal:
        open_era5(raw)
    for word in words:
        assert word in str(refusal.value), str(refusal.value)


def test_values_outside_the_bounded_levels_are_not_judged() -> None:
    """The registry's bounds hold from 50 to 1000 hPa; the mesosphere may be anything."""
    both = xr.concat([upper(310_000.0, 10, "m**2 s**-2", "z"), upper(55_000.0, 500, "m**2 s**-2", "z")], "level")
    assert open_era5(both).level.values.tolist() == [10, 500]


def test_missing_values_are_not_judged() -> None:
    raw = surface(290.0, "K", "sst")
    raw["sst"][:] = np.nan
    assert bool(open_era5(raw).sea_surface_temperature.isnull().all())


# --- names ----------------------------------------------------------------------------------------------------------------------

STANDARD = {
    "air_pressure_at_mean_sea_level": ("mean_sea_level_pressure", 101_000.0, "Pa"),
    "air_pressure_at_sea_level": ("mean_sea_level_pressure", 101_000.0, "Pa"),
    "sea_surface_temperature": ("sea_surface_temperature", 290.0, "K"),
    "surface_altitude": ("geopotential_at_surface", 300.0, "m"),
    "land_area_fraction": ("land_sea_mask", 0.5, "1"),
    "toa_incoming_shortwave_flux": ("toa_incident_solar_radiation", 300.0, "W m-2"),
}


@pytest.mark.parametrize("standard,expected", STANDARD.items(), ids=STANDARD)
def test_standard_names_are_known(standard: str, expected: tuple[str, float, str]) -> None:
    name, value, units = expected
    assert list(open_era5(surface(value, units, "field_1", standard_name=standard))) == [name]


@pytest.mark.parametrize(
    "standard,height,expected",
    [
        ("air_temperature", 2, "2m_temperature"),
        ("eastward_wind", 10, "10m_u_component_of_wind"),
        ("northward_wind", 10, "10m_v_component_of_wind"),
    ],
)
def test_a_height_above_ground_makes_a_surface_field(standard: str, height: int, expected: str) -> None:
    units, value = ("K", 280.0) if height == 2 else ("m/s", 5.0)
    for name in ("field_1", {"air": "t", "eas": "u", "nor": "v"}[standard[:3]]):
        raw = surface(value, units, name, standard_name=standard).assign_coords(height=float(height))
        assert list(open_era5(raw)) == [expected]
    for coords in ({"height": 80.0}, {}):
        with pytest.raises(DataError, match="No variable of the Dataset is known: it holds field_1"):
            open_era5(surface(value, units, "field_1", standard_name=standard).assign_coords(coords))


def test_a_daily_maximum_is_no_temperature() -> None:
    raw = upper(250.0, 500, "K", "field_1")
    raw["field_1"].attrs["standard_name"] = "air_temperature"
    assert list(open_era5(raw)) == ["temperature"]
    raw["field_1"].attrs["cell_methods"] = "time: maximum"
    with pytest.raises(DataError, match="No variable of the Dataset is known: it holds field_1"):
        open_era5(raw)


def test_the_better_of_two_names_is_taken_and_two_equal_ones_refused() -> None:
    raw = surface(101_000.0, "Pa", "mslet").assign(prmsl=surface(102_000.0, "Pa", "prmsl").prmsl)
    assert float(open_era5(raw).mean_sea_level_pressure.mean()) == pytest.approx(102_000.0, rel=1e-3)
    with pytest.raises(DataError, match=r"'PRMSL' and 'prmsl' of the Dataset both look like mean_sea_level_pressure"):
        open_era5(raw.rename(mslet="PRMSL"))


@pytest.mark.parametrize("attrs", [{"long_name": "Geopotential at the surface"}, {"GRIB_typeOfLevel": "surface"}, {}], ids=str)
def test_a_geopotential_from_the_sea_to_the_mountains_is_orography(attrs: dict[str, str]) -> None:
    raw = surface(300.0, "m**2 s**-2", "z", **attrs)
    if not attrs:
        raw["z"][:] = np.linspace(-100.0, 50_000.0, raw.z.size).reshape(raw.z.shape)
    assert list(open_era5(raw)) == ["geopotential_at_surface"]


def test_an_isobaric_surface_is_not_the_ground() -> None:
    raw = surface(5_600.0, "gpm", "hgt", long_name="Geopotential height @ Isobaric surface")
    assert list(open_era5(raw, levels=500)) == ["geopotential"]


def test_a_level_in_metres_is_a_height() -> None:
    """As in the 2 m temperature of the NCEP/NCAR reanalysis, named ``air`` on a ``level`` of 2 m."""
    raw = upper(280.0, 2.0, "degK", "air", "m")
    assert list(open_era5(raw)) == ["2m_temperature"] and "level" not in open_era5(raw).dims


# --- levels ---------------------------------------------------------------------------------------------------------------------


def test_a_named_level_is_given_to_a_field_without_one() -> None:
    raw = surface(270.0, "K", "t")
    ds = open_era5(raw, levels=850)
    assert ds.temperature.dims == ("time", "level", "latitude", "longitude") and ds.level.values.tolist() == [850]
    with pytest.raises(DataError, match=r"'t' of the Dataset names no level.*levels=500\), rename it with ds.rename\(t='2m_temperature'"):
        open_era5(raw)


@pytest.mark.parametrize("height,level", [(5_644.0, 500), (12_033.0, 200), (20_500.0, 50), (6_410.0, None), (300.0, None)])
def test_a_global_height_finds_its_level_only_where_no_other_is_near(height: float, level: int | None) -> None:
    raw = surface(height, "m", "hgt").assign_coords(latitude=[90.0, 30.0, -30.0, -90.0])
    if level:
        assert open_era5(raw).level.values.tolist() == [level]
        raw = raw.isel(longitude=slice(0, 4))
    with pytest.raises(DataError, match="'hgt' of the Dataset names no level"):
        open_era5(raw)


def test_a_scalar_level_becomes_a_dimension() -> None:
    ds = open_era5(upper(270.0, 85_000.0, "K", "t", "Pa").isel(level=0).rename(level="plev"))
    assert ds.temperature.dims == ("time", "level", "latitude", "longitude") and ds.level.values.tolist() == [850]


@pytest.mark.parametrize(
    "values,units,expected",
    [([100_000.0, 50_000.0], None, [500, 1000]), ([500.0, 1000.0], None, [500, 1000]), ([50.0, 100.0], "kPa", [500, 1000])],
)
def test_levels_become_rising_hectopascal(values: list[float], units: str | None, expected: list[int]) -> None:
    raw = xr.concat([upper(250.0 + i, value, "K", "t", units) for i, value in enumerate(values)], "level")
    ds = open_era5(raw)
    assert ds.level.values.tolist() == expected and ds.level.dtype.kind == "i"
    for value, level in zip(values, sorted(expected, reverse=values[0] > values[1]), strict=True):
        np.testing.assert_allclose(ds.temperature.sel(level=level), raw.t.sel(level=value), rtol=1e-6)


def test_levels_between_whole_hectopascal_are_left_out() -> None:
    raw = xr.concat([upper(250.0, 0.5, "K", "t"), upper(260.0, 500.0, "K", "t")], "level")
    assert open_era5(raw).level.values.tolist() == [500]


LEVELS_REFUSED = {
    "model levels": (upper(270.0, 60, "K", "t", None), ["60", "no unit", "interpolated"]),
    "hybrid": (upper(270.0, 60, "K", "t", "1"), ["'level' in '1'", "Interpolate"]),
    "no coordinate": (upper(270.0, 500, "K", "t").drop_vars("level"), ["without a coordinate", "assign_coords(level="]),
    "twice": (xr.concat([upper(270.0, 500, "K", "t")] * 2, "level"), ["500, 500 hPa", "unique"]),
}


@pytest.mark.parametrize("raw,words", LEVELS_REFUSED.values(), ids=LEVELS_REFUSED)
def test_other_levels_are_refused(raw: xr.Dataset, words: list[str]) -> None:
    with pytest.raises(DataError) as refusal:
        open_era5(raw)
    for word in words:
        assert word in str(refusal.value), str(refusal.value)


def test_variables_on_level_dimensions_of_their_own() -> None:
    """As in files where every variable has its own vertical coordinate."""
    winds = xr.concat([upper(5.0, level, "m/s", "u") for level in (500, 850)], "level").rename(level="isobaric")
    temperature = xr.concat([upper(260.0, level, "K", "t") for level in (850, 300)], "level").rename(level="lev")
    with pytest.warns(UserWarning, match="Left out level 300, 500"):
        assert open_era5(winds.merge(temperature)).level.values.tolist() == [850]


# --- grid -----------------------------------------------------------------------------------------------------------------------


def test_a_column_given_twice_is_kept_once() -> None:
    raw = surface().isel(longitude=[0, 1, 2, 3, 4, 5, 6, 7, 0]).assign_coords(longitude=np.arange(9) * 45.0)
    xr.testing.assert_identical(open_era5(raw), open_era5(surface()))


def test_a_region_across_greenwich_keeps_its_values() -> None:
    raw = surface().isel(longitude=slice(0, 4)).assign_coords(longitude=[-20.0, -10.0, 0.0, 10.0])
    ds = open_era5(raw)
    assert ds.longitude.values.tolist() == [0.0, 10.0, 340.0, 350.0]
    np.testing.assert_allclose(ds["2m_temperature"].sel(longitude=340.0), raw.t2m.sel(longitude=-20.0), rtol=1e-6)


def test_rounded_coordinates_are_the_same_grid() -> None:
    """Single precision coordinates of one file and double precision ones of another must not be taken for different points."""
    fine = surface().assign_coords(longitude=np.arange(8) * 0.1, latitude=[0.3, 0.2, 0.1, 0.0])
    coarse = surface(5.0, "m/s", "u10").assign_coords({name: fine[name].astype("float32") for name in ("latitude", "longitude")})
    ds = open_era5([fine, coarse])
    assert dict(ds.sizes) == {"time": 2, "latitude": 4, "longitude": 8}
    np.testing.assert_array_equal(ds.longitude, fine.longitude)
    np.testing.assert_allclose(ds["10m_u_component_of_wind"], coarse.u10, rtol=1e-6)


GRIDS_REFUSED = {
    "unsorted rows": (surface().isel(latitude=[0, 2, 1, 3]), ["latitudes of the Dataset run 67.5, -22.5", "sortby"]),
    "radians": (surface().assign_coords(longitude=[0.0, 1, 2, 3, 4, 5, 6, np.nan]), ["longitudes", "degrees east"]),
    "no coordinate": (surface().drop_vars("latitude"), ["no coordinate for latitude"]),
    "another dimension": (surface().expand_dims(depth=[0.0, 5.0]), ["dimension 'depth' of 2", "ds.isel(depth=0)"]),
}


@pytest.mark.parametrize("raw,words", GRIDS_REFUSED.values(), ids=GRIDS_REFUSED)
def test_other_grids_are_refused(raw: xr.Dataset, words: list[str]) -> None:
    with pytest.raises(DataError) as refusal:
        open_era5(raw)
    for word in words:
        assert word in str(refusal.value), str(refusal.value)


# --- time -----------------------------------------------------------------------------------------------------------------------


def with_times(*times: object, **attrs: str) -> xr.Dataset:
    raw = surface()
    return raw.assign_coords(time=("time", list(times), attrs))


TIMES = {
    "hours since": with_times(0, 24, units="hours since 2020-01-01"),
    "proleptic": with_times(0.0, 1.0, units="days since 2020-01-01", calendar="proleptic_gregorian"),
    "calendar objects": with_times(cftime.DatetimeGregorian(2020, 1, 1), cftime.DatetimeGregorian(2020, 1, 2)),
    "whole seconds": with_times(*np.array(["2020-01-01", "2020-01-02"], "datetime64[s]")),
    "other name": surface().rename(time="date"),
    "validity beside initial time": surface()
    .assign_coords(valid_time=("time", pd.date_range("2020", periods=2)))
    .assign_coords(time=pd.date_range("2019-12-31", periods=2)),
    "lead times of one forecast": surface()
    .rename(time="step")
    .assign_coords(
        step=pd.to_timedelta([24, 48], "h"), time=pd.Timestamp("2019-12-31"), valid_time=("step", pd.date_range("2020", periods=2))
    ),
}


@pytest.mark.parametrize("raw", TIMES.values(), ids=TIMES)
def test_times_of_the_standard_calendar_are_understood(raw: xr.Dataset) -> None:
    xr.testing.assert_equal(open_era5(raw), open_era5(surface()))


def test_a_single_time_becomes_a_dimension() -> None:
    ds = open_era5(surface().isel(time=1))
    assert ds.time.values.tolist() == [pd.Timestamp("2020-01-02").value] and ds["2m_temperature"].dims[0] == "time"


TIMES_REFUSED = {
    "noleap": (with_times(0, 1, units="days since 2020-01-01", calendar="noleap"), ["calendar 'noleap'", "standard calendar"]),
    "360 days": (with_times(cftime.Datetime360Day(2020, 1, 1), cftime.Datetime360Day(2020, 1, 2)), ["360_day"]),
    "before the calendar": (with_times(*np.array(["0001-01-01", "0001-01-02"], "datetime64[us]")), ["year 1", "climatology"]),
    "missing": (with_times(np.datetime64("NaT", "ns"), np.datetime64("2020", "ns")), ["A time of the Dataset is missing"]),
    "bare numbers": (with_times(0, 1), ["[0 1]", "hours since"]),
    "months since": (with_times(0, 1, units="fortnights since 2020-01-01"), ["fortnights", "cannot be decoded"]),
    "none": (surface().isel(time=0, drop=True), ["'t2m' of the Dataset has no time", "pd.Timestamp"]),
    "twice": (with_times(*pd.to_datetime(["2020-01-01", "2020-01-01"])), ["2020-01-01 00:00:00 stands twice"]),
    "unsorted": (with_times(*pd.to_datetime(["2020-01-02", "2020-01-01"])), ["2020-01-01 00:00:00 follows 2020-01-02", "sortby('time')"]),
    "a table of forecasts": (
        surface()
        .expand_dims(step=pd.to_timedelta([6, 12], "h"))
        .assign_coords(valid_time=(("step", "time"), np.zeros((2, 2), "datetime64[ns]"))),
        ["depend on step and time", "aeris.open_forecast"],
    ),
}


@pytest.mark.parametrize("raw,words", TIMES_REFUSED.values(), ids=TIMES_REFUSED)
def test_other_times_are_refused(raw: xr.Dataset, words: list[str]) -> None:
    with pytest.raises(DataError) as refusal:
        open_era5(raw)
    for word in words:
        assert word in str(refusal.value), str(refusal.value)


def test_static_fields_need_no_time() -> None:
    ds = open_era5(surface(0.5, "1", "lsm").merge(surface()))
    assert ds.land_sea_mask.dims == ("latitude", "longitude") and ds["2m_temperature"].dims[0] == "time"
    assert "time" not in open_era5(surface(0.5, "1", "lsm").isel(time=0, drop=True))


@pytest.mark.parametrize("name", ["realization", "member", "number", "ens"])
def test_members_stand_after_time_and_a_single_one_is_dropped(name: str) -> None:
    raw = surface().expand_dims({name: 3})
    assert open_era5(raw)["2m_temperature"].dims == ("time", "number", "latitude", "longitude")
    assert "number" not in open_era5(surface().assign_coords({name: 0})).coords
