"""The picture of a scorecard: channels against leads, blue where a system is better than the reference, orange where it is worse."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aeris.errors import DataError
from aeris.views.style import lead_text, new_figure, variable_text

COLOURS = LinearSegmentedColormap.from_list("verdict", ["#0072B2", "#F7F7F7", "#D55E00"])
"""From better to worse: two colours of Okabe and Ito, which stay apart for colour-blind readers."""

MARKS = {"better": "▲", "worse": "▼", "undecided": "", "no data": "–"}
"""What tells a verdict without colour."""

LEAST_REACH = 0.01
"""Smallest relative difference at the end of the colours, so that differences of nothing look like nothing."""

MOST_NUMBERS = 12
"""Leads of a panel up to which numbers are written into its cells."""

TENTHS = 0.05
"""Relative difference at the end of the colours below which numbers have a decimal."""

_NAMES = {
    "rmse": "RMSE",
    "rmse_debiased": "RMSE, debiased",
    "rmse_member": "RMSE of a member",
    "mae": "MAE",
    "acc": "1 − ACC",
    "crps": "CRPS",
    "energy_score": "energy score",
    "spread_skill": "factor between\nspread and error",
}


def scorecard_figure(card: pd.DataFrame) -> Figure:
    """Draws a scorecard: a panel for each score (and pair of systems and region), a row for each channel, a column for each lead.

    Colour is the relative difference, with the same scale everywhere. A triangle says that the interval lies on one side of zero: up for
    better, down for worse. The colours end at the 90th percentile of the differences; cells beyond have the colour of the end.

    Args:
        card: From `aeris.verification.scorecard.scorecard`, or several of them put together.

    Returns:
        A matplotlib figure.

    Raises:
        DataError: The card has no row.
    """
    if card.empty:
        raise DataError("A scorecard without rows", "A picture needs at least one comparison", "Choose other rows")
    keys = [name for name in ("system", "reference", "region", "score") if name in card]
    panels, channels, reach = list(card.groupby(keys, sort=False)), card.channel.drop_duplicates().tolist(), _reach(card)
    widths = [panel.lead.nunique() for _, panel in panels]
    figure = new_figure(3.4 + 0.62 * sum(widths) + 0.25 * len(panels), 2.0 + 0.3 * len(channels))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=widths)[0]
    pairs = (card.system + " against " + card.reference).unique()
    if len(pairs) == 1:
        figure.suptitle(pairs[0])
    for ax, ((system, reference, *region, score), panel) in zip(axes, panels, strict=True):
        _draw_panel(ax, panel, channels, reach)
        pair = [f"{system} against {reference}"] if len(pairs) > 1 else []
        ax.set_title("\n".join([*pair, *region, _NAMES.get(score, score)]), fontsize="medium")
    axes[0].set_yticks(np.arange(len(channels)) + 0.5, [_row_text(card, channel) for channel in channels])
    figure.supxlabel(f"lead\n{_caption(card)}", fontsize="medium")
    shades = ScalarMappable(Normalize(-100 * reach, 100 * reach), COLOURS)
    ticks = MaxNLocator(7, steps=[1, 2, 5, 10], integer=reach >= TENTHS)  # others would be rounded
    bar = figure.colorbar(
        shades, ax=axes.tolist(), extend="both", fraction=0.05, pad=0.02, ticks=ticks, format=lambda per, _: _signed(per, reach)
    )
    bar.set_label("relative difference (%)\nbetter  ←  0  →  worse")
    return figure


def _reach(card: pd.DataFrame) -> float:
    """The relative difference at the end of the colours."""
    sizes = abs(card.relative[np.isfinite(card.relative)])
    return max(LEAST_REACH, float(sizes.quantile(0.9))) if len(sizes) else LEAST_REACH


def _draw_panel(ax: Axes, panel: pd.DataFrame, channels: list[str], reach: float) -> None:
    leads = np.sort(panel.lead.unique())
    values = np.full((len(channels), len(leads)), np.nan)
    places = list(zip(panel.channel.map(channels.index), np.searchsorted(leads, panel.lead), panel.itertuples(), strict=True))
    for row, column, one in places:
        values[row, column] = min(one.relative, 2 * reach)  # matplotlib masks what is infinite
    ax.set_facecolor("0.85")
    ax.pcolormesh(values, cmap=COLOURS, norm=Normalize(-reach, reach), edgecolors="white", linewidth=1.0)
    for row, column, one in places:
        number = _signed(100 * one.relative, reach) if one.verdict != "no data" and len(leads) <= MOST_NUMBERS else ""
        dark = abs(one.relative) > 0.75 * reach
        text = f"{MARKS[one.verdict]} {number}".strip()
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize="small", color="white" if dark else "black")
    ax.set_xticks(np.arange(len(leads)) + 0.5, [lead_text(lead) for lead in leads], rotation=0 if len(leads) <= MOST_NUMBERS else 90)
    ax.set_yticks(np.arange(len(channels)) + 0.5)
    ax.set_ylim(len(channels), 0)
    ax.tick_params(length=0)


def _signed(number: float, reach: float) -> str:
    """Per cent with their sign, zero without one, with the minus that is as wide as the plus; a decimal where all are small."""
    if np.isinf(number):
        return "+∞"
    text = f"{number:+.{0 if reach >= TENTHS else 1}f}".replace("-", "−")
    return text if text.strip("+−0.") else "0"


def _row_text(card: pd.DataFrame, channel: str) -> str:
    row = card[card.channel == channel].iloc[0]
    return variable_text(row.variable, None if pd.isna(row.level) else int(row.level))


def _caption(card: pd.DataFrame) -> str:
    known = card[card.verdict != "no data"]
    fewest, most = (known.dates.min(), known.dates.max()) if len(known) else (0, 0)
    dates = f"{fewest} initial times" if fewest == most else f"{fewest} to {most} initial times"
    confidence = " or ".join(f"{100 * one:g} %" for one in card.confidence.unique())
    missing = "; –: no data" if (card.verdict == "no data").any() else ""
    return f"▲ better, ▼ worse: the {confidence} interval lies on that side of zero{missing}; {dates}"
