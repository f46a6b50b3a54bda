"""From one state to the next, again and again: a generator that holds one state of each member and never the rollout.

Shapes:
    M  member of a batch      C  state channel
    R, K, Q, P  window row, window column, quadrant, pixel of a quadrant: the order of all states here
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from aeris import device as devices
from aeris.diffusion import noise, solver
from aeris.diffusion.transition import transition
from aeris.errors import ConfigurationError
from aeris.model.fields import Fields
from aeris.model.presets import Crps, SamplingRecipe, check_solver
from aeris.swipe import Groups, Pipeline, Requests, Stream, WindowTransformer, held_blocks, share
from aeris.training.checkpoint import Checkpoint, build, load_weights


@dataclass
class Ensemble:
    """Some members from one initial time, on their way.

    Attributes:
        start: Initial time.
        members: Number of each member.
        states: Their physical states, tokens ``(M, R, K, Q, P, C)``; None on ranks that do not hold the first stage.
        lead: Steps taken.
    """

    start: np.datetime64
    members: Sequence[int]
    states: Tensor | None
    lead: int = 0


class Forecaster:
    """A trained network that draws the next state.

    Args:
        checkpoint: A checkpoint or run.
        recipe: How to sample; None takes the checkpoint's own.
        precision: Dtype of the activations.
        compile: Whether to compile the network: slower to start, faster afterwards, with other rounding.
        groups: This rank's place in a layout; None is a process alone.

    Raises:
        CheckpointError: The checkpoint is unfinished or damaged.
        ConfigurationError: The sampler starts from noise that the network was not trained on, or is not for such a network.
    """

    def __init__(
        self,
        checkpoint: str | Path | Checkpoint,
        recipe: SamplingRecipe | None = None,
        precision: Literal["bfloat16", "float32", "float64"] = "bfloat16",
        compile: bool = False,
        groups: Groups | None = None,
    ) -> None:
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint.open(checkpoint)
        self.recipe = recipe or self.checkpoint.sampling
        check_sampler(self.recipe, self.checkpoint)
        self.device, self.groups = devices.choose(), groups or Groups.alone()
        self.device.reuse_freed_memory()
        model, layout = self.checkpoint.model, self.groups.layout
        place, wide = self.device.torch_device, torch.float64 if precision == "float64" else torch.float32
        network = build(model, held_blocks(model, self.groups))
        load_weights(self.checkpoint, network, network.state_dict(), "average")
        network.compute_dtype = getattr(torch, precision)
        network = network.to(place, wide).eval().requires_grad_(False)
        if compile and layout.sp == 1 and self.device.compile_available():
            network.compile_blocks()
        self.network = cast(WindowTransformer, self.device.optimize(network))
        part = None if layout.token_ranks == 1 else share(layout, self.groups.at)
        self.fields = Fields(self.checkpoint.statistics, self.checkpoint.geography, model.window, place, wide, part)
        self.pipeline = Pipeline(self.network, model, self.groups, place)
        self.stream = Stream(self.pipeline)
        self.calls = solver.calls(self.recipe)

    @torch.no_grad()
    def step(self, ensembles: Sequence[Ensemble], seed: int) -> None:
        """Moves each ensemble one interval on; those of one call have equally many members.

        Args:
            ensembles: The ensembles; together they fill the stages of a pipeline.
            seed: Seed of the forecast.
        """
        fields, count = self.fields, len(ensembles[0].members)
        given = [{"t_B": torch.full((count,), angle, dtype=fields.dtype, device=fields.device)} for angle in self.calls]
        answer = torch.empty(count, *fields.ids.shape, len(fields.channels), dtype=fields.dtype, device="meta")
        samplers = [self._requests(ensemble, seed) for ensemble in ensembles] if self.pipeline.has_first else []
        for ensemble, states in zip(ensembles, self.stream.run(samplers, len(ensembles), given, answer), strict=False):
            ensemble.states = states
        for ensemble in ensembles:
            ensemble.lead += 1

    def _requests(self, ensemble: Ensemble, seed: int) -> Requests:
        """The calls of one sampler, with noise that is named by seed, lead, initial time and member."""
        fields, states, members = self.fields, ensemble.states, ensemble.members
        assert states is not None
        lead, interval = ensemble.lead + 1, self.checkpoint.interval
        times = np.repeat(ensemble.start + ensemble.lead * interval, len(members))
        seconds = int((ensemble.start - np.datetime64(0, "s")) / np.timedelta64(1, "s"))

        def draw(purpose: str, *place: int) -> Tensor:
            keys = [noise.key(seed, purpose, lead, seconds, member, *place) for member in members]
            return noise.normals(keys, fields.ids, len(fields.channels), fields.dtype)

        return transition(fields, states, times, interval, self.recipe, draw)


def check_sampler(recipe: SamplingRecipe, checkpoint: Checkpoint) -> None:
    """Refuses a sampler that asks for what the network was not trained for.

    Raises:
        ConfigurationError: It begins with noise that the network has not seen, leaves the levels that it was tuned at, or is not for it.
    """
    check_solver(recipe, checkpoint.training.objective)
    low, high = checkpoint.training.noise
    first, last = recipe.noise[1], recipe.noise[1] if recipe.steps == 1 else recipe.noise[0]
    if last < low or first > high:
        raise ConfigurationError(
            f"The sampler's tan t runs from {first} to {last}, the network was trained from {high} to {low}",
            "A sampler stays inside the noise range of the training",
            f"Use noise=({max(low, recipe.noise[0])}, {min(high, recipe.noise[1])})",
        )
    tuned = checkpoint.sampling
    if isinstance(checkpoint.training.objective, Crps) and solver.calls(recipe) != solver.calls(tuned):
        raise ConfigurationError(
            f"The sampler calls the network at the angles {_rounded(recipe)}, the network was tuned at {_rounded(tuned)}",
            "Weights that were fine-tuned know the levels of the sampler that they were tuned with, and no others",
            f"Use {tuned}",
        )


def _rounded(recipe: SamplingRecipe) -> list[float]:
    return [round(angle, 3) for angle in solver.calls(recipe)]


def rollout(forecaster: Forecaster, ensembles: Sequence[Ensemble], leads: int, seed: int) -> Iterator[Ensemble]:
    """Yields each ensemble as often as it has moved one interval on, with the states that it has reached.

    Args:
        forecaster: Draws the next states.
        ensembles: Where they stand; those that were interrupted begin at their own lead.
        leads: Last step.
        seed: Seed of the forecast.
    """
    while active := [ensemble for ensemble in ensembles if ensemble.lead < leads]:
        forecaster.step(active, seed)
        yield from active
