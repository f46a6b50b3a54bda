"""Physical consistency: whether what a model draws could be air.

A network is not told that pressure is the weight of the air above, that wind turns around lows, or that mass is kept. `diagnose` puts
numbers on how far each state is from that (`aeris.verification.diagnostics`); `consistency` holds those of a forecast, lead by lead, beside
those of the truth, which is not at zero either: levels are few, the wind is not quite balanced, and water comes and goes. What a dataset
lacks the variables for is skipped and named in the attribute ``skipped``.

What the 69 channels of ERA5 allow: mean sea level pressure is *not* the weight of the air, but close to it over sea. Surface pressure, and
with it dry air, needs the height of the ground too (``geopotential_at_surface`` in the truth). Water is vapour alone, without clouds, and
what lies above the uppermost level counts in no column but in the pressure of dry air.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from aeris.data.variables import PRESSURE
from aeris.errors import ConfigurationError, DataError
from aeris.progress import tqdm
from aeris.verification.daily import need_units
from aeris.verification.diagnostics import DIAGNOSTICS, LAYERS, SURFACE_PRESSURE, Diagnostic, States, T, Z
from aeris.verification.pairing import CELLS, LEAD, PIECE_VALUES, pair

GROUND = "geopotential_at_surface"
_WHOLE = ("level", *CELLS)
_COPIES = 4
"""How many times a piece of states is in memory, roughly, with all that is made of it."""


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
        DataError: No diagnostic is possible, a unit is not the registry's, a state has gaps, or the grid cannot be analysed.
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
        root mean square difference between a member and the truth at its time, ``(prediction_timedelta,)``: weather that differs has a
        share in that of water and energy, mass has none. Attributes as `diagnose`.

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
    drifts = {f"drift.{name}": _drift(name, forecast[name], happened[name]) for name, one in chosen.items() if one.budget}
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
    held = _held(states, ground)
    lacking = {name: [need for need in DIAGNOSTICS[name].needs if need not in held] for name in wanted}
    skipped = "; ".join(f"{name}: needs {' and '.join(lacks)}" for name, lacks in lacking.items() if lacks)
    chosen = {name: DIAGNOSTICS[name] for name in wanted if not lacking[name]}
    if not chosen:
        raise DataError(
            f"The dataset holds {', '.join(sorted(held))}", f"No diagnostic is possible ({skipped})", "Give the variables that one needs"
        )
    return chosen, skipped


def _held(states: xr.Dataset, ground: xr.DataArray | None) -> set[str]:
    """What a dataset offers: its variables, those on levels with a dimension of levels, and what follows from them."""
    held = {str(name) for name, field in states.data_vars.items() if name not in PRESSURE or "level" in field.dims}
    held |= {LAYERS} if states.sizes.get("level", 0) > 1 else set()
    return held | ({SURFACE_PRESSURE} if ground is not None and {Z, T, LAYERS} <= held else set())


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
    leading = [str(dim) for dim in fields.dims if dim not in _WHOLE]
    found: dict[str, xr.DataArray] = {}
    missing = 0
    for piece in tqdm(list(_pieces(fields, leading)), desc="diagnosing", unit="piece", disable=not progress):
        block = fields.isel(piece).load().astype(float)
        block = block.stack(state=leading, create_index=False) if leading else block.expand_dims("state")
        there = _which_are_there(block)
        missing += int((~there).sum())
        if there.any():
            present = States(block.isel(state=there).transpose("state", "level", *CELLS, missing_dims="ignore"), ground)
            for name, one in chosen.items():
                values = xr.concat(one.statistics(present), "statistic").transpose("statistic", "state", ...)
                _write(found.setdefault(name, _room(values, fields, leading)), piece, values.values, there)
    if not found:
        raise DataError("No state is there", "At least one must be whole", "Let the forecast finish first")
    return found, missing


def _needed(states: xr.Dataset, chosen: dict[str, Diagnostic], ground: xr.DataArray | None) -> xr.Dataset:
    """The variables that the diagnostics read, with rising levels and one order of dimensions."""
    names = {name for one in chosen.values() for name in (*one.needs, *one.uses)}
    if SURFACE_PRESSURE in names and SURFACE_PRESSURE not in states and ground is not None:
        names |= {Z, T}
    fields = states[[str(name) for name in states.data_vars if name in names]].reset_coords(drop=True)
    for field in fields.values():
        need_units("The dataset", field)
    fields = fields.sortby("level") if "level" in fields.dims else fields
    return fields.transpose(..., "level", *CELLS, missing_dims="ignore")


def _pieces(fields: xr.Dataset, leading: list[str]) -> Iterator[dict[str, slice]]:
    """Positions of the states that are read at once: as many as fit, the last dimension first."""
    states = int(np.prod([fields.sizes[dim] for dim in leading]))
    room = max(1, PIECE_VALUES // _COPIES // max(1, sum(field.size for field in fields.values()) // states))
    cuts = []
    for dim in reversed(leading):
        size = fields.sizes[dim]
        step = min(size, room)
        room = max(1, room // size)
        cuts.append([slice(first, min(first + step, size)) for first in range(0, size, step)])
    for slices in product(*reversed(cuts)):
        yield dict(zip(leading, slices, strict=True))


def _which_are_there(block: xr.Dataset) -> np.ndarray:
    """Which states are whole; one in which a variable is missing throughout is not there.

    Raises:
        DataError: A variable is missing in a part of a state.
    """
    known = {name: field.notnull() for name, field in block.items()}
    absent = np.any([~field.any(_others(field)) for field in known.values()], axis=0)
    for name, field in known.items():
        gaps = ~field.all(_others(field)).values & ~absent
        if gaps.any():
            raise DataError(
                f"{1 - float(field.isel(state=gaps).mean()):.1%} of {name} is missing in a state",
                "Diagnostics need a value in every cell and on every level",
                "Leave out the levels that not all variables have, with ds.sel(level=[...]), or name other diagnostics",
            )
    return ~absent


def _others(field: xr.DataArray) -> list[str]:
    return [str(dim) for dim in field.dims if dim != "state"]


def _room(values: xr.DataArray, fields: xr.Dataset, leading: list[str]) -> xr.DataArray:
    """Room for statistics of all states, where those of some are `values` ``(statistic, state, [level | layer])``."""
    last = [str(dim) for dim in values.dims[2:]]
    coordinates = {dim: fields[dim] for dim in leading if dim in fields.coords} | {dim: values[dim] for dim in last}
    shape = [values.sizes["statistic"], *(fields.sizes[dim] for dim in leading), *values.shape[2:]]
    return xr.DataArray(np.full(shape, np.nan), coordinates, ["statistic", *leading, *last])


def _write(room: xr.DataArray, piece: dict[str, slice], values: np.ndarray, there: np.ndarray) -> None:
    """Writes statistics of the states that are there into their places."""
    part = room[piece]
    every = np.full((values.shape[0], len(there), *values.shape[2:]), np.nan)
    every[:, there] = values
    room[piece] = every.reshape(part.shape)
