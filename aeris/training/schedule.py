"""The step size as a function of the images seen: warm-up, constant, linear ramp-down."""

from __future__ import annotations

from aeris.model.presets import TrainingRecipe

RAMPDOWN = 0.4
"""Part of a run over which the step size falls, unless the recipe gives a number of images."""


def learning_rate(recipe: TrainingRecipe, images: int, total: int) -> float:
    """Step size for the batch that brings the count of images seen to `images`.

    Rises linearly from 1 % over the warm-up, stays, and falls linearly to zero over the last images of the run, beyond which it stays
    zero.

    Args:
        recipe: Largest step size, length of warm-up and ramp-down.
        images: Images seen after this step.
        total: Images of the whole run.
    """
    warmup = min(recipe.warmup_images, total // 4)
    rampdown = total * RAMPDOWN if recipe.rampdown_images is None else recipe.rampdown_images
    rampdown = min(rampdown, total - warmup)
    rise = 0.01 + 0.99 * min(1.0, images / warmup) if warmup else 1.0
    fall = min(1.0, max(0.0, total - images) / rampdown) if rampdown else 1.0
    return recipe.learning_rate * rise * fall
