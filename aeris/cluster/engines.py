"""The engines on the nodes of a machine, as one thing to start, ask and stop."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import ipyparallel as ipp
import numpy as np
import pandas as pd
import xarray as xr
from ipyparallel.cluster.launcher import LocalEngineSetLauncher

from aeris.cluster import addresses, job_scripts, launchers, spmd
from aeris.cluster.handles import ClusterForecast, ClusterRun, Job
from aeris.cluster.jobs import ForecastSpecification, Specification, TrainSpecification
from aeris.data.store import Store
from aeris.errors import ClusterError, ConfigurationError, EngineLost
from aeris.forecasting.ensemble import check_forecast, open_checkpoint
from aeris.forecasting.perturbations import Perturbation, check_reach
from aeris.model.config import ModelConfig
from aeris.model.presets import SamplingRecipe, TrainingRecipe
from aeris.progress import tqdm
from aeris.run import Run
from aeris.swipe import Layout
from aeris.training.checkpoint import Checkpoint
from aeris.training.configuration import start_run
from aeris.training.start import starting_point
from aeris.training.state import ask
from aeris.training.trainer import configuration_of

PREFIX = "aeris-"
HEARTBEAT_MS = 1000
"""Milliseconds between two heartbeats that the controller asks of every engine."""
MISSED = 5
"""Heartbeats that an engine may miss before it counts as gone."""
LEAVE_WITHIN = 7.0
"""Seconds in which engines end a job by themselves after a rank has gone; they find out who it was in four."""
SETTLED = 2.0
"""Seconds in which the controller has heard of the end of a job that this notebook knows to have ended."""
MANY = 100
"""Engines from which on the controller asks for a tenth of the heartbeats and gives engines longer to register."""


class Cluster:
    """Engines, their controller, and the client of this notebook.

    Made by :meth:`local`, :meth:`mpi`, :meth:`pbs` or :meth:`slurm`, started by ``with`` or :meth:`start`, and found again from another
    kernel by :meth:`attach`. A cluster that was started outlives the kernel: it ends with its ``with`` block or by :meth:`stop`.
    Connections are always encrypted (CURVE).

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
        self._job: Job | None = None

    # ---- starting and stopping

    @classmethod
    def local(cls, engines: int = 4, threads: int | None = None, timeout: float = 120.0, directory: str | Path | None = None) -> Self:
        """Engines on this machine.

        Args:
            engines: Number of engines.
            threads: Threads of each; None shares the cores.
            timeout: Seconds to wait for them.
            directory: Where connection files and logs stand; None takes ipyparallel's own profile.

        Raises:
            ConfigurationError: Less than one engine.
        """
        _check_engines(engines)
        return cls(_cluster("local", engines, timeout, directory), engines, timeout, _local_options(engines, threads))

    @classmethod
    def mpi(
        cls,
        engines: int,
        command: str = "mpiexec",
        arguments: Sequence[str] = (),
        machine: str = "generic",
        environment: Mapping[str, str] | None = None,
        interface: str | None = None,
        address: str | None = None,
        timeout: float = 300.0,
        directory: str | Path | None = None,
        dry_run: bool = False,
    ) -> Any:
        """Engines that one ``mpiexec`` starts: on this machine, on those of a host file, or in the job that this notebook runs in.

        Args:
            engines: Number of engines.
            command: The ``mpiexec`` to use.
            arguments: Its arguments besides ``-n``, such as ``["--hostfile", "hosts"]``.
            machine: ``aurora`` places ranks and sets variables as in a job of :meth:`pbs`, for a notebook that runs in such a job.
            environment: Variables of the engines.
            interface: Network interface that the controller listens on, such as ``hsn0``.
            address: Address that the controller listens on; None takes that of a network that reaches other machines.
            timeout: Seconds to wait for the engines.
            directory: Where connection files and logs stand, seen by all machines; None takes ipyparallel's own profile.
            dry_run: Whether to start nothing and return the command line.

        Returns:
            The cluster, to be started; of a dry run, the command line.

        Raises:
            ConfigurationError: Less than one engine, or an address that this machine does not have.
            ClusterError: There is no such command.
        """
        _check_engines(engines)
        site = job_scripts.machine_named(machine)
        placement = [] if machine == "generic" else site.placement(min(site.ranks_per_node, engines))
        options: dict[str, Any] = {
            "mpi_cmd": shlex.split(command),
            "mpi_args": [*placement, *arguments],
            "environment": {**site.environment, **(environment or {})},
        }
        if not dry_run:
            launchers.check_command(options["mpi_cmd"][0], "starts the engines")
        cluster = _cluster(launchers.MPIEngines, engines, timeout, directory, addresses.choose_address(interface, address))
        return shlex.join(_launcher(cluster, engines, options).args) if dry_run else cls(cluster, engines, timeout, options)

    @classmethod
    def pbs(
        cls,
        nodes: int,
        queue: str,
        account: str | None = None,
        walltime: str = "01:00:00",
        filesystems: Sequence[str] = ("home", "flare"),
        machine: str = "aurora",
        ranks_per_node: int | None = None,
        modules: Sequence[str] | None = None,
        setup: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        interface: str | None = None,
        address: str | None = None,
        timeout: float = 600.0,
        directory: str | Path | None = None,
        dry_run: bool = False,
    ) -> Any:
        """Engines in a job of PBS, by default on Aurora: twelve a node, one for each tile of its GPUs.

        Args:
            nodes: Number of nodes.
            queue: Queue.
            account: Project that pays.
            walltime: Longest time, as hours:minutes:seconds.
            filesystems: File systems that the job uses; none where PBS does not ask for them.
            machine: ``aurora``, or ``generic`` for a machine that is told everything by the arguments here.
            ranks_per_node: Engines a node; None takes the machine's.
            modules: Environment modules to load; None takes the machine's.
            setup: Lines of shell before the engines start, such as ``["source venv/bin/activate"]``.
            environment: Variables of the engines.
            interface: Network interface that the controller listens on, such as ``hsn0``.
            address: Address that the controller listens on; None takes that of a network that reaches other machines.
            timeout: Seconds to wait for the engines once the job runs; it may wait in the queue for as long as it must.
            directory: Where connection files and logs stand, seen by all nodes; None takes ipyparallel's own profile.
            dry_run: Whether to start nothing and return the job script.

        Returns:
            The cluster, to be started; of a dry run, the job script.

        Raises:
            ConfigurationError: Something is asked that PBS or the machine would refuse.
            ClusterError: Jobs of PBS cannot be submitted from here.
        """
        variables = dict(environment or {})
        job = job_scripts.PBSJob(queue, account, walltime, filesystems, machine, ranks_per_node, modules, setup, variables)
        listen = addresses.choose_address(interface, address)
        return cls._batch(launchers.PBSEngines, job, nodes, listen, timeout, directory, dry_run)

    @classmethod
    def slurm(
        cls,
        nodes: int,
        partition: str,
        account: str | None = None,
        walltime: str = "01:00:00",
        ranks_per_node: int = 1,
        gpus_per_node: int | None = None,
        cpus_per_rank: int | None = None,
        qos: str | None = None,
        modules: Sequence[str] = (),
        setup: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        interface: str | None = None,
        address: str | None = None,
        timeout: float = 600.0,
        directory: str | Path | None = None,
        dry_run: bool = False,
    ) -> Any:
        """Engines in a job of Slurm.

        Args:
            nodes: Number of nodes.
            partition: Partition.
            account: Project that pays; None takes the user's own.
            walltime: Longest time, as hours:minutes:seconds or days-hours:minutes:seconds.
            ranks_per_node: Engines a node.
            gpus_per_node: Accelerators a node; None asks for none.
            cpus_per_rank: Cores of an engine; None takes the partition's.
            qos: Quality of service; None takes the default.
            modules: Environment modules to load.
            setup: Lines of shell before the engines start.
            environment: Variables of the engines.
            interface: As for :meth:`pbs`.
            address: As for :meth:`pbs`.
            timeout: As for :meth:`pbs`.
            directory: As for :meth:`pbs`.
            dry_run: As for :meth:`pbs`.

        Returns:
            The cluster, to be started; of a dry run, the job script.

        Raises:
            ConfigurationError: Something is asked that Slurm would refuse.
            ClusterError: Jobs of Slurm cannot be submitted from here.
        """
        variables = dict(environment or {})
        job = job_scripts.SlurmJob(
            partition, account, walltime, ranks_per_node, gpus_per_node, cpus_per_rank, qos, modules, setup, variables
        )
        listen = addresses.choose_address(interface, address)
        return cls._batch(launchers.SlurmEngines, job, nodes, listen, timeout, directory, dry_run)

    @classmethod
    def _batch(
        cls,
        launcher: type[launchers.JobEngines],
        job: job_scripts.PBSJob | job_scripts.SlurmJob,
        nodes: int,
        address: str,
        timeout: float,
        directory: str | Path | None,
        dry_run: bool,
    ) -> Any:
        """A cluster in a job, or the job's script."""
        job_scripts.check_nodes(nodes)
        engines, options = nodes * job.per_node, {"settings": asdict(job)}
        cluster = _cluster(launcher, engines, timeout, directory, address)
        preview = _launcher(cluster, engines, options)
        if dry_run:
            return preview.script
        launchers.check_command(preview.submit_command[0], "submits jobs")
        return cls(cluster, engines, timeout, options)

    @classmethod
    def attach(cls, name: str | None = None, directory: str | Path | None = None) -> Self:
        """A cluster that another kernel started.

        Args:
            name: Its name; None takes the one that there is.
            directory: As it was given to the cluster.

        Raises:
            ClusterError: There is none of that name, or there are several and none was named.
        """
        found = {path.stem.removeprefix("cluster-"): path for path in _security(directory).glob(f"cluster-{PREFIX}*.json")}
        if name is None and len(found) == 1:
            name = next(iter(found))
        if name not in found:
            raise ClusterError(
                f"There is no cluster {name!r}" if name else f"{len(found)} clusters are running",
                f"Running are: {', '.join(sorted(found)) or 'none'}",
                "Name one of them" if found else "Start one, for example aeris.Cluster.local(engines=4).start()",
            )
        cluster = ipp.Cluster.from_file(cluster_file=str(found[name]), log_level=logging.ERROR)
        attached = cls(cluster, cluster.n or 0)
        if attached._replaceable:
            attached._options = _local_options(attached.engines)
        attached._connect()
        return attached

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

    # ---- jobs

    def train(
        self,
        model: ModelConfig,
        data: str | Path | Store,
        out: str | Path,
        steps: int = 2000,
        batch: int = 4,
        micro_batch: int | None = None,
        period: slice | None = None,
        precision: str = "bfloat16",
        seed: int = 0,
        recipe: TrainingRecipe | None = None,
        sampling: SamplingRecipe | None = None,
        layout: Layout | None = None,
        checkpoint_every: int = 500,
        restarts: int = 0,
        start: str | Path | Run | Checkpoint | None = None,
    ) -> ClusterRun:
        """Trains on the engines; as `aeris.train`, and returns at once.

        Everything is checked here before an engine starts. Paths are seen by the engines under the names they have here.

        Args:
            model: As for `aeris.train`.
            data: As for `aeris.train`.
            out: As for `aeris.train`.
            steps: As for `aeris.train`.
            batch: As for `aeris.train`.
            micro_batch: As for `aeris.train`.
            period: As for `aeris.train`.
            precision: As for `aeris.train`.
            seed: As for `aeris.train`.
            recipe: As for `aeris.train`.
            sampling: As for `aeris.train`.
            layout: How engines share the work, one rank an engine; None makes every engine a data replica.
            checkpoint_every: As for `aeris.train`.
            restarts: How often to go on from the last checkpoint after an engine has gone.
            start: As for `aeris.train`.

        Raises:
            ClusterError: Another job is running, of this notebook or of another.
            ConfigurationError: The layout needs more engines than there are, or anything that `aeris.train` would refuse.
        """
        store = data if isinstance(data, Store) else Store.open(data)
        layout = layout or Layout(dp=self.engines)
        self._check_free(layout)
        begin = starting_point(start, out, model, store)
        configuration = configuration_of(model, store, steps, batch, micro_batch, period, precision, seed, recipe, sampling, layout, begin)  # type: ignore[arg-type]
        ends = None if period is None else tuple(None if end is None else str(end) for end in (period.start, period.stop))
        specification = TrainSpecification(
            layout,
            model,
            str(Path(store.path).absolute()),
            str(Path(out).absolute()),
            steps,
            batch,
            configuration.micro_batch,
            ends,  # type: ignore[arg-type]
            precision,
            seed,
            recipe,
            sampling,
            checkpoint_every,
            None if begin is None else begin.path,
        )
        run = start_run(Path(out), configuration, store, layout)
        if run.step < steps:
            ask(run)
        return ClusterRun(run.path.absolute(), self._submit(f"training {run.path.name}", specification, restarts))

    def forecast(
        self,
        checkpoint: str | Path | Run | Checkpoint,
        initial: xr.Dataset | str | Path,
        times: Sequence[Any] | np.ndarray,
        members: int = 16,
        lead: str | pd.Timedelta = "10d",
        out: str | Path = "forecast.zarr",
        seed: int = 0,
        batch: int = 8,
        sampling: SamplingRecipe | None = None,
        precision: str = "bfloat16",
        compile: bool = False,
        layout: Layout | None = None,
        restarts: int = 0,
        perturb: Perturbation | None = None,
    ) -> ClusterForecast:
        """Draws an ensemble on the engines; as `aeris.forecast`, and returns at once. The archive can be looked at while it fills.

        Args:
            checkpoint: As for `aeris.forecast`.
            initial: As for `aeris.forecast`; of a dataset, the initial states are written beside the archive for the engines.
            times: As for `aeris.forecast`.
            members: As for `aeris.forecast`.
            lead: As for `aeris.forecast`.
            out: As for `aeris.forecast`.
            seed: As for `aeris.forecast`.
            batch: As for `aeris.forecast`.
            sampling: As for `aeris.forecast`.
            precision: As for `aeris.forecast`.
            compile: As for `aeris.forecast`.
            layout: How engines share the work, one rank an engine; None deals batches of members to the engines.
            restarts: How often to go on where the archive stands after an engine has gone.
            perturb: As for `aeris.forecast`; past states are named by their path.

        Raises:
            ClusterError: Another job is running, of this notebook or of another.
            ConfigurationError: The layout needs more engines than there are, or anything that `aeris.forecast` would refuse.
        """
        opened = open_checkpoint(checkpoint)
        if not (opened.path / "manifest.json").is_file():
            raise ConfigurationError(
                f"The weights of {opened.path} are in this process's memory",
                "Engines read a checkpoint from its directory",
                "Write one, with aeris.load(..., out=DIRECTORY)",
            )
        layout = layout or Layout(dp=self.engines)
        self._check_free(layout)
        starts, _, _ = check_forecast(opened, initial, times, members, lead, batch, layout, perturb)
        check_reach(perturb, initial)
        path = Path(out).absolute()
        specification = ForecastSpecification(
            layout,
            str(opened.path.absolute()),
            _as_path(initial, starts, path),
            tuple(str(time) for time in starts),
            members,
            str(pd.Timedelta(lead)) if not isinstance(lead, str) else lead,
            str(path),
            seed,
            batch,
            sampling,
            precision,
            compile,
            perturb,
        )
        return ClusterForecast(path, self._submit(f"forecasting {path.name}", specification, restarts))

    def _submit(self, name: str, specification: Specification, restarts: int) -> Job:
        self._job = Job(name, specification, self, restarts)
        return self._job

    def _check_free(self, layout: Layout) -> None:
        if self._job is not None and not self._job.done:
            raise ClusterError(
                f"The cluster is {self._job.name}", "A cluster does one job at a time", "Wait for it (.wait()), or stop it (.stop())"
            )
        if busy := self._busy_after(SETTLED):
            raise ClusterError(
                f"Engines {', '.join(map(str, busy))} are busy with what another notebook or a cell of %%px has asked of them",
                "A cluster does one job at a time",
                "Wait for its end; a training ends early by aeris.Run.open(path).stop()",
            )
        if layout.world > len(self.client.ids):
            raise ConfigurationError(
                f"The layout {layout} needs {layout.world} engines and there are {len(self.client.ids)}",
                "Every rank is an engine",
                f"Start {layout.world} engines, or use a smaller layout",
            )

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

    def interrupt(self) -> None:
        """Interrupts what the engines do."""
        self.client.send_signal("SIGINT", sorted({*self._joined} & {*self.client.ids}))

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


