"""What each rank says of itself, and who is to blame when they fail together.

When one rank dies, the others see a broken connection to whichever neighbour they were waiting for. While a watch is kept every
rank shows signs of life in the rendezvous store; whoever fails first leaves a note there, and the rest name that rank.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch.distributed as dist

from aeris.errors import AerisError, RankLost
from aeris.swipe.groups import Groups

PULSE = 0.5
"""Seconds between two signs of life."""

SILENCE = 4.0
"""Seconds without a sign after which a rank counts as gone."""

logger = logging.getLogger("aeris.swipe")


@contextmanager
def watch(groups: Groups, folder: Path, step: Callable[[], int]) -> Iterator[None]:
    """Keeps a log of this rank and, where it fails, finds out which rank failed first.

    Args:
        groups: This rank's place.
        folder: Where ``rank-N.log`` is written.
        step: Tells the step that this rank is at.

    Raises:
        RankLost: Another rank has gone; it names the rank, its coordinates and its step.
    """
    if groups.layout.world == 1:
        yield
        return
    with _log(groups, folder), _pulse(groups) as store:
        try:
            yield
        except BaseException as error:
            logger.exception("failed at step %d", step())
            traceback.clear_frames(error.__traceback__)
            blamed = None if isinstance(error, AerisError) else _first_to_go(groups, store, step())
            if blamed is None:
                store.set(f"failed/{groups.rank}", f"{step()} {type(error).__name__}: {error}")
                error.add_note(f"on rank {groups.rank} ({groups.at}) at step {step()}")
                groups.leave()
                raise
            rank, at_step, reason = blamed
            store.set(f"failed/{rank}", f"{at_step} {reason}")
            groups.leave()
            raise RankLost(
                f"Rank {rank} ({groups.layout.coordinates(rank)}) has gone at step {at_step}: {reason}",
                "The ranks of a layout work together, and none can go on without the others",
                f"Read {folder / f'rank-{rank}.log'}, then start again: a run goes on from its last checkpoint",
            ) from error


@contextmanager
def _log(groups: Groups, folder: Path) -> Iterator[None]:
    """A log file of this rank's own."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"rank-{groups.rank}.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    home, level = logging.getLogger("aeris"), logging.getLogger("aeris").level
    home.addHandler(handler)
    home.setLevel(logging.INFO)
    logger.info("rank %d of %s: %s, on %s, process %d", groups.rank, groups.layout, groups.at, socket.gethostname(), os.getpid())
    try:
        yield
    finally:
        home.removeHandler(handler)
        home.setLevel(level)
        handler.close()


@contextmanager
def _pulse(groups: Groups) -> Iterator[dist.Store]:
    """Shows that this rank is alive."""
    store = dist.PrefixStore("aeris-watch", dist.distributed_c10d._get_default_store())
    stop = threading.Event()

    def beat() -> None:
        count = 0
        # Where the store itself has gone, there is nobody left to tell.
        with suppress(RuntimeError):
            while not stop.is_set():
                store.set(f"alive/{groups.rank}", str(count))
                count += 1
                stop.wait(PULSE)

    thread = threading.Thread(target=beat, name="aeris-pulse", daemon=True)
    thread.start()
    try:
        yield store
    finally:
        stop.set()
        thread.join()


def _first_to_go(groups: Groups, store: dist.Store, step: int) -> tuple[int, str, str] | None:
    """Another rank that left a note, or has shown no sign of life for a while: its number, step and reason."""
    others = [rank for rank in range(groups.layout.world) if rank != groups.rank]
    seen: dict[int, str] = {}
    end = time.monotonic() + SILENCE
    while time.monotonic() < end:
        for rank in others:
            if store.check([f"failed/{rank}"]):
                at_step, _, reason = store.get(f"failed/{rank}").decode().partition(" ")
                return rank, at_step, reason
        if not seen:
            seen = {rank: _sign(store, rank) for rank in others}
        time.sleep(PULSE / 2)
    silent = [rank for rank in others if _sign(store, rank) == seen[rank]]
    # All ranks take the same steps: it went at the one where this rank stands.
    return (silent[0], str(step), "it shows no sign of life") if silent else None


def _sign(store: dist.Store, rank: int) -> str:
    return store.get(f"alive/{rank}").decode() if store.check([f"alive/{rank}"]) else ""
