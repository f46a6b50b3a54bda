"""Scorecards: their numbers are those of the scores, and their signs say who is better."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from test_scores import LEAD, refused

from aeris.errors import ConfigurationError, DataError
from aeris.verification.scorecard import as_text, scorecard
from aeris.verification.scores import mean_statistics, scores_of

SCORES = ("rmse", "crps", "acc", "spread_skill")


@pytest.fixture(scope="module")
def means() -> xr.Dataset:
    """A good forecast of ten members, a worse one of the same, the good one with a hole, and another draw of it."""
    rng = np.random.default_rng(0)
    times = np.datetime64("2020-02-01", "ns") + np.arange(24) * np.timedelta64(24, "h")
    leads = np.array([6, 24], "timedelta64[h]").astype("timedelta64[ns]")
    valid = np.unique((times[:, None] + leads).ravel())
    grid = {"latitude": [67.5, 22.5, -22.5, -67.5], "longitude": np.arange(8) * 45.0}
    dims = ("time", "level", "latitude", "longitude")
    signal = xr.DataArray(3 * rng.standard_normal((len(valid), 2, 4, 8)), {"time": valid, "level": [500, 850], **grid}, dims)

    def noise(field: xr.DataArray, size: float) -> xr.DataArray:
        return field + size * rng.standard_normal(field.shape)

    def both(upper: xr.DataArray) -> xr.Dataset:
        return xr.Dataset({"geopotential": upper, "2m_temperature": upper.isel(level=0, drop=True) + 280})

    at_valid = signal.sel(time=xr.DataArray(times[:, None] + leads, {"time": times, LEAD: leads}, ("time", LEAD)).rename(time="start"))
    centre = at_valid.drop_vars("time").rename(start="time").expand_dims(number=10)
    good = both(noise(centre, 1.0))
    bad = both(noise(noise(centre.isel(number=[0]), 1.5).drop_vars("number", errors="ignore").isel(number=[0] * 10), 0.3))
    holed = good.copy(deep=True)
    for field in holed.values():
        field[{"time": slice(5), "number": slice(None)}] = np.nan
    truth = both(noise(signal, 1.0))
    others = {"bad": bad, "holed": holed, "no surface": bad[["geopotential"]].sel(level=[850]), "twin": both(noise(centre, 1.0))}
    return mean_statistics(good, truth, truth * 0 + both(signal * 0), baselines=others, regions=["global", "northern-hemisphere"])


def test_every_comparison_has_its_row_with_interval_and_number_of_cases(means):
    card = scorecard(means, "bad", scores=SCORES)
    assert len(card) == 4 * (2 + 1) * 2 * 2  # scores, channels, leads, regions
    assert set(card.channel) == {"geopotential_500", "geopotential_850", "2m_temperature"}
    assert card.dates.eq(24).all() and card.confidence.eq(0.95).all() and card[["low", "relative", "high"]].notna().all(axis=None)
    assert ((card.low < card.relative) & (card.relative < card.high)).all()
    assert set(card.units[card.score == "rmse"]) == {"K", "m**2 s**-2"} and set(card.units[card.score == "acc"]) == {"1"}
    assert card.level[card.variable == "2m_temperature"].isna().all() and card.level.dtype == "Int64"
    s = scores_of(means)
    for row in card[card.score.isin(["rmse", "crps"])].itertuples():
        field = s[f"{row.score}.{row.variable}"].sel(region=row.region, **{LEAD: row.lead})
        field = field if pd.isna(row.level) else field.sel(level=row.level)
        own, other = field.sel(system="forecast").item(), field.sel(system="bad").item()
        assert row.difference == pytest.approx(own - other) and row.relative == pytest.approx(own / other - 1)


def test_better_has_one_sign_whether_more_or_less_of_a_score_is_better(means):
    forward, back = scorecard(means, "bad", scores=SCORES), scorecard(means, "forecast", system="bad", scores=SCORES)
    assert set(forward.verdict) == {"better"} and (forward.high < 0).all()
    assert set(back.verdict) == {"worse"} and (back.low > 0).all()
    assert (forward.difference[forward.score == "acc"] > 0).all() and (forward.difference[forward.score == "crps"] < 0).all()


def test_where_luck_may_do_it_nothing_is_said(means):
    card = scorecard(means, "holed", scores="crps")
    assert set(card.verdict) == {"undecided"} and card.relative.eq(0).all() and card.dates.eq(19).all()
    twin = scorecard(means, "twin", scores=("rmse", "crps"))
    undecided = twin.verdict == "undecided"
    assert undecided.mean() > 0.6 and ((twin.low < 0) & (twin.high > 0) == undecided).all()


def test_what_a_system_lacks_is_said(means):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        card = scorecard(means, "no surface", scores=("rmse", "acc"))
    told = card.groupby("channel").verdict.unique().map(list).to_dict()
    assert told == {"2m_temperature": ["no data"], "geopotential_500": ["no data"], "geopotential_850": ["better"]}
    assert card.dates[card.verdict == "no data"].eq(0).all()


def test_text_to_read(means):
    card = pd.concat([scorecard(means.sel(region="global", drop=True), name, scores="crps") for name in ("bad", "no surface")])
    table = as_text(card)
    assert table.index.names == ["system", "reference", "score", "channel"] and table.columns.tolist() == [6.0, 24.0]
    row = card[(card.reference == "bad") & (card.channel == "geopotential_850")].iloc[1]
    told = f"{100 * row.relative:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}] n=24"
    assert table.loc[("forecast", "bad", "crps", "geopotential_850"), 24.0] == told
    assert table.loc[("forecast", "no surface", "crps", "2m_temperature"), 6.0] == "no data"
    assert table.index.get_level_values("channel").tolist()[:3] == list(dict.fromkeys(card.channel))


def test_what_has_no_better_is_refused(means):
    for score in ("spread", "bias", "skill"):
        with refused(ConfigurationError, f"'{score}'", "rmse"):
            scorecard(means, "bad", scores=score)
    with refused(ConfigurationError, r"scores=\[\]"):
        scorecard(means, "bad", scores=())
    with refused(DataError, "'bad' against itself"):
        scorecard(means, "bad", system="bad")
    with refused(DataError, "'nobody'"):
        scorecard(means, "nobody")
