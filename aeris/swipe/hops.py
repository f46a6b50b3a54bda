"""Messages between the stages of forward passes that no schedule of torch runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from aeris.swipe.layout import Coordinates

if TYPE_CHECKING:
    from aeris.swipe.pipeline import Pipeline


class Hops:
    """Sends what a stage gives to the next one, and what the last one gives to the first.

    Sends do not wait; receives do. Messages to higher ranks and to lower ranks go in groups of their own, so that on a backend that keeps
    the order of a group no send waits for a send that waits for it.

    Args:
        pipeline: The stages of this rank.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        layout, at = pipeline.groups.layout, pipeline.groups.at
        self.last = layout.stages - 1
        ends = [layout.stage_rank(stage) for stage in (0, self.last)]
        self._ends = [layout.rank(Coordinates(at.dp, at.row, at.column, pp, at.sp)) for pp in ends]
        self._kept: dict[tuple[int, int], Tensor] = {}
        self._sent: list[tuple[dist.Work, Tensor]] = []

    def send(self, index: int, number: int, output: Tensor) -> None:
        """Hands a stage's output of one pass to the next stage, or that of the last to the first.

        Args:
            index: Number of the stage.
            number: Number of the pass, by which a rank that holds both stages finds it again.
            output: What it gave.
        """
        after = 0 if index == self.last else index + 1
        groups = self.pipeline.groups
        here = groups.rank
        rank = self._ends[0] if after == 0 else self.pipeline.routes(index)[after]
        if rank == here:
            self._kept[after, number] = output
            return
        way = groups.up if rank > here else groups.down
        message = dist.P2POp(dist.isend, output.contiguous(), rank, way, tag=after)
        self._sent += [(work, message.tensor) for work in dist.batch_isend_irecv([message])]

    def receive(self, index: int, number: int, like: Tensor) -> Tensor:
        """What a stage was sent for one pass; the first is sent what the last gave.

        Args:
            index: Number of the stage.
            number: Number of the pass.
            like: Example of it, on the meta device.
        """
        if (index, number) in self._kept:
            return self._kept.pop((index, number))
        groups = self.pipeline.groups
        here = groups.rank
        rank = self._ends[1] if index == 0 else self.pipeline.routes(index)[index - 1]
        buffer = torch.empty(like.shape, dtype=like.dtype, device=self.pipeline.device)
        dist.recv(buffer, rank, group=groups.down if rank > here else groups.up, tag=index)
        return buffer

    def take_sent(self) -> list[tuple[dist.Work, Tensor]]:
        """Messages on their way since the last call, to be waited for."""
        sent, self._sent = self._sent, []
        return sent

    def wait(self) -> None:
        """Waits until every message has left."""
        for work, _ in self.take_sent():
            work.wait()
