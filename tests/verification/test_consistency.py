"""Physical consistency: the simulated planet, real weather, and states that are broken in one way at a time."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aeris.data.grid import Grid, coarsen
from aeris.data.planet import Planet
from aeris.data.planet_climate import mean_temperature
from aeris.data.variables import GRAVITY
from aeris.errors import ConfigurationError, DataError
from aeris.verification import consistency as room
from aeris.verification.consistency import consistency, diagnose
from aeris.verification.diagnostics import DIAGNOSTICS
from aeris.verification.saturation import saturation_humidity

LEAD = "prediction_timedelta"
Z, U, V, T, Q = "geopotential", "u_component_of_wind", "v_component_of_wind", "temperature", "specific_humidity"


@pytest.fixture(scope="module")
def weather() -> tuple[xr.Dataset, xr.Dataset]:
    """Exact forecasts of a planet, three members from two initial times, and what happened."""
    world = Planet(grid=(16, 32))
    truth = world.simulate(years=0.02, seed=1)
    fc = world.forecast(truth.sel(time=truth.time[[2, 10]]), lead=["6h", "24h"], members=3, seed=5)
    return fc, truth


@pytest.fixture(scope="module")
def state(weather) -> xr.Dataset:
    return weather[1].isel(time=[0]).astype("float64")


def changed(state: xr.Dataset, broken: xr.Dataset) -> set[str]:
    """The diagnostics that tell two states apart."""
    before, after = diagnose(state), diagnose(broken)
    return {str(name) for name in before if not np.allclose(before[name], after[name], rtol=1e-9, equal_nan=True)}


WITH_SURFACE = {"surface_pressure", "dry_air_pressure", "total_water", "kinetic_energy", "total_energy", "excess_water"}
"""What reaches down to the surface."""


def test_everything_is_there_on_the_planet(state):
    found = diagnose(state)
    assert set(found) == set(DIAGNOSTICS) and found.attrs == {"skipped": "", "missing_states": 0}
    assert all(field.notnull().all() and field.attrs["units"] == DIAGNOSTICS[name].units for name, field in found.items())
    assert found["hydrostatic_bias"].dims == ("time", "layer") and found["supersaturation"].dims == ("time", "level")


def test_the_planet_is_hydrostatic_without_vapour(state):
    """Its weather is R T = ∂Φ/∂x, linear in x. Its mean temperature is a parabola: the residual is Simpson's rule less the trapezoidal."""
    dry = diagnose(state.drop_vars(Q), ["hydrostatic_residual", "hydrostatic_bias"])
    for layer, (top, bottom) in {"250-500": (250, 500), "500-850": (500, 850)}.items():
        upper, middle, lower = (mean_temperature(pressure) for pressure in (top, np.sqrt(top * bottom), bottom))
        expected = (upper + 4 * middle + lower) / 6 - (upper + lower) / 2
        assert dry["hydrostatic_bias"].sel(layer=layer).item() == pytest.approx(expected, abs=1e-3)
        assert dry["hydrostatic_residual"].sel(layer=layer).item() == pytest.approx(expected, abs=1e-3)
    moist = diagnose(state, ["hydrostatic_bias"])
    assert (moist["hydrostatic_bias"] - dry["hydrostatic_bias"]).sel(layer="500-850").item() < -0.3


def test_raising_a_level_breaks_the_hydrostatic_balance_alone(state):
    """By 100 m as a whole: no gradient changes, and but for the ground no column."""
    raised = state.assign({Z: state[Z] + 100 * GRAVITY * (state.level == 500)})
    assert changed(state, raised) - WITH_SURFACE - {"negative_water"} == {"hydrostatic_residual", "hydrostatic_bias"}
    without = state.drop_vars("geopotential_at_surface")
    raised = without.assign({Z: without[Z] + 100 * GRAVITY * (without.level == 500)})
    assert changed(without, raised) == {"hydrostatic_residual", "hydrostatic_bias"}
    assert (diagnose(raised)["hydrostatic_residual"] > 4).all()


def test_doubling_the_wind_breaks_its_balance_and_quadruples_its_energy(state):
    doubled = state.assign({U: 2 * state[U], V: 2 * state[V]})
    assert changed(state, doubled) == {"ageostrophic_share", "gradient_wind_share", "kinetic_energy", "total_energy"}
    before, after = diagnose(state), diagnose(doubled)
    np.testing.assert_allclose(after["kinetic_energy"], 4 * before["kinetic_energy"])
    assert (before["ageostrophic_share"] < 0.25).all() and (after["ageostrophic_share"] > 0.4).all()
    assert (after["gradient_wind_share"] > 2 * before["gradient_wind_share"]).all()


def test_negative_humidity_is_found_where_it_is(state):
    broken = state.assign({Q: state[Q].where((state.longitude > 90) | (state.level > 500), -1e-4)})
    found = diagnose(broken, ["negative_humidity", "negative_water"])
    share = float((state.longitude <= 90).mean())
    np.testing.assert_allclose(found["negative_humidity"], [[share, share, 0.0]])
    depths = 100 * np.array([125.0, 300.0])
    assert found["negative_water"].item() == pytest.approx(1e-4 * share * depths.sum() / GRAVITY, rel=0.02)


