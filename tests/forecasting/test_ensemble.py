"""Ensembles: a member is a function, an archive goes on where it stopped, and nothing starts that cannot finish."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr

import aeris
from aeris.data.store import prepare
from aeris.diffusion import noise
from aeris.errors import CheckpointError, ConfigurationError, DataError, StoreError
from aeris.forecasting.archive import Archive
from aeris.forecasting.course import Move
from aeris.forecasting.rollout import Ensemble, Forecaster
from aeris.model.config import ModelConfig
from aeris.model.presets import SamplingRecipe, TrainingRecipe
from aeris.model.quadrants import to_pixels
from aeris.run import Run
from aeris.training.checkpoint import Checkpoint

MODEL = ModelConfig(grid=(16, 32), dim=16, depth=2, heads=2, mlp=24, window=(4, 4))
SAMPLING = SamplingRecipe(solver="heun", steps=3)


def trained(store, out, model=MODEL, steps=20) -> Run:
    recipe = TrainingRecipe(warmup_images=8)
    return aeris.train(model, store, out, steps=steps, precision="float32", recipe=recipe, sampling=SAMPLING, progress=False)


@pytest.fixture(scope="module")
def run(small_store, tmp_path_factory) -> Run:
    return trained(small_store, tmp_path_factory.mktemp("runs") / "run")


def asking(run, world, folder, lead, times=(2, 7)):
    """Asks for forecasts with small defaults."""

    def asked(name="forecast.zarr", **changes):
        defaults = {"times": world.time.values[list(times)], "members": 3, "lead": lead, "batch": 2, "seed": 1, "progress": False}
        arguments = {"checkpoint": run, "initial": world, "precision": "float32", **defaults, **changes}
        return aeris.forecast(out=folder / name, **arguments)

    return asked


@pytest.fixture
def ask(run, small_world, tmp_path):
    return asking(run, small_world, tmp_path, "18h")


def same(one: xr.Dataset, two: xr.Dataset) -> bool:
    return all(np.array_equal(one[name].values, two[name].values, equal_nan=True) for name in one.data_vars)


def test_the_archive_is_shaped_as_weatherbench_has_it(ask, small_world, tmp_path):
    fc = ask()
    plain = xr.open_zarr(tmp_path / "forecast.zarr", consolidated=False)
    assert plain["geopotential"].dims == ("time", "number", "prediction_timedelta", "level", "latitude", "longitude")
    assert plain["2m_temperature"].dims == ("time", "number", "prediction_timedelta", "latitude", "longitude")
    assert fc.prediction_timedelta.dtype == np.dtype("timedelta64[ns]")
    assert (fc.prediction_timedelta.values / np.timedelta64(1, "h")).tolist() == [6, 12, 18]
    assert fc.number.values.tolist() == [0, 1, 2] and fc.level.values.tolist() == [500, 850]
    assert fc.attrs["complete"] == 1.0 and fc["geopotential"].dtype == np.float32
    np.testing.assert_array_equal(fc.time.values, small_world.time.values[[2, 7]])
    assert np.isfinite(fc.to_array().values).all()


def test_an_untrained_network_adds_scaled_noise(small_store, small_world, tmp_path):
    """Zero velocity leaves the noise as it was but for the last denoising: x₀ = cos(t_last) · z, which is known in closed form."""
    run = trained(small_store, tmp_path / "run", steps=1)
    forecaster = Forecaster(run.newest, SAMPLING, "float64")
    with torch.no_grad():
        forecaster.network.head.project.weight.zero_()
    statistics, start = small_store.statistics, np.datetime64("2001-01-01T12", "ns")
    states = torch.from_numpy(np.stack([small_store.read(2)] * 2).astype(np.float64))
    ensemble = Ensemble(start, [0, 5], {0: forecaster.fields.tokens(states)})
    forecaster.step([ensemble], [Move(0, 1)], 9)
    assert ensemble.moves == 1
    keys = [noise.key(9, "sampling noise", 1, 978350400, member) for member in (0, 5)]
    z = to_pixels(noise.normals(keys, forecaster.fields.ids, 5, torch.float64), MODEL.window).numpy()
    scale = math.cos(math.atan(SAMPLING.noise[0])) * statistics.residual_std + 0.0
    expected = states.numpy() + scale[:, None, None] * z + statistics.residual_mean[:, None, None]
    sea = small_store.sea_mask
    expected[:, -1] = np.where(sea, expected[:, -1], 271.35)
    np.testing.assert_allclose(to_pixels(ensemble.newest, MODEL.window).numpy(), expected, rtol=1e-6)


def test_weights_of_float64_are_forecast_with_as_they_are(small_store, tmp_path):
    run = aeris.train(MODEL, small_store, tmp_path / "run", steps=2, precision="float64", progress=False)
    kept, held = Checkpoint.open(run.path).tensors("average"), Forecaster(run.path, precision="float64").network.state_dict()
    assert any((tensor != tensor.float()).any() for tensor in kept.values())
    assert all(torch.equal(held[name], tensor) for name, tensor in kept.items())


def test_invariant_4_a_member_does_not_depend_on_how_many_run(ask, small_world):
    few, many = ask(), ask("many.zarr", members=5)
    assert same(few, many.isel(number=slice(0, 3)))
    alone = ask("alone.zarr", times=small_world.time.values[[7]])
    assert same(few.isel(time=[1]), alone)


def test_members_and_seeds_differ(ask):
    fc, other = ask(), ask("other.zarr", seed=2)
    first = fc["2m_temperature"].isel(time=0, prediction_timedelta=0)
    assert (first.std("number") > 0).all()
    assert not same(fc, other)


def test_churn_changes_a_forecast_reproducibly(ask):
    churned = SamplingRecipe(solver="heun", steps=3, churn=1.0)
    one, two = ask("one.zarr", sampling=churned), ask("two.zarr", sampling=churned)
    assert same(one, two) and not same(one, ask())


@pytest.mark.parametrize("after", [1, 5, 7])
def test_invariant_5_an_interrupted_forecast_goes_on_where_it_stopped(ask, tmp_path, monkeypatch, after):
    whole, write, calls = ask(), Archive.write, []

    def fail(self, *where):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(where[:3])
        write(self, *where)

    monkeypatch.setattr(Archive, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        ask("broken.zarr")
    monkeypatch.undo()
    part = aeris.open_forecast(tmp_path / "broken.zarr")
    assert part.attrs["complete"] == pytest.approx({1: 2, 5: 8, 7: 11}[after] / 18)
    there = np.isfinite(part["2m_temperature"]).all(("latitude", "longitude"))
    assert int(there.sum()) == {1: 2, 5: 8, 7: 11}[after]
    again: list = []
    monkeypatch.setattr(Archive, "write", lambda self, *where: (again.append(where[:3]), write(self, *where))[1])
    assert same(ask("broken.zarr"), whole)
    assert len(again) == 12 - after and not set(again) & set(calls)


def test_fields_that_the_ledger_does_not_count_read_as_missing(ask, tmp_path, monkeypatch):
    """A writer that dies between the fields and the ledger leaves fields that nobody may trust."""
    ask()
    archive = xr.open_zarr(tmp_path / "forecast.zarr", consolidated=False)
    import zarr

    zarr.open_array(tmp_path / "forecast.zarr" / "ledger" / "leads", mode="r+")[1, 0] = 1
    fc = aeris.open_forecast(tmp_path / "forecast.zarr")
    assert np.isfinite(archive["geopotential"].values).all()
    assert np.isnan(fc["geopotential"].isel(time=1, number=0, prediction_timedelta=1)).all()
    assert np.isfinite(fc["geopotential"].isel(time=1, number=0, prediction_timedelta=0)).all()


def test_a_full_disk_is_reported_and_loses_nothing(ask, tmp_path, monkeypatch):
    variables, calls = Archive._variables, []

    def full(self, states):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return variables(self, states)

    monkeypatch.setattr(Archive, "_variables", full)
    with pytest.raises(StoreError, match=r"No space left on device.*goes on from there"):
        ask("full.zarr")
    monkeypatch.undo()
    assert same(ask("full.zarr"), ask())


def test_sea_surface_temperature_over_land_is_set_back(ask, small_store):
    land = ~small_store.sea_mask
    sst = ask()["sea_surface_temperature"].values
    assert (sst[..., land] == np.float32(271.35)).all()
    assert not (sst[..., ~land] == np.float32(271.35)).all()


def test_the_dropped_pole_row_is_put_back(small_world, tmp_path):
    """A model on the rows of a grid with both poles less the southern one writes all rows, and reads them to go on."""
    rows = np.linspace(90, -90, 17)
    world = small_world.interp(latitude=rows, kwargs={"fill_value": "extrapolate"}).astype(np.float32)
    world = world.drop_vars("sea_surface_temperature")
    for name in world.data_vars:
        world[name].attrs["units"] = small_world[name].attrs["units"]
    store = prepare(world, tmp_path / "store.zarr", chunk=4)
    run = trained(store, tmp_path / "run", steps=2)
    fc = aeris.forecast(
        run, world, world.time.values[:1], members=2, lead="12h", out=tmp_path / "f.zarr", precision="float32", progress=False
    )
    np.testing.assert_allclose(fc.latitude, rows)
    south = fc["2m_temperature"].isel(latitude=-1)
    np.testing.assert_allclose(south, fc["2m_temperature"].isel(latitude=-2).mean("longitude").broadcast_like(south), rtol=1e-5)


def test_an_archive_of_other_arguments_is_refused(ask, tmp_path):
    ask()
    with pytest.raises(StoreError, match="seed=1, not 3"):
        ask(seed=3)
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "notes.txt").write_text("keep me")
    with pytest.raises(StoreError, match="is no forecast archive"):
        ask("mine.zarr")
    assert (tmp_path / "mine.zarr" / "notes.txt").read_text() == "keep me"


@pytest.mark.parametrize(
    ("changes", "error", "found"),
    [
        ({"lead": "7h"}, ConfigurationError, "7h"),
        ({"lead": "soon"}, ConfigurationError, "soon"),
        ({"members": 0}, ConfigurationError, "members=0"),
        ({"times": ["2001-01-02", "2001-01-01"]}, ConfigurationError, "rising"),
        ({"times": ["2020-01-01"]}, DataError, "no 2020-01-01"),
        ({"times": ["not a date"]}, ConfigurationError, "not a date"),
        ({"sampling": SamplingRecipe(noise=(0.001, 100))}, ConfigurationError, "0.001"),
        ({"checkpoint": "nowhere"}, CheckpointError, "nowhere"),
    ],
)
def test_invariant_7_what_cannot_work_is_refused_before_anything_is_written(ask, tmp_path, changes, error, found):
    with pytest.raises(error, match=found):
        ask(**changes)
    assert not (tmp_path / "forecast.zarr").exists()


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda ds: ds.drop_vars("geopotential"), "geopotential_500"),
        (lambda ds: ds.sel(level=[850]), "geopotential_500"),
        (lambda ds: ds.where(ds.latitude < 60), "2m_temperature at .* missing values"),
        (lambda ds: ds.isel(latitude=slice(0, 8)), "8×32"),
    ],
)
def test_initial_states_that_do_not_fit_are_refused(ask, small_world, spoil, found):
    with pytest.raises(DataError, match=found):
        ask(initial=spoil(small_world))


def test_a_forecast_is_no_place_for_another_store(tmp_path):
    with pytest.raises(StoreError, match="no forecast archive"):
        aeris.open_forecast(tmp_path)


@pytest.mark.parametrize(
    ("grid", "members", "chunk", "shard"),
    [
        ((32, 64), 8, (1, 8, 1, 2, 32, 64), (1, 8, 1, 2, 32, 64)),
        ((720, 1440), 8, (1, 1, 1, 1, 103, 360), (1, 8, 1, 2, 721, 1440)),
        ((181, 360), 4, (1, 1, 1, 1, 181, 360), (1, 4, 1, 2, 181, 360)),
    ],
)
def test_shards_belong_to_one_writer_and_chunks_suit_the_grid(tmp_path, grid, members, chunk, shard):
    import zarr

    rows = np.linspace(90, -90, 721)[:-1] if grid[0] == 720 else aeris.Grid.regular(*grid).latitude
    there = aeris.Grid(rows, np.arange(grid[1]) * 360 / grid[1])
    times, leads = np.array(["2001-01-01"], "datetime64[ns]"), np.array([6], "timedelta64[h]").astype("timedelta64[ns]")
    archive = Archive(tmp_path / "f.zarr", ("geopotential_500", "geopotential_850"), there, times, members, members, leads)
    archive.lay_out({"batch": members})
    array = zarr.open_array(tmp_path / "f.zarr" / "geopotential", mode="r")
    assert array.chunks == chunk and array.shards == shard
