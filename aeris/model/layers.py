"""The pieces of a block: normalisation, modulation by diffusion time, rotary window attention, SwiGLU.

Parameters are float32 and are cast to the dtype of the activations where they are used, so that one set of weights serves
float64 tests, float32 and bfloat16.

Shapes:
    B  sample            R  window row         K  window column
    Q  quadrant (4)      P  pixel of a quadrant
    D  width             N  attention head     E  width of a head
    F  time feature
    T  tokens that attend to each other: Q·P, or Q·P/2 at the poles
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aeris.model.quadrants import to_tokens


class Linear(nn.Linear):
    """A linear map computed in the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps the last axis of `x`."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a gain, computed in at least float32."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Divides the last axis by its root mean square."""
        wide = x if x.dtype == torch.float64 else x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale * self.weight).to(x.dtype)


def time_features(t_B: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoids of the diffusion time.

    Args:
        t_B: Diffusion angle in radians, [0, π/2].
        dim: Even number of features.
        max_period: Longest period in radians, over 2π.

    Returns:
        ``(B, dim)``: sines, then cosines (the order of EDM).
    """
    half = dim // 2
    frequency = torch.exp(-math.log(max_period) * torch.arange(half, device=t_B.device, dtype=t_B.dtype) / half)
    angle = t_B[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class TimeMLP(nn.Module):
    """Vectors that modulate a layer, from the diffusion time: Linear, SiLU, Linear.

    Args:
        features: Width of the time features that it receives.
        hidden: Width of its own hidden layer; None where the features come from a hidden layer shared by all blocks.
        dim: Width of the vectors.
        vectors: How many vectors it makes.
    """

    def __init__(self, features: int, hidden: int | None, dim: int, vectors: int) -> None:
        super().__init__()
        self.vectors = vectors
        self.hidden = None if hidden is None else Linear(features, hidden)
        self.out = Linear(hidden or features, vectors * dim)

    def forward(self, time_BF: Tensor) -> tuple[Tensor, ...]:
        """Returns `vectors` tensors ``(B, 1, 1, 1, 1, D)`` that broadcast over tokens."""
        if self.hidden is not None:
            time_BF = self.hidden(time_BF)
        return self.out(F.silu(time_BF))[:, None, None, None, None].chunk(self.vectors, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x·(1 + scale) + shift, in the dtype of `x`."""
    return torch.addcmul(shift.to(x.dtype), x, 1 + scale.to(x.dtype))


def rotary_table(window: tuple[int, int], head_dim: int, base: float = 10_000.0) -> Tensor:
    """Cosines and sines of the two-dimensional rotary embedding of a window, in quadrant order.

    The first half of a head turns with the column, the second with the row; neighbouring entries form the pairs that turn
    (AERIS; RoFormer, arXiv 2104.09864).

    Args:
        window: Rows and columns of a window.
        head_dim: Width of a head, a multiple of 4.
        base: Ratio of the slowest wavelength to the fastest.

    Returns:
        Float32 ``(2, T, head_dim / 2)``: cosines, sines.
    """
    pairs = head_dim // 4
    frequency = base ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    rows, columns = torch.meshgrid(torch.arange(window[0]), torch.arange(window[1]), indexing="ij")
    angle = torch.cat([columns[..., None] * frequency, rows[..., None] * frequency], dim=-1)
    ordered = to_tokens(angle.permute(2, 0, 1)[None], window).reshape(-1, head_dim // 2)
    return torch.stack([ordered.cos(), ordered.sin()]).float()


def rotate(x_TNE: Tensor, table_2TF: Tensor) -> Tensor:
    """Turns neighbouring pairs of the last axis by the angles of a rotary table."""
    if x_TNE.device.type == "cpu" and x_TNE.dtype == table_2TF.dtype and not torch.compiler.is_compiling():
        # Eager, one complex product is four times faster than the strided real ones; inductor fuses those and knows no complex numbers.
        turn_T1F = torch.view_as_complex(table_2TF.movedim(0, -1).contiguous())[:, None, :]
        return torch.view_as_real(torch.view_as_complex(x_TNE.unflatten(-1, (-1, 2))) * turn_T1F).flatten(-2)
    cosine, sine = table_2TF.to(x_TNE.dtype)[:, :, None, :]
    even, odd = x_TNE[..., 0::2], x_TNE[..., 1::2]
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)


def attend(q_TE: Tensor, k_TE: Tensor, v_TE: Tensor) -> Tensor:
    """Softmax attention over the axis T of tensors ``(..., T, E)``.

    Two matrix products and a softmax on CPU, where the fused kernel's backward pass is several times slower for windows of
    this size; the fused kernel elsewhere.
    """
    if q_TE.device.type == "cpu":
        weights = torch.softmax((q_TE * q_TE.shape[-1] ** -0.5) @ k_TE.transpose(-1, -2), dim=-1)
        return weights @ v_TE
    return F.scaled_dot_product_attention(q_TE, k_TE, v_TE)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows of tokens in quadrant order.

    Args:
        dim: Width.
        heads: Number of heads.
        window: Rows and columns of a window.
        rope: Whether queries and keys carry the rotary embedding.
    """

    rotary: Tensor | None

    def __init__(self, dim: int, heads: int, window: tuple[int, int], rope: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.out = Linear(dim, dim, bias=False)
        self.register_buffer("rotary", rotary_table(window, dim // heads) if rope else None, persistent=False)

    def forward(self, x_BRKQPD: Tensor, polar_row: bool = False) -> Tensor:
        """Attends inside each window.

        Args:
            x_BRKQPD: Tokens.
            polar_row: Whether the last row of windows joins the far south (upper quadrants) with the far north (lower
                quadrants), which then attend only among themselves.
        """
        qkv = self.qkv(x_BRKQPD).unflatten(-1, (3, self.heads, -1)).flatten(3, 4)
        return self.out(self.mix(qkv, (polar_row, False), slice(0, self.heads)).view(x_BRKQPD.shape))

    def mix(self, qkv_BRKT3NE: Tensor, seam: tuple[bool, bool], heads: slice) -> Tensor:
        """Attention of some heads among the tokens of whole windows.

        Args:
            qkv_BRKT3NE: Queries, keys and values.
            seam: Whether the last row, and the last column, of windows holds what does not belong together.
            heads: Which heads these are; all are alike here.

        Returns:
            ``(B, R, K, T, N·E)``.
        """
        batch, rows, columns, tokens = qkv_BRKT3NE.shape[:4]
        q, k, v = qkv_BRKT3NE.unbind(4)
        if self.rotary is not None:
            q, k = rotate(q, self.rotary), rotate(k, self.rotary)
        if seam[0]:
            inner = self._windows(q[:, :-1], k[:, :-1], v[:, :-1], tokens)
            polar = self._windows(q[:, -1:], k[:, -1:], v[:, -1:], tokens // 2)
            return torch.cat([inner.view(batch, rows - 1, columns, tokens, -1), polar.view(batch, 1, columns, tokens, -1)], dim=1)
        return self._windows(q, k, v, tokens).view(batch, rows, columns, tokens, -1)

    def _windows(self, q: Tensor, k: Tensor, v: Tensor, tokens: int) -> Tensor:
        """Attention among each run of `tokens` tokens; returns ``(windows, tokens, D)``."""
        q, k, v = (part.reshape(-1, tokens, *part.shape[-2:]).transpose(1, 2) for part in (q, k, v))
        return attend(q, k, v).transpose(1, 2).flatten(-2)


class SwiGLU(nn.Module):
    """Gated feed-forward network, silu(gate)·up, without biases (arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = Linear(dim, 2 * hidden, bias=False)
        self.out = Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps the last axis of `x`."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * up)
