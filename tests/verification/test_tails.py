"""Scores of tails and quantiles against the scores library, by region and season, and with gaps."""

from __future__ import annotations

import numpy as np
import pytest
import scores
import xarray as xr
from test_scores import CELLS, LEAD, area_weights, refused, truth_at_valid_times

import aeris
from aeris.errors import ConfigurationError, DataError
from aeris.verification import tails

NAME = "2m_temperature"
LIMITS = (-1.0, 0.5, 2.0)


@pytest.fixture
def case(beside):
    fc, truth = beside(members=5, dates=4)
    return fc, truth, truth_at_valid_times(fc, truth)[NAME]


def test_the_tail_crps_is_that_of_the_library(case):
    fc, truth, happened = case
    for above, tail in ((True, "upper"), (False, "lower")):
        found = tails.tail_crps(fc, truth, {NAME: LIMITS}, above=above)[NAME]
        for limit in LIMITS:
            expected = scores.probability.tail_tw_crps_for_ensemble(
                fc[NAME], happened, "number", limit, tail=tail, method="fair", reduce_dims=("time", *CELLS), weights=area_weights(fc)
            )
            np.testing.assert_allclose(found.sel(threshold=limit), expected, rtol=1e-12)


def test_far_below_all_values_the_tail_crps_is_the_crps(beside):
    fc, truth = beside()
    crps = aeris.verify(fc, truth, baselines=(), metrics="crps")["crps.geopotential"].isel(system=0)
    found = tails.tail_crps(fc, truth, {"geopotential": [-1e6]})["geopotential"].isel(threshold=0)
    np.testing.assert_allclose(found, crps, rtol=1e-9)


def test_the_quantile_score_is_that_of_the_library(case):
    fc, truth, happened = case
    found = tails.quantile_score(fc, truth, [0.1, 0.5, 0.9])[NAME]
    for level in (0.1, 0.5, 0.9):
        expected = scores.continuous.quantile_score(
            fc[NAME].quantile(level, "number", skipna=False), happened, level, reduce_dims=("time", *CELLS), weights=area_weights(fc)
        )
        np.testing.assert_allclose(found.sel(quantile=level), expected, rtol=1e-12)


SCORES = {
    "tail CRPS": lambda fc, truth, **how: tails.tail_crps(fc, truth, {NAME: [0.5, 1.0], "geopotential": [0.0]}, **how),
    "quantile score": lambda fc, truth, **how: tails.quantile_score(fc, truth, [0.2, 0.8], **how),
}
of_both = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


@of_both
def test_a_region_is_scored_as_if_it_were_the_globe(beside, score):
    fc, truth = beside(dates=2, shape=(18, 36))
    found = score(fc, truth, regions=["global", "tropics"])
    xr.testing.assert_allclose(found.sel(region="global", drop=True), score(fc, truth))
    alone = score(fc, truth.where(abs(truth.latitude) <= 20))
    xr.testing.assert_allclose(found.sel(region="tropics", drop=True), alone)
    assert found[NAME].attrs["scored_area"] == 1.0 and alone[NAME].attrs["scored_area"] == pytest.approx(np.sin(np.deg2rad(20)), abs=1e-6)


@of_both
def test_seasons_are_scores_of_their_own_initial_times(beside, score, tmp_path):
    fc, truth = beside(dates=30, leads=(6,), shape=(2, 4), levels=(500,))
    found = score(fc, truth, seasons=True, keep=tmp_path / "kept")
    assert found.season.values.tolist() == ["all", "DJF", "MAM"]
    xr.testing.assert_allclose(found.sel(season="all", drop=True), score(fc, truth))
    xr.testing.assert_allclose(found.sel(season="DJF", drop=True), score(fc.isel(time=fc.time.dt.month == 2), truth))
    xr.testing.assert_identical(score(fc, truth, seasons=True, keep=tmp_path / "kept"), found)


@of_both
def test_what_is_missing_is_left_out_and_counted(beside, score):
    fc, truth = beside(members=5, dates=3)
    fewer = fc.copy(deep=True)
    for field in fewer.data_vars.values():
        field[{"number": 4}] = np.nan
    fewer["geopotential"][{"time": 2, "number": 1, LEAD: 1, "latitude": 3}] = np.nan
    gappy = truth.drop_sel(time=fc.time.values[1] + np.timedelta64(6, "h"))
    found = score(fewer, gappy, gaps="skip")
    assert (found.attrs["missing_members"], found.attrs["missing_truth"]) == (3 * 2 + 1, 1)
    expected = score(fc.isel(number=slice(4)), truth)
    xr.testing.assert_allclose(found[NAME].isel({LEAD: 1}), expected[NAME].isel({LEAD: 1}))
    without = score(fc.isel(number=slice(4), time=[0, 2]), truth)
    xr.testing.assert_allclose(found[NAME].isel({LEAD: 0}), without[NAME].isel({LEAD: 0}))
    with refused(DataError, "lacks 1 of the times"):
        score(fc, gappy)
    with refused(DataError, "can be scored"):
        score(fc * np.nan, truth)


def test_levels_that_are_none_are_refused(case):
    with refused(ConfigurationError, "between 0 and 1"):
        tails.quantile_score(*case[:2], [1.0])
    with refused(ConfigurationError, "Thresholds of wind"):
        tails.tail_crps(*case[:2], {"wind": [1.0]})
