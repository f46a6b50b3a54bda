"""Plumes of indices, Hovmöller and phase diagrams, drift: what is drawn is what was computed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.dates import date2num

from aeris.errors import DataError
from aeris.verification.stability import stability
from aeris.views.climate import hovmoller_figure, index_figure
from aeris.views.madden_julian import phase_figure
from aeris.views.stability import stability_figure

LEAD = "prediction_timedelta"
DAYS = pd.date_range("2001-01-01", periods=60)


def lines(ax) -> dict[str, np.ndarray]:
    return {
        line.get_label(): np.column_stack([line.get_xdata(orig=False), line.get_ydata()])
        for line in ax.get_lines()
        if not line.get_label().startswith("_")
    }


@pytest.fixture
def index() -> xr.DataArray:
    coordinates = {"time": DAYS[[10, 20]], "number": np.arange(7), LEAD: pd.to_timedelta(np.arange(1, 31), unit="D")}
    values = np.random.default_rng(0).standard_normal((2, 7, 30))
    return xr.DataArray(values, coordinates, list(coordinates), "rmm1", {"units": "K", "long_name": "an index"})


def test_a_plume_of_an_index_holds_quantiles_mean_and_truth(index):
    truth = xr.DataArray(np.arange(60.0), {"time": DAYS}, ["time"])
    ax = index_figure(index, truth, DAYS[20]).axes[0]
    drawn = lines(ax)
    np.testing.assert_allclose(drawn["mean of 7 members"][:, 1], index.sel(time=DAYS[20]).mean("number"))
    np.testing.assert_allclose(ax.get_lines()[0].get_xdata(orig=False), date2num(DAYS[21:51]))
    np.testing.assert_array_equal(drawn["truth"][:, 1], np.arange(11, 51))  # nine days before the start, to the last lead
    for band, low, high in zip(ax.collections, (0.05, 0.25), (0.95, 0.75), strict=True):
        corners = band.get_paths()[0].vertices[:, 1]
        values = np.quantile(index.sel(time=DAYS[20]), [low, high], axis=0)
        assert corners.min() == pytest.approx(values[0].min()) and corners.max() == pytest.approx(values[1].max())
    assert ax.get_ylabel() == "index (K)" and ax.get_title() == "an index\nfrom 2001-01-21 00 UTC"
    assert "truth" not in lines(index_figure(index).axes[0])
    with pytest.raises(DataError, match="1 stand twice"):
        index_figure(index, truth.isel(time=[0, *range(60)]))


@pytest.mark.parametrize("upward", ["time", LEAD])
def test_a_hovmoller_diagram_stands_on_its_axes(upward):
    at = DAYS if upward == "time" else pd.to_timedelta(np.arange(1, 61), unit="D")
    values = np.random.default_rng(0).standard_normal((60, 12))
    diagram = xr.DataArray(values, {upward: at, "longitude": np.arange(12) * 30.0}, [upward, "longitude"], "u", {"units": "m s**-1"})
    figure = hovmoller_figure(diagram.transpose("longitude", upward), "title")
    ax, bar = figure.axes
    (mesh,) = ax.collections
    np.testing.assert_allclose(mesh.get_array(), values)
    assert mesh.norm.vmax == -mesh.norm.vmin == pytest.approx(abs(values).max())
    assert ax.get_xlim() == (-15, 345) and bar.get_xlabel() == "anomaly (m s⁻¹)"
    first = date2num(DAYS[0]) if upward == "time" else 1.0
    assert ax.get_ylim() == pytest.approx((first - 0.5, first + 59.5))
    with pytest.raises(DataError, match="Choose a member"):
        hovmoller_figure(diagram.expand_dims(number=[0]), "title")


def test_a_phase_diagram_holds_members_mean_and_truth(index):
    forecast = xr.concat([index, 5.0 + index], "mode")
    turn = 2 * np.pi * np.arange(60) / 48
    truth = xr.DataArray(np.stack([np.cos(turn), np.sin(turn)], 1), {"time": DAYS}, ["time", "mode"])
    ax = phase_figure(forecast, truth, DAYS[20]).axes[0]
    drawn = lines(ax)
    mean = forecast.sel(time=DAYS[20]).mean("number").transpose(LEAD, "mode")
    np.testing.assert_allclose(drawn["mean of 7 members"], mean)
    np.testing.assert_allclose(drawn["truth"], truth[20:51])
    np.testing.assert_allclose(drawn["start"], truth[20:21])
    low, high = ax.get_xlim()
    assert high == -low >= float(forecast.sel(time=DAYS[20]).max()) and ax.get_ylim() == (low, high)
    numbers = {text.get_text(): np.array(text.get_position()) for text in ax.texts if text.get_text().isdigit()}
    angles = [np.rad2deg(np.arctan2(*numbers[str(phase)][::-1])) for phase in range(1, 9)]
    np.testing.assert_allclose(angles, -157.5 + 45 * np.arange(8))
    with pytest.raises(DataError, match="RMM1 and RMM2"):
        phase_figure(index)


def test_drift_is_drawn_with_what_is_stable(forecast):
    """Of the departures that the verdict was made of, none is clipped."""
    rng = np.random.default_rng(0)
    grid = {name: forecast.truth[name] for name in ("latitude", "longitude")}
    times = pd.date_range("2001-01-01", periods=800)
    past = xr.Dataset({"2m_temperature": (("time", *grid), 280 + rng.standard_normal((800, 16, 32)))}, {"time": times, **grid})
    ahead = past.isel(time=slice(1, 31)).rename(time=LEAD).assign_coords({LEAD: pd.to_timedelta(np.arange(1, 31), unit="D")})
    fc = (ahead + 0.01 * np.arange(30)[:, None, None]).expand_dims(time=times[:1], number=[0])
    verdict = stability(fc, past)
    upper, lower = stability_figure(verdict, "2m_temperature").axes
    assert "not stable" in upper.get_title() and upper.get_ylabel() == "global mean (K)"
    np.testing.assert_allclose(upper.get_lines()[0].get_ydata(), verdict["value.2m_temperature"].sel(statistic="mean"))
    drawn = lines(lower)
    assert list(drawn) == ["variance", "degree 1", "degrees 2-3", "degrees 4-7", "degrees 8-11"]
    for label, statistic in {"variance": "variance", "degrees 4-7": "power 4-7"}.items():
        np.testing.assert_allclose(drawn[label][:, 0], [10, 20, 30])
        np.testing.assert_allclose(drawn[label][:, 1], verdict["departure.2m_temperature"].sel(statistic=statistic))
    low, high = lower.get_ylim()
    assert low <= -float(verdict.limit) and high >= float(verdict.limit)
