"""Flatness of rank histograms: the size of the test on flat histograms of dependent cells, its power, and the parts of χ²."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import binom, chisquare

from aeris.errors import DataError
from aeris.verification.calibration import rank_histogram
from aeris.verification.flatness import flatness_of, rank_flatness

LEAD = "prediction_timedelta"
ALL, BIAS, CONVEXITY = range(3)


def histograms(
    blocks: int, members: int, waves: float, count: int, bias: float = 0.0, width: float = 1.0, seed: int = 0
) -> Iterator[np.ndarray]:
    """Histograms of simulated verifications, each ``(block, rank)``.

    Members and truth are drawn on 80 cells; a share `waves` of their variance is six waves that all cells have in common.
    """
    rng = np.random.default_rng(seed)
    shapes = rng.standard_normal((6, 80))
    shapes /= np.sqrt((shapes**2).sum(0))

    def draw(*size: int) -> np.ndarray:
        return np.sqrt(waves) * rng.standard_normal((*size, 6)) @ shapes + np.sqrt(1 - waves) * rng.standard_normal((*size, 80))

    for _ in range(count):
        ranks = (width * draw(blocks, members) < (draw(blocks) + bias)[:, None]).sum(1)
        yield np.stack([np.bincount(row, minlength=members + 1) / 80 for row in ranks])


def p_values(*case, **spoilt) -> np.ndarray:
    """p of simulated verifications, ``(verification, component)``."""
    return np.array([flatness_of(one)[0] for one in histograms(*case, **spoilt)])


@pytest.mark.parametrize(("blocks", "members", "waves"), [(16, 8, 0.9), (16, 8, 0.0), (30, 24, 0.9)])
def test_it_rejects_flat_histograms_as_often_as_it_says(blocks, members, waves):
    """Of 400 calibrated ensembles some 20 are rejected at 5 %, however much their cells depend on each other."""
    rejected = (p_values(blocks, members, waves, 400) < 0.05).sum(0)
    low, high = binom.ppf([0.001, 0.999], 400, 0.05)
    assert ((rejected >= low) & (rejected[BIAS] <= high) & (rejected[CONVEXITY] <= high)).all()
    assert rejected[ALL] <= binom.ppf(0.999, 400, 0.07)  # an approximation, a little too eager


def test_counting_cells_as_cases_would_reject_calibrated_ensembles():
    """What the blocks are for: with a case for each cell, Pearson's test at 5 % rejects five times as many."""
    naive = np.array([chisquare(80 * one.sum(0)).pvalue for one in histograms(16, 8, 0.95, 100)])
    assert (naive < 0.05).mean() > 0.25


def test_a_biased_ensemble_is_rejected_for_its_bias():
    p = p_values(16, 8, 0.9, 60, bias=0.6)
    assert ((p[:, [ALL, BIAS]] < 0.05).mean(0) > 0.95).all()


def test_a_narrow_ensemble_is_rejected_for_its_convexity():
    p = p_values(16, 8, 0.9, 60, width=0.65)
    assert ((p[:, [ALL, CONVEXITY]] < 0.05).mean(0) > 0.95).all()
    assert (p[:, BIAS] < 0.05).mean() < 0.2


def test_signs_of_the_parts():
    flat = np.full((10, 5), 0.2) + 0.01 * np.random.default_rng(0).standard_normal((10, 5))
    rising, valley = np.array([-2, -1, 0, 1, 2]) * 0.05, np.array([2, -1, -2, -1, 2]) * 0.03
    for shape, expected in ((rising, [1, 0]), (-rising, [-1, 0]), (valley, [0, 1]), (-valley, [0, -1])):
        departure = flatness_of(flat + shape)[2]
        assert np.round(departure[1:] / abs(departure[1:]).max()).astype(int).tolist() == expected


def test_independent_cases_give_the_chi_square_of_the_library():
    """Blocks of single cases: the effective cases are the cases, and χ² is scipy's; parts of three ranks are the whole."""
    rng = np.random.default_rng(1)
    counts = rng.multinomial(400, [0.36, 0.3, 0.34])
    cases = rng.permutation(np.repeat(np.arange(3), counts))
    p, chi_square, _, effective, blocks = flatness_of(np.eye(3)[cases])
    assert blocks == 400 and effective == pytest.approx(400, rel=0.01)
    assert chi_square[ALL] == pytest.approx(chisquare(counts).statistic, rel=0.01)
    assert p[ALL] == pytest.approx(chisquare(counts).pvalue, rel=0.05)
    assert chi_square[ALL] == pytest.approx(chi_square[BIAS] + chi_square[CONVEXITY])


def test_repeating_every_cell_changes_nothing_and_fewer_blocks_tell_nothing():
    blocks = np.random.default_rng(0).dirichlet(np.ones(6), 12)
    gaps = np.vstack([blocks, np.full((3, 6), np.nan)])
    np.testing.assert_allclose(flatness_of(gaps)[0], flatness_of(blocks)[0])
    assert np.isnan(flatness_of(blocks[:7])[0]).all()
    assert np.isnan(flatness_of(np.tile(blocks[0], (12, 1)))[0]).all()


def test_archives(beside):
    """Blocks as long as forecasts overlap; the departure is that of the rank histogram; a shifted ensemble is found, and its side."""
    fc, truth = beside(members=5, dates=20, leads=(6, 48))
    flat, shifted = rank_flatness(fc, truth), rank_flatness(fc + 1.0, truth)
    assert flat.attrs["block"] == [1, 2]
    name = "2m_temperature"
    assert flat[f"p_value.{name}"].dims == (LEAD, "component")
    assert flat["p_value.geopotential"].dims == (LEAD, "level", "component")
    assert flat[f"blocks.{name}"].values.tolist() == [20, 10]
    frequency = rank_histogram(fc, truth)[name]
    expected = np.sqrt(6 * ((frequency - 1 / 6) ** 2).sum("rank"))
    np.testing.assert_allclose(flat[f"departure.{name}"].sel(component="all"), expected)
    assert (flat[f"p_value.{name}"].sel(component="bias") > 1e-3).all()
    assert (shifted[f"p_value.{name}"].sel(component=["all", "bias"]) < 1e-3).all()
    assert (shifted[f"departure.{name}"].sel(component="bias") < 0).all()


def test_too_few_dates_are_refused(beside):
    with pytest.raises(DataError, match=r"3 initial times.*8 blocks"):
        rank_flatness(*beside(members=4, dates=3))
    with pytest.raises(DataError, match="one member"):
        rank_flatness(*beside(members=1, dates=9))
    long = rank_flatness(*beside(members=4, dates=10, leads=(24, 96)))
    assert long["p_value.2m_temperature"].isel({LEAD: 1}).isnull().all()
