"""What a layout costs a rank: memory, bytes sent and idle time, as closed formulas, and which layout to take.

The bytes are those that `aeris.swipe.ledger` counts; nothing is measured here and no process is started.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd, prod
from typing import Protocol

from aeris.errors import ConfigurationError
from aeris.swipe.exchange import held_quadrants, route
from aeris.swipe.layout import Coordinates, Layout, Shape, StagePlan, stage_plans

STATE_BYTES, SHARDED_BYTES = 8, 12
"""Of a parameter: float32 weight and gradient on every rank that holds it; two moments and an average, shared by them."""

OPERATIONS_PER_BYTE = 10_000
"""Operations that a rank does while it sends one byte: half of a GPU of Aurora's class over a link of a few GB/s."""


class Model(Shape, Protocol):
    """What a plan must know of a network."""

    @property
    def dim(self) -> int:
        """Width of a token."""

    @property
    def parameters_by_part(self) -> dict[str, int]:
        """Parameters of a ``block``, the ``embedding``, the ``head``, and what every stage holds (``shared``)."""

    @property
    def kept_bytes(self) -> int:
        """Bytes that a block keeps of a token for the backward pass."""

    @property
    def operations(self) -> float:
        """Operations of one image in training."""


@dataclass(frozen=True)
class Plan:
    """What a layout costs the rank that has most of it.

    Attributes:
        layout: The layout.
        memory_gb: Memory by part, 10⁹ bytes: ``weights`` with their gradients, ``optimizer`` with the average, ``activations``.
        sent: Bytes sent in a step by kind, as in the ledger: ``pipeline, heads, shift, gradients, parameters``.
        bubble: Idle share of a step.
        operations: Operations of a rank in a step.
    """

    layout: Layout
    memory_gb: dict[str, float]
    sent: dict[str, int]
    bubble: float
    operations: float

    @property
    def memory(self) -> float:
        """All memory, 10⁹ bytes."""
        return sum(self.memory_gb.values())

    @property
    def work(self) -> float:
        """What a step takes, in operations of one rank: its own, the bytes it sends, and the bubble."""
        return self.operations / (1 - self.bubble) + OPERATIONS_PER_BYTE * sum(self.sent.values())

    def __str__(self) -> str:
        lines = [str(self.layout), f"{'bubble':<22}{self.bubble:>15.1%}"]
        lines += [f"{'memory, ' + part:<22}{size:>12.2f} GB" for part, size in {**self.memory_gb, "all": self.memory}.items()]
        lines += [f"{'sent, ' + kind:<22}{size / 1e9:>12.3f} GB" for kind, size in {**self.sent, "all": sum(self.sent.values())}.items()]
        return "\n".join([*lines, f"{'operations':<22}{self.operations / 1e12:>12.3f} TFLOP"])


def plan(model: Model, layout: Layout, batch: int, micro_batch: int = 1, element: int = 2) -> Plan:
    """What a training step of a layout costs the rank that has most of it.

    Args:
        model: The network.
        layout: How ranks share it.
        batch: Images a step over all ranks.
        micro_batch: Images of a forward pass.
        element: Bytes of an element of the activations; 2 is bfloat16.

    Raises:
        ConfigurationError: The layout cannot cut the network or the batch.
    """
    layout.check(model, batch=batch, micro_batch=micro_batch)
    passes, images = layout.micro_batches(batch, micro_batch), batch // layout.dp
    # Window ranks differ only where they are the last of their row or column.
    windows = [(row, column) for row in {0, layout.wp[0] - 1} for column in {0, layout.wp[1] - 1}]
    ranks = [Coordinates(0, *place, pp, 0) for place in windows for pp in range(layout.pp)]
    sent = [_sent(model, layout, at, images, element) for at in ranks]
    return Plan(
        layout,
        memory_of(model, layout, batch, micro_batch),
        max(sent, key=lambda kinds: sum(kinds.values())),
        bubble(layout, passes),
        model.operations * batch / layout.world * (4 / 3 if layout.recompute else 1),
    )


