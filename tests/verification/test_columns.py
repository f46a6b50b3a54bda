"""Columns: atmospheres whose surface pressure and mass are known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aeris.data.planet_climate import GAS_CONSTANT
from aeris.data.variables import GRAVITY
from aeris.verification.columns import column, layer_depths, surface_pressure

LEVELS = np.array([100.0, 300, 500, 700, 850, 925, 1000])
PRESSURE = xr.DataArray(LEVELS, {"level": LEVELS}, "level")
HEIGHT = xr.DataArray([-100.0, 0, 50, 400, 1000, 2500, 5500], dims="longitude")


def test_surface_pressure_of_an_isothermal_atmosphere_is_exact_above_the_lowest_level():
    """p = 1013 hPa · exp(−Φ / R T), at any height of the ground within the levels."""
    geopotential = GAS_CONSTANT * 260 * np.log(1013 / PRESSURE) * xr.ones_like(HEIGHT)
    found = surface_pressure(geopotential, 260 + 0 * geopotential, GRAVITY * HEIGHT)
    expected = 101300 * np.exp(-GRAVITY * HEIGHT / (GAS_CONSTANT * 260))
    np.testing.assert_allclose(found[3:], expected[3:], rtol=1e-10)
    np.testing.assert_allclose(found[:3], expected[:3], atol=7.0)  # the air below the lowest level is taken to be warmer


def test_surface_pressure_where_temperature_falls_with_height():
    """The standard atmosphere, p = p₀ (1 − Γ z / T₀)^(g / R Γ): right to 0.1 Pa below the lowest level, to 70 Pa between distant levels."""
    exponent = GAS_CONSTANT * 6.5e-3 / GRAVITY
    height = (1 - (PRESSURE / 1013.25) ** exponent) * 288.15 / 6.5e-3 * xr.ones_like(HEIGHT)
    found = surface_pressure(GRAVITY * height, 288.15 - 6.5e-3 * height, GRAVITY * HEIGHT)
    expected = 101325 * (1 - 6.5e-3 * HEIGHT / 288.15) ** (1 / exponent)
    np.testing.assert_allclose(found[:3], expected[:3], atol=0.1)
    assert (abs(found - expected) < 100).all() and (found[3:] <= expected[3:]).all()


def test_depths_add_up_to_the_air_above_the_ground():
    surface = xr.DataArray([101300.0, 98000.0, 60000.0, 40000.0], dims="longitude")
    depths = layer_depths(LEVELS, surface)
    np.testing.assert_allclose(depths.sum("level"), surface - 10000)
    assert (depths.sel(level=[850, 925, 1000]).isel(longitude=2) == 0).all() and (depths >= 0).all()


def test_without_a_surface_it_is_the_trapezoidal_rule():
    field = xr.DataArray(np.random.default_rng(0).standard_normal(len(LEVELS)), {"level": LEVELS}, "level")
    expected = np.trapezoid(field.values, 100 * LEVELS) / GRAVITY
    assert column(field, layer_depths(LEVELS)).item() == pytest.approx(expected)


def test_a_column_of_uniform_vapour():
    """1 % of vapour in air of 900 hPa above the ground is 0.01 · 90000 / g = 91.8 kg m⁻²."""
    surface = xr.DataArray([100000.0], dims="longitude")
    assert column(0.01 + 0 * PRESSURE, layer_depths(LEVELS, surface)).item() == pytest.approx(91.77, abs=0.01)
