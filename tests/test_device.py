"""The choice of a device, with stand-ins for what this machine lacks."""

from __future__ import annotations

import importlib
import mmap
import os
import subprocess
import sys
import textwrap
from importlib import metadata
from types import ModuleType, SimpleNamespace

import psutil
import pytest
import torch

from aeris import device
from aeris.device import IPEX, ONECCL, Device, choose, deterministic, explain
from aeris.errors import DeviceError
from aeris.model.network import ModelConfig, Network

TORCH = ".".join(torch.__version__.split(".")[:2])


class Machine:
    """A stand-in for the devices, packages and collectives that torch would find."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.versions: dict[str, str] = {}
        self.modules: dict[str, ModuleType] = {}
        self.imported: list[str] = []
        self.reveals = ""
        self.calls: list[tuple] = []
        real_import = importlib.import_module
        patch.setattr(device.metadata, "version", self._version)
        patch.setattr(device, "import_module", lambda name: self._import(name) if name in (IPEX, ONECCL) else real_import(name))
        for variable in ("AERIS_DEVICE", "LOCAL_RANK", "CXX"):
            patch.delenv(variable, raising=False)
        for kind in ("cuda", "xpu"):
            self.devices(kind, 0)
        patch.setattr(torch.backends.mps, "is_available", lambda: False)
        self.collectives()

    def _version(self, name: str) -> str:
        if name not in self.versions:
            raise metadata.PackageNotFoundError(name)
        return self.versions[name]

    def _import(self, name: str) -> ModuleType:
        self.imported.append(name)
        if name not in self.modules:
            raise SystemExit(f"{name} ends the process")
        if self.reveals:
            self.devices(self.reveals, 6)
        return self.modules[name]

    def devices(self, kind: str, count: int) -> None:
        """Lets torch see `count` devices of a kind."""
        accelerator = getattr(torch, kind)
        self.patch.setattr(accelerator, "is_available", lambda: count > 0)
        self.patch.setattr(accelerator, "device_count", lambda: count)
        self.patch.setattr(accelerator, "get_device_name", lambda index: f"stand-in {kind}")
        self.patch.setattr(accelerator, "get_device_properties", lambda index: SimpleNamespace(total_memory=64 * 10**9))
        self.patch.setattr(accelerator, "is_bf16_supported", lambda including_emulation=True: not including_emulation)
        self.patch.setattr(accelerator, "set_device", lambda where: self.calls.append(("set_device", where)))
        self.patch.setattr(accelerator, "synchronize", lambda where: self.calls.append(("synchronize", where)))
        self.patch.setattr(accelerator, "max_memory_allocated", lambda where: 3 * 10**9)
        self.patch.setattr(accelerator, "reset_peak_memory_stats", lambda where: self.calls.append(("reset", where)))

    def collectives(self, nccl: bool = False, xccl: bool = False) -> None:
        """Lets torch.distributed have these backends beside gloo."""
        self.patch.setattr(torch.distributed, "is_nccl_available", lambda: nccl)
        self.patch.setattr(torch.distributed, "is_xccl_available", lambda: xccl)

    def install(self, module: str, version: str, content: ModuleType | None = None) -> None:
        """Installs one of Intel's packages; without content, its import ends the process."""
        self.versions["oneccl_bind_pt" if module == ONECCL else module] = version
        if content is not None:
            self.modules[module] = content


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def extension(**functions) -> ModuleType:
    module = ModuleType(IPEX)
    module.__dict__.update(functions)
    return module


def test_importing_the_module_imports_no_torch():
    code = "import sys, aeris.device; print(sorted(set(sys.modules) & {'torch', 'psutil', 'numpy'}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("present", "expected"),
    [((), "cpu"), (("mps",), "mps"), (("mps", "xpu"), "xpu:0"), (("mps", "xpu", "cuda"), "cuda:0")],
)
def test_the_most_capable_device_is_chosen(machine, monkeypatch, present, expected):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in present)
    for kind in {"cuda", "xpu"} & set(present):
        machine.devices(kind, 2)
    chosen = choose()
    assert str(chosen.torch_device) == expected
    assert chosen.kind == expected.split(":")[0]
    assert torch.__version__ in chosen.reason


