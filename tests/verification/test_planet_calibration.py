"""The planet's exact forecast through the scores: spread as large as the error, flat ranks, the CRPS of a Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import aeris
from aeris.data.planet import Planet
from aeris.data.variables import parse_channel
from aeris.verification.flatness import rank_flatness
from aeris.verification.scores import mean_statistics

LEADS = ("6h", "24h", "5d")
MEMBERS = 8


@pytest.fixture(scope="module")
def world() -> Planet:
    return Planet(grid=(16, 32), seed=0)


@pytest.fixture(scope="module")
def exact(world) -> tuple[xr.Dataset, xr.Dataset]:
    """Exact forecasts from 48 initial times, five days and six hours apart, so that none shares weather with the next."""
    truth = world.simulate(years=0.72, start="2003-01-01", seed=3)
    times = truth.time.values[: 48 * 21 : 21]
    return world.forecast(truth.sel(time=times), lead=list(LEADS), members=MEMBERS, seed=2), truth


@pytest.fixture(scope="module")
def blocks(exact) -> xr.Dataset:
    """Mean statistics of each initial time."""
    return mean_statistics(*exact, baselines=(), metrics=["spread_skill", "crps"]).sel(system="forecast")


def channels(ds: xr.Dataset, prefix: str = "") -> dict[str, xr.DataArray]:
    """Fields by channel."""
    found = {}
    for name, field in ds.items():
        if not str(name).startswith(prefix):
            continue
        for level in field.level.values if "level" in field.dims else [None]:
            channel = str(name).removeprefix(prefix) + (f"_{level}" if level else "")
            found[channel] = field if level is None else field.sel(level=level)
    return found


def test_spread_is_as_large_as_the_error(blocks):
    """The difference of E (1 + 1/M) variance and E (x̄ − y)² is zero within 4.5 standard errors over initial times, in each channel."""
    found = channels(blocks)
    assert len(found) == 20
    for channel, statistics in found.items():
        apart = statistics.sel(statistic="expected_squared_error") - statistics.sel(statistic="squared_error")
        z = apart.mean("time") / (apart.std("time", ddof=1) / np.sqrt(apart.sizes["time"]))
        assert (abs(z) < 4.5).all(), (channel, z.values)


def test_ratios_of_spread_and_error_are_one(exact):
    scores = aeris.verify(*exact, baselines=(), metrics=["spread_skill"]).sel(system="forecast")
    ratios = np.array([field.values for field in channels(scores, "spread_skill.").values()])
    assert ratios.shape == (20, 3)
    np.testing.assert_allclose(ratios.mean(0), 1.0, atol=0.03)
    np.testing.assert_allclose(ratios, 1.0, atol=0.2)


@pytest.mark.slow
def test_ranks_are_flat_in_every_channel(exact):
    """Sixty histograms and three components: the smallest p is not below what so many would have by chance."""
    found = channels(rank_flatness(*exact), "p_value.")
    p = np.array([field.values for field in found.values()])
    assert p.shape == (20, 3, 3) and np.isfinite(p).all()
    assert p.min() > 0.01 / p.size
    assert (p < 0.05).mean() < 0.15


@pytest.mark.slow
def test_a_narrower_ensemble_of_the_same_planet_is_found(exact):
    fc, truth = exact
    mean = fc.mean("number")
    names = ["geopotential", "2m_temperature"]
    narrow = rank_flatness((mean + 0.7 * (fc - mean))[names], truth)
    for channel, p in channels(narrow, "p_value.").items():
        assert (p.sel(component=["all", "convexity"]) < 1e-3).all(), channel


def test_crps_of_gaussian_channels_is_that_of_the_closed_form(world, exact, blocks):
    """E CRPS = σ/√π where truth and members are normal with deviation σ (Gneiting & Raftery 2007, equation 21, averaged over the truth).

    σ of each cell is that of 200 further members from one time of the middle of the season; the planet's forecast variance depends on the
    season alone.
    """
    _, truth = exact
    middle = world.forecast(truth.isel(time=truth.sizes["time"] // 2), lead=list(LEADS), members=200, seed=9)
    area = xr.DataArray(world.grid.area, {"latitude": middle.latitude}, "latitude")
    deviation = channels(middle.std("number", ddof=1).weighted(area).mean(("latitude", "longitude")))
    found = channels(blocks.sel(statistic="fair_crps"))
    for channel in world.gaussian_channels:
        expected, crps = deviation[channel] / np.sqrt(np.pi), found[channel]
        error = crps.std("time", ddof=1) / np.sqrt(crps.sizes["time"])
        apart = abs(crps.mean("time") - expected)
        assert (apart < 4.5 * error + 0.03 * expected).all(), (channel, crps.mean("time").values, expected.values)


def test_gaussian_channels_are_the_linear_ones(world):
    assert {parse_channel(name).variable.name for name in world.channels} - {
        parse_channel(name).variable.name for name in world.gaussian_channels
    } == {"specific_humidity", "sea_surface_temperature"}
