"""The AERIS network: a Swin transformer on pixels that predicts the TrigFlow velocity of a standardised residual.

Constant resolution, one token a pixel: embedding, blocks, head (arXiv 2509.13523, architecture figure). The network knows
neither parallelism nor physics; its input and output are tokens in quadrant order (`aeris.model.quadrants`).

Shapes:
    B  sample            R  window row         K  window column
    Q  quadrant (4)      P  pixel of a quadrant
    I  input channel: noisy target, state, radiation, static fields, radiation at the target time
    C  state channel     D  width            F  time feature (sinusoid)
"""

from __future__ import annotations

import hashlib
from collections.abc import Container
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aeris.errors import ConfigurationError
from aeris.model.config import ModelConfig
from aeris.model.layers import Linear, RMSNorm, SwiGLU, TimeMLP, WindowAttention, modulate, time_features
from aeris.model.quadrants import shift, to_tokens, unshift

TIME_SPREAD = 5.0
"""Initial deviation of the hidden layer of a time network.

The sinusoids of an angle in [0, π/2] hardly differ from each other, so that small weights leave the network almost blind to the
noise level for hundreds of steps.
"""


def position_field(grid: tuple[int, int], channels: int, window: tuple[int, int], rows: tuple[int, int] = (0, 1)) -> Tensor:
    """Fixed sine and cosine waves of the pixel's row (first half of the channels) and column (second half).

    Added to the input channels before the embedding (AERIS; frequencies 10000^(−2k/width), sines and cosines interleaved).

    Args:
        grid: Rows and columns of pixels.
        channels: Number of input channels.
        window: Rows and columns of a window.
        rows: Number of the first row, and the step from one row to the next.

    Returns:
        Float32 ``(R, K, Q, P, channels)``.
    """
    width = 2 * ((channels + 3) // 4)
    frequency = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)

    def waves(count: int, first: int = 0, step: int = 1) -> Tensor:
        angle = (first + step * torch.arange(count, dtype=torch.float64))[:, None] * frequency
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)

    down = waves(grid[0], *rows)[:, None].expand(*grid, width)
    along = waves(grid[1])[None].expand(*grid, width)
    field = torch.cat([down, along], dim=-1)[..., :channels]
    return to_tokens(field.permute(2, 0, 1)[None], window)[0].float()


class Context(NamedTuple):
    """What all of the network shares of the diffusion time and of the length of the step.

    Attributes:
        blocks: Input of the blocks' time networks: features, or the hidden layer that all blocks share, ``(B, F or D)``.
        head: Features for the head, ``(B, F)``.
    """

    blocks: Tensor
    head: Tensor


class Embedding(nn.Module):
    """Input channels to tokens, in float32 (float64 for a float64 input)."""

    position: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.project = Linear(config.inputs, config.dim)
        field = position_field(config.grid, config.inputs, config.window, config.position_rows)
        self.register_buffer("position", field, persistent=False)

    def forward(self, x_BRKQPI: Tensor) -> Tensor:
        """Adds the position field and projects to the width."""
        return self.project(x_BRKQPI + self.position.to(x_BRKQPI.dtype))


