"""Forward passes of a pipeline for several samplers at once.

A sampler needs the answer to its last call before it can make the next one, so that one alone would keep a single stage busy. The
passes of others fill the gap: with as many samplers as stages every rank always has something to do.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

import torch
from torch import Tensor

from aeris.swipe.hops import Hops
from aeris.swipe.pipeline import Pipeline

Requests = Generator[tuple[Tensor, ...], Tensor, Tensor]
"""Yields the network's inputs, receives its output, returns a result."""


class Stream:
    """Runs samplers through a pipeline; made once, on every rank.

    Args:
        pipeline: The stages of this rank.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.hops = pipeline, Hops(pipeline)

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
            before = self.hops.take_sent()
            for index, stage in sorted(self.pipeline.stages.items()):
                for member in range(count):
                    if index > 0:
                        inputs: tuple[Tensor, ...] = (self.hops.receive(index, member, tokens),)
                    elif number > 0:
                        inputs = samplers[member].send(self.hops.receive(0, member, answer))
                    else:
                        inputs = asked[member]
                    self.hops.send(index, member, stage(*inputs, **given))
            for work, _ in before:
                work.wait()
        results = [self._finish(sampler, self.hops.receive(0, member, answer)) for member, sampler in enumerate(samplers)]
        self.hops.wait()
        return results

    @staticmethod
    def _finish(sampler: Requests, answer: Tensor) -> Tensor:
        try:
            sampler.send(answer)
        except StopIteration as end:
            result: Tensor = end.value
            return result
        raise AssertionError("the sampler asks for more calls than it announced")