def test_the_environment_overrides_the_choice(machine, monkeypatch):
    machine.devices("cuda", 2)
    monkeypatch.setenv("AERIS_DEVICE", "cpu")
    assert choose().torch_device == torch.device("cpu")
    assert choose().reason == "AERIS_DEVICE asks for it"
    monkeypatch.setenv("AERIS_DEVICE", "cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert choose().torch_device == torch.device("cuda:1")
    assert choose("cuda").torch_device == torch.device("cuda:0"), "an argument goes before the environment"


def test_every_process_of_a_machine_takes_its_own_device(machine, monkeypatch):
    machine.devices("xpu", 12)
    assert [choose(local_rank=rank).torch_device.index for rank in (0, 5, 11)] == [0, 5, 11]
    monkeypatch.setenv("LOCAL_RANK", "7")
    assert choose().torch_device.index == 7
    machine.devices("xpu", 1)
    assert choose().torch_device.index == 0, "a launcher that shows each process one device"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("tpu", ["'tpu'", "cuda, xpu, mps, cpu"]),
        ("cuda:one", ["'cuda:one'", "index"]),
        ("cuda:", ["'cuda:'"]),
        ("xpu", ["0 devices of the kind xpu"]),
        ("cuda:2", ["2 devices of the kind cuda", "cuda:0 to cuda:1 or cpu"]),
        ("cpu:1", ["1 devices of the kind cpu"]),
    ],
)
def test_a_device_that_is_not_there_is_refused(machine, monkeypatch, request_, words):
    machine.devices("cuda", 2)
    monkeypatch.setenv("AERIS_DEVICE", request_)
    with pytest.raises(DeviceError) as refusal:
        choose()
    for word in ["AERIS_DEVICE=", *words]:
        assert word in str(refusal.value)
    with pytest.raises(DeviceError, match="device="):
        choose(request_)


def test_collectives_of_each_kind(machine, monkeypatch):
    assert choose().backend == "gloo"
    machine.devices("cuda", 1)
    assert choose().backend is None
    machine.collectives(nccl=True)
    assert choose().backend == "nccl"
    machine.devices("cuda", 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose().backend == "gloo"
    machine.devices("xpu", 1)
    assert choose().backend is None
    machine.install(IPEX, f"{TORCH}.10+xpu")
    assert choose().backend is None, "the bindings are wanted too"
    machine.install(ONECCL, f"{TORCH}.0+xpu")
    assert choose().backend == "ccl"
    machine.collectives(xccl=True)
    assert choose().backend == "xccl", "torch's own go before the bindings"


def test_the_cpu_takes_oneccl_only_beside_its_own_torch(machine):
    machine.install(ONECCL, "1.0.0+cpu")
    assert choose().backend == "gloo"
    machine.install(ONECCL, f"{TORCH}.100+cpu")
    assert choose().backend == "ccl"


def test_a_torch_without_collectives_has_none(machine, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    assert choose().backend is None
    with pytest.raises(DeviceError, match="gloo"):
        choose().init_process_group(rank=0, world_size=1)


def test_an_extension_for_another_torch_is_never_imported(machine):
    machine.install(IPEX, "1.13.0")
    machine.install(ONECCL, "1.13.0")
    network = torch.nn.Linear(2, 2)
    assert choose().optimize(network) is network
    assert network.training, "an untouched network keeps its mode"
    text = explain()
    assert "1.13.0, not used" in text
    assert torch.__version__ in text
    assert machine.imported == []


def test_the_stand_in_does_end_the_process_when_imported(machine):
    """Proof that the test above would notice an import."""
    machine.install(IPEX, f"{TORCH}.0")
    network = torch.nn.Linear(2, 2)
    assert choose().optimize(network) is network
    assert machine.imported
    assert "ends the process" in explain()


def test_an_extension_that_fits_prepares_the_network(machine):
    seen = {}

    def optimize(network, **options):
        seen.update(options, training=network.training)
        return network

    machine.install(IPEX, f"{TORCH}.0+cpu", extension(optimize=optimize))
    network = torch.nn.Linear(2, 2)
    assert choose().optimize(network) is network
    assert seen == {"inplace": True, "weights_prepack": False, "training": False}


def test_other_kinds_do_without_the_extension(machine):
    machine.install(IPEX, f"{TORCH}.0")
    machine.devices("cuda", 1)
    network = torch.nn.Linear(2, 2)
    assert choose("cuda").optimize(network) is network
    assert machine.imported == []


def test_a_torch_without_xpu_gets_it_from_the_extension(machine):
    machine.install(IPEX, f"{TORCH}.10+xpu", extension())
    machine.reveals = "xpu"
    assert str(choose().torch_device) == "xpu:0"


def test_the_backend_ccl_loads_the_extension_before_the_bindings(machine, monkeypatch):
    joined = {}
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **options: joined.update(options, backend=backend))
    machine.devices("xpu", 2)
    machine.install(IPEX, f"{TORCH}.10+xpu", ModuleType(IPEX))
    machine.install(ONECCL, f"{TORCH}.0+xpu", ModuleType(ONECCL))
    chosen = choose(local_rank=1)
    chosen.init_process_group(rank=1, world_size=2)
    assert machine.imported == [IPEX, ONECCL]
    assert machine.calls == [("set_device", torch.device("xpu:1"))]
    assert joined == {"backend": "ccl", "device_id": None, "rank": 1, "world_size": 2}


def test_bindings_that_do_not_load_are_refused(machine):
    machine.install(ONECCL, f"{TORCH}.0+cpu")
    with pytest.raises(DeviceError, match=ONECCL):
        choose().init_process_group(rank=0, world_size=1)


@pytest.mark.parametrize(("kind", "backend", "bound"), [("cuda", "nccl", True), ("xpu", "xccl", False)])
def test_the_device_is_set_before_the_group_is_made(machine, monkeypatch, kind, backend, bound):
    machine.devices(kind, 4)
    machine.collectives(nccl=True, xccl=True)
    where = torch.device(kind, 3)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda name, **options: machine.calls.append((name, options)))
    choose(local_rank=3).init_process_group()
    assert machine.calls == [("set_device", where), (backend, {"device_id": where if bound else None})]