def _check_engines(engines: int) -> None:
    if engines < 1:
        raise ConfigurationError(f"engines={engines}", "A cluster has at least one engine", "Use for example engines=4")


def _local_options(engines: int, threads: int | None = None) -> dict[str, Any]:
    """What engines of this machine are started with: their share of the cores, and collectives that no other machine can reach."""
    threads = threads or max(1, (os.cpu_count() or 1) // engines)
    return {"environment": {"OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": addresses.loopback()}}


def _security(directory: str | Path | None) -> Path:
    """The folder of the connection files."""
    if directory is not None:
        return Path(directory) / "security"
    return Path(ipp.Cluster(cluster_id="none", shutdown_atexit=False).profile_dir) / "security"


def _cluster(launcher: Any, engines: int, timeout: float, directory: str | Path | None, address: str | None = None) -> ipp.Cluster:
    """A cluster of ipyparallel with encryption on and quick heartbeats, that outlives this kernel."""
    options = {} if directory is None else {"profile_dir": str(Path(directory).absolute())}
    options |= {} if address is None else {"controller_ip": address, "controller_location": address}
    many = engines > MANY
    return ipp.Cluster(
        n=engines,
        engines=launcher,
        cluster_id=f"{PREFIX}{uuid.uuid4().hex[:6]}",
        controller_args=[
            "--IPController.enable_curve=True",
            f"--HeartMonitor.period={HEARTBEAT_MS * (10 if many else 1)}",
            f"--HeartMonitor.max_heartmonitor_misses={MISSED}",
            *(["--IPController.registration_timeout=600"] if many else []),
        ],
        engine_timeout=int(timeout),
        shutdown_atexit=False,
        log_level=logging.ERROR,
        **options,
    )


def _launcher(cluster: ipp.Cluster, engines: int, options: Mapping[str, Any]) -> Any:
    """The launcher that would start the engines, for a look at what it would do."""
    launcher = cluster.engine_launcher_class
    return launcher(
        parent=cluster, profile_dir=cluster.profile_dir, cluster_id=cluster.cluster_id, engine_set_id="engines", n=engines, **options
    )


def _as_path(initial: xr.Dataset | str | Path, times: np.ndarray, archive: Path) -> str:
    """Where engines read the initial states: of a dataset those times are written beside the archive."""
    if not isinstance(initial, xr.Dataset):
        return str(initial)
    path = archive.with_name(f"{archive.stem}.initial.zarr")
    partial = path.with_name(f".{path.name}.partial")
    initial.sel(time=times).drop_encoding().to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)
    return str(path)
