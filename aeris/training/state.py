"""How a run stands, kept in its directory for whoever looks: ``state.json``."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aeris.data.disk import write_whole
from aeris.device import Device
from aeris.errors import RankLost
from aeris.run import STATE, STOP, Run
from aeris.swipe import Groups


def ask(run: Run) -> None:
    """Writes that a run was asked for, so that a stop that comes before its first step is heard. Earlier requests to stop are dropped."""
    (run.path / STOP).unlink(missing_ok=True)
    _write(run, {"state": "started"})


@contextmanager
def told(run: Run, groups: Groups, device: Device, precision: str) -> Iterator[None]:
    """Writes that a run is running, and afterwards that it has finished, was stopped, or failed and why.

    Args:
        run: The run. Requests to stop it are dropped unless they came after it was asked for.
        groups: This rank's place; the first rank writes, and of a failure every rank that learns of it.
        device: What it computes on, whose peak is measured so that the speed of a step can be told as a share of it.
        precision: Dtype of the activations.
    """
    content = {"host": socket.gethostname(), "process": os.getpid(), "ranks": groups.layout.world}
    if groups.rank == 0:
        if run.state["state"] != "started":
            ask(run)
        content["peak_tflops"] = device.peak_tflops(precision)
        _write(run, {"state": "running", **content})
    try:
        yield
    except BaseException as error:
        # Whoever reads it adds what to do; a rank that was lost leaves nothing else to say.
        reason = error.found if isinstance(error, RankLost) else str(error)
        _write(run, {"state": "failed", "reason": reason or type(error).__name__, **content})
        raise
    if groups.rank == 0:
        _write(run, {"state": "finished" if run.step >= run.configuration["steps"] else "stopped", **content})


def _write(run: Run, content: dict[str, Any]) -> None:
    write_whole(run.path / STATE, [json.dumps(content).encode()])
