"""Controllers of ipyparallel as this package sets them: encrypted, quick to see what has gone, and found again by other kernels."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipyparallel as ipp

from aeris.cluster import addresses
from aeris.errors import ClusterError, ConfigurationError

PREFIX = "aeris-"
HEARTBEAT_MS = 1000
"""Milliseconds between two heartbeats that the controller asks of every engine."""
MISSED = 5
"""Heartbeats that an engine may miss before it counts as gone."""
MANY = 100
"""Engines from which on the controller asks for a tenth of the heartbeats and gives engines longer to register."""


def check_engines(engines: int) -> None:
    """Refuses a cluster of none.

    Raises:
        ConfigurationError: Less than one engine.
    """
    if engines < 1:
        raise ConfigurationError(f"engines={engines}", "A cluster has at least one engine", "Use for example engines=4")


def local_options(engines: int, threads: int | None = None) -> dict[str, Any]:
    """What engines of this machine are started with: their share of the cores, and collectives that no other machine can reach."""
    threads = threads or max(1, (os.cpu_count() or 1) // engines)
    return {"environment": {"OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": addresses.loopback()}}


def make_cluster(launcher: Any, engines: int, timeout: float, directory: str | Path | None, address: str | None = None) -> ipp.Cluster:
    """A cluster of ipyparallel with encryption on and quick heartbeats, that outlives this kernel.

    Args:
        launcher: Name or class of the launcher of its engines.
        engines: Number of engines.
        timeout: Seconds in which they start.
        directory: Where connection files and logs stand; None takes ipyparallel's own profile.
        address: Address that the controller listens on; None takes loopback.
    """
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


def find_cluster(name: str | None, directory: str | Path | None) -> ipp.Cluster:
    """A cluster that another kernel started.

    Args:
        name: Its name; None takes the one that there is.
        directory: As it was given to :func:`make_cluster`.

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
    return ipp.Cluster.from_file(cluster_file=str(found[name]), log_level=logging.ERROR)


def _security(directory: str | Path | None) -> Path:
    """The folder of the connection files."""
    if directory is not None:
        return Path(directory) / "security"
    return Path(ipp.Cluster(cluster_id="none", shutdown_atexit=False).profile_dir) / "security"


def preview(cluster: ipp.Cluster, engines: int, options: Mapping[str, Any]) -> Any:
    """The launcher that would start the engines, for a look at what it would do."""
    launcher = cluster.engine_launcher_class
    return launcher(
        parent=cluster, profile_dir=cluster.profile_dir, cluster_id=cluster.cluster_id, engine_set_id="engines", n=engines, **options
    )
