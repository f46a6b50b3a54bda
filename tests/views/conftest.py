"""A small forecast of the simulated planet with all that a report shows, and a world without network."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr

import aeris
from aeris.data.grid import Grid
from aeris.data.planet import Planet
from aeris.forecasting.archive import Archive
from aeris.verification.calibration import rank_histogram
from aeris.verification.spectra import mean_power


class Forecast(NamedTuple):
    forecast: xr.Dataset
    truth: xr.Dataset
    optimum: xr.Dataset
    scores: xr.Dataset
    spectra: xr.Dataset
    ranks: xr.Dataset


@pytest.fixture(scope="session")
def forecast() -> Forecast:
    world = Planet(grid=(16, 32))
    truth = world.simulate(years=0.02, seed=1)
    times, leads = truth.time.values[2:10:4], np.array([6, 24], "timedelta64[h]")
    fc = world.forecast(truth.sel(time=times), lead=list(leads), members=3, seed=5)
    optimum = world.forecast(truth.sel(time=times[:1]), lead=list(leads), members=4, seed=6)
    scores = aeris.verify(fc, truth, baselines=("persistence", "optimum"))
    return Forecast(fc, truth, optimum, scores, mean_power(fc, truth), rank_histogram(fc, truth))


class Growing:
    """An archive on disk of two groups of two members and three leads, from two initial times, that can gain leads.

    Every number says where it stands: 10000 time + 1000 member + 100 lead + channel, plus its row over 100.
    """

    channels = ("2m_temperature", "geopotential_500", "geopotential_850")

    def __init__(self, path: Path) -> None:
        times = np.array(["2001-01-01", "2001-01-02"], "datetime64[ns]")
        leads = (np.arange(1, 4) * np.timedelta64(6, "h")).astype("timedelta64[ns]")
        self.path = path
        self.archive = Archive(path, self.channels, Grid.regular(16, 32), times, 4, 2, leads)
        self.archive.lay_out({"batch": 2})

    def states(self, time: int, group: int, lead: int) -> np.ndarray:
        number, channel, row = np.meshgrid(np.arange(2) + 2 * group, np.arange(3), np.arange(16) / 100, indexing="ij")
        values = 10000 * time + 1000 * number + 100 * lead + channel + row
        return np.broadcast_to(values[..., None], (2, 3, 16, 32)).astype(np.float32)

    def gain(self, group: int, leads: range, time: int = 0) -> None:
        for lead in leads:
            self.archive.write(time, group, lead, self.states(time, group, lead))

    def expected(self, leads_done: list[int]) -> xr.Dataset:
        """The archive in memory, as it is with these leads from the first initial time in each group and none from the second."""
        values = np.full((2, 4, 3, 3, 16, 32), np.nan, np.float32)
        for group, done in enumerate(leads_done):
            for lead in range(done):
                values[0, 2 * group : 2 * group + 2, lead] = self.states(0, group, lead)
        dims = ("time", "number", "prediction_timedelta")
        grid = self.archive.grid
        coords = {
            "time": self.archive.times,
            "number": np.arange(4),
            "prediction_timedelta": self.archive.leads,
            "level": [500, 850],
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        }
        fields = {
            "2m_temperature": ((*dims, "latitude", "longitude"), values[:, :, :, 0], {"units": "K"}),
            "geopotential": ((*dims, "level", "latitude", "longitude"), values[:, :, :, 1:], {"units": "m**2 s**-2"}),
        }
        return xr.Dataset(fields, coords)


@pytest.fixture
def growing(tmp_path: Path) -> Growing:
    """An archive whose first group has all three leads and whose second has one."""
    made = Growing(tmp_path / "growing.zarr")
    made.gain(0, range(3))
    made.gain(1, range(1))
    return made


@pytest.fixture(scope="session")
def network_refused() -> Callable[[], AbstractContextManager[None]]:
    """A context in which whoever opens a socket or looks up a name fails."""

    def refuse(*_, **__):
        raise AssertionError("a picture reached for the network")

    @contextmanager
    def refused() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("socket", "create_connection", "getaddrinfo"):
                patch.setattr(socket, name, refuse)
            yield

    return refused
