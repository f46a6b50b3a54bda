"""The simulated planet: its law against formulae worked out here with ducc0, its fields against balances and the real earth."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import timedelta

import ducc0
import numpy as np
import pytest
import xarray as xr
from scores.probability import crps_for_ensemble

from aeris.data.planet import MODES, Planet, saturation, simulate_planet
from aeris.data.planet_climate import GAS_CONSTANT, LEVELS, season, vertical_modes
from aeris.data.planet_modes import modes_of
from aeris.data.spherical import RADIUS, ROTATION, linear_balance
from aeris.data.variables import SEA_ICE_POINT, VARIABLES, parse_channel
from aeris.errors import ConfigurationError, DataError

DAY = 86400.0


@pytest.fixture(scope="module")
def world() -> Planet:
    return Planet((32, 64), seed=0)


@pytest.fixture(scope="module")
def year(world) -> xr.Dataset:
    return world.simulate(years=1.0, start="2001-01-01", seed=0)


@pytest.fixture(scope="module")
def small() -> Planet:
    return Planet((16, 32), seed=3)


def _channel(ds: xr.Dataset, name: str) -> xr.DataArray:
    channel = parse_channel(name)
    field = ds[channel.variable.name]
    return field if channel.level is None else field.sel(level=channel.level, drop=True)


def _mean(field: np.ndarray, world: Planet) -> np.ndarray:
    """Mean over the globe, of the points that are not missing."""
    weight = np.broadcast_to(world.grid.area[:, None], world.grid.shape) * np.isfinite(field)
    return (np.nan_to_num(field.astype(np.float64)) * weight).sum((-2, -1)) / weight.sum((-2, -1))


# --- what it writes


@pytest.mark.parametrize(("grid", "years"), [((16, 32), 0.5), ((32, 64), 0.1), ((48, 96), 0.02)])
def test_canonical_dataset_inside_the_bounds(grid, years):
    ds = simulate_planet(years=years, grid=grid, seed=5)
    world = Planet.of(ds)
    assert world.grid.shape == grid and world.seed == 5 and len(world.channels) == 20
    assert ds.sizes["time"] == round(years * 1461) and ds.time.dtype == "datetime64[ns]"
    assert np.all(np.diff(ds.time) == np.timedelta64(6, "h"))
    assert ds.level.values.tolist() == list(LEVELS) and ds.latitude[0] > ds.latitude[-1] and ds.longitude[0] == 0
    registered = [name for name in ds.data_vars if not name.startswith("planet_")]
    assert len(registered) == 13
    for name in registered:
        variable, field = VARIABLES[name], ds[name]
        dims = () if variable.kind == "static" else (("time", "level") if variable.pressure else ("time",))
        assert field.dims == (*dims, "latitude", "longitude") and field.dtype == np.float32
        assert field.attrs["units"] == variable.units and field.attrs["long_name"] == variable.long_name
        assert variable.bounds[0] <= float(field.min()) and float(field.max()) <= variable.bounds[1], name
        assert name == "sea_surface_temperature" or bool(field.notnull().all())


def test_sea_surface_temperature_is_missing_over_land_and_freezes(year):
    land = year.land_sea_mask.values > 0.5
    assert 0.2 < land.mean() < 0.4
    sea = year.sea_surface_temperature.values
    assert np.all(np.isnan(sea[:, land])) and np.all(sea[:, ~land] >= np.float32(SEA_ICE_POINT))
    assert np.any(sea[:, ~land] == np.float32(SEA_ICE_POINT))


@pytest.mark.parametrize("seed", [1, 2])
def test_any_seed_has_land_and_sea_and_another_planet(world, seed):
    other = Planet((32, 64), seed)
    assert 0.25 < _mean(other.climate.land, other) < 0.35
    assert not np.array_equal(other.climate.land, world.climate.land)
    assert 1000 < other.climate.surface_geopotential.max() / 9.81 < 6000


def test_a_planet_is_the_same_at_every_resolution(world):
    fine = Planet((96, 192), seed=0).climate.land.reshape(32, 3, 64, 3)[:, 1, :, 0]
    np.testing.assert_allclose(fine, world.climate.land, atol=1e-5)


# --- realism: the numbers are global means and deviations of the earth


def test_weather_has_the_earth_s_deviations(world, year):
    """Deviation from the seasonal and diurnal cycle over the globe, and over six hours; within a fifth of the earth's."""
    c = season(year.time.values)
    hours = (np.arange(len(c)) % 4)[:, None] == np.arange(4)
    cycle = np.concatenate([hours, hours * c[:, None]], axis=1).astype(np.float64)
    for name, deviation in {
        "geopotential_500": 1190,
        "mean_sea_level_pressure": 1090,
        "u_component_of_wind_250": 9.4,
        "temperature_850": 5.1,
    }.items():
        series = _channel(year, name).values.reshape(len(c), -1).astype(np.float64)
        rest = series - cycle @ np.linalg.lstsq(cycle, series, rcond=None)[0]
        assert np.sqrt(_mean((rest**2).mean(0).reshape(world.grid.shape), world)) == pytest.approx(deviation, rel=0.2), name
    for name, deviation in {"geopotential_500": 272, "2m_temperature": 2.3}.items():
        change = np.diff(_channel(year, name).values.astype(np.float64), axis=0)
        assert np.sqrt(_mean((change**2).mean(0), world)) == pytest.approx(deviation, rel=0.2), name


