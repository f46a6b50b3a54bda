"""Continuous-time consistency models in TrigFlow (Lu & Song, arXiv 2410.11081; for weather Swift, arXiv 2509.25631).

A consistency model jumps from any point of a path of the probability flow to its end: f(x, t) = cos t · x − sin t · F(x, t), which is
`trigflow.denoise`. Being the same all along a path, it has df/dt = 0 there, and with dF/dt = ∇F · dx/dt + ∂F/∂t

    cos t · df/dt = −cos² t · (F − dx/dt) − cos t sin t · (x + dF/dt).

This *tangent* g, with F held fixed, is where F should go: the loss is (F − F⁻ − g)². Its path may be that of a trained diffusion model
(distillation), or the straight one between sample and noise (training), which has the same mean.

Shapes:
    B  sample            ... token axes          C  channel
"""

from __future__ import annotations

import torch
from torch import Tensor

from aeris.diffusion.trigflow import expand


def slowness(t: Tensor) -> Tensor:
    """cos t sin t, the speed along a path at which the derivative of F stays finite near pure noise."""
    return t.cos() * t.sin()


def tangent(x_t: Tensor, velocity: Tensor, predicted: Tensor, derivative: Tensor, t_B: Tensor, warmth: float) -> Tensor:
    """The tangent g of the consistency function, times cos t (arXiv 2410.11081, algorithm 1).

    Args:
        x_t: Noisy samples.
        velocity: dx/dt there.
        predicted: F there.
        derivative: dF/dt there times :func:`slowness`.
        t_B: The angles.
        warmth: Share of the second term, which grows from 0 to 1 as the network settles; at 0 the target is the velocity itself.
    """
    t = expand(t_B, x_t)
    return -t.cos().square() * (predicted - velocity) - warmth * (slowness(t) * x_t + derivative)


def sum_of_squares(tangent_: Tensor) -> Tensor:
    """Of each sample, as far as it is here, ``(B,)`` in float64."""
    return tangent_.square().flatten(1).sum(1, dtype=torch.float64)


def normalised(tangent_: Tensor, mean_square_B: Tensor, constant: float) -> Tensor:
    """The tangent over its root mean square and a constant: g / (RMS(g) + c), so that no noise level outweighs the others.

    Args:
        tangent_: The tangent.
        mean_square_B: Mean of its squares over all tokens and channels of a whole sample.
        constant: c, 0.1 in the paper.
    """
    return tangent_ / expand((mean_square_B.sqrt() + constant).to(tangent_.dtype), tangent_)
