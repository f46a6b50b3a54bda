"""AdamW whose gradients, moments and average are shared by all ranks that hold the same parameters.

Parameters and gradients of a rank are views of a few flat tensors. A step adds up the gradients of all holders and leaves each
with its part (reduce-scatter), takes the norm over the whole network, moves that part with its own moments, and collects the moved
parameters (all-gather): ZeRO-1 (arXiv 1910.02054), here over the data, window and sequence ranks of a stage together
(arXiv 2509.13523). Alone, nothing is sent.

Gradients are sums: the loss divides by the whole batch and globe, so that the threshold of clipping means the same in every layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from aeris.swipe.groups import Groups

MOMENTS = ("exp_avg", "exp_avg_sq")


class FlatParameters:
    """Some parameters of a rank as one tensor, of which it owns an equal part.

    Args:
        parameters: Parameters by name; they become views.
        groups: This rank's place.
        everywhere: Whether all ranks hold them, or those of this stage.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], groups: Groups, everywhere: bool = False) -> None:
        self.parameters, self._groups, self._everywhere = dict(parameters), groups, everywhere
        alone = groups.layout.world == 1
        self.ranks = 1 if alone else dist.get_world_size(self.group)
        self.rank = 0 if alone else dist.get_rank(self.group)
        first = next(iter(parameters.values()))
        count = sum(parameter.numel() for parameter in parameters.values())
        self.size = -(-count // self.ranks)
        self.values = torch.zeros(self.size * self.ranks, dtype=first.dtype, device=first.device)
        self.gradients = torch.zeros_like(self.values)
        with torch.no_grad():
            for name, view in self.views(self.values):
                view.copy_(parameters[name])
                parameters[name].data = view
        self.own = nn.Parameter(self.part(self.values))
        self.average = self.own.detach().clone()
        self.zero()

    @property
    def group(self) -> dist.ProcessGroup | None:
        """Ranks that hold the same."""
        return self._groups.world if self._everywhere else self._groups.holders

    def views(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """A flat tensor as the parameters' names and shapes."""
        start = 0
        for name, parameter in self.parameters.items():
            yield name, flat[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()

    def part(self, flat: Tensor) -> Tensor:
        """This rank's part of a flat tensor, a view."""
        return flat[self.rank * self.size : (self.rank + 1) * self.size]

    def zero(self) -> None:
        """Gradients of zero, again views of the flat tensor."""
        self.gradients.zero_()
        for name, view in self.views(self.gradients):
            self.parameters[name].grad = view

    def reduce(self) -> Tensor:
        """Sum of all holders' gradients, this rank's part."""
        if self.ranks == 1:
            return self.gradients
        part = torch.empty_like(self.own.data)
        _collective("reduce_scatter")(part, self.gradients, group=self.group)
        return part

    def collect(self, part: Tensor | None = None) -> Tensor:
        """All ranks' parts: of the parameters in place, or of another tensor as a new one."""
        if part is None and self.ranks == 1:
            return self.values
        whole = self.values if part is None else torch.empty_like(self.values)
        own = self.own.data if part is None else part
        if self.ranks == 1:
            return whole.copy_(own)
        _collective("all_gather")(whole, own.clone(), group=self.group)
        return whole


def _collective(name: str) -> Callable[..., Any]:
    """A collective on one flat tensor, whose name changed in torch 2.13."""
    older = {"reduce_scatter": "reduce_scatter_tensor", "all_gather": "all_gather_into_tensor"}[name]
    found: Callable[..., Any] = getattr(dist, f"{name}_single", None) or getattr(dist, older)
    return found


@dataclass(frozen=True)
class Update:
    """What a step did.

    Attributes:
        counted: Sums of what all ranks handed in to be added up.
        grad_norm: Norm of the whole network's gradient.
        finite: Whether the norm was finite; if not, nothing moved.
    """

    counted: list[float]
    grad_norm: float
    finite: bool


class ShardedAdamW:
    """AdamW over the parameters of one rank, sharded among all that hold them.

    Args:
        parameters: This rank's parameters by their name in the whole network.
        decayed: Names of those that decay.
        shared: Names of those that every stage of the pipeline holds.
        groups: This rank's place.
        weight_decay: Decoupled decay.
        betas: Decay rates of the moments.
        eps: Smallest denominator.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        decayed: Iterable[str],
        shared: Iterable[str],
        groups: Groups,
        weight_decay: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        self.groups = groups
        decayed, shared = set(decayed), set(shared)
        own = {name: parameter for name, parameter in parameters.items() if name not in shared}
        kinds = [
            ({name: parameter for name, parameter in own.items() if name in decayed}, False, weight_decay),
            ({name: parameter for name, parameter in own.items() if name not in decayed}, False, 0.0),
            ({name: parameter for name, parameter in parameters.items() if name in shared}, True, 0.0),
        ]
        kinds = [kind for kind in kinds if kind[0]]
        self.flats = [FlatParameters(held, groups, everywhere) for held, everywhere, _ in kinds]
        decays = [decay for _, _, decay in kinds]
        self.adamw = torch.optim.AdamW(
            [{"params": [flat.own], "weight_decay": decay} for flat, decay in zip(self.flats, decays, strict=True)],
            betas=betas,
            eps=eps,
            fused=True,
        )

    @torch.no_grad()
    def step(self, rate: float, clip: float, remember: float, counted: Tensor) -> Update:
        """Adds up the gradients, clips them, moves parameters and average, and empties the gradients.

        Args:
            rate: Step size.
            clip: Largest norm of the whole network's gradient.
            remember: Factor by which the average remembers.
            counted: This rank's part of some numbers that are added up on the way, such as the loss; float64.
        """
        parts = [flat.reduce() for flat in self.flats]
        squares = torch.stack([part.square().sum(dtype=torch.float64) for part in parts]).sum()
        sums = torch.cat([counted, squares[None]])
        if self.groups.layout.world > 1:
            dist.all_reduce(sums)
        *totals, square = sums.tolist()
        norm = math.sqrt(square) if square >= 0 else square
        finite = math.isfinite(norm)
        if finite:
            self._move(parts, rate, min(1.0, clip / (norm + 1e-6)), remember)
        for flat in self.flats:
            flat.zero()
        return Update(totals, norm, finite)

    def _move(self, parts: list[Tensor], rate: float, factor: float, remember: float) -> None:
        for flat, part, group in zip(self.flats, parts, self.adamw.param_groups, strict=True):
            flat.own.grad = part.mul_(factor)
            group["lr"] = rate
        self.adamw.step()
        for flat in self.flats:
            flat.average.lerp_(flat.own.data, 1 - remember)
            flat.own.grad = None
            flat.collect()

    def averages(self) -> dict[str, Tensor]:
        """The average of this rank's parameters by name; every holder calls it."""
        return self._named(flat.average for flat in self.flats)

    def moments(self) -> dict[str, Tensor]:
        """Both moments by ``exp_avg/NAME`` and ``exp_avg_sq/NAME``, and ``step``; every holder calls it."""
        moments: dict[str, Tensor] = {}
        for kind in MOMENTS:
            state = [self.adamw.state[flat.own].get(kind, torch.zeros_like(flat.average)) for flat in self.flats]
            moments |= {f"{kind}/{name}": tensor for name, tensor in self._named(iter(state)).items()}
        return moments

    def _named(self, parts: Iterator[Tensor]) -> dict[str, Tensor]:
        return {name: view for flat, part in zip(self.flats, parts, strict=True) for name, view in flat.views(flat.collect(part))}

    def begin(self) -> None:
        """Sets the average to the parameters, after they were changed from outside."""
        for flat in self.flats:
            flat.average.copy_(flat.own.data)

    @torch.no_grad()
    def load(self, averages: Mapping[str, Tensor], moments: Mapping[str, Tensor], steps: int) -> None:
        """Takes up what :meth:`averages` and :meth:`moments` gave, in any layout.

        Args:
            averages: At least those of this rank's parameters.
            moments: The same of the moments.
            steps: Updates so far.
        """
        for flat in self.flats:
            flat.average.copy_(flat.part(self._flat(flat, averages)))
            state = {kind: flat.part(self._flat(flat, moments, f"{kind}/")).clone() for kind in MOMENTS}
            self.adamw.state[flat.own] = {**state, "step": torch.tensor(float(steps))}

    def _flat(self, flat: FlatParameters, tensors: Mapping[str, Tensor], prefix: str = "") -> Tensor:
        whole = torch.zeros_like(flat.values)
        for name, view in flat.views(whole):
            view.copy_(tensors[prefix + name])
        return whole
