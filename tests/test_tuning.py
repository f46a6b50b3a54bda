"""Tuning: the choice against scores worked out by hand, and what is written where."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import xarray as xr

import aeris
from aeris import tuning
from aeris.cli import main
from aeris.errors import ConfigurationError, DataError, StoreError
from aeris.model.config import ModelConfig
from aeris.model.presets import Crps, SamplingRecipe, TrainingRecipe, sampling_consistency
from aeris.training.checkpoint import Checkpoint
from aeris.tuning import PRESENT, Tuning, candidates_of
from aeris.verification.pairing import LEAD

MODEL = ModelConfig(grid=(16, 32), dim=16, depth=2, heads=2, mlp=24, window=(4, 4))
SAMPLING = SamplingRecipe(steps=2)
WIDER = [replace(SAMPLING, inflation=inflation) for inflation in (0.7, 1.4)]


@pytest.fixture(scope="module")
def run(small_store, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return aeris.train(MODEL, small_store, out, steps=20, precision="float32", sampling=SAMPLING, progress=False)


@pytest.fixture
def ask(run, small_world, tmp_path):
    """Asks for a tuning with small defaults."""

    def asked(**changes):
        defaults = {"members": 4, "leads": ["6h", "12h"], "apart": "18h", "candidates": WIDER, "precision": "float32", "progress": False}
        arguments = {"checkpoint": run, "truth": small_world, "period": slice("2001-01-03", "2001-01-09"), "out": tmp_path / "tuning"}
        return aeris.tune(**{**arguments, **defaults, **changes})

    return asked


@pytest.fixture(scope="module")
def tuned(run, small_world, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuning") / "tuning"
    how = {"members": 4, "leads": ["6h", "12h"], "apart": "18h", "candidates": WIDER, "precision": "float32", "progress": False}
    return out, aeris.tune(run, small_world, slice("2001-01-03", "2001-01-09"), out=out, **how)


def member_statistics(fc: xr.Dataset, truth: xr.Dataset, name: str, level: int | None = None) -> tuple[np.ndarray, ...]:
    """Fair CRPS, variance times (M + 1) / M, and squared error of the mean, each ``(time, lead)``, by sums over members and cells."""
    field, seen = (ds[name] if level is None else ds[name].sel(level=level) for ds in (fc, truth))
    area = aeris.Grid.of(fc).area[:, None] * np.ones(fc.sizes["longitude"])
    found = np.zeros((3, fc.sizes["time"], fc.sizes[LEAD]))
    for i, start in enumerate(fc.time.values):
        for j, lead in enumerate(fc[LEAD].values):
            x, y = field.isel(time=i).sel({LEAD: lead}).values.astype(float), seen.sel(time=start + lead).values
            count = len(x)
            pairs = sum(abs(x[m] - x[n]) for m in range(count) for n in range(m)) / (count * (count - 1))
            cells = abs(x - y).mean(0) - pairs, x.var(0, ddof=1) * (count + 1) / count, (x.mean(0) - y) ** 2
            found[:, i, j] = [np.average(cell[~np.isnan(y)], weights=area[~np.isnan(y)]) for cell in cells]
    return tuple(found)


def test_scores_are_those_of_the_forecasts(tuned, small_world):
    """Worked out in numpy from the archives that lie in the directory."""
    out, found = tuned
    channels = [("2m_temperature", None), ("10m_u_component_of_wind", None), ("geopotential", 500), ("geopotential", 850)]
    channels.append(("sea_surface_temperature", None))
    crps, ratio = {}, {}
    for recipe in found.candidates:
        fc = aeris.open_forecast(out / "forecasts" / f"{tuning._digest(recipe)}.zarr").load()
        parts = np.array([member_statistics(fc, small_world, *channel) for channel in channels]).mean(2)
        crps[recipe], ratio[recipe] = parts[:, 0], np.sqrt(parts[:, 1] / parts[:, 2])
    for number, recipe in enumerate(found.candidates):
        one = found.scores.isel(candidate=number)
        np.testing.assert_allclose(one["crps.geopotential"].sel(level=850), crps[recipe][3], rtol=1e-5)
        np.testing.assert_allclose(one["spread_skill.2m_temperature"], ratio[recipe][0], rtol=1e-5)
        np.testing.assert_allclose(one.crps, (crps[recipe] / crps[SAMPLING]).mean(0), rtol=1e-5)
        assert float(one.misfit) == pytest.approx(abs(np.log(ratio[recipe])).mean(), rel=1e-5)
        assert bool((one.crps_low <= one.crps).all() and (one.crps <= one.crps_high).all())
        assert bool((one.spread_skill_low < one.spread_skill).all() and (one.spread_skill < one.spread_skill_high).all())


def test_the_first_is_the_sampler_that_was_there(tuned):
    _, found = tuned
    assert found.candidates == (SAMPLING, *WIDER)
    first = found.scores.isel(candidate=0)
    assert first.candidate == PRESENT and (first.crps == 1).all() and (first.crps_low == 1).all()
    assert (first["relative.spread_skill.geopotential"] == 0).all()
    assert found.scores.candidate.values[1:].tolist() == ["inflation=0.7", "inflation=1.4"]


def test_too_narrow_an_ensemble_is_widened(tuned):
    """The network is hardly trained, its ensemble far too narrow: more noise is better in both scores."""
    _, found = tuned
    assert found.chosen == WIDER[1] and found.scores.spread_skill.max() < 0.5
    assert found.scores.tied.values.tolist() == [False, False, True]
    table = found.table()
    assert table.loc["inflation=1.4", ("all leads", "CRPS")] == "chosen" and list(table.index) == list(found.scores.candidate.values)


def means_of(crps: list[float], ratio: list[float], noise: float = 0.2) -> list[xr.Dataset]:
    """Mean statistics of candidates with a CRPS and a ratio, of three channels of units far apart, on dates that they share."""
    rng, times = np.random.default_rng(0), np.datetime64("2020-01-01", "ns") + np.arange(24) * np.timedelta64(5, "D")
    common, leads = 1 + noise * rng.random((24, 1)), np.array([24], "timedelta64[h]").astype("timedelta64[ns]")
    found = []
    for score, wide in zip(crps, ratio, strict=True):
        own = score * common * (1 + 0.02 * rng.standard_normal((24, 1)))
        statistics = np.stack([own, wide**2 * common, common, np.ones_like(own), np.full_like(own, 8)])[:, None]
        names = ["fair_crps", "expected_squared_error", "squared_error", "area", "members"]
        where = {"statistic": names, "system": ["forecast"], "time": times, LEAD: leads}
        units = {"x": 1e-3, "y": 1.0, "z": 1e5}
        scales = {name: np.array([unit, unit**2, unit**2, 1, 1])[:, None, None, None] for name, unit in units.items()}
        about = {"units": "m", "long_name": "height"}
        fields = {name: (list(where), statistics * scale, about) for name, scale in scales.items()}
        found.append(xr.Dataset(fields, where, {"members": 8, "grid": "1×1"}))
    return found


@pytest.mark.parametrize(
    ("crps", "ratio", "tied", "chosen"),
    [
        ([1.0, 0.999, 1.001], [0.8, 0.7, 0.97], [True, True, True], 2),
        ([1.0, 0.8, 0.95], [1.0, 0.7, 0.9], [False, True, False], 1),
        ([1.0, 1.0, 1.1], [1.1, 1 / 1.05, 1.0], [True, True, False], 1),
    ],
)
def test_of_those_that_crps_cannot_tell_apart_the_one_whose_spread_fits_is_chosen(crps, ratio, tied, chosen):
    scores = tuning._scores(means_of(crps, ratio), ["a", "b", "c"], 0.95)
    assert scores.tied.values.tolist() == tied
    assert scores.chosen.values.tolist() == [number == chosen for number in range(3)]
    np.testing.assert_allclose(scores.spread_skill[0], ratio, rtol=1e-12)
    np.testing.assert_allclose(scores.misfit, abs(np.log(ratio)), rtol=1e-9)


@pytest.mark.slow
def test_an_interrupted_tuning_goes_on(ask, tuned, tmp_path, monkeypatch):
    drawn: list[SamplingRecipe] = []

    def forecast(*given, sampling, **how):
        drawn.append(sampling)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return aeris.forecast(*given, sampling=sampling, **how)

    monkeypatch.setattr(tuning, "forecast", forecast)
    with pytest.raises(KeyboardInterrupt):
        ask()
    with pytest.raises(StoreError, match="no finished tuning"):
        Tuning.open(tmp_path / "tuning")
    xr.testing.assert_identical(ask().scores, tuned[1].scores)
    assert drawn == [SAMPLING, WIDER[0], *[SAMPLING, *WIDER]]


@pytest.mark.slow
def test_what_is_chosen_is_written_into_the_manifest_alone(run, ask, tuned, small_world, tmp_path):
    """Asked for once more, with all forecasts there, of a copy of the run."""
    copy = shutil.copytree(run.path, tmp_path / "run")
    shutil.copytree(tuned[0], tmp_path / "tuning")
    newest = Checkpoint.open(copy).path
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in newest.iterdir()}
    manifest = json.loads((newest / "manifest.json").read_text())
    found = ask(checkpoint=copy, write=True)
    assert found.chosen == WIDER[1] == Checkpoint.open(copy).sampling
    after = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in newest.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"manifest.json"} and after.keys() == before.keys()
    written = json.loads((newest / "manifest.json").read_text())
    assert {**written, "sampling": None} == {**manifest, "sampling": None} and list(written) == list(manifest)
    how = {"members": 2, "lead": "6h", "precision": "float32", "progress": False}
    fc = aeris.forecast(copy, small_world, small_world.time.values[2:3], out=tmp_path / "f.zarr", **how)
    assert fc.attrs["forecast"]["sampling"]["inflation"] == found.chosen.inflation


def test_a_sampler_that_a_network_does_not_know_is_not_written(run):
    with pytest.raises(ConfigurationError, match="consistency"):
        Checkpoint.open(run.path).recommend(sampling_consistency())
    with pytest.raises(StoreError, match="could not be written"):
        replace(Checkpoint.open(run.path), path=run.path / "nowhere").recommend(SAMPLING)


@pytest.mark.parametrize(
    ("sampling", "objective", "churns"),
    [
        (SamplingRecipe(), None, {0.0}),
        (SamplingRecipe(solver="heun", steps=10), None, {0.0, 1.0, 2.5}),
        (sampling_consistency(2), None, {0.0}),
        (SamplingRecipe(solver="dpm2s", steps=2, churn=0.2), Crps(), {0.2}),
    ],
)
def test_candidates_are_those_that_the_sampler_can_be(run, sampling, objective, churns):
    training = TrainingRecipe() if objective is None else TrainingRecipe(objective=objective)
    found = candidates_of(replace(Checkpoint.open(run.path), sampling=sampling, training=training))
    assert {recipe.churn for recipe in found} == churns
    assert {replace(recipe, churn=0.0, inflation=1.0) for recipe in found} == {replace(sampling, churn=0.0)}
    assert len({recipe.inflation for recipe in found}) >= 4


@pytest.mark.parametrize(
    ("changes", "error", "found"),
    [
        ({"members": 1}, ConfigurationError, "members=1"),
        ({"leads": ["7h"]}, ConfigurationError, "7h"),
        ({"leads": ["soon"]}, ConfigurationError, "soon"),
        ({"period": slice("2001-01-01", "2001-01-03")}, DataError, "holds .* initial times"),
        ({"period": slice("2001-01-03", "2001-01-09"), "apart": "6h", "leads": ["4D"]}, DataError, "blocks of 16"),
        ({"period": slice("once", "twice")}, ConfigurationError, "once"),
        ({"candidates": []}, ConfigurationError, "No candidate"),
        ({"candidates": [SamplingRecipe(noise=(0.001, 100.0))]}, ConfigurationError, "0.001"),
        ({"candidates": [sampling_consistency()]}, ConfigurationError, "consistency"),
        ({"checkpoint": "demo", "write": True}, ConfigurationError, "write=True"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_before_anything_is_drawn(ask, tmp_path, changes, error, found):
    if changes.get("checkpoint") == "demo":
        changes = {**changes, "checkpoint": aeris.load("demo")}
    with pytest.raises(error, match=found):
        ask(**changes)
    assert not (tmp_path / "tuning").exists()


def test_a_truth_with_a_gap_is_refused(ask, small_world, tmp_path):
    with pytest.raises(DataError, match="The truth has no 2001-01-05T12"):
        ask(truth=small_world.drop_sel(time=np.datetime64("2001-01-05T12")), period=slice("2001-01-03", "2001-01-09"))
    assert not (tmp_path / "tuning").exists()


def test_a_tuning_is_read_again(tuned, tmp_path):
    out, found = tuned
    again = Tuning.open(out)
    assert again.candidates == found.candidates and again.chosen == found.chosen
    assert json.loads(str(again.scores.sampling.values[1])) == json.loads(json.dumps(asdict(WIDER[0])))
    with pytest.raises(StoreError, match="no finished tuning"):
        Tuning.open(tmp_path)


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes(run, tuned, small_world, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run.path, "run")
    shutil.copytree(tuned[0], "tuning")
    small_world.to_zarr("truth.zarr", zarr_format=3, consolidated=False)
    words = "tune --checkpoint run --truth truth.zarr --period 2001-01-03 2001-01-09 --members 4 --leads 6h 12h --apart 18h"
    assert main([*words.split(), "--precision", "float32", "--inflations", "0.7", "1.4", "--write"]) == 0
    said = capsys.readouterr().out
    assert "inflation=1.4" in said and "chosen" in said and "wrote tuning/scores.zarr and the sampler into run" in said
    assert Checkpoint.open("run").sampling == WIDER[1]
    assert main([*words.split(), "--churns", "1.0"]) == 2
    assert "churn=1.0" in capsys.readouterr().err
