"""Sequence-Window-Pipeline parallelism for window transformers, usable without the rest of the package."""

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
    "Stream": "stream",
    "Requests": "stream",
    "ShardedAdamW": "optimizer",
    "Update": "optimizer",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from aeris.swipe.groups import Groups
    from aeris.swipe.layout import Coordinates, Layout
    from aeris.swipe.optimizer import ShardedAdamW, Update
    from aeris.swipe.pipeline import Pass, Pipeline, WindowTransformer, held_blocks
    from aeris.swipe.stream import Requests, Stream
    from aeris.swipe.tokens import Share, gather, join, share


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'aeris.swipe' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"aeris.swipe.{_HOME[name]}"), name)
