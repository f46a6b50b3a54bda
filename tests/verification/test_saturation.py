"""Saturation against tables and MetPy."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aeris.verification.saturation import saturation_humidity, saturation_vapour_pressure

WATER = {0.01: 611.66, 10: 1228.1, 20: 2339.3, 30: 4247.0, 40: 7384.9}
ICE = {-25: 63.29, -30: 38.02, -40: 12.84, -50: 3.936, -60: 1.081}
"""Vapour pressure in Pa by temperature in °C: Wagner & Pruss 2002 over water, Murphy & Koop 2005 over ice."""


@pytest.mark.parametrize("table", [WATER, ICE])
def test_pressures_of_the_tables(table):
    temperature = xr.DataArray(list(table), dims="case") + 273.15
    np.testing.assert_allclose(saturation_vapour_pressure(temperature), list(table.values()), rtol=8e-3)


def test_between_water_and_ice_it_changes_gradually():
    celsius = np.array([-22.99, -15.0, -5.0, -0.01])
    mixed = saturation_vapour_pressure(xr.DataArray(celsius + 273.15, dims="case")).values
    water = 611.21 * np.exp(17.502 * (celsius + 273.15 - 273.16) / (celsius + 273.15 - 32.19))
    ice = 611.21 * np.exp(22.587 * (celsius + 273.15 - 273.16) / (celsius + 273.15 + 0.7))
    share = (mixed - ice) / (water - ice)
    np.testing.assert_allclose(share, ((celsius + 22.99) / 23.0) ** 2, atol=1e-2)


def test_humidity_against_metpy():
    calc = pytest.importorskip("metpy.calc", reason="MetPy comes with the extra 'extremes'")
    from metpy.units import units

    temperature, pressure = np.array([303.15, 288.15, 275.0]), np.array([1000.0, 850.0, 700.0])
    ratio = calc.saturation_mixing_ratio(pressure * units.hPa, temperature * units.K)
    expected = calc.specific_humidity_from_mixing_ratio(ratio).to("kg/kg").magnitude
    found = saturation_humidity(xr.DataArray(temperature, dims="case"), xr.DataArray(pressure, dims="case"))
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_thin_warm_air_cannot_be_saturated():
    assert np.isinf(saturation_humidity(xr.DataArray(300.0), xr.DataArray(10.0)))
