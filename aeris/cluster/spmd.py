"""What runs on an engine: it says what it is, joins the others, and does its rank's part of a job.

Every function here is called on engines by its name, with JSON for arguments, so that no code travels. A job has files alone for input
and output; the engine's process group is opened once and kept from job to job.
"""

from __future__ import annotations

import gc
import os
import platform
import socket
import traceback
from importlib import metadata
from typing import Any

import torch.distributed as dist

from aeris import device as devices
from aeris.cluster import addresses
from aeris.cluster.jobs import ForecastSpecification, Specification, TrainSpecification

_store: dist.TCPStore | None = None
"""The rendezvous that this engine keeps for all, where it is the first rank."""


def describe() -> dict[str, Any]:
    """Who this engine is: host, process, versions, device."""
    return {
        "host": socket.gethostname(),
        "address": addresses.choose_address(),
        "process": os.getpid(),
        "python": platform.python_version(),
        "aeris": metadata.version("aeris"),
        "torch": metadata.version("torch"),
        "device": str(devices.choose().torch_device),
    }


def open_rendezvous(world: int, address: str) -> int:
    """Opens the rendezvous of a process group on this engine, which becomes its first rank.

    Args:
        world: Number of ranks.
        address: The address by which the others reach this engine; it listens on no other.

    Returns:
        The port that it listens on.
    """
    global _store
    leave()
    listening = socket.create_server((address, 0))  # torch itself would listen on every address
    port = int(listening.getsockname()[1])
    _store = dist.TCPStore(address, port, world, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
    return port


def join(rank: int, world: int, local_rank: int, address: str, port: int) -> str:
    """Joins the process group of a cluster's engines.

    Args:
        rank: This engine's rank.
        world: Number of ranks.
        local_rank: Which of its host's ranks it is.
        address: Where the rendezvous is kept.
        port: Its port.

    Returns:
        The backend that joins them.

    Raises:
        DeviceError: This engine has no collectives for its device.
    """
    if rank > 0:
        leave()
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(local_rank)}
    if world == 1:
        return "none"
    store = _store if rank == 0 else dist.TCPStore(address, port, world, is_master=False)
    devices.choose().init_process_group(store=store, rank=rank, world_size=world)
    return dist.get_backend()


def leave() -> None:
    """Leaves the process group, if there is one."""
    global _store
    if dist.is_initialized():
        dist.destroy_process_group()
    _store = None
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)


def run(specification: dict[str, Any]) -> str:
    """Does this rank's part of a job.

    Args:
        specification: As `aeris.cluster.jobs` writes it.

    Returns:
        The directory of the run, or the archive.
    """
    kinds: dict[str, type[Specification]] = {"train": TrainSpecification, "forecast": ForecastSpecification}
    try:
        return kinds[specification["kind"]].of_json(specification).carry_out()
    except BaseException as error:
        _let_go(error)
        raise


def _let_go(failure: BaseException | None) -> None:
    """Frees what the frames of a failure hold, which an engine keeps: other ranks wait on a connection for as long as it is open."""
    while failure is not None:
        traceback.clear_frames(failure.__traceback__)
        failure = failure.__cause__ or failure.__context__
    gc.collect()
