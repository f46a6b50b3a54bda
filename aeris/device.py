"""The one place that knows cuda (ROCm too), xpu, mps and cpu, and which collectives join each of them.

The rest of the package asks :func:`choose` for a :class:`Device` and speaks to that. Intel's extension and oneCCL bindings are
used where they are installed for the running torch, and needed nowhere: torch has had ``xpu`` and ``xccl`` of its own since 2.8.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from aeris.errors import DeviceError

if TYPE_CHECKING:
    import torch

KINDS = ("cuda", "xpu", "mps", "cpu")
"""Kinds of device, the most capable first. AMD's GPUs are ``cuda`` to torch."""

KEPT_BYTES = 2**30
"""Most freed memory that a process on the CPU keeps for later tensors."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX, _LARGEST_ON_HEAP = -1, -3, -8, 2**25
"""Numbers of glibc's malloc.h, and the largest threshold that it takes."""

IPEX = "intel_extension_for_pytorch"
ONECCL = "oneccl_bindings_for_pytorch"
_DISTRIBUTIONS = {IPEX: (IPEX,), ONECCL: ("oneccl_bind_pt", ONECCL)}


@dataclass(frozen=True)
class Device:
    """A device that this process computes on.

    Attributes:
        kind: One of :data:`KINDS`.
        torch_device: The same for torch, with an index where there may be several.
        backend: Collectives that join such devices: ``nccl``, ``xccl``, ``ccl`` or ``gloo``; None where this torch has none.
        reason: Why this one was chosen, as a clause.
    """

    kind: str
    torch_device: torch.device
    backend: str | None
    reason: str

    def init_process_group(self, **rendezvous: Any) -> None:
        """Joins the default process group over this device's collectives.

        The device is set before the group is made; on Aurora the other order has been seen to hang (ezpz). It is bound to the
        group for NCCL alone, because DeviceMesh divides a bound group by ``split_group``, which xccl and ccl do not have.

        Args:
            **rendezvous: As for ``torch.distributed.init_process_group``: ``rank``, ``world_size``, ``init_method``, ``timeout``.

        Raises:
            DeviceError: No collectives for this device, or the oneCCL bindings do not load.
        """
        import torch

        if self.backend is None:
            raise _no_collectives(self.kind)
        if self.backend == "ccl":
            _load_oneccl()
        if self.kind in ("cuda", "xpu"):
            getattr(torch, self.kind).set_device(self.torch_device)
        bound = self.torch_device if self.backend == "nccl" else None
        torch.distributed.init_process_group(self.backend, device_id=bound, **rendezvous)

    def synchronize(self) -> None:
        """Waits until the device has done what it was given."""
        import torch

        if self.kind in ("cuda", "xpu"):
            getattr(torch, self.kind).synchronize(self.torch_device)
        elif self.kind == "mps":
            torch.mps.synchronize()

    def memory_gb(self) -> float:
        """Memory in use, in 10⁹ bytes.

        Returns:
            On cuda and xpu the peak of what tensors held since :meth:`reset_peak`; on mps what the driver holds now; on the CPU
            the resident set of the process.
        """
        import psutil
        import torch

        if self.kind in ("cuda", "xpu"):
            return getattr(torch, self.kind).max_memory_allocated(self.torch_device) / 1e9
        if self.kind == "mps":
            return torch.mps.driver_allocated_memory() / 1e9
        return psutil.Process().memory_info().rss / 1e9

    def reset_peak(self) -> None:
        """Lets :meth:`memory_gb` count its peak from here; without effect on mps and the CPU, which keep no peak."""
        import torch

        if self.kind in ("cuda", "xpu"):
            getattr(torch, self.kind).reset_peak_memory_stats(self.torch_device)

    def has_bfloat16(self) -> bool:
        """Whether bfloat16 is computed in hardware; elsewhere it is emulated, and slower than float32."""
        import torch

        if self.kind == "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        if self.kind == "xpu":
            return torch.xpu.is_bf16_supported(including_emulation=False)
        if self.kind == "mps":
            return torch.backends.mps.is_macos_or_newer(14, 0)
        if not hasattr(torch.cpu, "get_capabilities"):  # as in torch 2.8
            return torch.cpu._is_avx512_bf16_supported()
        able = torch.cpu.get_capabilities()
        return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))

    def peak_tflops(self, precision: str, size: int | None = None) -> float:
        """Speed of a matrix product, found by trying, in 10¹² operations a second.

        Args:
            precision: Its dtype.
            size: Rows and columns of the matrices; None takes what fills this kind of device.
        """
        import torch

        size = size or (768 if self.kind == "cpu" else 8192)
        factor = torch.ones(size, size, dtype=getattr(torch, precision), device=self.torch_device)
        taken = []
        for _ in range(6):
            self.synchronize()
            began = time.perf_counter()
            factor @ factor
            self.synchronize()
            taken.append(time.perf_counter() - began)
        return 2 * size**3 / min(taken) / 1e12

    def fastest_precision(self, size: int | None = None) -> Literal["bfloat16", "float32"]:
        """The dtype in which matrix products are faster here, found by trying.

        What a processor lists says little: some multiply bfloat16 in hardware and yet slower than float32.

        Args:
            size: Rows and columns of the matrices.
        """
        return "bfloat16" if self.peak_tflops("bfloat16", size) > self.peak_tflops("float32", size) else "float32"

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager:
        """A context in which torch computes what it safely can in `dtype`, for networks that do not cast by themselves."""
        import torch

        return torch.autocast(self.kind, dtype=dtype, enabled=dtype != torch.float32)

    def optimize(self, network: torch.nn.Module) -> torch.nn.Module:
        """Lets Intel's extension, where it fits, prepare a network for sampling; otherwise returns it as it is.

        Packing and casting of weights stay off: the layers cast by themselves, and checkpoints name whole float32 weights.

        Args:
            network: The network on this device. It is changed in place and put into evaluation mode.
        """
        ipex = _load(IPEX)[0] if self.kind in ("xpu", "cpu") else None
        if ipex is None:
            return network
        return ipex.optimize(network.eval(), inplace=True, weights_prepack=False)

    def reuse_freed_memory(self) -> None:
        """Lets the C library keep the memory of freed tensors on the CPU for the next ones; left alone where the environment sets it.

        By itself glibc gives every large block back, and each new tensor is paid for in page faults: a tenth to a third of a step.
        Up to :data:`KEPT_BYTES` stay with the process. Other C libraries know no such call.
        """
        chosen = any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ
        if self.kind == "cpu" and sys.platform == "linux" and not chosen:
            set_option = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: 0)
            set_option(_M_TRIM_THRESHOLD, KEPT_BYTES)
            set_option(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP)
            set_option(_M_ARENA_MAX, 1)

    def compile_available(self) -> bool:
        """Whether ``torch.compile`` has the compiler that it needs here; without one, training runs eager."""
        return _compile_obstacle(self.kind) is None


