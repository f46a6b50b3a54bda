"""Which rank holds which pixels."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from aeris.errors import DataError
from aeris.views.style import OKABE_ITO, new_figure

_COLOURS = (*OKABE_ITO, "#999999")


def share_figure(
    rank: np.ndarray, window: tuple[int, int], title: str, offset: tuple[int, int] = (0, 0), labels: np.ndarray | None = None
) -> Figure:
    """Pixels coloured by the rank that holds them, with the borders of windows and quadrants.

    Args:
        rank: Whole numbers ``(rows, columns)``.
        window: Rows and columns of a window.
        title: What is shown.
        offset: Rows and columns by which the windows lie further down and right.
        labels: What to write into each quadrant ``(2 rows / window rows, 2 columns / window columns)``, counted from the upper left
            corner of the field; its rank where there is none.

    Returns:
        A matplotlib figure.

    Raises:
        DataError: The window does not divide the field.
    """
    rows, columns = rank.shape
    if rows % window[0] or columns % window[1]:
        raise DataError(f"A field of {rows}×{columns}", f"Windows of {window[0]}×{window[1]} divide it", "Choose another window")
    figure = new_figure(6.4, 0.4 + 6.4 * rows / columns, "compressed")
    ax = figure.add_subplot()
    colours = ListedColormap([_COLOURS[number % len(_COLOURS)] for number in range(int(rank.max()) + 1)])
    ax.imshow(rank, cmap=colours, vmin=-0.5, vmax=rank.max() + 0.5, interpolation="none", extent=(0, columns, rows, 0), alpha=0.75)
    half = window[0] // 2, window[1] // 2
    texts = rank[half[0] // 2 :: half[0], half[1] // 2 :: half[1]] if labels is None else labels
    for (row, column), text in np.ndenumerate(texts):
        ax.text((column + 0.5) * half[1], (row + 0.5) * half[0], str(text), ha="center", va="center", fontsize="small")
    _draw_borders(ax, (rows, columns), half, offset)
    ax.set_title(title, fontsize="medium")
    ax.set_xticks([])
    ax.set_yticks([])
    return figure


def _draw_borders(ax: Axes, shape: tuple[int, int], half: tuple[int, int], offset: tuple[int, int]) -> None:
    """Thin lines between quadrants, thick ones between windows."""
    for axis, draw in ((0, ax.axhline), (1, ax.axvline)):
        for place in range(0, shape[axis] + 1, half[axis]):
            border = (place - offset[axis]) % (2 * half[axis]) == 0
            draw(place, color="black", linewidth=2.5 if border else 0.4)
