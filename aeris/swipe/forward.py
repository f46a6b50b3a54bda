"""Forward passes without a graph: what a network gives, and its derivative along a direction.

The derivative is taken forward, together with the value: a stage receives tokens and their tangent, and sends on both (forward-mode
differentiation; a dual number for each token). So it costs about two forward passes and keeps nothing, in any layout.

Shapes:
    B  sample            R, K  local window row, window column          Q, P  local quadrant, local pixel of a quadrant
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from aeris.swipe.hops import Hops
from aeris.swipe.pipeline import Pipeline, Stage

Inputs = tuple[Tensor, ...]


class Direction(NamedTuple):
    """Where the inputs of one pass move.

    Attributes:
        inputs: Tangent of each of the network's inputs; None where it stays. Empty on ranks without the first stage.
        given: Tangents of what `context` takes, by name.
    """

    inputs: tuple[Tensor | None, ...]
    given: Mapping[str, Tensor]


class Forward:
    """Runs passes through a pipeline, the first stage first; made once, on every rank.

    Every stage takes the passes in their order, and every rank its stages in theirs: whatever a rank waits for was sent by one that waits
    for nothing later.

    Args:
        pipeline: The stages of this rank.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.hops = pipeline, Hops(pipeline)

    @torch.no_grad()
    def values(self, passes: Sequence[tuple[Inputs, Mapping[str, Tensor]]], answer: Tensor) -> list[Tensor]:
        """What the network gives, on ranks with the first or the last stage; elsewhere nothing.

        Args:
            passes: Inputs, on ranks with the first stage, and what `context` takes; all of the same size.
            answer: Example of the output, on the meta device.
        """

        def compute(stage: Stage, number: int, received: Tensor | None) -> Tensor:
            inputs, given = passes[number]
            return stage(*(inputs if received is None else (received,)), **given)

        samples = len(answer)
        given_back = self._run(len(passes), compute, self.pipeline.tokens(samples), back=True)
        if self.pipeline.has_first and not self.pipeline.has_last:
            given_back = [self.hops.receive(0, number, answer) for number in range(len(passes))]
        self.hops.wait()
        return given_back

    @torch.no_grad()
    def derivatives(
        self, passes: Sequence[tuple[Inputs, Mapping[str, Tensor]]], directions: Sequence[Direction], samples: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Value and derivative along a direction, on ranks with the last stage; elsewhere nothing.

        Args:
            passes: As for :meth:`values`.
            directions: Of each pass.
            samples: Samples of a pass.
        """

        def compute(stage: Stage, number: int, received: Tensor | None) -> Tensor:
            inputs, given = passes[number]
            moves = directions[number]
            at, towards = (inputs, moves.inputs) if received is None else ((received[0],), (received[1],))
            # Compiled blocks know no dual numbers.
            with forward_ad.dual_level(), torch.compiler.set_stance("force_eager"):
                duals = [_dual(value, tangent) for value, tangent in zip(at, towards, strict=True)]
                context = {name: _dual(value, moves.given.get(name)) for name, value in given.items()}
                value, tangent = forward_ad.unpack_dual(stage(*duals, **context))
                return torch.stack([value, torch.zeros_like(value) if tangent is None else tangent])

        tokens = self.pipeline.tokens(samples)
        pairs = self._run(len(passes), compute, tokens.new_empty(2, *tokens.shape), back=False)
        self.hops.wait()
        return [(pair[0], pair[1]) for pair in pairs]

    def _run(self, count: int, compute: Callable[[Stage, int, Tensor | None], Tensor], message: Tensor, back: bool) -> list[Tensor]:
        """Runs all passes through this rank's stages; returns what the last stage gave and, where asked, sends it to the first."""
        given: list[Tensor] = []
        for index, stage in sorted(self.pipeline.stages.items()):
            for number in range(count):
                output = compute(stage, number, None if index == 0 else self.hops.receive(index, number, message))
                if index < self.hops.last:
                    self.hops.send(index, number, output)
                    continue
                given.append(output)
                if back and not self.pipeline.has_first:
                    self.hops.send(index, number, output)
        return given


def _dual(value: Tensor, tangent: Tensor | None) -> Tensor:
    return value if tangent is None else forward_ad.make_dual(value, tangent.to(value.dtype))


@contextmanager
def computing_in(pipeline: Pipeline, dtype: torch.dtype) -> Iterator[None]:
    """Another dtype of the activations for a while."""
    network = next(iter(pipeline.stages.values())).network
    before, network.compute_dtype = network.compute_dtype, dtype
    try:
        yield
    finally:
        network.compute_dtype = before
