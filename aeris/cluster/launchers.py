"""Engines under `mpiexec`, or in one job of a batch system: what is started, where the controller listens, what failed.

The controller runs where the notebook runs. One `mpiexec` or `srun` starts all engines of a job, and each asks the controller for its
rank as its number. The keys of the connection stay in the connection file, which its owner alone can read: they are neither in the job
script nor in the environment of the job, which batch systems show to others. The launchers are ipyparallel's own, and also serve without
:class:`aeris.Cluster`, as ``ipyparallel.Cluster(engines="aeris-pbs")``.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
from ipyparallel.cluster.launcher import (
    BatchEngineSetLauncher,
    MPIEngineSetLauncher,
    NotRunning,
    PBSEngineSetLauncher,
    SlurmEngineSetLauncher,
)
from traitlets import CRegExp, Dict, Float, Unicode

from aeris.errors import ClusterError, ConfigurationError

KEYS = "IPP_CONNECTION_INFO"
"""The variable by which ipyparallel would hand the connection, keys and all, to engines."""

QUOTED = 12
"""Lines of a job's output that a failure quotes."""

FAST_INTERFACES = ("hsn", "ib", "bond")
"""How the interfaces of Slingshot and InfiniBand begin, and those of networks in pairs."""
VIRTUAL_INTERFACES = ("lo", "docker", "br-", "virbr", "veth", "vnet", "tun", "tap", "cni", "podman")
"""How the interfaces begin that lead to no other machine."""

FILES_PER_ENGINE, OTHER_FILES = 4, 256
"""Open files of the busiest process of a controller, generously: measured were 55 with one engine and 66 with five."""

# ---- where the controller listens


def choose_address(interface: str | None = None, address: str | None = None) -> str:
    """The IPv4 address that engines on other machines reach this one by.

    Args:
        interface: Network interface to take it from, such as ``hsn0``.
        address: The address itself.

    Returns:
        The address given; else that of the interface given; else of a fast network, of any other, and at last loopback.

    Raises:
        ConfigurationError: This machine has no such interface or address.
    """
    there = _addresses()
    if address is not None and address not in there.values():
        raise ConfigurationError(f"address={address!r}", "The controller listens on an address of this machine", f"Use {_choices(there)}")
    if interface is not None and interface not in there:
        raise ConfigurationError(f"interface={interface!r}", "It is one that is up and has an IPv4 address", f"Use {_choices(there)}")
    if address is not None or interface is not None:
        return address or there[str(interface)]
    outward = [name for name in there if not name.startswith(VIRTUAL_INTERFACES)]
    outward.sort(
        key=lambda name: next((place for place, fast in enumerate(FAST_INTERFACES) if name.startswith(fast)), len(FAST_INTERFACES))
    )
    return there[outward[0]] if outward else "127.0.0.1"


def loopback() -> str:
    """The name of the interface that leads to no other machine."""
    return next((name for name, address in _addresses().items() if address == "127.0.0.1"), "lo")


def _addresses() -> dict[str, str]:
    """The IPv4 address of each interface that is up; link-local ones reach nobody."""
    states = psutil.net_if_stats()
    found = {}
    for name, entries in psutil.net_if_addrs().items():
        addresses = [entry.address for entry in entries if entry.family == socket.AF_INET and not entry.address.startswith("169.254.")]
        if addresses and name in states and states[name].isup:
            found[name] = addresses[0]
    return found


def _choices(there: Mapping[str, str]) -> str:
    return " or ".join(f"{name} ({address})" for name, address in there.items()) or "neither: this machine has none"


# ---- what a job script says


@dataclass(frozen=True)
class Machine:
    """What a job script says because of the machine that it runs on.

    Attributes:
        ranks_per_node: Engines that a node takes.
        modules: Environment modules to load.
        environment: Variables to set; a variable of the job's own comes after and wins.
        mpiexec: Arguments of its ``mpiexec``.
        cpu_bind: Processors of each rank of a node.
        needs: What a job cannot do without.
    """

    ranks_per_node: int
    modules: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    mpiexec: tuple[str, ...] = ()
    cpu_bind: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def placement(self, per_node: int) -> list[str]:
        """The arguments of ``mpiexec`` that say where ranks go.

        Args:
            per_node: Ranks on a node.
        """
        binding = ["--cpu-bind", f"list:{':'.join(self.cpu_bind[:per_node])}"] if self.cpu_bind else []
        return ["--ppn", str(per_node), *self.mpiexec, *binding]


