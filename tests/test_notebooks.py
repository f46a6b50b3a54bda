"""The tutorials: every one runs from its first cell to its last, tells nothing of the machine, and is stored without outputs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest

import aeris

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
LARGEST_OUTPUT = 400_000
"""Characters of a cell's output, of which a picture takes up to 250 000."""
SECONDS = 300
"""A cell that takes longer hangs; on two cores that do nothing else a whole notebook takes less than a minute."""

by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def of_this_machine(text: str) -> list[str]:
    """What in a text stands for one machine or user: absolute paths, and the folders of whoever runs this."""
    folders = [folder for folder in (str(Path.home()), sys.prefix, str(ROOT)) if len(folder) > 2]
    found = re.findall(r"(?<![\w:/.])/(?:home|root|tmp|Users|private|var|work|opt|usr)/[^\s'\"<>]*", text)
    return found + [folder for folder in folders if re.search(rf"(?<![\w/]){re.escape(folder)}\b", text)]


def outputs_of(cell: nbformat.NotebookNode, kind: str = "") -> list[str]:
    """The outputs of a code cell whose kind begins so, ``"text/"`` or ``"image/"``; pictures as they are encoded."""
    outputs = cell.get("outputs", [])
    printed = {"text/stream": "".join(output.get("text", "") for output in outputs)}
    shown = [(name, str(content)) for output in outputs for name, content in output.get("data", {}).items()]
    return [content for name, content in [*printed.items(), *shown] if content and name.startswith(kind)]


def test_the_reader_of_paths_sees_them():
    assert of_this_machine("in /home/somebody/run.json") == ["/home/somebody/run.json"]
    assert of_this_machine("'/tmp/aeris-x/store.zarr'") == ["/tmp/aeris-x/store.zarr"]
    assert of_this_machine(f"{sys.prefix}/lib") != []
    assert of_this_machine("gs://bucket/tmp/x and ../docs/usr/x, a/b, https://arxiv.org/home/x") == []


def test_there_are_tutorials_and_each_is_listed():
    assert len(NOTEBOOKS) >= 6
    listed = (ROOT / "tutorials" / "README.md").read_text()
    readme = (ROOT / "README.md").read_text()
    for path in NOTEBOOKS:
        assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)
        assert f"]({path.name})" in listed
        assert f"](tutorials/{path.name})" in readme


@by_name
def test_a_notebook_is_stored_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].source.startswith(f"# {int(path.stem[:2])}. ")
    assert of_this_machine(path.read_text()) == []
    for cell in notebook.cells:
        assert outputs_of(cell) == []
        assert cell.get("execution_count") is None


@by_name
def test_links_lead_somewhere(path):
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.slow
@by_name
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    # The kernel, and the processes that it starts, take the package that is tested.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(aeris.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell in notebook.cells:
        assert sum(map(len, outputs_of(cell))) < LARGEST_OUTPUT, cell.source
        told = "\n".join(outputs_of(cell, "text/"))
        assert of_this_machine(told) == [], cell.source
        assert "Warning" not in told, cell.source
    assert any(outputs_of(cell, "image/png") for cell in notebook.cells), "no picture"
