"""Consistency models in float64 against Gaussian data, whose path, jump and tangent are known in closed form.

For x_0 ~ N(μ, s²) a path keeps (x − μ cos t) / σ_t constant, with σ_t² = s² cos² t + sin² t; so the jump is
f(x, t) = μ + s (x − μ cos t) / σ_t.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import forward_ad

from aeris.diffusion import consistency, trigflow
from aeris.diffusion.solver import calls, drive, sampler
from aeris.errors import ConfigurationError
from aeris.model import presets
from aeris.model.presets import SamplingRecipe

MEAN = torch.tensor([0.7, -1.3, 2.0], dtype=torch.float64)
DEVIATION = torch.tensor([0.3, 1.0, 1.8], dtype=torch.float64)


def deviation(t: torch.Tensor) -> torch.Tensor:
    return torch.sqrt((DEVIATION * t.cos()) ** 2 + t.sin() ** 2)


def velocity(x: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
    """dx/dt along a path."""
    t = t_B[:, None]
    return -t.sin() * MEAN + t.cos() * t.sin() * (1 - DEVIATION**2) / deviation(t) ** 2 * (x - t.cos() * MEAN)


def jump(x: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
    """F of the exact consistency function: (cos t · x − f) / sin t."""
    t = t_B[:, None]
    return (t.cos() * x - MEAN - DEVIATION * (x - t.cos() * MEAN) / deviation(t)) / t.sin()


def tangent(function, x: torch.Tensor, t_B: torch.Tensor, dx: torch.Tensor, warmth: float = 1.0) -> torch.Tensor:
    speed_B = consistency.slowness(t_B)
    with forward_ad.dual_level():
        out = function(forward_ad.make_dual(x, speed_B[:, None] * dx), forward_ad.make_dual(t_B, speed_B))
        predicted, derivative = forward_ad.unpack_dual(out)
    return consistency.tangent(x, dx, predicted, derivative, t_B, warmth)


@pytest.fixture
def points() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    t_B = torch.atan(torch.exp(torch.linspace(math.log(0.05), math.log(200), 64, dtype=torch.float64)))
    t = t_B[:, None]
    return MEAN * t.cos() + deviation(t) * torch.randn(64, 3, generator=generator, dtype=torch.float64), t_B


def test_the_tangent_of_the_exact_jump_is_zero(points):
    x, t_B = points
    assert tangent(jump, x, t_B, velocity(x, t_B)).abs().max() < 1e-12
    assert tangent(lambda x, t: jump(x, t) + 0.1 * x, x, t_B, velocity(x, t_B)).abs().max() > 1e-2


def test_the_tangent_is_the_slope_of_the_jump_along_the_path(points):
    """cos t · df/dt of any network, by central differences along the exact path."""
    x, t_B = points

    def network(x, t_B):
        return torch.sin(2 * x + t_B[:, None]) + 0.3 * x.flip(-1)

    def along(step: float) -> torch.Tensor:
        there_B = t_B + step
        moved = MEAN * there_B.cos()[:, None] + (x - MEAN * t_B.cos()[:, None]) * deviation(there_B[:, None]) / deviation(t_B[:, None])
        return trigflow.denoise(moved, network(moved, there_B), there_B)

    slope = (along(1e-5) - along(-1e-5)) / 2e-5
    expected = t_B.cos()[:, None] * slope
    torch.testing.assert_close(tangent(network, x, t_B, velocity(x, t_B)), expected, rtol=1e-7, atol=1e-9)


def test_cold_the_target_is_the_velocity(points):
    """Without its second term the tangent leads where diffusion training leads, cos² t as fast."""
    x, t_B = points
    dx = velocity(x, t_B)
    expected = t_B.cos()[:, None].square() * (dx - jump(x, t_B))
    torch.testing.assert_close(tangent(jump, x, t_B, dx, warmth=0.0), expected)


def test_the_straight_path_has_the_tangent_of_the_true_one_in_the_mean():
    """E[cos t·z − sin t·x_0 | x_t] is the velocity, and the tangent is linear in it: no teacher, the same fixed point."""
    generator = torch.Generator().manual_seed(1)
    x0 = MEAN + DEVIATION * torch.randn(400_000, 3, generator=generator, dtype=torch.float64)
    t_B = torch.full((len(x0),), 0.7, dtype=torch.float64)
    x, straight = trigflow.interpolate(x0, torch.randn(x0.shape, generator=generator, dtype=torch.float64), t_B)
    noisy = tangent(jump, x, t_B, straight)
    assert noisy.std() > 0.1
    for weight in (torch.ones_like(x), x):
        assert (noisy * weight).mean(0).abs().max() < 0.01


def test_a_normalised_tangent_has_at_most_unit_size():
    tangents = torch.randn(4, 2, 5, 3, dtype=torch.float64) * torch.tensor([1e-6, 0.1, 1.0, 1e6], dtype=torch.float64).view(4, 1, 1, 1)
    mean_B = consistency.sum_of_squares(tangents) / 30
    sizes = consistency.normalised(tangents, mean_B, 0.1).square().mean((1, 2, 3)).sqrt()
    rms_B = tangents.square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(sizes, rms_B / (rms_B + 0.1))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_exact_jump_draws_from_the_data_in_any_number_of_steps(steps):
    generator = torch.Generator().manual_seed(2)

    def fresh(_: int = 0) -> torch.Tensor:
        return torch.randn(200_000, 3, generator=generator, dtype=torch.float64)

    drawn = drive(sampler(fresh(), presets.sampling_consistency(steps), fresh), jump)
    # The start is pure noise where a trace of the data should be left, 1 / 200 of it.
    torch.testing.assert_close(drawn.mean(0), MEAN, rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.std(0), DEVIATION, rtol=0.01, atol=0)


def test_a_jump_is_one_call_from_pure_noise_and_the_second_is_made_at_1_1_radians():
    assert calls(presets.sampling_consistency(1)) == [math.atan(200.0)]
    assert calls(presets.sampling_consistency(2)) == pytest.approx([math.atan(200.0), 1.1])
    assert len(calls(presets.sampling_consistency(4))) == 4


def test_noise_of_each_jump_is_asked_for_by_its_number():
    asked: list[int] = []

    def fresh(number: int) -> torch.Tensor:
        asked.append(number)
        return torch.zeros(1, 3, dtype=torch.float64)

    drive(sampler(torch.zeros(1, 3, dtype=torch.float64), presets.sampling_consistency(3), fresh), jump)
    assert asked == [1, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SamplingRecipe(solver="consistency", steps=0),
        lambda: SamplingRecipe(solver="consistency", steps=2, churn=0.3),
        lambda: presets.Consistency(path="scenic"),
        lambda: presets.Consistency(constant=0.0),
        lambda: presets.check_solver(SamplingRecipe(), presets.Consistency()),
        lambda: presets.check_solver(presets.sampling_consistency(), presets.Diffusion()),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(ConfigurationError):
        make()
