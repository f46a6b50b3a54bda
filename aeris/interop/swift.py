"""The Swift network: window attention on patches, normalised after each layer, told the length of the step (arXiv 2509.25631).

A Swin transformer of the second kind (arXiv 2111.09883) that predicts the TrigFlow velocity of a standardised residual: cosine attention
with a learned sharpness of every head, layer normalisation after attention and after SwiGLU, scaled and shifted by the diffusion time, a
learned field of positions, and patches of several pixels. The partition shifts in every second block, round the globe in both
directions and without a mask. Patches keep the quadrant order of pixels (`aeris.model.quadrants`), so that it is sharded like any other
window transformer (`aeris.swipe`).

Shapes:
    B  sample            R  window row         K  window column
    Q  quadrant (4)      P  patch of a quadrant, or its pixels where channels are those of pixels
    I  input channel: noisy target, state, forcings at the state's time
    C  state channel     D  width              F  time feature (sinusoid)
    N  attention head    E  width of a head
"""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aeris.data.variables import RADIATION, STATIC
from aeris.errors import ConfigurationError
from aeris.model.layers import Linear, SwiGLU, WindowAttention, modulate, time_features
from aeris.model.quadrants import shift, unshift

SHARPEST = math.log(100.0)
"""Largest logarithm of a head's sharpness."""


