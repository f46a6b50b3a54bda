"""Rank histograms and the ratio of spread to error, for ensembles that are right and ensembles that are wrong."""

from __future__ import annotations

import numpy as np
import pytest
import scores
import xarray as xr
from scipy.stats import chisquare

import aeris
from aeris.data.grid import Grid
from aeris.errors import DataError
from aeris.verification import pairing
from aeris.verification.calibration import rank_histogram, spread_skill

LEAD = "prediction_timedelta"


def test_a_perfect_ensemble_has_a_flat_histogram(beside):
    fc, truth = beside(members=7, dates=10, shape=(16, 32))
    ranks = rank_histogram(fc, truth)
    assert ranks["geopotential"].dims == (LEAD, "level", "rank")
    assert ranks["rank"].values.tolist() == list(range(8))
    # The weights make a cell near the equator count more than one near a pole: so many equal cells say as much.
    area = Grid.of(fc).area
    cells = 10 * 32 * area.sum() ** 2 / (area**2).sum()
    for frequency in ranks["geopotential"].values.reshape(-1, 8):
        assert frequency.sum() == pytest.approx(1.0)
        assert chisquare(frequency * cells, np.full(8, cells / 8)).pvalue > 1e-3


@pytest.mark.parametrize(("bias", "fullest"), [(2.0, 0), (-2.0, 7)])
def test_a_biased_ensemble_fills_one_end(beside, bias, fullest):
    fc, truth = beside(members=7, dates=4)
    assert np.argmax(rank_histogram(fc + bias, truth)["2m_temperature"].mean(LEAD).values) == fullest


def test_a_narrow_ensemble_fills_both_ends(beside):
    fc, truth = beside(members=7, dates=4)
    mean = fc.mean("number")
    frequency = rank_histogram(mean + 0.3 * (fc - mean), truth)["2m_temperature"].mean(LEAD)
    assert (frequency[[0, 7]] > 2 / 8).all() and (frequency[1:7] < 1 / 8).all()


def test_ties_are_shared_and_cells_weighed_as_in_the_scores_library(beside):
    fc, truth = (np.round(ds) for ds in beside(members=4, dates=3))
    truth["2m_temperature"][{"longitude": 3}] = np.nan
    weights = xr.DataArray(Grid.of(fc).area, {"latitude": fc.latitude}, "latitude")
    happened = truth.rename(time="valid").sel(valid=fc.time + fc[LEAD]).drop_vars("valid")
    ours = rank_histogram(fc, truth)
    for name in ("2m_temperature", "geopotential"):
        kept = [dim for dim in (LEAD, "level") if dim in fc[name].dims]
        theirs = scores.probability.rank_histogram(fc[name], happened[name], "number", preserve_dims=kept, weights=weights)
        np.testing.assert_allclose(ours[name], theirs.transpose(*ours[name].dims), atol=1e-12)


def test_cases_without_all_members_do_not_count(beside, monkeypatch):
    fc, truth = beside(members=4, dates=3)
    fewer = fc.copy(deep=True)
    for field in fewer.data_vars.values():
        field[{"time": 1, "number": 2}] = np.nan
    monkeypatch.setattr(pairing, "PIECE_VALUES", 1)
    found = rank_histogram(fewer, truth)
    xr.testing.assert_allclose(found, rank_histogram(fc.isel(time=[0, 2]), truth))
    assert found.attrs["left_out_cases"] == 2 and rank_histogram(fc, truth).attrs["left_out_cases"] == 0
    fc["geopotential"][{"time": 2, "number": 0, LEAD: 1, "level": 1}] = np.nan
    assert rank_histogram(fc, truth).attrs["left_out_cases"] == 1


def test_ranks_by_region_and_season_and_with_gaps(beside):
    """Beside those of the same archive with the truth missing elsewhere, of the season's initial times, and of the days that are there."""
    fc, truth = beside(members=4, dates=30, leads=(6,), shape=(9, 8), levels=(500,))
    found = rank_histogram(fc, truth, regions=["global", "tropics"], seasons=True)
    assert found["geopotential"].dims == ("season", "region", LEAD, "level", "rank")
    winter = fc.isel(time=fc.time.dt.month == 2)
    tropics = truth.where(abs(truth.latitude) <= 20)
    xr.testing.assert_allclose(found.sel(season="DJF", region="tropics", drop=True), rank_histogram(winter, tropics))
    xr.testing.assert_allclose(found.sel(season="all", region="global", drop=True), rank_histogram(fc, truth))
    gappy = truth.drop_sel(time=fc.time.values[3] + np.timedelta64(6, "h"))
    skipped = rank_histogram(fc, gappy, gaps="skip")
    xr.testing.assert_allclose(skipped, rank_histogram(fc.isel(time=[0, 1, 2, *range(4, 30)]), truth))
    assert skipped.attrs["left_out_cases"] == 1
    with pytest.raises(DataError, match="lacks 1 of the times"):
        rank_histogram(fc, gappy)


def test_one_member_has_no_ranks(beside):
    with pytest.raises(DataError, match=r"one member.*members=2"):
        rank_histogram(*beside(members=1))


@pytest.mark.parametrize("members", [2, 8])
@pytest.mark.parametrize(("factor", "expected"), [(1.0, 1.0), (0.5, None)])
def test_spread_skill_in_memory(members, factor, expected):
    """With deviation s about a common signal the ratio is √((M+1)/M · s² / (1 + s²/M))."""
    rng = np.random.default_rng(members)
    ensemble = xr.DataArray(factor * rng.standard_normal((members, 200, 30, 40)), dims=("number", "time", "latitude", "longitude"))
    truth = xr.DataArray(rng.standard_normal((200, 30, 40)), dims=("time", "latitude", "longitude"))
    expected = expected or np.sqrt((members + 1) / members * factor**2 / (1 + factor**2 / members))
    assert spread_skill(ensemble, truth, dims=("time", "latitude", "longitude")).item() == pytest.approx(expected, rel=0.01)


def test_spread_skill_in_memory_is_that_of_verify(beside):
    fc, truth = beside()
    truth["2m_temperature"][{"longitude": 3}] = np.nan
    s = aeris.verify(fc, truth)["spread_skill.2m_temperature"].sel(system="forecast")
    happened = truth["2m_temperature"].sel(time=fc.time + fc[LEAD].isel({LEAD: 1}))
    area = xr.DataArray(Grid.of(fc).area, {"latitude": fc.latitude}, "latitude")
    ratio = spread_skill(
        fc["2m_temperature"].isel({LEAD: 1}).drop_vars(LEAD),
        happened.assign_coords(time=fc.time).drop_vars(LEAD),
        area,
        ("time", "latitude", "longitude"),
    )
    assert ratio.item() == pytest.approx(s[1].item())
