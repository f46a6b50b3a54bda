"""Weight gradients that wait: what a zero-bubble schedule fills its gaps with.

Such schedules send the gradient of a stage's input on before they compute those of its weights (Qi et al., arXiv 2401.10241).
Splitting autograd's graph for that computes some parts twice where a parameter acts at several places of a block, as the
modulation by diffusion time does. Here linear maps, which hold nearly all of the weights' work, put their own gradient off.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Deferral:
    """Collects the weight gradients of all linear maps of a module until they are asked for.

    Args:
        module: Its linear maps are changed in place.
    """

    def __init__(self, module: nn.Module) -> None:
        self._waiting: list[Callable[[], None]] = []
        for linear in module.modules():
            if isinstance(linear, nn.Linear):
                linear.forward = partial(self._forward, linear)  # type: ignore[method-assign]

    def _forward(self, linear: nn.Linear, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return F.linear(x, linear.weight.to(x.dtype), None if linear.bias is None else linear.bias.to(x.dtype))
        y = _DeferredLinear.apply(x, linear.weight, self._waiting)
        return y if linear.bias is None else y + linear.bias.to(x.dtype)

    def take(self) -> Callable[[], None]:
        """A function that computes what has been put off since the last call."""
        waiting, self._waiting[:] = list(self._waiting), []

        def run() -> None:
            for gradient in waiting:
                gradient()

        return run


class _DeferredLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, waiting: list[Callable[[], None]]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.waiting = waiting
        return F.linear(x, weight.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        ctx.waiting.append(partial(_add_gradient, weight, gradient, x))
        return gradient @ weight.to(gradient.dtype), None, None


@torch.no_grad()
def _add_gradient(weight: Tensor, gradient: Tensor, x: Tensor) -> None:
    added = (gradient.flatten(0, -2).T @ x.flatten(0, -2)).to(weight.dtype)
    weight.grad = added if weight.grad is None else weight.grad.add_(added)