# docs/cluster.md gives the source of every setting.
AURORA = Machine(
    ranks_per_node=12,
    modules=("frameworks",),
    environment={
        "ZE_FLAT_DEVICE_HIERARCHY": "FLAT",  # every tile is a device of its own
        "OMP_NUM_THREADS": "8",  # as many as a rank has cores below
        "CCL_PROCESS_LAUNCHER": "pmix",
        "CCL_ATL_TRANSPORT": "mpi",
        "CCL_KVS_MODE": "mpi",
        "CCL_KVS_USE_MPI_RANKS": "1",  # engines are numbered by their MPI rank
        "CCL_KVS_CONNECTION_TIMEOUT": "600",
        "CCL_CONFIGURATION": "cpu_gpu_dpcpp",
        "CCL_CONFIGURATION_PATH": "",
        "CCL_ALLREDUCE_SCALEOUT": "direct:0-1048576;rabenseifner:1048577-max",
        "CCL_BCAST": "double_tree",
        "CCL_ZE_CACHE_OPEN_IPC_HANDLES_THRESHOLD": "1024",
        "CCL_ZE_IPC_EXCHANGE": "sockets",
        "CCL_ATL_SYNC_COLL": "1",
        "CCL_OP_SYNC": "1",
        "FI_CXI_DEFAULT_CQ_SIZE": "1048576",
        "FI_CXI_CQ_FILL_PERCENT": "30",
        "FI_CXI_OFLOW_BUF_SIZE": "8388608",
        "FI_CXI_RX_MATCH_MODE": "hybrid",
        "FI_MR_CACHE_MONITOR": "disabled",
        "FI_MR_ZE_CACHE_MONITOR_ENABLED": "0",
        "GLOO_SOCKET_IFNAME": "hsn0",
        "PALS_PING_PERIOD": "240",
        "PALS_RPC_TIMEOUT": "240",
    },
    mpiexec=("--no-abort-on-failure",),  # who is left can go on without a rank that has gone
    # Cores 0 and 52 are the system's, and no rank's cores lie on two sockets.
    cpu_bind=("1-8", "9-16", "17-24", "25-32", "33-40", "41-48", "53-60", "61-68", "69-76", "77-84", "85-92", "93-100"),
    needs=("account", "filesystems"),
)
MACHINES = {"aurora": AURORA, "generic": Machine(ranks_per_node=1)}
"""Machines by name."""


def machine_named(name: str) -> Machine:
    """The machine of a name.

    Args:
        name: One of `MACHINES`.

    Raises:
        ConfigurationError: There is none of that name.
    """
    if name not in MACHINES:
        raise ConfigurationError(f"machine={name!r}", f"Known are {', '.join(MACHINES)}", "Use machine='generic'")
    return MACHINES[name]


