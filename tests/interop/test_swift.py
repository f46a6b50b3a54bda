"""Weights in the files of Swift: our network gives what a straightforward one gives, and whole forecasts agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from earth import TIMES, assert_same, dataset, write_configuration, write_statistics
from torch import Tensor

import aeris
from aeris.cli import main
from aeris.cluster import requests
from aeris.data.forcing import toa_incident_solar_radiation
from aeris.data.states import stack
from aeris.data.variables import RADIATION, STATIC, state_channels
from aeris.diffusion import noise
from aeris.errors import CheckpointError, ConfigurationError, DataError
from aeris.interop.swift import SwiftConfig
from aeris.model.presets import SamplingRecipe, sampling_consistency
from aeris.model.quadrants import to_pixels, to_tokens
from aeris.training.checkpoint import Checkpoint, build, load_weights

ROWS, COLUMNS, PATCH, WINDOW, DIM, HEADS, DEPTH = 16, 32, (2, 2), (4, 4), 24, 2, 3
MLP = int(8 / 3 * DIM)
CHANNELS = state_channels(sea=False)
INPUTS = 2 * len(CHANNELS) + 3
LATITUDE = 90 - (np.arange(ROWS) + 0.5) * 180 / ROWS


def configuration(loss: str = "TrigFlowLoss", **changes: Any) -> dict[str, Any]:
    """The settings that matter, named as there."""
    model = {
        **{"_target_": "swift.models.swinv2.SwinV2", "window_size": list(WINDOW), "shift_size": [2, 2], "patch_size": list(PATCH)},
        **{"depth": DEPTH, "dim": DIM, "heads": HEADS, "logvar": False, "timestep_weight": 1.0},
    }
    return {
        "model": {**model, **changes},
        "precond": {"_target_": "swift.models.precond.PassPrecond", "sigma_min": 0, "sigma_data": 1.0, "auxiliary_dim": 1},
        "loss": {"_target_": f"swift.training.loss.{loss}", "sigma_data": 1.0, "noise": {"sigma_min": 0.02, "sigma_max": 200.0}},
        "data": {"dataset": {"residual": True, "variables": list(CHANNELS), "forcings": [RADIATION, *STATIC]}},
    }


def tensors(seed: int = 0, sharpness: tuple[float, float] = (2.0, 8.0)) -> dict[str, Tensor]:
    """Random tensors by the names that they have there."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float | None = None) -> Tensor:
        return torch.randn(*shape, generator=generator) * (shape[-1] ** -0.5 if scale is None else scale)

    def norm(name: str) -> dict[str, Tensor]:
        plain = {f"{name}.norm.weight": 1 + draw(DIM, scale=0.2), f"{name}.norm.bias": draw(DIM, scale=0.2)}
        return plain | {f"{name}.modulation.weight": draw(2 * DIM, DIM), f"{name}.modulation.bias": draw(2 * DIM, scale=0.2)}

    area = PATCH[0] * PATCH[1]
    found = {"pos_embed": draw(1, ROWS // 2 * COLUMNS // 2, DIM, scale=0.5)}
    found |= {"patch_embed.emb.weight": draw(DIM, INPUTS * area), "patch_embed.emb.bias": draw(DIM, scale=0.1)}
    found |= {"auxiliary_embed.weight": draw(DIM, 1), "auxiliary_embed.bias": draw(DIM, scale=0.1)}
    for layer in ("l1", "l2"):
        found |= {f"latent_embed.{layer}.weight": draw(DIM, DIM), f"latent_embed.{layer}.bias": draw(DIM, scale=0.1)}
    for number in range(DEPTH):
        name = f"transformer.layers.{number}"
        found |= norm(f"{name}.0.norm") | norm(f"{name}.1.norm")
        found |= {f"{name}.0.to_qkv.weight": draw(3 * DIM, DIM), f"{name}.0.wo.weight": draw(DIM, DIM)}
        found |= {f"{name}.0.scale": torch.log(torch.tensor(sharpness)).view(1, HEADS, 1, 1)}
        found |= {f"{name}.1.w1.weight": draw(2 * MLP, DIM), f"{name}.1.w2.weight": draw(DIM, MLP)}
    return {f"model.{name}": value for name, value in (found | {"head.head.0.weight": draw(len(CHANNELS) * area, DIM)}).items()}


def write_checkpoint(folder: Path, average: dict[str, Tensor], thousands: int = 15_000) -> None:
    (folder / "checkpoints").mkdir(exist_ok=True)
    weights = {name: value + 1 for name, value in average.items()}
    content = {"ema": average, "net": weights, "optimizer": {"state": {}, "param_groups": [{"lr": 5e-4}]}, "scaler": {}}
    torch.save(content, folder / "checkpoints" / f"checkpoint-{thousands:06d}.pt")


@pytest.fixture(scope="module")
def planet():
    return dataset(LATITUDE, COLUMNS)


@pytest.fixture
def folder(tmp_path):
    """The folder of a training by diffusion."""
    write_configuration(tmp_path, configuration())
    for hours in (24, 12, 6):
        write_statistics(tmp_path, CHANNELS, hours, seed=hours)
        (tmp_path / f"normalize_diff_mean_{hours}.npz").unlink()
    write_checkpoint(tmp_path, tensors())
    return tmp_path


def straightforward(found: dict[str, Tensor], x_BHWI: Tensor, t: float, hours: float = 6) -> Tensor:
    """The network as that code computes it: patches of a field, rolled, windows cut out of them."""
    w = {name.removeprefix("model."): value for name, value in found.items()}
    high, wide = PATCH
    rows, columns = ROWS // high, COLUMNS // wide
    x = x_BHWI.unflatten(2, (columns, wide)).unflatten(1, (rows, high)).permute(0, 1, 3, 2, 4, 5).flatten(3)
    x = F.linear(x, w["patch_embed.emb.weight"], w["patch_embed.emb.bias"]) + w["pos_embed"].view(1, rows, columns, DIM)
    waves = [wave(t * 10_000 ** (-k / (DIM // 2))) for wave in (math.sin, math.cos) for k in range(DIM // 2)]
    time = torch.tensor([waves], dtype=x.dtype)
    time = time + hours / 10 * w["auxiliary_embed.weight"][:, 0] + w["auxiliary_embed.bias"]
    for layer in ("l1", "l2"):
        time = F.silu(F.linear(time, w[f"latent_embed.{layer}.weight"], w[f"latent_embed.{layer}.bias"]))
    for number in range(DEPTH):
        part = {name.removeprefix(f"transformer.layers.{number}."): value for name, value in w.items()}
        moved = (WINDOW[0] // 2, WINDOW[1] // 2) if number % 2 else (0, 0)
        mixed = attention(part, x.roll((-moved[0], -moved[1]), (1, 2))).roll(moved, (1, 2))
        x = x + modulated(part, "0.norm", mixed, time)
        gate, up = F.linear(x, part["1.w1.weight"]).chunk(2, -1)
        x = x + modulated(part, "1.norm", F.linear(F.silu(gate) * up, part["1.w2.weight"]), time)
    out = F.linear(x, w["head.head.0.weight"]).unflatten(-1, (len(CHANNELS), high, wide))
    return out.permute(0, 1, 4, 2, 5, 3).flatten(3, 4).flatten(1, 2)


def modulated(part: dict[str, Tensor], name: str, x: Tensor, time: Tensor) -> Tensor:
    scale, shift = F.linear(time, part[f"{name}.modulation.weight"], part[f"{name}.modulation.bias"])[:, None, None].chunk(2, -1)
    return F.layer_norm(x, (DIM,), part[f"{name}.norm.weight"], part[f"{name}.norm.bias"], 1e-6) * (1 + scale) + shift


def attention(part: dict[str, Tensor], x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for top in range(0, x.shape[1], WINDOW[0]):
        for left in range(0, x.shape[2], WINDOW[1]):
            here = (slice(None), slice(top, top + WINDOW[0]), slice(left, left + WINDOW[1]))
            qkv = F.linear(x[here].flatten(1, 2), part["0.to_qkv.weight"]).unflatten(-1, (HEADS, 3, -1))
            mixed = []
            for head in range(HEADS):
                q, k, v = qkv[:, :, head].unbind(2)
                cosine = F.cosine_similarity(q[:, :, None], k[:, None], dim=-1)
                sharp = min(float(part["0.scale"][0, head, 0, 0].exp()), 100.0)
                mixed.append((sharp * cosine).softmax(-1) @ v)
            out[here] = F.linear(torch.cat(mixed, -1), part["0.wo.weight"]).unflatten(1, WINDOW)
    return out


def velocity(checkpoint: Checkpoint, x_BHWI: Tensor, t: float) -> Tensor:
    """What our network gives with a checkpoint's weights; radiation at the target time is there and must not count."""
    network = build(checkpoint.model)
    load_weights(checkpoint, network, network.state_dict(), "average")
    network = network.to(x_BHWI.dtype)
    tokens = to_tokens(torch.cat([x_BHWI, torch.full_like(x_BHWI[..., :1], 1e6)], -1).movedim(-1, 1), checkpoint.model.window)
    with torch.no_grad():
        found = network(tokens[..., : len(CHANNELS)], tokens[..., len(CHANNELS) :], torch.full((len(tokens),), t, dtype=tokens.dtype))
    return to_pixels(found, checkpoint.model.window).movedim(1, -1)


def random_input() -> Tensor:
    return torch.randn(2, ROWS, COLUMNS, INPUTS, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize(("t", "hours"), [(0.0, 6), (0.4, 12), (math.pi / 2, 24)])
def test_our_network_gives_what_a_straightforward_one_gives(folder, planet, t, hours):
    x = random_input()
    expected = straightforward(tensors(), x, t, hours)
    assert 0.3 < expected.std() < 5
    loaded = aeris.load("swift", path=folder, static=planet, rows="north", interval=f"{hours}h")
    assert_same(velocity(loaded, x, t), expected)
    assert loaded.interval == np.timedelta64(hours, "h")


def test_in_float64_it_does_so_to_rounding_with_heads_of_the_largest_sharpness(folder, planet):
    found = tensors(sharpness=(10.0, 150.0))
    write_checkpoint(folder, found)
    x = random_input().double()
    expected = straightforward({name: value.double() for name, value in found.items()}, x, 0.4)
    difference = velocity(aeris.load("swift", path=folder, static=planet, rows="north"), x, 0.4) - expected
    assert difference.abs().max() < 1e-9


def test_rows_from_south_to_north_are_turned_over(folder, planet):
    x = random_input()
    expected = straightforward(tensors(), x.flip(1), 0.4).flip(1)
    assert_same(velocity(aeris.load("swift", path=folder, static=planet), x, 0.4), expected)
    assert (velocity(aeris.load("swift", path=folder, static=planet, rows="north"), x, 0.4) - expected).abs().max() > 0.1


def test_forcings_in_another_order_are_put_in_ours(folder, planet):
    content = configuration()
    content["data"]["dataset"]["forcings"] = [STATIC[1], RADIATION, STATIC[0]]
    write_configuration(folder, content)
    x, states = random_input(), INPUTS - 3
    theirs = torch.cat([x[..., :states], x[..., [states + 2, states, states + 1]]], -1)
    loaded = aeris.load("swift", path=folder, static=planet, rows="north")
    assert_same(velocity(loaded, x, 0.4), straightforward(tensors(), theirs, 0.4))


def test_the_newest_checkpoint_is_taken_and_others_by_name(folder, planet):
    write_checkpoint(folder, tensors(seed=1), thousands=20_000)
    newest = aeris.load("swift", path=folder, static=planet)
    older = aeris.load("swift", path=folder / "checkpoints" / "checkpoint-015000.pt", static=planet)
    weights = aeris.load("swift", path=folder / "checkpoints" / "checkpoint-015000.pt", static=planet, weights="net")
    assert (newest.images, older.images) == (20_000_000, 15_000_000)
    name = "blocks.0.mlp.out.weight"
    assert torch.equal(newest.tensors("average")[name], tensors(seed=1)["model.transformer.layers.0.1.w2.weight"])
    assert torch.equal(weights.tensors("average")[name], older.tensors("average")[name] + 1)


def test_tensors_alone_are_read_from_safetensors(folder, planet):
    from safetensors.torch import save_file

    expected = aeris.load("swift", path=folder, static=planet).tensors("average")
    save_file(tensors(), folder / "model.safetensors")
    found = aeris.load("swift", path=folder / "model.safetensors", static=planet).tensors("average")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def heun(velocity: Callable[[Tensor, float], Tensor], draw: Callable[..., Tensor]) -> Tensor:
    """Three levels from 200 to 0.02."""
    x, angles = draw("sampling noise"), [math.atan(200 * 1e-4 ** (k / 2)) for k in range(3)]
    for s, t in pairwise(angles):
        here = velocity(x, s)
        x = x + (t - s) * (here + velocity(x + (t - s) * here, t)) / 2
    return math.cos(angles[-1]) * x - math.sin(angles[-1]) * velocity(x, angles[-1])


def one_call(velocity: Callable[[Tensor, float], Tensor], draw: Callable[..., Tensor]) -> Tensor:
    return -velocity(draw("sampling noise"), math.pi / 2)


def two_calls(velocity: Callable[[Tensor, float], Tensor], draw: Callable[..., Tensor]) -> Tensor:
    x, first = draw("sampling noise"), math.atan(200)
    x = math.cos(first) * x - math.sin(first) * velocity(x, first)
    x = math.cos(1.1) * x + math.sin(1.1) * draw("second noise", 1)
    return math.cos(1.1) * x - math.sin(1.1) * velocity(x, 1.1)


def straightforward_forecast(folder: Path, planet, steps: int, sampler: Callable[..., Tensor], seed: int, member: int) -> np.ndarray:
    """A sampler on whole fields, with the noise that the forecast draws: states ``(steps, C, H, W)``."""
    files = {name: np.load(folder / f"normalize_{name}.npz") for name in ("mean", "std", "diff_std_6")}
    mean, std, spread = (torch.tensor([float(file[name][0]) for name in CHANNELS]) for file in files.values())
    state = torch.from_numpy(stack(planet.isel(time=[0]), CHANNELS)).movedim(1, -1)

    def given(name: str, field: np.ndarray) -> Tensor:
        value = (field - files["mean"][name][0]) / files["std"][name][0]
        return torch.tensor(np.broadcast_to(value, (1, ROWS, COLUMNS)), dtype=torch.float32)[..., None]

    def velocity(x: Tensor, t: float) -> Tensor:
        return straightforward(tensors(), torch.cat([x, condition], -1).flip(1), t).flip(1)  # their rows run from the south

    time, step, reached = TIMES[0], np.timedelta64(6, "h"), []

    def draw(purpose: str, *place: int) -> Tensor:
        start = int(TIMES[0].astype("datetime64[s]").astype(int))
        keys = [noise.key(seed, purpose, len(reached) + 1, start, member, *place)]
        return noise.normals(keys, torch.arange(ROWS * COLUMNS).view(ROWS, COLUMNS), len(CHANNELS))

    for _ in range(steps):
        sun = toa_incident_solar_radiation(np.array([time]), planet.latitude.values, planet.longitude.values)
        condition = torch.cat([(state - mean) / std, given(RADIATION, sun), *(given(name, planet[name].values) for name in STATIC)], -1)
        state, time = state + sampler(velocity, draw) * spread, time + step
        reached.append(state[0].movedim(-1, 0).numpy())
    return np.stack(reached)


def states_of(fc, member: int) -> np.ndarray:
    one = fc.isel(time=0, number=member).drop_vars("time").rename(prediction_timedelta="time")
    return stack(one, CHANNELS)


@pytest.mark.parametrize(
    ("loss", "recipe", "sampler"),
    [
        ("TrigFlowLoss", SamplingRecipe(solver="heun", steps=3, noise=(0.02, 200.0), rho=math.inf), heun),
        ("SCMLoss", None, one_call),
        ("CRPSLoss", sampling_consistency(2), two_calls),
    ],
)
def test_a_forecast_equals_a_sampler_on_whole_fields(folder, planet, tmp_path, loss, recipe, sampler):
    write_configuration(folder, configuration(loss))
    given = {"lead": "12h", "seed": 5, "batch": 2, "sampling": recipe, "precision": "float32", "progress": False}
    loaded = aeris.load("swift", path=folder, static=planet, out=tmp_path / "written")
    fc = aeris.forecast(loaded, planet, TIMES[:1], 2, out=tmp_path / "f.zarr", **given)
    for member in range(2):
        expected, found = straightforward_forecast(folder, planet, 2, sampler, 5, member), states_of(fc, member)
        scale = (expected[1] - expected[0]).std(axis=(1, 2))[:, None, None]
        assert (np.abs(found - expected) / scale).max() < 2e-3
        assert (np.abs(found - expected) / scale).mean() < 1e-4
    in_memory = aeris.load("swift", path=folder, static=planet)
    again = aeris.forecast(in_memory, planet, TIMES[:1], 2, out=tmp_path / "g.zarr", **given)
    assert again.drop_attrs().equals(fc.drop_attrs())


def test_the_command_writes_a_checkpoint_that_holds_the_same(folder, planet, tmp_path, capsys):
    planet[list(STATIC)].to_zarr(tmp_path / "planet.zarr", zarr_format=3, consolidated=False)
    words = [
        "import",
        "swift",
        str(folder),
        "--static",
        str(tmp_path / "planet.zarr"),
        "--out",
        str(tmp_path / "swift"),
        "--interval",
        "12h",
    ]
    assert main(words) == 0 and "wrote" in capsys.readouterr().out
    written, loaded = Checkpoint.open(tmp_path / "swift"), aeris.load("swift", path=folder, static=planet, interval="12h")
    for name in ("model", "training", "sampling", "interval", "statistics", "images"):
        assert getattr(written, name) == getattr(loaded, name), name
    found, expected = written.tensors("average"), loaded.tensors("average")
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
    np.testing.assert_array_equal(written.geography.static[STATIC[1]], planet[STATIC[1]].values)


def test_engines_are_not_sent_what_is_in_memory_alone(folder, planet):
    loaded = aeris.load("swift", path=folder, static=planet)
    with pytest.raises(ConfigurationError, match=r"in this process's memory.*aeris\.load\(\.\.\., out="):
        requests.forecast(loaded, planet, TIMES[:1], 2, "6h", "f.zarr", 0, 2, None, "float32", False, aeris.Layout(), None, None)


def test_a_model_by_diffusion_is_sampled_as_there(folder, planet):
    sampling = aeris.load("swift", path=folder, static=planet).sampling
    assert (sampling.solver, sampling.steps, sampling.noise, sampling.rho) == ("heun", 20, (0.02, 200.0), math.inf)


class TestRefusals:
    def refused(self, match: str, folder: Path, planet, error: type[Exception] = CheckpointError, **given: Any) -> None:
        with pytest.raises(error, match=match):
            aeris.load("swift", path=folder, static=planet, **given)

    @pytest.mark.parametrize(
        ("section", "name", "value"),
        [
            ("model", "_target_", "swift.models.swin.Swin"),
            ("model", "shift_size", [1, 1]),
            ("precond", "_target_", "swift.models.precond.EDMPrecond"),
            ("precond", "sigma_data", 0.5),
            ("loss", "_target_", "swift.training.loss.MSELoss"),
        ],
    )
    def test_other_networks(self, folder, planet, section, name, value):
        content = configuration()
        content[section][name] = value
        write_configuration(folder, content)
        self.refused(f"{section}.{name}=", folder, planet)

    def test_a_step_that_was_not_trained(self, folder, planet):
        self.refused("trained on steps of", folder, planet, ConfigurationError, interval="3h")
        self.refused("length of time", folder, planet, ConfigurationError, interval="soon")

    def test_tensors_of_another_size(self, folder, planet):
        content = configuration(dim=48)
        write_configuration(folder, content)
        self.refused(r"pos_embed with the shape \(1, 128, 24\)", folder, planet)

    def test_fields_on_another_grid(self, folder, planet):
        other = dataset(90 - (np.arange(24) + 0.5) * 7.5, 48)
        self.refused(r"pos_embed with the shape \(1, 128, 24\).*By the configuration it is \(1, 288, 24\)", folder, other)
        self.refused("without a grid|Windows divide the grid", folder, dataset(np.linspace(90, -90, 17), 32), ConfigurationError)

    def test_a_folder_without_weights(self, folder, planet):
        (folder / "checkpoints" / "checkpoint-015000.pt").unlink()
        self.refused("lacks checkpoints/checkpoint", folder, planet)

    def test_static_fields(self, folder, planet):
        self.refused("static=None", folder, None, DataError)


def test_dimensions_that_cannot_work_are_refused():
    with pytest.raises(ConfigurationError, match="Heads divide"):
        SwiftConfig((16, 32), CHANNELS, dim=24, heads=5)
    with pytest.raises(ConfigurationError, match="Windows divide"):
        SwiftConfig((16, 32), CHANNELS, window=(6, 6))