@pytest.mark.slow
def test_processes_on_the_cpu_are_joined(tmp_path):
    """Two real processes sum a number over gloo."""
    code = textwrap.dedent(
        f"""
        import sys, torch
        from aeris.device import choose
        choose("cpu").init_process_group(init_method="file://{tmp_path}/store", rank=int(sys.argv[1]), world_size=2)
        total = torch.tensor([1.0 + int(sys.argv[1])])
        torch.distributed.all_reduce(total)
        print(total.item())
        torch.distributed.destroy_process_group()
        """
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen([sys.executable, "-c", code, str(rank)], stdout=subprocess.PIPE, text=True, env=environment) for rank in (0, 1)
    ]
    assert [rank.communicate(timeout=120)[0].split()[-1] for rank in ranks] == ["3.0", "3.0"], "gloo may greet before"


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_an_accelerator_is_asked_for_its_own_device(machine, kind):
    machine.devices(kind, 2)
    chosen = choose(f"{kind}:1")
    chosen.synchronize()
    chosen.reset_peak()
    assert machine.calls == [("synchronize", torch.device(kind, 1)), ("reset", torch.device(kind, 1))]
    assert chosen.memory_gb() == 3.0
    assert chosen.has_bfloat16(), "asked without emulation"


def test_mps_has_calls_of_its_own(machine, monkeypatch):
    waited = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: major <= 13)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append(True))
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2 * 10**9)
    chosen = choose()
    chosen.synchronize()
    chosen.reset_peak()
    assert waited == [True]
    assert chosen.memory_gb() == 2.0
    assert not chosen.has_bfloat16()
    assert not chosen.compile_available()


def test_memory_on_the_cpu_is_the_resident_set():
    here = choose("cpu")
    before = here.memory_gb()
    assert before == pytest.approx(psutil.Process().memory_info().rss / 1e9, rel=0.05)
    # Not a tensor: the allocator may give it memory that an earlier test freed and that is resident already.
    with mmap.mmap(-1, 100_000_000) as ballast:
        for page in range(0, len(ballast), mmap.PAGESIZE):
            ballast[page] = 1
        assert here.memory_gb() - before == pytest.approx(0.1, abs=0.05)
    here.reset_peak()
    here.synchronize()


def test_memory_of_freed_tensors_is_kept_by_glibc_and_left_to_the_environment(monkeypatch):
    """The numbers are those of glibc's malloc.h; what a setting saves is measured, not tested: page faults vary from run to run."""
    asked: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda option, value: asked.append((option, value)))
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(device.sys, "platform", "linux")
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    choose("cpu").reuse_freed_memory()
    assert dict(asked) == {-1: device.KEPT_BYTES, -3: 32 * 2**20, -8: 1}
    asked.clear()
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: SimpleNamespace())
    choose("cpu").reuse_freed_memory()  # a library without the call
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: library)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    choose("cpu").reuse_freed_memory()
    assert asked == []


