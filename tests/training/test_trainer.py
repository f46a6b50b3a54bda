"""The training loop: that it learns, that a resume cannot be seen, that faults lose nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aeris.diffusion import trigflow
from aeris.errors import AerisError, CheckpointError, ConfigurationError, StoreError
from aeris.model.config import ModelConfig
from aeris.model.presets import TrainingRecipe
from aeris.model.quadrants import to_pixels
from aeris.run import Run
from aeris.swipe import Layout
from aeris.training import checkpoint as checkpoints
from aeris.training.checkpoint import Checkpoint
from aeris.training.configuration import configure, start_run
from aeris.training.state import ask
from aeris.training.trainer import Trainer, train

MODEL = ModelConfig(grid=(16, 32), dim=16, depth=2, heads=2, mlp=24, window=(4, 4))
RECIPE = TrainingRecipe(warmup_images=8)


def run_of(store, out, **changes):
    arguments = {"model": MODEL, "steps": 6, "batch": 4, "precision": "float32", "recipe": RECIPE, "progress": False, **changes}
    return train(data=store, out=out, **arguments)


def weights(run: Run, step: int | None = None) -> dict[str, torch.Tensor]:
    folder = run.newest if step is None else run.path / "checkpoints" / f"step-{step:08d}"
    return {
        f"{name}/{key}": tensor
        for name in ("weights", "average", "optimizer")
        for key, tensor in load_file(folder / f"{name}.safetensors").items()
    }


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def trainer_of(store, **changes) -> Trainer:
    defaults = {"steps": 6, "batch": 4, "micro_batch": 4, "period": None, "precision": "float64", "seed": 0, "recipe": RECIPE}
    return Trainer(configure(model=MODEL, store=store, sampling=checkpoints.SamplingRecipe(), **{**defaults, **changes}), store)


@pytest.fixture(scope="module")
def undisturbed(small_store, tmp_path_factory) -> Run:
    return run_of(small_store, tmp_path_factory.mktemp("runs") / "whole", checkpoint_every=2)


def test_training_learns(small_store, tmp_path):
    run = run_of(small_store, tmp_path / "run", steps=60)
    loss = run.logbook.loss.values
    assert loss[-15:].mean() < 0.8 * loss[:5].mean()


@pytest.mark.parametrize("channels", ["uniform", "paper"])
def test_the_loss_is_the_weighted_mean_over_globe_and_batch(small_store, channels):
    """A network that predicts zero leaves Σ w_lat w_c mask v², which numpy sums in pixel order from the store itself."""
    trainer = trainer_of(small_store, recipe=replace(RECIPE, channel_weights=channels))
    with trainer.batches() as batches:
        batch = next(batches)
    (noisy, _), velocity, given = trainer.objective.draw(batch, slice(0, 4))
    loss = float(trainer.objective.loss(torch.zeros_like(velocity), velocity))
    t = trigflow.expand(given["t_B"], noisy)
    x0 = t.cos() * noisy - t.sin() * velocity
    statistics, grid = small_store.statistics, small_store.grid
    change = batch.target.numpy().astype(np.float64) - batch.state.numpy()
    residual = (change - statistics.residual_mean[:, None, None]) / statistics.residual_std[:, None, None]
    ocean = np.ones(residual.shape[1:])
    ocean[list(statistics.channels).index("sea_surface_temperature")] = small_store.sea_mask
    np.testing.assert_allclose(to_pixels(x0, MODEL.window).numpy(), residual * ocean, atol=1e-6)
    raw = np.array([1.0, 0.1, 500 / 1350, 850 / 1350, 0.1]) if channels == "paper" else np.ones(5)
    rows = np.cos(np.deg2rad(grid.latitude)) + 0.01
    v = to_pixels(velocity, MODEL.window).numpy()
    expected = np.mean(np.einsum("c,h,chw,bchw->bhw", raw / raw.sum(), rows / rows.mean(), ocean, v**2))
    assert loss == pytest.approx(expected, rel=1e-9)


def test_invariant_1_micro_batches_add_up_to_the_batch(small_store):
    """One process: loss, gradient norm and weights after three steps do not depend on how a batch is divided."""
    lines, states = [], []
    for micro in (4, 2, 1):
        trainer = trainer_of(small_store, micro_batch=micro)
        with torch.no_grad():
            for number, parameter in enumerate(trainer.network.parameters()):
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        with trainer.batches() as batches:
            lines.append([trainer.advance(next(batches)) for _ in range(3)])
        states.append(dict(trainer.network.named_parameters()))
    for other, state in zip(lines[1:], states[1:], strict=True):
        for one, two in zip(lines[0], other, strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-10)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-10)
        for name, parameter in state.items():
            assert (parameter - states[0][name]).norm() <= 1e-10 * states[0][name].norm(), name


@pytest.mark.parametrize("step", [2, 4])
def test_invariant_3_a_resume_cannot_be_seen(small_store, undisturbed, tmp_path, step, monkeypatch):
    """Killed after some step: bits of weights, average and moments equal those of an undisturbed run, and so does the logbook."""
    advance = Trainer.advance

    def fail(self, batch, stop):
        if self.step == step + 1:
            raise KeyboardInterrupt
        return advance(self, batch, stop)

    monkeypatch.setattr(Trainer, "advance", fail)
    with pytest.raises(KeyboardInterrupt):
        run_of(small_store, tmp_path / "run", checkpoint_every=2)
    monkeypatch.undo()
    assert Run.open(tmp_path / "run").step == step
    resumed = run_of(small_store, tmp_path / "run", checkpoint_every=2)
    assert same(weights(resumed), weights(undisturbed))
    assert resumed.logbook.step.values.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(resumed.logbook.loss, undisturbed.logbook.loss)


def test_a_finished_run_is_left_alone(small_store, undisturbed):
    before = {file: file.stat().st_mtime_ns for file in undisturbed.path.rglob("*")}
    again = run_of(small_store, undisturbed.path, checkpoint_every=2)
    assert again.step == 6
    assert {file: file.stat().st_mtime_ns for file in undisturbed.path.rglob("*")} == before


def test_a_stop_is_heard_from_the_moment_that_the_run_was_asked_for(small_store, undisturbed, tmp_path):
    run = start_run(tmp_path / "run", trainer_of(small_store, precision="float32").configuration, small_store, Layout())
    ask(run)
    run.stop()
    run_of(small_store, run.path, checkpoint_every=2)
    assert run.state["state"] == "stopped"
    assert run.step < 6
    run.stop()  # of a run that has stopped: nobody heeds it
    assert same(weights(run_of(small_store, run.path, checkpoint_every=2)), weights(undisturbed))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_stop_gracefully_and_kills_lose_nothing(small_store, undisturbed, tmp_path, number):
    """A process that is told to leave writes a checkpoint; one that is killed resumes from its last; the end is the same."""
    script = textwrap.dedent(
        f"""
        import sys, time
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from aeris.data.store import Store
        from aeris.training.trainer import Trainer
        import test_trainer
        advance = Trainer.advance
        def slow(self, batch, stop):
            line = advance(self, batch, stop)
            print(self.step, flush=True)
            time.sleep(0.3)
            return line
        Trainer.advance = slow
        test_trainer.run_of(Store.open({str(small_store.path)!r}), {str(tmp_path / "run")!r}, checkpoint_every=2)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "3":
        pass
    process.send_signal(number)
    code = process.wait(60)
    assert code == (-number if number == signal.SIGKILL else 0)
    assert Run.open(tmp_path / "run").step == (2 if number == signal.SIGKILL else 3)
    resumed = run_of(small_store, tmp_path / "run", checkpoint_every=2)
    assert same(weights(resumed), weights(undisturbed))


