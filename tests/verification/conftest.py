"""Archives and truths of known error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from array_archives import archive_of, canonical, hours

from aeris.data.grid import Grid

Beside = tuple[xr.Dataset, xr.Dataset]


@pytest.fixture
def beside() -> Callable[..., Beside]:
    """Makes an archive and its truth: signal plus noise of deviation 1 in each, all of them independent."""

    def make(members: int = 4, dates: int = 3, leads: tuple[int, ...] = (6, 24), shape=(8, 16), levels=(500, 850), seed: int = 0) -> Beside:
        rng = np.random.default_rng(seed)
        grid = Grid.regular(*shape)
        times = np.datetime64("2020-02-01", "ns") + hours(*range(0, 24 * dates + max(leads), 6))
        size = {"2m_temperature": (len(times), *shape), "geopotential": (len(times), len(levels), *shape)}
        signal = canonical({name: 3.0 * rng.standard_normal(form) for name, form in size.items()}, times, grid, list(levels))
        fc = archive_of(signal, times[: 4 * dates : 4], hours(*leads), members)
        truth = signal.map(lambda field: field + rng.standard_normal(field.shape))
        return fc.map(lambda field: field + rng.standard_normal(field.shape)), truth

    return make


@pytest.fixture
def perfect() -> Callable[..., Beside]:
    """Makes an archive whose members all equal the truth, which is constant 280, to be spoilt in known ways."""

    def make(members: int = 1, dates: int = 1, leads: tuple[int, ...] = (6,), shape=(8, 16)) -> Beside:
        times = np.datetime64("2020-02-01", "ns") + hours(*range(0, 24 * dates + max(leads), 6))
        truth = canonical({"2m_temperature": np.full((len(times), *shape), 280.0)}, times, Grid.regular(*shape), [500])
        return archive_of(truth, times[: 4 * dates : 4], hours(*leads), members), truth

    return make
