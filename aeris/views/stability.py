"""Drift and stability of a long forecast: what the verdict was made of."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure

from aeris.views.slices import LEAD
from aeris.views.style import SYSTEMS, choose_level, new_figure, variable_text, with_unit


def stability_figure(verdict: xr.Dataset, variable: str, level: int | None = None) -> Figure:
    """Drift of the global mean in its unit, and below it departures of variance and power from the climate in standard errors.

    Args:
        verdict: From `aeris.verification.stability.stability`.
        variable: Its name.
        level: In hPa, where the variable stands on levels.

    Returns:
        A matplotlib figure; what is called stable is shaded. Values that are not finite are left out.
    """
    value, error, departure = (choose_level(verdict[f"{what}.{variable}"], level) for what in ("value", "error", "departure"))
    limit, days = float(verdict.limit), value[LEAD].values / np.timedelta64(1, "D")
    finite = departure.where(np.isfinite(departure))
    figure = new_figure(6.4, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.6])
    reach = limit * float(error.sel(statistic="mean"))
    mean = value.sel(statistic="mean").where(finite.sel(statistic="mean").notnull())
    upper.plot(days, mean, **SYSTEMS["forecast"], linewidth=2, markersize=4)
    upper.set_ylabel(with_unit("global mean", value.attrs["units"].partition(",")[0]))
    upper.axhspan(-reach, reach, color="0.9", zorder=0)
    lower.axhspan(-limit, limit, color="0.9", zorder=0, label="stable")
    lower.plot(days, finite.sel(statistic="variance"), color="black", linewidth=2, marker="s", markersize=4, label="variance")
    octaves = [name for name in value.statistic.values if name.startswith("power")]
    for name, colour in zip(octaves, colormaps["viridis"](np.linspace(0.1, 0.85, len(octaves))), strict=True):
        label = name.replace("power", "degree" if name == "power 1" else "degrees")
        lower.plot(days, finite.sel(statistic=name), color=colour, linewidth=1.4, marker="o", markersize=3, label=label)
    lower.set_ylabel("ln of power (standard errors)")
    lower.set_xlabel("lead (days)")
    lower.set_xlim(0, days.max() * 1.02)
    lower.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    for ax in (upper, lower):
        ax.axhline(0.0, color="black", linewidth=0.8)
        ax.grid(alpha=0.3)
    found = "stable" if bool(verdict[f"stable.{variable}"]) else "not stable"
    upper.set_title(f"Forecast less climate, window means: {found}\n{variable_text(variable, level)}", fontsize="medium")
    return figure
