"""Weights in the files of AERIS-GB: our network gives what a straightforward one gives, and whole forecasts agree."""

from __future__ import annotations

import math
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
from aeris.data.forcing import toa_incident_solar_radiation
from aeris.data.states import stack
from aeris.data.variables import RADIATION, SEA, STATIC, state_channels
from aeris.diffusion import noise
from aeris.errors import CheckpointError, DataError, StoreError
from aeris.interop import aeris_gb
from aeris.interop.files import Settings
from aeris.model import presets
from aeris.model.presets import SamplingRecipe
from aeris.model.quadrants import to_pixels, to_tokens
from aeris.training.checkpoint import build, load_weights

ROWS, COLUMNS, WINDOW, DIM, HEADS, MLP, STAGES, BLOCKS = 16, 32, (8, 8), 32, 2, 48, 5, 2
LATITUDE = np.linspace(90, -90, ROWS + 1)


def configuration(**changes: Any) -> dict[str, Any]:
    """The settings that matter, named as there."""
    model = {
        **{"window_size": list(WINDOW), "dim": DIM, "heads": HEADS, "head_dim": DIM // HEADS, "mlp_dim": MLP, "PP_stages": STAGES},
        **{"sublayers": BLOCKS, "norm": "pre", "attn_fn": "flash", "sigma_data": 1.0, "sigma_min": 0.2, "sigma_max": 500},
        **{"rit": False, "diffusion": True, "layerwise_t_emb": True, "layerwise_t_emb_after_mod_norm": True},
        **{"sinusoidal_emb_max_period": 10000, "enhanced_channels3": False, "enhanced_channels4": True, "interval": 24},
    }
    return {"seed": 1234, "model": {**model, **changes}, "optimizer": {"lr": 2e-4, "betas": [0.85, 0.9]}}


def stage_tensors(channels: int, forcings: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """Random tensors of every stage, by the names that they have there."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float | None = None) -> Tensor:
        return torch.randn(*shape, generator=generator) * (shape[-1] ** -0.5 if scale is None else scale)

    inputs = 2 * channels + forcings + (forcings > 0)
    first = {"proj.weight": draw(DIM, inputs), "proj.bias": draw(DIM, scale=0.1)}
    first |= {"ape.inv_freq": draw(36), "latent_embed.w1.weight": draw(DIM, DIM), "latent_embed.w2.bias": draw(DIM)}
    blocks = []
    for _ in range(STAGES - 2):
        tensors = {}
        for j in range(BLOCKS):
            name = f"modulelist.{j}"
            tensors |= {f"{name}.{norm}.weight": 1 + draw(DIM, scale=0.2) for norm in ("0", "2", "1.norm")}
            tensors |= {f"{name}.1.to_qkv.weight": draw(3 * DIM, DIM, scale=0.4), f"{name}.1.wo.weight": draw(DIM, DIM)}
            tensors |= {f"{name}.3.w1.weight": draw(2 * MLP, DIM), f"{name}.3.w2.weight": draw(DIM, MLP)}
            tensors |= {f"{name}.4.modulation.0.weight": draw(DIM, DIM), f"{name}.4.modulation.0.bias": draw(DIM, scale=0.3)}
            tensors |= {f"{name}.4.modulation.2.weight": draw(6 * DIM, DIM), f"{name}.4.modulation.2.bias": draw(6 * DIM, scale=0.3)}
        blocks.append(tensors)
    last = {"norm.weight": 1 + draw(DIM, scale=0.2), "head.weight": draw(channels, DIM)}
    last |= {"modulation.0.weight": draw(DIM, DIM), "modulation.0.bias": draw(DIM, scale=0.3)}
    last |= {"modulation.2.weight": draw(2 * DIM, DIM), "modulation.2.bias": draw(2 * DIM, scale=0.3)}
    return [first, *blocks, last]


def write_stages(folder: Path, stages: list[dict[str, Tensor]], prefix: str = "") -> None:
    """A file for each stage, as the training engine writes them; the weights differ from their average."""
    for number, tensors in enumerate(stages):
        weights = {name: 2 * tensor for name, tensor in tensors.items()}
        optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 2e-4, "params": [0]}]}
        content = {
            **{"cur_nimg": 1_331_000, "model_state_dict": {name: tensor.bfloat16() for name, tensor in weights.items()}},
            **{"main_model_state_dict": weights, "optimizer_state_dict": optimizer, "ema_state_dict": tensors},
        }
        torch.save(content, folder / f"{prefix}checkpoint_PP{number}.pth")


def joined(stages: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The state of the window-parallel inference: without what training left over."""
    state = {f"input_stage.{name}": tensor for name, tensor in stages[0].items() if "latent_embed" not in name}
    for number, tensors in enumerate(stages[1:-1]):
        state |= {f"layers.{number}.{name}": tensor for name, tensor in tensors.items() if "1.norm" not in name}
    return state | {f"output_stage.{name}": tensor for name, tensor in stages[-1].items()}


@pytest.fixture(scope="module")
def planet():
    return dataset(LATITUDE, COLUMNS)


@pytest.fixture
def folder(tmp_path):
    """A folder with the 24 h model."""
    write_configuration(tmp_path, configuration())
    write_statistics(tmp_path, state_channels(), 24)
    write_stages(tmp_path, stage_tensors(70, 3))
    return tmp_path


def straightforward(stages: list[dict[str, Tensor]], x_BHWI: Tensor, t: float, modulate_first: bool = True) -> Tensor:
    """The network as that code computes it, pixel by pixel: rolled fields, windows cut out of them, torch's own norm and attention."""
    x = x_BHWI + positions(x_BHWI.shape[-1])
    x = F.linear(x, stages[0]["proj.weight"], stages[0]["proj.bias"])
    sinusoids = torch.tensor([[wave(t * 10_000 ** (-k / (DIM // 2))) for wave in (math.sin, math.cos) for k in range(DIM // 2)]])
    for number, stage in enumerate(stages[1:-1], start=1):
        moved = (WINDOW[0] // 2, WINDOW[1] // 2) if number % 2 == 0 else (0, 0)
        x = x.roll((-moved[0], -moved[1]), (1, 2))
        for j in range(BLOCKS):
            x = block({name.removeprefix(f"modulelist.{j}."): value for name, value in stage.items()}, x, sinusoids, modulate_first)
        x = x.roll(moved, (1, 2))
    shift, scale = time_vectors(stages[-1], "modulation", sinusoids, 2)
    return F.linear(F.rms_norm(x, (DIM,), stages[-1]["norm.weight"]) * (1 + scale) + shift, stages[-1]["head.weight"])


def time_vectors(tensors: dict[str, Tensor], name: str, sinusoids: Tensor, count: int) -> tuple[Tensor, ...]:
    hidden = F.silu(F.linear(sinusoids, tensors[f"{name}.0.weight"], tensors[f"{name}.0.bias"]))
    return F.linear(hidden, tensors[f"{name}.2.weight"], tensors[f"{name}.2.bias"])[:, None, None].chunk(count, -1)


def block(tensors: dict[str, Tensor], x: Tensor, sinusoids: Tensor, modulate_first: bool) -> Tensor:
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = time_vectors(tensors, "4.modulation", sinusoids, 6)

    def prepared(x: Tensor, shift: Tensor, scale: Tensor, gain: Tensor) -> Tensor:
        if modulate_first:
            return F.rms_norm(x * (1 + scale) + shift, (DIM,), gain)
        return F.rms_norm(x, (DIM,), gain) * (1 + scale) + shift

    x = x + gate_a * attention(tensors, prepared(x, shift_a, scale_a, tensors["0.weight"]))
    gate, up = F.linear(prepared(x, shift_m, scale_m, tensors["2.weight"]), tensors["3.w1.weight"]).chunk(2, -1)
    return x + gate_m * F.linear(F.silu(gate) * up, tensors["3.w2.weight"])


def attention(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for top in range(0, ROWS, WINDOW[0]):
        for left in range(0, COLUMNS, WINDOW[1]):
            here = (slice(None), slice(top, top + WINDOW[0]), slice(left, left + WINDOW[1]))
            q, k, v = (
                part.flatten(1, 2).unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for part in F.linear(x[here], tensors["1.to_qkv.weight"]).chunk(3, -1)
            )
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            out[here] = F.linear(mixed, tensors["1.wo.weight"]).unflatten(1, WINDOW)
    return out


def positions(channels: int) -> Tensor:
    """Waves of the row, counted from the row that is left out, and of the column."""
    width = math.ceil(channels / 4) * 2
    table = torch.tensor(
        [[wave(p / 10_000 ** (k / width)) for k in range(0, width, 2) for wave in (math.sin, math.cos)] for p in range(COLUMNS)]
    )
    rows = table[1 : ROWS + 1, None].expand(ROWS, COLUMNS, width)
    return torch.cat([rows, table[None].expand(ROWS, COLUMNS, width)], -1)[..., :channels]


def velocity(checkpoint: aeris.training.checkpoint.Checkpoint, x_BHWI: Tensor, t: float) -> Tensor:
    """What our network gives with a checkpoint's weights."""
    network = build(checkpoint.model)
    load_weights(checkpoint, network, network.state_dict(), "average")
    channels, window = len(checkpoint.model.channels), checkpoint.model.window
    tokens = to_tokens(x_BHWI.movedim(-1, 1), window)
    with torch.no_grad():
        found = network(tokens[..., :channels], tokens[..., channels:], torch.full((len(tokens),), t))
    return to_pixels(found, window).movedim(1, -1)


def random_input(channels: int) -> Tensor:
    return torch.randn(2, ROWS, COLUMNS, channels, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("t", [0.0, 0.4, math.pi / 2])
def test_our_network_gives_what_a_straightforward_one_gives(folder, planet, t):
    x = random_input(144)
    expected = straightforward(stage_tensors(70, 3), x, t)
    assert 0.3 < expected.std() < 3
    found = velocity(aeris.load("aeris-gb", path=folder, static=planet), x, t)
    assert_same(found, expected)


def test_rows_from_south_to_north_are_turned_over(folder, planet):
    x = random_input(144)
    expected = straightforward(stage_tensors(70, 3), x.flip(1), 0.4).flip(1)
    loaded = aeris.load("aeris-gb", path=folder, static=planet, rows="south")
    assert_same(velocity(loaded, x, 0.4), expected)
    assert loaded.geography.grid.dropped_pole == -90 and loaded.geography.grid.latitude[0] == 90
    assert (velocity(aeris.load("aeris-gb", path=folder, static=planet), x, 0.4) - expected).abs().max() > 1e-2


def test_the_joined_state_gives_the_same(tmp_path, folder, planet):
    from safetensors.torch import save_file

    torch.save(joined(stage_tensors(70, 3)), folder / "aeris.pth")
    save_file(joined(stage_tensors(70, 3)), folder / "aeris.safetensors")
    stages = aeris.load("aeris-gb", path=folder, static=planet).tensors("average")
    for name in ("aeris.pth", "aeris.safetensors"):
        found = aeris.load("aeris-gb", path=folder / name, static=planet).tensors("average")
        assert found.keys() == stages.keys() and all(torch.equal(found[key], stages[key]) for key in stages)


def test_the_6h_model_and_the_order_of_the_figure(tmp_path, planet):
    changes = {"enhanced_channels4": False, "enhanced_channels3": True, "interval": 6, "layerwise_t_emb_after_mod_norm": False}
    write_configuration(tmp_path, configuration(**changes))
    write_statistics(tmp_path, state_channels(sea=False), 6)
    write_stages(tmp_path, stage_tensors(69, 3), prefix="it_2000_")
    loaded, x = aeris.load("aeris-gb", path=tmp_path, static=planet), random_input(142)
    assert_same(velocity(loaded, x, 0.4), straightforward(stage_tensors(69, 3), x, 0.4, False))
    assert loaded.interval == np.timedelta64(6, "h") and loaded.images == 1_331_000


def test_published_settings_give_the_models_of_the_paper(tmp_path):
    sizes = {"dim": 1536, "heads": 12, "head_dim": 128, "mlp_dim": 6144, "PP_stages": 10, "sublayers": 3}
    write_configuration(tmp_path, configuration(**sizes, window_size=[60, 60]))
    found = aeris_gb.dimensions(Settings.read(tmp_path), presets.GLOBE, "north")
    assert found == presets.snapshot(presets.aeris_1_3b())
    hurricane = {"enhanced_channels3": True, "enhanced_channels4": False, "interval": 6}
    write_configuration(tmp_path, configuration(**sizes, window_size=[30, 30], **hurricane))
    found = aeris_gb.dimensions(Settings.read(tmp_path), presets.GLOBE, "north")
    assert found == presets.snapshot(presets.aeris_1_3b_6h())


def test_average_and_weights_are_told_apart(folder, planet):
    average = aeris.load("aeris-gb", path=folder, static=planet).tensors("average")
    weights = aeris.load("aeris-gb", path=folder, static=planet, weights="net").tensors("average")
    assert all(torch.equal(weights[name], 2 * average[name]) for name in average)


def test_statistics_noise_and_sampler_are_theirs(folder, planet):
    loaded = aeris.load("aeris-gb", path=folder, static=planet)
    with np.load(folder / "normalize_diff_mean_24.npz") as means:
        np.testing.assert_array_equal(loaded.statistics.residual_mean, [float(means[name][0]) for name in state_channels()])
    assert loaded.statistics.forcings == (RADIATION, *STATIC)
    assert loaded.training.noise == loaded.sampling.noise == (0.2, 500.0)
    assert (loaded.sampling.solver, loaded.sampling.rho) == ("heun", 10.0)


def straightforward_forecast(folder: Path, planet, steps: int, levels: int, seed: int, member: int) -> np.ndarray:
    """Heun's method on whole fields, with the noise that the forecast draws: states ``(steps, C, H, W)`` without the north pole."""
    channels, stages = state_channels(), stage_tensors(70, 3)
    files = {name: np.load(folder / f"normalize_{name}.npz") for name in ("mean", "std", "diff_mean_24", "diff_std_24")}
    mean, std, moved, spread = (torch.tensor([float(file[name][0]) for name in channels]) for file in files.values())
    below = planet.isel(latitude=slice(1, None))
    state = stack(below.isel(time=[0]), channels)[0]
    sea = state[channels.index(SEA)]
    sea[np.isnan(sea)] = np.nanmin(sea)
    state = torch.from_numpy(state).movedim(0, -1)[None]

    def given(name: str, field: np.ndarray) -> Tensor:
        value = (field - files["mean"][name][0]) / files["std"][name][0]
        return torch.tensor(np.broadcast_to(value, (1, ROWS, COLUMNS)), dtype=torch.float32)[..., None]

    def sun(time: np.datetime64) -> Tensor:
        return given(RADIATION, toa_incident_solar_radiation(np.array([time]), below.latitude.values, below.longitude.values))

    tangents = [(500**0.1 + k / (levels - 1) * (0.2**0.1 - 500**0.1)) ** 10 for k in range(levels)]
    angles = [math.atan(tangent) for tangent in tangents]
    time, step, reached = TIMES[0], np.timedelta64(24, "h"), []
    for lead in range(1, steps + 1):
        condition = torch.cat(
            [(state - mean) / std, sun(time), *(given(name, below[name].values) for name in STATIC), sun(time + step)], -1
        )
        key = noise.key(seed, "sampling noise", lead, int(TIMES[0].astype("datetime64[s]").astype(int)), member)
        x = noise.normals([key], torch.arange(ROWS * COLUMNS).view(ROWS, COLUMNS), len(channels))
        for s, t in pairwise(angles):
            here = straightforward(stages, torch.cat([x, condition], -1), s)
            there = straightforward(stages, torch.cat([x + (t - s) * here, condition], -1), t)
            x = x + (t - s) * (here + there) / 2
        x = math.cos(angles[-1]) * x - math.sin(angles[-1]) * straightforward(stages, torch.cat([x, condition], -1), angles[-1])
        state, time = state + x * spread + moved, time + step
        reached.append(state[0].movedim(-1, 0).numpy())
    return np.stack(reached)


def test_a_forecast_equals_heuns_method_on_whole_fields(folder, planet, tmp_path):
    recipe = SamplingRecipe(solver="heun", steps=3, noise=(0.2, 500.0))
    loaded = aeris.load("aeris-gb", path=folder, static=planet, out=tmp_path / "written")
    fc = aeris.forecast(
        loaded, planet, TIMES[:1], 2, "2d", tmp_path / "f.zarr", 5, batch=2, sampling=recipe, precision="float32", progress=False
    )
    assert fc.latitude.values[0] == 90 and fc.sizes["latitude"] == ROWS + 1
    for member in range(2):
        expected = straightforward_forecast(folder, planet, 2, 3, 5, member)
        found = stack(
            fc.isel(time=0, number=member, latitude=slice(1, None)).drop_vars("time").rename(prediction_timedelta="time"), state_channels()
        )
        scale = np.array([field.std() for field in expected[1] - expected[0]])[:, None, None]
        assert (np.abs(found - expected) / scale).max() < 2e-3
        assert (np.abs(found - expected) / scale).mean() < 1e-4
    assert not np.isnan(fc[SEA].values).any()
    in_memory = aeris.load("aeris-gb", path=folder, static=planet)
    again = aeris.forecast(
        in_memory, planet, TIMES[:1], 2, "2d", tmp_path / "g.zarr", 5, batch=2, sampling=recipe, precision="float32", progress=False
    )
    assert again.drop_attrs().equals(fc.drop_attrs())


class TestRefusals:
    def refused(self, match: str, folder: Path, planet, error: type[Exception] = CheckpointError, **given: Any) -> None:
        with pytest.raises(error, match=match):
            aeris.load("aeris-gb", path=folder, static=planet, **given)

    def test_stages_that_are_missing_are_named(self, folder, planet):
        for number in (2, 4):
            (folder / f"checkpoint_PP{number}.pth").unlink()
        self.refused(r"lacks checkpoint_PP2\.pth, checkpoint_PP4\.pth", folder, planet)

    def test_a_tensor_that_is_missing_is_named(self, folder, planet):
        stages = stage_tensors(70, 3)
        del stages[2]["modulelist.1.3.w1.weight"]
        write_stages(folder, stages)
        self.refused(r"checkpoint_PP2\.pth lacks modulelist\.1\.3\.w1\.weight", folder, planet)

    def test_a_tensor_of_another_shape_is_named(self, folder, planet):
        stages = stage_tensors(69, 3)
        write_stages(folder, stages)
        self.refused(r"PP0\.pth holds proj\.weight with the shape \(32, 142\)", folder, planet)

    def test_a_tensor_that_is_left_over_is_named(self, folder, planet):
        stages = stage_tensors(70, 3)
        stages[1]["modulelist.0.1.to_qkv.bias"] = torch.zeros(96)
        write_stages(folder, stages)
        self.refused(r"PP1\.pth holds modulelist\.0\.1\.to_qkv\.bias, for which", folder, planet)

    def test_files_without_the_average_say_what_they_hold(self, folder, planet):
        torch.save({"cur_nimg": 1, "model_state_dict": {}}, folder / "checkpoint_PP0.pth")
        self.refused("holds 'cur_nimg', 'model_state_dict'.*'ema_state_dict'", folder, planet)

    def test_several_sets_must_be_told_apart(self, folder, planet):
        for file in list(folder.glob("checkpoint_PP*.pth")):
            file.rename(folder / f"it_1000_{file.name}")
        write_stages(folder, stage_tensors(70, 3, seed=1), prefix="it_2000_")
        self.refused("several sets.*it_1000_.*it_2000_", folder, planet)
        chosen = aeris.load("aeris-gb", path=folder / "it_2000_checkpoint_PP0.pth", static=planet)
        assert torch.equal(chosen.tensors("average")["head.project.weight"], stage_tensors(70, 3, seed=1)[-1]["head.weight"])

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"layerwise_t_emb": False}, "model.layerwise_t_emb=False"),
            ({"diffusion": False}, "model.diffusion=False"),
            ({"rit": True}, "model.rit=True"),
            ({"attn_fn": "cosine"}, "model.attn_fn='cosine'"),
            ({"head_dim": 8}, "model.head_dim=8"),
            ({"sigma_data": 0.5}, "model.sigma_data=0.5"),
            ({"dim": "wide"}, "model.dim='wide'"),
        ],
    )
    def test_other_networks(self, folder, planet, changes, match):
        write_configuration(folder, configuration(**changes))
        self.refused(match, folder, planet)

    def test_statistics(self, folder, planet):
        np.savez(folder / "normalize_std.npz", geopotential_50=np.array([1.0]))
        self.refused("normalize_std.npz has no positive number for 2m_temperature", folder, planet)
        (folder / "normalize_diff_std_24.npz").unlink()
        write_statistics(folder, state_channels(), 6)
        self.refused("normalize_diff_std_24.npz is missing", folder, planet)

    def test_static_fields(self, folder, planet):
        self.refused("static=None", folder, None, DataError)
        self.refused("lack land_sea_mask", folder, planet.drop_vars("land_sea_mask"), DataError)
        self.refused("without its row at 90°", folder, dataset(90 - (np.arange(16) + 0.5) * 11.25, COLUMNS), DataError)

    def test_what_is_there_is_not_replaced(self, folder, planet, tmp_path):
        (tmp_path / "there").mkdir()
        self.refused("there exists", folder, planet, StoreError, out=tmp_path / "there")