def choose(request: str | None = None, local_rank: int | None = None) -> Device:
    """The device for this process: the most capable that torch can see, or the one that is asked for.

    Args:
        request: A kind, with an index where there are several (``cpu``, ``xpu``, ``cuda:1``); None reads ``AERIS_DEVICE``.
        local_rank: Which of this machine's processes this is, so that each takes its own device; None reads ``LOCAL_RANK``,
            as ``torchrun`` sets it. Where a launcher shows each process only one device, all take number 0.

    Raises:
        DeviceError: The device asked for is not one that torch can see.
    """
    asked, source = (request, "device") if request else (os.environ.get("AERIS_DEVICE", ""), "AERIS_DEVICE")
    kind, index = _parse(asked, source) if asked else (_most_capable(), None)
    if index is None and kind in ("cuda", "xpu"):
        rank = int(os.environ.get("LOCAL_RANK", "0")) if local_rank is None else local_rank
        index = rank % _count(kind)
    return Device(kind, _torch_device(kind, index), _backend(kind), f"{source} asks for it" if asked else _capability_reason(kind))


@contextmanager
def deterministic() -> Iterator[None]:
    """A context in which an accelerator repeats itself bit for bit, at some cost in speed.

    It holds only if no cuBLAS call came before: cuBLAS reads its workspace setting, which is left in the environment, once.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    enabled, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


def explain(device: Device | None = None) -> str:
    """What was chosen and why, and what else stands on this machine, in lines to read.

    Args:
        device: The device to explain; None chooses one.

    Raises:
        DeviceError: ``AERIS_DEVICE`` asks for a device that torch cannot see.
    """
    import torch

    device = device or choose()
    obstacle = _compile_obstacle(device.kind)
    lines = {
        "device": f"{device.torch_device}: {device.reason}",
        "devices": "; ".join(_inventory(kind) for kind in KINDS if _count(kind)),
        "memory": _memory(device),
        "threads": f"{torch.get_num_threads()} of torch on {_usable_cores()} usable cores",
        "collectives": device.backend or str(_no_collectives(device.kind)),
        "bfloat16": "in hardware" if device.has_bfloat16() else "emulated, and usually slower than float32",
        "torch.compile": "available" if obstacle is None else f"not available, training runs eager: {obstacle}",
        "torch": torch.__version__,
        IPEX: _load(IPEX)[1],
        ONECCL: _status(ONECCL),
    }
    return "\n".join(f"{name:<28} {value}" for name, value in lines.items())


# ---- which device


def _count(kind: str) -> int:
    """How many devices of a kind torch can see."""
    import torch

    if kind == "cpu":
        return 1
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    accelerator = getattr(torch, kind)
    if kind == "xpu" and not accelerator.is_available():
        _load(IPEX)  # a torch built without xpu gets it from the extension
    return accelerator.device_count() if accelerator.is_available() else 0


def _most_capable() -> str:
    return next(kind for kind in KINDS if _count(kind))


def _capability_reason(kind: str) -> str:
    import torch

    if kind == "cpu":
        return f"torch {torch.__version__} sees no cuda, xpu or mps device"
    return f"the most capable that torch {torch.__version__} sees"


def _parse(asked: str, source: str) -> tuple[str, int | None]:
    """Kind and index of a request such as ``cuda:1``, checked against what is there."""
    kind, colon, number = asked.partition(":")
    if kind not in KINDS or (colon and not number.isdecimal()):
        raise DeviceError(
            f"{source}={asked!r}", f"A device is one of {', '.join(KINDS)}, with an index where there are several", f"Use {_usable()}"
        )
    count = _count(kind)
    if int(number or 0) >= count:
        import torch

        raise DeviceError(
            f"{source}={asked!r}, and torch {torch.__version__} sees {count} devices of the kind {kind}",
            "Only a device that torch can see can be used",
            f"Use {_usable()}",
        )
    return kind, int(number) if number else None


def _usable() -> str:
    """The requests that would do on this machine, as a list in words."""
    several = {kind: _count(kind) for kind in KINDS if _count(kind)}
    return " or ".join(kind if count == 1 else f"{kind}:0 to {kind}:{count - 1}" for kind, count in several.items())


def _torch_device(kind: str, index: int | None) -> torch.device:
    import torch

    return torch.device(kind) if index is None or kind in ("mps", "cpu") else torch.device(kind, index)


# ---- Intel's extension and the collectives


def _version(module: str) -> str | None:
    """The installed version of one of Intel's packages, read without importing it."""
    for distribution in _DISTRIBUTIONS[module]:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def _fits(module: str) -> bool:
    """Whether a package is installed for the running torch (the same major and minor version).

    It is compared before the import, because beside another torch the extension prints an error and ends the process.
    """
    import torch

    version = _version(module)
    return version is not None and version.split(".")[:2] == torch.__version__.split(".")[:2]


