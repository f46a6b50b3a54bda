"""One set of packages in every form that it is written down, and a wheel that holds what it should."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import aeris
from aeris.device import IPEX, ONECCL

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"pytorch": "torch"}


def named(lines: list[str]) -> dict[str, Requirement]:
    """Requirements by their canonical name."""
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def constraints(name: str) -> dict[str, Requirement]:
    """The pins of a constraints file."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return named([line for line in lines if line])


def extras(*names: str) -> dict[str, Requirement]:
    """The requirements of the core and of some extras."""
    return named([*PROJECT["dependencies"], *(line for name in names for line in PROJECT["optional-dependencies"][name])])


def admitted(requirement: Requirement) -> dict[str, str]:
    """The least release that a requirement admits, and the first that it does not; 2.8 for both 2.8 and 2.8.0a0."""
    bounds = {bound.operator: re.sub(r"(\.0)+$", "", Version(bound.version).base_version) for bound in requirement.specifier}
    assert ">=" in bounds and set(bounds) <= {">=", "<"}
    return bounds


def test_the_conda_environment_is_that_of_the_project():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    conda = named([entry for entry in listed if isinstance(entry, str) and entry != "pip"])
    assert pip == ["-e ."]
    assert str(conda.pop("python").specifier) == PROJECT["requires-python"]
    found = {CONDA_NAMES.get(name, name): admitted(requirement) for name, requirement in conda.items()}
    assert found == {name: admitted(requirement) for name, requirement in extras("views", "sources", "extremes").items()}


def test_the_aurora_section_can_be_put_in_place():
    """Uncommented, it is a list entry of the same file, and it installs what its constraints name."""
    section = (ROOT / "environment.yml").read_text().partition("# Aurora\n")[2]
    entry = "".join(re.sub("^# ?", "", line) for line in section.splitlines(keepends=True) if re.match(r"# {3,}- ", line))
    (block,) = yaml.safe_load(entry)
    assert f"--constraint {ROOT.joinpath('constraints-aurora.txt').name}" in block["pip"]
    assert set(constraints("constraints-aurora.txt")) <= {canonicalize_name(line) for line in block["pip"] if not line.startswith("-")}
    assert "oneccl_bindings_for_pytorch" in section


def test_intels_packages_are_of_the_torch_beside_them_and_need_no_other_aeris():
    pins = constraints("constraints-aurora.txt")
    assert set(pins) == {"torch", "intel-extension-for-pytorch", "oneccl-bind-pt"}
    assert {str(pin.specifier) for pin in pins.values()} == {"==2.8.*"}
    ours = extras()["torch"].specifier
    for build in ("2.8.0", "2.8.0+xpu", "2.8.0a0+gitba56102"):
        assert ours.contains(build, prereleases=True)
        assert pins["torch"].specifier.contains(build, prereleases=True)


def test_constraints_pin_everything_that_the_project_names():
    pins = constraints("constraints.txt")
    for name, requirement in extras(*PROJECT["optional-dependencies"]).items():
        assert name in pins, f"{name} has no pin"
        (pin,) = pins[name].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{pins[name]} is not {requirement}"


def third_party_modules() -> set[str]:
    """The top-level modules that the package imports from elsewhere."""
    nodes = [node for path in (ROOT / "aeris").rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"aeris"}


def test_the_project_names_everything_that_it_imports():
    providers = packages_distributions()
    named_ones = set(extras("views", "sources", "extremes"))
    for name in third_party_modules() - {IPEX, ONECCL}:
        found = {canonicalize_name(provider) for provider in [name, *providers.get(name, [])]}
        assert found & named_ones, f"{name} comes from no named package"


def test_the_version_is_one():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == aeris.__version__ == citation["version"]
    assert citation["preferred-citation"]["doi"] == "10.1145/3712285.3772094"
    assert "2509.13523" in citation["preferred-citation"]["url"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("demo", ["pip install", "'.[views]'", "aeris demo --out demo"]),
        ("test", ["ruff check", "ruff format --check", "mypy", 'pytest -n 2 --dist loadgroup --no-loadscope-reorder -m "not full"']),
        ("test-fast", ['-m "not slow and not full"']),
        ("test-all", ["pytest -n 2"]),
        ("docs", ["'.[views,sources,docs]'", "sphinx-build -W --keep-going -c docs . docs/_build/html"]),
        ("docs-links", ["-b linkcheck"]),
    ],
)
def test_make_would_run(tmp_path, target, words):
    """In an environment that is not there yet, and whatever the make that runs these tests was told."""
    plain = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS")}
    asked = ["make", "-n", target, f"VENV={tmp_path}/venv"]
    said = subprocess.run(asked, cwd=ROOT, env=plain, capture_output=True, text=True, check=True).stdout
    assert f"-m venv {tmp_path}/venv" in said
    for word in words:
        assert word in said


def test_make_installs_once(tmp_path):
    for name in ("bin/python", ".tests", ".views"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    said = subprocess.run(["make", "-n", "test-fast", f"VENV={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "pytest" in said
    assert "pip" not in said


def test_the_script_of_the_tests_runs_in_an_environment_of_its_own():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert 'make test VENV="$scratch/venv"' in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("setuptools", minversion="77", reason="the wheel is built with setuptools 77 or later")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("aeris", "tutorials", "notebooks", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source]
    subprocess.run(build, check=True)
    return next(folder.glob("aeris-*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_code_types_and_assets(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "aeris").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert ours <= held
    assert "aeris/py.typed" in held
    assert any(name.startswith("aeris/views/assets/") for name in held)
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in held)
    assert any(name.endswith("licenses/LICENSE") for name in held)


@pytest.mark.slow
def test_an_installed_wheel_brings_its_tutorials(wheel, tmp_path):
    """As `aeris lab` finds and copies them, in an environment that holds nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--no-deps", "--no-index", "--no-compile", wheel]
    subprocess.run(install, check=True)
    code = "import sys; from pathlib import Path; from aeris import lab; print(lab.__file__); lab.copy_notebooks(Path(sys.argv[1]))"
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    asked = [python, "-c", code, tmp_path / "copied"]
    said = subprocess.run(asked, env=alone, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.startswith(str(tmp_path / "venv"))
    for name in ("tutorials/*.ipynb", "tutorials/README.md", "notebooks/*.ipynb", "docs/*.md"):
        ours, copied = ({file.name for file in folder.glob(name)} for folder in (ROOT, tmp_path / "copied"))
        assert ours and ours == copied
