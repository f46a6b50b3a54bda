"""Curves and diagrams beside the map: the plume, spectra, the Hovmöller diagram, extremes, spread and error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import colormaps
from matplotlib.colors import to_hex

from aeris.views.ensemble_statistics import quantiles
from aeris.views.interactive_maps import palette
from aeris.views.slices import LEAD
from aeris.views.style import SYSTEMS, hours, lead_text, unit_text, with_unit

FORECAST = SYSTEMS["forecast"]["color"]
ORANGE = "#D55E00"
SIZE: dict[str, Any] = {"width": 620, "height": 420, "fontsize": {"title": "11pt"}, "show_grid": True}
LEAD_LABEL = "lead (h)"


def plume(members: xr.DataArray, happened: xr.DataArray | None, title: str, lead: hv.streams.Pipe | None = None) -> hv.Overlay:
    """Members, their quantiles and mean, and the truth, against the lead.

    Args:
        members: ``(number, prediction_timedelta)``; NaN where a member is not there.
        happened: The truth ``(prediction_timedelta,)``; NaN where it is not known.
        title: What it shows.
        lead: Sends the lead to mark, in hours.

    Returns:
        A HoloViews overlay.
    """
    end, members = 1.02 * float(hours(members[LEAD].values.max())), members.dropna(LEAD, how="all")
    at, label = hours(members[LEAD].values), with_unit("value", members.attrs.get("units", "1"))
    band = quantiles(members, (0.1, 0.25, 0.75, 0.9)).values
    layers = [
        hv.Area((at, band[0], band[3]), LEAD_LABEL, [label, "upper"], label="10 to 90 %").opts(color=FORECAST, alpha=0.15, line_alpha=0),
        hv.Area((at, band[1], band[2]), LEAD_LABEL, [label, "upper"], label="25 to 75 %").opts(color=FORECAST, alpha=0.25, line_alpha=0),
        _lines(at, members.values, LEAD_LABEL, label, "members"),
        hv.Curve((at, members.mean("number").values), LEAD_LABEL, label, label="mean").opts(color=FORECAST, line_width=3),
    ]
    if happened is not None and bool(happened.notnull().any()):
        layers.append(_truth(hours(happened[LEAD].values), happened.values, LEAD_LABEL, label))
    if lead is not None:
        layers.append(hv.DynamicMap(_lead_line, streams=[lead]))
    return hv.Overlay(layers).collate().opts(title=title, xlim=(0.0, end), legend_position="right", **SIZE)


ACROSS = {"wavenumber": "zonal wavenumber", "degree": "spherical-harmonic degree"}
"""What the axis of a spectrum is called, by its dimension."""


SCALES = [*(1, 2, 3, 5, 10, 20, 30, 50), *(100, 200, 300, 500)]
"""Wavenumbers or degrees that an axis names."""


def spectra(powers: xr.DataArray, of_mean: xr.DataArray, of_truth: xr.DataArray | None, units: str, title: str) -> hv.Overlay:
    """Power of the members, of their mean and of the truth, both axes logarithmic, from wavenumber or degree 1.

    Args:
        powers: ``(number, wavenumber)`` or ``(number, degree)``.
        of_mean: Power of the ensemble mean ``(wavenumber,)``, which loses what the members do not agree on.
        of_truth: Power of the truth ``(wavenumber,)``.
        units: Unit of the field.
        title: What it shows.

    Returns:
        A HoloViews overlay.
    """
    label = with_unit("power", f"{units}**2" if units.isalpha() else f"({unit_text(units)})²" if units != "1" else "1")
    dim = str(of_mean.dims[0])
    k, scales, average = ACROSS[dim], of_mean[dim].values[1:], powers.mean("number").values[1:]
    layers = [
        _lines(scales, powers.transpose("number", dim).values[:, 1:], k, label, "members"),
        hv.Curve((scales, average), k, label, label="mean of the members' power").opts(color=FORECAST, line_width=3),
        hv.Curve((scales, of_mean.values[1:]), k, label, label="power of the ensemble mean").opts(
            color=ORANGE, line_dash="dashed", line_width=2
        ),
    ]
    if of_truth is not None:
        layers.append(_truth(of_truth[dim].values[1:], of_truth.values[1:], k, label))
    about = {**SIZE, "xticks": SCALES, "legend_position": "bottom", "legend_cols": 2}
    return hv.Overlay(layers).opts(title=title, logx=True, logy=True, **about)


def power_ratios(ratios: xr.DataArray, title: str) -> hv.Overlay:
    """Power over that of something else, a colour for each lead, both axes logarithmic, from wavenumber or degree 1.

    Args:
        ratios: ``(prediction_timedelta, wavenumber)`` or ``(prediction_timedelta, degree)``.
        title: What it shows.

    Returns:
        A HoloViews overlay with a line at one.
    """
    dim = next(str(name) for name in ratios.dims if name != LEAD)
    curves = [
        hv.Curve((row[dim].values[1:], row.values[1:]), label=lead_text(row[LEAD].values)).opts(color=colour, line_width=2)
        for row, colour in zip(ratios.transpose(LEAD, dim), lead_colours(ratios.sizes[LEAD]), strict=True)
    ]
    one = hv.HLine(1.0).opts(color="black", line_width=1)
    drawn = ratios.isel({dim: slice(1, None)})
    reach = min(0.5, float(drawn.min()) / 1.1), max(2.0, float(drawn.max()) * 1.1)
    about = {**SIZE, "height": 300, "xticks": SCALES, "xlabel": ACROSS[dim], "ylabel": "ratio of power", "legend_position": "right"}
    return hv.Overlay([one, *curves]).opts(title=title, logx=True, logy=True, ylim=reach, **about)


def lead_colours(count: int) -> list[str]:
    """Colours from the first lead to the last, even in brightness."""
    return [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0.1, 0.85, count))]


def skill_curves(scores: xr.Dataset, units: str, title: str, lead: hv.streams.Pipe) -> hv.Overlay:
    """Spread and error of an ensemble against the lead.

    Args:
        scores: ``spread`` and ``rmse``, each ``(prediction_timedelta,)``.
        units: Unit of the variable.
        title: What it shows.
        lead: Sends the lead to mark, in hours.

    Returns:
        A HoloViews overlay.
    """
    at, label = hours(scores[LEAD].values), with_unit("spread, error", units)
    layers = [
        _marked(at, scores["rmse"].values, label, "RMSE of the mean", ORANGE, "square"),
        _marked(at, scores["spread"].values, label, "spread", FORECAST, "circle"),
        hv.DynamicMap(_lead_line, streams=[lead]),
    ]
    return (
        hv.Overlay(layers).collate().opts(title=title, ylim=(0.0, None), padding=0.05, legend_position="right", **{**SIZE, "height": 300})
    )


def ratio_curve(ratio: xr.DataArray, title: str, lead: hv.streams.Pipe) -> hv.Overlay:
    """Spread over error ``(prediction_timedelta,)``, beside the one of a perfect ensemble."""
    layers = [
        hv.HLine(1.0).opts(color="black", line_width=1),
        _marked(hours(ratio[LEAD].values), ratio.values, "spread / error", "", FORECAST, "circle"),
        hv.DynamicMap(_lead_line, streams=[lead]),
    ]
    about = {**SIZE, "height": 240, "xlabel": LEAD_LABEL, "ylabel": "spread / error", "show_legend": False}
    return hv.Overlay(layers).collate().opts(title=title, ylim=(0.0, max(1.2, 1.1 * float(ratio.max()))), padding=0.05, **about)


def rank_bars(frequency: np.ndarray, title: str) -> hv.Overlay:
    """The relative frequency of each rank of the truth among the members, beside the flat one of a perfect ensemble."""
    edges = np.arange(len(frequency) + 1) - 0.5
    bars = hv.Histogram((edges, frequency), kdims="members below the truth", vdims="relative frequency")
    flat = hv.HLine(1 / len(frequency)).opts(color="black", line_dash="dashed", line_width=2)
    return (bars.opts(color=FORECAST, alpha=0.6, line_color="white", tools=["hover"]) * flat).opts(
        title=title, ylim=(0.0, 1.1 * max(float(np.max(frequency)), 2 / len(frequency))), **{**SIZE, "height": 280}
    )


def hovmoller(field: xr.DataArray, scale: dict[str, Any], label: str, title: str) -> hv.Image:
    """The Hovmöller diagram: longitude to the right, lead upward.

    Args:
        field: ``(prediction_timedelta, longitude)``.
        scale: ``cmap``, ``vmin`` and ``vmax``.
        label: What the colour bar says.
        title: What it shows.

    Returns:
        A HoloViews image; where leads are unevenly spaced each row shows the lead nearest to it.
    """
    even = _even_leads(field)
    at, east = hours(even[LEAD].values), even.longitude.values
    step, width = float(hours(_step(even[LEAD].values))), 360.0 / len(east)
    bounds = (east[0] - width / 2, at[0] - step / 2, east[-1] + width / 2, at[-1] + step / 2)
    image = hv.Image(even.values[::-1], ["longitude (°E)", LEAD_LABEL], [hv.Dimension("value", label=label)], bounds=bounds)
    return image.opts(
        cmap=palette(scale["cmap"]),
        clim=(scale["vmin"], scale["vmax"]),
        clipping_colors={"NaN": "#d9d9d9"},
        colorbar=True,
        clabel=label,
        ylim=(bounds[1], bounds[3]),
        tools=["hover"],
        title=title,
        **SIZE,
    )


def exceedance_curve(probability: xr.DataArray, title: str) -> hv.Curve:
    """The probability ``(prediction_timedelta,)`` of exceeding a threshold, against the lead."""
    curve = hv.Curve((hours(probability[LEAD].values), probability.values), LEAD_LABEL, "probability")
    return curve.opts(title=title, ylim=(-0.02, 1.02), color=FORECAST, line_width=3, tools=["hover"], **{**SIZE, "height": 260})


def daily_maxima_diagram(maxima: xr.DataArray, threshold: float, title: str) -> hv.Overlay:
    """The members' maxima ``(number, day)`` of each day, and the threshold.

    Args:
        maxima: As from `aeris.views.ensemble_statistics.daily_maxima`.
        threshold: In its unit.
        title: What it shows.

    Returns:
        A HoloViews overlay of a box for each day; its whiskers reach 1.5 times the height of the box.
    """
    label = with_unit("maximum of the day", maxima.attrs.get("units", "1"))
    days = pd.DatetimeIndex(maxima.day.values).strftime("%m-%d")
    known = maxima.notnull().values
    table = {"day (UTC)": np.broadcast_to(days, maxima.shape)[known], label: maxima.values[known]}
    boxes = hv.BoxWhisker(table, "day (UTC)", label).opts(box_color=FORECAST, box_alpha=0.4, outlier_color=FORECAST)
    line = hv.HLine(threshold).opts(color=ORANGE, line_dash="dashed", line_width=2)
    return (boxes * line).opts(title=title, **{**SIZE, "height": 300})


def days_table(days: xr.Dataset, leads: xr.DataArray, units: str) -> pd.DataFrame:
    """The days from `aeris.views.ensemble_statistics.hottest_days`, as a table for readers.

    Args:
        days: The days.
        leads: Leads of each day, ``(day,)``.
        units: Unit of the variable.

    Returns:
        One row a day, the highest expected maximum first.
    """
    columns = {with_unit(name, units): days[name].values for name in ("mean", "lowest", "highest")}
    shares = {"probability": days["probability"].values, "leads": leads.sel(day=days.day).values}
    return pd.DataFrame({**columns, **shares}, index=pd.DatetimeIndex(days.day.values, name="day (UTC)").strftime("%Y-%m-%d"))


def _lines(x: np.ndarray, rows: np.ndarray, across: str, up: str, label: str) -> hv.Path:
    """One thin line for each row, in a single glyph; rows without a value are left out."""
    lines = [np.column_stack([x, row]) for row in rows if np.isfinite(row).any()]
    return hv.Path(lines, [across, up], label=label).opts(color=FORECAST, alpha=0.45, line_width=0.8, show_legend=True)


def _marked(at: np.ndarray, values: np.ndarray, up: str, label: str, colour: str, marker: str) -> hv.Overlay:
    """A line with a point at each value."""
    curve = hv.Curve((at, values), LEAD_LABEL, up, label=label).opts(color=colour, line_width=2)
    return curve * hv.Scatter((at, values), LEAD_LABEL, up, label=label).opts(color=colour, marker=marker, size=6, tools=["hover"])


def _truth(x: np.ndarray, values: np.ndarray, across: str, up: str) -> hv.Curve:
    known = np.isfinite(values)
    return hv.Curve((x[known], values[known]), across, up, label="truth").opts(color="black", line_width=2)


def _lead_line(data: float) -> hv.VLine:
    return hv.VLine(data).opts(color="#7F7F7F", line_dash="dashed", line_width=1)


def _step(leads: np.ndarray) -> np.timedelta64:
    """The largest step of which all differences of leads are multiples; the lead itself where there is but one."""
    spaced = leads.astype("timedelta64[ns]").astype("int64")
    gaps: Sequence[int] = np.diff(spaced).tolist() or spaced.tolist()
    return np.timedelta64(int(np.gcd.reduce(gaps)), "ns")


def _even_leads(field: xr.DataArray) -> xr.DataArray:
    leads = field[LEAD].values
    step = _step(leads)
    return field.sel({LEAD: np.arange(leads[0], leads[-1] + step, step)}, method="nearest")
