"""Layouts as values: where ranks stand, what a stage holds, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aeris.errors import ConfigurationError
from aeris.model import presets
from aeris.model.config import ModelConfig
from aeris.swipe import Coordinates, Layout
from aeris.swipe.layout import stage_plans

MODEL = ModelConfig(grid=(16, 32), dim=32, depth=4, heads=8, mlp=24, window=(4, 4))
SIZES = st.integers(1, 4)


@given(SIZES, SIZES, SIZES, SIZES, st.sampled_from([1, 2, 4, 8, 12]))
def test_ranks_and_coordinates_are_inverse(dp, pp, rows, columns, sp):
    layout = Layout(dp, pp, (rows, columns), sp)
    assert [layout.rank(layout.coordinates(rank)) for rank in range(layout.world)] == list(range(layout.world))
    assert layout.coordinates(layout.world - 1) == Coordinates(dp - 1, rows - 1, columns - 1, pp - 1, sp - 1)


def test_sequence_ranks_are_neighbours_then_the_pipeline_then_windows_then_replicas():
    layout = Layout(dp=2, pp=3, wp=(2, 2), sp=4)
    assert layout.ranks(dp=0, wp=(0, 0), pp=0) == [0, 1, 2, 3]
    assert layout.ranks(dp=0, wp=(0, 0), sp=0) == [0, 4, 8]
    assert layout.ranks(dp=0, pp=0, sp=0) == [0, 12, 24, 36]
    assert layout.ranks(wp=(0, 0), pp=0, sp=0) == [0, 48]


def test_the_paper_s_layout_of_the_40b_model_fits():
    """720 nodes of 12 ranks: 20 stages, 6×6 window ranks, 12 sequence ranks (arXiv 2509.13523)."""
    layout, model = Layout(dp=14, pp=20, wp=(6, 6), sp=12), presets.aeris_40b()
    layout.check(model, world=120_960, batch=14 * 140)
    assert layout.world == 120_960
    plans = stage_plans(model, layout.stages)
    assert [len(plan.blocks) for plan in plans] == [0, *[2] * 18, 0]
    assert all(len({model.shifted(block) for block in plan.blocks}) <= 1 for plan in plans)


@pytest.mark.parametrize(("stages", "sizes"), [(1, [4]), (2, [2, 2]), (3, [2, 1, 1]), (4, [1, 1, 1, 1]), (6, [0, 1, 1, 1, 1, 0])])
def test_blocks_are_dealt_in_runs_that_differ_by_at_most_one(stages, sizes):
    plans = stage_plans(MODEL, stages)
    assert [len(plan.blocks) for plan in plans] == sizes
    assert [block for plan in plans for block in plan.blocks] == [0, 1, 2, 3]
    assert [plan.first for plan in plans] == [True, *[False] * (stages - 1)]
    assert [plan.last for plan in plans] == [*[False] * (stages - 1), True]


def test_a_v_schedule_turns_on_the_last_rank():
    assert [Layout(pp=2, schedule="zbv").stage_rank(stage) for stage in range(4)] == [0, 1, 1, 0]
    assert [Layout(pp=2, schedule="interleaved_1f1b").stage_rank(stage) for stage in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layout(dp=0), "dp=0.*Use 1"),
        (lambda: Layout(sp=3), "sp=3.*Use sp=2 or sp=4"),
        (lambda: Layout(sp=6), "sp=6.*Use sp=4 or sp=8"),
        (lambda: Layout(schedule="2f2b"), "schedule='2f2b'.*Use '1f1b'"),
        (lambda: Layout(wp=(3, 1)).check(MODEL), r"wp=\(3, 1\) for 4 rows.*\[1, 2, 4\]"),
        (lambda: Layout(wp=(1, 5)).check(MODEL), r"8 columns.*\[1, 2, 4, 8\]"),
        (lambda: Layout(sp=12).check(MODEL), r"sp=12 for 8 attention heads.*\[1, 2, 4, 8\]"),
        (
            lambda: Layout(sp=12).check(ModelConfig(grid=(16, 32), dim=48, heads=12, window=(4, 4))),
            r"sp=12 for quadrants of 4 pixels.*\[1, 2, 4\]",
        ),
        (lambda: Layout(pp=5).check(MODEL), "5 pipeline stages for 4 blocks.*or 6 with stages of their own.*Use for example pp=4"),
        (lambda: Layout(schedule="zbv").check(MODEL), "schedule='zbv' with pp=1.*Use '1f1b'"),
        (lambda: Layout(pp=2, schedule="zbv", recompute=True), "recompute with schedule=.zbv.*Use schedule=.1f1b"),
        (lambda: Layout(dp=2).check(MODEL, world=3), "needs 2 processes and there are 3.*Start 2 processes"),
        (lambda: Layout(dp=2).check(MODEL, batch=7), "batch=7 with dp=2.*multiple of 2"),
        (lambda: Layout(pp=4).check(MODEL, batch=3), "3 micro-batches for 4 stages.*batch=4 or more, or schedule='gpipe'"),
        (
            lambda: Layout(pp=2, schedule="interleaved_1f1b").check(MODEL, batch=5),
            "5 micro-batches for 2 pipeline ranks.*Use batch=4",
        ),
    ],
)
def test_invariant_7_what_cannot_be_cut_is_refused_before_a_process_starts(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()