def test_the_seed_decides_everything(small_store, undisturbed, tmp_path):
    assert same(weights(run_of(small_store, tmp_path / "same", checkpoint_every=6)), weights(undisturbed))
    assert not same(weights(run_of(small_store, tmp_path / "other", seed=1)), weights(undisturbed))


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(small_store):
    trainer = trainer_of(small_store)
    with trainer.batches() as batches:
        batch = next(batches)
    before = {name: parameter.clone() for name, parameter in trainer.network.named_parameters()}
    spoilt = replace(batch, target=torch.full_like(batch.target, torch.nan))
    line = trainer.advance(spoilt)
    assert line["skipped"] == 1 and line["step"] == 1
    assert all(torch.equal(before[name], parameter) for name, parameter in trainer.network.named_parameters())
    assert trainer.advance(batch)["skipped"] == 1
    assert not torch.equal(before["head.project.weight"], trainer.network.head.project.weight)


def test_only_matrices_of_blocks_decay(small_store):
    trainer = trainer_of(small_store)
    decayed, others = trainer.optimizer.flats
    assert [group["weight_decay"] for group in trainer.optimizer.adamw.param_groups] == [RECIPE.weight_decay, 0]
    assert all(name.startswith("blocks.") and parameter.dim() == 2 for name, parameter in decayed.parameters.items())
    assert {*decayed.parameters, *others.parameters} == {name for name, _ in trainer.network.named_parameters()}


