from __future__ import annotations

import json
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aeris.data.forcing import toa_incident_solar_radiation
from aeris.data.grid import Grid
from aeris.data.statistics import Moments, Statistics, area_weights, forcing_moments, summarize
from aeris.data.variables import SEA
from aeris.errors import DataError

GRID = Grid.regular(6, 8)
WEIGHTS = area_weights(GRID, ["2m_temperature", "geopotential_500"], None)


def fields(times: int, offset: float = 0.0) -> np.ndarray:
    return offset + np.random.default_rng(times).standard_normal((times, 2, *GRID.shape))


def of(states: np.ndarray) -> list[Moments]:
    return [Moments.of(state, WEIGHTS) for state in states]


class TestMoments:
    @pytest.mark.parametrize("offset", [0.0, 5e4, 1e9])
    def test_they_are_weighted_mean_and_deviation(self, offset):
        states = fields(12, offset)
        total = reduce(Moments.__add__, of(states))
        area = np.broadcast_to(GRID.area[:, None], states.shape)
        mean = np.average(states - offset, axis=(0, 2, 3), weights=area) + offset
        std = np.sqrt(np.average((states - mean[:, None, None]) ** 2, axis=(0, 2, 3), weights=area))
        np.testing.assert_allclose(total.mean, mean, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(total.std, std, rtol=1e-7 if offset > 1e6 else 1e-11)
        assert total.weight == 12

    @given(st.integers(1, 19), st.integers(0, 3))
    def test_they_merge_the_same_however_they_are_split(self, split, depth):
        moments = of(fields(20, 250.0))
        whole = reduce(Moments.__add__, moments)
        halves = reduce(Moments.__add__, moments[:split]) + reduce(Moments.__add__, moments[split:])
        turned = reduce(Moments.__add__, moments[depth:] + moments[:depth])
        for other in (halves, turned):
            np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-14)
            np.testing.assert_allclose(other.squares, whole.squares, rtol=1e-12)

    def test_a_constant_deviates_by_nothing(self):
        state = np.full((2, *GRID.shape), 0.1)
        total = reduce(Moments.__add__, of(np.array([state] * 5)))
        assert total.mean.tolist() == [0.1, 0.1] and total.std.tolist() == [0.0, 0.0]

    def test_float32_fields_are_summed_in_float64(self):
        state = (1e5 + np.arange(2 * 6 * 8).reshape(2, 6, 8) / 64).astype(np.float32)
        exact = np.average(state[0].astype(np.float64), weights=WEIGHTS[0])
        assert Moments.of(state, WEIGHTS).mean[0] == pytest.approx(exact, rel=1e-14)


class TestWeights:
    def test_the_sea_counts_alone(self):
        sea = np.random.default_rng(0).random(GRID.shape) < 0.5
        land, at_sea = area_weights(GRID, ["2m_temperature", SEA], sea)
        assert land.sum() == pytest.approx(1) and at_sea.sum() == pytest.approx(1)
        assert np.all(at_sea[~sea] == 0) and np.all(land > 0)
        np.testing.assert_allclose(at_sea[sea] / land[sea], 1 / land[sea].sum())


class TestForcings:
    def test_radiation_has_the_moments_of_a_lit_half_sphere(self):
        """Over the sphere max(0, cos Z) has mean 1/4 and mean square 1/6; an hour's mean smooths it a little."""
        times = np.datetime64("2001-01-01", "ns") + np.arange(1460) * np.timedelta64(6, "h")
        names, moments = forcing_moments(times, Grid.regular(32, 64), (), np.empty((0, 32, 64), np.float32))
        assert names == ("toa_incident_solar_radiation",)
        assert moments.mean[0] / 3600 == pytest.approx(1361 / 4, rel=5e-3)
        assert moments.std[0] / 3600 == pytest.approx(1361 * np.sqrt(1 / 6 - 1 / 16), rel=0.02)

    def test_few_times_are_all_used_and_static_fields_follow(self):
        times = np.datetime64("2001-06-01", "ns") + np.arange(3) * np.timedelta64(6, "h")
        static = np.stack([np.linspace(0, 1, 48).reshape(GRID.shape), np.full(GRID.shape, 0.3)]).astype(np.float32)
        names, moments = forcing_moments(times, GRID, ("geopotential_at_surface", "land_sea_mask"), static)
        radiation = toa_incident_solar_radiation(times, GRID.latitude, GRID.longitude).astype(np.float64)
        area = np.broadcast_to(GRID.area[:, None], radiation.shape)
        mean = np.average(radiation, weights=area)
        assert names[1:] == ("geopotential_at_surface", "land_sea_mask")
        np.testing.assert_allclose(moments.mean[:2], [mean, np.average(static[0], weights=area[0])], rtol=1e-6)
        assert moments.std[0] == pytest.approx(np.sqrt(np.average((radiation - mean) ** 2, weights=area)))
        assert moments.std[2] == 0.0


class TestStatistics:
    def made(self, residuals: np.ndarray | None = None) -> Statistics:
        residuals = fields(5, 1.0) if residuals is None else residuals
        forcings = ("toa_incident_solar_radiation", "land_sea_mask"), Moments(1.0, np.array([1e6, 0.5]), np.array([4e10, 0.0]))
        return summarize(("2m_temperature", "geopotential_500"), of(fields(6)), of(residuals), forcings)

    def test_a_constant_forcing_is_divided_by_one(self):
        made = self.made()
        np.testing.assert_allclose(made.forcing_std, [2e5, 1.0])

    def test_a_channel_that_never_changes_is_refused(self):
        residuals = fields(5)
        residuals[:, 1] = 2.5
        with pytest.raises(DataError, match="change of geopotential_500 over one interval is the same"):
            self.made(residuals)

    def test_json_loses_nothing(self):
        made = self.made()
        back = Statistics.from_dict(json.loads(json.dumps(made.to_dict())))
        assert back == made and back.id == made.id and hash(back) == hash(made) and back.channels == made.channels
        np.testing.assert_array_equal(back.residual_std, made.residual_std)
        assert back.mean.dtype == np.float64

    def test_the_id_is_that_of_the_content(self):
        made = self.made()
        content = made.to_dict()
        content["mean"][0] = np.nextafter(content["mean"][0], 1e9)
        assert Statistics.from_dict(content).id != made.id and len(made.id) == 64
        assert made != "statistics"
