"""Sequence-Window-Pipeline parallelism for window transformers, usable without the rest of the package.

A network takes part if its tokens are kept in quadrant order, ``(B, R, K, Q, P, D)`` (`aeris.model.quadrants`), and it has

* ``config`` with ``grid, window, depth, heads`` and ``shifted(block)``, and ``width``, ``compute_dtype``, ``tokens_per_pixel``,
* ``context(**given)``, which makes what all blocks share, ``embed(*inputs)`` and ``read_out(tokens, context)``, whose parameters are
  in modules named ``embedding`` and ``head``; any other module beside ``blocks`` is held by every stage,
* ``blocks``, called as ``block(tokens, context, seam)``, where `seam` says whether the last row and the last column of windows join
  opposite edges; all in a block works token by token but ``block.attention.mix(qkv, seam, heads)``, which mixes the tokens of whole
  windows, ``(B, R, K, T, 3, heads, width of a head)``, for the heads of a slice,
* ``token_fields``, the names of buffers that belong to tokens.

`aeris.model.network.Network` is one; tutorial 10 writes another and trains it on four ranks. ``docs/swipe.md`` explains what happens
to them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Coordinates": "layout",
    "Layout": "layout",
    "Groups": "groups",
    "Share": "tokens",
    "share": "tokens",
    "gather": "tokens",
    "join": "tokens",
    "Pass": "pipeline",
    "Pipeline": "pipeline",
    "WindowTransformer": "pipeline",
    "held_blocks": "pipeline",
    "parallelize": "pipeline",
    "Chain": "chain",
    "Stream": "stream",
    "Requests": "stream",
    "ShardedAdamW": "optimizer",
    "Update": "optimizer",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from aeris.swipe.chain import Chain
    from aeris.swipe.groups import Groups
    from aeris.swipe.layout import Coordinates, Layout
    from aeris.swipe.optimizer import ShardedAdamW, Update
    from aeris.swipe.pipeline import Pass, Pipeline, WindowTransformer, held_blocks, parallelize
    from aeris.swipe.stream import Requests, Stream
    from aeris.swipe.tokens import Share, gather, join, share


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'aeris.swipe' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"aeris.swipe.{_HOME[name]}"), name)
