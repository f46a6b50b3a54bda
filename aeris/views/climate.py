"""Pictures of the slow parts of a forecast: the plume of an index, and the Hovmöller diagram."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from aeris.errors import DataError
from aeris.verification.indices import plume_table
from aeris.views.slices import LEAD
from aeris.views.style import SYSTEMS, TRUTH, colour_scale, new_figure, time_text, units_of, with_unit

BEFORE = 0.3
"""How much of what came before a plume is drawn, as a part of its length."""


def index_figure(index: xr.DataArray, truth: xr.DataArray | None = None, time: np.datetime64 | None = None, title: str = "") -> Figure:
    """The plume of an index from one initial time: 5 to 95 %, 25 to 75 %, and the mean of the members, against the date.

    Args:
        index: ``(time, number, prediction_timedelta)``.
        truth: ``(time)``; drawn where it is known, and a little before the initial time.
        time: Initial time; the first where there is none.
        title: Instead of the name of the index.

    Returns:
        A matplotlib figure.

    Raises:
        DataError: A time of the truth is not known, or stands twice.
    """
    index = index.isel(time=[0]) if time is None else index.sel(time=[time])
    table, start = plume_table(index, truth), index.time.values[0]
    figure, colour = new_figure(), SYSTEMS["forecast"]["color"]
    ax = figure.add_subplot()
    for low, high, alpha in (("q5", "q95", 0.2), ("q25", "q75", 0.35)):
        label = f"{low[1:]} to {high[1:]} %"
        ax.fill_between(table.valid, table[low], table[high], color=colour, alpha=alpha, linewidth=0, label=label)
    ax.plot(table.valid, table["mean"], color=colour, linewidth=2.2, label=f"mean of {table.members.max()} members")
    if truth is not None:
        before = pd.Timestamp(start) - BEFORE * pd.Timedelta(index[LEAD].values.max())
        known = truth.sortby("time").sel(time=slice(before, table.valid.max()))
        ax.plot(known.time, known, label="truth", **TRUTH)
    ax.axvline(float(date2num(start)), color="0.5", linewidth=0.8, linestyle=":")
    ax.set_title(f"{title or index.attrs.get('long_name', index.name or 'index')}\nfrom {time_text(start)}")
    ax.set_ylabel(with_unit("index", index.attrs.get("units", "1")))
    locator = AutoDateLocator(maxticks=8)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    ax.legend(frameon=False, fontsize="small")
    ax.grid(alpha=0.3)
    return figure


def hovmoller_figure(diagram: xr.DataArray, title: str, kind: str = "difference", limits: tuple[float, float] | None = None) -> Figure:
    """A Hovmöller diagram: longitude to the right, the date or the lead upward.

    Args:
        diagram: ``(time, longitude)`` or ``(prediction_timedelta, longitude)``, from `aeris.verification.climate.hovmoller`; NaN is left
            grey. One member, or the mean of members.
        title: What it shows.
        kind: ``"difference"`` for anomalies, about zero; ``"value"`` else. See `aeris.views.style.colour_scale`.
        limits: Smallest and largest value of the colours; those of the diagram where there are none.

    Returns:
        A matplotlib figure.

    Raises:
        DataError: The diagram has other dimensions.
    """
    upward = next((dim for dim in ("time", LEAD) if set(diagram.dims) == {dim, "longitude"}), None)
    if upward is None:
        raise DataError(
            f"A diagram with the dimensions {diagram.dims}",
            "A Hovmöller diagram has longitude, and time or prediction_timedelta",
            "Choose a member and an initial time with isel, or average with mean('number')",
        )
    at = diagram[upward].values if upward == "time" else diagram[upward].values / np.timedelta64(1, "D")
    figure = new_figure(5.6, 5.2)
    ax = figure.add_subplot()
    ax.set_facecolor("0.85")
    values = diagram.transpose(upward, "longitude")
    shown = ax.pcolormesh(diagram.longitude, at, values, shading="nearest", rasterized=True, **colour_scale(diagram, kind, limits))
    if upward == "time":
        locator = AutoDateLocator(maxticks=10)
        ax.yaxis.set_major_locator(locator)
        ax.yaxis.set_major_formatter(ConciseDateFormatter(locator))
    else:
        ax.set_ylabel("lead (days)")
    ax.xaxis.set_major_locator(MultipleLocator(60))
    ax.set_xlabel("longitude (°E)")
    ax.set_title(title, fontsize="medium")
    bar = figure.colorbar(shown, ax=ax, orientation="horizontal", shrink=0.8, aspect=35)
    bar.set_label(with_unit("anomaly" if kind == "difference" else "value", units_of(diagram)))
    return figure
