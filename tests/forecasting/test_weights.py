"""Weights by name: what comes with the package is small, whole, and forecasts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import aeris
from aeris.data.grid import Grid
from aeris.diffusion.solver import calls
from aeris.errors import CheckpointError, ConfigurationError
from aeris.forecasting.weights import BUNDLED
from aeris.model.presets import SamplingRecipe, sampling_consistency, tiny, two_calls
from aeris.training.checkpoint import Checkpoint


def test_the_bundled_weights_are_those_of_the_tiny_preset_on_the_planet():
    model, world = aeris.load("demo"), aeris.Planet(grid=(32, 64), seed=0)
    assert model.model == tiny(channels=model.model.channels)
    assert set(model.model.channels) == set(world.channels)
    assert model.interval == np.timedelta64(6, "h")
    assert model.sampling == SamplingRecipe()
    assert model.geography.grid.same_as(Grid.regular(32, 64))
    np.testing.assert_array_equal(model.geography.static["land_sea_mask"], world.climate.land.astype(np.float32))


@pytest.mark.parametrize(("name", "sampling"), [("demo-one-call", sampling_consistency(1)), ("demo-two-calls", two_calls())])
def test_tuned_weights_are_those_of_the_demo_with_another_sampler(name, sampling):
    demo, tuned = aeris.load("demo"), aeris.load(name)
    assert (tuned.model, tuned.statistics.id, tuned.interval) == (demo.model, demo.statistics.id, demo.interval)
    assert tuned.sampling == sampling and len(calls(tuned.sampling)) < len(calls(demo.sampling))
    assert tuned.weights_id != demo.weights_id


@pytest.mark.parametrize("name", BUNDLED)
def test_every_file_of_the_bundled_weights_is_whole_and_small(name):
    folder = BUNDLED[name]
    model = Checkpoint.open(folder)
    held = {file.name for file in folder.iterdir()}
    assert held == {"manifest.json", *model.files} == {"manifest.json", "average.safetensors", "geography.safetensors"}
    assert sum(tensor.numel() for tensor in model.tensors("average").values()) == 738_144
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 3_000_000


def test_a_name_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ConfigurationError, match=r"'tiny'.*'demo', 'demo-one-call', .*'swift'.*a run of your own"):
        aeris.load("tiny")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({}, "without path"),
        ({"path": "nowhere"}, "'nowhere' is not there"),
        ({"path": BUNDLED["demo"]}, "is a checkpoint of this package"),
        ({"path": ".", "interval": "6h"}, "has one step"),
        ({"path": ".", "rows": "up"}, "rows='up'"),
        ({"path": ".", "weights": "best"}, "weights='best'"),
    ],
)
def test_arguments_that_do_not_go_with_weights_of_others_are_refused(given, match):
    with pytest.raises(ConfigurationError, match=match):
        aeris.load("aeris-gb", **given)


def test_bundled_weights_need_no_path():
    with pytest.raises(ConfigurationError, match="come with the package"):
        aeris.load("demo", path="somewhere")


def test_damaged_weights_are_refused(tmp_path: Path):
    model = aeris.load("demo")
    for file in model.path.iterdir():
        content = bytearray(file.read_bytes())
        if file.name == "average.safetensors":
            content[-1] ^= 1
        (tmp_path / file.name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"average\.safetensors is damaged"):
        replace(model, path=tmp_path).tensors("average")


@pytest.mark.slow
def test_the_bundled_weights_beat_persistence_in_every_channel(tmp_path: Path):
    """And stay within a fifth of the optimum: fair CRPS at 6 h and 12 h, of three members from two dates that were not trained on."""
    world = aeris.Planet(grid=(32, 64), seed=0)
    truth = world.simulate(years=0.02, start="2005-01-01", seed=1)
    times = truth.time.values[[1, 20]]
    fc = aeris.forecast(aeris.load("demo"), truth, times, 3, "12h", tmp_path / "f.zarr", batch=3, precision="float32", progress=False)
    scores = aeris.verify(fc, truth, baselines=("persistence", "optimum"))
    ratios = {"persistence": [], "optimum": []}
    for name in (name for name in scores if str(name).startswith("crps.")):
        for system, found in ratios.items():
            found.append((scores[name].sel(system="forecast") / scores[name].sel(system=system)).values.ravel())
    assert max(np.concatenate(ratios["persistence"])) < 1
    assert np.concatenate(ratios["optimum"]).mean() < 1.2