def _status(module: str) -> str:
    import torch

    version = _version(module)
    if version is None:
        return "not installed"
    return version if _fits(module) else f"{version}, not used: it needs the torch of its own version, and this is {torch.__version__}"


def _load(module: str) -> tuple[ModuleType | None, str]:
    """One of Intel's packages where it fits torch and its libraries load, and its state in words."""
    if not _fits(module):
        return None, _status(module)
    try:
        return import_module(module), _status(module)
    except (ImportError, OSError, SystemExit) as error:  # it exits on a CPU that is too old for it
        return None, f"{_version(module)}, not used: {error}"


def _load_oneccl() -> None:
    """Registers the backend ``ccl`` with torch; the bindings for XPU want the extension first."""
    _load(IPEX)
    module, state = _load(ONECCL)
    if module is None:
        raise DeviceError(f"{ONECCL} is {state}", "The backend ccl comes with these bindings", "Load the module that installed them")


def _backend(kind: str) -> str | None:
    """The collectives that join devices of a kind."""
    from torch import distributed

    if not distributed.is_available():
        return None
    if kind == "cuda":
        return "nccl" if distributed.is_nccl_available() else None
    if kind == "xpu" and distributed.is_xccl_available():
        return "xccl"
    if kind == "xpu":
        return "ccl" if _fits(IPEX) and _fits(ONECCL) else None
    return "ccl" if kind == "cpu" and _fits(ONECCL) else "gloo"


