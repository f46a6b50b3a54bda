"""How ranks are laid out: data × pipeline × window × sequence parallelism, as a value that checks itself.

Ranks are numbered with the sequence rank fastest, then the pipeline rank, the window column, the window row and the data replica,
so that the ranks that exchange most stand next to each other (arXiv 2509.13523; AERIS puts a sequence group on one node).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, Protocol, get_args

from aeris.errors import ConfigurationError

Schedule = Literal["gpipe", "1f1b", "interleaved_1f1b", "interleaved_zero_bubble", "zbv"]
STAGES_PER_RANK: dict[str, int] = {"gpipe": 1, "1f1b": 1, "interleaved_1f1b": 2, "interleaved_zero_bubble": 2, "zbv": 2}
ZERO_BUBBLE = ("interleaved_zero_bubble", "zbv")


class Shape(Protocol):
    """What a layout must know of a window transformer.

    Where several pixels are one token, it has beside these an attribute ``grain``: pixels that follow each other in a quadrant and
    cannot be parted.
    """

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of pixels."""

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of a window."""

    @property
    def depth(self) -> int:
        """Number of blocks."""

    @property
    def heads(self) -> int:
        """Number of attention heads."""

    def shifted(self, block: int) -> bool:
        """Whether a block works on the shifted partition."""


@dataclass(frozen=True, order=True)
class Coordinates:
    """Where a rank stands.

    Attributes:
        dp: Data replica.
        row: Row of the grid of window ranks.
        column: Column of the grid of window ranks.
        pp: Pipeline rank.
        sp: Sequence rank.
    """

    dp: int
    row: int
    column: int
    pp: int
    sp: int

    def __str__(self) -> str:
        return f"dp {self.dp}, wp ({self.row}, {self.column}), pp {self.pp}, sp {self.sp}"


@dataclass(frozen=True)
class Layout:
    """How many ranks share the batch, the blocks, the windows and the tokens of a window.

    Attributes:
        dp: Data replicas, each with its share of the batch.
        pp: Pipeline ranks, each with its share of the blocks.
        wp: Rows and columns of the grid of window ranks; windows are dealt to them in turn.
        sp: Sequence ranks, each with its share of every window: 1, 2 or a multiple of 4.
        schedule: Order of a pipeline's forward and backward passes.
        recompute: Whether a block keeps its input alone and is computed again in the backward pass: less memory, a third more work.
    """

    dp: int = 1
    pp: int = 1
    wp: tuple[int, int] = (1, 1)
    sp: int = 1
    schedule: Schedule = "1f1b"
    recompute: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "wp", tuple(self.wp))
        sizes = {"dp": self.dp, "pp": self.pp, "wp rows": self.wp[0], "wp columns": self.wp[1], "sp": self.sp}
        for name, size in sizes.items():
            if size < 1:
                raise ConfigurationError(f"{name}={size}", "Every axis of a layout has at least one rank", "Use 1")
        if self.sp > 2 and self.sp % 4:
            raise ConfigurationError(
                f"sp={self.sp}",
                "Sequence ranks hold quadrants of every window, or equal parts of one: 1, 2 or a multiple of 4",
                f"Use sp={max(2, self.sp - self.sp % 4)} or sp={self.sp + 4 - self.sp % 4}",
            )
        if self.schedule not in get_args(Schedule):
            raise ConfigurationError(f"schedule={self.schedule!r}", f"Schedules are {', '.join(get_args(Schedule))}", "Use '1f1b'")
        if self.recompute and self.schedule in ZERO_BUBBLE:
            raise ConfigurationError(
                f"recompute with schedule={self.schedule!r}",
                "A weight gradient that waits keeps the activations which recomputing would free",
                "Use schedule='1f1b' or 'interleaved_1f1b', or recompute=False",
            )

    def __str__(self) -> str:
        return (
            f"dp {self.dp} × pp {self.pp} × wp {self.wp[0]}×{self.wp[1]} × sp {self.sp}, {self.schedule}{', recomputed' * self.recompute}"
        )

    @property
    def world(self) -> int:
        """Number of ranks."""
        return self.dp * self.pp * self.wp[0] * self.wp[1] * self.sp

    @property
    def token_ranks(self) -> int:
        """Number of ranks that share one image at one stage."""
        return self.wp[0] * self.wp[1] * self.sp

    @property
    def stages(self) -> int:
        """Number of pipeline stages, of which some schedules put two on a rank."""
        return self.pp * self.stages_per_rank

    @property
    def stages_per_rank(self) -> int:
        """Stages on a rank; a pipeline of one rank has one."""
        return STAGES_PER_RANK[self.schedule] if self.pp > 1 else 1

    @property
    def folds(self) -> bool:
        """Whether a quadrant has ranks of its own, so that a shift only changes who sends to whom."""
        return self.sp % 4 == 0

    def coordinates(self, rank: int) -> Coordinates:
        """Where a rank stands."""
        rank, sp = divmod(rank, self.sp)
        rank, pp = divmod(rank, self.pp)
        rank, column = divmod(rank, self.wp[1])
        dp, row = divmod(rank, self.wp[0])
        return Coordinates(dp, row, column, pp, sp)

    def rank(self, at: Coordinates) -> int:
        """Inverse of :meth:`coordinates`."""
        return (((at.dp * self.wp[0] + at.row) * self.wp[1] + at.column) * self.pp + at.pp) * self.sp + at.sp

    def ranks(self, dp: int | None = None, wp: tuple[int, int] | None = None, pp: int | None = None, sp: int | None = None) -> list[int]:
        """Ranks with the given coordinates, in rising order.

        Args:
            dp: Data replica; None takes all.
            wp: Row and column of the window rank; None takes all.
            pp: Pipeline rank; None takes all.
            sp: Sequence rank; None takes all.
        """
        wanted = (dp, *(wp or (None, None)), pp, sp)
        axes = (self.dp, *self.wp, self.pp, self.sp)
        choices = [range(size) if value is None else (value,) for size, value in zip(axes, wanted, strict=True)]
        return sorted(self.rank(Coordinates(*at)) for at in product(*choices))

    def stage_rank(self, stage: int) -> int:
        """Pipeline rank that holds a stage: in turn, or there and back for the V schedule."""
        lap, place = divmod(stage, self.pp)
        return self.pp - 1 - place if self.schedule == "zbv" and lap % 2 else place

    def local_stages(self, pp: int) -> list[int]:
        """Stages that a pipeline rank holds."""
        return [stage for stage in range(self.stages) if self.stage_rank(stage) == pp]

    def check(self, shape: Shape, world: int | None = None, batch: int | None = None, micro_batch: int = 1) -> None:
        """Refuses what cannot be cut.

        Args:
            shape: The network's dimensions.
            world: Number of processes that there are; None leaves it open.
            batch: Images a step over all ranks; None leaves it open.
            micro_batch: Images of one forward pass.

        Raises:
            ConfigurationError: With the rule that is broken, and a value that would do.
        """
        if world is not None:
            self.check_world(world)
        _check_windows(self, shape)
        _check_sequence(self, shape)
        _check_pipeline(self, shape)
        if batch is not None:
            _check_batch(self, batch, micro_batch)

    def check_world(self, world: int) -> None:
        """Refuses another number of processes than there are ranks."""
        if world != self.world:
            raise ConfigurationError(
                f"The layout {self} needs {self.world} processes and there are {world}",
                "There is one process for each rank",
                f"Start {self.world} processes, or change the layout",
            )

    @staticmethod
    def suggest(model: Any, world: int, memory: float, batch: int | None = None) -> Layout:
        """The layout of so many ranks that fits into their memory and takes a training step the least work.

        Args:
            model: The network's dimensions, a `ModelConfig` or another `aeris.swipe.plan.Model`.
            world: Number of ranks.
            memory: Memory of a rank, 10⁹ bytes.
            batch: Images a step over all ranks; None takes one for each rank.

        Raises:
            ConfigurationError: No layout of so many ranks can cut the network and the batch, or none fits.
        """
        from aeris.swipe.plan import suggest

        return suggest(model, world, memory, batch or world).layout

    def micro_batches(self, batch: int, micro_batch: int) -> int:
        """Number of forward passes of a replica's share of a batch."""
        return batch // (self.dp * micro_batch)


