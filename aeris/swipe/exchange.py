"""What ranks exchange inside a stage: sequence for heads around attention, and quadrants where a shift cannot be folded.

Both are linear, and differentiable both ways: the backward pass sends the same bytes the other way, a forward-mode derivative sends its
tangents as it sends the tokens.

Shapes:
    B  sample            R, K  local window row, window column          Q, P  local quadrant, local pixel of a quadrant
    T  tokens of a whole window        S  local tokens of a window        N  attention head        E  width of a head
    D  width
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aeris.model.quadrants import shift, unshift
from aeris.swipe.groups import Groups
from aeris.swipe.layout import Coordinates, Layout
from aeris.swipe.tokens import QUADRANTS, share


def to_heads(x_BRKSN: Tensor, groups: Groups) -> Tensor:
    """From some tokens of a window and all heads to all tokens and some heads.

    Args:
        x_BRKSN: ``(B, R, K, S, ..., N, E)``.
        groups: This rank's place.

    Returns:
        ``(B, R, K, T, ..., N / ranks, E)``.
    """
    return _Transpose.apply(x_BRKSN, groups, 3, x_BRKSN.dim() - 2)


def to_sequence(x_BRKTD: Tensor, groups: Groups) -> Tensor:
    """From all tokens of a window and the channels of some heads to some tokens and all channels.

    Args:
        x_BRKTD: ``(B, R, K, T, D / ranks)``.
        groups: This rank's place.

    Returns:
        ``(B, R, K, S, D)``.
    """
    return _Transpose.apply(x_BRKTD, groups, 4, 3)


class _Transpose(torch.autograd.Function):
    """All-to-all that gathers one axis and deals another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: Groups, gathered: int, dealt: int) -> Tensor:
        ctx.groups, ctx.gathered, ctx.dealt = groups, gathered, dealt
        return _all_to_all(x, groups, gathered, dealt)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return _all_to_all(gradient, ctx.groups, ctx.dealt, ctx.gathered), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:  # type: ignore[override]
        return _all_to_all(tangent, ctx.groups, ctx.gathered, ctx.dealt)


def _all_to_all(x: Tensor, groups: Groups, gathered: int, dealt: int) -> Tensor:
    sent = torch.stack(x.chunk(groups.layout.sp, dim=dealt))
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=groups.sequence)
    return torch.cat(received.unbind(0), dim=gathered)


@dataclass(frozen=True)
class Route:
    """Where a quadrant goes when windows are dealt anew.

    Attributes:
        at: Coordinates of the rank that holds it afterwards, at the same stage.
        quadrant: Its quadrant there.
        roll: Places by which its windows move in the receiver's grid of windows.
    """

    at: Coordinates
    quadrant: int
    roll: tuple[int, int]


def route(layout: Layout, at: Coordinates, quadrant: int, back: bool = False) -> Route:
    """Where a quadrant of a rank goes.

    A shift half a window up and left turns quadrant q of window (i, j) into quadrant 3 − q of the window (i − 1 if q is an upper
    one, j − 1 if q is a left one); the shift back adds where this one takes away, for lower and right quadrants. Beyond the last
    window rank the place among its own windows moves by one too.

    Args:
        layout: The layout.
        at: The rank that holds it.
        quadrant: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
        back: From the shifted partition to the regular one.
    """
    sign = 1 if back else -1
    row, roll_row = _step(at.row, sign * ((quadrant // 2 == 1) == back), layout.wp[0])
    column, roll_column = _step(at.column, sign * ((quadrant % 2 == 1) == back), layout.wp[1])
    opposite = QUADRANTS - 1 - quadrant
    sp = opposite * layout.sp // QUADRANTS if layout.sp <= 2 else at.sp + (opposite - quadrant) * (layout.sp // QUADRANTS)
    return Route(Coordinates(at.dp, row, column, at.pp, sp), opposite, (roll_row, roll_column))


def _step(place: int, step: int, ranks: int) -> tuple[int, int]:
    """A neighbouring window rank, and the roll of windows where the step leaves the grid of ranks."""
    moved = place + step
    return moved % ranks, moved // ranks


def held_quadrants(layout: Layout, at: Coordinates) -> range:
    """Quadrants of a rank."""
    return range(QUADRANTS)[share(layout, at).quadrants]


def deal(x_BRKQPD: Tensor, groups: Groups, back: bool = False) -> Tensor:
    """Deals quadrants to the windows of the other partition, with messages of its own; local where a rank already holds them.

    Args:
        x_BRKQPD: A rank's share of the tokens.
        groups: Its place.
        back: From the shifted partition to the regular one.
    """
    if groups.layout.token_ranks == 1:
        return unshift(x_BRKQPD) if back else shift(x_BRKQPD)
    return _Deal.apply(x_BRKQPD, groups, back)


class _Deal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: Groups, back: bool) -> Tensor:
        ctx.groups, ctx.back = groups, back
        return _dealt(x, groups, back)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _dealt(gradient, ctx.groups, not ctx.back), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:  # type: ignore[override]
        return _dealt(tangent, ctx.groups, ctx.back)


def _dealt(x: Tensor, groups: Groups, back: bool) -> Tensor:
    """Sends every quadrant where it goes, in one message to each rank concerned."""
    layout, at = groups.layout, groups.at
    held = held_quadrants(layout, at)
    leaving: dict[int, list[Tensor]] = defaultdict(list)
    coming: dict[int, list[int]] = defaultdict(list)
    for quadrant in held:
        way = route(layout, at, quadrant, back)
        leaving[layout.rank(way.at)].append(x[:, :, :, quadrant - held[0]].roll(way.roll, (1, 2)))
        coming[layout.rank(route(layout, at, quadrant, not back).at)].insert(0, quadrant)
    received = _swap(leaving, coming, groups)
    dealt = torch.empty_like(x)
    for rank, quadrants in coming.items():
        # The sender's rising quadrants are falling ones here: hence the insertion at the front above.
        for quadrant, arrived in zip(quadrants, received[rank], strict=True):
            dealt[:, :, :, quadrant - held[0]] = arrived
    return dealt


def _swap(leaving: dict[int, list[Tensor]], coming: dict[int, list[int]], groups: Groups) -> dict[int, Tensor]:
    """Exchanges stacks of quadrants with ranks of the same image, in the order of their numbers."""
    here = groups.rank
    packed = {rank: torch.stack(quadrants) for rank, quadrants in sorted(leaving.items())}
    like = packed[min(packed)]
    received = {rank: like.new_empty(len(quadrants), *like.shape[1:]) for rank, quadrants in sorted(coming.items()) if rank != here}
    operations = [dist.P2POp(dist.isend, stack, rank, groups.image) for rank, stack in packed.items() if rank != here]
    operations += [dist.P2POp(dist.irecv, buffer, rank, groups.image) for rank, buffer in received.items()]
    for work in dist.batch_isend_irecv(operations) if operations else ():
        work.wait()
    return received | ({here: packed[here]} if here in packed else {})
