"""Networks of others are forecast with on many ranks as on one: Swift, whose tokens are patches, and the options of AERIS-GB."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import aeris
from aeris.errors import ConfigurationError
from aeris.forecasting.ensemble import forecast
from aeris.interop.swift import SwiftConfig
from aeris.model import presets
from aeris.model.config import ModelConfig
from aeris.model.fields import Geography
from aeris.model.presets import SamplingRecipe, TrainingRecipe
from aeris.swipe import Layout
from aeris.training.checkpoint import Checkpoint, build, save

SIZES = {"grid": (16, 32), "dim": 32, "depth": 4, "heads": 8, "window": (8, 8)}
TELLING = [Layout(pp=2, sp=4), Layout(dp=2, wp=(2, 2)), Layout(pp=2, wp=(1, 2), sp=2)]
OTHERS = [Layout(sp=8), Layout(pp=4, sp=4), Layout(pp=2, wp=(1, 2), sp=8, schedule="interleaved_1f1b"), Layout(wp=(2, 1), sp=4)]


@pytest.fixture(scope="module", params=["swift", "aeris-gb"])
def model(request, small_store, tmp_path_factory) -> Path:
    """A checkpoint of a network with random weights, none of them zero."""
    channels, forcings = small_store.channels, small_store.statistics.forcings
    if request.param == "swift":
        config = SwiftConfig(channels=channels, forcings=forcings, **SIZES)
    else:
        config = presets.snapshot(ModelConfig(channels=channels, forcings=forcings, mlp=24, shift_every=2, **SIZES))
    network, generator = build(config), torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    geography = Geography(small_store.grid, dict(zip(small_store.static, small_store.static_fields, strict=True)), small_store.sea_mask)
    path = tmp_path_factory.mktemp("foreign") / request.param
    recipes = TrainingRecipe(), SamplingRecipe(steps=3)
    checkpoint = Checkpoint(path, 0, 0, 0, config, *recipes, np.timedelta64(6, "h"), small_store.statistics)
    save(checkpoint, {"average": network.state_dict()}, geography)
    return path


def sampled(path: str, world: xr.Dataset, out: str, layout: Layout) -> None:
    forecast(path, world, world.time.values[[3, 7]], 3, "12h", out, batch=2, precision="float64", layout=layout, progress=False)


def assert_same_forecast(ranks, model: Path, world: xr.Dataset, layout: Layout, folder: Path) -> None:
    ranks.run(1, sampled, str(model), world, str(folder / "alone.zarr"), Layout())
    ranks.run(layout.world, sampled, str(model), world, str(folder / "shared.zarr"), layout)
    one, many = (aeris.open_forecast(folder / name) for name in ("alone.zarr", "shared.zarr"))
    for name in one.data_vars:
        assert bool(many[name].isel(prediction_timedelta=-1).notnull().any())
        np.testing.assert_allclose(many[name].values, one[name].values, rtol=1e-6, err_msg=str(name))


@pytest.mark.parametrize("layout", TELLING[:1], ids=str)
def test_a_forecast_is_the_same_on_many_ranks(ranks, model, small_world, tmp_path, layout):
    assert_same_forecast(ranks, model, small_world, layout, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("layout", [*TELLING[1:], *OTHERS], ids=str)
def test_a_forecast_is_the_same_on_every_other_layout(ranks, model, small_world, tmp_path, layout):
    assert_same_forecast(ranks, model, small_world, layout, tmp_path)


def test_rows_of_patches_are_not_parted():
    config = SwiftConfig(channels=("2m_temperature",), **{**SIZES, "dim": 64, "heads": 16})
    Layout(sp=8).check(config)
    with pytest.raises(ConfigurationError, match=r"sp=16 for quadrants of 2 parts.*\[1, 2, 4, 8\]"):
        Layout(sp=16).check(config)
    Layout(sp=16).check(replace(presets.tiny(heads=16, dim=64), window=(8, 8)))
