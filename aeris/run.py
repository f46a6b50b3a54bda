"""A run's directory read as data: its configuration, logbook and checkpoints.

Needs no torch, so that any notebook, later or elsewhere, can attach to a run::

    run.json             configuration, versions, statistics id, git revision
    logbook.jsonl        one line a step
    checkpoints/         step-00000700/ with manifest.json, written last
    engines/             rank-0.log, rank-1.log, ... of several ranks
    state.json           running, finished, stopped or failed, with the reason
    stop                 there while it is asked to stop
"""

from __future__ import annotations

import importlib
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr

from aeris.errors import CheckpointError, EngineLost, StoreError

STATE = "state.json"
"""File that tells how a run stands."""

STOP = "stop"
"""File by which a run is asked to stop."""

POLL = 0.5
"""Seconds between two looks at a run that is waited for."""

UNITS = {"seconds": "s", "samples_per_second": "s**-1", "tflops_per_rank": "TFLOP s**-1", "memory_gb": "GB"}


@dataclass(frozen=True)
class Run:
    """A training run on disk.

    Attributes:
        path: Its directory.
    """

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Attaches to a run that was started anywhere.

        Raises:
            StoreError: The directory holds no run.
        """
        path = Path(path)
        if not (path / "run.json").is_file():
            raise StoreError(f"{path} is not a run", "A run's directory holds run.json", "Name the directory given to aeris.train as out")
        return cls(path)

    @property
    def configuration(self) -> dict[str, Any]:
        """What was asked for, and with which versions: the content of ``run.json``."""
        return json.loads((self.path / "run.json").read_text())

    @property
    def logbook(self) -> xr.Dataset:
        """The logbook as a dataset over ``step``: loss, gradient norm, learning rate, throughput, memory."""
        lines = read_logbook(self.path / "logbook.jsonl")
        names = [name for name in (lines[0] if lines else {}) if name != "step"]
        columns = {name: ("step", np.array([line[name] for line in lines], dtype=float), {"units": UNITS.get(name, "1")}) for name in names}
        return xr.Dataset(columns, coords={"step": [line["step"] for line in lines]})

    @property
    def checkpoints(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        return sorted(manifest.parent for manifest in (self.path / "checkpoints").glob("step-*/manifest.json"))

    @property
    def newest(self) -> Path:
        """The newest finished checkpoint.

        Raises:
            CheckpointError: There is none yet.
        """
        if not self.checkpoints:
            raise CheckpointError(
                f"{self.path} has no finished checkpoint", "A forecast needs a checkpoint", "Let the run reach its first checkpoint"
            )
        return self.checkpoints[-1]

    @property
    def step(self) -> int:
        """Step of the newest finished checkpoint, 0 where there is none."""
        return int(self.checkpoints[-1].name.removeprefix("step-")) if self.checkpoints else 0

    @property
    def state(self) -> dict[str, Any]:
        """How it stands: ``state`` is ``started``, ``running``, ``finished``, ``stopped`` or ``failed``, the last with a ``reason``.

        A process of this machine that trained it and is there no more has failed too.
        """
        path = self.path / STATE
        content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"state": "started"}
        here = content.get("host") == socket.gethostname()
        if content["state"] == "running" and here and not psutil.pid_exists(content["process"]):
            return {**content, "state": "failed", "reason": f"process {content['process']}, which trained it, has gone"}
        return content

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until whoever trains it has finished or stopped; interrupting the wait does not interrupt the training.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether it has ended.

        Raises:
            EngineLost: It failed, or what trained it has gone; the reason is told.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (state := self.state)["state"] in ("started", "running"):
            if end is not None and time.monotonic() > end:
                return False
            time.sleep(POLL)
        if state["state"] == "failed":
            raise EngineLost(f"{self.path} failed: {state['reason']}", "", "Start it again: it goes on from its last checkpoint")
        return True

    def stop(self) -> None:
        """Asks whoever trains it to write a checkpoint and leave, after the step that is under way."""
        (self.path / STOP).touch()

    def live(self, interval: float = 2.0) -> Any:
        """Shows loss, gradient norm, step size, speed, memory and time left while it trains, here or anywhere.

        Args:
            interval: Seconds between two looks.

        Returns:
            In a notebook a `aeris.views.live.Live` that updates its cell in the background; elsewhere None, after a progress bar has
            followed the run to its end.
        """
        # By name: views are built on runs, and no run needs views but for this.
        return importlib.import_module("aeris.views.live").live(self, interval)

    @property
    def asked_to_stop(self) -> bool:
        """Whether someone asked since the training began, or went on."""
        return (self.path / STOP).exists()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, step {self.step} of {self.configuration['steps']})"


def read_logbook(path: Path) -> list[dict[str, Any]]:
    """Lines of a logbook; a last line that is still being written is left out."""
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