@dataclass(frozen=True)
class StagePlan:
    """What one stage of a pipeline holds.

    Attributes:
        blocks: Its consecutive blocks.
        first: Whether it holds the embedding.
        last: Whether it holds the head.
    """

    blocks: range
    first: bool
    last: bool


def stage_plans(shape: Shape, stages: int) -> list[StagePlan]:
    """Divides a network among stages.

    Consecutive blocks, their numbers differing by at most one, the embedding with the first and the head with the last. With two
    stages more than there are runs of blocks of one partition, embedding and head have stages of their own, as in AERIS, and every
    change of partition falls between two stages.

    Raises:
        ConfigurationError: There are more stages than blocks to give them.
    """
    runs = _runs(shape)
    if stages == len(runs) + 2:
        return [
            StagePlan(range(0), True, False),
            *(StagePlan(run, False, False) for run in runs),
            StagePlan(range(shape.depth, shape.depth), False, True),
        ]
    if stages > shape.depth:
        raise ConfigurationError(
            f"{stages} pipeline stages for {shape.depth} blocks",
            f"A network has 1 to {shape.depth} stages, or {len(runs) + 2} with stages of their own for embedding and head",
            f"Use for example pp={shape.depth}",
        )
    small, more = divmod(shape.depth, stages)
    ends = [0]
    for stage in range(stages):
        ends.append(ends[-1] + small + (stage < more))
    return [StagePlan(range(ends[i], ends[i + 1]), i == 0, i == stages - 1) for i in range(stages)]