def test_supersaturation_is_found_where_it_is(state):
    """Twice the saturation in the columns east of 180°: half of the area, and a saturated column in excess there."""
    full = saturation_humidity(state[T], state.level)
    broken = state.drop_vars("geopotential_at_surface").assign({Q: xr.where(state.longitude >= 180, 2 * full, 0.5 * full)})
    found = diagnose(broken, ["supersaturation", "excess_water", "total_water"])
    np.testing.assert_allclose(found["supersaturation"], 0.5)
    half = full.where(state.longitude >= 180, 0.0)
    area = xr.DataArray(Grid.of(state).area, {"latitude": state.latitude}, "latitude")
    column = np.trapezoid(half.transpose(..., "level"), 100 * state.level.values) / GRAVITY
    expected = xr.DataArray(column, dims=("time", "latitude", "longitude"), coords={"latitude": state.latitude}).weighted(area).mean()
    assert found["excess_water"].item() == pytest.approx(expected.item())


def test_mass_that_appears_is_seen(state):
    heavier = state.assign({"mean_sea_level_pressure": state["mean_sea_level_pressure"] + 100})
    assert changed(state, heavier) == {"sea_level_pressure"}
    given = state.assign(surface_pressure=state["mean_sea_level_pressure"])
    more = given.assign(surface_pressure=given["surface_pressure"] + 100)
    apart = diagnose(more) - diagnose(given)
    assert apart["surface_pressure"].item() == pytest.approx(100)
    vapour = GRAVITY * apart["total_water"].item()
    assert vapour > 0 and apart["dry_air_pressure"].item() == pytest.approx(100 - vapour)


def test_what_cannot_be_had_is_named(state):
    found = diagnose(state[[U, V, T]])
    assert set(found) == {"kinetic_energy"}
    assert set(diagnose(state.sel(level=500))) == {"sea_level_pressure"}
    assert "total_water: needs specific_humidity" in found.attrs["skipped"]
    assert "dry_air_pressure: needs surface_pressure and specific_humidity" in found.attrs["skipped"]
    assert "hydrostatic_bias: needs two levels" in diagnose(state.sel(level=[500])).attrs["skipped"]
    with pytest.raises(DataError, match=r"No diagnostic.*needs"):
        diagnose(state[["2m_temperature"]])
    with pytest.raises(DataError, match="geopotential in m"):
        diagnose(state.assign({Z: (state[Z] / GRAVITY).assign_attrs(units="m")}))
    with pytest.raises(ConfigurationError, match="momentum"):
        diagnose(state, ["momentum"])


def test_gaps_are_refused_and_missing_states_counted(state, weather, monkeypatch):
    with pytest.raises(DataError, match=r"12\.5% of temperature is missing"):
        diagnose(state.assign({T: state[T].where(state.longitude >= 45)}), ["hydrostatic_bias"])
    fc, truth = weather
    fewer = fc.copy(deep=True)
    for field in fewer.data_vars.values():
        field[{"number": 2, "time": 0}] = np.nan
    monkeypatch.setattr(room, "PIECE_VALUES", 1)
    fewer, fc = (ds.assign(geopotential_at_surface=truth["geopotential_at_surface"]) for ds in (fewer, fc))
    names = ["kinetic_energy", "hydrostatic_bias"]
    found, expected = diagnose(fewer, names), diagnose(fc, names)
    assert found.attrs["missing_states"] == 2
    for name, field in found.items():
        assert field.dims[:3] == ("time", "number", LEAD)
        xr.testing.assert_allclose(field, expected[name].where((expected.number != 2) | (expected.time != fc.time[0])))
    both = consistency(fewer, truth, ["kinetic_energy"])
    assert both.attrs["missing_states"] == 2
    np.testing.assert_allclose(both["kinetic_energy"].sel(system="forecast"), found["kinetic_energy"].mean(("time", "number")))
    with pytest.raises(DataError, match="No state"):
        diagnose(fc.where(fc.longitude > 400))


def test_statistics_are_averaged_before_roots(weather):
    fc, truth = weather
    found = consistency(fc, truth)
    each = diagnose(fc.assign(geopotential_at_surface=truth["geopotential_at_surface"]))
    valid = fc.time + fc[LEAD]
    happened = diagnose(truth).sel(time=valid).assign_coords(time=fc.time)
    for system, numbers, dims in (("forecast", each, ("time", "number")), ("truth", happened, ("time",))):
        got = found.sel(system=system)
        np.testing.assert_allclose(got["hydrostatic_residual"], (numbers["hydrostatic_residual"] ** 2).mean(dims) ** 0.5)
        np.testing.assert_allclose(got["total_energy"], numbers["total_energy"].mean(dims))
    drift = ((each["total_water"] - happened["total_water"]) ** 2).mean(("time", "number")) ** 0.5
    np.testing.assert_allclose(found["drift.total_water"], drift)
    assert found["ageostrophic_share"].dims == ("system", LEAD, "level")
    assert found["drift.total_water"].attrs["units"] == "kg m**-2"


