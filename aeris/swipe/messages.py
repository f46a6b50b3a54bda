"""What the stages of a pipeline hand to each other in a chain of network calls, in which the first stage follows the last.

Schedules of `torch.distributed.pipelining` know no such ring: here every stage sends and receives by itself. Messages of one rank to
another arrive in the order in which they were sent, also where a backend, like NCCL, knows no tags.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aeris.swipe.layout import Coordinates
from aeris.swipe.pipeline import Pipeline

Sent = tuple[dist.Work, Tensor]
"""A message on its way, and its content."""


class Messages:
    """The hops of one rank's stages: hop i leads from stage i to the next, that of the last to the first; *back* goes the other way.

    Args:
        pipeline: The stages of this rank.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, groups = pipeline, pipeline.groups
        layout, at = groups.layout, groups.at
        self.last = layout.stages - 1
        ends = [layout.stage_rank(stage) for stage in (0, self.last)]
        self._first_rank, self._last_rank = (layout.rank(Coordinates(at.dp, at.row, at.column, pp, at.sp)) for pp in ends)
        self._kept: dict[tuple[int, int, bool], Tensor] = {}
        self._sent: list[Sent] = []
        self._sent_before: list[Sent] = []

    def send(self, hop: int, number: int, content: Tensor, back: bool = False) -> None:
        """Hands something on; what stays on this rank is only kept.

        Args:
            hop: The hop.
            number: Which of several samplers it belongs to.
            content: What is sent; it must not change until :meth:`settle` was called twice.
            back: Against the direction of the hop.
        """
        rank, here = self._peer(hop, sends=True, back=back), self.pipeline.groups.rank
        if rank == here:
            self._kept[hop, number, back] = content
            return
        groups = self.pipeline.groups
        self._sent.append(self._start(dist.isend, content.contiguous(), rank, groups.up if rank > here else groups.down, hop))

    def receive(self, hop: int, number: int, like: Tensor, back: bool = False) -> Tensor:
        """Waits for what :meth:`send` handed on.

        Args:
            hop: The hop.
            number: Which of several samplers it belongs to.
            like: A tensor of its shape and dtype.
            back: Against the direction of the hop.
        """
        if (hop, number, back) in self._kept:
            return self._kept.pop((hop, number, back))
        rank, groups = self._peer(hop, sends=False, back=back), self.pipeline.groups
        buffer = torch.empty(like.shape, dtype=like.dtype, device=self.pipeline.device)
        work, _ = self._start(dist.irecv, buffer, rank, groups.down if rank > groups.rank else groups.up, hop)
        work.wait()
        return buffer

    def wait(self) -> None:
        """Waits until all has left."""
        self.settle()
        self.settle()

    def settle(self) -> None:
        """Waits until all that was sent before the last call of this has left, so that its memory is free again."""
        for work, _ in self._sent_before:
            work.wait()
        self._sent_before, self._sent = self._sent, []

    def _peer(self, hop: int, sends: bool, back: bool) -> int:
        """The rank at the other end of a hop: a sender's forward, and a receiver's back, stands at the hop's beginning."""
        if sends != back:
            return self._first_rank if hop == self.last else self.pipeline.routes(hop)[hop + 1]
        return self._last_rank if hop == self.last else self.pipeline.routes(hop + 1)[hop]

    @staticmethod
    def _start(operation: Callable[..., Any], tensor: Tensor, rank: int, group: dist.ProcessGroup | None, tag: int) -> Sent:
        # Alone and in batches, some backends use different connections: hence a batch of one at both ends.
        (work,) = dist.batch_isend_irecv([dist.P2POp(operation, tensor, rank, group, tag)])
        return work, tensor
