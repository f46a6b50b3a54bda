"""Samplers of the TrigFlow probability-flow equation: Heun in the angle, DPM-Solver++(2S) and (2M), and churn that keeps the marginals.

Shapes:
    B  sample            ... token axes
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from aeris.diffusion.trigflow import Velocity, denoise
from aeris.model.presets import SamplingRecipe

Step = Callable[[Velocity, Tensor, float, float], Tensor]


def angles(steps: int, noise: tuple[float, float], rho: float) -> list[float]:
    """Falling diffusion angles whose tangents follow the ρ schedule of EDM (arXiv 2206.00364, equation 5), then zero.

    Args:
        steps: Number of noise levels.
        noise: Smallest and largest tangent.
        rho: Curvature; 1 is linear in the tangent.
    """
    low, high = (value ** (1 / rho) for value in noise)
    return [math.atan((high + k / (steps - 1) * (low - high)) ** rho) for k in range(steps)] + [0.0]


def sample(velocity: Velocity, x_B: Tensor, recipe: SamplingRecipe, noise: Callable[[int], Tensor] | None = None) -> Tensor:
    """Draws samples by following the equation from noise to data.

    Args:
        velocity: The network, F(x, t).
        x_B: Standard normal noise, the start.
        recipe: Levels, solver and churn.
        noise: Fresh standard normal noise for the step of this number; needed where the recipe churns.

    Returns:
        Clean samples, shaped as `x_B`.
    """
    solvers: dict[str, Step] = {"heun": heun_step, "dpm2s": dpm2s_step, "dpm2m": Dpm2mStep()}
    step = solvers[recipe.solver]
    levels = angles(recipe.steps, recipe.noise, recipe.rho)
    # The start is pure noise; at the first angle the marginal of unit-variance data is standard normal too.
    for number, (s, t) in enumerate(itertools.pairwise(levels)):
        raised = churned_angle(s, recipe)
        if raised > s:
            assert noise is not None
            x_B, s = churn(x_B, s, raised, noise(number)), raised
        x_B = step(velocity, x_B, s, t) if t > 0 else denoise(x_B, velocity(x_B, _full(s, x_B)), _full(s, x_B))
    return x_B


def heun_step(velocity: Velocity, x: Tensor, s: float, t: float) -> Tensor:
    """Heun's second-order step of dx/dt = F from angle s to t."""
    first = velocity(x, _full(s, x))
    second = velocity(x + (t - s) * first, _full(t, x))
    return x + (t - s) * (first + second) / 2


def dpm2s_step(velocity: Velocity, x: Tensor, s: float, t: float) -> Tensor:
    """DPM-Solver++(2S) in data prediction (arXiv 2211.01095, algorithm 1), with λ = −ln tan t and the midpoint in λ.

    With signal cos t and noise sin t, its first-order step is the rotation x_t = cos(s−t) x_s − sin(s−t) F.
    """
    middle = math.atan(math.sqrt(math.tan(s) * math.tan(t)))
    first = velocity(x, _full(s, x))
    x_middle = math.cos(s - middle) * x - math.sin(s - middle) * first
    clean = denoise(x_middle, velocity(x_middle, _full(middle, x)), _full(middle, x))
    return _towards(clean, x, s, t)


class Dpm2mStep:
    """DPM-Solver++(2M) in data prediction (arXiv 2211.01095, algorithm 2): one network call a step.

    The clean sample at the middle of a step, in λ = −ln tan t, is extrapolated from this step's estimate and the last one's; the
    first step has no last one and is of first order. One instance serves one sample.
    """

    def __init__(self) -> None:
        self._last: tuple[float, Tensor] | None = None

    def __call__(self, velocity: Velocity, x: Tensor, s: float, t: float) -> Tensor:
        """Steps from angle s to t."""
        clean = denoise(x, velocity(x, _full(s, x)), _full(s, x))
        width = math.log(math.tan(s) / math.tan(t))
        middle = clean
        if self._last is not None:
            last_s, last_clean = self._last
            middle = clean + width / (2 * math.log(math.tan(last_s) / math.tan(s))) * (clean - last_clean)
        self._last = s, clean
        return _towards(middle, x, s, t)


def _towards(clean: Tensor, x: Tensor, s: float, t: float) -> Tensor:
    """The exact step from angle s to t if the estimate of the clean sample stayed the same."""
    return math.sin(t) / math.sin(s) * x + math.sin(s - t) / math.sin(s) * clean


def churned_angle(s: float, recipe: SamplingRecipe) -> float:
    """The angle to which churn raises s: tan grows by the smaller of churn / steps and √2 − 1 (EDM, algorithm 2)."""
    low, high = recipe.churn_range
    if not recipe.churn or not low <= math.tan(s) <= high:
        return s
    return math.atan((1 + min(recipe.churn / recipe.steps, math.sqrt(2) - 1)) * math.tan(s))


def churn(x: Tensor, s: float, raised: float, noise: Tensor) -> Tensor:
    """Adds noise so that a sample of the marginal at angle s becomes one of the marginal at the raised angle.

    The rotation by arccos(cos raised / cos s): the signal's factor becomes cos(raised), and the noise variance
    1 − cos²(raised) = sin²(raised).
    """
    cosine = math.cos(raised) / math.cos(s)
    return cosine * x + math.sqrt(1 - cosine**2) * noise


def _full(t: float, x: Tensor) -> Tensor:
    """The angle of every sample."""
    return torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device)
