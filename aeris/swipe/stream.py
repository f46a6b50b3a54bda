"""Forward passes of a pipeline for several samplers at once.

A sampler needs the answer to its last call before it can make the next one, so that one alone would keep a single stage busy. The
passes of others fill the gap: with as many samplers as stages every rank always has something to do.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from aeris.swipe.layout import Coordinates
from aeris.swipe.pipeline import Pipeline

Requests = Generator[tuple[Tensor, ...], Tensor, Tensor]
"""Yields the network's inputs, receives its output, returns a result."""


class Stream:
    """Runs samplers through a pipeline; made once, on every rank.

    Args:
        pipeline: The stages of this rank.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        groups = pipeline.groups
        layout, at = groups.layout, groups.at
        self.last = layout.stages - 1
        ends = [layout.stage_rank(stage) for stage in (0, self.last)]
        self._ends = [layout.rank(Coordinates(at.dp, at.row, at.column, pp, at.sp)) for pp in ends]
        self._kept: dict[tuple[int, int], Tensor] = {}
        self._sent: list[tuple[dist.Work, Tensor]] = []

    @torch.no_grad()
    def run(self, samplers: Sequence[Requests], count: int, calls: Sequence[Mapping[str, Tensor]], answer: Tensor) -> list[Tensor]:
        """Runs samplers to their end.

        Args:
            samplers: The samplers, on ranks with the first stage; elsewhere none.
            count: Their number, on every rank.
            calls: What the network's `context` takes at each call, the same for all samplers.
            answer: Example of the network's output, on the meta device.

        Returns:
            What the samplers returned, on ranks with the first stage; elsewhere nothing.
        """
        asked, tokens = [next(sampler) for sampler in samplers], self.pipeline.tokens(len(answer))
        for number, given in enumerate(calls):
            before, self._sent = self._sent, []
            for index, stage in sorted(self.pipeline.stages.items()):
                for member in range(count):
                    if index > 0:
                        inputs: tuple[Tensor, ...] = (self._receive(index, member, tokens),)
                    elif number > 0:
                        inputs = samplers[member].send(self._receive(0, member, answer))
                    else:
                        inputs = asked[member]
                    self._send(index, member, stage(*inputs, **given))
            for work, _ in before:
                work.wait()
        results = [self._finish(sampler, self._receive(0, member, answer)) for member, sampler in enumerate(samplers)]
        for work, _ in self._sent:
            work.wait()
        self._sent = []
        return results

    def _send(self, index: int, member: int, output: Tensor) -> None:
        """Hands a stage's output to the next stage, or that of the last to the first."""
        after = 0 if index == self.last else index + 1
        groups = self.pipeline.groups
        here = groups.rank
        rank = self._ends[0] if after == 0 else self.pipeline.routes(index)[after]
        if rank == here:
            self._kept[after, member] = output
            return
        way = groups.up if rank > here else groups.down
        message = dist.P2POp(dist.isend, output.contiguous(), rank, way, tag=after)
        self._sent += [(work, message.tensor) for work in dist.batch_isend_irecv([message])]

    def _receive(self, index: int, member: int, like: Tensor) -> Tensor:
        """What a stage was sent."""
        if (index, member) in self._kept:
            return self._kept.pop((index, member))
        groups = self.pipeline.groups
        here = groups.rank
        rank = self._ends[1] if index == 0 else self.pipeline.routes(index)[index - 1]
        buffer = torch.empty(like.shape, dtype=like.dtype, device=self.pipeline.device)
        dist.recv(buffer, rank, group=groups.down if rank > here else groups.up, tag=index)
        return buffer

    @staticmethod
    def _finish(sampler: Requests, answer: Tensor) -> Tensor:
        try:
            sampler.send(answer)
        except StopIteration as end:
            result: Tensor = end.value
            return result
        raise AssertionError("the sampler asks for more calls than it announced")
