"""Invariant 1 for consistency models: any layout trains and samples as one process does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_layouts import MODEL, assert_same_steps, perturb

import aeris
from aeris.data.store import Store
from aeris.forecasting.ensemble import forecast
from aeris.model import presets
from aeris.model.presets import Consistency, TrainingRecipe
from aeris.swipe import Groups, Layout
from aeris.training.start import starting_point
from aeris.training.trainer import Trainer, configuration_of, train

RECIPES = {
    path: TrainingRecipe(warmup_images=8, clip=0.05, objective=Consistency(path=path, warmup_images=16)) for path in ("teacher", "straight")
}
TELLING = [Layout(dp=2, wp=(1, 2)), Layout(pp=2, sp=4), Layout(pp=2, sp=2, schedule="zbv")]
OTHERS = [
    Layout(dp=2),
    Layout(pp=2),
    Layout(wp=(1, 2)),
    Layout(sp=4),
    Layout(sp=8),
    Layout(pp=2, sp=4, schedule="gpipe"),
    Layout(pp=6, sp=4),
    Layout(dp=2, pp=2, wp=(1, 2), sp=2),
    Layout(pp=2, wp=(2, 1), sp=4, schedule="interleaved_1f1b"),
    Layout(pp=2, wp=(1, 2), sp=4, schedule="interleaved_zero_bubble"),
    Layout(pp=2, wp=(1, 2), sp=4, recompute=True),
]


@pytest.fixture(scope="module")
def teacher(small_store, tmp_path_factory):
    """A short run, whose averaged weights teach."""
    return train(MODEL, small_store, tmp_path_factory.mktemp("teacher") / "run", steps=6, precision="float64", progress=False)


def three_steps(store_path: str, teacher: str, path: str, layout: Layout) -> tuple[list[dict], dict[str, torch.Tensor] | None]:
    """Lines of three steps from perturbed weights, and the weights on one rank of each stage."""
    store = Store.open(store_path)
    start = starting_point(teacher, "nowhere", MODEL, store) if path == "teacher" else None
    groups = Groups.build(layout) if layout.world > 1 else Groups.alone(layout)
    asked = (MODEL, store, 20, 8, 1, None, "float64", 0, RECIPES[path], None, layout, start)
    trainer = Trainer(configuration_of(*asked), store, groups)
    if start is not None:
        trainer.begin(start.open())
    perturb(trainer)
    with trainer.batches() as batches:
        lines = [trainer.advance(next(batches)) for _ in range(3)]
    at = trainer.groups.at
    if (at.dp, at.row, at.column, at.sp) != (0, 0, 0, 0):
        return lines, None
    return lines, {name: parameter.detach().clone() for name, parameter in trainer.pipeline.parameters().items()}


@pytest.fixture(scope="module")
def alone(small_store, teacher):
    """What one process computes, by path."""
    known = {}

    def get(path: str):
        if path not in known:
            known[path] = three_steps(str(small_store.path), str(teacher.path), path, Layout())
        return known[path]

    return get


def assert_same(ranks, alone, store, teacher, path: str, layout: Layout) -> None:
    results = ranks.run(layout.world, three_steps, str(store.path), str(teacher.path), path, layout)
    assert_same_steps(results, alone(path), 1e-10)


@pytest.mark.parametrize("layout", TELLING, ids=str)
def test_distillation_is_the_same_on_every_layout(ranks, alone, small_store, teacher, layout):
    assert_same(ranks, alone, small_store, teacher, "teacher", layout)


@pytest.mark.full
@pytest.mark.parametrize("path", ["teacher", "straight"])
@pytest.mark.parametrize("layout", [*TELLING, *OTHERS], ids=str)
def test_consistency_training_is_the_same_on_every_other_layout(ranks, alone, small_store, teacher, path, layout):
    assert_same(ranks, alone, small_store, teacher, path, layout)


def sampled(run: str, world, out: str, layout: Layout) -> None:
    times = world.time.values[[3, 7]]
    recipe = presets.sampling_consistency(2)
    forecast(run, world, times, 3, "12h", out, batch=2, sampling=recipe, precision="float64", layout=layout, progress=False)


@pytest.mark.parametrize("layout", [Layout(pp=2, sp=4, schedule="gpipe")], ids=str)
def test_a_forecast_of_two_calls_is_the_same_on_every_layout(ranks, small_store, small_world, tmp_path, layout):
    run = train(MODEL, small_store, tmp_path / "run", steps=4, precision="float64", recipe=RECIPES["straight"], progress=False)
    ranks.run(1, sampled, str(run.path), small_world, str(tmp_path / "alone.zarr"), Layout())
    ranks.run(layout.world, sampled, str(run.path), small_world, str(tmp_path / "shared.zarr"), layout)
    one, many = (aeris.open_forecast(tmp_path / name) for name in ("alone.zarr", "shared.zarr"))
    for name in one.data_vars:
        np.testing.assert_allclose(many[name].values, one[name].values, rtol=1e-6, err_msg=str(name))
