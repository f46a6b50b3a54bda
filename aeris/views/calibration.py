"""Rank histograms: where the truth falls among the members."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure

from aeris.views.style import choose_level, lead_text, new_figure, variable_text


def rank_figure(ranks: xr.Dataset, variable: str, level: int | None = None) -> Figure:
    """The rank histogram at each lead, beside the flat one of a perfect ensemble.

    Args:
        ranks: From `aeris.verification.calibration.rank_histogram`.
        variable: Its name.
        level: In hPa, where the variable stands on levels.

    Returns:
        A matplotlib figure.
    """
    frequency = choose_level(ranks[variable], level)
    leads, count = frequency.prediction_timedelta.values, frequency.sizes["rank"]
    figure = new_figure()
    ax = figure.add_subplot()
    for lead, colour in zip(leads, colormaps["viridis"](np.linspace(0.15, 0.85, len(leads))), strict=True):
        ax.stairs(
            frequency.sel(prediction_timedelta=lead),
            np.arange(count + 1) - 0.5,
            baseline=None,
            color=colour,
            linewidth=2,
            label=lead_text(lead),
        )
    ax.axhline(1 / count, color="black", linestyle="--", linewidth=1, label="perfect ensemble")
    ax.set_title(f"Rank of the truth among {count - 1} members\n{variable_text(variable, level)}")
    ax.set_xlabel("members below the truth")
    ax.set_ylabel("relative frequency")
    ax.set_ylim(bottom=0.0)
    ax.legend(frameon=False, fontsize="small")
    return figure
