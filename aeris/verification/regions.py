"""Regions over which scores are averaged: boxes of latitude and longitude, and the land in them.

Names and boxes are those of WeatherBench 2 where it has them. A cell belongs to a box if its centre does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification.pairing import CELLS

LAND = "land_sea_mask"


@dataclass(frozen=True)
class Box:
    """A part of the globe, in degrees, its edges included.

    Attributes:
        south: Southern edge.
        north: Northern edge.
        west: Western edge, in degrees east.
        east: Eastern edge; smaller than `west` for a box across 0°.
        outside: Whether what lies outside these latitudes is meant.
        land: Whether a cell counts by its share of land.
    """

    south: float = -90.0
    north: float = 90.0
    west: float = 0.0
    east: float = 360.0
    outside: bool = False
    land: bool = False

    def __post_init__(self) -> None:
        if not -90 <= self.south < self.north <= 90:
            raise ConfigurationError(
                f"A box from {self.south}° to {self.north}° north",
                "South lies below north, both within ±90°",
                "Use for example Box(-20, 20)",
            )

    def weights(self, grid: Grid, land: np.ndarray | None) -> np.ndarray:
        """Share of each cell that belongs to it, ``(rows, columns)``."""
        rows = (grid.latitude >= self.south) & (grid.latitude <= self.north)
        if self.outside:
            rows = (grid.latitude <= self.south) | (grid.latitude >= self.north)
        width = self.east - self.west if self.east >= self.west else self.east - self.west + 360.0
        columns = (grid.longitude - self.west) % 360.0 <= width
        inside = (rows[:, None] & columns).astype(float)
        return inside * land if self.land and land is not None else inside


REGIONS: dict[str, Box] = {
    "global": Box(),
    "tropics": Box(-20, 20),
    "extra-tropics": Box(-20, 20, outside=True),
    "northern-hemisphere": Box(20, 90),
    "southern-hemisphere": Box(-90, -20),
    "europe": Box(35, 75, 347.5, 42.5),
    "north-america": Box(25, 60, 240, 285),
    "north-atlantic": Box(25, 65, 290, 350),
    "north-pacific": Box(25, 60, 145, 230),
    "east-asia": Box(25, 60, 102.5, 150),
    "ausnz": Box(-45, -12.5, 120, 175),
    "arctic": Box(60, 90),
    "antarctic": Box(-90, -60),
    "asia": Box(0, 78, 60, 190, land=True),
    "africa": Box(-35, 37, 342, 52, land=True),
    "south-america": Box(-56, 13, 278, 326, land=True),
    "global_land": Box(land=True),
    "tropics_land": Box(-20, 20, land=True),
    "extra-tropics_land": Box(-20, 20, outside=True, land=True),
}
"""The regions that are known by name."""

Regions = Iterable[str] | Mapping[str, Box | xr.DataArray]
"""Names of :data:`REGIONS`, or regions by name: boxes, and shares of cells ``(latitude, longitude)``."""


def region_weights(regions: Regions, truth: xr.Dataset) -> xr.DataArray:
    """Share of each cell that belongs to each region.

    Args:
        regions: The regions.
        truth: Canonical dataset on the grid; regions of land need its ``land_sea_mask``.

    Returns:
        ``(region, latitude, longitude)``, from 0 to 1.

    Raises:
        ConfigurationError: A name is unknown, or there is none.
        DataError: There is no mask of the land, a mask stands on another grid, or a region holds no cell.
    """
    grid = Grid.of(truth)
    chosen = {name: _named(name) for name in regions} if not isinstance(regions, Mapping) else dict(regions)
    if isinstance(regions, str) or not chosen:
        raise ConfigurationError(
            f"regions={regions!r}", "Regions are one or more names, or a mapping", "Use for example ['global', 'tropics']"
        )
    shares = np.stack([_share(name, region, grid, truth) for name, region in chosen.items()])
    return xr.DataArray(
        shares, {"region": list(chosen), "latitude": truth.latitude, "longitude": truth.longitude}, ("region", *CELLS), name="share"
    )


def cell_weights(cell_area: xr.Variable, shares: xr.DataArray | None, columns: int) -> np.ndarray:
    """Weights of the cells, ``(region, cells)``: area over the mean cell area, times the share; one region where there is None."""
    area = np.repeat(cell_area.values[:, None], columns, axis=1)[None]
    return (area if shares is None else area * shares.values).reshape(1 if shares is None else len(shares), -1)


def _named(name: str) -> Box:
    if name not in REGIONS:
        raise ConfigurationError(
            f"The region {name!r}",
            f"Known regions are {', '.join(REGIONS)}",
            "Give others as a mapping: {'alps': aeris.verification.Box(44, 48, 6, 16)}",
        )
    return REGIONS[name]


def _share(name: str, region: Box | xr.DataArray, grid: Grid, truth: xr.Dataset) -> np.ndarray:
    if isinstance(region, Box):
        if region.land and LAND not in truth:
            raise DataError(f"The truth holds no {LAND}", f"The region {name!r} needs one", f"Add it: truth[{LAND!r}] = ...")
        share = region.weights(grid, _land(truth) if region.land else None)
    else:
        if set(region.dims) != set(CELLS) or not Grid.of(region).same_as(grid):
            raise DataError(
                f"The mask {name!r} with dimensions {region.dims}", f"A mask stands on the truth's grid, {grid}", "Interpolate it"
            )
        share = region.transpose(*CELLS).values.astype(float)
    if not share.max() > 0 or np.isnan(share).any() or share.min() < 0 or share.max() > 1:
        raise DataError(
            f"Shares of cells in the region {name!r} run from {np.nanmin(share):.3g} to {np.nanmax(share):.3g}",
            "A share lies from 0 to 1, none is missing, and some cell belongs to the region",
            "Take a larger region or a finer grid",
        )
    return share


def _land(truth: xr.Dataset) -> np.ndarray:
    mask = truth[LAND]
    return np.clip(mask.isel({dim: 0 for dim in mask.dims if dim not in CELLS}).transpose(*CELLS).values.astype(float), 0.0, 1.0)
