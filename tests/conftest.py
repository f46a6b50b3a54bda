"""What all tests share: where the real data lies, and a small world to do without it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from aeris.data.grid import Grid
from aeris.data.store import Store, prepare
from aeris.data.variables import VARIABLES

LONG = ("test_notebooks.py", "test_local.py", "test_layouts.py")
"""Files that take minutes: begun first, so that no process is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests share fixtures and so a process; notebooks share nothing, and each is a work of its own."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    for item in items:
        alone = item.path.name == "test_notebooks.py" and (item.get_closest_marker("slow") or item.get_closest_marker("full"))
        item.add_marker(pytest.mark.xdist_group(item.name if alone else item.path.name))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real reanalysis and storm tracks; the test is skipped where it is absent."""
    folder = Path(os.environ.get("AERIS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data is not here: {folder} (set AERIS_TEST_DATA to its folder)")
    return folder


@pytest.fixture(scope="session")
def small_world() -> xr.Dataset:
    """Forty six-hourly states of waves that drift eastward and change, on 16×32, with a sea that has a coast."""
    grid = Grid.regular(16, 32)
    times = pd.date_range("2001-01-01", periods=40, freq="6h")
    rng = np.random.default_rng(0)
    latitude, longitude = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)[None]

    def waves(mean: float, size: float) -> np.ndarray:
        phase = rng.uniform(0, 2 * np.pi, 4)
        walk = np.cumsum(rng.normal(0, 0.15, (len(times), 4)), axis=0)
        shapes = [
            np.cos(latitude) * np.cos((k + 1) * longitude - 0.3 * np.arange(len(times))[:, None, None] + phase[k] + walk[:, k, None, None])
            for k in range(4)
        ]
        return (mean + size * sum(shapes)).astype(np.float32)

    surface, upper = ("time", "latitude", "longitude"), ("time", "level", "latitude", "longitude")
    land = (np.cos(2 * longitude) * np.cos(latitude) > 0.4).astype(np.float32)
    sea = np.where(land > 0.5, np.nan, waves(290, 2)).astype(np.float32)
    height = np.stack([waves(5.4e4, 900), waves(1.4e4, 500)], axis=1)
    ds = xr.Dataset(
        {
            "2m_temperature": (surface, waves(285, 5)),
            "10m_u_component_of_wind": (surface, waves(2, 3)),
            "geopotential": (upper, height),
            "sea_surface_temperature": (surface, sea),
            "geopotential_at_surface": (surface[1:], 5000 * land),
            "land_sea_mask": (surface[1:], land),
        },
        coords={"time": times, "level": [500, 850], "latitude": grid.latitude, "longitude": grid.longitude},
    )
    for name, field in ds.data_vars.items():
        field.attrs["units"] = VARIABLES[str(name)].units
    return ds


@pytest.fixture(scope="session")
def intervals_store(small_world: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same for networks of steps of 6, 12 and 24 hours."""
    return prepare(small_world, tmp_path_factory.mktemp("intervals") / "store.zarr", chunk=4, intervals=["12h", "24h"])


@pytest.fixture(scope="session")
def small_store(small_world: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A training store of `small_world`, cut into chunks of 4×4."""
    return prepare(small_world, tmp_path_factory.mktemp("store") / "store.zarr", interval="6h", chunk=4)