def test_invariant_5_a_checkpoint_is_whole_or_no_checkpoint(small_store, undisturbed, tmp_path, monkeypatch):
    """A full disk in the middle of a checkpoint leaves the older one in charge."""
    save_file = checkpoints.save_file

    def full(content, path):
        if "step-00000004" in str(path) and path.name == "optimizer.safetensors":
            raise OSError(28, "No space left on device")
        save_file(content, path)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(StoreError, match="No space left on device"):
        run_of(small_store, tmp_path / "run", checkpoint_every=2)
    monkeypatch.undo()
    assert Run.open(tmp_path / "run").step == 2
    assert same(weights(run_of(small_store, tmp_path / "run", checkpoint_every=2)), weights(undisturbed))


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_damaged_checkpoint_is_refused_by_name(small_store, tmp_path, damage):
    run = run_of(small_store, tmp_path / "run", checkpoint_every=2, steps=4)
    file = run.newest / "average.safetensors"
    (file.unlink if damage == "remove" else lambda: file.write_bytes(file.read_bytes()[:-4]))()
    with pytest.raises(CheckpointError, match=r"average\.safetensors is (damaged|missing)"):
        Checkpoint.open(run.path).tensors("average")


def test_a_run_goes_on_only_with_its_own_arguments(small_store, undisturbed):
    with pytest.raises(ConfigurationError, match="seed=0, not 5"):
        run_of(small_store, undisturbed.path, seed=5)


def test_a_checkpoint_of_other_statistics_is_refused(small_store, undisturbed, tmp_path):
    manifest = json.loads((undisturbed.newest / "manifest.json").read_text())
    manifest["statistics"]["mean"][0] += 1.0
    copied = tmp_path / "step-00000006"
    copied.mkdir()
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="trained with statistics"):
        trainer_of(small_store).load(Checkpoint.open(copied))


