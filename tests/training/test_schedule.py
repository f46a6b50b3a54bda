"""Schedule and average, in images."""

from __future__ import annotations

import math

import pytest

from aeris.model.presets import TrainingRecipe
from aeris.training import average
from aeris.training.schedule import learning_rate


def test_the_step_size_rises_stays_and_falls():
    recipe = TrainingRecipe(learning_rate=2.0, warmup_images=100, rampdown_images=200)
    rates = [learning_rate(recipe, images, 1000) for images in (0, 50, 100, 500, 800, 900, 1000)]
    assert rates == pytest.approx([0.02, 2 * 0.505, 2, 2, 2, 1, 0])


def test_beyond_the_end_of_a_run_it_is_zero():
    recipe = TrainingRecipe(learning_rate=2.0, warmup_images=100, rampdown_images=200)
    assert [learning_rate(recipe, images, 1000) for images in (1000, 1004, 9000)] == [0.0, 0.0, 0.0]


def test_without_a_rampdown_it_falls_over_the_last_two_fifths():
    recipe = TrainingRecipe(learning_rate=1.0, warmup_images=100, rampdown_images=None)
    assert [learning_rate(recipe, images, 1000) for images in (600, 800, 900)] == pytest.approx([1, 0.5, 0.25])


def test_a_short_run_keeps_three_quarters_for_training():
    assert learning_rate(TrainingRecipe(learning_rate=1.0, warmup_images=10_000), 10, 40) == pytest.approx(1.0)


def test_the_average_forgets_half_in_a_half_life():
    recipe = TrainingRecipe(ema_half_life_images=40, ema_rampup=1e9)
    kept = math.prod(average.decay(recipe, 4, 4 * (step + 1)) for step in range(10))
    assert kept == pytest.approx(0.5)


def test_a_young_average_forgets_faster():
    recipe = TrainingRecipe(ema_half_life_images=100_000, ema_rampup=0.05)
    assert average.decay(recipe, 4, 400) == pytest.approx(0.5 ** (4 / 20))
