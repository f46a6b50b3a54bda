"""Consistency training: that it learns and resumes, what it refuses, and that a forecast knows what it was trained for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aeris.diffusion.solver import drive, sampler
from aeris.errors import ConfigurationError
from aeris.forecasting.rollout import Forecaster
from aeris.model import presets
from aeris.model.config import ModelConfig
from aeris.model.presets import Consistency, SamplingRecipe, TrainingRecipe
from aeris.swipe import Layout
from aeris.training.checkpoint import Checkpoint
from aeris.training.start import starting_point
from aeris.training.trainer import Trainer, configuration_of, train

MODEL = ModelConfig(grid=(16, 32), dim=16, depth=2, heads=2, mlp=24, window=(4, 4))
RECIPE = TrainingRecipe(warmup_images=8, objective=Consistency(warmup_images=8))


def run_of(store, out, **changes):
    arguments = {"steps": 6, "batch": 4, "precision": "float32", "recipe": RECIPE, "progress": False, **changes}
    return train(MODEL, store, out, **arguments)


@pytest.fixture(scope="module")
def teacher(small_store, tmp_path_factory):
    return run_of(small_store, tmp_path_factory.mktemp("teacher") / "run", steps=30, recipe=TrainingRecipe(warmup_images=8))


@pytest.fixture(scope="module")
def distilled(small_store, teacher, tmp_path_factory):
    return run_of(small_store, tmp_path_factory.mktemp("distilled") / "run", start=teacher, checkpoint_every=2)


def trainer_of(store, recipe, teacher=None) -> Trainer:
    start = None if teacher is None else starting_point(teacher, "nowhere", MODEL, store)
    trainer = Trainer(configuration_of(MODEL, store, 20, 4, 2, None, "float64", 0, recipe, None, Layout(), start), store)
    if start is not None:
        trainer.begin(start.open())
    return trainer


def test_nothing_moves_towards_land(small_store, teacher):
    """The tangent of sea surface temperature is zero over land, though the network says something there."""
    trainer = trainer_of(small_store, RECIPE, teacher)
    objective = trainer.objective
    with trainer.batches() as batches:
        drawn = [objective.draw(next(batches), slice(0, 2))]
    (target,) = objective.targets(drawn, 1.0)
    channel = list(small_store.channels).index("sea_surface_temperature")
    land = trainer.fields.mask[..., channel] == 0
    assert land.any() and target[..., channel][:, land].abs().max() == 0
    assert target[..., channel][:, ~land].abs().max() > 0
    rms = target.square().mean((1, 2, 3, 4, 5)).sqrt()
    assert ((rms > 0) & (rms < 1)).all()


def test_a_teacher_is_its_own_best_pupil_while_the_tangent_is_cold(small_store, teacher):
    """At first the target is the teacher's velocity, which the network already gives; warm, it is another."""
    trainer = trainer_of(small_store, RECIPE, teacher)
    with trainer.batches() as batches:
        drawn = [trainer.objective.draw(next(batches), slice(0, 4))]
    (cold,), (warm,) = (trainer.objective.targets(drawn, warmth) for warmth in (0.0, 1.0))
    assert cold.abs().max() < 1e-9
    assert warm.abs().max() > 1e-2
    assert [trainer.objective.warmth(seen) for seen in (0, 4, 8, 100)] == [0.0, 0.5, 1.0, 1.0]


def test_distillation_moves_the_jump_towards_where_the_teacher_ends(small_store, teacher):
    """From the same noise, one call comes closer to where the teacher gets in nineteen, which training never computes."""
    trainer = trainer_of(small_store, replace(RECIPE, learning_rate=1e-2, objective=Consistency(warmup_images=0)), teacher)
    fields = trainer.fields
    pupil, taught = (forward.pipeline.stages[0] for forward in (trainer.objective.forward, trainer.objective.teacher))
    with trainer.batches() as batches, torch.no_grad():
        (noisy, condition), _, _ = trainer.objective.draw(next(batches), slice(0, 4))
        noise = fields.masked(torch.randn(noisy.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
        heun = SamplingRecipe(solver="heun", steps=10)
        end = drive(sampler(noise, heun), lambda x, t_B: fields.masked(taught(x, condition, t_B=t_B)))

        def apart() -> float:
            jumped = drive(sampler(noise, presets.sampling_consistency()), lambda x, t_B: fields.masked(pupil(x, condition, t_B=t_B)))
            return float((jumped - end).square().mean())

        before = apart()
        for _ in range(trainer.configuration.steps):
            with torch.enable_grad():
                trainer.advance(next(batches))
        assert apart() < 0.7 * before


def test_invariant_3_a_resume_of_a_distillation_cannot_be_seen(small_store, teacher, distilled, tmp_path):
    stopped = run_of(small_store, tmp_path / "run", start=teacher, checkpoint_every=2)
    for step in (4, 6):
        for file in (stopped.path / "checkpoints" / f"step-{step:08d}").iterdir():
            file.unlink()
        (stopped.path / "checkpoints" / f"step-{step:08d}").rmdir()
    resumed = run_of(small_store, tmp_path / "run", start=teacher, checkpoint_every=2)
    for name in ("weights", "average", "optimizer"):
        one, two = (load_file(run.newest / f"{name}.safetensors") for run in (distilled, resumed))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    np.testing.assert_array_equal(resumed.logbook.loss, distilled.logbook.loss)


def test_the_checkpoint_says_what_it_was_trained_for_and_how_to_sample(distilled):
    checkpoint = Checkpoint.open(distilled.path)
    assert checkpoint.training == RECIPE
    assert checkpoint.sampling == presets.sampling_consistency(1)
    assert Forecaster(checkpoint).calls == [np.arctan(200.0)]
    with pytest.raises(ConfigurationError, match="trained for consistency"):
        Forecaster(checkpoint, SamplingRecipe())


def test_a_diffusion_model_does_not_jump(teacher):
    with pytest.raises(ConfigurationError, match="trained for diffusion"):
        Forecaster(teacher.path, presets.sampling_consistency(2))


def test_one_call_stays_inside_the_noise_of_the_training_whatever_the_second_level_would_be(small_store, tmp_path):
    recipe = replace(presets.consistency(), noise=(5.0, 50.0))
    run = run_of(small_store, tmp_path / "run", steps=1, recipe=recipe)
    assert Forecaster(run.path).calls == [np.arctan(50.0)]
    with pytest.raises(ConfigurationError, match="noise range"):
        Forecaster(run.path, presets.sampling_consistency(2, largest=50.0))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"start": None}, "without a start"),
        ({"recipe": replace(RECIPE, noise=(0.01, 200.0))}, "the teacher's from 0.1 to 200"),
        ({"sampling": SamplingRecipe()}, "trained for consistency"),
    ],
)
def test_what_cannot_teach_is_refused_before_anything_is_written(small_store, teacher, tmp_path, changes, found):
    with pytest.raises(ConfigurationError, match=found):
        run_of(small_store, tmp_path / "run", **{"start": teacher, **changes})
    assert not (tmp_path / "run").exists()


def test_a_consistency_model_cannot_teach(small_store, distilled, tmp_path):
    with pytest.raises(ConfigurationError, match="trained for consistency"):
        run_of(small_store, tmp_path / "run", start=distilled)
