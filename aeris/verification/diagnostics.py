"""Diagnostics: numbers that tell how far a state is from what air can be, and how much mass, water and energy it holds.

All means are over cells by area; the balances of wind are taken from 30° to 70° in both hemispheres, where f is large and the ice sheets
are not. ⟨X⟩ = ∫ X dp / g is the column over the levels given (`aeris.verification.columns.layer_depths`), from the ground up where surface
pressure is known, else down to the lowest level.

``hydrostatic_residual`` in K
    Root of the mean square of ``ΔΦ / (R Δ ln p) − T̄_v``, by layer.
``hydrostatic_bias`` in K
    Its mean, by layer.
``ageostrophic_share``, without unit
    Root of ``E |V − V_g|² / E |V|²``, by level.
``gradient_wind_share``, without unit
    Root of ``E r² / E |V|²`` with the residual r across the wind, by level.
``sea_level_pressure`` in Pa
    Mean of the pressure at sea level.
``surface_pressure`` in Pa
    Mean of p_s, which is g times the mass of the air.
``dry_air_pressure`` in Pa
    Mean of p_s − g ⟨q⟩; on earth 983.05 hPa (Trenberth & Smith 2005, https://doi.org/10.1175/JCLI-3299.1).
``total_water`` in kg m⁻²
    Mean of ⟨q⟩, vapour alone.
``kinetic_energy`` in J m⁻²
    Mean of ⟨(u² + v²) / 2⟩.
``total_energy`` in J m⁻²
    Mean of ⟨c_p T + L q + (u² + v²) / 2⟩, without Φ_s p_s / g (Trenberth 1991,
    https://doi.org/10.1175/1520-0442(1991)004<0707:CDFGAT>2.0.CO;2).
``negative_humidity``, without unit
    Part of the area where q < 0, by level.
``negative_water`` in kg m⁻²
    Mean of ⟨max(−q, 0)⟩.
``supersaturation``, without unit
    Part of the area where q exceeds q_s(T, p), by level.
``excess_water`` in kg m⁻²
    Mean of ⟨max(q − q_s, 0)⟩.

Formulas stand with `hydrostatic_residual`, `geostrophic_wind` and `gradient_wind_residual` (`aeris.verification.balance`),
`surface_pressure` (`aeris.verification.columns`) and `saturation_humidity` (`aeris.verification.saturation`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import xarray as xr

from aeris.data.grid import Grid
from aeris.data.variables import GRAVITY
from aeris.verification.balance import geostrophic_wind, gradient_wind_residual, hydrostatic_residual
from aeris.verification.columns import column, layer_depths, surface_pressure
from aeris.verification.pairing import CELLS
from aeris.verification.saturation import saturation_humidity

EXTRATROPICS = (30.0, 70.0)
"""Latitudes, in both hemispheres, between which winds are held against geopotential."""

HEAT_CAPACITY = 1004.7
"""Heat capacity of dry air at constant pressure in J kg⁻¹ K⁻¹."""

LATENT_HEAT = 2.501e6
"""Latent heat of vaporization at 0 °C in J kg⁻¹."""

SURFACE_PRESSURE, LAYERS = "surface_pressure", "two levels"
"""What a diagnostic may need besides variables: a surface pressure, given or derived, and more than one level."""

Z, U, V, T, Q = "geopotential", "u_component_of_wind", "v_component_of_wind", "temperature", "specific_humidity"


@dataclass(frozen=True)
class States:
    """Some states in memory.

    Attributes:
        fields: Float64 ``(state, [level,] latitude, longitude)``, levels rising.
        ground: Geopotential at the surface, ``(latitude, longitude)``, where it is known.
    """

    fields: xr.Dataset
    ground: xr.DataArray | None

    def __getitem__(self, name: str) -> xr.DataArray:
        return self.fields[name]

    @cached_property
    def surface(self) -> xr.DataArray | None:
        """Surface pressure in Pa: the states' own, else from their fields on levels and the ground, else None."""
        if SURFACE_PRESSURE in self.fields:
            return self[SURFACE_PRESSURE]
        if self.ground is None or not {Z, T} <= set(self.fields):
            return None
        return surface_pressure(self[Z], self[T], self.ground)

    @cached_property
    def depths(self) -> xr.DataArray:
        """Pressure that each level stands for, in Pa."""
        return layer_depths(self.fields.level.values, self.surface)

    @cached_property
    def area(self) -> xr.DataArray:
        """Area of a cell of each row over the mean, ``(latitude,)``."""
        return xr.DataArray(Grid.of(self.fields).area, {"latitude": self.fields.latitude}, ["latitude"])

    @cached_property
    def extratropics(self) -> xr.DataArray:
        """The same, nothing outside `EXTRATROPICS`."""
        low, high = EXTRATROPICS
        return self.area.where((abs(self.area.latitude) >= low) & (abs(self.area.latitude) <= high), 0.0)

    def mean(self, field: xr.DataArray) -> xr.DataArray:
        """Mean over the globe."""
        return field.weighted(self.area).mean(CELLS)

    def mean_column(self, field: xr.DataArray) -> xr.DataArray:
        """Mean over the globe of the column of a field."""
        return self.mean(column(field, self.depths))

    def mean_outside_tropics(self, field: xr.DataArray) -> xr.DataArray:
        """Mean over the extratropics."""
        return field.weighted(self.extratropics).mean(CELLS)

    @cached_property
    def speed_squared(self) -> xr.DataArray:
        """u² + v² in m² s⁻²."""
        return self[U] ** 2 + self[V] ** 2

    @cached_property
    def residual(self) -> xr.DataArray:
        """`hydrostatic_residual`, of dry air where humidity is not there."""
        return hydrostatic_residual(self[Z], self[T], self.fields.get(Q))

    @cached_property
    def excess(self) -> xr.DataArray:
        """Specific humidity above saturation."""
        return (self[Q] - saturation_humidity(self[T], self.fields.level)).clip(min=0.0)


