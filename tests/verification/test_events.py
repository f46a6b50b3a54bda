"""Probabilities of events against the scores library, closed forms and identities."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import scores
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scores import CELLS, LEAD, area_weights, refused, truth_at_valid_times

from aeris.errors import ConfigurationError, DataError
from aeris.verification import events

NAME = "2m_temperature"
LIMITS = (-1.0, 0.5, 2.0)


@pytest.fixture
def case(beside):
    fc, truth = beside(members=5, dates=4)
    return fc, truth, truth_at_valid_times(fc, truth)[NAME]


@pytest.fixture
def table(case) -> xr.Dataset:
    return events.event_table(case[0], case[1], {NAME: LIMITS})


def weighted(field: xr.DataArray, fc: xr.Dataset) -> xr.DataArray:
    return field.weighted(area_weights(fc)).mean(("time", *CELLS))


def test_the_table_holds_the_whole_globe_and_the_base_rate(case, table):
    fc, _, happened = case
    assert table[NAME].dims == ("time", LEAD, "threshold", "foretold", "came")
    np.testing.assert_allclose(table[NAME].sum(("threshold", "foretold", "came")), len(LIMITS))
    for limit in LIMITS:
        np.testing.assert_allclose(events.base_rate(table)[NAME].sel(threshold=limit), weighted((happened > limit) * 1.0, fc))


@pytest.mark.parametrize("fair", [True, False])
def test_the_brier_score_is_that_of_the_library(case, table, fair):
    fc, _, happened = case
    expected = scores.probability.brier_score_for_ensemble(
        fc[NAME],
        happened,
        "number",
        list(LIMITS),
        event_threshold_operator=operator.gt,
        fair_correction=fair,
        reduce_dims=("time", *CELLS),
        weights=area_weights(fc),
    )
    np.testing.assert_allclose(events.brier_score(table, fair)[NAME], expected.transpose(LEAD, "threshold"), rtol=1e-12)


def test_reliability_less_resolution_plus_uncertainty_is_the_brier_score(table):
    parts = events.brier_parts(table)[NAME]
    together = parts.sel(part="reliability") - parts.sel(part="resolution") + parts.sel(part="uncertainty")
    np.testing.assert_allclose(together, events.brier_score(table, fair=False)[NAME], rtol=1e-12)


def test_the_roc_is_that_of_the_library(case, table):
    fc, _, happened = case
    curves = events.roc(table)
    for limit in LIMITS:
        probability = (fc[NAME] > limit).mean("number")
        expected = scores.probability.roc_curve_data(
            probability,
            (happened > limit) * 1.0,
            np.arange(6) / 5,
            preserve_dims=LEAD,
            weights=area_weights(fc).broadcast_like(probability),
            check_args=False,
        )
        at = curves.sel(threshold=limit)
        np.testing.assert_allclose(at[f"hits.{NAME}"].transpose(LEAD, ...), expected.POD.transpose(LEAD, ...), rtol=1e-12)
        np.testing.assert_allclose(at[f"false_alarms.{NAME}"].transpose(LEAD, ...), expected.POFD.transpose(LEAD, ...), rtol=1e-12)
        np.testing.assert_allclose(at[f"area.{NAME}"], expected.AUC, rtol=1e-12)


def test_economic_value_is_that_of_the_library(case, table):
    fc, _, happened = case
    ratios = [0.1, 0.4, 0.8]
    value = events.economic_value(table, ratios)[NAME].sel(threshold=0.5)
    expected = scores.probability.relative_economic_value(
        (fc[NAME] > 0.5).mean("number"),
        (happened > 0.5) * 1.0,
        cost_loss_ratios=ratios,
        probability_thresholds=[*(np.arange(6) / 5), 1.1],
        generate_maximum_rev=True,
        preserve_dims=[LEAD],
        weights=area_weights(fc).broadcast_like(happened),
        check_args=False,
    )["maximum"]
    np.testing.assert_allclose(value.transpose(LEAD, ...), expected.transpose(LEAD, ...), rtol=1e-9, atol=1e-12)


def test_a_threshold_may_differ_from_place_to_place(case):
    """A limit that lies between two values in the north and above all in the south."""
    fc, truth, happened = case
    limit = xr.where(truth.latitude > 0, 0.5, 1e6) * xr.ones_like(truth.longitude)
    table = events.event_table(fc, truth, {NAME: limit})
    expected = weighted(((happened > 0.5) & (happened.latitude > 0)) * 1.0, fc)
    np.testing.assert_allclose(events.base_rate(table)[NAME].isel(threshold=0), expected)


def test_below_is_the_complement_of_above(case, table):
    fc, truth, _ = case
    below = events.event_table(fc, truth, {NAME: LIMITS}, above=False)
    flipped = table[NAME].values[..., ::-1, ::-1]
    np.testing.assert_allclose(below[NAME], flipped, atol=1e-15)


def test_a_region_is_counted_alone(case):
    fc, truth, happened = case
    table = events.event_table(fc, truth, {NAME: [0.5]}, regions=["tropics", "northern-hemisphere"])
    tropical = happened.where(abs(happened.latitude) <= 20, drop=True)
    weights = area_weights(fc).sel(latitude=tropical.latitude)
    expected = ((tropical > 0.5) * 1.0).weighted(weights).mean(("time", *CELLS))
    np.testing.assert_allclose(events.base_rate(table)[NAME].sel(region="tropics").isel(threshold=0), expected)


def test_missing_members_are_told_and_missing_truth_is_left_out(case):
    fc, truth, happened = case
    fewer, sea = fc.copy(deep=True), truth.where(truth.longitude < 100)
    fewer[NAME][{"time": 1, "number": 2, LEAD: 0}] = np.nan
    table = events.event_table(fewer, sea, {NAME: [0.5]})
    assert table.attrs["left_out_cases"] == 1
    assert float(table[NAME][{"time": 1, LEAD: 0}].sum()) == 0
    west = (happened > 0.5).where(happened.longitude < 100)
    np.testing.assert_allclose(events.base_rate(table)[NAME].isel(threshold=0, **{LEAD: 1}), weighted(west, fc).isel({LEAD: 1}))


def test_where_the_truth_lacks_a_time_nothing_is_counted(case):
    fc, truth, happened = case
    gappy = truth.drop_sel(time=happened.time.values[1] + np.timedelta64(6, "h"))
    table = events.event_table(fc, gappy, {NAME: [0.5]}, gaps="skip")
    assert float(table[NAME][{"time": 1, LEAD: 0}].sum()) == 0 and float(table[NAME][{"time": 0, LEAD: 0}].sum()) == pytest.approx(1.0)
    assert table.attrs["left_out_cases"] == 1
    late = events.event_table(fc, truth.isel(time=slice(5, None)), {NAME: [0.5]}, gaps="skip")
    assert late.sizes["time"] == 3 and late.attrs["left_out_cases"] == 2
    with refused(DataError, "lacks 1 of the times"):
        events.event_table(fc, gappy, {NAME: [0.5]})


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_the_fair_brier_score_is_unbiased_in_the_number_of_members(members, seed):
    """An ensemble that foretells with probability 0.3 an event of probability 0.6: 0.3² + 0.6 − 2 · 0.3 · 0.6, whatever M."""
    rng = np.random.default_rng(seed)
    size = 40_000
    foretold, came = rng.binomial(members, 0.3, size), rng.random(size) < 0.6
    counts = np.bincount(2 * foretold + came, minlength=2 * (members + 1)).reshape(members + 1, 2) / size
    table = xr.Dataset({"x": (("foretold", "came"), counts)}, {"foretold": np.arange(members + 1), "came": [0, 1]})
    assert float(events.brier_score(table)["x"]) == pytest.approx(0.09 + 0.6 - 0.36, abs=0.02)


def test_a_perfect_and_a_useless_forecast(perfect):
    fc, truth = perfect(members=3, dates=2, shape=(8, 16))
    pattern = xr.where(truth.longitude < 90, 10.0, 0.0)
    table = events.event_table(fc + pattern, truth + pattern, {NAME: [285.0]})
    assert float(events.brier_skill(table)[NAME].squeeze()) == pytest.approx(1.0)
    assert float(events.roc(table)[f"area.{NAME}"].squeeze()) == pytest.approx(1.0)
    assert events.economic_value(table, [0.2, 0.7])[NAME].values.ravel() == pytest.approx([1.0, 1.0])
    never = events.event_table(fc, truth + pattern, {NAME: [285.0]})
    assert float(events.roc(never)[f"area.{NAME}"].squeeze()) == pytest.approx(0.5)
    assert float(events.brier_skill(never)[NAME].squeeze()) < 0
    assert np.isnan(events.roc(events.event_table(fc, truth, {NAME: [285.0]}))[f"area.{NAME}"]).all()


def test_the_diagram_of_a_reliable_forecast_lies_on_the_diagonal():
    """Members and truth drawn with one probability, which differs from case to case."""
    rng = np.random.default_rng(0)
    chance = rng.random(400_000)
    foretold, came = rng.binomial(20, chance), rng.random(chance.size) < chance
    counts = np.bincount(2 * foretold + came, minlength=42).reshape(21, 2) / chance.size
    diagram = events.reliability_diagram(xr.Dataset({"x": (("foretold", "came"), counts)}, {"foretold": np.arange(21), "came": [0, 1]}))
    # With chances spread evenly, k of M leave a mean chance of (k + 1) / (M + 2).
    np.testing.assert_allclose(diagram["came.x"], (np.arange(21) + 1) / 22, atol=0.01)
    assert diagram.probability.values[[0, -1]].tolist() == [0.0, 1.0]
    assert float(diagram["used.x"].sum()) == pytest.approx(1.0)


def test_what_makes_no_event_is_refused(case):
    fc, truth, _ = case
    with refused(ConfigurationError, "Thresholds of wind", "2m_temperature"):
        events.event_table(fc, truth, {"wind": [1.0]})
    with refused(ConfigurationError, "finite"):
        events.event_table(fc, truth, {NAME: [np.nan]})
    with refused(ConfigurationError, "between 0 and 1"):
        events.economic_value(events.event_table(fc, truth, {NAME: [0.0]}), [1.5])