def _no_collectives(kind: str) -> DeviceError:
    import torch

    wanted = {"cuda": "nccl", "xpu": f"xccl, or {IPEX} and {ONECCL} of its version"}.get(kind, "gloo")
    return DeviceError(
        f"torch {torch.__version__} has no collectives for {kind}",
        f"Processes on {kind} are joined by {wanted}",
        "Run in one process, or install a torch that has them",
    )


# ---- compilers, memory, threads


@functools.cache
def _compile_obstacle(kind: str) -> str | None:
    """What ``torch.compile`` lacks here; None if it lacks nothing."""
    if kind == "mps":
        return "it is not used on mps"
    if kind != "cpu" and find_spec("triton") is None:
        return f"triton, which compiles for {kind}, is not installed"
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler {compiler!r} (CXX names another)"
    return None if _compiles(compiler) else f"{compiler} cannot build a Python extension (are the headers of Python installed?)"


def _compiles(compiler: str) -> bool:
    """Whether a compiler builds the smallest library of the sort that torch's inductor writes."""
    openmp = [] if sys.platform == "darwin" else ["-fopenmp"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("#include <Python.h>\nint probe() { return PY_VERSION_HEX; }\n")
        command = [compiler, "-shared", "-fPIC", *openmp, f"-I{sysconfig.get_paths()['include']}", str(source), "-o", f"{folder}/probe.so"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _inventory(kind: str) -> str:
    """Number and name of the devices of a kind."""
    import torch

    if kind not in ("cuda", "xpu"):
        return kind
    stack = f", ROCm {torch.version.hip}" if kind == "cuda" and torch.version.hip else ""
    return f"{_count(kind)} {kind} ({getattr(torch, kind).get_device_name(0)}{stack})"


def _memory(device: Device) -> str:
    """Memory of the device, or of the machine where the device has none of its own."""
    import psutil
    import torch

    if device.kind in ("cuda", "xpu"):
        total = getattr(torch, device.kind).get_device_properties(device.torch_device).total_memory
        return f"{total / 1e9:.1f} GB on the device"
    machine = psutil.virtual_memory()
    return f"{machine.total / 1e9:.1f} GB, of which {machine.available / 1e9:.1f} GB available"


def _usable_cores() -> int:
    """Cores that this process may run on, which a batch system can make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