def test_a_checkpoint_of_another_network_is_refused(small_store, undisturbed):
    from aeris.model.network import Network

    with pytest.raises(CheckpointError, match=r"blocks\.2\..* as None"):
        checkpoints.load_weights(Checkpoint.open(undisturbed.path), Network(replace(Checkpoint.open(undisturbed.path).model, depth=3)))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"batch": 0}, "batch=0"),
        ({"micro_batch": 3}, "micro_batch=3"),
        ({"precision": "float16"}, "float16"),
        ({"period": slice("1990", "1991")}, "1990"),
        ({"model": replace(MODEL, grid=(32, 32))}, r"grid=\(32, 32\)"),
        ({"model": replace(MODEL, channels=("2m_temperature", "temperature_500"))}, "temperature_500"),
        ({"model": replace(MODEL, window=(2, 2))}, "2"),
    ],
)
def test_invariant_7_what_cannot_work_is_refused_before_anything_is_written(small_store, tmp_path, changes, found):
    with pytest.raises(ConfigurationError, match=found):
        run_of(small_store, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_run_begins_from_the_averaged_weights_of_another(small_store, undisturbed, tmp_path):
    """The first step moves the average of the other run; moments, schedule and average begin anew; the start is told by its weights."""
    teacher = Checkpoint.open(undisturbed.path)
    trainer = trainer_of(small_store, precision="float32")
    trainer.begin(teacher)
    for name, tensor in teacher.tensors("average").items():
        assert torch.equal(trainer.pipeline.parameters()[name], tensor) and torch.equal(trainer.optimizer.averages()[name], tensor)
    run = run_of(small_store, tmp_path / "run", steps=2, start=undisturbed)
    assert run.configuration["start"]["weights_id"] == teacher.weights_id
    assert run.logbook.loss[0] != undisturbed.logbook.loss[0] and run.logbook.images[0] == 4


def test_a_run_goes_on_without_what_it_began_from(small_store, undisturbed, tmp_path):
    shutil.copytree(undisturbed.path, tmp_path / "teacher")
    whole = run_of(small_store, tmp_path / "whole", start=tmp_path / "teacher", checkpoint_every=2)
    shutil.copytree(whole.path, tmp_path / "run")
    for step in (4, 6):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{step:08d}")
    with pytest.raises(ConfigurationError, match="start="):
        run_of(small_store, tmp_path / "run", checkpoint_every=2)
    with pytest.raises(ConfigurationError, match="start="):
        run_of(small_store, tmp_path / "run", checkpoint_every=2, start=undisturbed.checkpoints[0])
    shutil.rmtree(tmp_path / "teacher")
    resumed = run_of(small_store, tmp_path / "run", checkpoint_every=2, start=tmp_path / "teacher")
    assert same(weights(resumed), weights(whole))


@pytest.mark.parametrize(
    ("changes", "found"), [({"model": replace(MODEL, dim=32)}, "dim=16, the model has 32"), ({"start": "nowhere"}, "nowhere holds no")]
)
def test_a_start_of_another_network_is_refused_before_anything_is_written(small_store, undisturbed, tmp_path, changes, found):
    with pytest.raises(AerisError, match=found):
        run_of(small_store, tmp_path / "run", **{"start": undisturbed.path, **changes})
    assert not (tmp_path / "run").exists()


def test_a_run_of_an_older_version_goes_on_and_its_checkpoints_open(small_store, undisturbed, tmp_path):
    """Neither objective nor start stood in its files."""
    shutil.copytree(undisturbed.path, tmp_path / "run")
    files = [("run.json", "recipe"), *((f"checkpoints/{path.name}/manifest.json", "training") for path in undisturbed.checkpoints)]
    for file, recipe in files:
        content = json.loads((tmp_path / "run" / file).read_text())
        content.pop("start", None)
        del content[recipe]["objective"]
        (tmp_path / "run" / file).write_text(json.dumps(content))
    assert Checkpoint.open(tmp_path / "run").training == RECIPE
    assert run_of(small_store, tmp_path / "run", checkpoint_every=2).step == 6


def test_an_objective_of_a_newer_version_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="telepathy"):
        TrainingRecipe(objective={"kind": "telepathy"})


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(StoreError, match="is not a run"):
        Run.open(tmp_path)


def test_the_logbook_has_what_it_promises(undisturbed):
    promised = {"images", "loss", "grad_norm", "lr", "seconds", "samples_per_second", "tflops_per_rank", "memory_gb", "skipped"}
    assert promised <= set(undisturbed.logbook.data_vars)
    assert undisturbed.configuration["versions"]["torch"] == torch.__version__
