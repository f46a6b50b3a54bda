"""Candidates for tropical cyclones in the fields of one time.

The criteria are those of the detector of TempestExtremes (Zarzycki and Ullrich 2017, https://doi.org/10.1002/2016GL071606; Ullrich et al.
2021, https://doi.org/10.5194/gmd-14-5023-2021): a minimum of mean-sea-level pressure, the lowest within some distance, around which the
pressure rises on all sides, with a warm core above it. A criterion is used where its variables are there, and the outcome says which were.
Files that hold winds alone are searched for maxima of the wind instead, a rule of this package.

Candidates whose contour cannot be followed beyond the edge of a regional grid are left out and counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import pandas as pd
import xarray as xr
from scipy.spatial import cKDTree

from aeris.errors import ConfigurationError, DataError
from aeris.verification.contours import Mesh, contour, minima
from aeris.verification.great_circle import unit_vector

PRESSURE = "mean_sea_level_pressure"
WINDS = ("10m_u_component_of_wind", "10m_v_component_of_wind")
DRY_GAS_CONSTANT = 287.05
"""J kg⁻¹ K⁻¹."""


@dataclass(frozen=True)
class Criteria:
    """What makes a candidate. Distances are great circles in degrees; the defaults are those of the papers, but for the winds.

    Attributes:
        pressure_rise: Pa by which mean-sea-level pressure rises all around the minimum.
        wind_fall: m s⁻¹ by which the 10 m wind falls all around its maximum, where there is no pressure.
        contour_radius: How far away it must have done so.
        warm_core_fall: m² s⁻² by which the thickness between two levels falls all around its maximum.
        warm_core_radius: How far away from that maximum it must have done so.
        warm_core_offset: How far the maximum may be from the minimum of pressure.
        warm_core_levels: The two levels in hPa, the upper one first.
        merge: A candidate is given up if a deeper one (a stronger one, in winds) lies within this distance.
        wind_radius: How far from the minimum the strongest wind is looked for.
        latitude: Latitude in degrees, north or south, beyond which nothing is looked for.
    """

    pressure_rise: float = 200.0
    wind_fall: float = 5.0
    contour_radius: float = 5.5
    warm_core_fall: float = 58.8
    warm_core_radius: float = 6.5
    warm_core_offset: float = 1.0
    warm_core_levels: tuple[int, int] = (300, 500)
    merge: float = 6.0
    wind_radius: float = 2.0
    latitude: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "warm_core_levels" and not value > 0:
                raise ConfigurationError(
                    f"Criteria.{field.name} = {value!r}", "Distances and amounts are positive", f"The usual one is {field.default}"
                )
        if self.latitude + max(self.contour_radius, self.warm_core_radius + self.warm_core_offset, self.wind_radius) > 85.0:
            raise ConfigurationError(
                f"Criteria.latitude = {self.latitude} with radii up to {max(self.contour_radius, self.warm_core_radius)}°",
                "A contour must stay clear of the poles: latitude and radius together reach 85° at most",
                "Use latitude=60",
            )
        upper, lower = self.warm_core_levels
        if not 0 < upper < lower:
            raise ConfigurationError(
                f"Criteria.warm_core_levels = {self.warm_core_levels}",
                "The upper level comes first, in hPa",
                "The usual ones are (300, 500)",
            )


@dataclass(frozen=True)
class Search:
    """What can be looked for in a dataset, settled before anything is read.

    Attributes:
        criteria: The criteria.
        mesh: The grid.
        pressure: Whether minima of pressure are sought; else maxima of the wind.
        winds: Whether the wind is known.
        warm_core: ``"geopotential"``, ``"temperature"``, or None.
    """

    criteria: Criteria
    mesh: Mesh
    pressure: bool
    winds: bool
    warm_core: str | None

    @classmethod
    def of(cls, ds: xr.Dataset, criteria: Criteria) -> Search:
        """What a canonical dataset allows.

        Raises:
            DataError: It has neither the pressure at mean sea level nor both winds at 10 m, or no usable grid.
        """
        pressure, winds = PRESSURE in ds, all(name in ds for name in WINDS)
        if not pressure and not winds:
            raise DataError(
                f"The dataset holds {', '.join(map(str, ds.data_vars)) or 'nothing'}",
                f"Cyclones are sought in {PRESSURE}, or in {' and '.join(WINDS)}",
                "Give a dataset with one of these; aeris.open_era5 names them so",
            )
        warm = next((name for name in ("geopotential", "temperature") if pressure and _has_levels(ds, name, criteria)), None)
        return cls(criteria, Mesh.of(ds), pressure, winds, warm)

    def applied(self) -> str:
        """The criteria that are applied, in words."""
        c, (upper, lower) = self.criteria, self.criteria.warm_core_levels
        if not self.pressure:
            return f"maximum of the 10 m wind, falling by {c.wind_fall:g} m s**-1 within {c.contour_radius:g} degrees; no pressure"
        core = f"falling by {c.warm_core_fall:g} m**2 s**-2 within {c.warm_core_radius:g} degrees"
        warm = f"thickness {upper}-{lower} hPa from {self.warm_core} {core}" if self.warm_core else "no warm core: its levels are not there"
        return f"minimum of {PRESSURE}, rising by {c.pressure_rise:g} Pa within {c.contour_radius:g} degrees; {warm}"

    def variables(self) -> list[str]:
        """The variables that are read."""
        return [*([PRESSURE] if self.pressure else []), *(WINDS if self.winds else ()), *([self.warm_core] if self.warm_core else [])]

    def candidates(self, state: xr.Dataset, counts: Counter[str]) -> pd.DataFrame | None:
        """The candidates in the fields of one time.

        Args:
            state: ``([level,] latitude, longitude)``; each field is read when it is needed.
            counts: What was left out and why is added to it.

        Returns:
            Table with ``lat``, ``lon`` (0 to 360), ``slp`` in Pa and ``wind10`` in m s⁻¹, those of them that are known; None if a
            field is not there.
        """
        c, mesh = self.criteria, self.mesh
        wind = np.hypot(*(mesh.read(state[name]) for name in WINDS)) if self.winds else None
        depth = mesh.read(state[PRESSURE]) if self.pressure else -wind  # type: ignore[operator]
        warmth = _thickness(state, mesh, self.warm_core, c) if self.warm_core else None
        if any(np.isnan(values).all() for values in (depth, wind, warmth) if values is not None):
            return None
        rise = c.pressure_rise if self.pressure else c.wind_fall
        rows, columns = _deepest(depth, mesh, c, counts)
        kept = []
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            outcome = contour(depth, mesh, row, column, rise, c.contour_radius)
            if outcome == "closed" and warmth is not None:
                place = mesh.around(row, column, c.warm_core_offset).highest(warmth, c.warm_core_offset)
                warm = contour(-warmth, mesh, *place, c.warm_core_fall, c.warm_core_radius)
                outcome = "cold" if warm == "open" else warm
            counts[outcome] += 1
            if outcome == "closed":
                kept.append((row, column))
        return self._table(kept, depth, wind)

    def _table(self, kept: list[tuple[int, int]], depth: np.ndarray, wind: np.ndarray | None) -> pd.DataFrame:
        rows, columns = np.array(kept, dtype=int).reshape(-1, 2).T
        table = {"lat": self.mesh.latitude[rows], "lon": np.round(self.mesh.longitude[columns] % 360.0, 6)}
        if self.pressure:
            table["slp"] = depth[rows, columns]
        if wind is not None:
            radius = self.criteria.wind_radius if self.pressure else 0.0
            places = [self.mesh.around(*place, radius).highest(wind, radius) for place in kept]
            table["wind10"] = np.array([wind[place] for place in places], dtype="float64")
        return pd.DataFrame(table)


def detect(state: xr.Dataset, criteria: Criteria | None = None) -> pd.DataFrame:
    """Candidates for tropical cyclones in the fields of one time.

    Args:
        state: Canonical fields ``([level,] latitude, longitude)`` on a global or regional grid; a ``time`` of one is allowed.
        criteria: What makes a candidate.

    Returns:
        Table with ``lat``, ``lon`` (0 to 360), ``slp`` in Pa and ``wind10`` in m s⁻¹ (the strongest within `Criteria.wind_radius`), the
        deepest first. ``attrs`` has ``criteria``, those that were applied, and counts of what was left out: ``open`` (no closed
        contour), ``cold`` (no warm core), ``cut`` (by the edge of the grid).

    Raises:
        DataError: Neither pressure nor winds are there, the grid is none, or a field is missing.
    """
    search, counts = Search.of(state, criteria or Criteria()), Counter[str]()
    others = [dim for dim in state.dims if dim not in ("level", "latitude", "longitude")]
    if any(state.sizes[dim] > 1 for dim in others):
        raise DataError(
            f"The state has the dimension {', '.join(map(str, others))}", "detect looks at one time", "Select one, or use track(ds) for all"
        )
    state = state.squeeze(others)
    found = search.candidates(state, counts)
    if found is None:
        raise DataError("A field is missing throughout", f"Needed are {', '.join(search.variables())}", "Choose a time that has them")
    found = found.sort_values("slp") if search.pressure else found.sort_values("wind10", ascending=False)
    found = found.reset_index(drop=True)
    found.attrs = {"criteria": search.applied()} | {name: counts[name] for name in ("open", "cold", "cut")}
    return found


def _has_levels(ds: xr.Dataset, name: str, criteria: Criteria) -> bool:
    return name in ds and "level" in ds[name].dims and set(criteria.warm_core_levels) <= set(ds.level.values.tolist())


def _thickness(state: xr.Dataset, mesh: Mesh, source: str, criteria: Criteria) -> np.ndarray:
    """Geopotential of the upper level above the lower one, m² s⁻².

    From temperature it is R ∫ T d ln p by the trapezoidal rule over all levels between, without the small effect of moisture.
    """
    upper, lower = criteria.warm_core_levels
    if source == "geopotential":
        return mesh.read(state[source].sel(level=upper)) - mesh.read(state[source].sel(level=lower))
    levels = sorted(level for level in state.level.values.tolist() if upper <= level <= lower)
    total = np.zeros((len(mesh.latitude), len(mesh.longitude)))
    above = mesh.read(state[source].sel(level=upper))
    for high, low in pairwise(levels):
        below = mesh.read(state[source].sel(level=low))
        total += DRY_GAS_CONSTANT * np.log(low / high) * (above + below) / 2
        above = below
    return total


def _deepest(depth: np.ndarray, mesh: Mesh, criteria: Criteria, counts: Counter[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the minima that have no deeper one within the merging distance."""
    rows, columns = np.nonzero(minima(depth, mesh) & (np.abs(mesh.latitude) <= criteria.latitude)[:, None])
    values = depth[rows, columns]
    tree = cKDTree(unit_vector(mesh.latitude[rows], mesh.longitude[columns]).reshape(-1, 3))
    pairs = tree.query_pairs(2 * np.sin(np.deg2rad(criteria.merge) / 2), output_type="ndarray")
    first, second = pairs.T
    # Of equal ones the first in the order of the rows stays.
    shallower = np.where(values[second] < values[first], first, second)
    kept = np.setdiff1d(np.arange(len(rows)), shallower)
    counts["merged"] += len(rows) - len(kept)
    return rows[kept], columns[kept]
