"""The command line says what the notebook says, and one plain message where something is wrong."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from safetensors.torch import load_file

import aeris
from aeris.cli import COMMANDS, main
from aeris.model.presets import Consistency, Crps
from aeris.training.checkpoint import Checkpoint


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as leaving:
        main([*command.split(), "--help"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: aeris {command}".rstrip())


def test_a_refusal_is_one_message_and_exit_code_2(tmp_path):
    words = [sys.executable, "-m", "aeris", "train", "--data", str(tmp_path / "none.zarr"), "--out", str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "none.zarr" in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_model_that_cannot_work_is_refused_in_one_message(small_store, tmp_path, capsys):
    words = [
        "train",
        "--data",
        str(small_store.path),
        "--out",
        str(tmp_path / "run"),
        "--model.grid",
        "16",
        "32",
        "--model.window",
        "4",
        "5",
    ]
    assert main(words) == 2
    assert "window=(4, 5)" in capsys.readouterr().err


def test_nothing_that_is_there_is_replaced(tmp_path, capsys):
    (tmp_path / "planet.zarr").mkdir()
    assert main(["data", "simulate", "--out", str(tmp_path / "planet.zarr")]) == 2
    assert "exists" in capsys.readouterr().err


@pytest.fixture
def verified(small_world, tmp_path, monkeypatch):
    """A persistence forecast of `small_world` on disk beside it; the words of a command that verifies it."""
    world = small_world[["2m_temperature", "geopotential"]]
    leads = np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]")
    held = world.isel(time=slice(None, 8, 4)).expand_dims(prediction_timedelta=leads)
    held.to_zarr(tmp_path / "fc.zarr", zarr_format=3, consolidated=False)
    world.to_zarr(tmp_path / "truth.zarr", zarr_format=3, consolidated=False)
    world.drop_sel(time=world.time.values[6]).to_zarr(tmp_path / "gaps.zarr", zarr_format=3, consolidated=False)
    world.assign_coords(time=world.time + np.timedelta64(900, "D")).to_zarr(tmp_path / "later.zarr", zarr_format=3, consolidated=False)
    monkeypatch.chdir(tmp_path)
    return ["verify", "--forecast", "fc.zarr", "--truth", "truth.zarr", "--out", "scores.zarr"]


def test_verify_leaves_scores_and_a_page_and_nothing_else(verified, tmp_path, capsys):
    assert main([*verified, "--truth", "gaps.zarr", "--gaps", "skip", "--thresholds", "2m_temperature=285"]) == 0
    assert capsys.readouterr().out.splitlines() == ["wrote scores.html", "wrote scores.zarr"]
    scores = xr.open_zarr("scores.zarr", consolidated=False, decode_timedelta=True)
    assert scores.attrs["missing_truth"] == 1 and float(scores["rmse.geopotential"].isel(system=0).max()) > 0
    page = (tmp_path / "scores.html").read_text()
    assert "Brier skill" in page and "Initial times and leads without truth</th><td>1<" in page
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    for path in ("scores.html", "scores.zarr"):
        assert main(verified) == 2
        assert "exists" in capsys.readouterr().err
        (tmp_path / "scores.zarr").rename(tmp_path / "away.zarr") if path == "scores.html" else None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--forecast", "none.zarr"], "no forecast at none.zarr"),
        (["--truth", "gaps.zarr"], "--gaps skip"),
        (["--truth", "later.zarr", "--gaps", "skip"], "times in common"),
        (["--thresholds", "rain=1"], "threshold of rain"),
        (["--metrics", "skill"], "'skill'"),
        (["--regions", "europe_land"], "'europe_land'"),
        (["--baselines", "climatology"], "without a climatology"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_input_of_verify_is_one_message_and_leaves_no_scores(verified, words, said, tmp_path, capsys):
    assert main([*verified, *words]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "scores.zarr").exists() and not (tmp_path / "scores.html").exists()


MODEL = {"grid": (16, 32), "dim": 16, "depth": 2, "heads": 2, "mlp": 24, "window": (4, 4)}
WORDS = [word for name, value in MODEL.items() for word in (f"--model.{name}", *str(value).strip("()").split(", "))]


@pytest.fixture(scope="module")
def teacher(small_store, tmp_path_factory) -> aeris.Run:
    """A diffusion model to begin from."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    return aeris.train(aeris.presets.tiny(**MODEL), small_store, out, steps=4, precision="float32", progress=False)


