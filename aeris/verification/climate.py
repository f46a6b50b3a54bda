"""Means over boxes and bands: Niño indices and Hovmöller diagrams.

A cell counts by the area that it shares with the box, so that a coarse grid has these indices too.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from aeris.data.grid import Grid, row_edges
from aeris.data.variables import SEA
from aeris.errors import ConfigurationError, DataError
from aeris.verification.daily import need_plausible, quantity
from aeris.verification.pairing import CELLS, LEAD
from aeris.verification.seasons import AnnualCycle, pieces_along

Edges = tuple[float, float, float, float]
"""South, north, west and east edge of a box in degrees; a box may cross any meridian."""

NINO: dict[str, Edges] = {
    "1+2": (-10.0, 0.0, 270.0, 280.0),
    "3": (-5.0, 5.0, 210.0, 270.0),
    "3.4": (-5.0, 5.0, 190.0, 240.0),
    "4": (-5.0, 5.0, 160.0, 210.0),
}
"""The boxes of NOAA's Climate Prediction Center."""

LEAST_COVER = 0.5
"""Part of a box's area that must be known for its mean to count."""


def nino(ds: xr.Dataset, region: str = "3.4") -> xr.DataArray:
    """Sea surface temperature of a Niño region.

    Args:
        ds: Canonical dataset, or a forecast archive.
        region: ``"1+2"``, ``"3"``, ``"3.4"`` or ``"4"``.

    Returns:
        In K, with the dimensions of the dataset but the cells.

    Raises:
        ConfigurationError: The region is unknown.
        DataError: There is no sea surface temperature, its unit is not K, or the box lies on land.
    """
    if region not in NINO:
        raise ConfigurationError(f"The Niño region {region!r}", f"It is one of {', '.join(NINO)}", "Give one of these, or use box_mean")
    index = box_mean(quantity(ds, SEA), NINO[region])
    need_plausible(SEA, index.values)
    return index.rename(f"nino_{region}").assign_attrs(units="K", long_name=f"sea surface temperature, Niño {region}")


def box_mean(field: xr.DataArray, box: Edges) -> xr.DataArray:
    """Mean over a box by area, of the known cells.

    Args:
        field: ``(..., latitude, longitude)`` on a global grid, lazy or not; only the rows and columns of the box are read, in pieces.
        box: South, north, west and east edge.

    Returns:
        Float64 without the cells. NaN where less than half of the box's area is known; the attribute ``missing`` counts these.

    Raises:
        DataError: The grid is not global, or nowhere in time is half of the box known (land).
        ConfigurationError: The box has no area.
    """
    mean = _mean_over(field, box_weights(Grid.of(field), box))
    if mean.attrs["missing"] == mean.size:
        south, north, west, east = box
        raise DataError(
            f"No mean of {field.name or 'the field'} over {south:g}° to {north:g}° north and {west:g}° to {east:g}° east",
            f"At least {LEAST_COVER:.0%} of the box's area must be known at some time; land has no sea surface temperature",
            "Choose a box over the sea",
        )
    return mean


def box_weights(grid: Grid, box: Edges) -> xr.DataArray:
    """Area that each cell shares with a box, over the area of the box, ``(latitude, longitude)``.

    Raises:
        DataError: The grid does not reach from pole to pole.
        ConfigurationError: The box has no area.
    """
    south, north, west, east = box
    if not (-90 <= south < north <= 90 and west != east):
        raise ConfigurationError(f"The box {box}", "South lies below north, and west is not east", "Give (south, north, west, east)")
    grid.check_global()
    rows = -np.diff(np.sin(np.deg2rad(np.clip(row_edges(grid.latitude), south, north))))
    width, step = (east - west) % 360.0 or 360.0, 360.0 / grid.shape[1]
    # Degrees from the western edge of the box to that of each cell; a cell may reach into the box from the other end of the circle.
    start = (grid.longitude - step / 2 - west) % 360.0
    columns = np.clip(width - start, 0.0, step) + np.clip(start + step - 360.0, 0.0, width)
    shares = np.outer(rows / rows.sum(), columns / columns.sum())
    return xr.DataArray(shares, {"latitude": grid.latitude, "longitude": grid.longitude}, CELLS)


def hovmoller(field: xr.DataArray, south: float, north: float, cycle: AnnualCycle | None = None) -> xr.DataArray:
    """The mean over a band of latitudes, as time or lead against longitude.

    Args:
        field: ``(..., latitude, longitude)`` on a global grid, lazy or not; only the rows of the band are read, in pieces.
        south: Edge of the band in degrees north.
        north: The other edge.
        cycle: Of the same band, ``AnnualCycle.fit(hovmoller(past, south, north))``; what is returned are then anomalies. Of an archive
            one initial time is chosen before, with ``sel(time=...)``.

    Returns:
        Float64 ``(..., longitude)``; a longitude where less than half of the band is known is NaN, and counted in the attribute
        ``missing``.

    Raises:
        DataError: The grid is not global.
        ConfigurationError: The band has no width.
    """
    weights = box_weights(Grid.of(field), (south, north, 0.0, 360.0)).sum("longitude")
    mean = _mean_over(field, weights)
    if cycle is None:
        return mean
    return cycle.anomalies(mean) if "time" in mean.dims else cycle.anomalies(mean, mean[LEAD].values + mean.time.values, LEAD)


def _mean_over(field: xr.DataArray, weights: xr.DataArray) -> xr.DataArray:
    """Mean over the dimensions of weights that sum to one, of what is known; read in pieces along time, or along the lead without it."""
    inside = {dim: np.flatnonzero(weights.sum([other for other in weights.dims if other != dim])) for dim in weights.dims}
    part, weights = field.isel(inside).drop_vars(weights.dims), weights.isel(inside).drop_vars(weights.dims)
    along = next((dim for dim in ("time", LEAD) if dim in part.dims), None)
    means = [_known_mean(piece.load(), weights) for piece in (pieces_along(part, along) if along else [part])]
    mean = means[0] if along is None else xr.concat(means, along)
    mean = mean.transpose(*(dim for dim in field.dims if dim in mean.dims)).rename(field.name)
    return mean.assign_attrs(field.attrs, missing=int(mean.isnull().sum()))


def _known_mean(field: xr.DataArray, weights: xr.DataArray) -> xr.DataArray:
    known = xr.dot(field.notnull(), weights, dim=weights.dims)
    return xr.dot(field.fillna(0.0), weights, dim=weights.dims) / known.where(known >= LEAST_COVER)
