"""Slices of a forecast archive and of the truth beside it: at a place, at the leads, in a band of latitudes."""

from __future__ import annotations

import numpy as np
import xarray as xr

LEAD = "prediction_timedelta"
CELLS = ("latitude", "longitude")

Channel = tuple[str, int | None]
"""A variable and its level in hPa; None where it has no levels."""

Place = tuple[float, float]
"""Latitude and longitude in degrees, the longitude counted from anywhere."""


def at_place(field: xr.DataArray, place: Place) -> xr.DataArray:
    """The cell nearest to a place, also across the end of the circle.

    Args:
        field: ``(..., latitude, longitude)``.
        place: Latitude and longitude in degrees.

    Returns:
        ``(...)`` with the latitude and longitude of the cell as coordinates.
    """
    turn = (field.longitude - place[1] + 180.0) % 360.0 - 180.0
    nearest = int(np.argmin(np.abs(turn.values)))
    return field.sel(latitude=place[0], method="nearest").isel(longitude=nearest)


def at_leads(truth: xr.DataArray, time: np.datetime64, leads: np.ndarray) -> xr.DataArray:
    """What happened at lead zero and at the leads of a forecast.

    Args:
        truth: ``(time, ...)``.
        time: Initial time.
        leads: timedelta64.

    Returns:
        ``(prediction_timedelta, ...)`` in memory, one lead more than `leads`; NaN where the truth is not known.
    """
    leads = np.concatenate([[np.timedelta64(0, "ns")], leads])
    return truth.reindex(time=time + leads).rename(time=LEAD).assign_coords({LEAD: leads}).load()


def in_band(field: xr.DataArray, south: float, north: float) -> xr.DataArray:
    """The rows between two latitudes, or the one nearest to their middle where none is.

    Args:
        field: ``(..., latitude, longitude)``.
        south: Southern edge in degrees.
        north: Northern edge in degrees.

    Returns:
        The field on these rows.
    """
    return field.isel(latitude=band_rows(field.latitude.values, south, north))


def band_rows(latitude: np.ndarray, south: float, north: float) -> slice:
    """Positions of the rows between two latitudes, as :func:`in_band` takes them.

    Args:
        latitude: Latitudes of all rows in degrees.
        south: Southern edge in degrees.
        north: Northern edge in degrees.
    """
    rows = np.flatnonzero((latitude >= south) & (latitude <= north))
    if not len(rows):
        rows = np.array([np.argmin(np.abs(latitude - (south + north) / 2))])
    return slice(int(rows[0]), int(rows[-1]) + 1)


def place_text(latitude: float, longitude: float) -> str:
    """A place in words, for example '51.5°N, 0.0°E' or '33.9°S, 70.5°W'."""
    east = (longitude + 180.0) % 360.0 - 180.0
    return f"{abs(latitude):.1f}°{'S' if latitude < 0 else 'N'}, {abs(east):.1f}°{'W' if east < 0 else 'E'}"


def band_text(south: float, north: float) -> str:
    """A band of latitudes in words, for example '30°N to 60°N'."""
    return " to ".join(f"{abs(edge):g}°{'S' if edge < 0 else 'N'}" for edge in (south, north))
