"""What a network is trained for: an objective makes one pass over a batch and leaves its gradients.

The trainer holds data, optimizer, average and checkpoints, and asks nothing else of it. The recipe names the objective
(`aeris.model.presets`), and :func:`objective_of` makes what it names.

Shapes:
    B  sample            R, K  window row, window column          Q, P  quadrant, pixel of a quadrant
    C  state channel     I  conditioning channel
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from aeris.device import Device
from aeris.diffusion import noise, trigflow
from aeris.model.fields import Fields
from aeris.model.presets import Consistency, Crps
from aeris.swipe import Pass, Pipeline
from aeris.training.batches import Batch
from aeris.training.configuration import Configuration
from aeris.training.consistency import ConsistencyTraining
from aeris.training.fine_tuning import CrpsTraining


class Objective(Protocol):
    """One pass over a batch."""

    def step(self, batch: Batch) -> Tensor:
        """Runs forward and backward passes over this rank's images; gradients add up in the parameters.

        Returns:
            This rank's part of the batch's loss; the parts of all ranks add up to it.
        """


class DiffusionTraining:
    """The velocity of TrigFlow at every noise level.

    Args:
        configuration: What is trained.
        fields: From physical states to tokens.
        pipeline: The stages of this rank.
    """

    def __init__(self, configuration: Configuration, fields: Fields, pipeline: Pipeline) -> None:
        self.configuration, self.fields, self.pipeline = configuration, fields, pipeline
        self.loss_weight = fields.loss_weight(configuration.recipe.channel_weights)

    def step(self, batch: Batch) -> Tensor:
        """As :class:`Objective`."""
        return self.pipeline.step(self.loss, [partial(self.draw, batch, part) for part in batch.parts(self.configuration.micro_batch)])

    def loss(self, predicted: Tensor, velocity: Tensor) -> Tensor:
        """The part of a batch's loss that some samples contribute."""
        return trigflow.weighted_loss(predicted, velocity, self.loss_weight, self.configuration.batch * self.fields.pixel_count)

    def draw(self, batch: Batch, part: slice) -> Pass:
        """Noise levels and lengths of step of some images and, where this rank needs them, noisy targets, conditions and velocities."""
        fields, configuration = self.fields, self.configuration
        images = batch.images[part]
        start = noise.key(configuration.seed, "training angle")
        uniform = [noise.spread_evenly(start, image) for image in images]
        t_B = trigflow.angle(torch.tensor(uniform, dtype=fields.dtype, device=fields.device), configuration.recipe.noise)
        given = {"t_B": t_B, "interval_B": fields.hours(batch.lengths[part])}
        if batch.state is None or batch.target is None:
            return (), None, given
        state, target = fields.tokens(batch.state[part]), fields.tokens(batch.target[part])
        keys = [noise.key(configuration.seed, "training noise", image) for image in images]
        z = fields.masked(noise.normals(keys, fields.ids, len(fields.channels), fields.dtype))
        noisy, velocity = trigflow.interpolate(fields.residual(state, target, batch.lengths[part]), z, t_B)
        condition = fields.condition(state, batch.times[part], batch.target_times[part])
        return (noisy, condition), velocity, given


def objective_of(configuration: Configuration, fields: Fields, pipeline: Pipeline, device: Device) -> Objective:
    """The objective that the recipe names.

    Args:
        configuration: What is trained.
        fields: From physical states to tokens.
        pipeline: The stages of this rank.
        device: Where it computes.

    Raises:
        CheckpointError: It needs a teacher, which has gone or holds other weights by now.
    """
    objective = configuration.recipe.objective
    if isinstance(objective, Crps):
        return CrpsTraining(configuration, fields, pipeline)
    diffusion = DiffusionTraining(configuration, fields, pipeline)
    if isinstance(objective, Consistency):
        return ConsistencyTraining(configuration, fields, pipeline, device, diffusion.draw)
    return diffusion
