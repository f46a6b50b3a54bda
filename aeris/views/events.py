"""Events: skill of their probabilities against the lead, and whether these are reliable."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure

from aeris.verification.events import base_rate, brier_skill, reliability_diagram
from aeris.views.style import choose_level, hours, label_leads, lead_text, new_figure, unit_text, variable_text


def brier_figure(table: xr.Dataset, variable: str, level: int | None = None) -> Figure:
    """Brier skill against the base rate by lead, a line for each threshold.

    Args:
        table: From `aeris.verification.events.event_table`.
        variable: Its name.
        level: In hPa, where the variable stands on levels.

    Returns:
        A matplotlib figure. A threshold that is never crossed, or always, has no skill and is named in the legend.
    """
    skill, rate = (choose_level(score(table[[variable]])[variable], level) for score in (brier_skill, base_rate))
    figure = new_figure()
    ax = figure.add_subplot()
    for limit, colour in zip(skill.threshold.values, _colours(skill.sizes["threshold"]), strict=True):
        values, often = skill.sel(threshold=limit), float(rate.sel(threshold=limit).mean())
        text = f"{_event(table, variable, limit)}, {often:.2g} of the area"
        ax.plot(hours(values.prediction_timedelta.values), values, color=colour, marker="o", linewidth=2, markersize=4, label=text)
    ax.axhline(0.0, color="black", linewidth=0.8)
    ax.set_title(f"Brier skill against the base rate\n{variable_text(variable, level)}")
    label_leads(ax, skill.prediction_timedelta.values)
    ax.set_ylabel("Brier skill, 1 is perfect")
    low = float(np.nanmin([0.0, *skill.values.ravel()]))
    ax.set_ylim(max(low - 0.05, -1.0), 1.05)
    ax.legend(frameon=False, fontsize="small")
    ax.grid(alpha=0.3)
    return figure


def reliability_figure(table: xr.Dataset, variable: str, level: int | None = None, threshold: float | None = None) -> Figure:
    """How often an event came when it was given each probability, for a few leads; a reliable forecast lies on the diagonal.

    Args:
        table: From `aeris.verification.events.event_table`.
        variable: Its name.
        level: In hPa, where the variable stands on levels.
        threshold: Which of its thresholds; None takes the first.

    Returns:
        A matplotlib figure; below the diagram, how often each probability was given.
    """
    limit = table[variable].threshold.values[0] if threshold is None else threshold
    diagram = reliability_diagram(table[[variable]].sel(threshold=limit))
    came, used = (choose_level(diagram[f"{part}.{variable}"], level) for part in ("came", "used"))
    leads = came.prediction_timedelta.values[sorted({0, came.sizes["prediction_timedelta"] // 2, came.sizes["prediction_timedelta"] - 1})]
    figure = new_figure(6.4, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="reliable")
    for lead, colour in zip(leads, _colours(len(leads)), strict=True):
        at = {"prediction_timedelta": lead}
        upper.plot(came.probability, came.sel(at), color=colour, marker="o", markersize=4, linewidth=1.6, label=lead_text(lead))
        lower.plot(used.probability, used.sel(at).where(used.sel(at) > 0), color=colour, marker="o", markersize=3, linewidth=1.2)
    upper.set_title(f"Reliability: {_event(table, variable, limit)}\n{variable_text(variable, level)}")
    upper.set_ylabel("how often it came")
    upper.set_ylim(-0.02, 1.02)
    upper.legend(frameon=False, fontsize="small")
    lower.set_yscale("log")
    lower.set_ylabel("how often given")
    lower.set_xlabel("probability that was given")
    for ax in (upper, lower):
        ax.grid(alpha=0.3)
    return figure


def _event(table: xr.Dataset, variable: str, limit: float) -> str:
    about = table[variable].attrs
    return f"{about['event']} {limit:g} {unit_text(about['threshold_units'])}".strip()


def _colours(count: int) -> np.ndarray:
    return colormaps["viridis"](np.linspace(0.1, 0.85, count))
