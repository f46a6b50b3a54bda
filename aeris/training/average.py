"""An exponential average of the weights, its memory counted in images."""

from __future__ import annotations

from aeris.model.presets import TrainingRecipe


def decay(recipe: TrainingRecipe, batch: int, images: int) -> float:
    """Factor by which the average remembers over one batch.

    0.5 to the power of batch / half-life, where the half-life grows with the images seen until it reaches the recipe's
    (AERIS: half-life 100 000 images, ramp 0.05).
    """
    half_life = min(recipe.ema_half_life_images, recipe.ema_rampup * images)
    return 0.5 ** (batch / max(half_life, 1e-8))
