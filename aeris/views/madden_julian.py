"""The phase diagram of the Madden-Julian oscillation, as Wheeler and Hendon drew it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from aeris.errors import DataError
from aeris.views.slices import LEAD
from aeris.views.style import SYSTEMS, TRUTH, new_figure, time_text

REACH = 4.0
"""Both indices are drawn to this deviation, or farther where they go."""

PLACES = ("western hemisphere\nand Africa", "Indian Ocean", "Maritime Continent", "western Pacific")
"""Where convection is strong: phases 8 and 1 at the left, 2 and 3 below, 4 and 5 at the right, 6 and 7 above."""


def phase_figure(forecast: xr.DataArray, truth: xr.DataArray | None = None, time: np.datetime64 | None = None) -> Figure:
    """Members, their mean and the truth as paths in the plane of the two indices, from one initial time.

    The oscillation moves eastward against the clock; within the circle it is weak.

    Args:
        forecast: ``(time, number, prediction_timedelta, mode)``, from `aeris.verification.madden_julian.MaddenJulian.forecast_indices`.
        truth: ``(time, mode)``; drawn from the initial time to the last lead, where it is known.
        time: Initial time; the first where there is none.

    Returns:
        A matplotlib figure.

    Raises:
        DataError: There are not two modes.
    """
    if forecast.sizes.get("mode") != 2:
        raise DataError("There are not two modes", "A phase diagram has RMM1 and RMM2", "Join them with xr.concat(..., 'mode')")
    members = (forecast.isel(time=0) if time is None else forecast.sel(time=time)).transpose("number", LEAD, "mode")
    time = members.time.values
    colour = SYSTEMS["forecast"]["color"]
    figure = new_figure(5.4, 5.6)
    ax = figure.add_subplot()
    for member in members.values:
        ax.plot(*member.T, color=colour, linewidth=0.8, alpha=0.4)
    mean = members.mean("number").dropna(LEAD)
    ax.plot(*mean.values.T, color=colour, linewidth=2.2, label=f"mean of {members.sizes['number']} members")
    ax.plot(*mean.values[-1], "o", color=colour, markersize=5)
    reach = float(abs(members).max())
    if truth is not None:
        start = pd.Timestamp(time).normalize()
        happened = truth.transpose("time", "mode").sel(time=slice(start, start + pd.Timedelta(members[LEAD].values.max()))).dropna("time")
        ax.plot(*happened.values.T, label="truth", zorder=4, **TRUTH)
        ax.plot(*happened.values[:1].T, "s", color="black", markersize=5, label="start", zorder=5)
        reach = max(reach, float(abs(happened).max()))
    _frame(ax, max(REACH, 1.05 * reach))
    last = members[LEAD].values.max() / np.timedelta64(1, "D")
    ax.set_title(f"Madden-Julian oscillation, {last:g} days\nfrom {time_text(time)}", fontsize="medium")
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0.0, -0.11), ncols=3)
    return figure


def _frame(ax: Axes, reach: float) -> None:
    """Circle, borders and numbers of the phases, and what they stand for."""
    ax.add_patch(Circle((0, 0), 1.0, fill=False, color="0.5", linewidth=0.8))
    for angle in np.arange(8) * np.pi / 4:
        towards = np.array([np.cos(angle), np.sin(angle)])
        ax.plot(*np.outer(towards, [1.0, 2 * reach]), color="0.75", linewidth=0.8, linestyle="--", zorder=0)
    for phase in range(1, 9):
        angle = -np.pi + (phase - 0.5) * np.pi / 4
        ax.text(0.9 * reach * np.cos(angle), 0.9 * reach * np.sin(angle), str(phase), ha="center", va="center", color="0.4")
    sides = ((-0.94, 0.0, 90), (0.0, -0.94, 0), (0.94, 0.0, 270), (0.0, 0.94, 0))
    for text, (x, y, turn) in zip(PLACES, sides, strict=True):
        ax.text(x * reach, y * reach, text, rotation=turn, ha="center", va="center", color="0.4", fontsize="small")
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="RMM1", ylabel="RMM2")
