"""Archives and truths from arrays."""

from __future__ import annotations

import numpy as np
import xarray as xr

from aeris.data.grid import Grid

LEAD = "prediction_timedelta"


def hours(*count: int) -> np.ndarray:
    return np.array(count, "timedelta64[h]").astype("timedelta64[ns]")


def canonical(fields: dict[str, np.ndarray], times: np.ndarray, grid: Grid, levels: list[int]) -> xr.Dataset:
    """A truth from arrays (time, [level,] latitude, longitude)."""
    dims = {3: ("time", "latitude", "longitude"), 4: ("time", "level", "latitude", "longitude")}
    coordinates = {"time": times, "level": levels, "latitude": grid.latitude, "longitude": grid.longitude}
    return xr.Dataset({name: (dims[field.ndim], field) for name, field in fields.items()}, coordinates)


def archive_of(truth: xr.Dataset, times: np.ndarray, leads: np.ndarray, members: int) -> xr.Dataset:
    """The perfect forecast: every member is the truth at the valid time."""
    valid = xr.DataArray(times[:, None] + leads, {"time": times, LEAD: leads}, ["time", LEAD])
    perfect = truth.rename(time="valid").sel(valid=valid).drop_vars("valid")
    return (
        perfect.expand_dims(number=np.arange(members)).transpose("time", "number", LEAD, "level", "latitude", "longitude").copy(deep=True)
    )
