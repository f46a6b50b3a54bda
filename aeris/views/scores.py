"""A score against the lead, the forecast among its baselines."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from aeris.views.style import choose_level, hours, label_leads, new_figure, system_styles, variable_text, with_unit

_TITLES = {
    "rmse": "Root mean square error of the ensemble mean",
    "rmse_member": "Root mean square error of a member",
    "mae": "Mean absolute error of the ensemble mean",
    "bias": "Bias of the ensemble mean",
    "acc": "Anomaly correlation of the ensemble mean",
    "crps": "Fair continuous ranked probability score",
    "spread": "Ensemble spread",
    "spread_skill": "Spread over error, corrected for the ensemble size",
}
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
    ax.set_title(f"{_TITLES.get(score, score)}\n{variable_text(variable, level)}")
    label_leads(ax, field.prediction_timedelta.values)
    ax.set_ylabel(
        with_unit(
            score.upper() if score in ("rmse", "mae", "acc", "crps") else score.replace("spread_skill", "spread / error").replace("_", " "),
            field.attrs["units"],
        )
    )
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)
    return figure
