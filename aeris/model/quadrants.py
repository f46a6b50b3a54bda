"""Pixels to tokens and back, in the order that makes the window shift free.

Every window is cut into its four quadrants, and tokens keep that order everywhere, on one device as on ten thousand. A shift of
the windows by half their size is then only a new dealing of quadrants to windows (SWiPe; arXiv 2509.13523): no pixel moves
inside a quadrant.

Shapes:
    B  sample            R  window row         K  window column
    Q  quadrant: 0 top left, 1 top right, 2 bottom left, 3 bottom right
    P  pixel of a quadrant, row by row          C  channel
    H  pixel row         W  pixel column
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_tokens(x_BCHW: Tensor, window: tuple[int, int]) -> Tensor:
    """Puts pixels into quadrant order.

    Args:
        x_BCHW: Fields; the window divides rows and columns, and is even in both.
        window: Rows and columns of a window.

    Returns:
        Tokens ``x_BRKQPC``.
    """
    batch, channels, rows, columns = x_BCHW.shape
    half = window[0] // 2, window[1] // 2
    grid = rows // window[0], columns // window[1]
    cut = x_BCHW.reshape(batch, channels, grid[0], 2, half[0], grid[1], 2, half[1])
    return cut.permute(0, 2, 5, 3, 6, 4, 7, 1).reshape(batch, *grid, 4, half[0] * half[1], channels)


def to_pixels(x_BRKQPC: Tensor, window: tuple[int, int]) -> Tensor:
    """Inverse of :func:`to_tokens`: fields ``x_BCHW``."""
    batch, rows, columns, _, _, channels = x_BRKQPC.shape
    half = window[0] // 2, window[1] // 2
    cut = x_BRKQPC.reshape(batch, rows, columns, 2, 2, *half, channels)
    return cut.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(batch, channels, rows * window[0], columns * window[1])


def pixel_ids(grid: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """Global pixel number (row · columns + column) of every token, int64 of shape ``(R, K, Q, P)``."""
    ids = torch.arange(grid[0] * grid[1]).view(1, 1, *grid)
    return to_tokens(ids, window)[0, ..., 0]


def shift(x_BRKQPC: Tensor) -> Tensor:
    """Deals quadrants to the windows that lie half a window down and to the right.

    Equal to rolling the field by half a window up and left: TL'(i,j) = BR(i,j), TR'(i,j) = BL(i,j+1), BL'(i,j) = TR(i+1,j),
    BR'(i,j) = TL(i+1,j+1), indices modulo the window grid. In the last row of the new windows the upper quadrants are the far
    south and the lower ones the far north.
    """
    dealt = [torch.roll(x_BRKQPC[:, :, :, 3 - q], (-(q // 2), -(q % 2)), dims=(1, 2)) for q in range(4)]
    return torch.stack(dealt, dim=3)


def unshift(x_BRKQPC: Tensor) -> Tensor:
    """Inverse of :func:`shift`."""
    dealt = [torch.roll(x_BRKQPC[:, :, :, 3 - q], (1 - q // 2, 1 - q % 2), dims=(1, 2)) for q in range(4)]
    return torch.stack(dealt, dim=3)