@dataclass(frozen=True)
class SwiftConfig:
    """The network's dimensions. It checks itself when it is made.

    Attributes:
        grid: Rows and columns of pixels.
        channels: Names of the predicted channels.
        forcings: Names of the given fields; radiation is that of the state's time alone.
        dim: Width of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        window: Rows and columns of a window, in pixels.
        patch: Rows and columns of a patch, in pixels.
        interval_hours: Length of the step that the network is told; None where it knows one length only.
        time_scale: Factor on the diffusion time before its sinusoids.
    """

    grid: tuple[int, int]
    channels: tuple[str, ...]
    forcings: tuple[str, ...] = (RADIATION, *STATIC)
    dim: int = 1056
    depth: int = 12
    heads: int = 12
    window: tuple[int, int] = (32, 32)
    patch: tuple[int, int] = (2, 2)
    interval_hours: float | None = 6.0
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("grid", "channels", "forcings", "window", "patch"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.dim % (2 * self.heads):
            raise ConfigurationError(f"heads={self.heads} with dim={self.dim}", "Heads divide the width evenly", "Use for example heads=12")
        for size, window, patch in zip(self.grid, self.window, self.patch, strict=True):
            if size % window or window % (2 * patch):
                raise ConfigurationError(
                    f"window={self.window} of patches={self.patch} on a grid of {self.grid}",
                    "Windows divide the grid, and patches divide the halves of windows",
                    "Use for example windows of 32 pixels and patches of 2 on 128×256",
                )

    @property
    def intervals(self) -> tuple[int, ...]:
        """Lengths of step to choose from: none, the one is set."""
        return ()

    @property
    def mlp(self) -> int:
        """Hidden width of the feed-forward network."""
        return int(8 / 3 * self.dim)

    @property
    def inputs(self) -> int:
        """Number of input channels of a pixel: the noisy target, the state and the forcings."""
        return 2 * len(self.channels) + len(self.forcings)

    @property
    def patch_area(self) -> int:
        """Pixels of a patch."""
        return self.patch[0] * self.patch[1]

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.grid[0] // self.patch[0], self.grid[1] // self.patch[1]

    @property
    def patch_window(self) -> tuple[int, int]:
        """Rows and columns of a window, in patches."""
        return self.window[0] // self.patch[0], self.window[1] // self.patch[1]

    @property
    def grain(self) -> int:
        """Pixels of a quadrant that ranks do not part: a row of patches."""
        return self.patch[0] * self.window[1] // 2

    def shifted(self, block: int) -> bool:
        """Whether a block works on the shifted partition."""
        return block % 2 == 1


class Patches:
    """Pixels of quadrants to patches and back.

    Args:
        config: The network's dimensions.
    """

    def __init__(self, config: SwiftConfig) -> None:
        self.patch, self.columns = config.patch, config.window[1] // 2

    def gather(self, x_BRKQPI: Tensor) -> Tensor:
        """Pixels to patches, whose channels are those of its pixels, row by row."""
        high, wide = self.patch
        cut = x_BRKQPI.unflatten(4, (-1, high, self.columns // wide, wide))
        return cut.transpose(5, 6).flatten(6).flatten(4, 5)

    def spread(self, x_BRKQPC: Tensor) -> Tensor:
        """Inverse of :meth:`gather`."""
        high, wide = self.patch
        cut = x_BRKQPC.unflatten(4, (-1, self.columns // wide)).unflatten(6, (high, wide, -1))
        return cut.transpose(5, 6).flatten(4, 7)


class Embedding(nn.Module):
    """Pixels to patches of the width, with a learned vector for every place."""

    position: Tensor

    def __init__(self, config: SwiftConfig) -> None:
        super().__init__()
        self.project = Linear(config.inputs * config.patch_area, config.dim)
        rows, columns = (size // side for size, side in zip(config.grid, config.window, strict=True))
        quadrant = config.patch_window[0] * config.patch_window[1] // 4
        self.register_buffer("position", torch.zeros(rows, columns, 4, quadrant, config.dim))
        self.patches = Patches(config)

    def forward(self, x_BRKQPI: Tensor) -> Tensor:
        """Projects the channels of each patch and adds its place."""
        x = self.project(self.patches.gather(x_BRKQPI))
        return x + self.position.to(x.dtype)


class CosineAttention(WindowAttention):
    """Window attention by the cosine between queries and keys, sharpened for each head by a learned factor of at most 100."""

    def __init__(self, dim: int, heads: int, window: tuple[int, int]) -> None:
        super().__init__(dim, heads, window, rope=False)
        self.sharpness = nn.Parameter(torch.full((heads,), math.log(10.0)))

    def mix(self, qkv_BRKT3NE: Tensor, seam: tuple[bool, bool], heads: slice) -> Tensor:
        """As in `WindowAttention`; no window has a seam."""
        q, k, v = qkv_BRKT3NE.unbind(4)
        # What follows divides by the root of the head's width, which is taken back here.
        factor = self.sharpness[heads].clamp(max=SHARPEST).exp() * q.shape[-1] ** 0.5
        q = F.normalize(q, dim=-1) * factor[:, None].to(q.dtype)
        return super().mix(torch.stack([q, F.normalize(k, dim=-1), v], dim=4), (False, False), heads)


class ModulatedNorm(nn.Module):
    """Layer normalisation, in at least float32, whose result the diffusion time scales and shifts."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.modulation = Linear(dim, 2 * dim)

    def forward(self, x_BRKQPD: Tensor, time_BD: Tensor) -> Tensor:
        """Normalises the last axis."""
        scale, shift_ = self.modulation(time_BD)[:, None, None, None, None].chunk(2, dim=-1)
        wide = x_BRKQPD if x_BRKQPD.dtype == torch.float64 else x_BRKQPD.float()
        return modulate(self.norm(wide).to(x_BRKQPD.dtype), shift_, scale)


class Block(nn.Module):
    """Cosine attention and SwiGLU, each normalised before it is added."""

    def __init__(self, config: SwiftConfig) -> None:
        super().__init__()
        self.attention = CosineAttention(config.dim, config.heads, config.patch_window)
        self.norm_attention = ModulatedNorm(config.dim)
        self.mlp = SwiGLU(config.dim, config.mlp)
        self.norm_mlp = ModulatedNorm(config.dim)

    def forward(self, x_BRKQPD: Tensor, time_BD: Tensor, seam: tuple[bool, bool]) -> Tensor:
        """Applies the block to patches that are dealt to its windows."""
        x_BRKQPD = x_BRKQPD + self.norm_attention(self.attention(x_BRKQPD), time_BD)
        return x_BRKQPD + self.norm_mlp(self.mlp(x_BRKQPD), time_BD)


class TimeNetwork(nn.Module):
    """What all blocks share: two layers on sinusoids of the diffusion time, to which the length of the step is added."""

    def __init__(self, config: SwiftConfig) -> None:
        super().__init__()
        self.interval = None if config.interval_hours is None else Linear(1, config.dim)
        self.hidden = Linear(config.dim, config.dim)
        self.out = Linear(config.dim, config.dim)

    def forward(self, time_BF: Tensor, hours: float | None) -> Tensor:
        """Maps sinusoids; the length of the step enters in tens of hours."""
        if self.interval is not None and hours is not None:
            time_BF = time_BF + self.interval(time_BF.new_tensor([[hours / 10]]))
        return F.silu(self.out(F.silu(self.hidden(time_BF))))


class SwiftNetwork(nn.Module):
    """The whole network.

    Args:
        config: Its dimensions.
        blocks: Blocks to build; the others are left out. None builds all.

    Attributes:
        compute_dtype: Dtype of the activations between embedding and head; parameters stay float32.
    """

    token_fields = ("embedding.position",)

    def __init__(self, config: SwiftConfig, blocks: Container[int] | None = None) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.embedding = Embedding(config)
        self.time = TimeNetwork(config)
        self.blocks = nn.ModuleList(Block(config) if blocks is None or index in blocks else nn.Identity() for index in range(config.depth))
        self.head = Linear(config.dim, len(config.channels) * config.patch_area, bias=False)

    @property
    def width(self) -> int:
        """Width of a token."""
        return self.config.dim

    @property
    def tokens_per_pixel(self) -> float:
        """A patch is one token."""
        return 1 / self.config.patch_area

    def forward(self, noisy_BRKQPC: Tensor, condition_BRKQPI: Tensor, t_B: Tensor, interval_B: Tensor | None = None) -> Tensor:
        """Predicts the velocity.

        Args:
            noisy_BRKQPC: Noisy standardised residual x_t.
            condition_BRKQPI: Standardised state, radiation, static fields and, where there is radiation, that of the target time.
            t_B: Diffusion angle in radians, [0, π/2].
            interval_B: Not looked at: the length of the step is that of the configuration.

        Returns:
            Velocity F of TrigFlow, ``(B, R, K, Q, P, C)``, in the dtype of the input.
        """
        context = self.context(t_B)
        x, at_shifted = self.embed(noisy_BRKQPC, condition_BRKQPI), False
        for index, block in enumerate(self.blocks):
            if self.config.shifted(index) != at_shifted:
                x, at_shifted = unshift(x) if at_shifted else shift(x), not at_shifted
            x = block(x, context, (at_shifted, False))
        return self.read_out(unshift(x) if at_shifted else x, context)

    def context(self, t_B: Tensor, interval_B: Tensor | None = None) -> Tensor:
        """What blocks share of the diffusion time and the length of the step."""
        return self.time(time_features(t_B * self.config.time_scale, self.config.dim), self.config.interval_hours)

    def embed(self, noisy_BRKQPC: Tensor, condition_BRKQPI: Tensor) -> Tensor:
        """Inputs to patches of the computing dtype; radiation at the target time is not told."""
        given = len(self.config.channels) + len(self.config.forcings)
        x = self.embedding(torch.cat([noisy_BRKQPC, condition_BRKQPI[..., :given]], dim=-1))
        return x.to(self.compute_dtype if x.dtype == torch.float32 else x.dtype)

    def read_out(self, x_BRKQPD: Tensor, context: Tensor) -> Tensor:
        """Patches to the velocity, in at least float32."""
        return self.embedding.patches.spread(self.head(x_BRKQPD if x_BRKQPD.dtype == torch.float64 else x_BRKQPD.float()))

    def compile_blocks(self) -> None:
        """Compiles each block for itself."""
        for block in self.blocks:
            block.compile(dynamic=False)
