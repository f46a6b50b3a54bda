"""Analytic tropical cyclones: fields whose centres, depths and winds are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from aeris.data.grid import Grid

LEAD = "prediction_timedelta"
Centre = tuple[float, float, float]
"""Latitude, longitude, and depth in Pa."""


def separation(latitude: float, longitude: float, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """Great-circle distance in degrees, by the angle between vectors."""

    def vector(phi, lam):
        phi, lam = np.broadcast_arrays(np.deg2rad(phi), np.deg2rad(lam))
        return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], -1)

    one, others = vector(latitude, longitude), vector(latitudes, longitudes)
    return np.rad2deg(np.arctan2(np.linalg.norm(np.cross(others, one), axis=-1), others @ one))


def state(latitude: np.ndarray, longitude: np.ndarray, centres: Sequence[Centre], warm: float = 600.0) -> xr.Dataset:
    """Pressure, winds and the geopotential of two levels around cyclones.

    A cyclone of depth D lowers the pressure by D exp(-(r/3°)²), has a wind of D/100 · r/1° · exp(1 - r/1°) m s⁻¹ around it (so D/100 m s⁻¹
    at most, at 1°), and a thickness of `warm` exp(-(r/3°)²) m² s⁻² above its surroundings.
    """
    rows, columns = np.asarray(latitude, "float64")[:, None], np.asarray(longitude, "float64")[None]
    shape = (len(latitude), len(longitude))
    # A slope from the equator to the poles, so that nothing is even.
    pressure, core = np.full(shape, 101_000.0) + 5.0 * np.abs(rows) + 0.3 * np.cos(np.deg2rad(columns)), np.zeros(shape)
    east, north = np.zeros(shape), np.zeros(shape)
    for phi, lam, depth in centres:
        r = separation(phi, lam, rows, columns)
        bell = np.exp(-((r / 3.0) ** 2))
        pressure, core = pressure - depth * bell, core + warm * bell
        speed = depth / 100 * r * np.exp(1 - r)
        turn = np.deg2rad(columns - lam)
        direction = np.arctan2(
            np.sin(turn) * np.cos(np.deg2rad(rows)),
            np.cos(np.deg2rad(phi)) * np.sin(np.deg2rad(rows)) - np.sin(np.deg2rad(phi)) * np.cos(np.deg2rad(rows)) * np.cos(turn),
        )
        east, north = east - speed * np.cos(direction), north + speed * np.sin(direction)
    cells = ("latitude", "longitude")
    return xr.Dataset(
        {
            "mean_sea_level_pressure": (cells, pressure),
            "10m_u_component_of_wind": (cells, east),
            "10m_v_component_of_wind": (cells, north),
            "geopotential": (("level", *cells), np.stack([92_000.0 - 3 * np.abs(rows) + core, 57_000.0 - np.abs(rows) + 0 * core])),
        },
        {"latitude": latitude, "longitude": longitude, "level": [300, 500]},
    )


def analyses(grid: Grid, paths: Sequence[Sequence[Centre | None]], start: str = "2020-09-01", step: str = "6h") -> xr.Dataset:
    """Cyclones that move: one list of centres for each, None where it is not there."""
    moments = list(zip(*paths, strict=True))
    states = [state(grid.latitude, grid.longitude, [centre for centre in moment if centre]) for moment in moments]
    times = np.datetime64(start, "ns") + np.arange(len(moments)) * np.timedelta64(int(step[:-1]), "h").astype("timedelta64[ns]")
    return xr.concat(states, "time").assign_coords(time=times)


def archive(grid: Grid, members: Sequence[Sequence[Sequence[Centre | None]]], start: str = "2020-09-01") -> xr.Dataset:
    """A forecast from one initial time, six-hourly: paths for each member."""
    runs = [analyses(grid, paths, start).rename(time=LEAD) for paths in members]
    leads = (np.arange(1, runs[0].sizes[LEAD] + 1) * np.timedelta64(6, "h")).astype("timedelta64[ns]")
    fc = xr.concat(runs, "number").assign_coords({LEAD: leads, "number": np.arange(len(runs))})
    return fc.expand_dims(time=[np.datetime64(start, "ns")])
