"""Forward passes without a graph: values, and derivatives taken forward, of the whole network in one process."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from aeris.model.config import ModelConfig
from aeris.model.network import Network
from aeris.swipe import Groups, Pipeline
from aeris.swipe.forward import Direction, Forward, computing_in

MODEL = ModelConfig(grid=(16, 32), channels=("2m_temperature", "sea_surface_temperature"), dim=16, depth=3, heads=2, mlp=24, window=(8, 8))


@pytest.fixture
def moving():
    """A pass of three samples and a direction, in float64."""
    generator = torch.Generator().manual_seed(3)
    tokens = (3, 2, 4, 4, 16)

    def draw(channels: int) -> torch.Tensor:
        return torch.randn(*tokens, channels, generator=generator, dtype=torch.float64)

    inputs, given = (draw(2), draw(MODEL.conditions)), {"t_B": torch.tensor([0.2, 0.9, 1.5], dtype=torch.float64)}
    return (inputs, given), Direction((draw(2), None), {"t_B": torch.tensor([1.0, 0.3, -0.7], dtype=torch.float64)})


def network_of(**changes) -> Network:
    network = Network(replace(MODEL, **changes)).double()
    network.compute_dtype = torch.float64
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return network


def forward_of(network: Network) -> Forward:
    return Forward(Pipeline(network, network.config, Groups.alone(), torch.device("cpu")))


KINDS = [{}, {"rope": False}, {"polar": "wrap"}, {"norm_order": "modulate_norm"}, {"time_mlp": "shared"}]


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_the_derivative_taken_forward_is_that_of_finite_differences(moving, changes):
    network = network_of(**changes)
    ((noisy, condition), given), direction = moving
    ((value, derivative),) = forward_of(network).derivatives([moving[0]], [direction], 3)

    def at(step: float) -> torch.Tensor:
        with torch.no_grad():
            return network(noisy + step * direction.inputs[0], condition, given["t_B"] + step * direction.given["t_B"])

    torch.testing.assert_close(value, at(0.0), rtol=1e-13, atol=1e-13)
    # Central differences to fourth order: the error of their own is below the tolerance.
    step = 1e-4
    expected = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
    assert (derivative - expected).norm() <= 1e-9 * expected.norm()
    assert not (value.requires_grad or derivative.requires_grad)


def test_values_are_those_of_the_network(moving):
    network = network_of()
    (inputs, given), _ = moving
    answer = torch.empty(*inputs[0].shape, dtype=torch.float64, device="meta")
    first, second = forward_of(network).values([(inputs, given), (inputs, {"t_B": given["t_B"].flip(0)})], answer)
    torch.testing.assert_close(first, network(*inputs, given["t_B"]).detach())
    assert not torch.equal(first, second) and not first.requires_grad


def test_another_dtype_holds_for_a_while():
    network = network_of()
    pipeline = forward_of(network).pipeline
    with computing_in(pipeline, torch.bfloat16):
        assert network.compute_dtype == pipeline.tokens(1).dtype == torch.bfloat16
    assert network.compute_dtype == torch.float64
