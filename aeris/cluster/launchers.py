"""ipyparallel's launchers: engines under `mpiexec`, or in one job of a batch system, and what to say when they fail.

The controller runs where the notebook runs. One `mpiexec` or `srun` starts all engines of a job, and each asks the controller for its
rank as its number. Its keys reach them by the connection file alone (`aeris.cluster.job_scripts`). The launchers also serve without
:class:`aeris.Cluster`, as ``ipyparallel.Cluster(engines="aeris-pbs")``.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
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

from aeris.cluster.job_scripts import KEYS, PBSJob, SlurmJob, check_path, engine_command, numbered
from aeris.errors import ClusterError

QUOTED = 12
"""Lines of a job's output that a failure quotes."""

FILES_PER_ENGINE, OTHER_FILES = 4, 256
"""Open files of the busiest process of a controller, generously: measured were 55 with one engine and 66 with five."""


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
        check_path(self.profile_dir)
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


def lives(process: int) -> bool:
    """Whether there is a process of this number that has not ended."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _session(process: int) -> int | None:
    try:
        return os.getsid(process)
    except (ProcessLookupError, PermissionError):
        return None
