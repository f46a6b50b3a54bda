"""From one state to the next, again and again: a generator that holds those states from which steps still begin, and never the rollout.

Shapes:
    M  member of a batch      C  state channel
    R, K, Q, P  window row, window column, quadrant, pixel of a quadrant: the order of all states here
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from aeris import device as devices
from aeris.diffusion import noise, solver
from aeris.diffusion.transition import transition
from aeris.errors import ConfigurationError
from aeris.forecasting.course import Move, needed
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
        states: Their physical states, tokens ``(M, R, K, Q, P, C)``, by lead in intervals of the network: the newest, and those from which
            later steps begin. Empty on ranks that do not hold the first stage.
        moves: Steps taken.
    """

    start: np.datetime64
    members: Sequence[int]
    states: dict[int, Tensor] = field(default_factory=dict)
    moves: int = 0

    @property
    def newest(self) -> Tensor:
        """The states that were reached last."""
        return self.states[max(self.states)]

    def forget(self, kept: Container[int]) -> None:
        """Lets all states go but the newest and those of some leads."""
        newest = max(self.states, default=None)
        self.states = {lead: states for lead, states in self.states.items() if lead == newest or lead in kept}


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
        network = build(model, held_blocks(model, self.groups)).to(place, wide)  # first: weights of float64 pass through no narrower type
        load_weights(self.checkpoint, network, network.state_dict(), "average")
        network.compute_dtype = getattr(torch, precision)
        network = network.eval().requires_grad_(False)
        if compile and layout.sp == 1 and self.device.compile_available():
            network.compile_blocks()
        self.network = cast(WindowTransformer, self.device.optimize(network))
        part = None if layout.token_ranks == 1 else share(layout, self.groups.at)
        self.fields = Fields(self.checkpoint.statistics, self.checkpoint.geography, model.window, place, wide, part)
        self.pipeline = Pipeline(self.network, model, self.groups, place)
        self.stream = Stream(self.pipeline)
        self.calls = solver.calls(self.recipe)

    @torch.no_grad()
    def step(self, ensembles: Sequence[Ensemble], moves: Sequence[Move], seed: int) -> None:
        """Moves each ensemble one step on; those of one call have equally many members.

        Args:
            ensembles: The ensembles; together they fill the stages of a pipeline.
            moves: The step of each, all of one length.
            seed: Seed of the forecast.
        """
        fields, count = self.fields, len(ensembles[0].members)
        interval_B = fields.hours(np.repeat(moves[0].span * self.checkpoint.interval, count))
        angles = [torch.full((count,), angle, dtype=fields.dtype, device=fields.device) for angle in self.calls]
        given = [{"t_B": t_B, "interval_B": interval_B} for t_B in angles]
        answer = torch.empty(count, *fields.ids.shape, len(fields.channels), dtype=fields.dtype, device="meta")
        asking = zip(ensembles, moves, strict=True) if self.pipeline.has_first else ()
        samplers = [self._requests(ensemble, move, seed) for ensemble, move in asking]
        reached = self.stream.run(samplers, len(ensembles), given, answer)
        for ensemble, move, states in zip(ensembles, moves, reached, strict=False):
            ensemble.states[move.end] = states
        for ensemble in ensembles:
            ensemble.moves += 1

    def _requests(self, ensemble: Ensemble, move: Move, seed: int) -> Requests:
        """The calls of one sampler, with noise that is named by seed, lead, initial time and member."""
        fields, members, interval = self.fields, ensemble.members, self.checkpoint.interval
        times = np.repeat(ensemble.start + move.begin * interval, len(members))
        seconds = int((ensemble.start - np.datetime64(0, "s")) / np.timedelta64(1, "s"))

        def draw(purpose: str, *place: int) -> Tensor:
            keys = [noise.key(seed, purpose, move.end, seconds, member, *place) for member in members]
            return noise.normals(keys, fields.ids, len(fields.channels), fields.dtype)

        return transition(fields, ensemble.states[move.begin], times, move.span * interval, self.recipe, draw)


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


def rollout(forecaster: Forecaster, ensembles: Sequence[Ensemble], moves: Sequence[Move], seed: int) -> Iterator[Ensemble]:
    """Yields each ensemble as often as it has moved one step on, with the states that it has reached.

    Args:
        forecaster: Draws the next states.
        ensembles: Where they stand; those that were interrupted go on with a step of their own.
        moves: The steps from the initial states on.
        seed: Seed of the forecast.
    """
    while active := [ensemble for ensemble in ensembles if ensemble.moves < len(moves)]:
        # Ensembles that stand at different leads go together where their steps are as long as that of the one farthest behind.
        span = moves[min(ensemble.moves for ensemble in active)].span
        together = [ensemble for ensemble in active if moves[ensemble.moves].span == span]
        forecaster.step(together, [moves[ensemble.moves] for ensemble in together], seed)
        for ensemble in together:
            ensemble.forget(needed(moves, ensemble.moves))
        yield from together
