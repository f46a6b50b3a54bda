"""Ranks that die, fail or were asked for other things than the rest."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from ranks import RankError
from test_layouts import MODEL, RECIPE

from aeris.data.store import Store
from aeris.errors import AerisError
from aeris.run import Run
from aeris.swipe import Layout
from aeris.training.objectives import DiffusionTraining
from aeris.training.trainer import train

LAYOUT = Layout(pp=2, sp=4)
VICTIM, BATCH = 5, 2


def failing(store: str, out: str, how: str) -> str:
    """Trains, and on one rank fails in the middle of the third step."""
    import torch.distributed as dist

    draw = DiffusionTraining.draw

    def fail(self, batch, part):
        if batch.seen == 2 * BATCH and dist.get_rank() == VICTIM:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("a cosmic ray")
        return draw(self, batch, part)

    DiffusionTraining.draw = fail
    try:
        train(MODEL, store, out, steps=6, batch=BATCH, layout=LAYOUT, recipe=RECIPE, checkpoint_every=2, progress=False)
    except AerisError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        DiffusionTraining.draw = draw
    return "it went on"


def caught(store: str, out: str, how: str) -> str:
    """As above, but the rank that fails tells it like any other answer."""
    try:
        return failing(store, out, how)
    except ValueError as error:
        return f"{error} {' '.join(error.__notes__)}"


def test_a_rank_that_fails_is_named_by_all_others(ranks, small_store, tmp_path):
    answers = ranks.run(LAYOUT.world, caught, str(small_store.path), str(tmp_path / "run"), "raised")
    assert answers[VICTIM] == f"a cosmic ray on rank {VICTIM} (dp 0, wp (0, 0), pp 1, sp 1) at step 2"
    for rank, answer in enumerate(answers):
        if rank != VICTIM:
            assert answer.startswith("RankLost: Rank 5 (dp 0, wp (0, 0), pp 1, sp 1) has gone at step 2: ValueError: a cosmic ray")
            assert "rank-5.log" in answer
    assert "a cosmic ray" in (tmp_path / "run" / "engines" / "rank-5.log").read_text()
    assert Run.open(tmp_path / "run").step == 2  # and its last checkpoint is whole


@pytest.mark.slow
def test_a_rank_that_is_killed_is_named_by_all_others(ranks, small_store, tmp_path):
    with pytest.raises(RankError, match=rf"rank {VICTIM} died") as failure:
        ranks.run(LAYOUT.world, strict, str(small_store.path), str(tmp_path / "run"))
    assert str(failure.value).count("RankLost: Rank 5 (dp 0, wp (0, 0), pp 1, sp 1) has gone at step 2: it shows no sign of life") == 7


def strict(store: str, out: str) -> None:
    """Hands what the others say on as a failure, for the killed rank's is one in any case."""
    raise RuntimeError(failing(store, out, "killed"))


def differing(store: str, out: str) -> str:
    import torch.distributed as dist

    try:
        train(MODEL, store, out, steps=6, batch=BATCH, layout=Layout(dp=2), seed=dist.get_rank(), recipe=RECIPE, progress=False)
    except AerisError as error:
        return str(error)
    return "it went on"


def test_ranks_with_different_arguments_are_refused_at_the_start(ranks, small_store, tmp_path):
    answers = ranks.run(2, differing, str(small_store.path), str(tmp_path / "run"))
    assert all(
        "Rank 1 (dp 1, wp (0, 0), pp 0, sp 0) and rank 0 do not agree on what to train: seed=1 and seed=0" in answer for answer in answers
    )
    assert not Path(tmp_path / "run").exists()


def test_a_layout_of_another_size_is_refused_at_the_start(small_store, tmp_path):
    with pytest.raises(AerisError, match="needs 4 processes and there are 1"):
        train(MODEL, Store.open(small_store.path), tmp_path / "run", steps=6, batch=4, layout=Layout(sp=4), recipe=RECIPE)
    assert not Path(tmp_path / "run").exists()
