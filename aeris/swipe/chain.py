"""A chain of network calls through a pipeline, and the way back along it.

Where each call depends on the answer to the last one, as in a rollout, the output of the last stage goes to the first again. No
schedule of `torch.distributed.pipelining` has such a ring, and autograd cannot look through a message. So the chain is run without
a graph, each rank remembers what went into its stages, and the way back takes the same steps in exactly the opposite order: receive
the gradient of a stage's output, run the stage once more, now with a graph, go back through it, send the gradient of its input.
Between two steps nothing is kept but inputs: memory is that of one stage and one call, however long the chain.

Several samplers are on their way at once, so that stages do not wait in turn.

No rank can wait for another for ever. A rank does its work in rising order of (call, stage, sampler), and each piece of work needs the
result of a smaller one only, so that the smallest that is unfinished can always be done. On one way, to higher ranks or to lower, the
messages between two ranks are sent in the order in which they are received, because to follow a message keeps that order. Back,
all orders and all messages are reversed, and the same holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from aeris.swipe.messages import Messages
from aeris.swipe.pipeline import Pipeline, Stage
from aeris.swipe.stream import Requests, finish

Place = tuple[int, int, int]
"""Number of a call, of a stage and of a sampler."""


@dataclass
class Leg:
    """What a rank remembers of some calls.

    Attributes:
        calls: What the network's `context` takes at each call.
        count: Number of samplers.
        answer: Example of the network's output.
        inputs: What went into each stage.
        asked: What samplers asked for at each call, with its graph, by call and sampler.
        answers: The answers that they were given, leaves of the graphs of what they asked for afterwards.
    """

    calls: Sequence[Mapping[str, Tensor]]
    count: int
    answer: Tensor
    inputs: dict[Place, tuple[Tensor, ...]] = field(default_factory=dict)
    asked: dict[tuple[int, int], tuple[Tensor, ...]] = field(default_factory=dict)
    answers: dict[tuple[int, int], Tensor] = field(default_factory=dict)


class Chain:
    """Runs samplers through a pipeline as `Stream` does, and goes back; made once, on every rank.

    A chain is made of legs. What a leg returns depends on the network's answers, and on whatever tensors the samplers began with;
    where those require a gradient, going back adds to it. After a leg, in turn backwards: ``torch.autograd.backward`` of its results with
    ``retain_graph=True``, on ranks that have them, then :meth:`back` on all ranks.

    Args:
        pipeline: The stages of this rank.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.messages = pipeline, Messages(pipeline)
        self._legs: list[Leg] = []

    def run(self, samplers: Sequence[Requests], count: int, calls: Sequence[Mapping[str, Tensor]], answer: Tensor) -> list[Tensor]:
        """Runs samplers to their end, and remembers the way.

        Args:
            samplers: The samplers, on ranks with the first stage; elsewhere none.
            count: Their number, on every rank.
            calls: What the network's `context` takes at each call, the same for all samplers.
            answer: Example of the network's output, on the meta device.

        Returns:
            What the samplers returned, on ranks with the first stage; elsewhere nothing.
        """
        leg = Leg(calls, count, answer)
        tokens = self.pipeline.tokens(len(answer))
        for number, given in enumerate(calls):
            for index, stage in sorted(self.pipeline.stages.items()):
                for member in range(count):
                    inputs = (
                        (self.messages.receive(index - 1, member, tokens),)
                        if index > 0
                        else self._ask(leg, samplers[member], number, member)
                    )
                    leg.inputs[number, index, member] = inputs
                    with torch.no_grad():
                        self.messages.send(index, member, stage(*inputs, **given))
            self.messages.settle()
        with torch.enable_grad():
            results = [finish(sampler, self._answer(leg, len(calls) - 1, member)) for member, sampler in enumerate(samplers)]
        self.messages.wait()
        self._legs.append(leg)
        return results

    def _ask(self, leg: Leg, sampler: Requests, number: int, member: int) -> tuple[Tensor, ...]:
        """The inputs of a sampler's next call."""
        with torch.enable_grad():
            asked = sampler.send(self._answer(leg, number - 1, member)) if number > 0 else next(sampler)
        leg.asked[number, member] = asked
        return tuple(tensor.detach() for tensor in asked)

    def _answer(self, leg: Leg, number: int, member: int) -> Tensor:
        """The answer to a call, a leaf."""
        answer = self.messages.receive(self.messages.last, member, leg.answer).detach().requires_grad_()
        leg.answers[number, member] = answer
        return answer

    def back(self) -> None:
        """Goes the newest leg back: gradients add up in the parameters and in what its samplers began with."""
        leg = self._legs.pop()
        for member in reversed(range(leg.count if self.pipeline.has_first else 0)):
            self._return(leg, len(leg.calls) - 1, member)
        for number in reversed(range(len(leg.calls))):
            for index, stage in sorted(self.pipeline.stages.items(), reverse=True):
                for member in reversed(range(leg.count)):
                    self._back_through(leg, (number, index, member), stage)
            self.messages.settle()
        self.messages.wait()

    def _return(self, leg: Leg, number: int, member: int) -> None:
        """Sends the last stage the gradient of an answer, which is whole once all that depends on it was gone back through."""
        answer = leg.answers.pop((number, member))
        self.messages.send(self.messages.last, member, gradient_of(answer), back=True)

    def _back_through(self, leg: Leg, place: Place, stage: Stage) -> None:
        """Goes back through one stage of one call."""
        number, index, member = place
        messages, inputs = self.messages, leg.inputs.pop(place)
        asked = leg.asked.pop((number, member)) if index == 0 else ()
        wanted = [tensor.requires_grad for tensor in asked] if index == 0 else [True]
        leaves = tuple(tensor.detach().requires_grad_(want) for tensor, want in zip(inputs, wanted, strict=True))
        with torch.enable_grad():
            output = stage(*leaves, **leg.calls[number])
        torch.autograd.backward(output, messages.receive(index, member, output, back=True))
        if index > 0:
            messages.send(index - 1, member, gradient_of(leaves[0]), back=True)
        else:
            self._back_to_answers(leg, number, member, asked, leaves)
        self.pipeline.complete(index)

    def _back_to_answers(self, leg: Leg, number: int, member: int, asked: tuple[Tensor, ...], leaves: tuple[Tensor, ...]) -> None:
        """Goes back through what a sampler did between the last answer and the first stage."""
        reached = [(tensor, gradient_of(leaf)) for tensor, leaf in zip(asked, leaves, strict=True) if leaf.requires_grad]
        if reached:
            # What a sampler asks for later depends on the same tensors.
            torch.autograd.backward([tensor for tensor, _ in reached], [gradient for _, gradient in reached], retain_graph=True)
        if number > 0:
            self._return(leg, number - 1, member)


def gradient_of(leaf: Tensor) -> Tensor:
    """The gradient that was collected in a leaf; zero where nothing depends on it."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