def _runs(shape: Shape) -> list[range]:
    """Runs of consecutive blocks that share a partition into windows."""
    starts = [block for block in range(shape.depth) if block == 0 or shape.shifted(block) != shape.shifted(block - 1)]
    return [range(start, end) for start, end in zip(starts, [*starts[1:], shape.depth], strict=True)]


def _check_windows(layout: Layout, shape: Shape) -> None:
    for axis, pixels, window, ranks in zip(("rows", "columns"), shape.grid, shape.window, layout.wp, strict=True):
        windows = pixels // window
        if windows % ranks:
            raise ConfigurationError(
                f"wp={layout.wp} for {windows} {axis} of windows",
                "Every window rank holds as many windows as the others, so the ranks of an axis divide its windows",
                f"For {axis} use one of {list(_divisors(windows))}",
            )


def _check_sequence(layout: Layout, shape: Shape) -> None:
    if shape.heads % layout.sp:
        raise ConfigurationError(
            f"sp={layout.sp} for {shape.heads} attention heads",
            "Attention deals heads to sequence ranks, so they divide the heads",
            f"Use one of {_sequence_sizes(shape)}",
        )
    quadrant = _parts(shape)
    if layout.folds and quadrant % (layout.sp // 4):
        raise ConfigurationError(
            f"sp={layout.sp} for quadrants of {quadrant} {'pixels' if getattr(shape, 'grain', 1) == 1 else 'parts'}",
            "A quarter of the sequence ranks share a quadrant in equal parts",
            f"Use one of {_sequence_sizes(shape)}",
        )


def _sequence_sizes(shape: Shape) -> list[int]:
    """Every legal number of sequence ranks."""
    return [sp for sp in _divisors(shape.heads) if sp <= 2 or (sp % 4 == 0 and _parts(shape) % (sp // 4) == 0)]


def _parts(shape: Shape) -> int:
    """Into how many parts a quadrant can be cut at most."""
    return shape.window[0] * shape.window[1] // 4 // getattr(shape, "grain", 1)


def _check_pipeline(layout: Layout, shape: Shape) -> None:
    if layout.pp == 1 and STAGES_PER_RANK[layout.schedule] > 1:
        raise ConfigurationError(f"schedule={layout.schedule!r} with pp=1", "It needs a pipeline of at least two ranks", "Use '1f1b'")
    stage_plans(shape, layout.stages)


def _check_batch(layout: Layout, batch: int, micro_batch: int) -> None:
    share = layout.dp * micro_batch
    if batch % share:
        raise ConfigurationError(
            f"batch={batch} with dp={layout.dp} and micro_batch={micro_batch}",
            "The batch is dealt to the replicas in whole micro-batches",
            f"Use a multiple of {share}, for example batch={max(1, round(batch / share)) * share}",
        )
    passes = layout.micro_batches(batch, micro_batch)
    if layout.pp > 1 and layout.schedule == "1f1b" and passes < layout.stages:
        raise ConfigurationError(
            f"{passes} micro-batches for {layout.stages} stages",
            "1F1B needs at least as many micro-batches as stages",
            f"Use batch={layout.stages * share} or more, or schedule='gpipe'",
        )
    rounds = max(1, passes // layout.pp)
    if layout.schedule.startswith("interleaved") and passes % rounds:
        raise ConfigurationError(
            f"{passes} micro-batches for {layout.pp} pipeline ranks",
            "Interleaved schedules work in equal rounds of about as many micro-batches as pipeline ranks",
            f"Use batch={rounds * layout.pp * share}",
        )


def _divisors(number: int) -> Iterator[int]:
    return (size for size in range(1, number + 1) if number % size == 0)