@pytest.mark.parametrize(
    ("recipe", "words", "made", "sampling"),
    [
        (
            "distillation",
            ["--consistency.constant", "0.2", "--training.noise", "0.2", "100"],
            aeris.presets.TrainingRecipe(noise=(0.2, 100), objective=Consistency(constant=0.2)),
            aeris.presets.sampling_consistency(largest=100),
        ),
        (
            "fine-tuning",
            ["--crps.members", "3", "--crps.curriculum", "4", "4", "--sampling.steps", "2", "--sampling.noise", "0.5", "200"],
            replace(aeris.presets.fine_tuning(), objective=Crps(members=3, curriculum=(4, 4), spectrum=2.0)),
            replace(aeris.presets.sampling_consistency(2), noise=(0.5, 200)),
        ),
    ],
)
def test_recipes_that_begin_from_another_run(small_store, teacher, tmp_path, recipe, words, made, sampling):
    """The weights are those that the recipe, the sampler and the start give in a notebook."""
    asked = ["--steps", "2", "--precision", "float32", "--recipe", recipe, "--start", str(teacher.path), *words, *WORDS]
    assert main(["train", "--data", str(small_store.path), "--out", str(tmp_path / "run"), *asked]) == 0
    how = {"steps": 2, "precision": "float32", "recipe": made, "sampling": sampling, "start": teacher, "progress": False}
    again = aeris.train(aeris.presets.tiny(**MODEL), small_store, tmp_path / "again", **how)
    one, two = (load_file(run.newest / "weights.safetensors") for run in (aeris.Run.open(tmp_path / "run"), again))
    assert all((one[name] == two[name]).all() for name in two)
    assert Checkpoint.open(tmp_path / "run").sampling == sampling


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "fine-tuning"], "--start RUN"),
        (["--recipe", "distillation"], "start=RUN"),
        (["--crps.members", "3"], "--recipe fine-tuning"),
        (["--recipe", "fine-tuning", "--start", "nowhere", "--consistency.constant", "0.2"], "use --recipe consistency"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_recipe_without_its_start_or_with_changes_to_another_is_refused(small_store, tmp_path, capsys, words, said):
    assert main(["train", "--data", str(small_store.path), "--out", str(tmp_path / "run"), *words, *WORDS]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_whole_line_equals_the_calls_of_a_notebook(tmp_path):
    """simulate, prepare, check, train, forecast and verify by command, and the same by function: the same bits."""
    planet, store, run, archive, scores = (str(tmp_path / name) for name in ("planet.zarr", "store.zarr", "run", "f.zarr", "scores.zarr"))
    model = ["--model.grid", "16", "32", "--model.dim", "16", "--model.depth", "2", "--model.heads", "2", "--model.window", "4", "4"]
    model += ["--model.intervals", "6", "12"]
    assert main(["data", "simulate", "--years", "0.05", "--grid", "16", "32", "--out", planet]) == 0
    assert main(["data", "prepare", planet, "--out", store, "--chunk", "4", "--intervals", "12h"]) == 0
    assert main(["data", "check", store]) == 0
    training = ["--steps", "3", "--precision", "float32", "--training.learning-rate", "0.002", "--sampling.steps", "3"]
    assert main(["train", "--data", store, "--out", run, *training, *model]) == 0
    asked = ["--times", "2001-01-03T00", "2001-01-04T06", "--members", "2", "--lead", "12h", "--step", "fewest", "--precision", "float32"]
    assert main(["forecast", "--checkpoint", run, "--initial", planet, *asked, "--out", archive]) == 0
    assert main(["verify", "--forecast", archive, "--truth", planet, "--baselines", "persistence", "optimum", "--out", scores]) == 0

    config = aeris.presets.tiny(grid=(16, 32), dim=16, depth=2, heads=2, window=(4, 4), intervals=(6, 12))
    recipe = aeris.presets.TrainingRecipe(learning_rate=0.002)
    sampling = aeris.presets.SamplingRecipe(steps=3)
    again = aeris.train(config, store, tmp_path / "again", steps=3, precision="float32", recipe=recipe, sampling=sampling, progress=False)
    one, two = (load_file(r.newest / "weights.safetensors") for r in (aeris.Run.open(run), again))
    assert all((one[name] == two[name]).all() for name in two)
    truth = aeris.open_era5(planet)
    times = ["2001-01-03T00", "2001-01-04T06"]
    fc = aeris.forecast(again, truth, times, 2, "12h", tmp_path / "again.zarr", precision="float32", progress=False, step="fewest")
    xr.testing.assert_equal(fc.drop_attrs(), aeris.open_forecast(archive).drop_attrs())
    written = xr.open_zarr(scores, consolidated=False)
    expected = aeris.verify(fc, truth, baselines=("persistence", "optimum"))
    xr.testing.assert_allclose(written["crps.geopotential"].load(), expected["crps.geopotential"])
    assert written.system.values.tolist() == ["forecast", "persistence", "optimum"]
    assert "Beside optimum" in (tmp_path / "scores.html").read_text()


@pytest.mark.full
def test_torchrun_trains_and_forecasts_what_one_process_does(small_store, small_world, tmp_path):
    """Four ranks, started from the shell: the weights, the forecast and a log for each rank."""
    ds = small_world.copy()
    ds.to_zarr(tmp_path / "world.zarr", zarr_format=3, consolidated=False)
    many = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4", "-m", "aeris"]
    one = [sys.executable, "-m", "aeris"]
    for start, layout, name in ((many, ["--layout.pp", "2", "--layout.sp", "2"], "many"), (one, [], "one")):
        out = tmp_path / name
        train = ["train", "--data", small_store.path, "--out", out, "--steps", "4", "--precision", "float64", *WORDS, *layout]
        subprocess.run([*start, *map(str, train)], check=True, timeout=300)
        sampled = ["forecast", "--checkpoint", out, "--initial", tmp_path / "world.zarr", "--times", "2001-01-02T00", "--members", "2"]
        more = ["--lead", "12h", "--batch", "2", "--precision", "float64", "--out", tmp_path / f"{name}.zarr", *layout]
        subprocess.run([*start, *map(str, [*sampled, *more])], check=True, timeout=300)
    runs = [aeris.Run.open(tmp_path / name) for name in ("many", "one")]
    np.testing.assert_allclose(runs[0].logbook.loss, runs[1].logbook.loss, rtol=1e-9)
    forecasts = [aeris.open_forecast(tmp_path / f"{name}.zarr") for name in ("many", "one")]
    xr.testing.assert_allclose(*(fc.drop_attrs() for fc in forecasts), rtol=1e-5)
    assert sorted(log.name for log in (tmp_path / "many" / "engines").iterdir()) == [f"rank-{rank}.log" for rank in range(4)]