@dataclass(frozen=True)
class Diagnostic:
    """A number of a state, as a function of means of statistics, which are averaged over states first.

    Attributes:
        long_name: What it is called in a plot.
        units: Its unit.
        needs: Variables, or `SURFACE_PRESSURE` and `LAYERS`, without which it is skipped.
        statistics: Means over cells, each ``(state, [level | layer])``.
        of_means: The number from those.
        uses: What it takes besides where it is there.
        budget: Whether it is a budget, whose drift from the truth is told too.
    """

    long_name: str
    units: str
    needs: tuple[str, ...]
    statistics: Callable[[States], tuple[xr.DataArray, ...]]
    of_means: Callable[..., xr.DataArray] = lambda mean: mean
    uses: tuple[str, ...] = ()
    budget: bool = False


def _ageostrophic(states: States) -> tuple[xr.DataArray, ...]:
    u, v = geostrophic_wind(states[Z])
    apart = (states[U] - u) ** 2 + (states[V] - v) ** 2
    return states.mean_outside_tropics(apart), states.mean_outside_tropics(states.speed_squared)


def _out_of_balance(states: States) -> tuple[xr.DataArray, ...]:
    residual = gradient_wind_residual(states[Z], states[U], states[V])
    return states.mean_outside_tropics(residual**2), states.mean_outside_tropics(states.speed_squared)


def _surface(states: States) -> xr.DataArray:
    assert states.surface is not None
    return states.surface


def _energy(states: States) -> xr.DataArray:
    return HEAT_CAPACITY * states[T] + LATENT_HEAT * states[Q] + states.speed_squared / 2


def _root(square: xr.DataArray) -> xr.DataArray:
    return square**0.5


def _root_of_ratio(part: xr.DataArray, whole: xr.DataArray) -> xr.DataArray:
    return (part / whole.where(whole > 0)) ** 0.5


def _column(long_name: str, units: str, needs: tuple[str, ...], field: Callable[[States], xr.DataArray], budget: bool = True) -> Diagnostic:
    """The mean column of a field."""
    return Diagnostic(
        long_name, units, (*needs, LAYERS), lambda states: (states.mean_column(field(states)),), uses=(SURFACE_PRESSURE,), budget=budget
    )


DIAGNOSTICS: dict[str, Diagnostic] = {
    "hydrostatic_residual": Diagnostic(
        "root mean square hydrostatic residual", "K", (Z, T, LAYERS), lambda states: (states.mean(states.residual**2),), _root, (Q,)
    ),
    "hydrostatic_bias": Diagnostic(
        "mean hydrostatic residual", "K", (Z, T, LAYERS), lambda states: (states.mean(states.residual),), uses=(Q,)
    ),
    "ageostrophic_share": Diagnostic(
        "ageostrophic over total wind, root mean squares, 30° to 70°", "1", (Z, U, V), _ageostrophic, _root_of_ratio
    ),
    "gradient_wind_share": Diagnostic(
        "wind out of gradient balance over total wind, root mean squares, 30° to 70°", "1", (Z, U, V), _out_of_balance, _root_of_ratio
    ),
    "sea_level_pressure": Diagnostic(
        "mean pressure at sea level",
        "Pa",
        ("mean_sea_level_pressure",),
        lambda states: (states.mean(states["mean_sea_level_pressure"]),),
        budget=True,
    ),
    "surface_pressure": Diagnostic(
        "mean surface pressure", "Pa", (SURFACE_PRESSURE,), lambda states: (states.mean(_surface(states)),), budget=True
    ),
    "dry_air_pressure": Diagnostic(
        "mean surface pressure of dry air",
        "Pa",
        (SURFACE_PRESSURE, Q, LAYERS),
        lambda states: (states.mean(_surface(states) - GRAVITY * column(states[Q], states.depths)),),
        budget=True,
    ),
    "total_water": _column("mean column of water vapour", "kg m**-2", (Q,), lambda states: states[Q]),
    "kinetic_energy": _column("kinetic energy per area", "J m**-2", (U, V), lambda states: states.speed_squared / 2),
    "total_energy": _column("enthalpy, latent heat and kinetic energy per area", "J m**-2", (T, Q, U, V), _energy),
    "negative_humidity": Diagnostic(
        "share of the area with negative humidity", "1", (Q,), lambda states: (states.mean((states[Q] < 0).astype(float)),)
    ),
    "negative_water": _column(
        "mean column of negative water vapour", "kg m**-2", (Q,), lambda states: (-states[Q]).clip(min=0.0), budget=False
    ),
    "supersaturation": Diagnostic(
        "share of the area above saturation", "1", (Q, T), lambda states: (states.mean((states.excess > 0).astype(float)),)
    ),
    "excess_water": _column("mean column of water vapour above saturation", "kg m**-2", (Q, T), lambda states: states.excess, budget=False),
}
"""Diagnostics by name."""
