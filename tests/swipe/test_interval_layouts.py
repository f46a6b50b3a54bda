"""Invariant 1 for networks of several intervals: what is told of the length of a step reaches every rank, and its weight is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from test_layouts import MODEL, RECIPE, assert_same_steps, perturb, three_steps

import aeris
from aeris.data.store import Store
from aeris.forecasting.ensemble import forecast
from aeris.model.presets import Consistency, Crps, SamplingRecipe, sampling_for
from aeris.swipe import Groups, Layout
from aeris.training.configuration import configure
from aeris.training.trainer import Trainer, train

SEVERAL = replace(MODEL, intervals=(6, 12, 24))
TWO_CALLS = SamplingRecipe(steps=2, noise=(1.0, 200.0))
OBJECTIVES = {"consistency": Consistency(path="straight", warmup_images=0), "crps": Crps(curriculum=(4, 4, 4))}

TELLING = [Layout(dp=2), Layout(pp=2, sp=4)]
OTHERS = [
    Layout(wp=(2, 2)),
    Layout(pp=2, sp=4, schedule="zbv"),
    Layout(pp=2, wp=(1, 2), sp=2, recompute=True),
    Layout(pp=2, wp=(1, 2), sp=4, schedule="interleaved_zero_bubble"),
    Layout(pp=6, sp=4),
]


def tuned(path: str, objective: str, layout: Layout):
    """Three steps of another objective than diffusion."""
    store = Store.open(path)
    recipe = replace(RECIPE, objective=OBJECTIVES[objective], learning_rate=1e-3)
    sampling = TWO_CALLS if objective == "crps" else sampling_for(recipe)
    config = configure(SEVERAL, store, 20, 4, 1, None, "float64", 0, recipe, sampling)
    trainer = Trainer(config, store, Groups.build(layout) if layout.world > 1 else Groups.alone(layout))
    perturb(trainer)
    with trainer.batches() as batches:
        lines = [trainer.advance(next(batches)) for _ in range(3)]
    at = trainer.groups.at
    if (at.dp, at.row, at.column, at.sp) != (0, 0, 0, 0):
        return lines, None
    return lines, {name: parameter.detach().clone() for name, parameter in trainer.pipeline.parameters().items()}


@pytest.mark.slow
@pytest.mark.parametrize("layout", TELLING, ids=str)
def test_invariant_1_lengths_of_their_own(ranks, intervals_store, layout):
    path = str(intervals_store.path)
    alone = three_steps(path, SEVERAL, Layout(), "float64")
    assert "interval.weight" in alone[1]
    assert_same_steps(ranks.run(layout.world, three_steps, path, SEVERAL, layout, "float64"), alone, 1e-10)


@pytest.mark.full
@pytest.mark.parametrize("changes", [{}, {"time_mlp": "shared"}], ids=str)
@pytest.mark.parametrize("layout", OTHERS, ids=str)
def test_invariant_1_lengths_of_their_own_in_every_layout(ranks, intervals_store, layout, changes):
    path, model = str(intervals_store.path), replace(SEVERAL, **changes)
    alone = three_steps(path, model, Layout(), "float64")
    assert_same_steps(ranks.run(layout.world, three_steps, path, model, layout, "float64"), alone, 1e-10)


@pytest.mark.full
@pytest.mark.parametrize("layout", [Layout(dp=2, pp=2, sp=4), Layout(pp=2, wp=(1, 2), sp=2, schedule="zbv")], ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_invariant_1_lengths_with_other_objectives(ranks, intervals_store, layout, objective):
    path = str(intervals_store.path)
    alone = tuned(path, objective, Layout())
    assert_same_steps(ranks.run(layout.world, tuned, path, objective, layout), alone, 1e-10)


def sampled(path: str, world: xr.Dataset, out: str, layout: Layout) -> None:
    arguments = {"batch": 2, "sampling": SamplingRecipe(steps=3), "precision": "float64", "step": "fewest", "progress": False}
    forecast(path, world, world.time.values[[3, 7]], 3, "30h", out, layout=layout, **arguments)


@pytest.mark.slow
def test_fewest_steps_are_the_same_on_a_layout(ranks, intervals_store, small_world, tmp_path):
    run = train(SEVERAL, intervals_store, tmp_path / "run", steps=4, precision="float64", recipe=RECIPE, progress=False)
    sampled(str(run.path), small_world, str(tmp_path / "alone.zarr"), Layout())
    ranks.run(4, sampled, str(run.path), small_world, str(tmp_path / "shared.zarr"), Layout(pp=2, wp=(1, 2)))
    one, many = (aeris.open_forecast(tmp_path / name) for name in ("alone.zarr", "shared.zarr"))
    assert many.attrs["complete"] == 1.0
    for name in one.data_vars:
        np.testing.assert_allclose(many[name].values, one[name].values, rtol=1e-6, err_msg=str(name))
