"""Engines on the nodes of a machine: started, asked what they are, made the ranks of a process group, replaced and stopped."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

import ipyparallel as ipp
from ipyparallel.cluster.launcher import LocalEngineSetLauncher

from aeris.cluster import launchers, spmd
from aeris.cluster.jobs import Specification
from aeris.errors import ClusterError, EngineLost
from aeris.progress import tqdm

LEAVE_WITHIN = 7.0
"""Seconds in which engines end a job by themselves after a rank has gone; they find out who it was in four."""


class Engines:
    """Engines, their controller, and the client of this notebook.

    Args:
        cluster: The cluster of ipyparallel, not started.
        engines: Number of engines.
        timeout: Seconds to wait for them.
        options: Options of ipyparallel's launcher.

    Attributes:
        engines: Number of engines.
        name: Name by which another kernel finds it.
    """

    def __init__(self, cluster: ipp.Cluster, engines: int, timeout: float = 120.0, options: Mapping[str, Any] | None = None) -> None:
        self._cluster, self.engines, self._timeout = cluster, engines, timeout
        self._options = dict(options or {})  # of ipyparallel's launcher
        self._client: ipp.Client | None = None
        self._joined: tuple[int, ...] = ()
        self._hosts: dict[int, str] = {}

    @property
    def name(self) -> str:
        """Name by which another kernel finds it."""
        return str(self._cluster.cluster_id)

    def start(self, progress: bool = True) -> Self:
        """Starts controller and engines and waits until every engine has said what it is.

        Args:
            progress: Whether to show a progress bar.

        Raises:
            ClusterError: An engine did not start, or runs other versions than this notebook; its last words are quoted. Or the job
                was refused, or so many engines need more open files than this machine allows.
        """
        launchers.allow_files(self.engines)
        try:
            self._cluster.start_controller_sync()
            self._start_engines(self.engines)
            self._connect()
            self._await_engines(progress)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stops engines and controller."""
        if self._client is not None:
            self._client.close()
            self._client = None
        controller = self._cluster.controller
        self._cluster.stop_cluster_sync()
        launchers.end_session(getattr(controller, "pid", -1))

    def __enter__(self) -> Self:
        return self if self._client else self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"{len(self.client.ids)} of {self.engines} engines" if self._client else "not started"
        return f"Cluster({self.name!r}, {state})"

    @property
    def client(self) -> ipp.Client:
        """The client of ipyparallel, for ``%%px`` and everything else.

        Raises:
            ClusterError: The cluster has not been started.
        """
        if self._client is None:
            raise ClusterError("The cluster is not running", "Engines answer from start() to stop()", "Call start(), or use `with`")
        return self._client

    @property
    def _replaceable(self) -> bool:
        """Whether an engine can be started by itself; in a batch job they all come and go with the job."""
        return issubclass(self._cluster.engine_launcher_class, LocalEngineSetLauncher)

    def _start_engines(self, count: int) -> None:
        self._cluster.start_engines_sync(n=count, **self._options)

    def _connect(self) -> None:
        self._client = self._cluster.connect_client_sync()

    def _await_engines(self, progress: bool) -> None:
        """Waits for the engines started last, engine by engine; those that end before all have registered have failed."""
        client, deadline = self.client, time.monotonic() + self._timeout
        starting, waiting = list(self._cluster.engines.values())[-1], False
        with tqdm(total=self.engines, desc="engines", unit="engine", disable=not progress) as bar:
            while (ready := len(client.ids)) < self.engines:
                if ready > bar.n:
                    bar.update(ready - bar.n)
                if queued := launchers.queued(self._cluster.engines.values()):
                    deadline = time.monotonic() + self._timeout  # the queue takes the time that it takes
                if queued != waiting:
                    bar.set_description("engines in the queue" if queued else "engines")
                    waiting = queued
                ended = launchers.ended(starting)
                if ended or time.monotonic() > deadline:
                    where = self._cluster.controller_ip or "127.0.0.1"
                    raise ClusterError(
                        f"{self.engines - ready} of {self.engines} engines did not start"
                        + ("" if ended else f" within {self._timeout:.0f} s; they must reach the controller at {where}"),
                        f"The last words of an engine: {launchers.last_words(starting)}",
                        "Mend what they say" if ended else "Mend what they say, give a longer timeout, or another address or interface",
                    )
                time.sleep(0.1)
            bar.update(self.engines - bar.n)
        self.check_versions()

    def check_versions(self) -> list[dict[str, Any]]:
        """What every engine says of itself, in the order of the ranks.

        Raises:
            ClusterError: One has another version of aeris, torch or Python than this notebook.
        """
        here, engines = spmd.describe(), self._described()
        for engine in engines:
            for package in ("aeris", "torch", "python"):
                if engine[package] != here[package]:
                    raise ClusterError(
                        f"Engine {engine['engine']} on {engine['host']} has {package} {engine[package]}, this notebook {here[package]}",
                        "All ranks and the notebook run the same versions",
                        "Start the engines from the environment of this notebook",
                    )
        return engines

    def _described(self) -> list[dict[str, Any]]:
        ids = sorted(self.client.ids)
        answers = self.client[ids].apply_sync(spmd.describe)
        engines = [{"engine": number, **answer} for number, answer in zip(ids, answers, strict=True)]
        self._hosts |= {engine["engine"]: engine["host"] for engine in engines}
        first = {engine["host"]: engine["engine"] for engine in reversed(engines)}
        return sorted(engines, key=lambda engine: (first[engine["host"]], engine["engine"]))  # hosts in the order of MPI

    def begin(self, specification: Specification) -> ipp.AsyncResult:
        """Makes engines the ranks of one process group, if they are not, and starts a job on them."""
        ranks = self._ranks(specification.layout.world)
        return self.client[list(ranks)].apply_async(spmd.run, specification.to_json())

    def replace_lost(self, specification: Specification) -> Specification:
        """Starts engines in place of those that have gone; where that fails, takes a layout of those that are left.

        Raises:
            EngineLost: None is left, or no layout of so many can do the job; it names one that can.
        """
        self.restore()
        left = len(self.client.ids)
        if not left:
            raise EngineLost("No engine is left", "A job needs engines", "Start a cluster, and the same job again: it goes on")
        return specification if specification.layout.world <= left else specification.on(left)

    def restore(self) -> None:
        """Starts engines in place of those that have gone, where engines can be started one by one; what is still busy then is ended."""
        self._joined = ()
        if len(self.client.ids) < self.engines:
            self._end_stuck()
        lost = self.engines - len(self.client.ids)
        if lost > 0 and self._replaceable:
            self._start_engines(lost)
            self._await_engines(progress=False)

    def release(self, ranks: Sequence[int], together: bool) -> list[int]:
        """Where a rank has gone, frees the engines of the others, and says which had to be ended.

        Args:
            ranks: Engines that do a job.
            together: Whether no rank can do anything without the others, and all fail by themselves; else they are interrupted.
        """
        if set(ranks) <= set(self.client.ids):
            return []
        if not together:
            self.client.send_signal("SIGINT", self._busy())
        return self._end_stuck()

    def _end_stuck(self) -> list[int]:
        """Ends engines that are still busy a while after another has gone: a wait inside a collective cannot be interrupted."""
        if stuck := self._busy_after(LEAVE_WITHIN):
            self.client.send_signal(signal.SIGKILL, stuck, block=True)
        while set(stuck) & set(self.client.ids):
            time.sleep(0.1)
        return stuck

    def _busy_after(self, seconds: float) -> list[int]:
        """Engines that are busy all that time."""
        end = time.monotonic() + seconds
        while (busy := self._busy()) and time.monotonic() < end:
            time.sleep(0.2)
        return busy

    def _busy(self) -> list[int]:
        status = self.client.queue_status()
        return [engine for engine in self.client.ids if status.get(engine, {}).get("queue")]

    def controller_lives(self) -> bool:
        """Whether the controller is there; its process is on this machine."""
        process = getattr(self._cluster.controller, "pid", None)
        return process is None or launchers.lives(process)

    def hosts(self) -> Mapping[int, str]:
        """On which machine each engine is or was."""
        return self._hosts

    def interrupt(self, ranks: Sequence[int]) -> None:
        """Interrupts what engines do.

        One that met others in a collective is no longer where they are, so all join anew before the next job.

        Args:
            ranks: The engines.
        """
        self._joined = ()
        self.client.send_signal("SIGINT", sorted({*ranks} & {*self.client.ids}))

    def _ranks(self, world: int) -> tuple[int, ...]:
        """Engines that are the ranks of a process group of that size, in the order of the ranks."""
        if len(self._joined) == world and set(self._joined) <= set(self.client.ids):
            return self._joined
        engines = self.check_versions()[:world]
        ranks = tuple(engine["engine"] for engine in engines)
        hosts = [engine["host"] for engine in engines]
        address = "127.0.0.1" if len(set(hosts)) == 1 else engines[0]["address"]
        port = self.client[ranks[0]].apply_sync(spmd.open_rendezvous, world, address) if world > 1 else 0
        seen: Counter[str] = Counter()
        joining = []
        for rank, (engine, host) in enumerate(zip(ranks, hosts, strict=True)):
            joining.append(self.client[engine].apply_async(spmd.join, rank, world, seen[host], address, port))
            seen[host] += 1
        for answer in joining:
            answer.get(timeout=self._timeout)
        self._joined = ranks
        return ranks
