"""Training and sampling step of the network against a textbook Swin of the same size, and against the machine's matrix peak.

The textbook network does what most published Swin code does: rolls the field, cuts windows row by row, masks the poles, projects
query, key and value apart, calls torch's fused attention, and leaves bfloat16 to autocast. Both do the same work, in turn, so that
a slow moment of the machine strikes both; the ratio of medians is what counts.

    python benchmarks/network_speed.py --rounds 15
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aeris import device as devices
from aeris.data.variables import state_channels
from aeris.model import flops, presets
from aeris.model.config import ModelConfig
from aeris.model.layers import time_features
from aeris.model.network import Network

CHANNELS = state_channels(levels=(250, 500, 850))


class TextbookAttention(nn.Module):
    """Masked window attention on ``(windows, tokens, dim)`` with a rotary embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.window = config.heads, config.window
        self.q, self.k, self.v, self.out = (nn.Linear(config.dim, config.dim, bias=False) for _ in range(4))
        pairs = config.dim // config.heads // 4
        frequency = 10_000.0 ** (-torch.arange(pairs) / pairs)
        rows, columns = torch.meshgrid(torch.arange(config.window[0]), torch.arange(config.window[1]), indexing="ij")
        angle = torch.cat([columns.reshape(-1, 1) * frequency, rows.reshape(-1, 1) * frequency], -1)
        self.register_buffer("cosine", angle.cos().repeat_interleave(2, -1))
        self.register_buffer("sine", angle.sin().repeat_interleave(2, -1))

    def rotate(self, x: Tensor) -> Tensor:
        turned = torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2)
        return x * self.cosine + turned * self.sine

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v.to(q.dtype), attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class TextbookBlock(nn.Module):
    """A Swin block on fields ``(B, H, W, D)``."""

    def __init__(self, config: ModelConfig, shifted: bool) -> None:
        super().__init__()
        self.window, self.shifted = config.window, shifted
        self.time = nn.Sequential(nn.Linear(config.dim, config.dim), nn.SiLU(), nn.Linear(config.dim, 6 * config.dim))
        self.norm1, self.norm2 = nn.RMSNorm(config.dim), nn.RMSNorm(config.dim)
        self.attention = TextbookAttention(config)
        self.gate, self.up = (nn.Linear(config.dim, config.mlp, bias=False) for _ in range(2))
        self.down = nn.Linear(config.mlp, config.dim, bias=False)
        rows, columns = config.window_grid
        upper = torch.arange(config.window[0]).repeat_interleave(config.window[1]) < config.window[0] // 2
        mask = torch.ones(rows, columns, 1, upper.numel(), upper.numel(), dtype=torch.bool)
        mask[-1] = upper[:, None] == upper[None, :]
        self.register_buffer("mask", mask.flatten(0, 1))

    def attend(self, x: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        (h, w), half = self.window, (self.window[0] // 2, self.window[1] // 2)
        if self.shifted:
            x = torch.roll(x, (-half[0], -half[1]), (1, 2))
        cut = x.view(batch, height // h, h, width // w, w, dim).transpose(2, 3).reshape(-1, h * w, dim)
        out = self.attention(cut, self.mask.repeat(batch, 1, 1, 1) if self.shifted else None)
        out = out.view(batch, height // h, width // w, h, w, dim).transpose(2, 3).reshape(batch, height, width, dim)
        return torch.roll(out, half, (1, 2)) if self.shifted else out

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.time(t)[:, None, None].chunk(6, -1)
        x = x + gate1 * self.attend(self.norm1(x) * (1 + scale1) + shift1)
        inner = self.norm2(x) * (1 + scale2) + shift2
        return x + gate2 * self.down(F.silu(self.gate(inner)) * self.up(inner))


class Textbook(nn.Module):
    """The whole textbook network on fields ``(B, H, W, C)``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(config.inputs, config.dim)
        self.blocks = nn.ModuleList(TextbookBlock(config, config.shifted(index)) for index in range(config.depth))
        self.norm = nn.RMSNorm(config.dim)
        self.time = nn.Sequential(nn.Linear(config.dim, config.dim), nn.SiLU(), nn.Linear(config.dim, 2 * config.dim))
        self.head = nn.Linear(config.dim, len(config.channels), bias=False)

    def forward(self, noisy: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        features = time_features(t, self.config.dim)
        with torch.autocast(noisy.device.type, torch.bfloat16):
            x = self.embed(torch.cat([noisy, condition], -1))
            for block in self.blocks:
                x = block(x, features)
            shift, scale = self.time(features)[:, None, None].chunk(2, -1)
            return self.head(self.norm(x) * (1 + scale) + shift).float()


def matrix_peak(device: devices.Device, size: int) -> float:
    """Largest rate of a bfloat16 matrix product in several tries, in TFLOP/s."""
    a, b = torch.randn(2, size, size, device=device.torch_device, dtype=torch.bfloat16)
    return max(2 * size**3 / _time(lambda: a @ b, device) / 1e12 for _ in range(10))


def _time(work: Callable[[], object], device: devices.Device) -> float:
    device.synchronize()
    began = time.perf_counter()
    work()
    device.synchronize()
    return time.perf_counter() - began


def _ours(config: ModelConfig, dtype: str) -> Network:
    network = Network(config)
    network.compute_dtype = getattr(torch, dtype)
    return network


def training_step(network: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    def step() -> None:
        network.zero_grad(set_to_none=True)
        network(*inputs).square().mean().backward()

    return step


def sampling_step(network: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    def step() -> None:
        with torch.no_grad():
            network(*inputs)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    config, device = getattr(presets, options.preset)(channels=CHANNELS), devices.choose()
    place = device.torch_device
    textbook = Textbook(config).to(place)
    variants: dict[str, nn.Module] = {"textbook": textbook}
    for dtype in ("bfloat16", "float32"):
        variants[f"aeris, {dtype}"] = _ours(config, dtype).to(place)
        if device.compile_available() and not options.no_compile:
            compiled = _ours(config, dtype).to(place)
            compiled.compile_blocks()
            variants[f"aeris, {dtype}, compiled"] = compiled
    fields = (options.batch, *config.grid)
    tokens = (options.batch, *config.window_grid, 4, config.window[0] * config.window[1] // 4)
    times = {}
    for kind, step in (("training", training_step), ("sampling", sampling_step)):
        works = {}
        for name, network in variants.items():
            shape = fields if network is textbook else tokens
            given = torch.randn(*shape, len(CHANNELS), device=place), torch.randn(*shape, config.conditions, device=place)
            works[name] = step(network, (*given, torch.rand(options.batch, device=place)))
            works[name]()
        for _ in range(options.rounds):
            for name, work in works.items():
                times.setdefault((kind, name), []).append(_time(work, device))
    peak = matrix_peak(device, 2048 if device.kind == "cpu" else 8192)
    print(f"{options.preset}, batch {options.batch}, {device.torch_device}, bfloat16 matrix peak {peak:.3g} TFLOP/s")
    print(f"{'':<10}{'':<28}{'ms':>9}{'textbook / it':>16}{'share of peak':>16}")
    for (kind, name), seconds in times.items():
        median = statistics.median(seconds)
        ratio = statistics.median(times[kind, "textbook"]) / median
        rate = flops.exact(config, training=kind == "training") * options.batch / median / 1e12
        print(f"{kind:<10}{name:<28}{1e3 * median:>9.1f}{ratio:>16.2f}{rate / peak:>16.1%}")


if __name__ == "__main__":
    main()
