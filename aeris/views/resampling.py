"""From a grid to the plane of a map projection, without a seam."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from aeris.data.grid import Grid, row_edges

if TYPE_CHECKING:
    from cartopy.crs import Projection

_PIXELS = 900


def resample(field: xr.DataArray, projection: Projection) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The cell of the grid that lies under each pixel of a projection's plane.

    Asking from the picture back to the grid, and for the column around the circle, leaves no seam in any projection.

    Args:
        field: ``(latitude, longitude)`` on a global grid.
        projection: A cartopy projection.

    Returns:
        Values ``(pixel rows from below, pixel columns)``, NaN outside the globe, and the extent (left, right, bottom, top) of the plane.
    """
    from cartopy import crs

    grid = Grid.of(field)
    (left, right), (bottom, top) = projection.x_limits, projection.y_limits
    columns = _PIXELS
    rows = max(1, round(columns * (top - bottom) / (right - left)))
    x, y = (low + (np.arange(count) + 0.5) * (high - low) / count for low, high, count in ((left, right, columns), (bottom, top, rows)))
    places = crs.PlateCarree().transform_points(projection, *np.meshgrid(x, y))
    longitude, latitude = places[..., 0], places[..., 1]
    inside = np.isfinite(longitude) & np.isfinite(latitude)
    step = 360.0 / grid.shape[1]
    column = np.round(np.where(inside, longitude - grid.longitude[0], 0.0) / step).astype(int) % grid.shape[1]
    row = np.searchsorted(-row_edges(grid.latitude)[1:-1], -np.where(inside, latitude, 0.0))
    values = field.transpose("latitude", "longitude").values.astype(np.float64)
    return np.where(inside, values[row, column], np.nan), (left, right, bottom, top)
