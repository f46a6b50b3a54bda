"""Stages of a pipeline, and the shift of windows folded into what they send.

The schedules are those of `torch.distributed.pipelining`. Where the partition into windows changes between two stages and every
sequence rank holds one quadrant or a part of one, the shift is nothing but another receiver: each rank sends what it would have
sent anyway to the rank that holds the quadrant afterwards (arXiv 2509.13523, SWiPe). Elsewhere `exchange.py` deals anew.

Shapes:
    B  sample            R, K  local window row, window column          Q, P  local quadrant, local pixel of a quadrant
    D  width
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aeris.device import Device, choose
from aeris.swipe.deferral import Deferral
from aeris.swipe.exchange import deal, held_quadrants, route, to_heads, to_sequence
from aeris.swipe.groups import Groups
from aeris.swipe.layout import ZERO_BUBBLE, Coordinates, Layout, Shape, StagePlan, stage_plans
from aeris.swipe.tokens import QUADRANTS, share

if TYPE_CHECKING:
    from aeris.swipe.routed_stage import RoutedStage

Loss = Callable[[Tensor, Tensor], Tensor]
"""Output and target of some samples to their part of the loss."""

Pass = tuple[tuple[Tensor, ...], Tensor | None, dict[str, Tensor]]
"""What one forward pass takes: inputs (for the first stage), target (for the last), and what `context` takes."""

SCHEDULES = {
    "gpipe": "GPipe",
    "1f1b": "1F1B",
    "interleaved_1f1b": "Interleaved1F1B",
    "interleaved_zero_bubble": "InterleavedZeroBubble",
    "zbv": "ZBVZeroBubble",
}


class WindowTransformer(Protocol):
    """What a network offers so that it can be sharded; see `aeris.swipe`.

    Attributes:
        blocks: Its blocks; each is called with tokens, context and seam, and holds an ``attention`` with a method ``mix``.
        context: Makes what all blocks and the head share from small inputs, such as the diffusion time.
        embed: Inputs to tokens ``(B, R, K, Q, P, D)``.
        read_out: Tokens and context to the output.
        token_fields: Names of buffers that start with the axes R, K, Q, P.
        width: Width of a token.
        tokens_per_pixel: Tokens of a pixel, for example one for each level; the tokens of a pixel follow each other in P. Below one where
            several pixels are one token.
        compute_dtype: Dtype of tokens between embedding and head.
    """

    blocks: nn.ModuleList
    compute_dtype: torch.dtype

    @property
    def context(self) -> Callable[..., Any]:
        """As above."""

    @property
    def embed(self) -> Callable[..., Tensor]:
        """As above."""

    @property
    def read_out(self) -> Callable[[Tensor, Any], Tensor]:
        """As above."""

    @property
    def token_fields(self) -> tuple[str, ...]:
        """As above."""

    @property
    def width(self) -> int:
        """As above."""

    @property
    def tokens_per_pixel(self) -> float:
        """As above."""


def parallelize(network: Any, layout: Layout, device: Device | None = None) -> Pipeline:
    """Shards a network among the processes of a layout; every process calls it with the same whole network.

    Afterwards `Pipeline.parameters` names what this rank holds, `Pipeline.step` runs its part of a forward and backward pass, and
    `ShardedAdamW` moves the parameters.

    Args:
        network: A network that follows :class:`WindowTransformer`, with its dimensions in ``config`` (:class:`Shape`).
        layout: How ranks share it.
        device: Where it computes; None chooses.

    Raises:
        ConfigurationError: The layout cannot cut it, or there are more or fewer processes than ranks.
    """
    device = device or choose()
    layout.check(network.config)
    return Pipeline(network, network.config, Groups.join(layout, device), device.torch_device)


class Boundary:
    """What happens between two stages.

    Args:
        layout: The layout.
        ends: Whether the earlier stage ends in the shifted partition.
        starts: Whether the later one starts there.
        stage: Number of the earlier stage.
    """

    def __init__(self, layout: Layout, ends: bool, starts: bool, stage: int) -> None:
        self.layout, self.ends, self.stage = layout, ends, stage
        apart = layout.stage_rank(stage) != layout.stage_rank(stage + 1)
        self.folded = layout.folds and ends != starts and apart
        self.arrives = starts if self.folded else ends

    def receiver(self, at: Coordinates) -> int:
        """The rank to which the rank at some coordinates sends its activations."""
        return self._peer(at, self.stage + 1, self.ends)

    def sender(self, at: Coordinates) -> int:
        """The rank from which it receives them."""
        return self._peer(at, self.stage, not self.ends)

    def leave(self, x: Tensor, at: Coordinates) -> Tensor:
        """Moves windows to the places that they will have with the receiver."""
        if not self.folded:
            return x
        roll = route(self.layout, at, held_quadrants(self.layout, at)[0], self.ends).roll
        return x.roll(roll, (1, 2)) if any(roll) else x

    def _peer(self, at: Coordinates, stage: int, back: bool) -> int:
        if self.folded:
            at = route(self.layout, at, held_quadrants(self.layout, at)[0], back).at
        return self.layout.rank(Coordinates(at.dp, at.row, at.column, self.layout.stage_rank(stage), at.sp))


def boundaries(layout: Layout, shape: Shape, plans: list[StagePlan]) -> list[Boundary]:
    """What happens after each stage but the last."""
    starts = [bool(plan.blocks) and shape.shifted(plan.blocks[0]) for plan in plans]
    ends = [bool(plan.blocks) and shape.shifted(plan.blocks[-1]) for plan in plans]
    return [Boundary(layout, ends[i], starts[i + 1], i) for i in range(len(plans) - 1)]


class Stage(nn.Module):
    """Consecutive blocks of a network on one rank, with the embedding before the first and the head after the last.

    Args:
        network: The network.
        shape: Its dimensions.
        plan: What this stage holds.
        before: The boundary before it, None for the first.
        after: The boundary after it, None for the last.
        groups: This rank's place.
    """

    def __init__(
        self, network: WindowTransformer, shape: Shape, plan: StagePlan, before: Boundary | None, after: Boundary | None, groups: Groups
    ) -> None:
        super().__init__()
        self._network = (network,)  # in a tuple, so that not all its parameters count as this stage's
        self.shape, self.plan, self.groups = shape, plan, groups
        self.before, self.after = before, after
        self.held = nn.ModuleDict({name.replace(".", "/"): module for name, module in held_modules(network, plan).items()})
        self.seam = groups.at.row == groups.layout.wp[0] - 1, groups.at.column == groups.layout.wp[1] - 1

    @property
    def network(self) -> WindowTransformer:
        """The network of which this is a stage."""
        return self._network[0]

    def forward(self, *inputs: Tensor, **given: Tensor) -> Tensor:
        """Runs the stage.

        Args:
            *inputs: The network's inputs for the first stage, tokens for the others.
            **given: What `context` takes.
        """
        network = self.network
        context = network.context(**given)
        x = network.embed(*inputs) if self.plan.first else inputs[0]
        shifted = self.before is not None and self.before.arrives
        for block in self.plan.blocks:
            x, shifted = self._partition(x, shifted, self.shape.shifted(block))
            x = self._block(network.blocks[block], x, context, (self.seam[0] and shifted, self.seam[1] and shifted))
        if self.plan.last:
            return network.read_out(self._partition(x, shifted, False)[0], context)
        assert self.after is not None
        return self.after.leave(x, self.groups.at)

    def _block(self, block: nn.Module, x: Tensor, context: Any, seam: tuple[bool, bool]) -> Tensor:
        if self.groups.layout.recompute and torch.is_grad_enabled():
            return checkpoint(block, x, context, seam, use_reentrant=False, preserve_rng_state=False)
        return block(x, context, seam)

    def _partition(self, x: Tensor, shifted: bool, wanted: bool) -> tuple[Tensor, bool]:
        return (deal(x, self.groups, back=shifted) if shifted != wanted else x), wanted


def held_modules(network: WindowTransformer, plan: StagePlan) -> dict[str, nn.Module]:
    """Modules of one stage by name: its blocks, embedding or head, and whatever else all stages share."""
    modules = {f"blocks.{block}": network.blocks[block] for block in plan.blocks}
    for name, module in network.named_children():  # type: ignore[attr-defined]
        if name != "blocks" and {"embedding": plan.first, "head": plan.last}.get(name, True):
            modules[name] = module
    return modules


def held_blocks(shape: Shape, groups: Groups) -> set[int]:
    """Blocks of the stages of a rank; its network needs no others."""
    groups.layout.check(shape)
    plans = stage_plans(shape, groups.layout.stages)
    return {block for stage in groups.layout.local_stages(groups.at.pp) for block in plans[stage].blocks}


def _replace(network: WindowTransformer, name: str, change: Callable[[Tensor], Tensor]) -> None:
    """Changes a buffer of a network."""
    path, _, last = name.rpartition(".")
    module = network.get_submodule(path)  # type: ignore[attr-defined]
    module.register_buffer(last, change(getattr(module, last)), persistent=False)


def share_heads(block: nn.Module, groups: Groups) -> None:
    """Makes a block's attention work on its rank's heads of whole windows.

    `block.attention.mix(qkv, seam, heads)` mixes the tokens of whole windows for some heads; it is wrapped in the exchange of
    sequence for heads, one message for queries, keys and values, and one back.
    """
    attention: Any = block.attention
    mix, ranks = attention.mix, groups.layout.sp

    def mix_shared(qkv: Tensor, seam: tuple[bool, bool], heads: slice) -> Tensor:
        size = (heads.stop - heads.start) // ranks
        own = slice(heads.start + groups.at.sp * size, heads.start + (groups.at.sp + 1) * size)
        return to_sequence(mix(to_heads(qkv, groups), seam, own), groups)

    attention.mix = mix_shared


class Pipeline:
    """All stages of one rank, and the order of their passes.

    Args:
        network: The network; blocks that other ranks hold may be left out.
        shape: Its dimensions.
        groups: This rank's place.
        device: Where it computes.
    """

    def __init__(self, network: WindowTransformer, shape: Shape, groups: Groups, device: torch.device) -> None:
        layout = groups.layout
        layout.check(shape)
        self.shape, self.groups, self.device = shape, groups, device
        self._schedules: dict[tuple[int, int], Any] = {}
        self._loss: Loss | None = None
        plans = stage_plans(shape, layout.stages)
        self.boundaries = boundaries(layout, shape, plans)
        if layout.sp > 1:
            for block in held_blocks(shape, groups):
                share_heads(network.blocks[block], groups)
        own = share(layout, groups.at)
        for name in network.token_fields if layout.token_ranks > 1 else ():
            _replace(network, name, own.cut)
        around: list[Boundary | None] = [None, *self.boundaries, None]
        self.stages = {
            index: Stage(network, shape, plans[index], around[index], around[index + 1], groups)
            for index in layout.local_stages(groups.at.pp)
        }
        self._deferrals = {}
        if layout.schedule in ZERO_BUBBLE:
            # Of blocks alone: what several stages of a rank share could not tell whose gradient waits.
            own_blocks = {index: nn.ModuleList(network.blocks[block] for block in plans[index].blocks) for index in self.stages}
            self._deferrals = {index: Deferral(blocks) for index, blocks in own_blocks.items()}

    @property
    def has_first(self) -> bool:
        """Whether this rank takes the inputs."""
        return 0 in self.stages

    @property
    def has_last(self) -> bool:
        """Whether this rank gives the output."""
        return self.groups.layout.stages - 1 in self.stages

    def routes(self, index: int) -> dict[int, int]:
        """Rank that holds this rank's tokens at the stages before and after one of its own."""
        at, routes = self.groups.at, {}
        if index > 0:
            routes[index - 1] = self.boundaries[index - 1].sender(at)
        if index < len(self.boundaries):
            routes[index + 1] = self.boundaries[index].receiver(at)
        return routes

    def complete(self, index: int) -> None:
        """Adds those gradients of a stage's weights that a zero-bubble schedule would have put off."""
        if index in self._deferrals:
            self._deferrals[index].take()()

    def parameters(self) -> dict[str, nn.Parameter]:
        """Parameters that this rank holds, by their name in the whole network."""
        modules = {name: module for stage in self.stages.values() for name, module in held_modules(stage.network, stage.plan).items()}
        return {f"{name}.{key}": parameter for name, module in modules.items() for key, parameter in module.named_parameters()}

    def shared_parameters(self) -> list[str]:
        """Names of those that every stage holds."""
        return [name for name in self.parameters() if name.split(".")[0] not in ("blocks", "embedding", "head")]

    def step(self, loss: Loss, passes: Sequence[Callable[[], Pass]]) -> Tensor:
        """Runs forward and backward passes of a replica's share of a batch; gradients add up in the parameters.

        Args:
            loss: Part of the loss of some samples; parts add up, so it divides by whole numbers, never by its own.
            passes: Makes what each pass takes, all of the same size.

        Returns:
            Sum of the losses on a rank with the last stage, zero elsewhere.
        """
        losses: list[Tensor] = []
        if self.groups.layout.pp == 1:
            for make in passes:
                inputs, target, given = make()
                assert target is not None
                value = loss(self.stages[0](*inputs, **given), target)
                value.backward()
                losses.append(value.detach())
        else:
            self._run_schedule(loss, [make() for make in passes], losses)
        return torch.stack(losses).sum().detach() if losses else torch.zeros((), device=self.device)

    def _run_schedule(self, loss: Loss, made: list[Pass], losses: list[Tensor]) -> None:
        first = made[0]
        schedule = self._schedule(loss, len(made), first)
        inputs = [torch.cat(parts) for parts in zip(*(inputs for inputs, _, _ in made), strict=True)]
        given = {name: torch.cat([given[name] for _, _, given in made]) for name in first[2]}
        schedule.step(
            *(inputs if self.has_first else ()),
            target=torch.cat([target for _, target, _ in made if target is not None]) if self.has_last else None,
            losses=losses if self.has_last else None,
            return_outputs=False,
            **given,
        )

    def _schedule(self, loss: Loss, count: int, example: Pass) -> Any:
        """The schedule for so many passes of this size, made once."""
        self._loss = loss
        samples = len(next(iter(example[2].values())))
        if (count, samples) not in self._schedules:
            # It takes longer to import than torch itself, and a process alone needs none.
            from torch.distributed.pipelining.schedules import get_schedule_class

            kind = get_schedule_class(SCHEDULES[self.groups.layout.schedule])
            stages = [self._routed(index, example, samples) for index in self.stages]
            held = stages if self.groups.layout.stages_per_rank > 1 else stages[0]
            self._schedules[count, samples] = kind(held, count, loss_fn=lambda *pair: self._loss(*pair), scale_grads=False)
        return self._schedules[count, samples]

    def _routed(self, index: int, example: Pass, samples: int) -> RoutedStage:
        from aeris.swipe.routed_stage import RoutedStage

        stage, (inputs, target, _) = self.stages[index], example
        tokens = self.tokens(samples)
        received = tuple(tensor.to("meta") for tensor in inputs) if stage.plan.first else (tokens,)
        given = target.to("meta") if stage.plan.last and target is not None else tokens
        deferral = self._deferrals.get(index)
        return RoutedStage(stage, index, self.routes(index), self.groups, (received, given), self.device, deferral)

    def tokens(self, samples: int) -> Tensor:
        """Example of what stages send to each other for so many samples, on the meta device."""
        shape, layout = self.shape, self.groups.layout
        windows = [pixels // window // ranks for pixels, window, ranks in zip(shape.grid, shape.window, layout.wp, strict=True)]
        quadrants = max(1, QUADRANTS // layout.sp)
        pixels = shape.window[0] * shape.window[1] // (layout.sp * quadrants)
        network = next(iter(self.stages.values())).network
        size = (samples, *windows, quadrants, round(pixels * network.tokens_per_pixel), network.width)
        return torch.empty(size, dtype=network.compute_dtype, device="meta", requires_grad=True)
