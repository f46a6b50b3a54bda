"""Balances: atmospheres in which they hold exactly, and derivatives by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from test_kinetic_energy import angles, random_wind, wind
from test_spectra import random_coefficients, synthesis

from aeris.data.grid import Grid
from aeris.data.planet_climate import GAS_CONSTANT
from aeris.data.spherical import RADIUS, ROTATION, degree_order
from aeris.data.variables import GRAVITY
from aeris.errors import DataError
from aeris.verification.balance import geostrophic_wind, gradient_wind_residual, hydrostatic_residual, virtual_temperature

LEVELS = np.array([250.0, 500.0, 850.0, 1000.0])
PRESSURE = xr.DataArray(LEVELS, {"level": LEVELS}, "level")
ONES = xr.DataArray(np.ones((4, 6)), dims=("latitude", "longitude"))


def test_an_isothermal_atmosphere_has_no_residual():
    """Φ = R T ln(p₀/p)."""
    geopotential = GAS_CONSTANT * 250 * np.log(1000 / PRESSURE) * ONES
    residual = hydrostatic_residual(geopotential, 250 + 0 * geopotential)
    assert residual.layer.values.tolist() == ["250-500", "500-850", "850-1000"]
    np.testing.assert_allclose(residual, 0.0, atol=1e-10)


def test_temperature_that_is_linear_in_the_logarithm_of_pressure_has_none():
    """T = 290 − 40 x, Φ = R (290 x − 20 x²) with x = ln(1000 hPa / p), the levels in any order."""
    x = np.log(1000 / PRESSURE)
    geopotential, temperature = GAS_CONSTANT * (290 * x - 20 * x**2) * ONES, (290 - 40 * x) * ONES
    upside_down = geopotential.isel(level=slice(None, None, -1)), temperature.isel(level=slice(None, None, -1))
    for fields in ((geopotential, temperature), upside_down):
        np.testing.assert_allclose(hydrostatic_residual(*fields), 0.0, atol=1e-10)


def test_moist_air_is_lighter():
    """With 1 % of vapour at 300 K air is as light as dry air 1.82 K warmer; Holton's rule of thumb is 0.61 q T."""
    humidity = 0.01 + 0 * PRESSURE * ONES
    temperature = 300 + 0 * humidity
    assert virtual_temperature(temperature, humidity).values == pytest.approx(300 + 0.61 * 0.01 * 300, abs=0.02)
    geopotential = GAS_CONSTANT * virtual_temperature(temperature, humidity).isel(level=0, drop=True) * np.log(1000 / PRESSURE)
    np.testing.assert_allclose(hydrostatic_residual(geopotential, temperature, humidity), 0.0, atol=1e-9)
    np.testing.assert_allclose(hydrostatic_residual(geopotential, temperature), 1.82, atol=0.02)


def test_raising_one_level_shows_in_its_two_layers():
    geopotential = GAS_CONSTANT * 250 * np.log(1000 / PRESSURE) * ONES
    raised = geopotential + 100 * GRAVITY * (PRESSURE == 500)
    above, below = (100 * GRAVITY / GAS_CONSTANT / np.log(ratio) for ratio in (2.0, 1.7))
    residual = hydrostatic_residual(raised, 250 + 0 * raised).mean(("latitude", "longitude"))
    np.testing.assert_allclose(residual, [-above, below, 0.0], atol=1e-10)


def test_one_level_has_no_layer():
    one = 250 + 0 * (PRESSURE * ONES).isel(level=[0])
    with pytest.raises(DataError, match="one level"):
        hydrostatic_residual(one, one)


