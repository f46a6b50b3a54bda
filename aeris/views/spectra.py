"""Spectra of members against those of the truth, and how coherent both are, by spherical-harmonic degree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
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
    upper.loglog(power.degree, truth.mean("prediction_timedelta"), label="truth", zorder=3, **TRUTH)
    for lead, colour in _colours(power):
        forecast = power.sel(system="forecast", prediction_timedelta=lead)
        upper.loglog(power.degree, forecast, color=colour, linewidth=1.4, label=f"forecast, {lead_text(lead)}")
        lower.loglog(power.degree, forecast / truth.sel(prediction_timedelta=lead), color=colour, linewidth=1.4)
    lower.axhline(1.0, **TRUTH)
    upper.set_title(f"Power by spherical-harmonic degree\n{variable_text(variable, level)}")
    upper.set_ylabel(with_unit("power", power.attrs.get("units", "1")))
    upper.legend(frameon=False, fontsize="small", ncols=1 + power.sizes["prediction_timedelta"] // 6)
    _finish(upper, lower)
    return figure


def kinetic_energy_figure(energies: xr.Dataset, level: int | None = None) -> Figure:
    """Kinetic energy of the forecast at each lead and of the truth, its rotational and its divergent part, and below their ratios.

    Args:
        energies: From `aeris.verification.kinetic_energy.mean_kinetic_energy`.
        level: In hPa; without one, the energy at 10 m.

    Returns:
        A matplotlib figure with logarithmic axes, from degree 1. Rotational parts are drawn through, divergent parts dashed.
    """
    name = "10m_kinetic_energy" if level is None else "kinetic_energy"
    energy = choose_level(energies[name], level).sel(degree=slice(1, None))
    figure = new_figure(6.4, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
    smallest = _FAINT * float(energy.max())
    for part, dashes in _PARTS.items():
        truth, forecast = (energy.sel(system=system, part=part) for system in ("truth", "forecast"))
        label = {"rotational": "truth", "divergent": None}[part]
        upper.loglog(energy.degree, truth.mean("prediction_timedelta"), zorder=3, label=label, **(TRUTH | {"linestyle": dashes}))
        for lead, colour in _colours(energy):
            line: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.4}
            at = forecast.sel(prediction_timedelta=lead)
            upper.loglog(energy.degree, at, label=f"forecast, {lead_text(lead)}" if label else None, **line)
            lower.loglog(energy.degree, at / truth.sel(prediction_timedelta=lead).where(lambda known: known > smallest), **line)
        upper.plot([], [], color="grey", linestyle=dashes, label=part)
    upper.set_ylim(bottom=max(upper.get_ylim()[0], smallest))
    lower.axhline(1.0, color="black", linewidth=0.8)
    where = "at 10 m" if level is None else f"at {level} hPa"
    upper.set_title(f"Kinetic energy by spherical-harmonic degree\nrotational and divergent wind {where}")
    upper.set_ylabel(with_unit("energy per mass", energy.attrs["units"]))
    upper.legend(frameon=False, fontsize="small", ncols=1 + energy.sizes["prediction_timedelta"] // 4)
    _finish(upper, lower)
    return figure


def coherence_figure(coherence: xr.Dataset, variable: str, level: int | None = None) -> Figure:
    """Coherence of members and of their mean with the truth at each lead.

    Args:
        coherence: From `aeris.verification.coherence.coherence`.
        variable: Its name.
        level: In hPa, where the variable stands on levels.

    Returns:
        A matplotlib figure, from degree 1. The mean is drawn through, members dashed.
    """
    field = choose_level(coherence[variable], level).sel(degree=slice(1, None))
    figure = new_figure()
    ax = figure.add_subplot()
    for lead, colour in _colours(field):
        at = field.sel(prediction_timedelta=lead)
        ax.semilogx(field.degree, at.sel(system="mean"), color=colour, linewidth=1.6, label=lead_text(lead))
        ax.semilogx(field.degree, at.sel(system="members"), color=colour, linewidth=1.2, linestyle="--")
    for name, dashes in (("ensemble mean", "-"), ("members", "--")):
        ax.plot([], [], color="grey", linestyle=dashes, label=name)
    ax.axhline(0.0, color="black", linewidth=0.8)
    ax.set_ylim(min(-0.05, float(field.min())), 1.02)
    ax.set_title(f"Coherence with the truth by spherical-harmonic degree\n{variable_text(variable, level)}")
    ax.set_ylabel("coherence")
    ax.legend(frameon=False, fontsize="small")
    _label_degrees(ax)
    return figure


_PARTS = {"rotational": "-", "divergent": (0, (4, 2))}
_FAINT = 1e-7
"""Share of the largest energy below which nothing is shown: what a wind without divergence has of it is rounding."""


def _colours(field: xr.DataArray) -> Iterator[tuple[np.timedelta64, Any]]:
    """The leads of a field, and a colour for each."""
    leads = field.prediction_timedelta.values
    return zip(leads, colormaps["viridis"](np.linspace(0.15, 0.85, len(leads))), strict=True)


def _finish(upper: Axes, lower: Axes) -> None:
    """Labels of a spectrum and of the ratio below it."""
    lower.set_ylabel("forecast / truth")
    low, high = lower.get_ylim()
    lower.set_ylim(min(low, 0.5), max(high, 2.0))
    lower.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    lower.yaxis.set_major_formatter("{x:g}")
    lower.yaxis.set_minor_formatter(NullFormatter())
    _label_degrees(lower)
    upper.grid(alpha=0.3)


def _label_degrees(ax: Axes) -> None:
    ax.set_xlabel("spherical-harmonic degree")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.3)
