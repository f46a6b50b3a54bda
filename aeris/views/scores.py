"""A score against the lead, the forecast among its baselines."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from aeris.views.style import OKABE_ITO, choose_level, hours, label_leads, new_figure, system_styles, variable_text, with_unit

TITLES = {
    "rmse": "Root mean square error of the ensemble mean",
    "rmse_debiased": "Error of the ensemble mean, freed of what a small ensemble adds",
    "energy_score": "Energy score of the whole field",
    "rmse_member": "Root mean square error of a member",
    "mae": "Mean absolute error of the ensemble mean",
    "bias": "Bias of the ensemble mean",
    "acc": "Anomaly correlation of the ensemble mean",
    "crps": "Fair continuous ranked probability score",
    "spread": "Ensemble spread",
    "spread_skill": "Spread over error, corrected for the ensemble size",
}
"""What scores are called."""

_IDEAL = {"bias": 0.0, "acc": 1.0, "spread_skill": 1.0}


def score_figure(scores: xr.Dataset, score: str, variable: str, level: int | None = None) -> Figure:
    """One score of one variable against the lead, a line for each system.

    Args:
        scores: From `aeris.verify`.
        score: For example ``"crps"``.
        variable: Its name.
        level: In hPa, where the variable stands on levels.

    Returns:
        A matplotlib figure. A system without this score, as a single forecast has no spread, is left out.
    """
    field = choose_level(scores[f"{score}.{variable}"], level)
    lead = hours(field.prediction_timedelta.values)
    figure = new_figure()
    ax = figure.add_subplot()
    for system, style in system_styles([str(name) for name in field.system.values]).items():
        values = field.sel(system=system)
        if values.notnull().any():
            ax.plot(lead, values, **style, linewidth=2, markersize=5, label=system)
    if score in _IDEAL:
        ax.axhline(_IDEAL[score], color="black", linewidth=0.8)
    if score != "bias":
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.set_title(f"{TITLES.get(score, score)}\n{variable_text(variable, level)}")
    label_leads(ax, field.prediction_timedelta.values)
    ax.set_ylabel(_label(score, field.attrs["units"]))
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)
    return figure


def parts_figure(scores: xr.Dataset, score: str, variable: str, level: int | None = None, dim: str = "region") -> Figure:
    """One score of the first system against the lead, a line for each region or season.

    Args:
        scores: From `aeris.verify`, with several regions or seasons.
        score: For example ``"crps"``.
        variable: Its name.
        level: In hPa, where the variable stands on levels.
        dim: ``"region"`` or ``"season"``.

    Returns:
        A matplotlib figure.
    """
    field = choose_level(scores[f"{score}.{variable}"], level).isel(system=0)
    figure = new_figure()
    ax = figure.add_subplot()
    colours, lines = OKABE_ITO[:-1], ("-", "--", "-.", ":")
    for number, part in enumerate(map(str, field[dim].values)):
        colour, line = colours[number % len(colours)], lines[number // len(colours) % len(lines)]
        values = field.sel({dim: part})
        ax.plot(hours(field.prediction_timedelta.values), values, marker="o", markersize=3, label=part, color=colour, linestyle=line)
    if score in _IDEAL:
        ax.axhline(_IDEAL[score], color="black", linewidth=0.8)
    if score != "bias":
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.set_title(f"{TITLES.get(score, score)} by {dim}\n{variable_text(variable, level)}")
    label_leads(ax, field.prediction_timedelta.values)
    ax.set_ylabel(_label(score, field.attrs["units"]))
    ax.legend(frameon=False, fontsize="small", ncols=1 + field.sizes[dim] // 6)
    ax.grid(alpha=0.3)
    return figure


def _label(score: str, units: str) -> str:
    short = score.upper() if score in ("rmse", "mae", "acc", "crps") else score.replace("spread_skill", "spread / error").replace("_", " ")
    return with_unit(short, units)
