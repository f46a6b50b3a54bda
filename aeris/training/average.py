"""An exponential average of the weights, its memory counted in images."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from aeris.model.presets import TrainingRecipe


def decay(recipe: TrainingRecipe, batch: int, images: int) -> float:
    """Factor by which the average remembers over one batch.

    0.5 to the power of batch / half-life, where the half-life grows with the images seen until it reaches the recipe's
    (AERIS: half-life 100 000 images, ramp 0.05).
    """
    half_life = min(recipe.ema_half_life_images, recipe.ema_rampup * images)
    return 0.5 ** (batch / max(half_life, 1e-8))


@torch.no_grad()
def update(average: Iterable[Tensor], weights: Iterable[Tensor], remember: float) -> None:
    """Moves the average towards the weights, in place."""
    torch._foreach_lerp_(list(average), list(weights), 1 - remember)