@pytest.mark.parametrize(
    ("name", "value", "tolerance"),
    [
        ("geopotential_500", 55400, 300),
        ("temperature_850", 280, 1.5),
        ("2m_temperature", 287, 1.5),
        ("mean_sea_level_pressure", 101150, 200),
    ],
)
def test_global_means_are_the_earth_s(world, year, name, value, tolerance):
    assert abs(_mean(_channel(year, name).values[::11], world).mean() - value) < tolerance


def test_means_and_deviations_are_those_of_era5(world, year, shared_data):
    """ERA5 over the globe and all seasons, from the table of NVIDIA PhysicsNeMo."""
    short = {"Z": "geopotential", "U": "u_component_of_wind", "V": "v_component_of_wind", "T": "temperature", "Q": "specific_humidity"}
    with open(shared_data / "physicsnemo" / "era5_13_levels_stats.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["variable"] in short and int(row["level"]) in LEVELS]
    assert len(rows) == 15
    for row in rows:
        field = _channel(year, f"{short[row['variable']]}_{row['level']}").values[::13]
        mean = _mean(field, world).mean()
        deviation = np.sqrt(_mean(((field.astype(np.float64) - mean) ** 2).mean(0), world))
        assert abs(mean - float(row["mean"])) < 0.45 * float(row["std"]), row
        assert 0.6 < deviation / float(row["std"]) < 1.4, (row, deviation)


def test_kinetic_energy_falls_with_the_third_power(year):
    some = year.sel(level=500).isel(time=slice(0, None, 30))
    winds = zip(some.u_component_of_wind.values, some.v_component_of_wind.values, strict=True)
    power = np.mean([_vector_power(u, v) for u, v in winds], axis=0)
    degrees = np.arange(12, 27)
    slope = np.polyfit(np.log(degrees), np.log(power[degrees]), 1)[0]
    assert -3.4 < slope < -2.3


def _vector_power(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Kinetic energy by degree, by ducc0."""
    parts = ducc0.sht.analysis_2d(map=np.stack([-v, u]).astype(np.float64), spin=1, lmax=31, geometry="F1")
    degree, order = modes_of(31).degree, modes_of(31).order
    return np.bincount(degree, (np.where(order > 0, 2, 1) * np.abs(parts) ** 2).sum(0))


def test_storms_live_in_the_middle_latitudes_and_in_winter(year):
    def storminess(months: list[int], rows: slice) -> float:
        pressure = year.mean_sea_level_pressure.sel(latitude=rows)
        return float(pressure.sel(time=pressure.time.dt.month.isin(months)).std("time").mean())

    winter, summer, north, tropics = [12, 1, 2], [6, 7, 8], slice(60, 45), slice(8, -8)
    assert storminess(winter, north) > 4 * storminess(winter, tropics)
    assert storminess(winter, north) > 1.2 * storminess(summer, north)


def test_seasons_are_opposite_in_the_hemispheres(year):
    def july_less_january(rows: slice) -> float:
        month = year["2m_temperature"].sel(latitude=rows).groupby("time.month").mean(...)
        return float(month.sel(month=7) - month.sel(month=1))

    assert july_less_january(slice(60, 40)) > 8
    assert july_less_january(slice(-40, -60)) < -5


def test_land_warms_by_day_and_the_sea_does_not(year):
    tropics = year.sel(latitude=slice(30, -30))
    by_hour = tropics["2m_temperature"].groupby("time.hour").mean()
    span = by_hour.max("hour") - by_hour.min("hour")
    assert 3 < float(span.where(tropics.land_sea_mask > 0.9).mean()) < 15
    assert float(span.where(tropics.land_sea_mask < 0.02).mean()) < 0.6


# --- balances


def _streamfunction(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Packed coefficients of ψ from the wind k × ∇ψ on the regular grid, by ducc0; the curl part of (southward, eastward) wind."""
    degree = modes_of(len(u) - 1).degree
    _, curl = ducc0.sht.analysis_2d(map=np.stack([-v, u]).astype(np.float64), spin=1, lmax=len(u) - 1, geometry="F1")
    return curl * RADIUS / np.sqrt(np.maximum(degree * (degree + 1), 1))


def test_wind_has_no_divergence_and_geopotential_balances_it(world, year):
    """The wind is taken apart by ducc0; ∇²Φ = ∇·(f ∇ψ) of its streamfunction is formed on the Gaussian rows."""
    state = year.isel(time=777)
    degree = world.modes.degree
    for level in LEVELS:
        u, v, z = (state[name].sel(level=level).values for name in ("u_component_of_wind", "v_component_of_wind", "geopotential"))
        divergent, curl = ducc0.sht.analysis_2d(map=np.stack([-v, u]).astype(np.float64), spin=1, lmax=31, geometry="F1")
        assert np.abs(divergent).max() < 1e-6 * np.abs(curl).max()
        assert np.abs(curl[degree == 31]).max() < 1e-6 * np.abs(curl).max()
        shape = {"geometry": "GL", "ntheta": 48, "nphi": 72}
        slope = ducc0.sht.synthesis_2d(alm=_streamfunction(u, v)[None] / RADIUS, spin=1, mode="DERIV1", lmax=31, **shape)
        coriolis = 2 * ROTATION * np.cos(np.asarray(ducc0.misc.GL_thetas(48)))[:, None]
        flux = ducc0.sht.analysis_2d(map=coriolis * slope, spin=1, lmax=31, geometry="GL")[0]
        balanced = flux * RADIUS / np.sqrt(np.maximum(degree * (degree + 1), 1))
        phi = ducc0.sht.analysis_2d(map=z[None].astype(np.float64), spin=0, lmax=31, geometry="F1")[0]
        np.testing.assert_allclose(phi[1:], balanced[1:], atol=1e-5 * np.abs(balanced).max())


def test_wind_is_the_slope_of_the_streamfunction_by_differences(world, year):
    """Centred differences on a grid 27 times finer, at the points of the coarse one: u = -a⁻¹ ∂ψ/∂φ, v = (a cos φ)⁻¹ ∂ψ/∂λ."""
    state = year.isel(time=500).sel(level=250)
    u, v = state.u_component_of_wind.values, state.v_component_of_wind.values
    psi = ducc0.sht.synthesis_2d(alm=_streamfunction(u, v)[None], spin=0, lmax=31, geometry="F1", ntheta=27 * 32, nphi=27 * 64)[0]
    step = np.pi / (27 * 32)
    northward = (psi[12::27, ::27] - psi[14::27, ::27]) / (2 * step)
    eastward = (np.roll(psi, -1, 1) - np.roll(psi, 1, 1))[13::27, ::27] / (2 * step) / np.cos(np.deg2rad(world.grid.latitude))[:, None]
    np.testing.assert_allclose(u, -northward / RADIUS, atol=0.1)
    np.testing.assert_allclose(v, eastward / RADIUS, atol=0.1)


def test_temperature_is_hydrostatic(year):
    """Φ₂₅₀ - Φ₈₅₀ = R ∫ T dx, x = -ln p: a parabola through three levels is integrated exactly."""
    state = year.isel(time=slice(0, None, 97))
    x = np.log(1000 / np.array(LEVELS))
    temperature = np.moveaxis(state.temperature.values.astype(np.float64), 1, 0).reshape(3, -1)
    coefficients = np.linalg.solve(np.vander(x, 3, increasing=True), temperature)
    for upper, lower in ((0, 2), (0, 1), (1, 2)):
        powers = np.array([(x[upper] ** k - x[lower] ** k) / k for k in (1, 2, 3)])
        thickness = state.geopotential.values[:, upper].astype(np.float64) - state.geopotential.values[:, lower]
        np.testing.assert_allclose(thickness.ravel(), GAS_CONSTANT * powers @ coefficients, atol=0.3)


def test_saturation_is_that_of_the_tables():
    """Saturation vapour pressure over water: 6.11 hPa at 0 °C, 23.37 at 20 °C, 1.25 at -20 °C (Smithsonian Meteorological Tables)."""
    for celsius, vapour in ((0, 6.107), (20, 23.37), (-20, 1.254)):
        q = saturation(np.array(273.15 + celsius), np.array(850.0))
        assert q == pytest.approx(0.622 * vapour / (850 - 0.378 * vapour), rel=5e-3)


# --- one time of the fields tells the modes


def _hidden(ds: xr.Dataset) -> np.ndarray:
    parts = ds[MODES].values.astype(np.float64)
    return parts[..., 0] + 1j * parts[..., 1]


def _masked(world: Planet, psi: np.ndarray, c: float) -> np.ndarray:
    """The storm track's product with one streamfunction, projected, by ducc0 in double precision."""
    track = world.climate.storm_track.mean.astype(np.float64) + c * world.climate.storm_track.season
    shape = {"lmax": world.grid.shape[0] - 1, "spin": 0, "geometry": "GL"}
    field = ducc0.sht.synthesis_2d(alm=psi[None], ntheta=track.shape[0], nphi=track.shape[1], **shape)
    product = ducc0.sht.analysis_2d(map=field * track, **shape)[0]
    return np.where((world.modes.degree > 0) & (world.modes.degree < world.modes.degree.max()), product, 0)


def test_the_fields_of_one_time_determine_the_streamfunction_modes(world, year):
    """Wind to streamfunction, levels to vertical modes, less the climate, and the storm track undone by Richardson's iteration."""
    state = year.isel(time=123)
    c = float(season(np.atleast_1d(state.time.values))[0])
    winds = [(state.u_component_of_wind.sel(level=level).values, state.v_component_of_wind.sel(level=level).values) for level in LEVELS]
    levels = np.stack([_streamfunction(u, v) for u, v in winds])
    weather = np.linalg.solve(vertical_modes(LEVELS).T, levels) - world.climate.streamfunction.at(np.array([c]))[0]
    largest = np.max(world.climate.storm_track.at(np.array([c])))
    for found, true in zip(weather, _hidden(state)[:3], strict=True):
        estimate = np.zeros_like(found)
        for _ in range(100):
            estimate += (found - _masked(world, estimate, c)) / largest
        estimate[world.modes.degree == 0] = 0
        assert np.linalg.norm(estimate - true) < 1e-3 * np.linalg.norm(true)


def test_the_fields_of_one_time_determine_humidity_and_the_sea(world, year):
    state = year.isel(time=[123])
    c = season(state.time.values)
    relative = state.specific_humidity.values / saturation(state.temperature.values.astype(np.float64), np.array(LEVELS)[:, None, None])
    logit = np.log(relative / (1 - relative)) - world.climate.humidity.at(c)
    modes = np.ascontiguousarray(_hidden(state)[0, 3:])
    shape = {"spin": 0, "lmax": 31, "geometry": "F1", "ntheta": 32, "nphi": 64}
    humidity, sea = (ducc0.sht.synthesis_2d(alm=one[None], **shape)[0] for one in modes)
    np.testing.assert_allclose(logit[0], np.broadcast_to(humidity, (3, 32, 64)), atol=2e-3)
    seen = state.sea_surface_temperature.values[0] - world.climate.sea_surface_temperature.at(c)[0]
    liquid = state.sea_surface_temperature.values[0] > SEA_ICE_POINT
    np.testing.assert_allclose(seen[liquid], sea[liquid], atol=1e-4)


# --- the law


def test_law_has_the_published_times_speeds_and_sizes():
    law = modes_of(63)
    degree, order = law.degree, law.order

    def at(field: int, l: int, m: int) -> int:  # noqa: E741
        return int(np.flatnonzero((degree == l) & (order == m))[0])

    assert law.damping_time[0, at(0, 1, 0)] == pytest.approx(14 * DAY, rel=0.01)
    assert law.damping_time[0, at(0, 60, 0)] == pytest.approx(4 * DAY, rel=0.01)
    for field, (speed, stretching) in enumerate(((20, 8), (16, 30), (12, 80))):
        turning = speed / RADIUS
        haurwitz = turning - 2 * (ROTATION + turning) / (7 * 8 + stretching)
        assert law.frequency[field, at(field, 7, 5)] == pytest.approx(-5 * haurwitz, rel=1e-9)
    sizes = np.sqrt((law.deviation**2 * np.where(order > 0, 2, 1)).sum(1) / (4 * np.pi))
    np.testing.assert_allclose(sizes, [1.65e7, 9.5e6, 3.2e6, 0.9, 1.0], rtol=0.07)
    coarse = modes_of(31)
    inner = degree < 31
    np.testing.assert_allclose(law.deviation[:, inner & (degree < 31)], coarse.deviation[:, coarse.degree < 31])


@pytest.mark.parametrize(("degree", "order", "hours", "eastward"), [(24, 12, 6, True), (2, 2, 24, False)])
def test_short_waves_travel_east_and_planetary_waves_west(world, year, degree, order, hours, eastward):
    """One wave of the first vertical mode, seen in the geopotential, moves by the Rossby-Haurwitz speed and fades.

    The forecasts with and without it share noise and climate, so that their difference is the wave alone.
    """
    still = year.isel(time=0).copy(deep=True)
    still[MODES][:] = 0
    with_wave = still.copy(deep=True)
    index = np.flatnonzero((world.modes.degree == degree) & (world.modes.order == order))[0]
    with_wave[MODES][0, index, 0] = world.modes.deviation[0, index]

    def wave(lead: str) -> complex:
        one, other = (world.forecast(state, lead, members=1).geopotential.sel(level=500) for state in (with_wave, still))
        return np.fft.rfft(one.values[0, 4:10].astype(np.float64) - other.values[0, 4:10])[:, order].sum()

    ratio = wave(f"{hours}h") / wave("1s")
    turning = 20 / RADIUS
    angle = order * hours * 3600 * (turning - 2 * (ROTATION + turning) / (degree * (degree + 1) + 8))
    assert (angle > 0) == eastward
    assert -np.angle(ratio) == pytest.approx(angle, abs=0.03)  # the storm track is not quite zonal
    assert abs(ratio) == pytest.approx(np.exp(-hours * 3600 / world.modes.damping_time[0, index]), rel=0.03)


def test_simulation_follows_the_law(world, year):
    """Each mode regressed on itself six hours before gives exp((-1/τ + iω) Δ); the rest has the variance σ² (1 - exp(-2Δ/τ))."""
    modes, law = _hidden(year), world.modes
    live = law.deviation > 0
    now, then = modes[:-1][:, live], modes[1:][:, live]
    power = (np.abs(now) ** 2).sum(0)
    factor = (np.conj(now) * then).sum(0) / power
    tau, omega = law.damping_time[live], law.frequency[live]
    expected = np.exp((-1 / tau + 1j * omega) * 6 * 3600)
    count = len(now)
    error = np.sqrt(1 - np.abs(expected) ** 2) / np.sqrt(count)  # of one complex estimate; less a bias of order 1/count
    assert np.abs(np.mean((factor - expected) / error)) < 0.5
    assert 0.85 < np.sqrt(np.mean(np.abs((factor - expected) / error) ** 2)) < 1.3
    noise = (np.abs(then - expected * now) ** 2).mean(0) / (law.deviation[live] ** 2 * -np.expm1(-2 * 6 * 3600 / tau))
    assert noise.mean() == pytest.approx(1, abs=0.01) and noise.std() < 0.06
    by_field = [noise[np.nonzero(live)[0] == field].mean() for field in range(5)]
    np.testing.assert_allclose(by_field, 1, atol=0.015)


def test_simulation_starts_stationary(small):
    first = np.stack([_hidden(small.simulate(0.0007, seed=seed))[0] for seed in range(80)])
    live = small.modes.deviation > 0
    ratio = (np.abs(first) ** 2).mean(0)[live] / small.modes.deviation[live] ** 2
    assert ratio.mean() == pytest.approx(1, abs=0.03)
    assert np.all(first[:, ~live] == 0) and np.all(first[..., small.modes.order == 0].imag == 0)


# --- the exact forecast


def _linear_map(world: Planet, channel: str, c: float) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Weather part of a channel as a matrix on the real degrees of freedom of the streamfunction, made with ducc0 alone."""
    rows, columns = world.grid.shape
    degree, order = world.modes.degree, world.modes.order
    shape = {"lmax": rows - 1, "geometry": "F1", "ntheta": rows, "nphi": columns}
    name, _, level = channel.rpartition("_")
    profile = vertical_modes(int(level))

    def field(psi: np.ndarray) -> np.ndarray:
        if name == "geopotential":
            return ducc0.sht.synthesis_2d(alm=linear_balance(psi, degree, order)[None], spin=0, **shape)[0]
        southward, eastward = ducc0.sht.synthesis_2d(alm=psi[None] / RADIUS, spin=1, mode="DERIV1", **shape)
        return eastward if name.startswith("v") else southward

    units = [(j, part) for j in np.flatnonzero((degree > 0) & (degree < rows - 1)) for part in (1, 1j) if part == 1 or order[j] > 0]
    columns_of = []
    for j, part in units:
        unit = np.zeros(len(degree), np.complex128)
        unit[j] = part
        columns_of.append(field(_masked(world, unit, c)).ravel())
    matrix = np.stack([k * column for k in profile for column in columns_of], axis=1)

    def freedoms(modes: np.ndarray) -> np.ndarray:
        return np.concatenate([[modes[k, j].real if part == 1 else modes[k, j].imag for j, part in units] for k in range(3)])

    return matrix, freedoms


def _law_at(world: Planet, start: xr.Dataset, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the modes a time ahead, and the variance of each part of them, from the formula of the process."""
    law = world.modes
    mean = np.exp((-1 / law.damping_time + 1j * law.frequency) * seconds) * _hidden(start)
    variance = law.deviation**2 * -np.expm1(-2 * seconds / law.damping_time) * np.where(law.order > 0, 0.5, 1)
    return mean, variance * (1 + 1j)


@pytest.mark.parametrize("channel", ["geopotential_500", "v_component_of_wind_250"])
@pytest.mark.parametrize(("lead", "hours"), [("6h", 6), ("3D", 72), (["6h", "12h", "18h", "24h"], 24)], ids=["6h", "3D", "chain"])
def test_forecast_has_the_analytic_mean_and_variance(small, channel, lead, hours):
    """The same formulae, however many steps lead there; those of 24 h hold for a chain of four."""
    members = 400
    start = small.simulate(years=0.02, seed=1).isel(time=20)
    still = start.copy(deep=True)
    still[MODES][:] = 0

    def sample(state: xr.Dataset, count: int) -> np.ndarray:
        field = _channel(small.forecast(state, lead, count, seed=2), channel)
        return (field if isinstance(lead, str) else field.isel(prediction_timedelta=-1)).values.reshape(count, -1).astype(np.float64)

    valid = start.time.values + np.timedelta64(hours, "h")
    matrix, freedoms = _linear_map(small, channel, float(season(np.array([valid]))[0]))
    mean, variance = _law_at(small, start, hours * 3600)
    values = sample(start, members)
    share = matrix @ freedoms(mean)
    # A member from modes at rest has the same noise and climate, so that the difference is the mean without scatter.
    np.testing.assert_allclose(values[0] - sample(still, 1)[0], share, atol=1e-4 * np.abs(values).max() if "geo" in channel else 1e-3)
    assert np.abs(share).max() > (1000 if "geo" in channel else 5)
    ratio = values.var(axis=0, ddof=1) / (matrix**2 @ freedoms(variance))
    assert ratio.mean() == pytest.approx(1, abs=0.03)
    assert ratio.min() > 0.7 and ratio.max() < 1.35


def test_members_scatter_about_the_analytic_mean(small):
    """The mean of many members against climate and modes: z-scores of the right size everywhere, and no bias."""
    members, hours = 600, 24
    start = small.simulate(years=0.02, seed=4).isel(time=7)
    values = _channel(small.forecast(start, "24h", members, seed=9), "u_component_of_wind_500").values.reshape(members, -1)
    c = season(np.array([start.time.values + np.timedelta64(hours, "h")]))
    matrix, freedoms = _linear_map(small, "u_component_of_wind_500", float(c[0]))
    mean, variance = _law_at(small, start, hours * 3600)
    climate = vertical_modes(500) @ small.climate.streamfunction.at(c)[0].astype(np.complex128) / RADIUS
    jets = ducc0.sht.synthesis_2d(alm=climate[None], spin=1, mode="DERIV1", lmax=15, geometry="F1", ntheta=16, nphi=32)[0].ravel()
    error = np.sqrt(matrix**2 @ freedoms(variance) / members)
    score = (values.astype(np.float64).mean(0) - matrix @ freedoms(mean) - jets) / error
    assert np.abs(score).max() < 5 and 0.7 < np.sqrt((score**2).mean()) < 1.3


@pytest.fixture(scope="module")
def verified(world, year) -> tuple[xr.Dataset, xr.Dataset]:
    """Forty forecasts of eight members, nine days apart, and what came; both ``(time, [number,] prediction_timedelta, ...)``."""
    times = year.time.values[8:-8:36][:40]
    forecast = world.forecast(year.sel(time=times), ["6h", "24h"], members=8, seed=3)
    leads = forecast.prediction_timedelta
    came = [year[list(forecast.data_vars)].sel(time=times + lead).assign_coords(time=times) for lead in leads.values]
    truth = xr.concat(came, dim="prediction_timedelta").assign_coords(prediction_timedelta=leads)
    return forecast, truth.transpose("time", "prediction_timedelta", ...)


def test_the_optimum_is_calibrated(world, verified):
    """Spread (with its finite-ensemble factor) equals the error of the mean, for every Gaussian channel at 6 h and at 24 h."""
    forecast, truth = verified
    for name in world.gaussian_channels:
        members = _channel(forecast, name).values.astype(np.float64)
        error = ((members.mean(1) - _channel(truth, name).values) ** 2).mean(0)
        spread = members.var(axis=1, ddof=1).mean(0) * (1 + 1 / 8)
        np.testing.assert_allclose(np.sqrt(_mean(spread, world) / _mean(error, world)), 1, atol=0.06, err_msg=name)


@pytest.mark.parametrize("name", ["geopotential_500", "2m_temperature", "specific_humidity_850", "sea_surface_temperature"])
def test_no_member_can_be_told_from_the_truth_by_its_score(world, verified, name):
    """The fair CRPS (by `scores`) of what came and that of a member held out agree, in channels that are not Gaussian too."""
    forecast, truth = (_channel(ds, name).astype(np.float64) for ds in verified)

    def score(observed: xr.DataArray) -> np.ndarray:
        crps = crps_for_ensemble(forecast.isel(number=slice(0, 7)), observed, "number", method="fair", preserve_dims="all")
        return _mean(crps.mean("time").transpose("prediction_timedelta", ...).values, world)

    np.testing.assert_allclose(score(truth), score(forecast.isel(number=7, drop=True)), rtol=0.08)


def test_the_optimum_beats_persistence_and_climatology(world, year, verified):
    forecast, truth = verified
    for name in ("geopotential_500", "u_component_of_wind_250", "2m_temperature"):
        seen = _channel(truth, name).values.astype(np.float64)
        now = _channel(year, name).sel(time=truth.time).values[:, None]
        best, held, mean = (
            np.sqrt(_mean(((guess - seen) ** 2).mean(0), world)) for guess in (_channel(forecast, name).values.mean(1), now, seen.mean(0))
        )
        assert np.all(best < 0.9 * held) and np.all(best < 0.7 * mean), name


def test_gaussian_channels_are_linear_in_the_modes_and_the_others_are_not(small):
    assert len(small.gaussian_channels) == 16
    times = np.array(["2001-04-01"], "datetime64[ns]")
    rng = np.random.default_rng(0)
    one, two = small.modes.draw(rng, 1), small.modes.draw(rng, 1)

    def state(modes: np.ndarray) -> xr.Dataset:
        parts = np.stack([modes.real, modes.imag], -1).astype(np.float32)
        start = small.simulate(0.0007, start=times[0])
        start[MODES] = (start[MODES].dims, parts)
        return small.forecast(start, "1s", members=1, seed=0).squeeze("time")

    # The noise of a second is the same in all four and cancels.
    none, first, second, both = (state(modes) for modes in (0 * one, one, two, one + two))
    for name in small.channels:
        a, b, c, d = (_channel(ds, name).values.astype(np.float64) for ds in (none, first, second, both))
        defect = np.nanmax(np.abs(d - c - b + a)) / np.nanmax(np.abs(b - a))
        assert (defect < 1e-4) == (name in small.gaussian_channels), (name, defect)


# --- reproducibility and the contract of `forecast`


def test_seeds_fix_planet_and_weather(small):
    one = small.simulate(years=0.05, seed=1)
    assert one.identical(Planet((16, 32), seed=3).simulate(years=0.05, seed=1))
    longer = small.simulate(years=0.1, seed=1).isel(time=slice(0, one.sizes["time"]))
    xr.testing.assert_equal(one, longer)
    assert not one.geopotential.equals(small.simulate(years=0.05, seed=2).geopotential)
    assert not one.geopotential.equals(Planet((16, 32), seed=4).simulate(years=0.05, seed=1).geopotential)


def test_a_member_depends_on_nothing_but_its_number_and_its_state(small):
    ds = small.simulate(years=0.02)
    many = small.forecast(ds.isel(time=[3, 5, 9]), ["6h", "24h"], members=5, seed=7)
    few = small.forecast(ds.isel(time=5), ["6h", "24h"], members=2, seed=7)
    xr.testing.assert_equal(many.isel(time=1, number=slice(0, 2)), few)
    assert not few.equals(small.forecast(ds.isel(time=5), ["6h", "24h"], members=2, seed=8))
    assert not np.array_equal(few.geopotential[0], few.geopotential[1])
    again = small.forecast(ds.sel(time=ds.time[5]), "6h", members=2, seed=7)
    xr.testing.assert_equal(again.drop_vars("prediction_timedelta"), few.isel(prediction_timedelta=0, drop=True))


def test_forecast_has_the_dims_of_an_archive(small):
    ds = small.simulate(years=0.02)
    whole = small.forecast(ds.isel(time=[0, 4]), lead=["6h", timedelta(days=1)], members=3)
    assert whole.geopotential.dims == ("time", "number", "prediction_timedelta", "level", "latitude", "longitude")
    assert whole["2m_temperature"].dims == ("time", "number", "prediction_timedelta", "latitude", "longitude")
    assert whole.prediction_timedelta.dtype == "timedelta64[ns]" and whole.number.values.tolist() == [0, 1, 2]
    assert whole.prediction_timedelta.values.tolist() == [6 * 3600 * 10**9, 24 * 3600 * 10**9]
    np.testing.assert_array_equal(whole.time, ds.time[[0, 4]])
    assert set(whole.data_vars) == {parse_channel(name).variable.name for name in small.channels}
    assert all(field.dtype == np.float32 for field in whole.data_vars.values())
    single = small.forecast(ds.isel(time=0), lead=np.timedelta64(90, "m"), members=2)
    assert single.geopotential.dims == ("number", "level", "latitude", "longitude")
    assert single.prediction_timedelta == np.timedelta64(90, "m") and single.time == ds.time[0]
    land = ds.land_sea_mask.values > 0.5
    assert np.all(np.isnan(single.sea_surface_temperature.values) == land)


def test_planet_comes_back_from_a_file(small, tmp_path):
    ds = small.simulate(years=0.01)
    ds.to_zarr(tmp_path / "planet.zarr", zarr_format=3)
    opened = xr.open_zarr(tmp_path / "planet.zarr")
    world = Planet.of(opened.isel(time=2))
    assert world.grid.same_as(small.grid) and world.seed == small.seed
    xr.testing.assert_equal(world.forecast(opened.isel(time=2), members=2), small.forecast(ds.isel(time=2), members=2))


def test_refusals_name_the_value(small):
    ds = small.simulate(years=0.003)
    state = ds.isel(time=0)
    for grid in ((31, 64), (32, 48), (8, 16), (32,), 32, (32.0, 64)):
        with pytest.raises(ConfigurationError, match="even number of rows"):
            Planet(grid)
    for lead in ("0h", "-6h", "six hours", 6, "6", [], ["12h", "6h"], ["6h", "6h"], None):
        with pytest.raises(ConfigurationError, match="Leads are positive"):
            small.forecast(state, lead)
    for members in (0, 2.5, True):
        with pytest.raises(ConfigurationError, match="members"):
            small.forecast(state, members=members)
    for years in (0, -1, float("nan"), 1e9):
        with pytest.raises(ConfigurationError, match="years"):
            small.simulate(years)
    for start in ("someday", "2262-04-01", None):
        with pytest.raises(ConfigurationError, match="start"):
            small.simulate(0.1, start=start)
    with pytest.raises(ConfigurationError, match="seed"):
        Planet(seed=-1)
    with pytest.raises(DataError, match="planet_modes"):
        small.forecast(state.drop_vars(MODES))
    with pytest.raises(DataError, match="seed=4"):
        small.forecast(Planet((16, 32), seed=4).simulate(0.003).isel(time=0))
    with pytest.raises(DataError, match="attributes"):
        Planet.of(ds.drop_attrs())
    with pytest.raises(DataError, match="version 99"):
        Planet.of(ds.assign_attrs(planet_version=99))
