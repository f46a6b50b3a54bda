"""What an ensemble says about tropical cyclones: the probability that one passes nearby, and that one forms.

Both are shares of the members that were tracked, those without a cyclone included.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification.great_circle import EARTH_RADIUS, arc, distance, distance_to_path
from aeris.verification.track_table import one_forecast, tracked_members

Window = tuple[Any, Any]
"""First and last valid time, both included, as anything that pandas reads."""


def strike_probability(
    tracks: xr.Dataset,
    grid: Grid | xr.Dataset | xr.DataArray,
    *,
    initial_time: Any = None,
    within: float = 120.0,
    window: Window | None = None,
    members: int | None = None,
) -> xr.DataArray:
    """Share of the members of one forecast in which the centre of a cyclone passes within some distance of each grid point.

    The way between two points of a track is the great circle between them, so that a fast cyclone leaves no gaps (van der Grijn 2002,
    ECMWF Technical Memorandum 386, for the 120 km).

    Args:
        tracks: Table of tracks of a forecast.
        grid: Anything with ``latitude`` and ``longitude``, global or regional.
        initial_time: Which forecast; it may be left out if there is only one.
        within: The distance in km.
        window: First and last valid time; of the tracks only the points in it, and the ways between these, count.
        members: How many members were tracked, for a table that does not know it.

    Returns:
        Probability ``(latitude, longitude)`` from 0 to 1.

    Raises:
        ConfigurationError: The distance or the window cannot be.
        DataError: The tracks are of several forecasts or of none, or it is not known how many members were tracked.
    """
    if not within > 0:
        raise ConfigurationError(f"within={within}", "The distance is positive, in km", "The usual one is 120")
    points, count = _one_forecast(tracks, initial_time, members)
    points = _in_window(points, window)
    latitude, longitude = np.asarray(grid.latitude, "float64"), np.asarray(grid.longitude, "float64")
    strikes = np.zeros((len(latitude), len(longitude)))
    for _, member in points.groupby("number"):
        struck = np.zeros(strikes.shape, dtype=bool)
        for _, one in member.groupby("track_id"):
            _strike(struck, one[["lat", "lon"]].to_numpy(), latitude, longitude, within)
        strikes += struck
    about = {"units": "1", "long_name": f"probability of a cyclone within {within:g} km"}
    coordinates = {"latitude": latitude, "longitude": longitude}
    return xr.DataArray(strikes / count, coordinates, ["latitude", "longitude"], "strike_probability", about)


def _strike(struck: np.ndarray, places: np.ndarray, latitude: np.ndarray, longitude: np.ndarray, within: float) -> None:
    """Marks the grid points near a track."""
    ends = list(pairwise(places)) or [(places[0], places[0])]
    for start, end in ends:
        # No point of the way is farther from the equator or from a pole than this from its first end.
        reach = arc(*start, *end) + np.rad2deg(within / EARTH_RADIUS)
        rows = np.flatnonzero(np.abs(latitude - start[0]) <= reach)
        struck[rows] |= distance_to_path(latitude[rows, None], longitude, tuple(start), tuple(end)) <= within


def genesis_probability(
    tracks: xr.Dataset,
    *,
    region: tuple[float, float, float, float],
    window: Window,
    initial_time: Any = None,
    members: int | None = None,
    known: xr.Dataset | None = None,
    within: float = 400.0,
) -> float:
    """Share of the members of one forecast in which a cyclone forms in a region and a window of time.

    A cyclone forms where its track begins. One that is there at the first time of the forecast, or that is known, is not new.

    Args:
        tracks: Table of tracks of a forecast.
        region: South, north, west and east in degrees, from west eastward, also across 0° and 180°; -180, 180 or 0, 360 for all longitudes.
        window: First and last valid time.
        initial_time: Which forecast; it may be left out if there is only one.
        members: How many members were tracked, for a table that does not know it.
        known: Best tracks. A track that begins at a time and within a distance of one of them is not new if that one existed at the
            initial time.
        within: That distance in km.

    Returns:
        The probability, from 0 to 1.

    Raises:
        ConfigurationError: The region or the window cannot be.
        DataError: The tracks are of several forecasts or of none, or it is not known how many members were tracked.
    """
    south, north, west, east = region
    if not (-90 <= south < north <= 90 and west < east + 360 and east - west <= 360):
        raise ConfigurationError(f"region={region}", "A region is south, north, west, east in degrees", "Use for example (5, 25, 260, 340)")
    points, count = _one_forecast(tracks, initial_time, members)
    if points.empty:
        return 0.0
    births = points.sort_values("time").groupby(["number", "track_id"], as_index=False).first()
    births = births[births.lead > _first_lead(tracks, points)]
    births = _in_window(births, window)
    inside = (births.lat >= south) & (births.lat <= north) & (((births.lon - west) % 360 <= (east - west) % 360) | (east - west >= 360))
    births = births[inside]
    if known is not None and len(births):
        births = births[~_is_known(births, known, points.initial_time.iloc[0], within)]
    return births.number.nunique() / count


def _first_lead(tracks: xr.Dataset, points: pd.DataFrame) -> float:
    return float(np.min(tracks.attrs["leads"])) if "leads" in tracks.attrs else float(points.lead.min())


def _is_known(births: pd.DataFrame, known: xr.Dataset, initial_time: pd.Timestamp, within: float) -> np.ndarray:
    """Whether each track begins at a cyclone that existed at the initial time."""
    best = known.to_dataframe()
    began = best.groupby("track_id").time.transform("min")
    both = births.reset_index().merge(best[began <= initial_time], on="time", suffixes=("", "_best"))
    near = both[distance(both.lat, both.lon, both.lat_best, both.lon_best) <= within]
    return births.index.isin(near["index"])


def _one_forecast(tracks: xr.Dataset, initial_time: Any, members: int | None) -> tuple[pd.DataFrame, int]:
    """The tracks of one forecast, and how many members it had."""
    chosen = one_forecast(tracks, initial_time)
    (numbers,) = tracked_members(chosen).values()
    if members is None and "tracked" not in tracks.attrs:
        raise DataError(
            f"{len(numbers)} members have a track; how many were tracked is not known",
            "A probability is a share of all members",
            "Say how many there were, members=..., or keep the tracks as NetCDF, which knows it",
        )
    count = len(numbers) if members is None else members
    if count < max(len(numbers), 1):
        raise ConfigurationError(f"members={members}", f"{len(numbers)} members were tracked", f"Give members={len(numbers)} or more")
    return chosen.to_dataframe(), count


def _in_window(points: pd.DataFrame, window: Window | None) -> pd.DataFrame:
    if window is None:
        return points
    try:
        start, end = (pd.Timestamp(time) for time in window)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"window={window!r}", f"A window is a first and a last time ({error})", "Use ('2018-10-10', '2018-10-12')"
        ) from None
    if not start <= end:
        raise ConfigurationError(f"window={window!r}", "The first time comes before the last", "Exchange them")
    return points[(points.time >= start) & (points.time <= end)]
