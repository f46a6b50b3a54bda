"""The network against a textbook one: fields rolled by half a window, windows cut row by row, a mask at the poles."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from aeris.errors import ConfigurationError, DataError
from aeris.model import presets
from aeris.model.config import ModelConfig
from aeris.model.layers import RMSNorm, attend, rotary_table, rotate, time_features
from aeris.model.network import Network, position_field
from aeris.model.quadrants import to_pixels, to_tokens

CHANNELS = ("2m_temperature", "geopotential_500", "temperature_850")
SMALL = ModelConfig(grid=(16, 24), channels=CHANNELS, dim=16, depth=4, heads=2, mlp=24, window=(4, 6))


def perturbed(config: ModelConfig, seed: int = 0) -> Network:
    """A float64 network in which no weight is at its initial value."""
    network = Network(config, seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return network


def textbook_attention(attention, x_BHWD, window, shifted, split):
    """Window attention in pixel order: roll, cut row by row, mask what is not a neighbour, and back."""
    rows, columns = x_BHWD.shape[1:3]
    half = window[0] // 2, window[1] // 2
    if shifted:
        x_BHWD = torch.roll(x_BHWD, (-half[0], -half[1]), dims=(1, 2))
    cut = x_BHWD.view(len(x_BHWD), rows // window[0], window[0], columns // window[1], window[1], -1).transpose(2, 3)
    tokens = cut.flatten(3, 4)
    head_dim = tokens.shape[-1] // attention.heads
    q, k, v = (part.unflatten(-1, (attention.heads, head_dim)).transpose(3, 4) for part in attention.qkv(tokens).chunk(3, -1))
    if attention.rotary is not None:
        q, k = textbook_rotary(q, window), textbook_rotary(k, window)
    scores = q @ k.transpose(-1, -2) / math.sqrt(head_dim)
    if shifted and split:
        upper = torch.arange(window[0]).repeat_interleave(window[1]) < half[0]
        scores[:, -1] = scores[:, -1].masked_fill(upper[:, None] != upper[None, :], -torch.inf)
    mixed = (scores.softmax(-1) @ v).transpose(3, 4).flatten(-2).unflatten(3, window)
    out = attention.out(mixed.transpose(2, 3).reshape(x_BHWD.shape))
    return torch.roll(out, half, dims=(1, 2)) if shifted else out


def textbook_rotary(x, window):
    """Rotary embedding by complex numbers, one pixel after the other."""
    pairs = x.shape[-1] // 4
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    frequency = 10_000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    phases = [torch.cat([column * frequency, row * frequency]) for row in range(window[0]) for column in range(window[1])]
    return torch.view_as_real(turned * torch.exp(1j * torch.stack(phases))).flatten(-2)


def textbook(network, noisy, condition, t, hours=None):
    """The whole network in pixel order."""
    config = network.config
    order = lambda tokens: to_pixels(tokens, config.window).movedim(1, -1)  # noqa: E731
    x = order(torch.cat([noisy, condition], -1))
    x = network.embedding.project(x + order(position_field(config.grid, config.inputs, config.window, config.position_rows)[None].double()))
    sinusoids = time_features(t, config.time_features)
    if hours is not None:
        sinusoids = sinusoids + torch.outer(torch.log(hours / config.intervals[0]), network.interval.weight[:, 0])
    for index, block in enumerate(network.blocks):
        hidden = block.time.hidden(sinusoids) if network.time is None else network.time(sinusoids)
        vectors = block.time.out(F.silu(hidden)).unflatten(-1, (6, -1))[:, :, None, None]
        norm_first = config.norm_order == "norm_modulate"

        def sub(x, norm, shift, scale, norm_first=norm_first):
            return norm(x) * (1 + scale) + shift if norm_first else norm(x * (1 + scale) + shift)

        shifted = (index // config.shift_every) % 2 == 1
        inner = sub(x, block.norm_attention, vectors[:, 0], vectors[:, 1])
        x = x + vectors[:, 2] * textbook_attention(block.attention, inner, config.window, shifted, config.polar == "split")
        gate, up = block.mlp.gate_up(sub(x, block.norm_mlp, vectors[:, 3], vectors[:, 4])).chunk(2, -1)
        x = x + vectors[:, 5] * block.mlp.out(F.silu(gate) * up)
    shift, scale = (vector[:, None, None] for vector in network.head.time.out(F.silu(network.head.time.hidden(sinusoids))).chunk(2, -1))
    return network.head.project(network.head.norm(x) * (1 + scale) + shift)


def inputs(config, batch=2):
    generator = torch.Generator().manual_seed(1)
    tokens = (batch, *config.window_grid, 4, config.window[0] * config.window[1] // 4)
    noisy = torch.randn(*tokens, len(config.channels), generator=generator, dtype=torch.float64)
    condition = torch.randn(*tokens, config.conditions, generator=generator, dtype=torch.float64)
    return noisy, condition, torch.tensor([0.3, 1.4], dtype=torch.float64)[:batch]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"polar": "wrap"},
        {"rope": False},
        {"norm_order": "modulate_norm"},
        {"time_mlp": "shared"},
        {"shift_every": 2, "depth": 5},
        {"forcings": ()},
        {"position_rows": (8, -1)},
    ],
    ids=str,
)
def test_network_equals_the_textbook_one(changes):
    config = replace(SMALL, **changes)
    network = perturbed(config)
    given = inputs(config)
    ours = to_pixels(network(*given), config.window).movedim(1, -1)
    torch.testing.assert_close(ours, textbook(network, *given), rtol=1e-4, atol=1e-5)  # rotary tables and position are float32


@pytest.mark.parametrize("changes", [{}, {"time_mlp": "shared"}], ids=str)
def test_every_block_and_the_head_are_told_the_length_of_the_step(changes):
    config = replace(SMALL, intervals=(6, 12, 24), **changes)
    network, given, hours = perturbed(config), inputs(config), torch.tensor([24.0, 12.0], dtype=torch.float64)
    ours = to_pixels(network(*given, hours), config.window).movedim(1, -1)
    torch.testing.assert_close(ours, textbook(network, *given, hours), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(*given, hours), network(*given, hours.flip(0)), rtol=1e-2)


def test_the_first_length_is_that_of_a_network_of_one_length():
    """In the same weights, trained or not; further lengths differ from it only once their direction was learned."""
    one, several = perturbed(SMALL), Network(replace(SMALL, intervals=(6, 12, 24))).double()
    assert set(dict(several.named_parameters())) - set(dict(one.named_parameters())) == {"interval.weight"}
    several.load_state_dict(one.state_dict(), strict=False)
    given, hours = inputs(SMALL), torch.tensor([6.0, 24.0], dtype=torch.float64)
    assert torch.equal(one(*given), several(*given, hours))
    with torch.no_grad():
        several.interval.weight.fill_(0.1)
    told = several(*given, hours)
    assert torch.equal(one(*given)[0], told[0]) and not torch.allclose(one(*given)[1], told[1], rtol=1e-2)
    assert torch.equal(several(*given), one(*given))


def test_rows_may_be_counted_from_a_pole_row_that_was_dropped():
    grid, channels, window = (8, 16), 10, (4, 4)
    whole = to_pixels(position_field((12, 16), channels, window)[None], window)[0]  # rows 0 to 11
    down, up = (to_pixels(position_field(grid, channels, window, rows)[None], window)[0] for rows in ((1, 1), (8, -1)))
    torch.testing.assert_close(down, whole[:, 1:9])
    torch.testing.assert_close(up, whole[:, 1:9].flip(1))


def test_the_smallest_mean_square_is_that_of_the_configuration():
    network = Network(replace(SMALL, norm_eps=0.5))
    norms = [module for module in network.modules() if isinstance(module, RMSNorm)]
    assert len(norms) == 2 * SMALL.depth + 1
    for norm in norms:
        torch.testing.assert_close(norm(torch.full((SMALL.dim,), 0.5)), torch.full((SMALL.dim,), 0.5 / 0.75**0.5))


def test_poles_are_no_neighbours_unless_wrapped():
    """A change in the far north is felt in the far south at once only where the poles are glued."""
    for polar, felt in (("split", False), ("wrap", True)):
        network = perturbed(replace(SMALL, depth=2, polar=polar))
        noisy, condition, t = inputs(network.config, 1)
        pixels = to_pixels(noisy, SMALL.window).clone()
        pixels[..., 0, :] += 1.0
        moved = network(to_tokens(pixels, SMALL.window), condition, t) - network(noisy, condition, t)
        south = to_pixels(moved, SMALL.window)[..., -1, :]
        assert bool((south.abs() > 1e-12).any()) is felt


def test_fused_attention_equals_the_matrix_products():
    q, k, v = torch.randn(3, 2, 5, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(attend(q, k, v), F.scaled_dot_product_attention(q, k, v))


def test_rotary_scores_depend_on_the_distance_alone():
    table = rotary_table((6, 6), 8).double()
    q, k = torch.randn(2, 8, dtype=torch.float64)
    everywhere = to_pixels(rotate(q.expand(36, 1, 8), table).reshape(1, 1, 1, 4, 9, 8), (6, 6))[0]
    keys = to_pixels(rotate(k.expand(36, 1, 8), table).reshape(1, 1, 1, 4, 9, 8), (6, 6))[0]
    score = lambda a, b: (everywhere[:, a[0], a[1]] * keys[:, b[0], b[1]]).sum()  # noqa: E731
    torch.testing.assert_close(score((0, 0), (1, 2)), score((4, 3), (5, 5)), rtol=1e-6, atol=1e-6)
    assert not torch.isclose(score((0, 0), (1, 2)), score((0, 0), (2, 1)))


def test_rms_norm_equals_torchs():
    x = torch.randn(4, 16)
    norm = RMSNorm(16)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (16,), eps=1e-6))


@pytest.mark.parametrize("intervals", [(), (6, 12)])
def test_every_weight_moves_from_the_second_step_on(intervals):
    """Guards against the trap of zero gates behind zero projections, in which no gradient ever starts."""
    network = Network(replace(SMALL, intervals=intervals))
    given = tuple(part.float() for part in inputs(SMALL)) + ((torch.tensor([6.0, 12.0]),) if intervals else ())
    target = torch.randn(given[0].shape)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (network(*given) - target).square().mean().backward()
        optimizer.step()
    (network(*given) - target).square().mean().backward()
    still = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert not still


def test_a_new_network_predicts_zero_velocity():
    given = tuple(part.float() for part in inputs(SMALL))
    assert not Network(SMALL)(*given).any()


def test_weights_depend_on_seed_and_name_alone():
    deeper = Network(replace(SMALL, depth=6), seed=3)
    shallow = dict(Network(replace(SMALL, depth=4), seed=3).named_parameters())
    name = "blocks.2.attention.qkv.weight"
    assert torch.equal(shallow[name], dict(deeper.named_parameters())[name])
    assert not torch.equal(shallow[name], dict(Network(SMALL, seed=4).named_parameters())[name])


def test_bfloat16_stays_close_to_float32():
    network = perturbed(SMALL).float()
    given = tuple(part.float() for part in inputs(SMALL))
    exact = network(*given)
    network.compute_dtype = torch.bfloat16
    rounded = network(*given)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.05


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"window": (5, 6)}, "odd"),
        ({"window": (6, 6)}, "6 does not divide 16 rows"),
        ({"heads": 3}, "heads=3"),
        ({"dim": 18, "heads": 3}, "heads=3 with dim=18"),
        ({"depth": 0}, "depth=0"),
        ({"channels": ("land_sea_mask",)}, "land_sea_mask"),
        ({"forcings": ("geopotential",)}, "geopotential"),
        ({"intervals": (6,)}, r"intervals=\(6,\)"),
        ({"intervals": (6, 24, 12)}, "rising multiples of the first"),
        ({"intervals": (6, 15)}, "rising multiples of the first"),
        ({"intervals": (0, 6)}, "rising multiples of the first"),
    ],
)
def test_sizes_that_cannot_work_are_refused(changes, found):
    with pytest.raises(ConfigurationError, match=found):
        replace(SMALL, **changes)


def test_unknown_channels_are_refused():
    with pytest.raises(DataError, match="'vorticity_500'"):
        presets.tiny(channels=("vorticity_500",))


def test_a_network_without_channels_is_refused():
    with pytest.raises(ConfigurationError, match="no channels"):
        Network(presets.tiny())