class Block(nn.Module):
    """One Swin block: window attention and SwiGLU, each normalised, modulated by the diffusion time, and gated."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.modulate_first = config.norm_order == "modulate_norm"
        self.split_poles = config.polar == "split"
        self.time = TimeMLP(config.dim, config.dim if config.time_mlp == "block" else None, config.dim, 6)
        self.norm_attention = RMSNorm(config.dim, config.norm_eps)
        self.attention = WindowAttention(config.dim, config.heads, config.window, config.rope)
        self.norm_mlp = RMSNorm(config.dim, config.norm_eps)
        self.mlp = SwiGLU(config.dim, config.mlp)

    def forward(self, x_BRKQPD: Tensor, context: Context, seam: tuple[bool, bool]) -> Tensor:
        """Applies the block.

        Args:
            x_BRKQPD: Tokens, dealt to the windows that this block uses.
            context: What all blocks share of the diffusion time.
            seam: Whether the last row of these windows joins the poles; columns go round the globe without a seam.
        """
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (vector.to(x_BRKQPD.dtype) for vector in self.time(context.blocks))
        polar_row = seam[0] and self.split_poles
        x_BRKQPD = x_BRKQPD + gate_a * self.attention(self._condition(x_BRKQPD, self.norm_attention, shift_a, scale_a), polar_row)
        return x_BRKQPD + gate_m * self.mlp(self._condition(x_BRKQPD, self.norm_mlp, shift_m, scale_m))

    def _condition(self, x: Tensor, norm: RMSNorm, shift_: Tensor, scale: Tensor) -> Tensor:
        if self.modulate_first:
            return norm(modulate(x, shift_, scale))
        return modulate(norm(x), shift_, scale)


class Head(nn.Module):
    """Tokens to the velocity of the state channels, in float32 (float64 for a float64 input)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.time = TimeMLP(config.time_features, config.time_features, config.dim, 2)
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.project = Linear(config.dim, len(config.channels), bias=False)

    def forward(self, x_BRKQPD: Tensor, time_BF: Tensor) -> Tensor:
        """Normalises, modulates by features of the diffusion time and projects."""
        shift_, scale = self.time(time_BF)
        return self.project(modulate(self.norm(x_BRKQPD), shift_, scale))


class Network(nn.Module):
    """The whole network.

    Args:
        config: Its dimensions, with the channels named.
        seed: Seed of the initial weights.
        blocks: Blocks to build; the others are left out. None builds all.

    Attributes:
        compute_dtype: Dtype of the activations between embedding and head; parameters stay float32.
    """

    token_fields = ("embedding.position",)
    """Buffers with axes R, K, Q, P in front, of which a rank needs its own tokens."""
    tokens_per_pixel = 1

    def __init__(self, config: ModelConfig, seed: int = 0, blocks: Container[int] | None = None) -> None:
        super().__init__()
        if not config.channels:
            raise ConfigurationError(
                "The model has no channels", "A network is built for named channels", "Set channels, for example state_channels()"
            )
        self.config = config
        self.compute_dtype = torch.float32
        self.embedding = Embedding(config)
        self.time = Linear(config.time_features, config.dim) if config.time_mlp == "shared" else None
        self.interval = Linear(1, config.time_features, bias=False) if config.intervals else None
        self.blocks = nn.ModuleList(Block(config) if blocks is None or index in blocks else nn.Identity() for index in range(config.depth))
        self.head = Head(config)
        initialise(self, seed)

    @property
    def width(self) -> int:
        """Width of a token."""
        return self.config.dim

    def forward(self, noisy_BRKQPC: Tensor, condition_BRKQPI: Tensor, t_B: Tensor, interval_B: Tensor | None = None) -> Tensor:
        """Predicts the velocity.

        Args:
            noisy_BRKQPC: Noisy standardised residual x_t.
            condition_BRKQPI: Standardised state, radiation, static fields and radiation at the target time.
            t_B: Diffusion angle in radians, [0, π/2].
            interval_B: Length of each sample's step in hours; None is the first of the network's.

        Returns:
            Velocity F of TrigFlow, ``(B, R, K, Q, P, C)``, in the dtype of the input.
        """
        context = self.context(t_B, interval_B)
        return self.read_out(self.run_blocks(self.embed(noisy_BRKQPC, condition_BRKQPI), context), context)

    def context(self, t_B: Tensor, interval_B: Tensor | None = None) -> Context:
        """What blocks and head share of the diffusion time and of the length of the step.

        The logarithm of the length over the first one's moves the features of the diffusion time along a learned direction, which starts
        at zero. So the first length is that of a network of one length, and every block and the head learn what the others are.
        """
        time_BF = time_features(t_B, self.config.time_features)
        if self.interval is not None and interval_B is not None:
            time_BF = time_BF + self.interval((interval_B / self.config.intervals[0]).log()[:, None])
        return Context(time_BF if self.time is None else self.time(time_BF), time_BF)

    def embed(self, noisy_BRKQPC: Tensor, condition_BRKQPI: Tensor) -> Tensor:
        """Inputs to tokens of the computing dtype."""
        x = self.embedding(torch.cat([noisy_BRKQPC, condition_BRKQPI], dim=-1))
        return x.to(self.compute_dtype if x.dtype == torch.float32 else x.dtype)

    def read_out(self, x_BRKQPD: Tensor, context: Context) -> Tensor:
        """Tokens to the velocity, in at least float32."""
        return self.head(x_BRKQPD if x_BRKQPD.dtype == torch.float64 else x_BRKQPD.float(), context.head)

    def compile_blocks(self) -> None:
        """Compiles each block for itself: all of one kind share what was compiled, and the whole takes a fraction of the time."""
        for block in self.blocks:
            block.compile(dynamic=False)

    def run_blocks(self, x_BRKQPD: Tensor, context: Context) -> Tensor:
        """Runs the blocks, dealing the quadrants anew wherever the partition changes."""
        at_shifted = False
        for index, block in enumerate(self.blocks):
            if self.config.shifted(index) != at_shifted:
                x_BRKQPD = unshift(x_BRKQPD) if at_shifted else shift(x_BRKQPD)
                at_shifted = not at_shifted
            x_BRKQPD = block(x_BRKQPD, context, (at_shifted, False))
        return unshift(x_BRKQPD) if at_shifted else x_BRKQPD


