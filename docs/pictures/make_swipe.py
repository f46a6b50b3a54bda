"""Draws the pictures of ``docs/swipe.md`` from what the package says of shares and shifts: ``python docs/pictures/make_swipe.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

import aeris
from aeris.model.quadrants import shift, to_tokens
from aeris.swipe import share
from aeris.views.shares import share_figure

HERE = Path(__file__).parent
GRID, WINDOW, LAYOUT = (16, 16), (4, 4), aeris.Layout(wp=(2, 2), sp=4)
WINDOW_RANKS, QUADRANTS = np.array([["a", "b"], ["c", "d"]]), np.array(["TL", "TR", "BL", "BR"])


def holders(shifted: bool) -> tuple[np.ndarray, np.ndarray]:
    """The window rank's letter and the sequence rank of every pixel, before or after a shift."""
    numbers = torch.arange(GRID[0] * GRID[1]).view(1, 1, *GRID)
    tokens = shift(to_tokens(numbers, WINDOW)) if shifted else to_tokens(numbers, WINDOW)
    letter, sequence = np.empty(GRID, "U1"), np.empty(GRID, int)
    for rank in range(LAYOUT.world):
        at = LAYOUT.coordinates(rank)
        pixels = share(LAYOUT, at).cut(tokens, first=1).flatten().numpy()
        letter.flat[pixels], sequence.flat[pixels] = WINDOW_RANKS[at.row, at.column], at.sp
    return letter, sequence


def names(letter: np.ndarray, sequence: np.ndarray) -> np.ndarray:
    """What to write into each quadrant: the rank that holds it."""
    one = np.ix_(*(range(0, size, half // 2) for size, half in zip(GRID, WINDOW, strict=True)))
    return np.char.add(np.char.add(letter[one], " "), QUADRANTS[sequence[one]])


def save(figure: Figure, name: str) -> None:
    """Writes a figure with its letters as text, the same bytes each time."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "aeris"}):
        figure.savefig(HERE / name, metadata={"Date": None})


if __name__ == "__main__":
    before, after = holders(shifted=False), holders(shifted=True)
    save(share_figure(before[1], WINDOW, "Regular windows: window rank and quadrant", labels=names(*before)), "swipe_holds.svg")
    ways = np.char.add(np.char.add(names(*before), "\n→ "), names(*after))
    half = (WINDOW[0] // 2, WINDOW[1] // 2)
    save(share_figure(after[1], WINDOW, "Shifted windows: who sends to whom", half, ways), "swipe_shift.svg")
