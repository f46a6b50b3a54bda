"""What ranks send to each other, counted exactly and not sampled.

While a ledger is open every collective and message of this process is entered with the bytes that leave it. What a collective sends
is counted for the algorithms that need the least: (n − 1) / n of the tensor for an all-to-all, a reduce-scatter and an all-gather,
twice that for an all-reduce.

What a step of training sends by the closed formula stands in `aeris.swipe.plan.sent_bytes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
from torch import Tensor

from aeris.swipe.groups import Groups

KINDS = {
    "all_to_all_single": "heads",
    "reduce_scatter_tensor": "gradients",
    "reduce_scatter_single": "gradients",
    "all_gather_into_tensor": "parameters",
    "all_gather_single": "parameters",
    "all_reduce": "norm",
    "all_gather": "gather",
    "broadcast": "broadcast",
}


@dataclass
class Ledger:
    """Bytes and messages that one rank sent, by kind.

    Attributes:
        sent: Bytes by kind: ``pipeline``, ``shift``, ``heads``, ``gradients``, ``parameters``, ``norm`` and others.
        messages: Number of messages or collectives by kind.
    """

    sent: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)

    def enter(self, kind: str, sent: float) -> None:
        """Adds a message."""
        self.sent[kind] += round(sent)
        self.messages[kind] += 1

    def __str__(self) -> str:
        lines = [f"{'kind':<12}{'messages':>10}{'bytes sent':>16}"]
        lines += [f"{kind:<12}{self.messages[kind]:>10,}{self.sent[kind]:>16,}" for kind in sorted(self.sent)]
        return "\n".join([*lines, f"{'all':<12}{self.messages.total():>10,}{self.sent.total():>16,}"])


@contextmanager
def record(groups: Groups) -> Iterator[Ledger]:
    """Opens a ledger of all that this process sends.

    Args:
        groups: Its place, by which messages inside a stage are told from those between stages.
    """
    ledger = Ledger()
    originals = {name: getattr(dist, name) for name in KINDS if hasattr(dist, name)}
    make = dist.P2POp.__init__

    def make_counted(self: dist.P2POp, op: Callable[..., Any], tensor: Tensor, *arguments: Any, **options: Any) -> None:
        make(self, op, tensor, *arguments, **options)
        if op is dist.isend:
            ledger.enter("shift" if self.group is groups.image else "pipeline", _size(tensor))

    try:
        for name, original in originals.items():
            setattr(dist, name, _counted(ledger, original, name))
        dist.P2POp.__init__ = make_counted  # type: ignore[method-assign]
        yield ledger
    finally:
        dist.P2POp.__init__ = make  # type: ignore[method-assign]
        for name, original in originals.items():
            setattr(dist, name, original)


def _counted(ledger: Ledger, original: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        ranks = dist.get_world_size(options.get("group"))
        ledger.enter(KINDS[name], _leaving(name, arguments, ranks))
        return original(*arguments, **options)

    return call


def _leaving(name: str, arguments: Sequence[Any], ranks: int) -> float:
    """Bytes that leave this rank."""
    share = (ranks - 1) / ranks
    if name.startswith(("all_to_all_", "reduce_scatter_")):
        return _size(arguments[1]) * share
    if name.startswith("all_gather_"):
        return _size(arguments[0]) * share
    if name == "all_gather":
        return _size(arguments[1]) * (ranks - 1)
    return _size(arguments[0]) * (2 * share if name == "all_reduce" else 1)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
