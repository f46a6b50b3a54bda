"""Operation and memory counts, from a configuration alone.

A multiply-add counts as two operations. ``paper`` follows the accounting of arXiv 2509.13523 (attention, feed-forward and
projections of the blocks, three times the forward pass); ``exact`` counts every matrix product that runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from aeris.model.config import ModelConfig


def parameters(config: ModelConfig) -> int:
    """Number of trainable parameters."""
    parts = config.parameters_by_part
    return config.depth * parts["block"] + parts["embedding"] + parts["head"] + parts["shared"]


def paper(config: ModelConfig) -> float:
    """Operations of one training sample as the paper counts them."""
    return config.operations


def exact(config: ModelConfig, training: bool = True) -> float:
    """Operations of all matrix products of one sample.

    Counts embedding, head and time networks too, and that split polar windows attend to half as many tokens. In training,
    every product has two more in the backward pass, except those whose input needs no gradient (the network's inputs).
    """
    forward, first = _forward(config)
    return 2.0 * (3 * forward - first if training else forward)


def _forward(config: ModelConfig) -> tuple[int, int]:
    """Multiply-adds of the forward pass, and those of products whose input needs no gradient."""
    dim, features, pixels = config.dim, config.time_features, prod(config.grid)
    time_layers = (config.depth if config.time_mlp == "block" else 1) * features * dim + features * features
    told = features if config.intervals else 0
    attention = 2 * prod(config.window) * dim * pixels
    polar = attention // config.window_grid[0] // 2 if config.polar == "split" else 0
    shifted = sum(config.shifted(index) for index in range(config.depth))
    block = (4 * dim * dim + 3 * dim * config.mlp) * pixels + attention + 6 * dim * dim
    head = 2 * features * dim + dim * len(config.channels) * pixels
    # The first layers see nothing learned, unless it is what a network of several intervals made of their length.
    first, later = (told, time_layers) if told else (time_layers, 0)
    without_gradient = config.inputs * dim * pixels + first
    return config.depth * block - shifted * polar + head + without_gradient + later, without_gradient


@dataclass(frozen=True)
class StateMemory:
    """Bytes that training keeps from step to step, all layers together.

    Attributes:
        weights: Float32 master weights.
        gradients: Float32 gradients.
        optimizer: The two float32 moments of AdamW.
        average: Float32 average of the weights.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.weights + self.gradients + self.optimizer + self.average


def state_memory(config: ModelConfig) -> StateMemory:
    """Memory of weights, gradients, optimizer and average before anything is sharded."""
    count = parameters(config)
    return StateMemory(weights=4 * count, gradients=4 * count, optimizer=8 * count, average=4 * count)
