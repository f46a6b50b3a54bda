"""Closed contours around a cell, on global and regional grids of latitude and longitude.

A contour is closed if no chain of neighbouring cells, each sharing an edge with the next, leads from the centre out of a radius without
meeting a cell that has risen by the given amount (Ullrich et al. 2021, https://doi.org/10.5194/gmd-14-5023-2021). Distances
are great circles, so that nothing depends on the grid or on where its longitudes begin. At the edge of a regional grid a contour cannot
be known to close.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from scipy import ndimage

from aeris.errors import DataError
from aeris.verification.great_circle import arc


@dataclass(frozen=True, eq=False)
class Mesh:
    """A latitude/longitude grid, global or regional, whose columns are put in order eastward from its western edge.

    Attributes:
        latitude: Rows from north to south, degrees.
        longitude: Columns eastward, degrees, rising also across 360°.
        order: Which column of the data each one is.
        periodic: Whether the columns close the circle.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    order: np.ndarray
    periodic: bool

    @classmethod
    def of(cls, ds: xr.Dataset) -> Mesh:
        """The grid of a canonical dataset.

        Raises:
            DataError: There are no such coordinates, or they are not equally spaced eastward and southward.
        """
        missing = [name for name in ("latitude", "longitude") if name not in ds.coords or ds[name].ndim != 1 or ds[name].size < 2]
        if missing:
            raise DataError(
                f"No coordinate {' and '.join(missing)} of at least two points among {', '.join(map(str, ds.coords)) or 'none'}",
                "Cyclones are sought on a grid of latitude and longitude",
                "Open the data with aeris.open_era5",
            )
        latitude, longitude = ds.latitude.values.astype("float64"), ds.longitude.values.astype("float64") % 360.0
        steps = np.diff(longitude, append=longitude[0]) % 360.0
        step = np.median(steps)
        wide = np.flatnonzero(np.abs(steps - step) > 0.01 * step)
        if not np.all(np.diff(latitude) < 0) or len(wide) > 1 or not np.isclose(steps.sum(), 360.0):
            raise DataError(
                f"Rows from {latitude[0]:.4g}° to {latitude[-1]:.4g}° and columns {np.array2string(longitude, threshold=6, edgeitems=2)}",
                "Rows run from north to south; columns eastward, equally spaced but for one gap around the rest of the globe",
                "Open the data with aeris.open_era5, and select one region",
            )
        order = np.roll(np.arange(len(longitude)), -(wide[0] + 1)) if len(wide) else np.arange(len(longitude))
        return cls(latitude, longitude[order[0]] + step * np.arange(len(longitude)), order, not len(wide))

    @cached_property
    def step(self) -> float:
        """Distance of the columns in degrees of longitude."""
        return float(self.longitude[1] - self.longitude[0])

    def read(self, field: xr.DataArray) -> np.ndarray:
        """Values ``(row, column)`` in float64, all NaN for a field that is not there.

        Raises:
            DataError: A part of it is missing.
        """
        values = field.transpose("latitude", "longitude").values[:, self.order].astype("float64")
        missing = np.isnan(values)
        if missing.any() and not missing.all():
            raise DataError(
                f"{missing.mean():.1%} of {field.name} is missing",
                "A field in which cyclones are sought is whole, or missing throughout",
                "Fill it, or leave this time or member out",
            )
        return values

    def around(self, row: int, column: int, radius: float) -> Surroundings:
        """The cells within a radius of a cell, and at least one cell beyond in every direction."""
        latitude = self.latitude[row]
        height = np.abs(np.diff(self.latitude)).min()
        up = int(np.ceil(radius / height)) + 1
        reach = np.rad2deg(np.arcsin(np.sin(np.deg2rad(radius)) / np.cos(np.deg2rad(latitude))))
        aside = min(int(np.ceil(reach / self.step)) + 1, (len(self.longitude) - 1) // 2 if self.periodic else len(self.longitude))
        rows, columns = np.arange(row - up, row + up + 1), np.arange(column - aside, column + aside + 1)
        inside_rows = (rows >= 0) & (rows < len(self.latitude))
        inside_columns = np.full(len(columns), True) if self.periodic else (columns >= 0) & (columns < len(self.longitude))
        inside = inside_rows[:, None] & inside_columns
        edge = np.where(rows < 0, self.latitude[0] - rows * height, self.latitude[-1] - (rows - len(self.latitude) + 1) * height)
        latitudes = np.where(inside_rows, self.latitude[np.clip(rows, 0, len(self.latitude) - 1)], edge)
        arcs = arc(latitude, 0.0, latitudes[:, None], (columns - column) * self.step)
        return Surroundings(np.clip(rows, 0, len(self.latitude) - 1), columns % len(self.longitude), inside, arcs)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Cells around a centre, which is the middle one.

    Attributes:
        rows: Rows of the mesh, the nearest ones for those beyond its edge.
        columns: Columns of the mesh, likewise.
        inside: Which cells the mesh has, ``(row, column)``.
        arcs: Their distances from the centre in degrees, ``(row, column)``.
    """

    rows: np.ndarray
    columns: np.ndarray
    inside: np.ndarray
    arcs: np.ndarray

    def of(self, values: np.ndarray) -> np.ndarray:
        """The values of these cells; arbitrary where they are not inside."""
        return values[np.ix_(self.rows, self.columns)]

    def highest(self, values: np.ndarray, radius: float) -> tuple[int, int]:
        """Row and column of the largest value within a radius, the nearest of equal ones."""
        near = self.inside & (self.arcs <= radius)
        largest = self.of(values)[near].max()
        place = np.argmin(np.where(near & (self.of(values) == largest), self.arcs, np.inf))
        row, column = np.unravel_index(place, near.shape)
        return int(self.rows[row]), int(self.columns[column])


def contour(values: np.ndarray, mesh: Mesh, row: int, column: int, rise: float, radius: float) -> str:
    """Whether values rise by `rise` all around a cell within `radius` degrees.

    Returns:
        ``"closed"``, ``"open"``, or ``"cut"`` where the edge of a regional grid comes before either.
    """
    cells = mesh.around(row, column, radius)
    centre = tuple(size // 2 for size in cells.inside.shape)
    near = cells.arcs <= radius
    below = near & cells.inside & (cells.of(values) - values[row, column] < rise)
    labels, _ = ndimage.label(below)
    basin = labels == labels[centre]
    rim = ndimage.binary_dilation(basin) & ~basin
    if (rim & ~near).any():
        return "open"
    return "cut" if (rim & ~cells.inside).any() else "closed"


def minima(values: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Cells that no neighbour is below and some neighbour is above, so that an even plain has none inside."""
    padded = np.pad(values, 1, mode="constant", constant_values=np.nan)
    if mesh.periodic:
        padded[1:-1, 0], padded[1:-1, -1] = values[:, -1], values[:, 0]
    beside = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    lower, higher = (np.any([compare(other, values) for other in beside], axis=0) for compare in (np.less, np.greater))
    return ~lower & higher
