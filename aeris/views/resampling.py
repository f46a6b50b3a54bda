"""From a grid to the plane of a map projection, without a seam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from aeris.data.grid import Grid, row_edges

if TYPE_CHECKING:
    from cartopy.crs import Projection

PIXELS = 900
"""Pixels across a plane, where nothing else is said."""

Extent = tuple[float, float, float, float]
"""Left, right, bottom and top of a plane, in the projection's own unit."""


@dataclass(frozen=True, eq=False)
class Plane:
    """The pixels of a projection's plane, and the cell of a grid that lies under each.

    Asking from the picture back to the grid, and for the column around the circle, leaves no seam in any projection.

    Attributes:
        row: Row of the cell under each pixel, shape ``(pixel rows from below, pixel columns)``.
        column: Its column, of the same shape.
        inside: Whether the pixel is on the globe, of the same shape.
        extent: Left, right, bottom and top.
        projection: The projection.
    """

    row: np.ndarray
    column: np.ndarray
    inside: np.ndarray
    extent: Extent
    projection: Projection

    @classmethod
    def of(cls, grid: Grid, projection: Projection, pixels: int = PIXELS) -> Plane:
        """The plane of a projection, `pixels` across."""
        from cartopy import crs

        (left, right), (bottom, top) = projection.x_limits, projection.y_limits
        rows = max(1, round(pixels * (top - bottom) / (right - left)))
        x, y = (low + (np.arange(count) + 0.5) * (high - low) / count for low, high, count in ((left, right, pixels), (bottom, top, rows)))
        places = crs.PlateCarree().transform_points(projection, *np.meshgrid(x, y))
        longitude, latitude = places[..., 0], places[..., 1]
        inside = np.isfinite(longitude) & np.isfinite(latitude)
        step = 360.0 / grid.shape[1]
        column = np.round(np.where(inside, longitude - grid.longitude[0], 0.0) / step).astype(int) % grid.shape[1]
        row = np.searchsorted(-row_edges(grid.latitude)[1:-1], -np.where(inside, latitude, 0.0))
        return cls(row, column, inside, (left, right, bottom, top), projection)

    def image(self, field: xr.DataArray) -> np.ndarray:
        """Values ``(pixel rows from below, pixel columns)`` of a field on the grid, NaN outside the globe."""
        values = field.transpose("latitude", "longitude").values
        return np.where(self.inside, values[self.row, self.column], np.nan)


def resample(field: xr.DataArray, projection: Projection) -> tuple[np.ndarray, Extent]:
    """The cell of the grid that lies under each pixel of a projection's plane.

    Args:
        field: ``(latitude, longitude)`` on a global grid.
        projection: A cartopy projection.

    Returns:
        Float64 values ``(pixel rows from below, pixel columns)``, NaN outside the globe, and the extent (left, right, bottom, top) of the
        plane.
    """
    plane = Plane.of(Grid.of(field), projection)
    return plane.image(field).astype(np.float64), plane.extent
