"""What a cluster hands out for a job: watch it, wait for it, stop it."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import xarray as xr

from aeris.cluster.engines import Engines
from aeris.cluster.jobs import Specification
from aeris.errors import AerisError, ClusterError, EngineLost
from aeris.run import Run

POLL = 0.2
"""Seconds between two looks at a job."""
ENDED_BY_INTERRUPT = {"KeyboardInterrupt", "RankLost"}
"""What ranks say when they are interrupted, and those that waited for them."""


class Job:
    """One job on a cluster, watched by a thread of this notebook.

    The engines go on if this notebook goes; only restarts are made here.

    Args:
        name: What it does, as the end of a sentence: ``training tiny``.
        specification: What the engines are asked.
        engines: The cluster's engines.
        restarts: How often to begin anew after an engine has gone.

    Attributes:
        restarted: How often it did.
        losses: What was lost, each as the error that it would have been.
    """

    def __init__(self, name: str, specification: Specification, engines: Engines, restarts: int = 0) -> None:
        self.name, self.specification = name, specification
        self.restarted, self.losses = 0, list[EngineLost]()
        self._engines, self._restarts, self._interrupted = engines, restarts, False
        self._error: AerisError | None = None
        self._over = threading.Event()
        self._result = engines.begin(specification)
        self._thread = threading.Thread(target=self._watch, name=f"aeris {name}", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._over.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for its end; interrupting the cell interrupts the waiting and not the job.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether it has ended.

        Raises:
            EngineLost: An engine has gone.
            ClusterError: A rank failed; its host and what it said are told once.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not self._over.wait(POLL):
            if end is not None and time.monotonic() > end:
                return False
        if self._error is not None:
            raise self._error
        return True

    def interrupt(self) -> None:
        """Interrupts the engines, which ends the job; what they have written stays."""
        self._restarts, self._interrupted = self.restarted, True
        self._engines.interrupt(self._result._targets)

    def __repr__(self) -> str:
        state = "running" if not self.done else "finished" if self._error is None else f"failed: {self._error}"
        return f"Job({self.name!r}, {state})"

    def _watch(self) -> None:
        try:
            while (error := self._outcome()) is not None:
                if not isinstance(error, EngineLost) or self.restarted >= self._restarts:
                    self._error = error
                    return
                self.losses.append(error)
                self.restarted += 1
                self._restart(error)
        except AerisError as error:
            self._error = error
        except Exception as error:
            found = f"The job {self.name!r} cannot be followed: {error}"
            self._error = ClusterError(found, "The cluster must be running", "Start it again")
        finally:
            self._over.set()

    def _restart(self, loss: EngineLost) -> None:
        """Says what was lost, and begins again on other engines, or on those that are left."""
        say(f"{loss.found}. Restart {self.restarted} of {self._restarts} begins")
        before, self.specification = self.specification, self._engines.replace_lost(self.specification)
        if self.specification.layout != before.layout:
            say(f"{self.name} goes on with fewer engines, as {self.specification.layout}")
        self._result = self._engines.begin(self.specification)

    def _outcome(self) -> AerisError | None:
        """Waits for the engines' answers; the failure that came first, if any did. Engines that were interrupted have not failed."""
        released: list[int] = []
        while not self._result.ready():
            self._result.wait(POLL)
            if not self._engines.controller_lives():
                raise ClusterError(
                    f"The controller has gone while {self.name}",
                    "It carries what engines answer, and they end by themselves without it",
                    "Start a cluster and the same job again: it goes on from its last checkpoint, or where its archive stands",
                )
            released += self._engines.release(self._result._targets, self.specification.together)
        try:
            self._result.get()
        except ipp.CompositeError as error:
            failures = error.elist
        except ipp.error.RemoteError as error:
            failures = [(error.ename, error.evalue, error.traceback, error.engine_info)]
        else:
            return None
        if self._interrupted and {kind for kind, *_ in failures} <= ENDED_BY_INTERRUPT:
            return None
        return cause(self.name, failures, self._result._targets, self._engines.hosts(), released)


def say(text: str) -> None:
    """Tells who looks at the notebook something that no call will return."""
    print(text, file=sys.stderr, flush=True)


