"""What holds of scores whatever the numbers are: members that trade places, fewer members, exchangeable ones, the right forecast."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from array_archives import archive_of, canonical, hours
from hypothesis import given, settings
from hypothesis import strategies as st

import aeris
from aeris.data.grid import Grid
from aeris.verification import events, tails
from aeris.verification.calibration import rank_histogram
from aeris.verification.metrics import STATISTICS, energy_score
from aeris.verification.pairing import Case

LEAD, NAME = "prediction_timedelta", "2m_temperature"
DRAWS = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "skew": lambda rng, size: rng.gamma(0.7, 2.0, size),
    "heavy": lambda rng, size: rng.standard_t(3, size),
    "ties": lambda rng, size: rng.integers(-1, 2, size).astype(float),
}
SHAPE = (3, 4)
SHARES = np.full((1, 12), 1.0)

seeds = st.integers(0, 2**32 - 1)


def case_of(members: np.ndarray, truth: np.ndarray) -> Case:
    """A case of fields ``(number, rows, columns)`` and ``(rows, columns)`` at one lead, about a climatology of 0.3."""
    dims = (LEAD, "latitude", "longitude")
    fields = xr.Variable(("number", *dims), members[:, None]), xr.Variable(dims, truth[None])
    return Case.of(*fields, xr.full_like(fields[1], 0.3))


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 7), st.sampled_from(list(DRAWS)))
def test_members_may_trade_places(seed, members, kind):
    """Also those that are missing, and whatever the score."""
    rng = np.random.default_rng(seed)
    values, truth = DRAWS[kind](rng, (members, *SHAPE)), DRAWS[kind](rng, SHAPE)
    values[: rng.integers(0, members)] = np.nan
    before, after = case_of(values, truth), case_of(rng.permutation(values), truth)
    for name, statistic in STATISTICS.items():
        np.testing.assert_allclose(statistic(after), statistic(before), rtol=1e-12, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(energy_score(after, SHARES), energy_score(before, SHARES), rtol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(3, 6), st.data(), st.sampled_from(list(DRAWS)))
def test_scores_of_fewer_members_are_those_of_all_on_average(seed, members, data, kind):
    """What is fair to small ensembles is a mean over pairs of members, so that the mean over all smaller ensembles is exactly the whole."""
    size = data.draw(st.integers(2, members - 1))
    rng = np.random.default_rng(seed)
    values, truth = DRAWS[kind](rng, (members, *SHAPE)), DRAWS[kind](rng, SHAPE)
    whole, parts = case_of(values, truth), [case_of(values[list(some)], truth) for some in combinations(range(members), size)]
    for name in ("fair_crps", "debiased_squared_error", "variance"):
        mean = np.mean([STATISTICS[name](part) for part in parts], axis=0)
        np.testing.assert_allclose(mean, STATISTICS[name](whole), rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(np.mean([energy_score(part, SHARES) for part in parts]), energy_score(whole, SHARES).item(), rtol=1e-9)


def everyone_is_the_truth_once(values: np.ndarray) -> tuple[xr.Dataset, xr.Dataset]:
    """An archive with a date for each of the values ``(N, rows, columns)``, which is the truth of that date; the others are its members."""
    count = len(values)
    times = np.datetime64("2020-02-01", "ns") + hours(*range(0, 24 * count + 6, 6))
    truth = canonical({NAME: np.zeros((len(times), *values.shape[1:]))}, times, Grid.regular(*values.shape[1:]), [500])
    fc = archive_of(truth, times[: 4 * count : 4], hours(6), count - 1)
    for date in range(count):
        truth[NAME][1 + 4 * date] = values[date]
        fc[NAME][{"time": date, LEAD: 0}] = np.delete(values, date, axis=0)
    return fc, truth


@settings(max_examples=8, deadline=None)
@given(seeds, st.integers(3, 6), st.sampled_from(list(DRAWS)))
def test_exchangeable_members_have_spread_skill_one_and_flat_ranks(seed, count, kind):
    """To the last digit, for any distribution, and with ties: where each of N values is the truth once, none is special."""
    rng = np.random.default_rng(seed)
    fc, truth = everyone_is_the_truth_once(DRAWS[kind](rng, (count, 4, 8)))
    found = aeris.verify(fc, truth, baselines=(), metrics=["spread_skill", "bias"])
    assert found[f"spread_skill.{NAME}"].item() == pytest.approx(1.0, abs=1e-9)
    assert found[f"bias.{NAME}"].item() == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(rank_histogram(fc, truth)[NAME].squeeze(), 1 / count, rtol=1e-9)


WRONG = {"too warm": (0.4, 1.0), "too cold": (-0.4, 1.0), "too narrow": (0.0, 0.5), "too wide": (0.0, 2.0), "sure": (0.0, 0.0)}
"""By how much a forecast is off, and by what its deviation is multiplied."""


@pytest.fixture(scope="module")
def simulated() -> tuple[xr.Dataset, xr.Dataset]:
    """The right forecast: 20 members and the truth, normal about a signal that is known, on 6 dates of 32×64."""
    rng = np.random.default_rng(0)
    times = np.datetime64("2020-02-01", "ns") + hours(*range(0, 24 * 6 + 6, 6))
    signal = canonical({NAME: 2 * rng.standard_normal((len(times), 32, 64))}, times, Grid.regular(32, 64), [500])
    fc = archive_of(signal, times[:24:4], hours(6), 20)
    return fc + rng.standard_normal(fc[NAME].shape), signal + rng.standard_normal(signal[NAME].shape)


def losses(fc: xr.Dataset, truth: xr.Dataset) -> dict[str, float]:
    """Everything of which a forecaster is told that less is better."""
    scores = aeris.verify(fc, truth, baselines=(), metrics=["crps", "energy_score"])
    return {
        "CRPS": scores[f"crps.{NAME}"].item(),
        "energy score": scores[f"energy_score.{NAME}"].item(),
        "tail CRPS": tails.tail_crps(fc, truth, {NAME: [1.0]})[NAME].item(),
        "Brier score": events.brier_score(events.event_table(fc, truth, {NAME: [1.0]}))[NAME].item(),
        "quantile score": float(tails.quantile_score(fc, truth, [0.1, 0.9])[NAME].sum()),
    }


@pytest.fixture(scope="module")
def right(simulated) -> dict[str, float]:
    return losses(*simulated)


@pytest.mark.parametrize("how", WRONG)
def test_nothing_is_gained_by_saying_what_one_does_not_believe(simulated, right, how):
    """Propriety, by simulation: every score is smallest for the distribution that the truth is drawn from."""
    fc, truth = simulated
    shift, factor = WRONG[how]
    spoilt = fc + (factor - 1.0) * (fc - fc.mean("number")) + shift
    for name, loss in losses(spoilt, truth).items():
        assert loss > 1.005 * right[name], name
