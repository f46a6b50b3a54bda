"""Invariant 1: any layout gives the same numbers as one process."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import aeris
from aeris.data.store import Store
from aeris.forecasting.ensemble import forecast
from aeris.model.config import ModelConfig
from aeris.model.presets import SamplingRecipe, TrainingRecipe
from aeris.run import Run
from aeris.swipe import Groups, Layout
from aeris.training.checkpoint import Checkpoint
from aeris.training.configuration import configure
from aeris.training.trainer import Trainer, train

MODEL = ModelConfig(grid=(16, 32), dim=32, depth=4, heads=8, mlp=24, window=(4, 4))
RECIPE = TrainingRecipe(warmup_images=8, clip=0.05)

TELLING = [
    Layout(dp=2),
    Layout(wp=(2, 2)),
    Layout(sp=2),
    Layout(sp=8),
    Layout(pp=2, sp=4),
    Layout(dp=2, pp=2, sp=2, schedule="gpipe"),
    Layout(pp=2, sp=4, schedule="zbv"),
    Layout(recompute=True),
    Layout(pp=2, sp=2, recompute=True),
]
OTHERS = [
    Layout(dp=2, pp=2, wp=(1, 2), sp=2),
    Layout(pp=2, wp=(1, 2), sp=4, schedule="zbv"),
    Layout(pp=4),
    Layout(wp=(1, 2)),
    Layout(wp=(2, 1)),
    Layout(sp=4),
    Layout(pp=4, wp=(1, 2)),
    Layout(pp=2, wp=(2, 2), sp=2),
    Layout(pp=4, wp=(2, 1), sp=4),
    Layout(pp=4, wp=(2, 1), sp=4, schedule="gpipe"),
    Layout(pp=2, wp=(2, 1), sp=4, schedule="interleaved_1f1b"),
    Layout(pp=2, wp=(1, 2), sp=4, schedule="interleaved_zero_bubble"),
    Layout(pp=3, sp=4, schedule="interleaved_1f1b"),
    Layout(pp=6, sp=4),
    Layout(pp=2, wp=(1, 2), sp=4, schedule="interleaved_1f1b", recompute=True),
]


def perturb(trainer: Trainer) -> None:
    """Moves every parameter, so that no gradient is zero, as a function of its name."""
    with torch.no_grad():
        for name, parameter in trainer.pipeline.parameters().items():
            seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest(), "big")
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed), dtype=parameter.dtype)


def three_steps(path: str, model: ModelConfig, layout: Layout, precision: str) -> tuple[list[dict], dict[str, torch.Tensor] | None]:
    """Lines of three steps, and the weights on one rank of each stage."""
    store = Store.open(path)
    config = configure(model, store, 20, 8, 1, None, precision, 0, RECIPE, SamplingRecipe())
    trainer = Trainer(config, store, Groups.build(layout) if layout.world > 1 else Groups.alone(layout))
    perturb(trainer)
    with trainer.batches() as batches:
        lines = [trainer.advance(next(batches)) for _ in range(3)]
    average = trainer.optimizer.averages()
    at = trainer.groups.at
    if (at.dp, at.row, at.column, at.sp) != (0, 0, 0, 0):
        return lines, None
    weights = {name: parameter.detach().clone() for name, parameter in trainer.pipeline.parameters().items()}
    return lines, weights | {f"average/{name}": tensor.clone() for name, tensor in average.items()}


@pytest.fixture(scope="module")
def alone(small_store):
    """What one process computes, by model and precision."""
    known = {}

    def get(model: ModelConfig, precision: str):
        if (model, precision) not in known:
            known[model, precision] = three_steps(str(small_store.path), model, Layout(), precision)
        return known[model, precision]

    return get


Steps = tuple[list[dict], dict[str, torch.Tensor] | None]
"""Lines of the logbook, and the weights on one rank of each stage."""


def assert_same_steps(results: list[Steps], alone: Steps, tolerance: float) -> None:
    """What the ranks of a layout computed is, together, what one process did."""
    expected_lines, expected = alone
    assert expected is not None
    for lines, _ in results:
        for line, one in zip(lines, expected_lines, strict=True):
            assert line["loss"] == pytest.approx(one["loss"], rel=tolerance)
            assert line["grad_norm"] == pytest.approx(one["grad_norm"], rel=tolerance)
    found: dict[str, torch.Tensor] = {}
    for _, weights in results:
        found |= weights or {}
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert (weight - expected[name]).norm() <= tolerance * expected[name].norm(), name


def assert_same(ranks, alone, store, model: ModelConfig, layout: Layout, precision: str, tolerance: float) -> None:
    results = ranks.run(layout.world, three_steps, str(store.path), model, layout, precision)
    assert_same_steps(results, alone(model, precision), tolerance)


def test_no_gradient_is_zero(small_store):
    trainer = Trainer(configure(MODEL, small_store, 20, 8, 1, None, "float64", 0, RECIPE, SamplingRecipe()), small_store)
    perturb(trainer)
    with trainer.batches() as batches:
        batch = next(batches)
    trainer.pipeline.step(trainer.objective.loss, [lambda: trainer.objective.draw(batch, slice(0, 8))])
    assert all(parameter.grad.abs().max() > 0 for parameter in trainer.pipeline.parameters().values())


@pytest.mark.parametrize("layout", TELLING, ids=str)
def test_invariant_1_a_layout_gives_the_numbers_of_one_process(ranks, alone, small_store, layout):
    assert_same(ranks, alone, small_store, MODEL, layout, "float64", 1e-10)


@pytest.mark.full
@pytest.mark.parametrize("polar", ["split", "wrap"])
@pytest.mark.parametrize("layout", [*TELLING, *OTHERS], ids=str)
def test_invariant_1_every_layout(ranks, alone, small_store, layout, polar):
    model = replace(MODEL, polar=polar)
    assert_same(ranks, alone, small_store, model, layout, "float64", 1e-10)
    assert_same(ranks, alone, small_store, model, layout, "float32", 1e-5)


@pytest.mark.full
@pytest.mark.parametrize("layout", [Layout(pp=4, sp=4), Layout(pp=2, wp=(2, 1), sp=4), Layout(pp=2, sp=2, schedule="zbv")], ids=str)
@pytest.mark.parametrize("changes", [{"shift_every": 2}, {"time_mlp": "shared"}, {"rope": False}], ids=str)
def test_invariant_1_every_kind_of_network(ranks, alone, small_store, layout, changes):
    assert_same(ranks, alone, small_store, replace(MODEL, **changes), layout, "float64", 1e-10)


SAMPLED = [
    Layout(dp=2, wp=(1, 2)),
    Layout(pp=2, sp=4, schedule="gpipe"),
    Layout(pp=2, wp=(2, 1), sp=2),
    Layout(pp=2, sp=2, schedule="zbv"),
]
OTHERS_SAMPLED = [
    Layout(pp=4, wp=(1, 2)),
    Layout(pp=6, sp=4),
    Layout(pp=2, wp=(1, 2), sp=4, schedule="interleaved_1f1b"),
    Layout(dp=3, pp=2),
]


@pytest.fixture(scope="module")
def run(small_store, tmp_path_factory):
    """A short run of the model, whose weights are not those it began with."""
    return train(MODEL, small_store, tmp_path_factory.mktemp("run") / "run", steps=6, precision="float64", recipe=RECIPE, progress=False)


def sampled(path: str, world: xr.Dataset, out: str, layout: Layout) -> None:
    times = world.time.values[[3, 7, 20]]
    recipe = SamplingRecipe(steps=3)
    forecast(path, world, times, 3, "18h", out, batch=2, sampling=recipe, precision="float64", layout=layout, progress=False)


def assert_same_forecast(ranks, run, world, layout: Layout, folder) -> None:
    ranks.run(1, sampled, str(run.path), world, str(folder / "alone.zarr"), Layout())
    ranks.run(layout.world, sampled, str(run.path), world, str(folder / "shared.zarr"), layout)
    one, many = (aeris.open_forecast(folder / name) for name in ("alone.zarr", "shared.zarr"))
    for name in one.data_vars:
        assert bool(many[name].isel(prediction_timedelta=-1).notnull().any())
        np.testing.assert_allclose(many[name].values, one[name].values, rtol=1e-6, err_msg=str(name))


@pytest.mark.parametrize("layout", SAMPLED, ids=str)
def test_a_forecast_is_the_same_on_every_layout(ranks, run, small_world, tmp_path, layout):
    assert_same_forecast(ranks, run, small_world, layout, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("layout", OTHERS_SAMPLED, ids=str)
def test_a_forecast_is_the_same_on_every_other_layout(ranks, run, small_world, tmp_path, layout):
    assert_same_forecast(ranks, run, small_world, layout, tmp_path)


def resumed(path: str, out: str, layout: Layout, steps: int) -> None:
    train(
        MODEL,
        path,
        out,
        steps=steps,
        batch=8,
        micro_batch=1,
        precision="float64",
        recipe=RECIPE,
        layout=layout,
        checkpoint_every=4,
        progress=False,
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [(Layout(pp=2, sp=4), Layout()), (Layout(), Layout(dp=2, wp=(1, 2))), (Layout(pp=2), Layout(pp=2, sp=4, schedule="zbv"))],
    ids=str,
)
def test_a_checkpoint_of_any_layout_goes_on_in_any_other(ranks, small_store, tmp_path, before, after):
    """Eight steps in one layout end where four in one and four in another do."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    ranks.run(1, resumed, str(small_store.path), str(whole), Layout(), 8)
    ranks.run(before.world, resumed, str(small_store.path), str(halves), before, 8)
    shutil.rmtree(halves / "checkpoints" / "step-00000008")
    ranks.run(after.world, resumed, str(small_store.path), str(halves), after, 8)
    one, two = Run.open(whole), Run.open(halves)
    np.testing.assert_allclose(two.logbook.loss, one.logbook.loss, rtol=1e-10)
    for kind in ("weights", "average", "optimizer"):
        expected, found = (Checkpoint.open(run.newest).tensors(kind) for run in (one, two))
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            assert (tensor - expected[name]).norm() <= 1e-10 * expected[name].norm(), name
