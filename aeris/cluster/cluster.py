"""The engines of a machine as one thing that a notebook starts, trains on and forecasts with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from aeris.cluster import addresses, job_scripts, launchers, requests
from aeris.cluster.controllers import check_engines, find_cluster, local_options, make_cluster, preview
from aeris.cluster.engines import Engines
from aeris.cluster.handles import ClusterForecast, ClusterRun, Job
from aeris.cluster.jobs import Specification
from aeris.data.store import Store
from aeris.errors import ClusterError, ConfigurationError
from aeris.forecasting.perturbations import Perturbation
from aeris.model.config import ModelConfig
from aeris.model.presets import SamplingRecipe, TrainingRecipe
from aeris.run import Run
from aeris.swipe import Layout
from aeris.training.checkpoint import Checkpoint

SETTLED = 2.0
"""Seconds in which the controller has heard of the end of a job that this notebook knows to have ended."""


class Cluster(Engines):
    """Engines, their controller, and the client of this notebook.

    Made by :meth:`local`, :meth:`mpi`, :meth:`pbs` or :meth:`slurm`, started by ``with`` or :meth:`start`, and found again from another
    kernel by :meth:`attach`. A cluster that was started outlives the kernel: it ends with its ``with`` block or by :meth:`stop`.
    Connections are always encrypted (CURVE).

    Attributes:
        engines: Number of engines.
        name: Name by which another kernel finds it.
    """

    _job: Job | None = None

    # ---- ways to start

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
        check_engines(engines)
        return cls(make_cluster("local", engines, timeout, directory), engines, timeout, local_options(engines, threads))

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
        check_engines(engines)
        site = job_scripts.machine_named(machine)
        placement = [] if machine == "generic" else site.placement(min(site.ranks_per_node, engines))
        options: dict[str, Any] = {
            "mpi_cmd": shlex.split(command),
            "mpi_args": [*placement, *arguments],
            "environment": {**site.environment, **(environment or {})},
        }
        if not dry_run:
            launchers.check_command(options["mpi_cmd"][0], "starts the engines")
        cluster = make_cluster(launchers.MPIEngines, engines, timeout, directory, addresses.choose_address(interface, address))
        return shlex.join(preview(cluster, engines, options).args) if dry_run else cls(cluster, engines, timeout, options)

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
        cluster = make_cluster(launcher, engines, timeout, directory, address)
        launch = preview(cluster, engines, options)
        if dry_run:
            return launch.script
        launchers.check_command(launch.submit_command[0], "submits jobs")
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
        cluster = find_cluster(name, directory)
        attached = cls(cluster, cluster.n or 0)
        if attached._replaceable:
            attached._options = local_options(attached.engines)
        attached._connect()
        return attached

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
        layout = layout or Layout(dp=self.engines)
        self._check_free(layout)
        specification, run = requests.training(
            model, data, out, steps, batch, micro_batch, period, precision, seed, recipe, sampling, layout, checkpoint_every, start
        )
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
        step: str | pd.Timedelta | None = None,
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
            step: As for `aeris.forecast`.
            perturb: As for `aeris.forecast`; past states are named by their path.

        Raises:
            ClusterError: Another job is running, of this notebook or of another.
            ConfigurationError: The layout needs more engines than there are, or anything that `aeris.forecast` would refuse.
        """
        layout = layout or Layout(dp=self.engines)
        self._check_free(layout)
        specification = requests.forecast(
            checkpoint, initial, times, members, lead, out, seed, batch, sampling, precision, compile, layout, step, perturb
        )
        path = Path(specification.out)
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
