"""A small forecast of the simulated planet with all that a report shows, and a world without network."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr

import aeris
from aeris.data.planet import Planet
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
