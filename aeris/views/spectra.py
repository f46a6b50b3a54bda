"""Spectra of members against those of the truth, by spherical-harmonic degree."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from aeris.views.style import TRUTH, choose_level, lead_text, new_figure, variable_text, with_unit


def spectra_figure(spectra: xr.Dataset, variable: str, level: int | None = None) -> Figure:
    """Power of the forecast at each lead and of the truth, and below it their ratio.

    Args:
        spectra: From `aeris.verification.spectra.mean_power`.
        variable: Its name.
        level: In hPa, where the variable stands on levels.

    Returns:
        A matplotlib figure with logarithmic axes, from degree 1.
    """
    power = choose_level(spectra[variable], level).sel(degree=slice(1, None))
    truth = power.sel(system="truth")
    figure = new_figure(6.4, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
    leads = power.prediction_timedelta.values
    upper.loglog(power.degree, truth.mean("prediction_timedelta"), label="truth", zorder=3, **TRUTH)
    for lead, colour in zip(leads, colormaps["viridis"](np.linspace(0.15, 0.85, len(leads))), strict=True):
        forecast = power.sel(system="forecast", prediction_timedelta=lead)
        upper.loglog(power.degree, forecast, color=colour, linewidth=1.4, label=f"forecast, {lead_text(lead)}")
        lower.loglog(power.degree, forecast / truth.sel(prediction_timedelta=lead), color=colour, linewidth=1.4)
    lower.axhline(1.0, **TRUTH)
    upper.set_title(f"Power by spherical-harmonic degree\n{variable_text(variable, level)}")
    upper.set_ylabel(with_unit("power", power.attrs.get("units", "1")))
    upper.legend(frameon=False, fontsize="small", ncols=1 + len(leads) // 6)
    lower.set_ylabel("forecast / truth")
    lower.set_xlabel("spherical-harmonic degree")
    low, high = lower.get_ylim()
    lower.set_ylim(min(low, 0.5), max(high, 2.0))
    for axis in (lower.xaxis, lower.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    for ax in (upper, lower):
        ax.grid(alpha=0.3)
    return figure
