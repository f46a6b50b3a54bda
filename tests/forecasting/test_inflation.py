"""Noise of another deviation: what it makes of an ensemble, and that what was begun before there was any goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_ensemble import SAMPLING, trained

import aeris
from aeris.cluster.jobs import ForecastSpecification
from aeris.diffusion.solver import calls
from aeris.diffusion.transition import transition
from aeris.errors import ConfigurationError, StoreError
from aeris.forecasting.archive import Archive
from aeris.model.presets import SamplingRecipe, sampling_consistency
from aeris.swipe import Layout
from aeris.training.checkpoint import Checkpoint

FIELDS = SimpleNamespace(masked=lambda tokens: tokens, condition=lambda *given: None, next_state=lambda state, residual, interval: residual)
"""Of a residual that is the state itself."""


def drawn(recipe: SamplingRecipe, deviation: float) -> torch.Tensor:
    """Samples of a Gaussian distribution of mean 0.7 and deviation 0.3, of noise of a given deviation."""
    generator = torch.Generator().manual_seed(0)

    def draw(purpose: str, *place: int) -> torch.Tensor:
        return deviation * torch.randn(1000, generator=generator, dtype=torch.float64)

    following = transition(FIELDS, torch.zeros(1000), np.zeros(1, "M8[s]"), np.timedelta64(6, "h"), recipe, draw)
    angles = iter(calls(recipe))
    try:
        x, _ = next(following)
        while True:
            t = torch.tensor(next(angles), dtype=torch.float64)
            gain = t.cos() * t.sin() * (1 - 0.3**2) / ((0.3 * t.cos()) ** 2 + t.sin() ** 2)
            x, _ = following.send(-t.sin() * 0.7 + gain * (x - t.cos() * 0.7))
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize(
    "recipe",
    [
        SamplingRecipe(),
        SamplingRecipe(solver="dpm2s", steps=8, churn=2.0),
        SamplingRecipe(solver="heun", steps=30, noise=(0.05, 200.0), churn=4.0),
        sampling_consistency(1),
        sampling_consistency(2),
    ],
    ids=lambda recipe: f"{recipe.solver}-{recipe.steps}",
)
def test_all_noise_of_a_sampler_is_inflated(recipe):
    """Samples of Gaussian data are linear in all the noise of their sampler: they are that much further from the one without noise."""
    without, plain, inflated = drawn(recipe, 0.0), drawn(recipe, 1.0), drawn(replace(recipe, inflation=1.25), 1.0)
    torch.testing.assert_close(inflated - without, 1.25 * (plain - without), rtol=1e-9, atol=1e-12)
    if recipe.solver == "heun":
        assert float(inflated.std()) == pytest.approx(1.25 * 0.3, rel=0.1)


@pytest.fixture(scope="module")
def run(small_store, tmp_path_factory):
    return trained(small_store, tmp_path_factory.mktemp("runs") / "run", steps=2)


def test_one_is_the_forecast_as_it_was_and_more_is_wider(run, small_world, tmp_path):
    def spread(name: str, **changes) -> tuple[dict, float]:
        sampling = replace(SAMPLING, **changes)
        start = small_world.time.values[2:3]
        how = {"lead": "6h", "precision": "float32", "progress": False}
        fc = aeris.forecast(run, small_world, start, 8, out=tmp_path / name, sampling=sampling, **how)
        return fc, float(fc["geopotential"].std("number").mean())

    (plain, narrow), (wider, wide) = spread("plain.zarr"), spread("wide.zarr", inflation=1.5)
    assert spread("same.zarr", inflation=1.0)[0].equals(plain) and not wider.equals(plain)
    assert wide / narrow == pytest.approx(1.5, rel=0.05)


def without_inflation(recipe: SamplingRecipe) -> dict:
    """A sampler as it was written before it had an inflation."""
    return {name: value for name, value in json.loads(json.dumps(asdict(recipe))).items() if name != "inflation"}


def test_older_archives_go_on_with_the_default(tmp_path):
    times, leads = np.array(["2001-01-01"], "datetime64[ns]"), np.array([6], "timedelta64[h]").astype("timedelta64[ns]")
    archive = Archive(tmp_path / "f.zarr", ("geopotential_500",), aeris.Grid.regular(16, 32), times, 2, 2, leads)
    archive.lay_out({"batch": 2, "sampling": without_inflation(SAMPLING)})
    archive.lay_out({"batch": 2, "sampling": asdict(SAMPLING)})
    with pytest.raises(StoreError, match="sampling="):
        archive.lay_out({"batch": 2, "sampling": asdict(replace(SAMPLING, inflation=1.1))})


def test_an_archive_does_not_go_on_without_an_option_that_it_was_begun_with(tmp_path):
    times, leads = np.array(["2001-01-01"], "datetime64[ns]"), np.array([6], "timedelta64[h]").astype("timedelta64[ns]")
    archive = Archive(tmp_path / "f.zarr", ("geopotential_500",), aeris.Grid.regular(16, 32), times, 2, 2, leads)
    archive.lay_out({"batch": 2, "perturb": {"scale": 0.1}})
    with pytest.raises(StoreError, match="perturb="):
        archive.lay_out({"batch": 2})


def test_older_checkpoints_and_jobs_have_the_default(run, tmp_path):
    manifest = run.newest / "manifest.json"
    written = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**written, "sampling": without_inflation(SAMPLING)}))
    assert Checkpoint.open(run.newest).sampling == SAMPLING
    job = ForecastSpecification(Layout(), "run", "initial.zarr", ("2001-01-01T00",), 4, "24h", "f.zarr", 0, 2, SAMPLING, "float32", False)
    assert ForecastSpecification.of_json({**job.to_json(), "sampling": without_inflation(SAMPLING)}) == job


@pytest.mark.parametrize("inflation", [0.0, -1.0, 0.4, 2.1, float("nan")])
def test_noise_far_from_the_training_is_refused(inflation):
    with pytest.raises(ConfigurationError, match="inflation="):
        SamplingRecipe(inflation=inflation)
