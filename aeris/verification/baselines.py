"""What a forecast is held against: persistence, climatology, the optimum of the simulated planet, and forecasts of others.

A *system* is a function from an initial time to the members that it forecasts from there,
``(number, prediction_timedelta, [level,] latitude, longitude)``, lazy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import xarray as xr

from aeris.errors import ConfigurationError
from aeris.verification.climatology import Climatology
from aeris.verification.pairing import LEAD, Pairing, need_cover, need_times
from aeris.verification.references import Others, members_of, open_reference

System = Callable[[np.datetime64], xr.Dataset]

FROM_START = ("persistence", "optimum")
"""Baselines that need the truth at the initial time."""


def systems_of(
    pairing: Pairing, truth: xr.Dataset, normal: System | None, baselines: Iterable[str | Others] | str | Others
) -> dict[str, System]:
    """The forecast and its baselines, by name, each checked to cover what is compared.

    Args:
        pairing: What is compared.
        truth: The whole truth, as the simulated planet needs it.
        normal: The baseline ``"climatology"``, where there is one.
        baselines: Names of the baselines, and mappings of further names to archives.

    Raises:
        ConfigurationError: A name is unknown or stands twice, or the climatology is missing.
        DataError: A baseline lacks something that the forecast is scored on.
    """
    systems: dict[str, System] = {"forecast": pairing.members}
    for item in [baselines] if isinstance(baselines, str | Mapping) else baselines:
        entries: Others | dict[str, None] = {item: None} if isinstance(item, str) else item
        for name, source in entries.items():
            _need_new_name(name, systems)
            systems[name] = _built_in(name, pairing, truth, normal) if source is None else members_of(open_reference(source), pairing)
    return systems


def persistence(pairing: Pairing) -> System:
    """The truth at the initial time, held."""
    need_times("the truth", pairing.truth, pairing.times)
    return lambda time: pairing.truth.sel(time=time, drop=True).expand_dims({"number": [0], LEAD: pairing.leads})


def climatological(pairing: Pairing, climatology: Climatology) -> System:
    """The members of a climatology at the valid times.

    Raises:
        DataError: The climatology lacks a variable, a level or a valid time.
    """
    need_cover("the climatology", climatology.fields, pairing, dims=())
    for time in pairing.times:
        climatology.select(time + pairing.leads)
    return lambda time: _compared(climatology.after(time, pairing.leads), pairing)


def optimum(pairing: Pairing, truth: xr.Dataset) -> System:
    """The exact forecast of the simulated planet, with as many members as the forecast has.

    Raises:
        DataError: The truth does not come from a simulated planet, or lacks an initial time.
    """
    from aeris.data.planet import Planet

    planet, members = Planet.of(truth), pairing.forecast.sizes["number"]
    need_times("the truth", truth, pairing.times)

    def forecast(time: np.datetime64) -> xr.Dataset:
        drawn = planet.forecast(truth.sel(time=time), lead=list(pairing.leads), members=members)
        return _compared(drawn, pairing)

    return forecast


def _built_in(name: str, pairing: Pairing, truth: xr.Dataset, normal: System | None) -> System:
    if name == "persistence":
        return persistence(pairing)
    if name == "optimum":
        return optimum(pairing, truth)
    if name == "climatology" and normal is not None:
        return normal
    if name == "climatology":
        raise ConfigurationError(
            "The baseline 'climatology' without a climatology",
            "It is made from the climatology that verify is given",
            "Give climatology=aeris.verification.climatology.ensemble_climatology(ds), ds being past states",
        )
    raise ConfigurationError(
        f"The baseline {name!r}",
        "A baseline is 'persistence', 'climatology', 'optimum', or a mapping of a name to a forecast archive",
        f"Give for example baselines=('persistence', {{{name!r}: its_archive}})",
    )


def _compared(members: xr.Dataset, pairing: Pairing) -> xr.Dataset:
    """The variables and levels that are compared."""
    levels = {"level": pairing.forecast.level} if "level" in pairing.forecast.dims else {}
    return members[list(pairing.variables)].sel(levels)


def _need_new_name(name: str, systems: Mapping[str, System]) -> None:
    if name in systems:
        raise ConfigurationError(
            f"The baseline {name!r} stands twice",
            f"Each system has a name of its own; {', '.join(systems)} are taken",
            "Give it another name",
        )
