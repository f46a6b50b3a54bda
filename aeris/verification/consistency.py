"""Physical consistency: whether what a model draws could be air.

A network is not told that pressure is the weight of the air above, that wind turns around lows, or that mass is kept. `diagnose` puts
numbers on how far each state is from that; `consistency` holds those of a forecast, lead by lead, beside those of the truth, which is not
at zero either: levels are few, the wind is not quite balanced, and water comes and goes. What a dataset lacks the variables for is skipped
and named in the attribute ``skipped``.

Formulas stand with `hydrostatic_residual`, `geostrophic_wind`, `gradient_wind_residual`, `surface_pressure` and `saturation_humidity`;
columns are integrated over the levels given (`layer_depths`), from the ground up where surface pressure is known. All means are over cells
by area; the balances of wind are taken from 30° to 70° in both hemispheres, where f is large and the ice sheets are not.

What the 69 channels of ERA5 allow: mean sea level pressure is *not* the weight of the air, but close to it over sea. Surface pressure, and
with it dry air, needs the height of the ground too (``geopotential_at_surface`` in the truth). Water is vapour alone, without clouds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from aeris.data.grid import Grid
from aeris.data.variables import GRAVITY
from aeris.errors import ConfigurationError, DataError
from aeris.progress import tqdm
from aeris.verification.balance import geostrophic_wind, gradient_wind_residual, hydrostatic_residual
from aeris.verification.columns import column, layer_depths, surface_pressure
from aeris.verification.pairing import CELLS, LEAD, PIECE_VALUES, pair
from aeris.verification.saturation import saturation_humidity

EXTRATROPICS = (30.0, 70.0)
"""Latitudes, in both hemispheres, between which winds are held against geopotential."""

HEAT_CAPACITY = 1004.7
"""Heat capacity of dry air at constant pressure in J kg⁻¹ K⁻¹."""

LATENT_HEAT = 2.501e6
"""Latent heat of vaporization at 0 °C in J kg⁻¹."""

GROUND, SURFACE_PRESSURE = "geopotential_at_surface", "surface_pressure"
_Z, _U, _V, _T, _Q = "geopotential", "u_component_of_wind", "v_component_of_wind", "temperature", "specific_humidity"
_WHOLE = ("level", *CELLS)


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
        if self.ground is None or not {_Z, _T} <= set(self.fields):
            return None
        return surface_pressure(self[_Z], self[_T], self.ground)

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

    def mean_outside_tropics(self, field: xr.DataArray) -> xr.DataArray:
        """Mean over the extratropics."""
        return field.weighted(self.extratropics).mean(CELLS)

    @cached_property
    def speed_squared(self) -> xr.DataArray:
        """u² + v² in m² s⁻²."""
        return self[_U] ** 2 + self[_V] ** 2

    @cached_property
    def residual(self) -> xr.DataArray:
        """`hydrostatic_residual`, of dry air where humidity is not there."""
        return hydrostatic_residual(self[_Z], self[_T], self.fields.get(_Q))

    @cached_property
    def excess(self) -> xr.DataArray:
        """Specific humidity above saturation."""
        return (self[_Q] - saturation_humidity(self[_T], self.fields.level)).clip(min=0.0)


def _ageostrophic(states: States) -> tuple[xr.DataArray, ...]:
    u, v = geostrophic_wind(states[_Z])
    apart = (states[_U] - u) ** 2 + (states[_V] - v) ** 2
    return states.mean_outside_tropics(apart), states.mean_outside_tropics(states.speed_squared)


def _gradient(states: States) -> tuple[xr.DataArray, ...]:
    residual = gradient_wind_residual(states[_Z], states[_U], states[_V])
    return states.mean_outside_tropics(residual**2), states.mean_outside_tropics(states.speed_squared)


def _dry_air(states: States) -> tuple[xr.DataArray, ...]:
    assert states.surface is not None
    return (states.mean(states.surface - GRAVITY * column(states[_Q], states.depths)),)


def _total_energy(states: States) -> tuple[xr.DataArray, ...]:
    energy = HEAT_CAPACITY * states[_T] + LATENT_HEAT * states[_Q] + states.speed_squared / 2
    return (states.mean(column(energy, states.depths)),)


def _root(square: xr.DataArray) -> xr.DataArray:
    return square**0.5


def _root_of_ratio(part: xr.DataArray, whole: xr.DataArray) -> xr.DataArray:
    return (part / whole.where(whole > 0)) ** 0.5


def _itself(mean: xr.DataArray) -> xr.DataArray:
    return mean


@dataclass(frozen=True)
class Diagnostic:
    """A number of a state, as a function of means of statistics, which are averaged over states first.

    Attributes:
        long_name: What it is called in a plot.
        units: Its unit.
        needs: Variables without which it is skipped; ``surface_pressure`` may follow from others (`States.surface`).
        statistics: Means over cells, each ``(state, [level | layer])``.
        of_means: The number from those.
        kept: Whether it is a budget, whose drift from the truth is told too.
        uses: Variables that it takes where they are there.
    """

    long_name: str
    units: str
    needs: tuple[str, ...]
    statistics: Callable[[States], tuple[xr.DataArray, ...]]
    of_means: Callable[..., xr.DataArray] = _itself
    kept: bool = False
    uses: tuple[str, ...] = ()


DIAGNOSTICS: dict[str, Diagnostic] = {
    "hydrostatic_residual": Diagnostic(
        "root mean square hydrostatic residual", "K", (_Z, _T), lambda states: (states.mean(states.residual**2),), _root, uses=(_Q,)
    ),
    "hydrostatic_bias": Diagnostic("mean hydrostatic residual", "K", (_Z, _T), lambda states: (states.mean(states.residual),), uses=(_Q,)),
    "ageostrophic_share": Diagnostic(
        "ageostrophic over total wind, root mean squares, 30° to 70°", "1", (_Z, _U, _V), _ageostrophic, _root_of_ratio
    ),
    "gradient_wind_share": Diagnostic(
        "wind out of gradient balance over total wind, root mean squares, 30° to 70°", "1", (_Z, _U, _V), _gradient, _root_of_ratio
    ),
    "sea_level_pressure": Diagnostic(
        "mean pressure at sea level",
        "Pa",
        ("mean_sea_level_pressure",),
        lambda states: (states.mean(states["mean_sea_level_pressure"]),),
        kept=True,
    ),
    "surface_pressure": Diagnostic(
        "mean surface pressure", "Pa", (SURFACE_PRESSURE,), lambda states: (states.mean(_known(states.surface)),), kept=True
    ),
    "dry_air_pressure": Diagnostic("mean surface pressure of dry air", "Pa", (SURFACE_PRESSURE, _Q), _dry_air, kept=True),
    "total_water": Diagnostic(
        "mean column of water vapour",
        "kg m**-2",
        (_Q,),
        lambda states: (states.mean(column(states[_Q], states.depths)),),
        kept=True,
        uses=(SURFACE_PRESSURE,),
    ),
    "kinetic_energy": Diagnostic(
        "kinetic energy per area",
        "J m**-2",
        (_U, _V),
        lambda states: (states.mean(column(states.speed_squared / 2, states.depths)),),
        kept=True,
        uses=(SURFACE_PRESSURE,),
    ),
    "total_energy": Diagnostic(
        "enthalpy, latent heat and kinetic energy per area", "J m**-2", (_T, _Q, _U, _V), _total_energy, kept=True, uses=(SURFACE_PRESSURE,)
    ),
    "negative_humidity": Diagnostic(
        "share of the area with negative humidity", "1", (_Q,), lambda states: (states.mean((states[_Q] < 0).astype(float)),)
    ),
    "negative_water": Diagnostic(
        "mean column of negative water vapour",
        "kg m**-2",
        (_Q,),
        lambda states: (states.mean(column((-states[_Q]).clip(min=0.0), states.depths)),),
        uses=(SURFACE_PRESSURE,),
    ),
    "supersaturation": Diagnostic(
        "share of the area above saturation", "1", (_Q, _T), lambda states: (states.mean((states.excess > 0).astype(float)),)
    ),
    "excess_water": Diagnostic(
        "mean column of water vapour above saturation",
        "kg m**-2",
        (_Q, _T),
        lambda states: (states.mean(column(states.excess, states.depths)),),
        uses=(SURFACE_PRESSURE,),
    ),
}
"""Diagnostics by name."""


def _known(field: xr.DataArray | None) -> xr.DataArray:
    assert field is not None
    return field


def diagnose(states: xr.Dataset, diagnostics: Iterable[str] | None = None, *, progress: bool = False) -> xr.Dataset:
    """Diagnostics of every state of a dataset or of an archive.

    Args:
        states: Canonical fields with any leading dimensions: a truth ``(time, ...)``, or an archive ``(time, number,
            prediction_timedelta, ...)``. Read piece by piece. It may hold ``geopotential_at_surface``.
        diagnostics: Names among `DIAGNOSTICS`; None takes all. The balances of wind take the most time.
        progress: Whether to show a progress bar.

    Returns:
        Dataset of the diagnostics, with the leading dimensions, and ``level`` or ``layer`` where they have one. NaN for a state that is not
        there. Attribute ``skipped`` names what could not be had and why, ``missing_states`` how many were not there.

    Raises:
        DataError: No diagnostic is possible, a state has gaps, or the grid cannot be analysed.
        ConfigurationError: A diagnostic is unknown.
    """
    chosen, skipped = _chosen(diagnostics, states, states.get(GROUND))
    statistics, missing = _statistics(states, chosen, states.get(GROUND), progress)
    return _numbers(chosen, statistics).assign_attrs(skipped=skipped, missing_states=missing)


def consistency(
    fc: xr.Dataset | str | Path, truth: xr.Dataset, diagnostics: Iterable[str] | None = None, *, progress: bool = False
) -> xr.Dataset:
    """Diagnostics of a forecast by lead, beside those of the truth at the same valid times.

    Args:
        fc: Forecast archive, or the path of one.
        truth: Canonical dataset, as for `aeris.verify`. Where it holds ``geopotential_at_surface``, surface pressure can be had.
        diagnostics: Names among `DIAGNOSTICS`; None takes all that the common variables allow.
        progress: Whether to show a progress bar.

    Returns:
        Dataset ``(system, prediction_timedelta, [level | layer])``, the systems being ``"forecast"`` and ``"truth"``. Statistics are
        averaged over members and initial times before roots and quotients are taken. For budgets there is ``drift.{name}`` besides, the
        root mean square difference between a member and the truth at its time, ``(prediction_timedelta,)``. Attributes as `diagnose`.

    Raises:
        DataError: Forecast and truth do not fit together, no diagnostic is possible, a state has gaps, or the grid cannot be analysed.
        ConfigurationError: A diagnostic is unknown.
    """
    pairing = pair(fc, truth)
    chosen, skipped = _chosen(diagnostics, pairing.forecast, truth.get(GROUND))
    forecast, missing = _statistics(pairing.forecast, chosen, truth.get(GROUND), progress)
    valid = xr.DataArray(pairing.times[:, None] + pairing.leads, {"time": pairing.times, LEAD: pairing.leads}, ["time", LEAD])
    happened, _ = _statistics(pairing.truth.sel(time=np.unique(valid)), chosen, truth.get(GROUND), progress)
    happened = {name: field.sel(time=valid.drop_vars("time")).assign_coords(time=pairing.times) for name, field in happened.items()}
    means = {
        name: [field.mean(("time", "number")), happened[name].where(field.notnull().any("number")).mean("time")]
        for name, field in forecast.items()
    }
    both = {name: xr.concat(two, xr.Variable("system", np.array(["forecast", "truth"], object))) for name, two in means.items()}
    drifts = {f"drift.{name}": _drift(name, forecast[name], happened[name]) for name, one in chosen.items() if one.kept}
    numbers = _numbers(chosen, both).transpose("system", LEAD, ...)
    return numbers.assign(drifts).assign_attrs(skipped=skipped, missing_states=missing)


def _drift(name: str, forecast: xr.DataArray, happened: xr.DataArray) -> xr.DataArray:
    """Root mean square difference of a budget, ``(prediction_timedelta,)``."""
    apart = ((forecast - happened) ** 2).mean(("time", "number")).isel(statistic=0) ** 0.5
    about = DIAGNOSTICS[name]
    return apart.assign_attrs(units=about.units, long_name=f"root mean square drift from the truth, {about.long_name}")


def _chosen(names: Iterable[str] | None, states: xr.Dataset, ground: xr.DataArray | None) -> tuple[dict[str, Diagnostic], str]:
    """The diagnostics that a dataset allows, and which it does not, and why."""
    wanted = list(DIAGNOSTICS) if names is None else [names] if isinstance(names, str) else list(names)
    unknown = [name for name in wanted if name not in DIAGNOSTICS]
    if unknown:
        raise ConfigurationError(
            f"The diagnostic {unknown[0]!r}",
            f"A diagnostic is one of {', '.join(DIAGNOSTICS)}",
            "Use for example diagnostics=['hydrostatic_residual']",
        )
    held = {str(name) for name in states.data_vars}
    held |= {SURFACE_PRESSURE} if ground is not None and {_Z, _T} <= held else set()
    lacking = {name: [need for need in DIAGNOSTICS[name].needs if need not in held] for name in wanted}
    if states.sizes.get("level", 0) < 2:
        lacking |= {name: [*lacks, "two levels"] for name, lacks in lacking.items() if name.startswith("hydrostatic") and not lacks}
    skipped = "; ".join(f"{name}: needs {' and '.join(lacks)}" for name, lacks in lacking.items() if lacks)
    chosen = {name: DIAGNOSTICS[name] for name in wanted if not lacking[name]}
    if not chosen:
        raise DataError(
            f"The dataset holds {', '.join(sorted(held))}", f"No diagnostic is possible ({skipped})", "Give the variables that one needs"
        )
    return chosen, skipped


def _numbers(chosen: dict[str, Diagnostic], statistics: dict[str, xr.DataArray]) -> xr.Dataset:
    found = {}
    for name, one in chosen.items():
        parts = [statistics[name].isel(statistic=place) for place in range(statistics[name].sizes["statistic"])]
        found[name] = one.of_means(*parts).assign_attrs(units=one.units, long_name=one.long_name)
    return xr.Dataset(found)


def _statistics(
    states: xr.Dataset, chosen: dict[str, Diagnostic], ground: xr.DataArray | None, progress: bool
) -> tuple[dict[str, xr.DataArray], int]:
    """Statistics of every state, ``(statistic, leading dimensions, [level | layer])``, and how many states were not there."""
    fields = _needed(states, chosen, ground)
    ground = None if ground is None else ground.astype(float).load()
    leading = sorted((str(dim) for dim in fields.dims if dim not in _WHOLE), key=lambda dim: dim == "number")
    fields = fields if leading else fields.expand_dims("state")
    found: dict[str, xr.DataArray] = {}
    missing = 0
    for piece in tqdm(list(_pieces(fields, leading or ["state"])), desc="diagnosing", unit="piece", disable=not progress):
        inner = next(dim for dim, part in piece.items() if isinstance(part, slice))
        block = fields.isel(piece).load().astype(float)
        there = _which_are_there(block, inner)
        missing += int((~there).sum())
        if there.any():
            present = States(block.isel({inner: there}).rename({inner: "state"}), ground)
            for name, one in chosen.items():
                values = xr.concat(one.statistics(present), "statistic").transpose("statistic", "state", ...)
                room = found.setdefault(name, _room(values, fields, leading))
                room[piece | {inner: np.arange(fields.sizes[inner])[piece[inner]][there]}] = values.values
    if not found:
        raise DataError("No state is there", "At least one must be whole", "Let the forecast finish first")
    return (found if leading else {name: field.isel(state=0) for name, field in found.items()}), missing


def _needed(states: xr.Dataset, chosen: dict[str, Diagnostic], ground: xr.DataArray | None) -> xr.Dataset:
    """The variables that the diagnostics read, with rising levels and one order of dimensions."""
    names = {name for one in chosen.values() for name in (*one.needs, *one.uses)}
    if SURFACE_PRESSURE in names and SURFACE_PRESSURE not in states and ground is not None:
        names |= {_Z, _T}
    fields = states[[str(name) for name in states.data_vars if name in names]].reset_coords(drop=True)
    fields = fields.sortby("level") if "level" in fields.dims else fields
    return fields.transpose(..., "level", *CELLS, missing_dims="ignore")


def _pieces(fields: xr.Dataset, leading: list[str]) -> Iterator[dict[str, Any]]:
    """Positions of the states that are read at once: one along each leading dimension but the last, a slice along that."""
    *outer, inner = leading
    states = int(np.prod([fields.sizes[dim] for dim in leading]))
    step = max(1, PIECE_VALUES // max(1, sum(field.size for field in fields.values()) // states))
    for place in np.ndindex(*(fields.sizes[dim] for dim in outer)):
        for first in range(0, fields.sizes[inner], step):
            yield dict(zip(outer, place, strict=True)) | {inner: slice(first, first + step)}


def _which_are_there(block: xr.Dataset, inner: str) -> np.ndarray:
    """Which states are whole; one in which a variable is missing throughout is not there.

    Raises:
        DataError: A variable is missing in a part of a state.
    """
    known = {name: field.notnull() for name, field in block.items()}
    absent = np.any([~field.any([dim for dim in field.dims if dim != inner]) for field in known.values()], axis=0)
    for name, field in known.items():
        gaps = ~field.all([dim for dim in field.dims if dim != inner]).values & ~absent
        if gaps.any():
            partly = 1 - float(field.isel({inner: gaps}).mean())
            raise DataError(
                f"{partly:.1%} of {name} is missing in a state",
                "Diagnostics need a value in every cell and on every level",
                "Leave out the levels that not all variables have, with ds.sel(level=[...]), or name other diagnostics",
            )
    return ~absent


def _room(values: xr.DataArray, fields: xr.Dataset, leading: list[str]) -> xr.DataArray:
    """Room for statistics of all states, where those of some are `values` ``(statistic, state, [level | layer])``."""
    dims = leading or ["state"]
    coordinates = {dim: fields[dim] for dim in dims if dim in fields.coords}
    last = [str(dim) for dim in values.dims[2:]]
    shape = [values.sizes["statistic"], *(fields.sizes[dim] for dim in dims), *values.shape[2:]]
    return xr.DataArray(np.full(shape, np.nan), coordinates | {dim: values[dim] for dim in last}, ["statistic", *dims, *last])
