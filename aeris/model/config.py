"""The dimensions of a network, checked when they are set down; no torch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import prod
from typing import Literal

from aeris.data.variables import RADIATION, STATIC, VARIABLES, parse_channel
from aeris.errors import ConfigurationError

SHARED_TIME_FEATURES = 256


@dataclass(frozen=True)
class ModelConfig:
    """The network's dimensions. It checks itself when it is made.

    Attributes:
        grid: Rows and columns of pixels.
        channels: Names of the predicted channels; empty takes those of the training store.
        forcings: Names of the given fields; radiation enters twice, at the state's time and at the target's.
        dim: Width of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        mlp: Hidden width of the feed-forward network.
        window: Rows and columns of a window, both even.
        shift_every: Number of consecutive blocks that share a partition into windows.
        rope: Whether attention carries the rotary embedding; false for weights that were trained without it.
        norm_order: Whether a block normalises and then modulates (the paper's figure) or the other way round (the snapshot).
        polar: Whether the far south and the far north, neighbours in a shifted window, attend to each other.
        time_mlp: Whether every block owns both layers of its time network, or all blocks share the first.
        norm_eps: What the normalisation adds to a mean square.
        position_rows: Number of the first row in the position field, and the step from one row to the next; weights of others may
            count from a pole row that was dropped.
        intervals: Lengths in hours of the steps that the network can take, rising multiples of the first; empty is a network of one
            length, which it is not told.
    """

    grid: tuple[int, int]
    channels: tuple[str, ...] = ()
    forcings: tuple[str, ...] = (RADIATION, *STATIC)
    dim: int = 96
    depth: int = 4
    heads: int = 4
    mlp: int = 256
    window: tuple[int, int] = (8, 8)
    shift_every: int = 1
    rope: bool = True
    norm_order: Literal["norm_modulate", "modulate_norm"] = "norm_modulate"
    polar: Literal["split", "wrap"] = "split"
    time_mlp: Literal["block", "shared"] = "block"
    norm_eps: float = 1e-6
    position_rows: tuple[int, int] = (0, 1)
    intervals: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("grid", "channels", "forcings", "window", "position_rows", "intervals"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_sizes(self)
        _check_intervals(self)
        _check_windows(self)
        _check_fields(self)

    @property
    def window_grid(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        return self.grid[0] // self.window[0], self.grid[1] // self.window[1]

    @property
    def conditions(self) -> int:
        """Number of conditioning channels: the state, the forcings, and radiation once more."""
        return len(self.channels) + len(self.forcings) + (RADIATION in self.forcings)

    @property
    def inputs(self) -> int:
        """Number of input channels: the noisy target and the conditions."""
        return len(self.channels) + self.conditions

    @property
    def time_features(self) -> int:
        """Number of sinusoids of the diffusion time: the width, or 256 into a shared first layer."""
        return self.dim if self.time_mlp == "block" else SHARED_TIME_FEATURES

    def shifted(self, block: int) -> bool:
        """Whether a block works on the shifted partition."""
        return (block // self.shift_every) % 2 == 1

    @property
    def parameters_by_part(self) -> dict[str, int]:
        """Trainable parameters of a ``block``, the ``embedding``, the ``head``, and of what all blocks share (``shared``)."""
        dim, features = self.dim, self.time_features
        time_first = features * dim + dim
        own = self.time_mlp == "block"
        return {
            "block": 4 * dim * dim + 3 * dim * self.mlp + 2 * dim + 6 * (dim * dim + dim) + own * time_first,
            "embedding": self.inputs * dim + dim,
            "head": dim + features * (features + 1) + 2 * dim * (features + 1) + dim * len(self.channels),
            "shared": (not own) * time_first + features * bool(self.intervals),
        }

    @property
    def kept_bytes(self) -> int:
        """Bytes that a block keeps of a token for the backward pass, in bfloat16 with a fused attention kernel."""
        return 41 * self.dim + 8 * self.mlp

    @property
    def operations(self) -> float:
        """Operations of one training sample as the paper counts them (arXiv 2509.13523).

        Per token and block 4d² + 2·(window area)·d + 3·d·f multiply-adds; times 2 (multiply and add), times 3 (forward and
        backward), times blocks and pixels.
        """
        per_token = 4 * self.dim**2 + 2 * prod(self.window) * self.dim + 3 * self.dim * self.mlp
        return 2.0 * 3.0 * per_token * self.depth * prod(self.grid)


def _check_sizes(config: ModelConfig) -> None:
    for name in ("dim", "depth", "heads", "mlp", "shift_every"):
        if getattr(config, name) < 1:
            raise ConfigurationError(f"{name}={getattr(config, name)}", "Sizes of the network are at least 1", f"Use for example {name}=4")
    if config.dim % config.heads or (config.dim // config.heads) % 4:
        fits = [count for count in range(1, config.dim + 1) if config.dim % (4 * count) == 0]
        raise ConfigurationError(
            f"heads={config.heads} with dim={config.dim}",
            "Heads divide the width, and the width of a head is a multiple of 4 (two rotary axes of pairs)",
            f"For this width use one of heads={fits}" if fits else "Use a width that is a multiple of 4",
        )


def _check_intervals(config: ModelConfig) -> None:
    hours = config.intervals
    if hours and (len(hours) < 2 or hours[0] < 1 or any(b <= a or b % hours[0] for a, b in itertools.pairwise(hours))):
        raise ConfigurationError(
            f"intervals={hours}",
            "They are at least two lengths in hours, rising multiples of the first",
            "Use for example intervals=(6, 12, 24); leave them empty for a network of one length",
        )


def _check_windows(config: ModelConfig) -> None:
    for axis, size, window in zip(("rows", "columns"), config.grid, config.window, strict=True):
        if window < 2 or window % 2:
            raise ConfigurationError(
                f"window={config.window} has an odd or empty side",
                "A window is cut into four equal quadrants, so both sides are even",
                f"Use for example window={tuple(max(2, side + side % 2) for side in config.window)}",
            )
        if size % window:
            fits = [side for side in range(2, min(size, 64) + 1, 2) if size % side == 0]
            raise ConfigurationError(
                f"window={config.window} on a {config.grid[0]}×{config.grid[1]} grid",
                f"The window divides the grid, and {window} does not divide {size} {axis}",
                f"For {axis} use one of {fits}",
            )


def _check_fields(config: ModelConfig) -> None:
    for name in config.channels:
        if parse_channel(name).variable.kind != "state":
            raise ConfigurationError(f"channels hold {name!r}", "Only state variables are predicted", "Move it to forcings")
    given = [name for name, variable in VARIABLES.items() if variable.kind != "state"]
    for name in config.forcings:
        if name not in given:
            raise ConfigurationError(f"forcings hold {name!r}", "Only given fields can be forcings", f"Use some of {given}")