def test_the_optimum_is_as_consistent_as_the_truth(weather):
    """Exact forecasts hold the balances of the planet at every lead."""
    found = consistency(*weather).drop_vars(["negative_water", "excess_water", "supersaturation", "negative_humidity"])
    for name, field in found.items():
        if not str(name).startswith("drift."):
            np.testing.assert_allclose(field.sel(system="forecast"), field.sel(system="truth"), 0.12, 0.02, err_msg=str(name))


# ------------------------------------------------------------------ real data


@pytest.fixture(scope="module")
def january(shared_data) -> xr.Dataset:
    """NCEP/NCAR reanalysis of 1 to 5 January 2022 on its eight levels with humidity, over the ground of ERA5."""
    files = {"hgt": Z, "air": T, "uwnd": U, "vwnd": V, "shum": Q}
    fields = {}
    for short, name in files.items():
        field = xr.open_dataset(shared_data / "easyclimate-data" / f"{short}_2022_day5.nc", decode_times=False)[short]
        fields[name] = field.drop_attrs().rename(lat="latitude", lon="longitude") * (GRAVITY if short == "hgt" else 1.0)
    ds = xr.Dataset({name: field.sel(level=fields[Q].level) for name, field in fields.items()}).reset_coords(drop=True)
    ground = xr.open_dataset(shared_data / "earth2studio" / "orography.nc").Z.squeeze(drop=True).to_dataset(name="ground")
    ground = coarsen(ground, (73, 144))["ground"].assign_coords(latitude=ds.latitude, longitude=ds.longitude)
    days = np.arange(5) * np.timedelta64(1, "D") + np.datetime64("2022-01-01", "ns")
    return ds.assign(geopotential_at_surface=ground).assign_coords(time=days)


def test_real_weather_is_nearly_balanced_and_keeps_its_mass(january):
    """Dry air weighs 983.05 hPa (Trenberth & Smith 2005, https://doi.org/10.1175/JCLI-3299.1), the vapour of a January some 24 kg m⁻²."""
    found = diagnose(january)
    assert found.attrs["skipped"] == "sea_level_pressure: needs mean_sea_level_pressure"
    aloft = found.sel(level=[300, 500, 700], layer=["400-500", "500-600"])
    assert (aloft["hydrostatic_residual"] < 0.7).all() and (abs(aloft["hydrostatic_bias"]) < 0.4).all()
    assert ((aloft["ageostrophic_share"] > 0.1) & (aloft["ageostrophic_share"] < 0.25)).all()
    assert (aloft["gradient_wind_share"] < 0.7 * aloft["ageostrophic_share"]).all()
    assert (found["ageostrophic_share"].sel(level=1000) > 0.5).all()
    np.testing.assert_allclose(found["surface_pressure"], 98550, atol=150)
    np.testing.assert_allclose(found["dry_air_pressure"], 98305, atol=100)
    assert found["dry_air_pressure"].std() < 20
    np.testing.assert_allclose(found["total_water"], 23.5, atol=1.0)
    assert ((found["kinetic_energy"] > 6e5) & (found["kinetic_energy"] < 1e6)).all()
    assert (found["negative_humidity"] == 0).all() and (found["supersaturation"].sel(level=1000) < 0.1).all()


def test_breaking_real_weather_shows(january):
    one = january.isel(time=[0])
    before = diagnose(one).isel(time=0)
    raised = diagnose(one.assign({Z: one[Z] + 100 * GRAVITY * (one.level == 500)})).isel(time=0)
    layers = ["400-500", "500-600"]
    assert (raised["hydrostatic_residual"].sel(layer=layers) > 10 * before["hydrostatic_residual"].sel(layer=layers)).all()
    np.testing.assert_allclose(raised["ageostrophic_share"], before["ageostrophic_share"])
    doubled = diagnose(one.assign({U: 2 * one[U], V: 2 * one[V]})).isel(time=0)
    assert (doubled["ageostrophic_share"].sel(level=[300, 500]) > 0.4).all()


def test_one_state_without_a_time(state):
    one = diagnose(state.isel(time=0))
    assert one["hydrostatic_bias"].dims == ("layer",) and one["total_water"].dims == ()
    xr.testing.assert_allclose(one, diagnose(state).isel(time=0, drop=True))


def test_budgets_of_uniform_air():
    """250 K, 2 g of vapour a kilogram and 10 m/s on levels of 100 to 1000 hPa: everything times 90 000 Pa / g."""
    levels, grid = np.array([100, 300, 700, 1000]), Grid.regular(16, 32)
    place = {"level": levels, "latitude": grid.latitude, "longitude": grid.longitude}
    fields = {T: 250.0, Q: 0.002, U: 6.0, V: -8.0}
    found = diagnose(xr.Dataset({name: (list(place), np.full((4, 16, 32), value)) for name, value in fields.items()}, place))
    mass = 90_000 / GRAVITY
    assert found["kinetic_energy"].item() == pytest.approx(50 * mass)
    assert found["total_water"].item() == pytest.approx(0.002 * mass)
    assert found["total_energy"].item() == pytest.approx((1004.7 * 250 + 2.501e6 * 0.002 + 50) * mass)