@pytest.mark.parametrize(
    ("able", "expected"), [({"avx512_bf16": True}, True), ({"bf16": True}, True), ({"avx2": True}, False), ({}, False)]
)
def test_bfloat16_on_the_cpu_is_what_its_instructions_say(machine, monkeypatch, able, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert choose("cpu").has_bfloat16() is expected


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_on_a_torch_that_lists_no_instructions(machine, monkeypatch, able):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    assert choose("cpu").has_bfloat16() is able


def test_autocast_computes_in_the_dtype():
    one = torch.ones(2, 2)
    with choose("cpu").autocast(torch.bfloat16):
        assert (one @ one).dtype == torch.bfloat16
    with choose("cpu").autocast(torch.float32):
        assert (one @ one).dtype == torch.float32


@pytest.fixture
def fresh_probe():
    device._compile_obstacle.cache_clear()
    yield
    device._compile_obstacle.cache_clear()


def test_compile_needs_a_compiler_that_works(machine, monkeypatch, fresh_probe, tmp_path):
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert not choose("cpu").compile_available()
    assert "cannot build" in explain()
    device._compile_obstacle.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "'no-such-compiler'" in explain()


def test_compile_on_an_accelerator_needs_triton(machine, monkeypatch, fresh_probe):
    machine.devices("cuda", 1)
    monkeypatch.setattr(device, "_compiles", lambda compiler: True)
    monkeypatch.setattr(device.shutil, "which", lambda compiler: compiler)
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    assert not choose("cuda").compile_available()
    device._compile_obstacle.cache_clear()
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    assert choose("cuda").compile_available()


@pytest.mark.full
def test_where_a_compiler_works_torch_compiles():
    """The probe agrees with torch itself."""
    if not choose("cpu").compile_available():
        pytest.skip("no C++ compiler here")
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: torch.sin(x) + 1)
    x = torch.linspace(0, 1, 64)
    torch.testing.assert_close(compiled(x), torch.sin(x) + 1)


def test_deterministic_holds_inside_and_is_undone_outside(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with pytest.raises(KeyError), deterministic():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark


def test_explain_tells_what_was_chosen_and_why(machine):
    machine.devices("cuda", 4)
    machine.install(ONECCL, f"{TORCH}.0+cpu")
    text = explain(choose("cuda:2"))
    lines = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert lines["device"] == "cuda:2: device asks for it"
    assert "4 cuda (stand-in cuda" in lines["devices"]
    assert "cpu" in lines["devices"]
    assert lines["memory"] == "64.0 GB on the device"
    assert "has no collectives for cuda" in lines["collectives"]
    assert lines["torch"] == torch.__version__
    assert lines[IPEX] == "not installed"
    assert lines[ONECCL] == f"{TORCH}.0+cpu"
    assert str(torch.get_num_threads()) in lines["threads"]


def test_a_device_is_a_value():
    assert choose("cpu") == Device("cpu", torch.device("cpu"), choose("cpu").backend, "device asks for it")


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_real_extension_prepares_the_network(precision, tolerance):
    """Where Intel's extension for this torch is installed, its velocity is that of plain torch, and the weights stay as they are."""
    if not device._fits(IPEX):
        pytest.skip(f"{IPEX} for torch {TORCH} is not installed ({device._status(IPEX)})")
    config = ModelConfig(grid=(16, 32), channels=("2m_temperature", "geopotential_500"), dim=32, depth=2, heads=2, mlp=64, window=(8, 8))
    network = Network(config)
    network.compute_dtype = precision
    torch.nn.init.normal_(network.head.project.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    noisy, condition = (torch.randn(2, 2, 4, 4, 16, size) for size in (2, config.conditions))
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        plain = network(noisy, condition, torch.tensor([0.3, 1.2]))
        prepared = choose("cpu").optimize(network)(noisy, condition, torch.tensor([0.3, 1.2]))
    assert device._load(IPEX)[0] is not None, device._load(IPEX)[1]
    assert (prepared - plain).norm() <= tolerance * plain.norm()
    assert network.state_dict().keys() == weights.keys()
    for name, value in network.state_dict().items():
        assert value.dtype == weights[name].dtype
        assert torch.equal(value, weights[name])


def test_the_fastest_precision_is_the_one_that_multiplies_faster(monkeypatch):
    """The clock is a stand-in that charges each product by its dtype."""
    cost, now, multiply = {torch.float32: 1.0, torch.bfloat16: 1.0}, [0.0], torch.Tensor.__matmul__

    def charged(one, two):
        now[0] += cost[one.dtype]
        return multiply(one, two)

    monkeypatch.setattr(torch.Tensor, "__matmul__", charged)
    monkeypatch.setattr(device.time, "perf_counter", lambda: now[0])
    for price, expected in ((0.4, "bfloat16"), (2.5, "float32")):
        cost[torch.bfloat16] = price
        assert device.choose("cpu").fastest_precision(8) == expected
