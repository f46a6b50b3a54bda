"""Units that files use, how a field in them becomes SI, and whether its values then make sense.

A unit is believed only when the values agree with it: within the bounds of the registry, and for geopotential within a factor
of two of its global mean at the level, which tells metres from m² s⁻² where the bounds cannot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from aeris.data.variables import GRAVITY, Variable
from aeris.errors import DataError

HEIGHT_NAMES = frozenset({"hgt", "gh", "zg", "geopotential_height", "orog", "surface_altitude"})
"""Names that mean a height in metres by themselves, so that a missing unit leaves no doubt."""

MEAN_GEOPOTENTIAL = {
    50: 200_924.0, 100: 159_702.0, 150: 135_539.0, 200: 117_792.0, 250: 103_579.0, 300: 91_575.0, 400: 71_727.0,
    500: 55_509.0, 600: 41_747.0, 700: 29_767.0, 850: 14_249.0, 925: 7_361.0, 1000: 936.0,
}  # fmt: skip
"""Global mean geopotential of ERA5 in m² s⁻² by level in hPa (statistics published with NVIDIA PhysicsNeMo, rounded)."""


@dataclass(frozen=True)
class Conversion:
    """``SI value = scale * value + offset``.

    Attributes:
        unit: How `aeris` writes the unit that is converted from.
        scale: Factor.
        offset: Summand.
        spellings: Other ways to write the unit, as `spelling` returns them.
    """

    unit: str
    scale: float = 1.0
    offset: float = 0.0
    spellings: tuple[str, ...] = ()

    @property
    def identity(self) -> bool:
        """Whether values stay as they are."""
        return self.scale == 1.0 and self.offset == 0.0


METRES = ("meter", "meters", "metre", "metres", "gpm", "geopotential meter", "geopotential metre", "geopotential meters")
METRES_PER_SECOND = ("ms-1", "mps", "m sec-1", *(f"{metre} {per}" for metre in METRES[:4] for per in ("s-1", "sec-1", "second-1")))
CELSIUS = (
    "c",
    "°c",
    "celsius",
    *(f"{degree}{gap}{c}" for degree in ("deg", "degree", "degrees") for gap in " _" for c in ("c", "celsius")),
)
KELVIN = (
    "kelvin",
    "kelvins",
    "degk",
    *(f"{degree}{gap}{k}" for degree in ("deg", "degree", "degrees") for gap in " _" for k in ("k", "kelvin")),
)

CONVERSIONS: dict[str, tuple[Conversion, ...]] = {
    "K": (Conversion("K", spellings=KELVIN), Conversion("degC", 1.0, 273.15, CELSIUS)),
    "Pa": (
        Conversion("Pa", spellings=("pascal", "pascals")),
        Conversion("hPa", 100.0, spellings=("mb", "mbar", "millibar", "millibars", "hectopascal", "hectopascals")),
        Conversion("kPa", 1000.0, spellings=("kilopascal", "kilopascals")),
    ),
    "m s**-1": (
        Conversion("m s**-1", spellings=METRES_PER_SECOND),
        Conversion("knots", 1852 / 3600, spellings=("kt", "kts", "knot")),
        Conversion("km h**-1", 1 / 3.6, spellings=("km hr-1", "kmh", "kph")),
    ),
    "kg kg**-1": (
        Conversion("kg kg**-1", spellings=("1", "dimensionless")),
        Conversion("g kg**-1", 1e-3, spellings=("gram kg-1", "grams kg-1")),
    ),
    "m**2 s**-2": (
        Conversion("m**2 s**-2", spellings=("j kg-1",)),
        Conversion("m", GRAVITY, spellings=METRES),
        Conversion("dam", 10 * GRAVITY, spellings=("gpdm", "dagpm", "decameter", "decametre", "dekameter")),
        Conversion("km", 1000 * GRAVITY, spellings=("kilometer", "kilometre", "gpkm")),
    ),
    "J m**-2": (Conversion("J m**-2"), Conversion("W m**-2", 3600.0, spellings=("wm-2", "watt m-2", "watts m-2"))),
    "1": (
        Conversion("1", spellings=("(0 - 1)", "(0-1)", "0 - 1", "0-1", "fraction", "proportion", "dimensionless", "none", "unitless")),
        Conversion("%", 0.01, spellings=("percent", "per cent")),
    ),
}
"""Conversions to each SI unit of the registry; the SI unit itself stands first. W m⁻² are taken as the mean over the past hour."""


def spelling(unit: str) -> str:
    """One spelling for ``m s**-1``, ``m s-1``, ``m/s``, ``m s^-1`` and their like."""
    text = re.sub(r"\*\*|\^", "", unit.lower())
    text = re.sub(r"/\s*([a-z]+)(\d*)", lambda match: f" {match[1]}-{match[2] or 1}", text)
    return " ".join(re.sub(r"[*·]|(?<=[a-z0-9])\.(?=[a-z])", " ", text).split())


def find_conversion(units: str, to: str) -> Conversion | None:
    """The conversion from `units` (in any spelling) to the SI unit `to`, or None where it is not known."""
    wanted = spelling(units)
    return next((known for known in CONVERSIONS[to] if wanted == spelling(known.unit) or wanted in known.spellings), None)


@dataclass(frozen=True)
class Sample:
    """What a few values of a field tell of its unit.

    Attributes:
        low: Smallest value, NaN where all are missing.
        high: Largest value.
        means: Area-weighted mean by pressure level in hPa, for levels up to 850 hPa; by 0 where the field has no level.
    """

    low: float
    high: float
    means: dict[int, float]

    @classmethod
    def of(cls, field: xr.DataArray) -> Sample:
        """Looks at a field with dims latitude and longitude, and possibly level before them."""
        values = np.ma.masked_invalid(field.transpose(..., "latitude", "longitude").values.astype(np.float64))
        if not values.count():
            return cls(np.nan, np.nan, {})
        levels = field.level.values if "level" in field.dims else [0]
        rows = np.cos(np.deg2rad(field.latitude.values))
        means = np.ma.average(values.mean(-1), axis=-1, weights=np.broadcast_to(rows, values.shape[:-1]))
        by_level = {int(level): float(mean) for level, mean in zip(levels, np.atleast_1d(means), strict=True) if level <= 850}
        return cls(float(values.min()), float(values.max()), by_level)

    def converted(self, conversion: Conversion) -> Sample:
        """The sample in SI."""
        low, high, *means = (conversion.scale * value + conversion.offset for value in (self.low, self.high, *self.means.values()))
        return Sample(low, high, dict(zip(self.means, means, strict=True)))


def choose_conversion(variable: Variable, units: str, sample: Sample, name: str, where: str) -> Conversion:
    """The conversion that turns a field into SI: the one its unit says, if the values agree.

    Args:
        variable: What the field is.
        units: The unit that stands beside it; empty or ``unknown`` where there is none.
        sample: Its values.
        name: Its name in the file.
        where: The file, for the message.

    Raises:
        DataError: The unit is not known; the values contradict it; or there is none and the values do not tell it.
    """
    if units in ("", "unknown"):
        units = "m" if name.lower() in HEIGHT_NAMES else ""
    if not units:
        return _infer(variable, sample, name, where)
    conversion = find_conversion(units, variable.units)
    if conversion is None:
        raise DataError(
            f"Variable {name!r} of {where} has the unit {units!r}",
            f"{variable.name} needs {_listed(known.unit for known in CONVERSIONS[variable.units])}",
            f"Convert it, or correct the label with ds[{name!r}].attrs['units'] = {variable.units!r} and pass the Dataset",
        )
    if not fits(variable, sample.converted(conversion)):
        raise _contradiction(variable, conversion, sample, name, where)
    return conversion


def fits(variable: Variable, sample: Sample) -> bool:
    """Whether values in SI can be those of `variable` on Earth (true where all are missing)."""
    low, high = variable.bounds
    slack = 1e-3 * (high - low)
    if sample.low < low - slack or sample.high > high + slack:
        return False
    if variable.name != "geopotential":
        return True
    return all(0.5 < mean / mean_geopotential(level) < 2.0 for level, mean in sample.means.items() if level and np.isfinite(mean))


def _infer(variable: Variable, sample: Sample, name: str, where: str) -> Conversion:
    """The only conversion under which the values make sense."""
    found = _candidates(variable, sample)
    if len(found) == 1:
        return found[0]
    choices = [known.unit for known in found or CONVERSIONS[variable.units]]
    raise DataError(
        f"Variable {name!r} of {where} has no unit, and its values from {sample.low:.6g} to {sample.high:.6g} "
        + (f"may be in {_listed(choices)}" if found else f"fit none of {', '.join(choices)}"),
        _rule(variable),
        f"Say which with ds[{name!r}].attrs['units'] = {found[0].unit!r} or the like and pass the Dataset"
        if found
        else _repair(variable, name),
    )


def _candidates(variable: Variable, sample: Sample) -> list[Conversion]:
    """Conversions under which the values make sense, and are not so small that they would make sense in any unit."""
    converted = [(known, sample.converted(known)) for known in CONVERSIONS[variable.units]]
    return [known for known, values in converted if fits(variable, values) and values.high >= 0.05 * variable.bounds[1]]


def _contradiction(variable: Variable, stated: Conversion, sample: Sample, name: str, where: str) -> DataError:
    others = [known.unit for known in _candidates(variable, sample)]
    rule = _rule(variable)
    level, mean = max(sample.means.items(), default=(0, 0.0))
    if variable.name == "geopotential" and level:
        rule += f"; at {level} hPa its mean is near {mean_geopotential(level):.0f}, where this has {stated.scale * mean:.0f}"
    if others:
        remedy = f"The values look like {others[0]}: say so with ds[{name!r}].attrs['units'] = {others[0]!r} and pass the Dataset"
    else:
        remedy = _repair(variable, name)
    return DataError(f"Variable {name!r} of {where} has values from {sample.low:.6g} to {sample.high:.6g} {stated.unit}", rule, remedy)


def _rule(variable: Variable) -> str:
    low, high = variable.bounds
    return f"{variable.name} lies between {low:g} and {high:g} {variable.units}".removesuffix(" 1")


def _repair(variable: Variable, name: str) -> str:
    """What to do with values that fit no unit."""
    if variable.name == "land_sea_mask":
        return f"If these are classes, make a fraction of them, for example ds[{name!r}] = (ds[{name!r}] == 1) * 1.0, and pass the Dataset"
    return f"Look for fill values or another quantity in {name!r}, mask, convert or rename them, and pass the Dataset"


def mean_geopotential(level: float) -> float:
    """Global mean geopotential in m² s⁻² of a pressure level between 50 and 1000 hPa."""
    pressures = list(MEAN_GEOPOTENTIAL)
    return float(np.interp(np.log(level), np.log(pressures), [MEAN_GEOPOTENTIAL[pressure] for pressure in pressures]))


def _listed(words: Iterable[str]) -> str:
    """Words joined as "a, b or c"."""
    *head, last = words
    return f"{', '.join(head)} or {last}" if head else last
