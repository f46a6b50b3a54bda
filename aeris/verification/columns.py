"""Columns of air: surface pressure, mass of layers, and integrals over them.

Of the surface the channels of ERA5 that AERIS predicts hold the pressure at mean sea level alone. Where the height of the ground is known,
surface pressure follows from geopotential and temperature on levels; a field ``surface_pressure`` of a dataset's own comes first.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from aeris.data.planet_climate import GAS_CONSTANT
from aeris.data.variables import GRAVITY

LAPSE_RATE = 6.5e-3
"""Fall of temperature with height below the lowest level, in K m⁻¹."""


def surface_pressure(geopotential: xr.DataArray, temperature: xr.DataArray, ground: xr.DataArray) -> xr.DataArray:
    """Pressure at the ground from fields on levels.

    Between two levels ln p is linear in Φ. Below the lowest, ln p_s = ln p_1 + (Φ_1 − Φ_s) / (R T̄) with T̄ = T_1 + ½ Γ (Φ_1 − Φ_s) / g
    (as Trenberth et al. 1993, NCAR/TN-396, go below the ground). Between 700 and 850 hPa it is up to 0.7 hPa too low over high ground; a
    difference between two states that it is used on is not.

    Args:
        geopotential: m² s⁻², ``(..., level, latitude, longitude)``.
        temperature: K, the same.
        ground: Geopotential at the surface in m² s⁻², ``(latitude, longitude)``.

    Returns:
        Pa, without ``level``.
    """
    geopotential = geopotential.sortby("level")
    logarithm = np.log(geopotential.level.astype(float) * 100.0)
    lowest = geopotential.isel(level=-1, drop=True)
    below = lowest - ground
    air = temperature.sel(level=geopotential.level[-1], drop=True) + LAPSE_RATE / GRAVITY * below / 2
    found = logarithm[-1].item() + below / (GAS_CONSTANT * air)
    for k in range(geopotential.sizes["level"] - 1):
        upper, lower = (geopotential.isel(level=place, drop=True) for place in (k, k + 1))
        share = (ground - lower) / (upper - lower)
        between = logarithm[k + 1].item() + share * (logarithm[k] - logarithm[k + 1]).item()
        found = found.where((ground < lower) | (ground >= upper), between)
    return np.exp(found).assign_attrs(units="Pa", long_name="surface pressure")


def layer_depths(levels: np.ndarray, surface: xr.DataArray | None = None) -> xr.DataArray:
    """The pressure that each level stands for, in Pa, so that Σ_k X_k Δp_k is the integral of X from the uppermost level down.

    A level reaches half way to the next, the uppermost ends at its own pressure. With a surface, the lowest reaches down to it, and what
    lies below it counts nothing; without, the lowest ends at its own pressure and all is taken for air (the trapezoidal rule).

    Args:
        levels: hPa, rising.
        surface: Surface pressure in Pa.

    Returns:
        ``(level,)``, or with `surface` its dimensions too.
    """
    pressure = 100.0 * np.asarray(levels, float)
    middle = (pressure[:-1] + pressure[1:]) / 2
    top, bottom = (xr.DataArray(np.array(edges), {"level": levels}, "level") for edges in ([pressure[0], *middle], [*middle, pressure[-1]]))
    if surface is None:
        return bottom - top
    open_below = bottom.where(bottom.level != levels[-1], np.inf)
    reached: xr.DataArray = xr.apply_ufunc(np.minimum, open_below, surface) - xr.apply_ufunc(np.minimum, top, surface)
    return reached


def column(field: xr.DataArray, depths: xr.DataArray) -> xr.DataArray:
    """∫ X dp / g over the levels, in the unit of `field` times kg m⁻²."""
    return (field * depths).sum("level") / GRAVITY
