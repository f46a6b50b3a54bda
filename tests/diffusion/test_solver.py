"""TrigFlow and its solvers in float64 against Gaussian data, whose velocity and flow are known in closed form.

For x_0 ~ N(μ, s²) the marginal at angle t is N(μ cos t, s² cos² t + sin² t); the velocity is the conditional expectation of
cos t·z − sin t·x_0, and the flow keeps (x − mean) / deviation constant.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from aeris.diffusion import trigflow
from aeris.diffusion.solver import Dpm2mStep, angles, calls, churn, churned_angle, dpm2s_step, drive, heun_step, sampler
from aeris.errors import ConfigurationError
from aeris.model.presets import SamplingRecipe

MEAN = torch.tensor([0.7, -1.3, 2.0], dtype=torch.float64)
DEVIATION = torch.tensor([0.3, 1.0, 1.8], dtype=torch.float64)


def marginal(t: float) -> tuple[torch.Tensor, torch.Tensor]:
    return math.cos(t) * MEAN, torch.sqrt((DEVIATION * math.cos(t)) ** 2 + math.sin(t) ** 2)


def velocity(x: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
    """E[cos t·z − sin t·x_0 | x_t = x]."""
    t = t_B[:, None]
    variance = (DEVIATION * t.cos()) ** 2 + t.sin() ** 2
    gain = t.cos() * t.sin() * (1 - DEVIATION**2) / variance
    return -t.sin() * MEAN + gain * (x - t.cos() * MEAN)


def flow(x: torch.Tensor, s: float, t: float) -> torch.Tensor:
    """The exact solution of dx/dt = F from s to t."""
    (from_mean, from_deviation), (to_mean, to_deviation) = marginal(s), marginal(t)
    return to_mean + (x - from_mean) * to_deviation / from_deviation


def test_the_analytic_velocity_is_the_regression_of_the_target():
    generator = torch.Generator().manual_seed(0)
    x0 = MEAN + DEVIATION * torch.randn(400_000, 3, generator=generator, dtype=torch.float64)
    t_B = torch.full((len(x0),), 0.9, dtype=torch.float64)
    x, target = trigflow.interpolate(x0, torch.randn(x0.shape, generator=generator, dtype=torch.float64), t_B)
    for channel in range(3):
        slope, intercept = np.polyfit(x[:, channel], target[:, channel], 1)
        line = velocity(torch.tensor([[0.0] * 3, [1.0] * 3], dtype=torch.float64), t_B[:2])[:, channel]
        assert [intercept, intercept + slope] == pytest.approx(line.tolist(), abs=0.01)


def test_denoising_inverts_the_interpolant():
    x0, z = torch.randn(2, 5, 3, dtype=torch.float64)
    t_B = torch.linspace(0.1, 1.5, 5, dtype=torch.float64)
    x, target = trigflow.interpolate(x0, z, t_B)
    torch.testing.assert_close(trigflow.denoise(x, target, t_B), x0)


@pytest.mark.parametrize("make", [lambda: heun_step, lambda: dpm2s_step, Dpm2mStep], ids=["heun", "dpm2s", "dpm2m"])
def test_solvers_have_second_order(make):
    """Uniform steps in t on [0.05, 1.5], errors against the exact flow at the finest refinements."""
    x = marginal(1.5)[0] + marginal(1.5)[1] * torch.tensor([[-1.0, 0.4, 1.7], [0.2, -2.0, 0.9]], dtype=torch.float64)
    errors = []
    for count in (160, 320, 640):
        grid, y, step = np.linspace(1.5, 0.05, count + 1), x, make()
        for s, t in itertools.pairwise(grid):
            y = drive(step(y, float(s), float(t)), velocity)
        errors.append(float((y - flow(x, 1.5, 0.05)).abs().max()))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 1.9).all() and (orders < 2.2).all(), orders


def test_the_first_order_step_of_dpm_is_a_rotation():
    x, s, t = torch.randn(2, 3, dtype=torch.float64), 1.2, 0.8
    f = velocity(x, torch.full((2,), s, dtype=torch.float64))
    clean = trigflow.denoise(x, f, torch.full((2,), s, dtype=torch.float64))
    by_data = math.sin(t) / math.sin(s) * x + math.sin(s - t) / math.sin(s) * clean
    torch.testing.assert_close(by_data, math.cos(s - t) * x - math.sin(s - t) * f)


def test_levels_follow_the_published_schedule():
    """ρ = 10 from 500 to 0.2 in ten levels: 500, 268, 138, 68.0, 31.6, 13.8, 5.61, 2.08, 0.69, 0.20."""
    tangents = np.tan(angles(10, (0.2, 500.0), 10.0))
    assert tangents == pytest.approx([500, 268, 138, 68.0, 31.6, 13.8, 5.61, 2.08, 0.69, 0.20, 0], rel=0.01)


def test_churn_maps_one_marginal_exactly_onto_the_raised_one():
    s, raised = 0.7, 1.1
    (mean, deviation), (raised_mean, raised_deviation) = marginal(s), marginal(raised)
    rotated = churn(mean[None], s, raised, torch.zeros(1, 3, dtype=torch.float64))
    torch.testing.assert_close(rotated[0], raised_mean)
    added = churn(torch.zeros(1, 3, dtype=torch.float64), s, raised, torch.ones(1, 3, dtype=torch.float64))[0]
    kept = churn(deviation[None], s, raised, torch.zeros(1, 3, dtype=torch.float64))[0]
    torch.testing.assert_close(kept**2 + added**2, raised_deviation**2)


def test_the_multistep_solver_refuses_churn():
    with pytest.raises(ConfigurationError, match=r"churn=0, or 'dpm2s'"):
        SamplingRecipe(solver="dpm2m", churn=0.1)


def test_churn_acts_inside_its_range_alone():
    recipe = SamplingRecipe(solver="heun", churn=2.0, steps=10, churn_range=(0.5, 5.0))
    assert math.tan(churned_angle(math.atan(2.0), recipe)) == pytest.approx(2.4)
    assert churned_angle(math.atan(6.0), recipe) == math.atan(6.0)
    assert math.tan(churned_angle(math.atan(2.0), replace(recipe, churn=100.0))) == pytest.approx(2 * math.sqrt(2))


@pytest.mark.parametrize(("solver", "churned"), [("heun", 0.0), ("heun", 4.0), ("dpm2s", 0.0), ("dpm2s", 4.0), ("dpm2m", 0.0)])
def test_samples_have_the_distribution_of_the_data(solver, churned):
    recipe = SamplingRecipe(solver=solver, steps=40, noise=(0.01, 300.0), churn=churned)
    generator = torch.Generator().manual_seed(0)

    def noise(_: int) -> torch.Tensor:
        return torch.randn(20_000, 3, generator=generator, dtype=torch.float64)

    drawn = drive(sampler(noise(0), recipe, noise), velocity)
    torch.testing.assert_close(drawn.mean(0), MEAN, atol=0.04, rtol=0)
    torch.testing.assert_close(drawn.std(0), DEVIATION, atol=0, rtol=0.03)


@pytest.mark.parametrize(("solver", "cost"), [("heun", 19), ("dpm2s", 19), ("dpm2m", 10)])
def test_a_sample_costs_two_calls_a_level_less_one_or_one_with_the_multistep_solver(solver, cost):
    asked = []

    def counted(x, t_B):
        asked.append(float(t_B[0]))
        return velocity(x, t_B)

    recipe = SamplingRecipe(solver=solver, steps=10)
    drive(sampler(torch.randn(2, 3, dtype=torch.float64), recipe), counted)
    assert len(asked) == cost and asked == calls(recipe)


def test_the_loss_of_parts_adds_up_to_the_whole():
    velocity_, target, weight = torch.randn(4, 6, 3), torch.randn(4, 6, 3), torch.rand(6, 3)
    whole = trigflow.weighted_loss(velocity_, target, weight, 24)
    parts = [
        trigflow.weighted_loss(velocity_[i : i + 1, j : j + 3], target[i : i + 1, j : j + 3], weight[j : j + 3], 24)
        for i in range(4)
        for j in (0, 3)
    ]
    torch.testing.assert_close(whole, torch.stack(parts).sum())
    torch.testing.assert_close(whole, (weight * (velocity_ - target) ** 2).sum(-1).mean())


def test_levels_of_infinite_curvature_are_evenly_spaced_in_the_logarithm():
    tangents = np.tan(angles(5, (0.02, 200.0), math.inf)[:-1])
    np.testing.assert_allclose(tangents, np.geomspace(200.0, 0.02, 5))
    np.testing.assert_allclose(np.tan(angles(5, (0.02, 200.0), 1e6)[:-1]), tangents, rtol=1e-4)


def test_angles_are_log_uniform_in_the_tangent():
    t_B = trigflow.angle(torch.linspace(0, 1, 5, dtype=torch.float64), (0.01, 100.0))
    assert t_B.tan().tolist() == pytest.approx([0.01, 0.1, 1, 10, 100])