def rotation(grid: Grid, speed: float) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Φ, u, v of air that turns as a whole: u = U cos φ and Φ = −(aΩU + U²/2) sin² φ, in exact balance of the gradient wind."""
    latitude, longitude = angles(grid)
    ones = xr.ones_like(latitude * longitude)
    geopotential = 5e4 - (RADIUS * ROTATION * speed + speed**2 / 2) * np.sin(latitude) ** 2
    return geopotential * ones, speed * np.cos(latitude) * ones, 0 * ones


@pytest.mark.parametrize("rows", [32, 33])
def test_solid_rotation_is_in_balance_of_the_gradient_wind(rows):
    """Its geostrophic wind is too strong by U / 2Ωa, whose square is the centrifugal force."""
    geopotential, u, v = rotation(Grid.regular(rows, 64), 40.0)
    away = abs(geopotential.latitude) > 1
    geostrophic, across = (field.sel(latitude=away) for field in geostrophic_wind(geopotential))
    np.testing.assert_allclose(geostrophic, u.sel(latitude=away) * (1 + 40 / (2 * ROTATION * RADIUS)), atol=1e-9)
    np.testing.assert_allclose(across, 0.0, atol=1e-9)
    np.testing.assert_allclose(gradient_wind_residual(geopotential, u, v).sel(latitude=away), 0.0, atol=1e-8)


def test_a_dropped_pole_row_costs_little():
    """The row that is put back is off by the square of the spacing; at 2° that is less than 0.1 of 40 m/s between 30° and 70°."""
    geopotential, u, v = (field.isel(latitude=slice(None, -1)) for field in rotation(Grid.regular(91, 180), 40.0))
    band = (abs(u.latitude) >= 30) & (abs(u.latitude) <= 70)
    east, _ = geostrophic_wind(geopotential)
    assert east.shape == u.shape
    assert abs(east - u * (1 + 40 / (2 * ROTATION * RADIUS))).sel(latitude=band).max() < 0.1
    assert abs(gradient_wind_residual(geopotential, u, v)).sel(latitude=band).max() < 0.1


def test_against_finite_differences():
    """Φ and a wind that have nothing to do with each other, on a fine grid: (V·∇)V + f k × V + ∇Φ written out with its metric terms."""
    grid, largest = Grid.regular(361, 720), 6
    degree, _ = degree_order(largest)
    geopotential = synthesis(3000 * random_coefficients(largest), grid, largest)
    u, v = wind(20 * random_wind(largest) / (degree + 1), grid, largest)
    phi, step = np.deg2rad(grid.latitude)[:, None], np.deg2rad(0.5)

    def east(field):
        return (np.roll(field, -1, 1) - np.roll(field, 1, 1)) / (2 * step * RADIUS * np.cos(phi))

    def north(field):
        return -np.gradient(field, step, axis=0) / RADIUS

    f, (x, y, z) = 2 * ROTATION * np.where(phi == 0, np.nan, np.sin(phi)), (field.values for field in (u, v, geopotential))
    eastward = x * east(x) + y * north(x) - x * y * np.tan(phi) / RADIUS - f * y + east(z)
    northward = x * east(y) + y * north(y) + x**2 * np.tan(phi) / RADIUS + f * x + north(z)
    expected = (x * northward - y * eastward) / np.hypot(x, y) / f
    rows = (abs(grid.latitude) > 30) & (abs(grid.latitude) < 70)
    scale = np.sqrt(np.mean(expected[rows] ** 2))
    assert np.abs(gradient_wind_residual(geopotential, u, v).values - expected)[rows].max() < 2e-3 * scale
    for ours, theirs in zip(geostrophic_wind(geopotential), (-north(z) / f, east(z) / f), strict=True):
        assert np.abs(ours.values - theirs)[rows].max() < 2e-3 * np.abs(theirs[rows]).max()


def test_calm_air_and_the_equator():
    grid = Grid.regular(33, 64)
    geopotential, u, v = rotation(grid, 20.0)
    assert geostrophic_wind(geopotential)[0].sel(latitude=0).isnull().all()
    calm = gradient_wind_residual(geopotential, 0 * u, 0 * v)
    assert (calm.where(abs(calm.latitude) > 1, 0.0) == 0).all()
