"""Balances of the atmosphere: hydrostatic, geostrophic, and of the gradient wind.

All functions take canonical fields with any leading dimensions and levels in hPa; derivatives are those of spherical harmonics, exact for
fields that the grid resolves. Products of winds have twice their degrees: what of them the grid does not resolve is folded back. A dropped
pole row is put back first, off by the square of the spacing of rows: of a wind of 40 m s⁻¹ that costs 0.07 m s⁻¹ between 30° and 70° at 2°,
and 0.004 m s⁻¹ at 0.5°.

Symbols: p pressure, Φ geopotential, T temperature, q specific humidity, V wind, f = 2Ω sin φ, R gas constant of dry air.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import xarray as xr

from aeris.data.harmonics import Sphere, whole_scalar
from aeris.data.planet_climate import GAS_CONSTANT
from aeris.data.spherical import ROTATION
from aeris.errors import DataError
from aeris.verification.kinetic_energy import flow
from aeris.verification.pairing import CELLS

VAPOUR_GAS_CONSTANT = 461.5
"""Gas constant of water vapour in J kg⁻¹ K⁻¹."""


def virtual_temperature(temperature: xr.DataArray, humidity: xr.DataArray) -> xr.DataArray:
    """T_v = T (1 + (R_v / R − 1) q), the temperature of dry air as light as the moist, in K."""
    return temperature * (1.0 + (VAPOUR_GAS_CONSTANT / GAS_CONSTANT - 1.0) * humidity)


def hydrostatic_residual(geopotential: xr.DataArray, temperature: xr.DataArray, humidity: xr.DataArray | None = None) -> xr.DataArray:
    """How far the thickness of each layer is from that of its air: Δ Φ / (R Δ ln p) − T̄_v (Holton & Hakim 2013, section 1.4.1).

    T̄_v is the mean of the virtual temperatures of both levels, right where it is linear in ln p. Between distant levels, and through the
    tropopause, it is not, so that analyses have a residual too, and only beside theirs does a number tell something. Below the ground all
    fields are extrapolated.

    Args:
        geopotential: m² s⁻², ``(..., level, latitude, longitude)``.
        temperature: K, the same.
        humidity: kg kg⁻¹, the same; without it air is dry.

    Returns:
        K, ``(..., layer, latitude, longitude)``; a layer is named by its levels, ``"850-1000"``, from the top on.

    Raises:
        DataError: There is one level only.
    """
    if geopotential.sizes["level"] < 2:
        raise DataError("There is one level", "A layer has two", "Give a dataset with two levels or more")
    air = temperature if humidity is None else virtual_temperature(temperature, humidity)
    geopotential, air = geopotential.sortby("level"), air.sortby("level")
    level = geopotential.level.values.astype(float)
    depth = xr.DataArray(np.diff(np.log(level)), dims="level")
    above, below = ({"level": slice(None, -1)}, {"level": slice(1, None)})
    plain = [field.drop_vars("level") for field in (geopotential, air)]
    thickness = plain[0].isel(above) - plain[0].isel(below)
    residual = thickness / (GAS_CONSTANT * depth) - (plain[1].isel(above) + plain[1].isel(below)) / 2
    names = [f"{top:g}-{bottom:g}" for top, bottom in pairwise(level)]
    named = residual.rename(level="layer").assign_coords(layer=np.array(names, object))
    return named.transpose(..., "layer", *CELLS).assign_attrs(units="K", long_name="hydrostatic residual")


def geostrophic_wind(geopotential: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The wind V_g = f⁻¹ k × ∇Φ (Holton & Hakim 2013, equation 2.23).

    Args:
        geopotential: m² s⁻² on a global grid, ``(..., latitude, longitude)``, in memory.

    Returns:
        Its eastward and northward component in m s⁻¹, on the same grid; NaN within 1° of the equator, and of no meaning near it.

    Raises:
        DataError: The rows are of no kind that can be analysed exactly, or a value is missing.
    """
    f = coriolis(geopotential)
    east, north = _gradient(geopotential)
    about = {"units": "m s**-1", "long_name": "geostrophic wind"}
    return (-north / f).assign_attrs(about), (east / f).assign_attrs(about)


def gradient_wind_residual(geopotential: xr.DataArray, u: xr.DataArray, v: xr.DataArray) -> xr.DataArray:
    """How far a wind is from balance across its own direction, as a speed.

    Where streamlines have curvature K, balance of the gradient wind is K V² + f V = −∂Φ/∂n, n pointing to the left of the wind (Holton &
    Hakim 2013, equation 3.10, with the curvature of streamlines for that of trajectories). With (V·∇)V = ∇(V²/2) + ζ k × V the residual is

        (k × V / \\|V\\|) · (∇(Φ + V²/2) + (ζ + f) k × V) / f.

    Args:
        geopotential: m² s⁻² on a global grid, ``(..., latitude, longitude)``, in memory.
        u: Eastward wind in m s⁻¹, the same.
        v: Northward wind, the same.

    Returns:
        m s⁻¹, the same; NaN within 1° of the equator. Zero in calm air.

    Raises:
        DataError: The rows are of no kind that can be analysed exactly, or a value is missing.
    """
    f = coriolis(geopotential)
    east, north = _gradient(geopotential + (u**2 + v**2) / 2)
    speed = (u**2 + v**2) ** 0.5
    across = (u * north - v * east) / speed.where(speed > 0)
    residual = (across.fillna(0.0) + (flow(u, v)["vorticity"] + f) * speed) / f
    return residual.assign_attrs(units="m s**-1", long_name="wind out of gradient balance")


def coriolis(field: xr.DataArray) -> xr.DataArray:
    """f on the rows of a field in s⁻¹, ``(latitude,)``; NaN within 1° of the equator."""
    return (2 * ROTATION * np.sin(np.deg2rad(field.latitude))).where(abs(field.latitude) >= 1.0)


def _gradient(field: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Eastward and northward derivative of a field, per metre."""
    sphere, field = Sphere.of(field), field.transpose(..., *CELLS)
    rows = field.sizes["latitude"]
    both = sphere.gradient(sphere.analysis(whole_scalar(field).values))
    east, north = (xr.DataArray(part[..., :rows, :], field.coords, field.dims) for part in both)
    return east, north
