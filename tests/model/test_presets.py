"""Named models have the size of their names; counts agree with torch's own counter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from aeris.errors import ConfigurationError
from aeris.model import flops, presets
from aeris.model.config import ModelConfig
from aeris.model.network import Network

LARGE = {"aeris_1_3b": 1.3, "aeris_1_3b_6h": 1.3, "aeris_13b": 13, "aeris_26b": 26, "aeris_40b": 40, "aeris_80b": 80}
CHANNELS = ("2m_temperature", "geopotential_500")


@pytest.mark.parametrize(("name", "billions"), LARGE.items())
def test_parameter_counts_agree_with_the_names(name, billions):
    config = getattr(presets, name)()
    with torch.device("meta"):
        network = Network(config)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == flops.parameters(config)
    assert count / 1e9 == pytest.approx(billions, rel=0.02)


@pytest.mark.parametrize(("name", "operations"), [("aeris_1_3b", 7.29e15), ("aeris_13b", 6.06e16), ("aeris_40b", 2.054e17)])
def test_the_papers_accounting(name, operations):
    assert flops.paper(getattr(presets, name)()) == pytest.approx(operations, rel=1e-3)


def test_input_channels_are_the_papers():
    assert presets.aeris_1_3b().inputs == 144
    assert presets.aeris_1_3b_6h().inputs == 142


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"time_mlp": "shared"},
        {"polar": "wrap", "shift_every": 2},
        {"depth": 3, "forcings": ()},
        {"intervals": (6, 24)},
        {"intervals": (6, 24), "time_mlp": "shared"},
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [False, True])
def test_exact_counts_agree_with_torch(changes, training):
    config = ModelConfig(**{"grid": (16, 24), "channels": CHANNELS, "dim": 16, "heads": 2, "mlp": 24, "window": (4, 6), **changes})
    network = Network(config)
    tokens = (1, *config.window_grid, 4, 6)
    with FlopCounterMode(display=False) as counter:
        hours = (torch.tensor([24.0]),) if config.intervals else ()
        velocity = network(torch.randn(*tokens, 2), torch.randn(*tokens, config.conditions), torch.rand(1), *hours)
        if training:
            velocity.sum().backward()
    assert counter.get_total_flops() == flops.exact(config, training)
    assert flops.parameters(config) == sum(parameter.numel() for parameter in network.parameters())


def test_state_memory_counts_what_the_optimizer_holds():
    config = presets.tiny(channels=CHANNELS)
    network = Network(config)
    optimizer = torch.optim.AdamW(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    held = sum(state[kind].nbytes for state in optimizer.state.values() for kind in ("exp_avg", "exp_avg_sq"))
    assert flops.state_memory(config).optimizer == held
    assert flops.state_memory(config).total == 5 * held // 2


def test_snapshot_sets_its_options_together():
    config = presets.snapshot(presets.aeris_1_3b())
    assert (config.rope, config.norm_order, config.polar) == (False, "modulate_norm", "wrap")
    assert (config.norm_eps, config.position_rows) == (torch.finfo(torch.float32).eps, (1, 1))


def test_recipes_hold_the_papers_numbers():
    training = presets.training_24h()
    assert training.noise == (0.2, 500.0) and training.betas == (0.85, 0.9) and training.clip == pytest.approx(20 / 192, rel=0.05)
    assert replace(presets.training_6h(), weight_decay=0.2) == training
    assert presets.sampling_24h().steps == 10


@pytest.mark.parametrize(
    "broken",
    [lambda: presets.SamplingRecipe(steps=1), lambda: presets.SamplingRecipe(noise=(2, 1)), lambda: presets.TrainingRecipe(noise=(0, 1))],
)
def test_recipes_that_cannot_work_are_refused(broken):
    with pytest.raises(ConfigurationError):
        broken()
