"""A chain of calls and the way back: the numbers of one process in any layout, and no rank that waits for ever."""

from __future__ import annotations

from collections import defaultdict, deque

import pytest
import torch
from test_layouts import MODEL, assert_same_steps, perturb

from aeris.data.store import Store
from aeris.model.presets import Crps, SamplingRecipe, TrainingRecipe
from aeris.swipe import Groups, Layout
from aeris.swipe.messages import Messages
from aeris.training.configuration import configure
from aeris.training.trainer import Trainer

RECIPE = TrainingRecipe(
    warmup_images=8, clip=0.05, learning_rate=1e-3, objective=Crps(curriculum=(4, 4, 4), spectrum=0.5, gradient_steps=2)
)
SAMPLING = SamplingRecipe(steps=2, noise=(1.0, 200.0))

TELLING = [Layout(dp=2), Layout(pp=2, sp=4), Layout(pp=2, sp=2, schedule="zbv")]
OTHERS = [
    Layout(pp=2),
    Layout(wp=(1, 2)),
    Layout(sp=4),
    Layout(sp=2, recompute=True),
    Layout(pp=4),
    Layout(dp=2, pp=2, wp=(2, 1), sp=2),
    Layout(pp=2, wp=(2, 2), sp=4),
    Layout(pp=2, wp=(1, 2), sp=4, schedule="interleaved_1f1b"),
    Layout(pp=2, wp=(1, 2), sp=4, schedule="interleaved_zero_bubble"),
    Layout(pp=2, wp=(1, 2), sp=4, schedule="zbv"),
]


def trainer_of(path: str, layout: Layout) -> Trainer:
    store = Store.open(path)
    config = configure(MODEL, store, 20, 4, 1, None, "float64", 0, RECIPE, SAMPLING)
    trainer = Trainer(config, store, Groups.build(layout) if layout.world > 1 else Groups.alone(layout))
    perturb(trainer)
    return trainer


def three_steps(path: str, layout: Layout) -> tuple[list[dict], dict[str, torch.Tensor] | None]:
    """Lines of steps with rollouts of one, two and three intervals, and the weights on one rank of each stage."""
    trainer = trainer_of(path, layout)
    with trainer.batches() as batches:
        lines = [trainer.advance(next(batches)) for _ in range(3)]
    at = trainer.groups.at
    if (at.dp, at.row, at.column, at.sp) != (0, 0, 0, 0):
        return lines, None
    return lines, {name: parameter.detach().clone() for name, parameter in trainer.pipeline.parameters().items()}


@pytest.fixture(scope="module")
def alone(small_store):
    return three_steps(str(small_store.path), Layout())


def assert_same(ranks, alone, store: Store, layout: Layout) -> None:
    results = ranks.run(layout.world, three_steps, str(store.path), layout)
    assert_same_steps(results, alone, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("layout", TELLING, ids=str)
def test_invariant_1_fine_tuning_gives_the_numbers_of_one_process(ranks, alone, small_store, layout):
    assert_same(ranks, alone, small_store, layout)


@pytest.mark.full
@pytest.mark.parametrize("layout", OTHERS, ids=str)
def test_invariant_1_fine_tuning_in_every_layout(ranks, alone, small_store, layout):
    assert_same(ranks, alone, small_store, layout)


Message = tuple[str, str, int, int]
"""Send or receive, the group's name, the peer and the tag."""


def messages_of_a_step(path: str, layout: Layout) -> list[Message]:
    """What a rank sends and receives between stages in one step, in its order."""
    trainer = trainer_of(path, layout)
    told: list[Message] = []
    start = Messages._start

    def noted(operation, tensor, rank, group, tag):
        told.append((operation.__name__, "up" if group is trainer.groups.up else "down", rank, tag))
        return start(operation, tensor, rank, group, tag)

    Messages._start = staticmethod(noted)
    try:
        with trainer.batches() as batches:
            trainer.objective.step(next(batches))
    finally:
        Messages._start = staticmethod(start)
    return told


def stuck(programs: list[list[Message]]) -> list[int]:
    """Ranks that never end if a message passes only when both ends have come to it, as on a connection that keeps the order.

    On each of its two groups a rank's messages follow each other; a receive holds up everything after it, a send only its group.
    """
    left = [deque(program) for program in programs]
    posted: list[dict[str, deque[Message]]] = [defaultdict(deque) for _ in programs]
    waiting: list[bool] = [False] * len(programs)

    def post(rank: int) -> bool:
        moved = False
        while left[rank] and not waiting[rank]:
            message = left[rank].popleft()
            posted[rank][message[1]].append(message)
            waiting[rank], moved = message[0] == "irecv", True
        return moved

    def meet(rank: int) -> bool:
        for way, queue in posted[rank].items():
            if not queue:
                continue
            kind, _, peer, tag = queue[0]
            other = posted[peer][way]
            if kind == "isend" and other and other[0] == ("irecv", way, rank, tag):
                queue.popleft(), other.popleft()
                waiting[peer] = False
                return True
        return False

    everyone = range(len(programs))
    moved = True
    while moved:
        moved = any([*map(post, everyone), *map(meet, everyone)])
    return [rank for rank in everyone if left[rank] or waiting[rank] or any(posted[rank].values())]


def test_the_reader_of_orders_knows_a_deadlock():
    crossing = [[("isend", "up", 1, 0), ("irecv", "up", 1, 1)], [("isend", "up", 0, 1), ("irecv", "up", 0, 0)]]
    assert stuck(crossing) == [0, 1]
    assert stuck([crossing[0], [("irecv", "up", 0, 0), ("isend", "up", 0, 1)]]) == []


@pytest.mark.slow
@pytest.mark.parametrize("layout", [Layout(pp=2, sp=4), Layout(pp=2, schedule="zbv"), Layout(pp=3, schedule="gpipe")], ids=str)
def test_no_rank_waits_for_ever_where_messages_keep_their_order(ranks, small_store, layout):
    programs = ranks.run(layout.world, messages_of_a_step, str(small_store.path), layout)
    assert all(programs) and stuck(programs) == []


@pytest.mark.full
@pytest.mark.parametrize(
    "layout", [*(layout for layout in OTHERS if layout.pp > 1), Layout(pp=6, wp=(2, 1), sp=2, schedule="gpipe")], ids=str
)
def test_no_rank_waits_for_ever_in_any_pipeline(ranks, small_store, layout):
    programs = ranks.run(layout.world, messages_of_a_step, str(small_store.path), layout)
    assert all(programs) and stuck(programs) == []
