"""Fine-tuning of a sampler through whole rollouts, on the fair CRPS of a few members.

Each sample is rolled out for some steps by a few members, states alone going from one step to the next; the last step is scored, and the
gradient goes through all of them (Swift, arXiv 2509.25631), or through the last few, so that a forecast of many days can be scored too.
What is trained is the sampler as it will be used: its network calls at its own noise levels, one after the other, so that few of them
suffice.

Members are samplers of a `Chain`, which recomputes every call on the way back, and fills the stages of a pipeline with them; of a
`Stream` where there is no way back.

Shapes:
    B  sample            R, K  window row, window column          Q, P  quadrant, pixel of a quadrant
    C  state channel
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aeris.diffusion import noise, solver
from aeris.diffusion.crps import weighted_crps
from aeris.diffusion.transition import transition
from aeris.model.fields import Fields
from aeris.model.presets import Crps
from aeris.swipe import Chain, Pipeline, Requests, Stream
from aeris.swipe.chain import gradient_of
from aeris.training.batches import Batch
from aeris.training.configuration import Configuration
from aeris.training.spectrum import Spectrum

Traveller = tuple[slice, int]
"""Some images of a batch, and the number of the member that is drawn for each of them."""


class CrpsTraining:
    """The fair CRPS after a rollout of as many steps as the curriculum asks for.

    Args:
        configuration: What is trained; its sampler is what is tuned.
        fields: From physical states to tokens.
        pipeline: The stages of this rank.
    """

    def __init__(self, configuration: Configuration, fields: Fields, pipeline: Pipeline) -> None:
        self.configuration, self.fields, self.pipeline = configuration, fields, pipeline
        self.chain, self.stream = Chain(pipeline), Stream(pipeline)
        self.loss_weight = fields.loss_weight(configuration.recipe.channel_weights)
        self.channel_weight = fields.channel_weight(configuration.recipe.channel_weights)
        self.spectrum = Spectrum(fields, pipeline.groups) if self.objective.spectrum and pipeline.has_first else None
        size, channels = configuration.micro_batch, len(fields.channels)
        self.angles = [
            torch.full((size,), angle, dtype=fields.dtype, device=fields.device) for angle in solver.calls(configuration.sampling)
        ]
        self.answer = torch.empty(*pipeline.tokens(size).shape[:-1], channels, dtype=fields.dtype, device="meta")

    @property
    def objective(self) -> Crps:
        """What the recipe asks for."""
        objective = self.configuration.recipe.objective
        assert isinstance(objective, Crps)
        return objective

    @property
    def members(self) -> int:
        """Members of a sample's ensemble."""
        return self.objective.members

    def step(self, batch: Batch) -> Tensor:
        """As `aeris.training.objectives.Objective`."""
        parts = batch.parts(self.configuration.micro_batch)
        # A process alone has nobody to keep busy, and takes what is in memory at once as small as it can be.
        together = [parts] if self.pipeline.groups.layout.pp > 1 else [[part] for part in parts]
        return torch.stack([self._there_and_back(batch, some) for some in together]).sum()

    def _there_and_back(self, batch: Batch, parts: Sequence[slice]) -> Tensor:
        """Rolls out some parts of a batch, scores them, and goes back; returns their part of the loss."""
        travellers = [(part, member) for part in parts for member in range(self.members)]
        begins, ends = self._roll_out(batch, travellers)
        loss, gradients = self.score(batch, parts, ends[-1])
        for begin, end in zip(reversed(begins), reversed(ends), strict=True):
            if end:
                torch.autograd.backward(end, gradients, retain_graph=True)
            self.chain.back()
            gradients = [gradient_of(state) for state in begin]
        return loss

    def _roll_out(self, batch: Batch, travellers: Sequence[Traveller]) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """States before and after each step that the gradient goes through, where each begins with leaves; none without the first stage."""
        interval_B = self.fields.hours(batch.lengths[: self.configuration.micro_batch])
        calls = [{"t_B": t_B, "interval_B": interval_B} for t_B in self.angles]
        given = batch.intervals - min(self.objective.gradient_steps or batch.intervals, batch.intervals)
        begins: list[list[Tensor]] = []
        ends: list[list[Tensor]] = []
        states = []
        if self.pipeline.has_first and batch.state is not None:
            states = [self.fields.tokens(batch.state[part]) for part, _ in travellers]
        for lead in range(1, batch.intervals + 1):
            # Before the first of these states is nothing that a gradient could move.
            states = [state.detach().requires_grad_(lead > given + 1) for state in states]
            requests = [self.requests(batch, traveller, lead, state) for traveller, state in zip(travellers, states, strict=False)]
            if lead <= given:
                states = self.stream.run(requests, len(travellers), calls, self.answer)
                continue
            begins.append(states)
            states = self.chain.run(requests, len(travellers), calls, self.answer)
            ends.append(states)
        return begins, ends

    def requests(self, batch: Batch, traveller: Traveller, lead: int, states: Tensor) -> Requests:
        """The network calls of one step.

        Args:
            batch: The batch.
            traveller: Which of its images, and which member.
            lead: Number of the step, from 1.
            states: Physical states that it begins with, tokens ``(B, R, K, Q, P, C)``.
        """
        (part, member), fields, seed = traveller, self.fields, self.configuration.seed
        interval = batch.lengths[0]

        def draw(purpose: str, *place: int) -> Tensor:
            keys = [noise.key(seed, f"fine-tuning {purpose}", image, lead, member, *place) for image in batch.images[part]]
            return noise.normals(keys, fields.ids, len(fields.channels), fields.dtype)

        return transition(fields, states, batch.times[part] + (lead - 1) * interval, interval, self.configuration.sampling, draw)

    def score(self, batch: Batch, parts: Sequence[slice], ends: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The loss of some parts of a batch and its gradient in the members' last states, in units of the residuals' deviations.

        Args:
            batch: The batch.
            parts: The parts.
            ends: Last states of the members of the first part, of the second, and so on; none on a rank without the first stage.
        """
        leaves = [end.detach().requires_grad_() for end in ends]
        loss = torch.zeros((), dtype=self.fields.dtype, device=self.fields.device)
        for number, part in enumerate(parts if leaves else ()):
            loss = loss + self._crps(leaves[number * self.members : (number + 1) * self.members], batch, part)
        return loss.detach(), list(torch.autograd.grad(loss, leaves)) if leaves else []

    def _crps(self, ensemble: Sequence[Tensor], batch: Batch, part: slice) -> Tensor:
        """What the members of some images add to the loss."""
        assert batch.state is not None and batch.target is not None
        truth, (_, std) = self.fields.tokens(batch.target[part]), self.fields.scale(batch.lengths[0])
        errors, images = [(member - truth) / std for member in ensemble], self.configuration.batch
        loss = weighted_crps(errors, torch.zeros_like(truth), self.loss_weight, images * self.fields.pixel_count)
        if self.spectrum is None:
            return loss
        relative = self.spectrum.relative_crps(errors, (truth - self.fields.tokens(batch.state[part])) / std)
        return loss + self.objective.spectrum * (self.channel_weight * relative).sum() / images
