"""Differences and their intervals against simulation, another library and themselves."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scores.stats.statistical_tests import diebold_mariano
from test_scores import LEAD, refused

from aeris.errors import ConfigurationError, DataError
from aeris.verification.scores import mean_statistics, scores_of
from aeris.verification.significance import compare, intervals


def statistics(own: np.ndarray, other: np.ndarray, hours: int = 24, lead: int = 24) -> xr.Dataset:
    """Mean squared errors of two systems at one lead, date by date, `hours` apart; of several levels where they are ``(date, level)``."""
    times = np.datetime64("2020-01-01", "ns") + np.arange(len(own)) * np.timedelta64(hours, "h")
    both = np.stack([own, other])
    values = np.expand_dims(np.stack([both, np.ones_like(both), np.full_like(both, 4.0)]), 3)
    coordinates = {
        "statistic": ["squared_error", "area", "members"],
        "system": ["forecast", "persistence"],
        "time": times,
        LEAD: np.array([lead], "timedelta64[h]").astype("timedelta64[ns]"),
    } | ({"level": np.arange(own.shape[1])} if own.ndim > 1 else {})
    return xr.Dataset({"x": (list(coordinates), values, {"units": "m"})}, coordinates, {"members": 4})


def correlated(count: int, memory: float, rng: np.random.Generator) -> np.ndarray:
    """A series of variance one whose neighbours correlate."""
    series = rng.standard_normal(count)
    for step in range(1, count):
        series[step] = memory * series[step - 1] + np.sqrt(1 - memory**2) * series[step]
    return series


def test_the_difference_is_that_of_the_scores(beside):
    means = mean_statistics(*beside(dates=16, shape=(4, 8)), regions=["global", "northern-hemisphere"])
    found, s = compare(means, "rmse"), scores_of(means)
    for name in ("geopotential", "2m_temperature"):
        own, other = (s[f"rmse.{name}"].sel(system=system, drop=True) for system in ("forecast", "persistence"))
        xr.testing.assert_allclose(found[f"difference.{name}"].transpose(*own.dims), own - other)
        xr.testing.assert_allclose(found[f"relative.{name}"].transpose(*own.dims), own / other - 1)
    assert (found["low.geopotential"] < found["relative.geopotential"]).all()
    assert (found["relative.geopotential"] < found["high.geopotential"]).all()
    assert found["difference.geopotential"].attrs["units"] == "m**2 s**-2"
    assert (found["dates.geopotential"] == 16).all()


def test_a_score_of_two_statistics_has_an_interval_and_no_test(beside):
    means = mean_statistics(*beside(dates=16, shape=(4, 8)), baselines={"other": beside(seed=5, dates=16, shape=(4, 8))[0]})
    found = compare(means, "spread_skill", reference="other")
    assert (found["low.geopotential"] < found["high.geopotential"]).all()
    assert np.isnan(found["p_value.geopotential"]).all()


def test_below_zero_is_better_whatever_the_score(beside):
    """Of the anomaly correlation 1 − ACC is compared, of spread over error the factor by which they differ, errors as they are."""
    fc, truth = beside(dates=16, shape=(4, 8))
    climatology = truth * 0
    others = {"narrow": fc.mean("number") + 0.3 * (fc - fc.mean("number")), "wide": fc.mean("number") + 4 * (fc - fc.mean("number"))}
    others = {name: one.transpose(*fc["geopotential"].dims) for name, one in others.items()} | {
        "noisy": fc + beside(seed=3, dates=16, shape=(4, 8))[0]
    }
    means = mean_statistics(fc, truth, climatology, baselines=others)
    s = scores_of(means)["acc.geopotential"].transpose("system", ...)
    found = compare(means, "acc", reference="noisy")
    np.testing.assert_allclose(found["relative.geopotential"], (1 - s.sel(system="forecast")) / (1 - s.sel(system="noisy")) - 1)
    assert (found["high.geopotential"] < 0).all() and (found["difference.geopotential"] > 0).all()
    ratio = scores_of(means)["spread_skill.geopotential"].transpose("system", ...)
    for name, factor in (("narrow", 1 / ratio), ("wide", ratio)):
        found = compare(means, "spread_skill", reference=name)
        own = np.maximum(ratio, 1 / ratio).sel(system="forecast")
        np.testing.assert_allclose(found["relative.geopotential"], own / factor.sel(system=name) - 1)
        assert (found["high.geopotential"] < 0).all()
        assert (compare(means, "spread_skill", system=name, reference="forecast")["low.geopotential"] > 0).all()


def test_equal_forecasts_do_not_differ():
    rng = np.random.default_rng(0)
    error = rng.chisquare(4, 40)
    found = compare(statistics(error, error), "rmse")
    assert found["relative.x"].item() == found["low.x"].item() == found["high.x"].item() == 0
    assert np.isnan(found["p_value.x"].item())


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_the_interval_holds_the_truth_as_often_as_it_says(memory):
    """Blocks as long as the memory cover nearly as often as asked; single dates of a correlated series do not. A level is a case."""
    rng = np.random.default_rng(1)
    noise = np.stack([correlated(120, memory, rng) for _ in range(200)], axis=1)
    means = statistics(10 + noise, np.full_like(noise, 10.0), lead=24 * 8 if memory else 24)
    covered = {}
    for length in (None, 1):
        found = compare(means, "rmse", draws=200, block=length)
        covered[length] = ((found["low.x"] <= 0) & (found["high.x"] >= 0)).mean().item()
    if memory:
        assert covered[None] > 0.77
        assert covered[1] < covered[None] - 0.15
    else:
        assert covered[None] > 0.85
        assert covered[1] > 0.9


def test_the_test_is_that_of_the_library_and_sees_what_is_there():
    rng = np.random.default_rng(2)
    noise = correlated(100, 0.5, rng)
    for shift, small in ((0.0, False), (2.0, True)):
        own, other = 10 + noise + shift, np.full(100, 10.0)
        found = compare(statistics(own, other, lead=72), "rmse")
        series = xr.DataArray((own - other)[None], {"h": ("lead", [3])}, ("lead", "time"))
        above = diebold_mariano(series, "lead", "h", method="HLN", statistic_distribution="t").confidence_gt_0.item()
        assert found["p_value.x"].item() == pytest.approx(2 * min(above, 1 - above))
        assert (found["p_value.x"].item() < 1e-4) == small
        assert (found["low.x"].item() > 0) == small


def test_dates_that_one_system_lacks_are_left_out_and_counted():
    rng = np.random.default_rng(3)
    own, other = rng.chisquare(4, 30), rng.chisquare(4, 30)
    holed = own.copy()
    holed[4:7] = np.nan
    found = compare(statistics(holed, other), "rmse")
    assert found["dates.x"].item() == 27
    kept = np.isfinite(holed)
    assert found["relative.x"].item() == pytest.approx(np.sqrt(own[kept].mean() / other[kept].mean()) - 1)


def test_what_cannot_be_compared_is_refused(beside):
    means = mean_statistics(*beside(dates=16, shape=(4, 8)), metrics=["rmse"])
    with refused(ConfigurationError, "'crps'", "rmse"):
        compare(means, "crps")
    with refused(DataError, "'nobody'", "forecast, persistence"):
        compare(means, "rmse", reference="nobody")
    with refused(DataError, "4 initial times", "at least 8"):
        compare(means.isel(time=slice(4)), "rmse")
    with refused(DataError, "Blocks of 10 initial times among 16", "further apart"):
        compare(means, "rmse", block=10)
    with refused(ConfigurationError, "draws=3"):
        compare(means, "rmse", draws=3)


def test_the_interval_of_one_score_is_that_of_its_mean(beside):
    """Of independent dates in blocks of one: 1.96 standard errors on both sides, of a mean, and of the root of one by its derivative."""
    rng = np.random.default_rng(0)
    squared = rng.gamma(4.0, size=200)
    means = statistics(squared, 2 * squared)
    found = intervals(means, "rmse", block=1, draws=4000)
    error = 1.96 * squared.std() / np.sqrt(200) / (2 * np.sqrt(squared.mean()))
    for system, factor in (("forecast", 1.0), ("persistence", np.sqrt(2.0))):
        value, low, high = (float(found[f"{part}.x"].sel(system=system).squeeze()) for part in ("value", "low", "high"))
        assert value == pytest.approx(factor * np.sqrt(squared.mean()))
        assert [value - low, high - value] == pytest.approx([factor * error] * 2, rel=0.1)
    of_fields = mean_statistics(*beside(dates=16, shape=(4, 8)), regions=["global", "northern-hemisphere"])
    found, s = intervals(of_fields, "crps"), scores_of(of_fields)
    for name in ("geopotential", "2m_temperature"):
        xr.testing.assert_allclose(found[f"value.{name}"].transpose(*s[f"crps.{name}"].dims), s[f"crps.{name}"])
    assert found["low.geopotential"].attrs["units"] == "m**2 s**-2"