def sent_bytes(model: Model, layout: Layout, rank: int, batch: int, element: int = 2) -> dict[str, int]:
    """Bytes that a rank sends in a training step, by kind.

    With b images a replica, n tokens of an image on a rank, width d, e bytes an element, N = DP·WP·SP ranks that hold a stage:

    * ``pipeline``: b·n·d·e for each end of a stage where tokens leave for another rank, forward or backward, whether windows shift or not;
    * ``heads``: for each block 2·b·n·4d·e·(SP − 1)/SP: q, k and v in one message and what comes back, forward and backward; half as
      much again where blocks are recomputed;
    * ``shift``: where the partition changes inside a stage, or between two on one rank, or SP is no multiple of 4: the quadrants that
      change their rank, forward and backward;
    * ``gradients``, ``parameters``: each (N − 1)/N of the parameters in float32; of what all stages share, N is all ranks.

    Args:
        model: The network.
        layout: How ranks share it.
        rank: The rank.
        batch: Images a step over all ranks.
        element: Bytes of an element of the activations.
    """
    return _sent(model, layout, layout.coordinates(rank), batch // layout.dp, element)


def _sent(model: Model, layout: Layout, at: Coordinates, images: int, element: int) -> dict[str, int]:
    plans = stage_plans(model, layout.stages)
    own = layout.local_stages(at.pp)
    message = images * prod(model.grid) // layout.token_ranks * model.dim * element
    blocks = sum(len(plans[stage].blocks) for stage in own)
    holders = layout.dp * layout.token_ranks
    ends = [(stage, stage + way) for stage in own for way in (-1, 1) if 0 <= stage + way < layout.stages]
    leaving = sum(layout.stage_rank(stage) != layout.stage_rank(other) for stage, other in ends)
    shared, world = model.parameters_by_part["shared"], layout.world
    reduced = 4 * ((_parameters(model, plans, own) - shared) * (holders - 1) // holders + shared * (world - 1) // world)
    return {
        "pipeline": message * leaving,
        "heads": (3 if layout.recompute else 2) * blocks * 4 * message * (layout.sp - 1) // layout.sp,
        "shift": sum(2 * _moved(layout, at, message, back) for back in _dealt_inside(model, layout, plans, own)),
        "gradients": reduced,
        "parameters": reduced,
    }


def _dealt_inside(model: Model, layout: Layout, plans: list[StagePlan], own: list[int]) -> Iterator[bool]:
    """The changes of partition for which a rank deals quadrants anew; whether each is one back to the regular partition."""
    for stage in own:
        shifted = _arrives(model, layout, plans, stage)
        wanted = [model.shifted(block) for block in plans[stage].blocks] + [False] * plans[stage].last
        for partition in wanted:
            if partition != shifted:
                yield shifted
            shifted = partition


def _arrives(model: Model, layout: Layout, plans: list[StagePlan], stage: int) -> bool:
    """Whether tokens come to a stage in the shifted partition."""
    before, here = (plans[stage - 1] if stage else None), plans[stage]
    ends = bool(before and before.blocks) and model.shifted(before.blocks[-1])  # type: ignore[union-attr]
    starts = bool(here.blocks) and model.shifted(here.blocks[0])
    folded = stage > 0 and layout.folds and layout.stage_rank(stage - 1) != layout.stage_rank(stage)
    return starts if folded else ends


def _moved(layout: Layout, at: Coordinates, message: int, back: bool) -> int:
    """Bytes of a message that leave a rank when quadrants are dealt anew."""
    held = held_quadrants(layout, at)
    return message * sum(route(layout, at, quadrant, back).at != at for quadrant in held) // len(held)


def _parameters(model: Model, plans: list[StagePlan], own: list[int]) -> int:
    """Parameters of a rank's stages."""
    parts = model.parameters_by_part
    blocks = sum(len(plans[stage].blocks) for stage in own)
    ends = parts["embedding"] * any(plans[stage].first for stage in own) + parts["head"] * any(plans[stage].last for stage in own)
    return blocks * parts["block"] + ends + parts["shared"]


def memory_of(model: Model, layout: Layout, batch: int, micro_batch: int = 1) -> dict[str, float]:
    """Memory of the rank that needs most, 10⁹ bytes, by part; in bfloat16 with a fused attention kernel.

    Args:
        model: The network.
        layout: How ranks share it.
        batch: Images a step over all ranks.
        micro_batch: Images of a forward pass.
    """
    plans, passes = stage_plans(model, layout.stages), layout.micro_batches(batch, micro_batch)
    tokens = micro_batch * prod(model.grid) // layout.token_ranks
    ranks = [_memory(model, layout, plans, pp, passes, tokens) for pp in range(layout.pp)]
    return max(ranks, key=lambda parts: sum(parts.values()))


def _memory(model: Model, layout: Layout, plans: list[StagePlan], pp: int, passes: int, tokens: int) -> dict[str, float]:
    own = layout.local_stages(pp)
    parameters = _parameters(model, plans, own)
    kept = passes_kept(layout, pp, passes) * max(len(plans[stage].blocks) for stage in own) * tokens
    # Recomputed blocks keep their input, and one at a time all the rest.
    each, once = (2 * model.dim, model.kept_bytes) if layout.recompute else (model.kept_bytes, 0)
    return {
        "weights": STATE_BYTES * parameters / 1e9,
        "optimizer": SHARDED_BYTES * parameters / (layout.dp * layout.token_ranks) / 1e9,
        "activations": (kept * each + tokens * once) / 1e9,
    }


def passes_kept(layout: Layout, pp: int, passes: int) -> int:
    """Forward passes whose backward pass is still to come, at most, over the stages of a rank."""
    stages = layout.stages_per_rank
    waiting = {
        "gpipe": passes,
        "1f1b": layout.pp - pp,
        "interleaved_1f1b": 2 * (layout.pp - 1 - pp) + (stages - 1) * layout.pp + 1,
        "interleaved_zero_bubble": 2 * (layout.pp - 1 - pp) + (stages - 1) * layout.pp + 1,
        "zbv": 2 * layout.pp,
    }[layout.schedule]
    # A pipeline of one rank runs one pass after the other.
    return 1 if layout.pp == 1 else min(waiting, stages * passes)


def bubble(layout: Layout, passes: int) -> float:
    """Idle share of a step in which forward, input gradient and weight gradient take equally long.

    (PP − 1)/(v·M + PP − 1) of v stages a rank and M passes; in zero-bubble schedules weight gradients fill two thirds of it, in the V
    schedule all (arXiv 2401.10241).

    Args:
        layout: The layout.
        passes: Passes of a step.
    """
    idle = (layout.pp - 1) / (layout.stages_per_rank * passes + layout.pp - 1)
    return {"interleaved_zero_bubble": idle / 3, "zbv": 0.0 if passes >= 2 * layout.pp else idle / 3}.get(layout.schedule, idle)


def suggest(model: Model, world: int, memory: float, batch: int) -> Plan:
    """The layout of so many ranks that fits into their memory and takes a training step the least work.

    Args:
        model: The network.
        world: Number of ranks.
        memory: Memory of a rank, 10⁹ bytes.
        batch: Images a step over all ranks.

    Raises:
        ConfigurationError: No layout of so many ranks can cut the network and the batch, or none fits.
    """
    layouts = list(legal_layouts(model, world, batch))
    if not layouts:
        raise ConfigurationError(
            f"There is no layout of {world} ranks for {batch} images a step",
            "Data replicas divide the batch, window ranks the windows, sequence ranks (1, 2 or a multiple of 4) the heads, and there is at "
            "least one block for each stage",
            f"Use for example world={next(n for n in range(world, 0, -1) if any(legal_layouts(model, n, batch)))}",
        )
    needed = {layout: sum(memory_of(model, layout, batch).values()) for layout in layouts}
    fitting = [layout for layout, size in needed.items() if size <= memory]
    if not fitting:
        least = min(needed, key=needed.__getitem__)
        raise ConfigurationError(
            f"memory={memory} GB a rank",
            f"On {world} ranks the network needs {needed[least]:.1f} GB or more, as {least}",
            "Use more ranks, or ranks with more memory",
        )
    return min((plan(model, layout, batch) for layout in fitting), key=lambda one: one.work)


def legal_layouts(model: Shape, world: int, batch: int) -> Iterator[Layout]:
    """Every layout of so many ranks that can cut a network and a batch into micro-batches of one image.

    Args:
        model: The network.
        world: Number of ranks.
        batch: Images a step over all ranks.
    """
    for dp in _divisors(gcd(world, batch)):
        for pp in _divisors(world // dp):
            for rows in _divisors(gcd(world // dp // pp, model.grid[0] // model.window[0])):
                for columns in _divisors(gcd(world // dp // pp // rows, model.grid[1] // model.window[1])):
                    yield from _legal(model, dp, pp, (rows, columns), world // (dp * pp * rows * columns), batch)


def _legal(model: Shape, dp: int, pp: int, wp: tuple[int, int], sp: int, batch: int) -> Iterator[Layout]:
    """The layout without and with recomputation, if it can cut them."""
    try:
        Layout(dp, pp, wp, sp).check(model, batch=batch)
    except ConfigurationError:
        return
    yield Layout(dp, pp, wp, sp)
    yield Layout(dp, pp, wp, sp, recompute=True)


def _divisors(number: int) -> Iterator[int]:
    return (size for size in range(1, number + 1) if number % size == 0)
