"""Samplers of the TrigFlow probability-flow equation: Heun in the angle, DPM-Solver++(2S) and (2M), and churn that keeps the marginals; and
the jumps of consistency models.

A sampler does not call the network: it is a generator that yields (x, angle) and is sent the velocity there, so that whoever drives
it may keep several on the way at once.

Shapes:
    B  sample            ... token axes
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator

import torch
from torch import Tensor

from aeris.diffusion.trigflow import Velocity, denoise
from aeris.model.presets import SamplingRecipe

Sampler = Generator[tuple[Tensor, float], Tensor, Tensor]
"""Yields noisy samples and their angle, receives the velocity, returns the result."""

Step = Callable[[Tensor, float, float], Sampler]
"""From angle s to angle t."""


def angles(steps: int, noise: tuple[float, float], rho: float) -> list[float]:
    """Falling diffusion angles whose tangents follow the ρ schedule of EDM (arXiv 2206.00364, equation 5), then zero.

    Args:
        steps: Number of noise levels.
        noise: Smallest and largest tangent.
        rho: Curvature; 1 is linear in the tangent, infinity in its logarithm.
    """
    if math.isinf(rho):
        return [math.atan(noise[1] * (noise[0] / noise[1]) ** (k / (steps - 1))) for k in range(steps)] + [0.0]
    low, high = (value ** (1 / rho) for value in noise)
    return [math.atan((high + k / max(1, steps - 1) * (low - high)) ** rho) for k in range(steps)] + [0.0]


def sampler(x_B: Tensor, recipe: SamplingRecipe, noise: Callable[[int], Tensor] | None = None) -> Sampler:
    """Follows the equation from noise to data.

    Args:
        x_B: Standard normal noise, the start.
        recipe: Levels, solver and churn.
        noise: Fresh standard normal noise for the step of this number; needed where the recipe churns, and by consistency models
            of more than one step.

    Returns:
        A generator that returns clean samples, shaped as `x_B`.
    """
    if recipe.solver == "consistency":
        return jumps(x_B, angles(recipe.steps, recipe.noise, recipe.rho)[:-1], noise)
    return _steps(x_B, recipe, noise)


def jumps(x_B: Tensor, levels: list[float], noise: Callable[[int], Tensor] | None = None) -> Sampler:
    """Jumps of a consistency model to the sample, and back to less noise each time (arXiv 2303.01469, algorithm 1).

    Args:
        x_B: Standard normal noise, the start.
        levels: Falling angles.
        noise: Fresh noise for the jump of this number, from the second on.
    """
    clean = denoise(x_B, (yield x_B, levels[0]), full(levels[0], x_B))
    for number, t in enumerate(levels[1:], start=1):
        assert noise is not None
        x_B = math.cos(t) * clean + math.sin(t) * noise(number)
        clean = denoise(x_B, (yield x_B, t), full(t, x_B))
    return clean


def _steps(x_B: Tensor, recipe: SamplingRecipe, noise: Callable[[int], Tensor] | None) -> Sampler:
    """Steps of a solver along the equation, the last to the clean sample."""
    solvers: dict[str, Step] = {"heun": heun_step, "dpm2s": dpm2s_step, "dpm2m": Dpm2mStep()}
    step = solvers[recipe.solver]
    levels = angles(recipe.steps, recipe.noise, recipe.rho)
    # The start is pure noise; at the first angle the marginal of unit-variance data is standard normal too.
    for number, (s, t) in enumerate(itertools.pairwise(levels)):
        raised = churned_angle(s, recipe)
        if raised > s:
            assert noise is not None
            x_B, s = churn(x_B, s, raised, noise(number)), raised
        if t > 0:
            x_B = yield from step(x_B, s, t)
        else:
            x_B = denoise(x_B, (yield x_B, s), full(s, x_B))
    return x_B


def drive(following: Sampler, velocity: Velocity) -> Tensor:
    """Runs a sampler, or one step of it, to its end.

    Args:
        following: The sampler.
        velocity: The network, F(x, t).
    """
    try:
        x, t = next(following)
        while True:
            x, t = following.send(velocity(x, full(t, x)))
    except StopIteration as end:
        return end.value


def calls(recipe: SamplingRecipe) -> list[float]:
    """Angles at which a sampler of this recipe calls the network, in their order."""
    asked: list[float] = []

    def note(x: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t[0]))
        return x

    nothing = torch.zeros(1, dtype=torch.float64)
    drive(sampler(nothing, recipe, lambda number: nothing), note)
    return asked


def heun_step(x: Tensor, s: float, t: float) -> Sampler:
    """Heun's second-order step of dx/dt = F from angle s to t."""
    first = yield x, s
    second = yield x + (t - s) * first, t
    return x + (t - s) * (first + second) / 2


def dpm2s_step(x: Tensor, s: float, t: float) -> Sampler:
    """DPM-Solver++(2S) in data prediction (arXiv 2211.01095, algorithm 1), with λ = −ln tan t and the midpoint in λ.

    With signal cos t and noise sin t, its first-order step is the rotation x_t = cos(s−t) x_s − sin(s−t) F.
    """
    middle = math.atan(math.sqrt(math.tan(s) * math.tan(t)))
    first = yield x, s
    x_middle = math.cos(s - middle) * x - math.sin(s - middle) * first
    clean = denoise(x_middle, (yield x_middle, middle), full(middle, x))
    return _towards(clean, x, s, t)


class Dpm2mStep:
    """DPM-Solver++(2M) in data prediction (arXiv 2211.01095, algorithm 2): one network call a step.

    The clean sample at the middle of a step, in λ = −ln tan t, is extrapolated from this step's estimate and the last one's; the
    first step has no last one and is of first order. One instance serves one sample.
    """

    def __init__(self) -> None:
        self._last: tuple[float, Tensor] | None = None

    def __call__(self, x: Tensor, s: float, t: float) -> Sampler:
        """Steps from angle s to t."""
        clean = denoise(x, (yield x, s), full(s, x))
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


def full(t: float, x: Tensor) -> Tensor:
    """The angle of every sample."""
    return torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device)
