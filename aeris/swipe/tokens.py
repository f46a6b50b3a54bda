"""Which tokens a rank holds, and how fields are cut into shares and put together again.

Windows are dealt to the grid of window ranks in turn, row by row and column by column, so that the neighbour of a window always
lives with the neighbouring rank. Inside a window, sequence ranks hold quadrants or equal parts of one: with one rank all four,
with two the upper or the lower half, with 4k the rank k·q + i holds part i of quadrant q (arXiv 2509.13523, SWiPe).

Shapes:
    B  sample            R, K  window row, window column          Q  quadrant          P  pixel of a quadrant
    ... channels
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from aeris.swipe.layout import Coordinates, Layout

QUADRANTS = 4


@dataclass(frozen=True)
class Share:
    """The tokens of one rank.

    Attributes:
        rows: Its window rows.
        columns: Its window columns.
        quadrants: Its quadrants of each window.
        part: Which part of each quadrant it holds.
        parts: Into how many parts a quadrant is cut.
    """

    rows: slice
    columns: slice
    quadrants: slice
    part: int = 0
    parts: int = 1

    def pixels(self, quadrant: int) -> slice:
        """Its pixels of a quadrant of so many pixels."""
        size = quadrant // self.parts
        return slice(self.part * size, (self.part + 1) * size)

    def cut(self, x_RKQP: Tensor, first: int = 0) -> Tensor:
        """A rank's part of tokens.

        Args:
            x_RKQP: Whole tokens, with any axes before and after.
            first: Axis of R; R, K, Q, P follow each other.
        """
        return self.cut_window(x_RKQP[(slice(None),) * first + (self.rows, self.columns)], first)

    def cut_window(self, x_RKQP: Tensor, first: int = 0) -> Tensor:
        """As :meth:`cut`, from tokens that hold this rank's windows alone."""
        before = (slice(None),) * (first + 2)
        return x_RKQP[(*before, self.quadrants, self.pixels(x_RKQP.shape[first + 3]))].contiguous()


def share(layout: Layout, at: Coordinates) -> Share:
    """The tokens of the rank at some coordinates."""
    rows, columns = slice(at.row, None, layout.wp[0]), slice(at.column, None, layout.wp[1])
    if layout.sp <= 2:
        size = QUADRANTS // layout.sp
        return Share(rows, columns, slice(at.sp * size, (at.sp + 1) * size))
    parts = layout.sp // QUADRANTS
    quadrant, part = divmod(at.sp, parts)
    return Share(rows, columns, slice(quadrant, quadrant + 1), part, parts)


def shares(layout: Layout) -> Iterator[Share]:
    """The shares of one image, in the order of the ranks that hold them at one stage."""
    for rank in layout.ranks(dp=0, pp=0):
        yield share(layout, layout.coordinates(rank))


def join(parts: Sequence[Tensor], layout: Layout, first: int = 0) -> Tensor:
    """Puts the shares of an image together; the inverse of cutting it for every rank.

    Args:
        parts: One tensor for each of :func:`shares`, in that order.
        layout: The layout.
        first: Axis of R.
    """
    shape = list(parts[0].shape)
    held = (layout.wp[0], layout.wp[1], QUADRANTS // shape[first + 2], max(1, layout.sp // QUADRANTS))
    for axis, times in enumerate(held, start=first):
        shape[axis] *= times
    whole = parts[0].new_empty(shape)
    for part, owner in zip(parts, shares(layout), strict=True):
        view = whole[(slice(None),) * first + (owner.rows, owner.columns, owner.quadrants)]
        view[(slice(None),) * (first + 3) + (owner.pixels(view.shape[first + 3]),)] = part
    return whole


def gather(part: Tensor, layout: Layout, group: dist.ProcessGroup | None, first: int = 0) -> Tensor:
    """The whole image on every rank that holds a share of it.

    Args:
        part: This rank's share.
        layout: The layout.
        group: The ranks that share an image at one stage, in rising order; None where there is one.
        first: Axis of R.
    """
    if layout.token_ranks == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(layout.token_ranks)]
    dist.all_gather(parts, part.contiguous(), group=group)
    return join(parts, layout, first)
