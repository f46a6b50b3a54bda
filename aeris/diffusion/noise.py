"""Gaussian noise that is a function, not a state.

A normal number is a function of (seed, purpose, step or lead, sample or initial time, member, global pixel, channel): no order of
execution and no layout changes it, and no rank sends it. Everything but pixel and channel is hashed into a 64-bit key; pixel and
channel form the counter of Philox4x32-10 (Salmon et al. 2011, doi 10.1145/2063384.2063405), whose four integers become four
normals by the Box-Muller transform. The integers are the same on every machine, the normals on one kind of device.

Shapes:
    B  sample            ... token axes          C  channel
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
GOLDEN_RATIO = (5**0.5 - 1) / 2


def key(seed: int, purpose: str, *place: int) -> tuple[int, int]:
    """Two 32-bit words that name one field of noise.

    Args:
        seed: Seed of the run or forecast.
        purpose: What the noise is for, for example ``"sample"`` or ``"train"``.
        *place: Integers such as step, sample number, initial time, lead, member; their order is part of the name.
    """
    name = f"{seed}/{purpose}/" + "/".join(str(int(number)) for number in place)
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def integers(keys: Sequence[tuple[int, int]], counters: Tensor) -> Tensor:
    """Philox4x32-10 of counters ``(low, high, 0, 0)``.

    Args:
        keys: One key a sample.
        counters: int64 ``(2, ...)``: low and high 32-bit words.

    Returns:
        int64 ``(4, B, ...)`` with values in [0, 2³²).
    """
    shape = (len(keys),) + (1,) * (counters.dim() - 1)
    words = torch.tensor(keys, dtype=torch.int64, device=counters.device)
    k0, k1 = words[:, 0].view(shape), words[:, 1].view(shape)
    zero = torch.zeros_like(k0)
    c0, c1, c2, c3 = counters[0][None] + zero, counters[1][None] + zero, zero, zero
    for _ in range(ROUNDS):
        # The 64-bit product wraps into int64; masking after the arithmetic shift gives its unsigned upper word.
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((second >> 32) & _LOW) ^ c1 ^ k0, second & _LOW, ((first >> 32) & _LOW) ^ c3 ^ k1, first & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3))


def choice(key_: tuple[int, int], count: int) -> int:
    """One of the numbers from 0 to ``count - 1``, each as likely, the same on every machine.

    Args:
        key_: Decides which.
        count: How many there are.
    """
    first = integers([key_], torch.zeros(2, 1, dtype=torch.int64))[0, 0, 0]
    return int(first) * count >> 32


def normals(keys: Sequence[tuple[int, int]], pixels: Tensor, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal noise.

    Args:
        keys: One key a sample, from :func:`key`.
        pixels: int64 global pixel numbers in any order and shape ``(...)``.
        channels: Number of channels.
        dtype: Floating dtype of the result; also of the Box-Muller arithmetic.

    Returns:
        ``(B, ..., channels)``.
    """
    quads = -(-channels // 4)
    group = torch.arange(quads, device=pixels.device)
    low, high = torch.broadcast_tensors(pixels[..., None], group)
    bits = integers(keys, torch.stack([low, high]))
    return _box_muller(bits, dtype).movedim(0, -1).flatten(-2)[..., :channels]


def _box_muller(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Four uniform 32-bit integers to four normals, along the first axis."""
    unit = (bits.to(dtype) + 0.5) * 2.0**-32
    radius = torch.sqrt(-2.0 * torch.log(unit[0::2]))
    angle = 2.0 * math.pi * unit[1::2]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)])


def spread_evenly(key_: tuple[int, int], number: int) -> float:
    """One term of a sequence that fills (0, 1) evenly, the same on every machine.

    A uniform start and steps of the golden ratio, modulo one: any run of consecutive terms has its share everywhere, which lowers the
    variance of a loss over noise levels (Kingma et al. 2021, arXiv 2107.00630, draw them evenly within a batch).

    Args:
        key_: Decides the start.
        number: Number of the term, from 0.
    """
    first = integers([key_], torch.zeros(2, 1, dtype=torch.int64))[0, 0, 0]
    return ((int(first) + 0.5) * 2.0**-32 + number * GOLDEN_RATIO) % 1.0