@dataclass(frozen=True)
class PBSJob:
    """What is asked of PBS, checked when it is made.

    Attributes:
        queue: Queue.
        account: Project that pays; None where the machine asks for none.
        walltime: Longest time, as hours:minutes:seconds.
        filesystems: File systems that the job needs, where PBS asks for them.
        machine: One of `MACHINES`.
        ranks_per_node: Engines a node; None takes the machine's.
        modules: Environment modules to load; None takes the machine's.
        setup: Lines of shell that run before the engines start, such as the activation of an environment.
        environment: Variables of the engines.
    """

    queue: str
    account: str | None = None
    walltime: str = "01:00:00"
    filesystems: Sequence[str] = ()
    machine: str = "aurora"
    ranks_per_node: int | None = None
    modules: Sequence[str] | None = None
    setup: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        machine_named(self.machine)
        _check_walltime(self.walltime, r"\d+:[0-5]\d:[0-5]\d", "hours:minutes:seconds, such as 01:00:00")
        for name, needed in (("queue", True), ("account", "account" in self.site.needs)):
            _check_word(name, getattr(self, name), needed)
        if "filesystems" in self.site.needs and not self.filesystems:
            raise ConfigurationError("filesystems=()", "A job names the file systems that it uses", "Use filesystems=('home', 'flare')")
        _check_strings(filesystems=self.filesystems, modules=self.modules or (), setup=self.setup)
        _check_variables(self.environment)
        _check_count("ranks_per_node", self.per_node)
        if self.site.cpu_bind and self.per_node > len(self.site.cpu_bind):
            rule = f"A node of {self.machine} takes {len(self.site.cpu_bind)} engines"
            raise ConfigurationError(f"ranks_per_node={self.per_node}", rule, f"Use at most {len(self.site.cpu_bind)}")

    @property
    def site(self) -> Machine:
        """The machine."""
        return MACHINES[self.machine]

    @property
    def per_node(self) -> int:
        """Engines on a node."""
        return self.site.ranks_per_node if self.ranks_per_node is None else self.ranks_per_node

    def script(self, engines: int, name: str, output: str, command: Sequence[str]) -> str:
        """The job script.

        Args:
            engines: Number of engines.
            name: Name of the job.
            output: File that takes what the engines print.
            command: Command of one engine.
        """
        directives = [
            f"-N {name}",
            f"-l select={-(-engines // self.per_node)}",
            "-l place=scatter",
            f"-l walltime={self.walltime}",
            *([f"-l filesystems={':'.join(self.filesystems)}"] if self.filesystems else []),
            f"-q {self.queue}",
            *([f"-A {self.account}"] if self.account else []),
            "-j oe",
            f"-o {output}",
            "-k doe",  # written where it belongs while the job runs
            "-r n",  # a job that is run again would meet a controller that has numbered other engines
        ]
        launch = ["mpiexec", "-n", str(engines), *self.site.placement(min(self.per_node, engines))]
        rank = "${PALS_RANKID:-${OMPI_COMM_WORLD_RANK:-$PMI_RANK}}"
        modules = self.site.modules if self.modules is None else self.modules
        lines = ['cd "$PBS_O_WORKDIR"', *(f"module load {shlex.quote(module)}" for module in modules), *self.setup]
        return _script("PBS", directives, lines, {**self.site.environment, **self.environment}, launch, rank, command)


