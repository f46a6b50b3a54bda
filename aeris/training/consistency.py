"""Consistency training and distillation: passes that find the target, then a pass towards it as any other.

First the teacher's velocity, where there is a teacher, and then the network's value and derivative along that path go through the pipeline
without a graph. The tangent then stands at the last stage, and the noise at both ends, each made from its key; what is left is an ordinary
step of the schedule, so that every layout can take it.

Shapes:
    B  sample            ... token axes          C  channel
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from aeris.device import Device
from aeris.diffusion import consistency, trigflow
from aeris.model.fields import Fields
from aeris.model.presets import Consistency
from aeris.swipe import Pass, Pipeline
from aeris.swipe.forward import Direction, Forward, computing_in
from aeris.training.batches import Batch
from aeris.training.checkpoint import load_weights
from aeris.training.configuration import Configuration
from aeris.training.networks import network_of, worth_compiling

WARMUP = 0.2
"""Part of a run over which the tangent's second term grows, unless the recipe gives a number of images."""


class ConsistencyTraining:
    """The jump along a path of the probability flow to its end.

    Args:
        configuration: What is trained; its recipe's objective is consistency.
        fields: From physical states to tokens.
        pipeline: The stages of this rank.
        device: Where it computes.
        draw: Makes noisy samples with conditions, velocities of the straight path, and angles, of some images of a batch.

    Raises:
        CheckpointError: The teacher has gone, or holds other weights by now.
    """

    def __init__(
        self, configuration: Configuration, fields: Fields, pipeline: Pipeline, device: Device, draw: Callable[[Batch, slice], Pass]
    ) -> None:
        assert isinstance(configuration.recipe.objective, Consistency)
        self.configuration, self.recipe = configuration, configuration.recipe.objective
        self.fields, self.pipeline, self.draw = fields, pipeline, draw
        self.forward = Forward(pipeline)
        self.loss_weight = fields.loss_weight(configuration.recipe.channel_weights)
        self.teacher = _teacher(configuration, pipeline, device) if self.recipe.path == "teacher" else None

    def step(self, batch: Batch) -> Tensor:
        """As `aeris.training.objectives.Objective`."""
        drawn = [self.draw(batch, part) for part in batch.parts(self.configuration.micro_batch)]
        targets = self.targets(drawn, self.warmth(batch.seen))
        made = iter([(inputs, target, given) for (inputs, _, given), target in zip(drawn, targets, strict=True)])
        return self.pipeline.step(self.loss, [partial(next, made)] * len(drawn))

    def warmth(self, seen: int) -> float:
        """Share of the tangent's second term after so many images."""
        images = self.recipe.warmup_images
        if images is None:
            images = round(WARMUP * self.configuration.steps * self.configuration.batch)
        return min(1.0, seen / images) if images else 1.0

    def loss(self, predicted: Tensor, tangent: Tensor) -> Tensor:
        """The part of a batch's loss that some samples contribute: Σ w · (F − F⁻ − g)²."""
        terms = self.configuration.batch * self.fields.pixel_count
        return trigflow.weighted_loss(predicted, predicted.detach() + tangent, self.loss_weight, terms)

    @torch.no_grad()
    def targets(self, drawn: Sequence[Pass], warmth: float) -> list[Tensor | None]:
        """Where the network's output should move to at each noisy sample, on ranks with the last stage; elsewhere None.

        Args:
            drawn: Noisy samples and all that belongs to them.
            warmth: Share of the tangent's second term.
        """
        drawn = self._along_the_path(drawn)
        values = self._values_and_derivatives(drawn)
        if not values:
            return [None] * len(drawn)
        tangents = []
        for (inputs, velocity, given), (predicted, derivative) in zip(drawn, values, strict=True):
            assert velocity is not None
            tangent = consistency.tangent(inputs[0], velocity, predicted, derivative, given["t_B"], warmth)
            tangents.append(self.fields.masked(tangent))
        squares = self.pipeline.groups.add_over_image(torch.stack([consistency.sum_of_squares(tangent) for tangent in tangents]))
        means = squares / (self.fields.pixel_count * len(self.fields.channels))
        return [consistency.normalised(tangent, mean_B, self.recipe.constant) for tangent, mean_B in zip(tangents, means, strict=True)]

    def _along_the_path(self, drawn: Sequence[Pass]) -> Sequence[Pass]:
        """The same with the teacher's velocity, where there is a teacher, in place of that of the straight path."""
        if self.teacher is None:
            return drawn
        velocities = self.teacher.values([(inputs, given) for inputs, _, given in drawn], self._answer(drawn[0]))
        if not velocities:
            return drawn
        taught = [self.fields.masked(velocity) for velocity in velocities]
        return [(inputs, velocity, given) for (inputs, _, given), velocity in zip(drawn, taught, strict=True)]

    def _values_and_derivatives(self, drawn: Sequence[Pass]) -> list[tuple[Tensor, Tensor]]:
        """F and its derivative along the path, on ranks with the last stage.

        In no less than float32: where the jump is nearly right, the tangent is a small difference of large numbers.
        """
        directions = []
        for inputs, velocity, given in drawn:
            moves: tuple[Tensor | None, ...] = ()
            factor_B = consistency.slowness(given["t_B"])
            if inputs:
                assert velocity is not None
                moves = trigflow.expand(factor_B, velocity) * velocity, None
            directions.append(Direction(moves, {"t_B": factor_B}))
        passes, samples = [(inputs, given) for inputs, _, given in drawn], len(drawn[0][2]["t_B"])
        with computing_in(self.pipeline, self.fields.dtype):
            return self.forward.derivatives(passes, directions, samples)

    def _answer(self, example: Pass) -> Tensor:
        """Example of what the network gives, on the meta device."""
        tokens = self.pipeline.tokens(len(example[2]["t_B"]))
        return torch.empty(*tokens.shape[:-1], len(self.fields.channels), dtype=self.fields.dtype, device="meta")


def _teacher(configuration: Configuration, pipeline: Pipeline, device: Device) -> Forward:
    """The averaged weights that the run began from, which it does not change."""
    assert configuration.start is not None
    network = network_of(configuration, pipeline.groups, device)
    load_weights(configuration.start.open(), network, dict(network.named_parameters()), "average")
    network.eval().requires_grad_(False)
    if worth_compiling(configuration, pipeline.groups, device):
        network.compile_blocks()
    return Forward(Pipeline(network, configuration.model, pipeline.groups, pipeline.device))
