"""The TrigFlow interpolant, its velocity target and the weighted loss, with data of unit deviation (σ_d = 1).

x_t = cos t · x_0 + sin t · z for an angle t in [0, π/2] (Lu & Song, arXiv 2410.11081). The network predicts the velocity
v_t = dx_t/dt = cos t · z − sin t · x_0; the probability-flow ordinary differential equation is dx/dt = F(x, t).

Shapes:
    B  sample            ... token axes          C  channel
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""F(x, t): noisy samples ``(B, ...)`` and angles ``(B,)`` to velocities ``(B, ...)``."""


def angle(uniform: Tensor, noise: tuple[float, float]) -> Tensor:
    """Diffusion angle whose tangent is log-uniform between the two ends of `noise`."""
    low, high = math.log(noise[0]), math.log(noise[1])
    return torch.atan(torch.exp(low + uniform * (high - low)))


def interpolate(x0: Tensor, z: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy sample x_t and velocity target v_t."""
    t = expand(t_B, x0)
    return t.cos() * x0 + t.sin() * z, t.cos() * z - t.sin() * x0


def denoise(x_t: Tensor, velocity: Tensor, t_B: Tensor) -> Tensor:
    """Estimate of the clean sample, cos t · x_t − sin t · F."""
    t = expand(t_B, x_t)
    return t.cos() * x_t - t.sin() * velocity


def weighted_loss(velocity: Tensor, target: Tensor, weight: Tensor, terms: int) -> Tensor:
    """Σ w · (F − v)² over a fixed number of terms, the sum over channels included in w.

    The denominator counts the whole batch and globe, whichever part of them is here, so that losses and gradients of parts
    add up to the true mean.

    Args:
        velocity: Prediction ``(B, ..., C)``.
        target: Its target.
        weight: Latitude weight · channel weight · mask, ``(..., C)``.
        terms: Images of the whole batch times pixels of the whole grid.
    """
    return (weight * (velocity - target).square()).sum() / terms


def expand(t_B: Tensor, like: Tensor) -> Tensor:
    """Adds axes to per-sample numbers so that they broadcast over `like`."""
    return t_B.view(-1, *(1,) * (like.dim() - 1))