@dataclass(frozen=True)
class SlurmJob:
    """What is asked of Slurm, checked when it is made.

    Attributes:
        partition: Partition.
        account: Project that pays; None takes the user's own.
        walltime: Longest time, as hours:minutes:seconds or days-hours:minutes:seconds.
        ranks_per_node: Engines a node.
        gpus_per_node: Accelerators a node; None asks for none.
        cpus_per_rank: Cores of an engine; None takes the partition's.
        qos: Quality of service; None takes the default.
        modules: Environment modules to load.
        setup: Lines of shell that run before the engines start.
        environment: Variables of the engines.
    """

    partition: str
    account: str | None = None
    walltime: str = "01:00:00"
    ranks_per_node: int = 1
    gpus_per_node: int | None = None
    cpus_per_rank: int | None = None
    qos: str | None = None
    modules: Sequence[str] = ()
    setup: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_walltime(
            self.walltime, r"(\d+-)?\d+:[0-5]\d:[0-5]\d", "hours:minutes:seconds, after days and a hyphen if there are any: 1-12:00:00"
        )
        for name, needed in (("partition", True), ("account", False), ("qos", False)):
            _check_word(name, getattr(self, name), needed)
        for name in ("ranks_per_node", "gpus_per_node", "cpus_per_rank"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        _check_strings(modules=self.modules, setup=self.setup)
        _check_variables(self.environment)

    @property
    def per_node(self) -> int:
        """Engines on a node."""
        return self.ranks_per_node

    def script(self, engines: int, name: str, output: str, command: Sequence[str]) -> str:
        """The job script.

        Args:
            engines: Number of engines.
            name: Name of the job.
            output: File that takes what the engines print.
            command: Command of one engine.
        """
        asked = {
            "job-name": name,
            "nodes": -(-engines // self.ranks_per_node),
            "ntasks": engines,
            "ntasks-per-node": min(self.ranks_per_node, engines),
            "cpus-per-task": self.cpus_per_rank,
            "gpus-per-node": self.gpus_per_node,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "time": self.walltime,
            "output": output,
        }
        directives = [f"--{option}={value}" for option, value in asked.items() if value is not None]
        directives.append("--no-requeue")  # as PBS's -r n
        launch = ["srun", "--kill-on-bad-exit=0"]  # who is left can go on without a rank that has gone
        if self.cpus_per_rank:
            launch.append(f"--cpus-per-task={self.cpus_per_rank}")  # srun has not taken it from sbatch since 22.05
        lines = [*(f"module load {shlex.quote(module)}" for module in self.modules), *self.setup]
        return _script("SBATCH", directives, lines, self.environment, launch, "$SLURM_PROCID", command)


def engine_command(command: Sequence[str], profile: str, cluster: str) -> list[str]:
    """The command of one engine, without its number.

    Args:
        command: ipyparallel's command and arguments.
        profile: Directory of the profile, which holds the connection file.
        cluster: The cluster's name.
    """
    return [
        *command,
        f"--profile-dir={profile}",
        *([f"--cluster-id={cluster}"] if cluster else []),
        "--IPEngine.wait_for_url_file=60",  # a network file system may show the connection file late
        "--IPEngine.timeout=300",  # the controller may have thousands to register
        # Engines from the hundredth on wait their turn to register. ipyparallel would take the rank from mpi4py, which need not be here.
        "--IPEngine.use_mpi=True",
        "--IPEngine.init_mpi=",
    ]


def numbered(command: Sequence[str], rank: str) -> list[str]:
    """A command that gives an engine the rank of its process as its number.

    Args:
        command: As :func:`engine_command` makes it.
        rank: How the shell finds the rank.
    """
    return ["sh", "-c", f'exec "$@" --IPEngine.id="{rank}"', "engine", *command]


def _script(
    tag: str,
    directives: Sequence[str],
    setup: Sequence[str],
    environment: Mapping[str, str],
    launch: Sequence[str],
    rank: str,
    command: Sequence[str],
) -> str:
    lines = ["#!/bin/bash -l", *(f"#{tag} {directive}" for directive in directives), "", *setup]
    lines += [f"export {name}={shlex.quote(str(value))}" for name, value in environment.items()]
    lines += [f"unset {KEYS}", "", f"exec {shlex.join(launch)} \\", f"    {shlex.join(numbered(command, rank))}"]
    return "\n".join(lines) + "\n"


# ---- refusals


def check_nodes(nodes: int) -> None:
    """Refuses a job without a node.

    Args:
        nodes: Number of nodes.

    Raises:
        ConfigurationError: There is less than one.
    """
    _check_count("nodes", nodes)


def check_command(command: str, what: str) -> None:
    """Refuses a machine that lacks the command of a batch system.

    Args:
        command: The command.
        what: What it does.

    Raises:
        ClusterError: It is not on this machine.
    """
    if shutil.which(command) is None:
        raise ClusterError(
            f"There is no {command!r} on this machine",
            f"It {what}",
            "Start the notebook where jobs are submitted, or look at the script with dry_run=True",
        )


def allow_files(engines: int) -> None:
    """Lets the controller that this process starts hold a connection to every engine.

    Args:
        engines: Number of engines.

    Raises:
        ClusterError: This machine does not allow so many open files.
    """
    needed = OTHER_FILES + FILES_PER_ENGINE * engines
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ClusterError(
            f"{engines} engines need {needed} open files, and this machine allows {hard}",
            f"The controller holds up to {FILES_PER_ENGINE} files an engine",
            f"Use at most {(hard - OTHER_FILES) // FILES_PER_ENGINE} engines, or ask for a higher limit (ulimit -Hn)",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name}={value!r}", "It is a whole number from 1 on", f"Use for example {name}=1")


def _check_walltime(value: Any, pattern: str, form: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(pattern, value) or not re.search("[1-9]", value):
        raise ConfigurationError(f"walltime={value!r}", f"It is more than nothing, as {form}", "Use for example walltime='01:00:00'")


def _check_word(name: str, value: Any, needed: bool) -> None:
    """A name that stands in a directive must be one word, or it would be another directive."""
    if value is None and not needed:
        return
    if not isinstance(value, str) or not re.fullmatch(r"[\w.@+-]+", value, re.ASCII):
        rule = f"The {name} is a word of letters, digits and . _ - + @" + ("" if needed else ", or None")
        raise ConfigurationError(f"{name}={value!r}", rule, f"Give the {name} that your site has told you")


def _check_strings(**lists: Any) -> None:
    for name, values in lists.items():
        if isinstance(values, str) or not all(isinstance(value, str) and value for value in values):
            raise ConfigurationError(f"{name}={values!r}", "It is a list of strings", f"Use for example {name}=['home']")
        if name == "filesystems":
            for value in values:
                _check_word(name, value, needed=True)


def _check_variables(environment: Mapping[str, str]) -> None:
    for name in environment:
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise ConfigurationError(f"environment has {name!r}", "A variable is named by letters, digits and _", "Use for example NAME")


def _check_path(path: str) -> None:
    if re.search(r"\s", path):
        raise ConfigurationError(f"directory={path!r}", "Directives of batch systems take no blanks", "Use a path without blanks")


# ---- ipyparallel's launchers


class Keyless:
    """A launcher whose engines find their keys in the connection file, and not in their environment."""

    def get_env(self) -> dict[str, str]:
        """The environment without the keys."""
        return {name: value for name, value in super().get_env().items() if name != KEYS}  # type: ignore[misc]


class MPIEngines(Keyless, MPIEngineSetLauncher):
    """Engines that one ``mpiexec`` starts."""

    entrypoint_name = "aeris.cluster.launchers.MPIEngines"

    @property
    def program(self) -> list[str]:
        """The command of one engine; variables stand before it, as few kinds of ``mpiexec`` carry them to other machines."""
        variables = [f"{name}={value}" for name, value in self.get_env().items() if name not in self.cluster_env]
        command = engine_command([*self.engine_cmd, *self.engine_args], self.profile_dir, self.cluster_id)
        return ["env", *variables, *numbered(command, "${OMPI_COMM_WORLD_RANK:-${PALS_RANKID:-$PMI_RANK}}")]

    @property
    def program_args(self) -> list[str]:
        """None: they stand in the command."""
        return []


class JobEngines(Keyless, BatchEngineSetLauncher):
    """Engines in one job of a batch system, which is asked now and then how the job fares."""

    settings = Dict(config=True, help="What is asked of the batch system: the attributes of PBSJob or SlurmJob.").tag(to_dict=True)
    poll_seconds = Float(5.0, config=True, help="Seconds between two questions to the batch system.")
    phase = Unicode("queued", help="What the batch system said last: queued, running or ended.")

    _asked = float("-inf")

    @property
    def job(self) -> PBSJob | SlurmJob:
        """What is asked of the batch system."""
        raise NotImplementedError

    @property
    def script(self) -> str:
        """The job script for `n` engines."""
        _check_path(self.profile_dir)
        command = engine_command(self.program + self.program_args, self.profile_dir, self.cluster_id)
        return self.job.script(self.n, self.cluster_id or "ipengine", self.output_file, command)

    @classmethod
    def from_dict(cls, d: dict[str, Any], **kwargs: Any) -> Self:
        """The launcher of a job that another kernel submitted.

        Raises:
            NotRunning: The job has ended.
        """
        launcher = super().from_dict(d, **kwargs)
        if launcher.poll() is not None:
            raise NotRunning(f"Job {launcher.job_id} has ended")
        return launcher

    def write_batch_script(self, n: int = 1) -> None:
        """Writes the script beside the log of the job; a template of the user's own is filled in as ipyparallel does it."""
        self.batch_file = str(Path(self.output_file).with_suffix(".sh"))
        if self.batch_template or self.batch_template_file:
            super().write_batch_script(n)
            return
        self.n = n
        with open(os.open(self.batch_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700), "w") as file:
            file.write(self.script)

    def poll(self) -> str | None:
        """None while the job waits or runs, "ended" when it has ended; the batch system is not asked at every call."""
        if self.state == "after":
            return "ended"
        if time.monotonic() - self._asked > self.poll_seconds:
            self._asked = time.monotonic()
            self.phase = self._ask()
        if self.phase != "ended":
            return None
        self.notify_stop({"job_id": self.job_id})
        return "ended"

    def stop(self) -> str:
        """Deletes the job, if there is one."""
        if not self.job_id or self.state == "after":
            return ""
        try:
            return super().stop()
        except ClusterError:
            if self._ask() != "ended":  # else it ended before it could be deleted
                raise
            self.notify_stop({"job_id": self.job_id})
            return ""

    def get_output(self, remove: bool = False) -> str:
        """What the job has printed so far; its file stays."""
        path = Path(self.output_file)
        return path.read_text(errors="replace") if path.is_file() else ""

    def _ask(self) -> str:
        """Asks the batch system for the phase of the job."""
        raise NotImplementedError

    def _run_command(self, command: list[str], **kwargs: Any) -> str:
        """As ipyparallel does, without keys in the environment, and with what the command says of a failure."""
        environment = {name: value for name, value in kwargs.pop("env", os.environ).items() if name != KEYS}
        try:
            return super()._run_command(command, env=environment, stderr=subprocess.PIPE, **kwargs)
        except FileNotFoundError:
            raise ClusterError(
                f"There is no {command[0]!r} here", "It comes with the batch system", "Start where jobs are submitted"
            ) from None
        except subprocess.CalledProcessError as error:
            said = (error.stderr + error.output).decode(errors="replace").strip()
            raise ClusterError(
                f"{command[0]} refused (exit status {error.returncode}): {said or 'it said nothing'}",
                "The batch system decides which jobs it takes",
                f"Mend what it says, and look at {self.batch_file}",
            ) from None


class PBSEngines(JobEngines, PBSEngineSetLauncher):
    """Engines in one job of PBS, started by ``mpiexec``."""

    entrypoint_name = "aeris.cluster.launchers.PBSEngines"
    job_id_regexp = CRegExp(r"(?m)^\d+\S*$", config=True, help="Finds the job's name, with its server, in what qsub prints.")

    @property
    def job(self) -> PBSJob:
        """What is asked of PBS."""
        return PBSJob(**self.settings)

    def _ask(self) -> str:
        """By ``qstat``; a server that does not answer leaves what was known."""
        done = subprocess.run(["qstat", "-f", self.job_id], capture_output=True, text=True, check=False)
        if done.returncode in (35, 153):  # the job has finished; the server does not know it
            return "ended"
        state = re.search(r"job_state = (\w)", done.stdout)
        phases = {**dict.fromkeys("QHWTSU", "queued"), **dict.fromkeys("RBE", "running"), **dict.fromkeys("FXC", "ended")}
        return phases.get(state[1], self.phase) if state else self.phase


class SlurmEngines(JobEngines, SlurmEngineSetLauncher):
    """Engines in one job of Slurm, started by ``srun``."""

    entrypoint_name = "aeris.cluster.launchers.SlurmEngines"

    @property
    def job(self) -> SlurmJob:
        """What is asked of Slurm."""
        return SlurmJob(**self.settings)

    def _ask(self) -> str:
        """By ``squeue``, which lists no job that has ended; a controller that does not answer leaves what was known."""
        done = subprocess.run(["squeue", "--noheader", "--format=%T", f"--jobs={self.job_id}"], capture_output=True, text=True, check=False)
        if done.returncode:
            return "ended" if "Invalid job id" in done.stderr else self.phase
        states = done.stdout.split()
        if not states:
            return "ended"
        return "queued" if states[0] in ("PENDING", "CONFIGURING", "SUSPENDED", "REQUEUED") else "running"


def queued(launchers: Iterable[Any]) -> bool:
    """Whether the batch system has yet to start one of the jobs; what has ended is marked.

    ipyparallel would hear of an end from an event loop, which stands still between the calls of a notebook.

    Args:
        launchers: The cluster's sets of engines.
    """
    phases = []
    for launcher in launchers:
        if isinstance(launcher, JobEngines | MPIEngines) and launcher.poll() is None:
            phases.append(getattr(launcher, "phase", "running"))
    return "queued" in phases


def ended(engines: Any) -> bool:
    """Whether an engine of a set has ended, where each is a process of this machine; else whether all have.

    Args:
        engines: The launcher of the set.
    """
    for engine in list(getattr(engines, "launchers", {}).values()):
        engine.poll()  # one that has ended is marked in its set
    return engines.state == "after" or bool(_gone(engines))


def last_words(engines: Any) -> str:
    """The last lines that an engine has printed, one that has ended where there is one, and where all of its lines are.

    Args:
        engines: The launcher of a set of engines.
    """
    gone = _gone(engines)  # of these ipyparallel has kept the lines and removed the file
    text = engines.outputs[gone[0]] if gone else engines.get_output(remove=False)
    where = [f"job {engines.job_id}"] if isinstance(engines, JobEngines) else []
    where += [engines.output_file] if engines.output_file else []
    return "\n".join([*(text.strip().splitlines()[-QUOTED:] or ["none"]), *([f"({', '.join(where)})"] if where else [])])


def _gone(engines: Any) -> list[str]:
    """Which engines of a set, where each is a process of this machine, have ended."""
    return list((engines.stop_data or {}).get("engines", {}))


def end_session(leader: int) -> None:
    """Ends what is left of a session whose first process has gone.

    A controller that is stopped while it starts, because a batch system has refused the job, leaves its schedulers behind.

    Args:
        leader: Process that began the session; none if it is not positive.
    """
    left = [process for process in psutil.pids() if leader > 0 and _session(process) == leader]
    for process in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGTERM)


def _session(process: int) -> int | None:
    try:
        return os.getsid(process)
    except (ProcessLookupError, PermissionError):
        return None
