"""From one state to the next, again and again: a generator that holds one state of each member and never the rollout.

Shapes:
    M  member of a batch      C  state channel
    R, K, Q, P  window row, window column, quadrant, pixel of a quadrant: the order of all states here
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from aeris import device as devices
from aeris.diffusion import noise, solver
from aeris.errors import ConfigurationError
from aeris.model.fields import Fields
from aeris.model.network import Network
from aeris.model.presets import SamplingRecipe
from aeris.training.checkpoint import Checkpoint, load_weights


class Forecaster:
    """A trained network that draws the next state.

    Args:
        checkpoint: A checkpoint or run.
        recipe: How to sample; None takes the checkpoint's own.
        precision: Dtype of the activations.
        compile: Whether to compile the network: slower to start, faster afterwards, with other rounding.

    Raises:
        CheckpointError: The checkpoint is unfinished or damaged.
        ConfigurationError: The sampler starts from noise that the network was not trained on.
    """

    def __init__(
        self,
        checkpoint: str | Path | Checkpoint,
        recipe: SamplingRecipe | None = None,
        precision: Literal["bfloat16", "float32", "float64"] = "bfloat16",
        compile: bool = False,
    ) -> None:
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint.open(checkpoint)
        self.recipe = recipe or self.checkpoint.sampling
        _check_noise(self.recipe, self.checkpoint)
        self.device = devices.choose()
        place, wide = self.device.torch_device, torch.float64 if precision == "float64" else torch.float32
        network = Network(self.checkpoint.model)
        load_weights(self.checkpoint, network, which="average")
        network.compute_dtype = getattr(torch, precision)
        network = network.to(place, wide).eval().requires_grad_(False)
        if compile and self.device.compile_available():
            network.compile_blocks()
        self.network = self.device.optimize(network)
        self.fields = Fields(self.checkpoint.statistics, self.checkpoint.geography, self.checkpoint.model.window, place, wide)

    @torch.no_grad()
    def step(self, states: Tensor, time: np.datetime64, lead: int, members: Sequence[int], seed: int, start: np.datetime64) -> Tensor:
        """Draws the next state of each member.

        Args:
            states: Physical states, tokens ``(M, R, K, Q, P, C)``.
            time: Their time.
            lead: Number of the step, from 1; part of the noise's name.
            members: Their numbers, part of the noise's name.
            seed: Seed of the forecast.
            start: Initial time, part of the noise's name.

        Returns:
            Physical states one interval later, as tokens.
        """
        fields, count = self.fields, len(states)
        condition = fields.condition(states, np.repeat(time, count), np.repeat(time + self.checkpoint.interval, count))
        seconds = int((start - np.datetime64(0, "s")) / np.timedelta64(1, "s"))

        def draw(purpose: str, *place: int) -> Tensor:
            keys = [noise.key(seed, purpose, lead, seconds, member, *place) for member in members]
            return fields.masked(noise.normals(keys, fields.ids, len(fields.channels), fields.dtype))

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return fields.masked(self.network(x, condition, t))

        residual = solver.sample(velocity, draw("sampling noise"), self.recipe, lambda number: draw("churn", number))
        return fields.next_state(states, residual)


def _check_noise(recipe: SamplingRecipe, checkpoint: Checkpoint) -> None:
    low, high = checkpoint.training.noise
    if recipe.noise[0] < low or recipe.noise[1] > high:
        raise ConfigurationError(
            f"The sampler's tan t runs from {recipe.noise[1]} to {recipe.noise[0]}, the network was trained from {high} to {low}",
            "A sampler stays inside the noise range of the training",
            f"Use noise=({max(low, recipe.noise[0])}, {min(high, recipe.noise[1])})",
        )


def rollout(
    forecaster: Forecaster, states: Tensor, start: np.datetime64, members: Sequence[int], seed: int, leads: int, first: int = 1
) -> Iterator[Tensor]:
    """Yields the states of steps `first` to `leads`.

    Args:
        forecaster: Draws the next state.
        states: Physical states at step `first` − 1, tokens ``(M, R, K, Q, P, C)``.
        start: Initial time.
        members: Number of each member.
        seed: Seed of the forecast.
        leads: Last step.
        first: First step; larger than 1 goes on with an interrupted rollout.
    """
    for lead in range(first, leads + 1):
        time = start + (lead - 1) * forecaster.checkpoint.interval
        states = forecaster.step(states, time, lead, members, seed, start)
        yield states