def cause(
    name: str, failures: list[tuple[str, str, Any, Any]], ranks: list[int], hosts: Mapping[int, str], released: Sequence[int] = ()
) -> AerisError:
    """The one failure that explains the others.

    Args:
        name: What the job did.
        failures: Name, text, traceback and engine of each, as ipyparallel collects them.
        ranks: Engines in the order of their ranks.
        hosts: The machine of each engine.
        released: Engines that were ended because they waited for one that has gone.
    """
    told = {(info or {}).get("engine_id"): (kind, text) for kind, text, _, info in failures}
    gone = [text for kind, text, _, _ in failures if kind == "EngineError"]
    if gone:
        witness = next((text for kind, text in told.values() if kind == "RankLost"), "")
        silent = [f"rank {rank} ({_place(engine, hosts)})" for rank, engine in enumerate(ranks) if engine not in {*told, *released}]
        return EngineLost(
            f"{', '.join(silent) or 'An engine'} has gone while {name}" + (f"; the others say: {witness}" if witness else ""),
            "The ranks of a job work together, and none can go on without the others",
            "Start the job again: it goes on from its last checkpoint, or where its archive stands; restarts=3 does so by itself",
        )
    engine, (kind, text) = next(((engine, said) for engine, said in told.items() if said[0] != "RankLost"), next(iter(told.items())))
    rank = ranks.index(engine) if engine in ranks else "?"
    found = f"Rank {rank} ({_place(engine, hosts)}) failed while {name}: {kind}: {text}"
    return ClusterError(found, "", f"Read rank-{rank}.log in the folder engines of the run")


def _place(engine: Any, hosts: Mapping[int, str]) -> str:
    return f"engine {engine} on {hosts[engine]}" if engine in hosts else f"engine {engine}"


class ClusterRun(Run):
    """A run that a cluster trains.

    Args:
        path: Its directory.
        job: The job.
    """

    job: Job

    def __init__(self, path: Path, job: Job) -> None:
        super().__init__(path)
        object.__setattr__(self, "job", job)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end of the training, as `Job.wait`.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether it has ended.

        Raises:
            EngineLost: An engine has gone.
            ClusterError: A rank failed.
        """
        return self.job.wait(timeout)

    def sample(
        self, initial: xr.Dataset | str | Path, times: Sequence[Any], members: int = 4, lead: str = "24h", seed: int = 0
    ) -> xr.Dataset:
        """A quick ensemble from the newest weights, drawn in this notebook while the training goes on.

        Args:
            initial: As for `aeris.forecast`.
            times: Initial times.
            members: Members from each.
            lead: Length of the forecast.
            seed: Seed of the forecast.

        Returns:
            The archive, lazy; it is kept in the run's folder ``samples``, under the step.

        Raises:
            CheckpointError: There is no finished checkpoint yet.
        """
        from aeris.forecasting.ensemble import forecast

        checkpoint = self.newest
        out = self.path / "samples" / f"{checkpoint.name}-{uuid.uuid4().hex[:6]}.zarr"
        out.parent.mkdir(exist_ok=True)
        return forecast(checkpoint, initial, times, members, lead, out, seed, precision=self.configuration["precision"], progress=False)


class ClusterForecast:
    """A forecast that a cluster draws into an archive.

    Args:
        path: The archive.
        job: The job.

    Attributes:
        path: As above.
        job: As above.
    """

    def __init__(self, path: Path, job: Job) -> None:
        self.path, self.job = path, job

    def open(self) -> xr.Dataset:
        """The archive as it stands, lazy; what is not finished is missing.

        Raises:
            StoreError: It has not been laid out yet.
        """
        from aeris.forecasting.archive import open_forecast

        return open_forecast(self.path)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end, or for that of a forecast that was stopped, as `Job.wait`; :meth:`open` gives what there is then.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether it has ended.

        Raises:
            EngineLost: An engine has gone.
            ClusterError: A rank failed.
        """
        return self.job.wait(timeout)

    def stop(self) -> None:
        """Interrupts it; what is there stays, and asked for again with the same arguments it goes on."""
        self.job.interrupt()

    def __repr__(self) -> str:
        return f"ClusterForecast({str(self.path)!r}, {self.job!r})"
