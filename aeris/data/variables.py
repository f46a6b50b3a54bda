"""The channel registry: what each field is called, its unit, its bounds and its weight in the loss.

A *variable* is a field of the canonical dataset (WeatherBench 2 names, SI units). A *channel* is one horizontal field of the
network: a surface variable, or a variable on one pressure level, written ``geopotential_500``.

The channel list, its order and the loss weights are those of AERIS (arXiv 2509.13523): four surface variables, five variables
on thirteen levels, sea surface temperature in the 24 h model, and three forcings that are given but never predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aeris.errors import DataError

GRAVITY = 9.80665
"""Standard gravity in m s⁻², by which ERA5 and WeatherBench 2 relate geopotential to height."""

SEA_ICE_POINT = 271.35
"""Freezing point of sea water in K; fills sea surface temperature over land (the smallest value in ERA5)."""

LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
"""The thirteen pressure levels of WeatherBench 2 in hPa."""


@dataclass(frozen=True)
class Variable:
    """One field of the canonical dataset.

    Attributes:
        name: WeatherBench 2 name.
        short: ECMWF short name.
        units: SI unit, in the spelling that `aeris` writes.
        bounds: Smallest and largest value that can occur on Earth between 50 and 1000 hPa, in `units`.
        pressure: Whether it stands on pressure levels.
        kind: ``"state"`` (predicted), ``"forcing"`` (given, changes with time) or ``"static"`` (given once).
        long_name: What a plot calls it.
        loss_weight: Raw weight in the training loss; a variable on levels shares it in proportion to pressure.
        aliases: Other names under which data sets hold it, in lower case.
    """

    name: str
    short: str
    units: str
    bounds: tuple[float, float]
    pressure: bool = False
    kind: str = "state"
    long_name: str = ""
    loss_weight: float = 0.1
    aliases: tuple[str, ...] = ()


VARIABLES: dict[str, Variable] = {
    variable.name: variable
    for variable in (
        Variable(
            "2m_temperature",
            "t2m",
            "K",
            (160.0, 345.0),
            long_name="temperature at 2 m",
            loss_weight=1.0,
            aliases=("2t", "t2", "air_2m", "tas", "var_2t", "tmp2m"),
        ),
        Variable(
            "10m_u_component_of_wind",
            "u10",
            "m s**-1",
            (-120.0, 120.0),
            long_name="eastward wind at 10 m",
            aliases=("10u", "uas", "var_10u", "u10m"),
        ),
        Variable(
            "10m_v_component_of_wind",
            "v10",
            "m s**-1",
            (-120.0, 120.0),
            long_name="northward wind at 10 m",
            aliases=("10v", "vas", "var_10v", "v10m"),
        ),
        Variable(
            "mean_sea_level_pressure",
            "msl",
            "Pa",
            (84_000.0, 111_000.0),
            long_name="pressure at mean sea level",
            aliases=("prmsl", "mslp", "psl", "slp", "mslet"),
        ),
        Variable(
            "geopotential",
            "z",
            "m**2 s**-2",
            (-12_000.0, 230_000.0),
            True,
            long_name="geopotential",
            loss_weight=1.0,
            aliases=("phi", "gh", "hgt", "zg", "geopotential_height"),
        ),
        Variable(
            "u_component_of_wind",
            "u",
            "m s**-1",
            (-190.0, 190.0),
            True,
            long_name="eastward wind",
            loss_weight=1.0,
            aliases=("uwnd", "ua", "ugrd"),
        ),
        Variable(
            "v_component_of_wind",
            "v",
            "m s**-1",
            (-190.0, 190.0),
            True,
            long_name="northward wind",
            loss_weight=1.0,
            aliases=("vwnd", "va", "vgrd"),
        ),
        Variable(
            "temperature",
            "t",
            "K",
            (150.0, 345.0),
            True,
            long_name="temperature",
            loss_weight=1.0,
            aliases=("air", "ta", "temp", "tmp", "air_temperature"),
        ),
        Variable(
            "specific_humidity",
            "q",
            "kg kg**-1",
            (-0.003, 0.06),
            True,
            long_name="specific humidity",
            loss_weight=1.0,
            aliases=("shum", "hus", "spfh"),
        ),
        Variable(
            "sea_surface_temperature",
            "sst",
            "K",
            (268.0, 313.0),
            long_name="sea surface temperature",
            aliases=("tos", "ssts", "analysed_sst"),
        ),
        Variable(
            "toa_incident_solar_radiation",
            "tisr",
            "J m**-2",
            (0.0, 5.2e6),
            kind="forcing",
            long_name="solar radiation at the top of the atmosphere over the past hour",
            aliases=("rsdt",),
        ),
        Variable(
            "geopotential_at_surface",
            "z_sfc",
            "m**2 s**-2",
            (-5_000.0, 90_000.0),
            kind="static",
            long_name="geopotential at the surface",
            aliases=("zs", "orography", "orog", "phis", "hgtsfc", "surface_geopotential", "surface_altitude"),
        ),
        Variable(
            "land_sea_mask",
            "lsm",
            "1",
            (0.0, 1.0),
            kind="static",
            long_name="fraction of land",
            aliases=("landmask", "land", "sftlf", "lsmask", "land_mask", "landseamask"),
        ),
    )
}

SURFACE = ("2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind", "mean_sea_level_pressure")
PRESSURE = ("geopotential", "u_component_of_wind", "v_component_of_wind", "temperature", "specific_humidity")
SEA = "sea_surface_temperature"
RADIATION = "toa_incident_solar_radiation"
STATIC = ("geopotential_at_surface", "land_sea_mask")
WIND_PAIRS = (
    ("10m_u_component_of_wind", "10m_v_component_of_wind"),
    ("u_component_of_wind", "v_component_of_wind"),
)


@dataclass(frozen=True)
class Channel:
    """One horizontal field: a variable and, where it stands on levels, its pressure in hPa."""

    variable: Variable
    level: int | None = None

    @property
    def name(self) -> str:
        """The channel's name, for example ``2m_temperature`` or ``geopotential_500``."""
        return self.variable.name if self.level is None else f"{self.variable.name}_{self.level}"


