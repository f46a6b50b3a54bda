"""Saturation: how much vapour air can hold, over water and over ice."""

from __future__ import annotations

import numpy as np
import xarray as xr

from aeris.data.planet_climate import GAS_CONSTANT
from aeris.verification.balance import VAPOUR_GAS_CONSTANT

_TRIPLE, _ICE = 273.16, 250.16
_EPSILON = GAS_CONSTANT / VAPOUR_GAS_CONSTANT


def saturation_vapour_pressure(temperature: xr.DataArray) -> xr.DataArray:
    """Saturation vapour pressure as the Integrated Forecasting System has it (IFS documentation CY47R3, part IV, equations 7.4 and 7.5).

    611.21 Pa · exp(a (T − 273.16) / (T − b)) with a = 17.502, b = 32.19 K over water and a = 22.587, b = −0.7 K over ice; water from
    273.16 K up, ice from 250.16 K down, and between them α water + (1 − α) ice with α = ((T − 250.16) / 23)².

    Args:
        temperature: K.

    Returns:
        Pa.
    """
    water, ice = (611.21 * np.exp(a * (temperature - _TRIPLE) / (temperature - b)) for a, b in ((17.502, 32.19), (22.587, -0.7)))
    liquid = ((temperature - _ICE) / (_TRIPLE - _ICE)).clip(0.0, 1.0) ** 2
    return (liquid * water + (1.0 - liquid) * ice).assign_attrs(units="Pa", long_name="saturation vapour pressure")


def saturation_humidity(temperature: xr.DataArray, pressure: xr.DataArray) -> xr.DataArray:
    """Specific humidity of saturated air, q = ε e / (p − (1 − ε) e) with ε = R / R_v; infinite where e exceeds p.

    Args:
        temperature: K.
        pressure: hPa, for example ``temperature.level``.

    Returns:
        kg kg⁻¹.
    """
    vapour, air = saturation_vapour_pressure(temperature), 100.0 * pressure
    humidity = (_EPSILON * vapour / (air - (1.0 - _EPSILON) * vapour)).where(vapour < air, np.inf)
    return humidity.assign_attrs(units="kg kg**-1", long_name="saturation specific humidity")
