"""Bytes that ranks send: the shift adds none, and the totals are those of the closed formula."""

from __future__ import annotations

from collections import Counter

import pytest
from test_layouts import RECIPE, perturb

from aeris.data.store import Store
from aeris.model.config import ModelConfig
from aeris.model.presets import SamplingRecipe
from aeris.swipe import Groups, Layout
from aeris.swipe.layout import stage_plans
from aeris.swipe.ledger import record
from aeris.training.configuration import configure
from aeris.training.trainer import Trainer

BATCH = 10


def model(shifts: bool) -> ModelConfig:
    """Five blocks, each a stage of its own, the last one in the regular partition."""
    return ModelConfig(grid=(16, 32), dim=32, depth=5, heads=4, mlp=24, window=(4, 4), shift_every=1 if shifts else 5)


def one_step(path: str, config: ModelConfig, layout: Layout) -> tuple[Counter, int]:
    """What a rank sends in one step, and the parameters that it holds."""
    trainer = Trainer(
        configure(config, Store.open(path), 20, BATCH, 1, None, "float32", 0, RECIPE, SamplingRecipe()),
        Store.open(path),
        Groups.build(layout),
    )
    perturb(trainer)
    with trainer.batches() as batches:
        batch = next(batches)
        trainer.advance(batch)
        with record(trainer.groups) as ledger:
            trainer.advance(batch)
    return ledger.sent, sum(flat.values.numel() for flat in trainer.optimizer.flats)


def assert_formula(results: list[tuple[Counter, int]], config: ModelConfig, layout: Layout) -> None:
    """The closed formula of `aeris.swipe.ledger`, in which no shift stands."""
    plans = stage_plans(config, layout.stages)
    tokens = 16 * 32 // layout.token_ranks * 32 * 4  # bytes of one sample's activations on a rank
    holders = layout.dp * layout.token_ranks
    for rank, (sent, parameters) in enumerate(results):
        plan = plans[layout.coordinates(rank).pp]
        assert sent["pipeline"] == BATCH * tokens * ((not plan.first) + (not plan.last))
        assert sent["heads"] == 2 * BATCH * len(plan.blocks) * 4 * tokens * (layout.sp - 1) / layout.sp
        assert sent["gradients"] == sent["parameters"] == parameters * 4 * (holders - 1) / holders
        assert sent["shift"] == 0
        assert set(sent) <= {"pipeline", "heads", "gradients", "parameters", "norm", "shift"}


def test_a_folded_shift_leaves_no_trace_in_the_ledger(ranks, small_store):
    """Three blocks on three stages: regular, shifted, regular."""
    layout = Layout(pp=3, sp=4)
    config = ModelConfig(grid=(16, 32), dim=32, depth=3, heads=4, mlp=24, window=(4, 4))
    assert_formula(ranks.run(layout.world, one_step, str(small_store.path), config, layout), config, layout)


@pytest.mark.full
@pytest.mark.parametrize("layout", [Layout(pp=5, sp=4), Layout(pp=5, wp=(1, 2), sp=4, schedule="gpipe")], ids=str)
def test_with_and_without_the_shift_every_rank_sends_the_same_bytes(ranks, small_store, layout):
    shifted = ranks.run(layout.world, one_step, str(small_store.path), model(True), layout)
    straight = ranks.run(layout.world, one_step, str(small_store.path), model(False), layout)
    assert [sent for sent, _ in shifted] == [sent for sent, _ in straight]
    assert_formula(shifted, model(True), layout)


def test_a_shift_inside_a_stage_is_entered_on_its_own(ranks, small_store):
    """Two window ranks and no pipeline: of the four quadrants, two change their rank, in four blocks' dealing forth and back."""
    layout, config = Layout(wp=(1, 2)), ModelConfig(grid=(16, 32), dim=32, depth=2, heads=4, mlp=24, window=(4, 4))
    for sent, _ in ranks.run(2, one_step, str(small_store.path), config, layout):
        assert sent["shift"] == BATCH * 2 * 2 * (16 * 32 // 2 * 32 * 4) // 2
        assert sent["pipeline"] == sent["heads"] == 0
