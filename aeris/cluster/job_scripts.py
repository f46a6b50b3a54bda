"""What is asked of a batch system, and the job script that asks it.

The keys of the connection stay in the connection file, which its owner alone can read: they are neither in the job script nor in the
environment of the job, which batch systems show to others.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aeris.errors import ConfigurationError

KEYS = "IPP_CONNECTION_INFO"
"""The variable by which ipyparallel would hand the connection, keys and all, to engines."""


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


def check_nodes(nodes: int) -> None:
    """Refuses a job without a node.

    Args:
        nodes: Number of nodes.

    Raises:
        ConfigurationError: There is less than one.
    """
    _check_count("nodes", nodes)


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


def check_path(path: str) -> None:
    """Refuses a directory that a directive cannot name.

    Args:
        path: The directory.

    Raises:
        ConfigurationError: It has blanks.
    """
    if re.search(r"\s", path):
        raise ConfigurationError(f"directory={path!r}", "Directives of batch systems take no blanks", "Use a path without blanks")
