"""The course of a training, as its logbook tells it."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from aeris.views.style import SYSTEMS, NotebookFigure, new_figure

LABELS = {"loss": "loss", "grad_norm": "gradient norm", "lr": "step size", "samples_per_second": "samples s⁻¹"}


def loss_figure(logbook: xr.Dataset) -> Figure:
    """Loss and gradient norm of every step, and their running means.

    Args:
        logbook: ``run.logbook``.

    Returns:
        A matplotlib figure.
    """
    figure = new_figure(6.4, 4.4)
    for ax, name in zip(figure.subplots(2, 1, sharex=True), ("loss", "grad_norm"), strict=True):
        _draw_curve(ax, logbook[name])
    _explain(figure, logbook)
    return figure


def training_figure(logbook: xr.Dataset) -> NotebookFigure:
    """Loss, gradient norm, step size and speed of every step, and their running means.

    Args:
        logbook: ``run.logbook``.

    Returns:
        A matplotlib figure.
    """
    figure = new_figure(9.6, 4.4)
    for ax, name in zip(figure.subplots(2, 2, sharex=True).flat, LABELS, strict=True):
        _draw_curve(ax, logbook[name])
    _explain(figure, logbook)
    return figure


def _explain(figure: Figure, logbook: xr.Dataset) -> None:
    """Title, legend, and what the horizontal axis is, below the lowest."""
    figure.suptitle(f"Course of the training, {logbook.sizes['step']} steps", fontsize="medium")
    figure.axes[0].legend(frameon=False)
    for ax in figure.axes:
        place = ax.get_subplotspec()
        if place is not None and place.is_last_row():
            ax.set_xlabel("optimizer step")


def _draw_curve(ax: Axes, values: xr.DataArray) -> None:
    """Every step of one quantity and its running mean; loss and gradient norm on a scale of powers."""
    colour, name = SYSTEMS["forecast"]["color"], str(values.name)
    ax.plot(values.step, values, color=colour, linewidth=0.8, alpha=0.4, label="step")
    ax.plot(values.step, _running_mean(values.values), color=colour, linewidth=2, label="running mean")
    if name in ("loss", "grad_norm"):
        ax.set_yscale("log")
        # Within a decade there is at most one whole power of ten, so that the ticks between carry numbers too.
        within = float(values.max()) < 10 * float(values.min())
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}" if within else NullFormatter())
    ax.set_ylabel(LABELS[name])
    ax.grid(alpha=0.3)


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the last steps, a tenth of all but at least one; of those that there are at the beginning."""
    reach = max(1, len(values) // 10)
    sums = np.cumsum(np.nan_to_num(values))
    counts = np.cumsum(np.isfinite(values))
    before = np.concatenate([np.zeros(reach), sums[:-reach]]), np.concatenate([np.zeros(reach), counts[:-reach]])
    return (sums - before[0]) / np.maximum(counts - before[1], 1)