def parse_channel(name: str) -> Channel:
    """Reads a channel name such as ``geopotential_500``.

    Raises:
        DataError: The name is not that of a registered variable with, where due, a level in hPa.
    """
    if name in VARIABLES and not VARIABLES[name].pressure:
        return Channel(VARIABLES[name])
    stem, _, level = name.rpartition("_")
    if stem in VARIABLES and VARIABLES[stem].pressure and level.isdigit() and 0 < int(level) <= 1100:
        return Channel(VARIABLES[stem], int(level))
    raise DataError(
        f"Unknown channel {name!r}",
        "A channel is a surface variable, or a variable on a pressure level in hPa joined by an underscore",
        f"Use for example '2m_temperature' or 'geopotential_500'; the variables are {', '.join(VARIABLES)}",
    )


def state_channels(sea: bool = True, levels: Sequence[int] = LEVELS) -> tuple[str, ...]:
    """The predicted channels of AERIS in their order: 70 with sea surface temperature (24 h model), 69 without (6 h)."""
    upper = tuple(f"{name}_{level}" for name in PRESSURE for level in levels)
    return SURFACE + upper + ((SEA,) if sea else ())


def channel_weights(channels: Sequence[str]) -> np.ndarray:
    """Weights of the predicted channels in the loss, summing to one.

    2 m temperature counts 1, other surface fields 0.1, and each variable on levels 1, shared in proportion to pressure
    (reference values: 0.15625 for 2 m temperature among the 70 channels of AERIS).

    Args:
        channels: Channel names.

    Returns:
        Float64 array of shape ``(len(channels),)``.
    """
    parsed = [parse_channel(name) for name in channels]
    pressure_sum: dict[str, int] = {}
    for channel in parsed:
        if channel.level is not None:
            pressure_sum[channel.variable.name] = pressure_sum.get(channel.variable.name, 0) + channel.level
    raw = [
        channel.variable.loss_weight * (1.0 if channel.level is None else channel.level / pressure_sum[channel.variable.name])
        for channel in parsed
    ]
    return np.asarray(raw) / np.sum(raw)
