"""`evaluate`: the scores of `verify`, and ranks, spectra and events of what a report shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import aeris
from aeris.errors import ConfigurationError
from aeris.verification.calibration import rank_histogram
from aeris.verification.evaluation import SHOWN_LEADS, evaluate, favourites, spread_out
from aeris.verification.events import event_table, thresholds_of
from aeris.verification.scorecard import scorecard
from aeris.verification.scores import mean_statistics
from aeris.verification.spectra import mean_power


def test_each_part_is_what_its_own_function_gives(beside, tmp_path):
    fc, truth = beside(members=10, levels=(500, 850))
    found = evaluate(fc, truth, regions=["global", "tropics"], thresholds={"2m_temperature": [1.0]}, keep=tmp_path / "kept")
    xr.testing.assert_identical(found.scores, aeris.verify(fc, truth, regions=["global", "tropics"]))
    xr.testing.assert_identical(found.ranks, rank_histogram(fc, truth))
    xr.testing.assert_allclose(found.spectra, mean_power(fc.isel(number=slice(8)), truth))
    xr.testing.assert_identical(found.events, event_table(fc, truth, {"2m_temperature": [1.0]}))
    assert found.comparisons is None and list(found.left_out) == ["comparison"] and "3 initial times" in found.left_out["comparison"]
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["events", "ranks", "scores", "spectra"]


def test_of_many_leads_and_channels_a_few_are_shown(beside):
    fc, truth = beside(leads=tuple(range(6, 66, 6)), levels=(100, 300, 500, 850), shape=(4, 8))
    found = evaluate(fc, truth)
    assert found.ranks.sizes["prediction_timedelta"] == SHOWN_LEADS
    assert found.ranks.prediction_timedelta.values[[0, -1]].tolist() == fc.prediction_timedelta.values[[0, -1]].tolist()
    assert 500 in found.ranks.level and found.ranks.sizes["level"] < 4
    assert found.scores.sizes["prediction_timedelta"] == 10


def test_what_cannot_be_is_left_out_with_its_reason(beside):
    fc, truth = beside(members=1)
    truth["2m_temperature"] = truth["2m_temperature"].where(truth.latitude > 0)
    found = evaluate(fc, truth)
    assert (found.ranks, found.spectra, found.events) == (None, None, None)
    assert "one member" in found.left_out["ranks"] and "missing" in found.left_out["spectra"]


def test_systems_are_compared_on_the_leads_that_have_blocks_enough(beside):
    """Ten initial times a day apart: of leads of five days two blocks are left, of six days none."""
    fc, truth = beside(members=3, dates=10, leads=(24, 120, 144), levels=(500,), shape=(2, 4))
    found = evaluate(fc, truth, regions=["northern-hemisphere", "global"], metrics=["crps"], baselines=("persistence",))
    assert found.left_out == {"comparison from 144 h on": "Initial times that share no weather are fewer than two blocks"}
    means = mean_statistics(fc, truth, metrics=["crps"])
    expected = scorecard(means.isel(prediction_timedelta=[0, 1]), scores=["crps"])
    order = ["channel", "lead"]
    pd.testing.assert_frame_equal(*(card.sort_values(order, ignore_index=True) for card in (found.comparisons, expected)))
    assert evaluate(fc, truth, baselines=(), metrics=["crps"]).comparisons is None


def test_gaps_are_skipped_in_every_part(beside):
    fc, truth = beside(dates=3)
    gappy = truth.drop_sel(time=np.datetime64("2020-02-02T06"))
    found = evaluate(fc, gappy, gaps="skip", thresholds={"2m_temperature": [0.0]})
    assert found.scores.attrs["missing_truth"] == 1 and list(found.left_out) == ["comparison"]
    some = fc.isel(time=[0, 2], prediction_timedelta=[0])
    xr.testing.assert_allclose(found.ranks.isel(prediction_timedelta=[0]), rank_histogram(some, truth))
    xr.testing.assert_allclose(found.spectra.isel(prediction_timedelta=[0]), mean_power(some, truth))


def test_thresholds_are_read_from_words_and_checked_first(beside):
    assert thresholds_of(["2m_temperature=300,303.15", "geopotential=5e4"]) == {"2m_temperature": [300.0, 303.15], "geopotential": [5e4]}
    for word in ("2m_temperature", "2m_temperature=warm", "2m_temperature="):
        with pytest.raises(ConfigurationError, match="2m_temperature=303"):
            thresholds_of([word])
    with pytest.raises(ConfigurationError, match="threshold of rain"):
        evaluate(*beside(), thresholds={"rain": [1.0]})


def test_favourites_come_first_and_positions_keep_both_ends():
    channels = [("u_component_of_wind", 250), ("geopotential", 850), ("2m_temperature", None), ("geopotential", 500)]
    assert favourites(channels, 3) == [("geopotential", 500), ("2m_temperature", None), ("u_component_of_wind", 250)]
    assert spread_out(40, 5)[0] == 0 and spread_out(40, 5)[-1] == 39 and len(spread_out(40, 5)) == 5
    assert spread_out(3, 5) == [0, 1, 2] and spread_out(1, 5) == [0]
