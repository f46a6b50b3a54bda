"""The rules of the house: who may import whom, what stays unread, what `import aeris` costs, and that nothing calls out."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import aeris

ROOT = Path(aeris.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

BASE = {"errors", "progress", "device", "run", "data"}
MAY_IMPORT = {
    "errors": set(),
    "progress": set(),
    "device": {"errors"},
    "run": {"errors"},
    "data": {"errors", "progress", "run"},
    "verification": {"errors", "progress", "run", "data"},
    "views": {"errors", "progress", "run", "data", "verification"},
    "model": BASE,
    "diffusion": {*BASE, "model"},
    "swipe": {"errors", "device", "model"},
    "interop": {*BASE, "model", "diffusion"},
    "training": {*BASE, "model", "diffusion", "swipe", "forecasting", "interop"},
    "forecasting": {*BASE, "model", "diffusion", "swipe", "training", "interop"},
    "cluster": {*BASE, "model", "diffusion", "swipe", "training", "forecasting", "interop"},
    "tuning": {*BASE, "model", "diffusion", "swipe", "training", "forecasting", "interop", "verification"},
    "lab": {"errors"},
    "demo": {*BASE, "model", "diffusion", "swipe", "training", "forecasting", "interop", "cluster", "verification", "views"},
    "cli": {*BASE, "model", "diffusion", "swipe", "training", "forecasting", "interop", "cluster", "verification", "views"}
    | {"tuning", "demo", "lab"},
    "__main__": {"cli"},
}
"""Rooms and the rooms that each may import. Those of one layer may import each other, in one direction."""

EXTRAS = [
    *("matplotlib", "cartopy", "hvplot", "holoviews", "geoviews", "panel", "param", "bokeh", "contourpy", "jupyterlab"),
    *("gcsfs", "aiohttp", "netCDF4", "cfgrib", "eccodes", "pyproj"),
    *("xclim", "huracanpy"),
]
"""Modules that only an extra installs."""

WITHOUT_TORCH = ("errors", "progress", "run", "data", "verification", "views")


def room(path: Path) -> str:
    """The room of a source file: its folder, or its own name where it stands alone."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def module(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path) for path in SOURCES}


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Every piece of a file's code."""
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever the import stands; `from package import module` names the module."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = (module(path) if path.name == "__init__.py" else module(path).rpartition(".")[0]).split(".")
                base = ".".join([*anchor[: len(anchor) - node.level + 1], *([base] if base else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            if base.split(".")[0] != "aeris":
                found |= {base, *names}  # a name of a stranger may be a module
            else:
                found |= names & MODULES | (set() if names <= MODULES else {base})
    return found


@cache
def attributes(path: Path) -> set[str]:
    """Every dotted name that a file uses, such as `torch.distributed.all_reduce`, and the shorter ones that begin it."""
    return {ast.unparse(node) for node in nodes(path) if isinstance(node, ast.Attribute)}


def rooms_imported(path: Path) -> set[str]:
    """The rooms of aeris that a file imports, but its own."""
    named = {name.split(".")[1] for name in imports(path) if name.startswith("aeris.")}
    return named - {room(path)}


def test_the_reader_of_imports_sees_all_kinds(tmp_path, monkeypatch):
    (tmp_path / "aeris" / "data").mkdir(parents=True)
    path = tmp_path / "aeris" / "data" / "probe.py"
    path.write_text(
        "import torch.fft as f\nfrom torch import distributed\n"
        "from aeris import device\nfrom ..model import layers\nfrom aeris.errors import DataError\n"
        "from . import grid\ndef f():\n    from aeris.views import maps\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path / "aeris")
    known = {"aeris.device", "aeris.model.layers", "aeris.data.grid"}
    monkeypatch.setattr(sys.modules[__name__], "MODULES", known)
    assert imports(path) == {"torch.fft", "torch", "torch.distributed", "aeris.errors", "aeris.views", *known}
    assert rooms_imported(path) == {"device", "model", "errors", "views"}


def test_every_room_has_its_layer():
    assert {room(path) for path in SOURCES} - {"__init__"} <= MAY_IMPORT.keys()


@pytest.mark.parametrize("path", [path for path in SOURCES if path != ROOT / "__init__.py"], ids=module)
def test_a_room_imports_only_lower_rooms(path):
    assert rooms_imported(path) <= MAY_IMPORT[room(path)]


def test_rooms_of_one_layer_import_in_one_direction():
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        if path != ROOT / "__init__.py":
            graph.setdefault(room(path), set()).update(rooms_imported(path))
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", [path for path in SOURCES if room(path) in WITHOUT_TORCH], ids=module)
def test_rooms_for_a_machine_without_torch_import_none(path):
    assert not [name for name in imports(path) if name.split(".")[0] == "torch"]


@pytest.mark.parametrize("path", [path for path in SOURCES if room(path) in ("model", "diffusion")], ids=module)
def test_the_network_and_its_diffusion_know_nothing_of_parallelism(path):
    assert not [name for name in imports(path) if name.startswith("torch.distributed")]
    assert "torch.distributed" not in attributes(path)


def test_swipe_takes_only_the_quadrants_of_the_model():
    found = {name for path in SOURCES if room(path) == "swipe" for name in imports(path)}
    assert {name for name in found if name.startswith("aeris.model")} <= {"aeris.model.quadrants"}


@pytest.mark.parametrize("path", [path for path in SOURCES if room(path) != "device"], ids=module)
def test_only_the_device_room_knows_kinds_of_device_and_their_collectives(path):
    assert not attributes(path) & {f"torch.{name}" for name in ("cuda", "xpu", "mps", "accelerator", "backends")}
    words = {node.value for node in nodes(path) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not words & {"cuda", "xpu", "nccl", "xccl", "ccl", "gloo"}  # "mps" is also a unit of wind
    assert not imports(path) & {"torch.cuda", "torch.xpu", "torch.mps"}
    assert not {name.split(".")[0] for name in imports(path)} & {"intel_extension_for_pytorch", "oneccl_bindings_for_pytorch"}


def unpicklings(source: str) -> list[str]:
    """The calls of a source that could run code from a file."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    readers = {f"{package}.{name}" for package in ("pickle", "cloudpickle", "dill", "joblib", "torch") for name in ("load", "loads")}
    found = [ast.unparse(call) for call in calls if ast.unparse(call.func) in readers | {"pickle.Unpickler", "pd.read_pickle"}]
    harmless = {"weights_only=True", "allow_pickle=False"}
    keywords = [(call, f"{word.arg}={ast.unparse(word.value)}") for call in calls for word in call.keywords]
    loose = [ast.unparse(call) for call, word in keywords if word.startswith(("allow_pickle=", "weights_only=")) and word not in harmless]
    restricted = {ast.unparse(call) for call, word in keywords if word == "weights_only=True"}
    return [call for call in found if call not in restricted] + loose


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("pickle.load(f)", 1),
        ("torch.load(path)", 1),
        ("torch.load(path, weights_only=False)", 2),
        ("torch.load(path, weights_only=True)", 0),
        ("np.load(path, allow_pickle=True)", 1),
        ("np.load(path); json.load(f)", 0),
    ],
)
def test_the_reader_of_unpicklings_sees_them(source, count):
    assert len(unpicklings(source)) == count


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_nothing_unpickles(path):
    assert unpicklings(path.read_text()) == []
    if room(path) != "interop":  # weights of others may stand in torch's own format, read with weights_only
        assert "torch.load" not in path.read_text()


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_but_the_standard_library():
    code = """
        import sys
        before = set(sys.modules)
        import aeris
        loaded = {name.split(".")[0] for name in set(sys.modules) - before}
        print(sorted(loaded - sys.stdlib_module_names), len([name for name in sys.modules if name.startswith("aeris.")]))
    """
    assert python(code) == "['aeris'] 0"


def test_every_public_name_is_there():
    for name in aeris.__all__:
        assert getattr(aeris, name) is not None
    assert set(aeris.__all__) <= set(dir(aeris))
    with pytest.raises(AttributeError, match="has no attribute 'forcast'"):
        aeris.forcast  # noqa: B018


BLOCK = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
for name in {names}:
    importlib.import_module(name)
"""
"""Imports modules on a machine that lacks others."""


def test_a_forecast_can_be_looked_at_without_torch():
    python(BLOCK.format(absent=["torch"], names=[module(path) for path in SOURCES if room(path) in WITHOUT_TORCH]))


@pytest.mark.slow
def test_the_core_alone_imports_everything_but_views_and_demo():
    """What comes with an extra is imported where it is used."""
    names = [module(path) for path in SOURCES if room(path) not in ("views", "demo", "__main__")]
    python(BLOCK.format(absent=EXTRAS, names=names))


@pytest.mark.slow
def test_invariant_6_nothing_calls_out():
    """Importing everything and making things asks for no name and opens no connexion."""
    names = sorted(MODULES - {"aeris.__main__"})
    python(f"""
        import importlib, sys

        def refuse(event, arguments):
            if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"):
                raise RuntimeError(f"{{event}} {{arguments}}")

        sys.addaudithook(refuse)
        for name in {names}:
            importlib.import_module(name)

        import aeris
        from aeris.device import explain
        aeris.Planet(grid=(32, 64), seed=0)
        aeris.presets.tiny()
        explain()
        """)


def test_files_of_tests_have_names_of_their_own():
    """Folders of tests are no packages: two files of one name cannot be collected together."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
