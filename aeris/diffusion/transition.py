"""One interval of the weather: the network calls that lead from physical states to the next ones.

Shapes:
    M  member or sample of a batch      C  state channel      I  conditioning channel
    R, K, Q, P  window row, window column, quadrant, pixel of a quadrant: the order of all states here
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
from torch import Tensor

from aeris.diffusion import solver
from aeris.model.fields import Fields
from aeris.model.presets import SamplingRecipe

Draw = Callable[..., Tensor]
"""Standard normal noise ``(M, R, K, Q, P, C)`` for a purpose and further integers that name it."""


def transition(
    fields: Fields, states: Tensor, times: np.ndarray, interval: np.timedelta64, recipe: SamplingRecipe, draw: Draw
) -> Generator[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Draws the states that follow.

    A generator that yields noisy residuals and conditions, the network's inputs at the angles of `solver.calls`, receives
    velocities, and returns the next states. It is differentiable in states and velocities.

    Args:
        fields: From physical states to tokens.
        states: Physical states, tokens ``(M, R, K, Q, P, C)``.
        times: Their times, datetime64 ``(M,)``.
        interval: Time to the next ones.
        recipe: The sampler.
        draw: Makes its noise.
    """

    def noise(purpose: str, *place: int) -> Tensor:
        return fields.masked(recipe.inflation * draw(purpose, *place))

    condition = fields.condition(states, times, times + interval)
    again = "second noise" if recipe.solver == "consistency" else "churn"
    following = solver.sampler(noise("sampling noise"), recipe, lambda number: noise(again, number))
    try:
        x, _ = next(following)
        while True:
            velocity = yield x, condition
            x, _ = following.send(fields.masked(velocity))
    except StopIteration as end:
        residual: Tensor = end.value
        return fields.next_state(states, residual, interval)