@torch.no_grad()
def initialise(network: nn.Module, seed: int, prefix: str = "") -> None:
    """Draws initial weights, each from the seed and its own name, so that any part of the network can be made alone.

    Truncated normal with deviation sqrt(2 / 5 dim) ("Spike No More", arXiv 2312.16903), output projections divided by
    sqrt(2 depth), embedding 0.3 as in AERIS. Modulation starts at shift 0, scale 0, gate 1; the head and what the length of the step
    does start at zero. So the first step moves the head, every later step all weights. (Zero output projections together with
    zero gates would never move.)

    Args:
        network: The network, or a part of it that holds the same parameters.
        seed: Seed of the weights.
        prefix: Name of the part in the whole network, for example ``"blocks.3."``.
    """
    config: ModelConfig = network.config  # type: ignore[assignment]
    for name, parameter in network.named_parameters():
        if parameter.device.type == "meta":
            continue
        name = prefix + name
        if name.endswith("time.out.bias"):
            _start_modulation(parameter, config.dim)
        elif parameter.dim() == 1:
            parameter.fill_(1.0 if "norm" in name else 0.0)
        else:
            _draw(parameter, _deviation(name, config), f"{seed}/{name}")


def _start_modulation(bias: Tensor, dim: int) -> None:
    """Shift 0, scale 0, gate 1 for each sub-layer; the head has no gate."""
    bias.zero_()
    if len(bias) == 6 * dim:
        bias.view(6, dim)[[2, 5]] = 1.0


def _deviation(name: str, config: ModelConfig) -> float:
    """Standard deviation of a weight matrix."""
    base = (2 / (5 * config.dim)) ** 0.5
    if name in ("head.project.weight", "interval.weight") or name.endswith("time.out.weight"):
        return 0.0
    if name == "embedding.project.weight":
        return 0.3
    if name.endswith("time.hidden.weight") or name == "time.weight":
        return TIME_SPREAD / (config.time_features / 2) ** 0.5
    if name.endswith(("attention.out.weight", "mlp.out.weight")):
        return base / (2 * config.depth) ** 0.5
    return base


def _draw(weight: Tensor, deviation: float, key: str) -> None:
    """Fills a weight with truncated normals that depend on `key` alone."""
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "big"))
    drawn = torch.empty(weight.shape)
    nn.init.trunc_normal_(drawn, std=1.0, a=-3.0, b=3.0, generator=generator)
    weight.copy_(drawn * deviation)
