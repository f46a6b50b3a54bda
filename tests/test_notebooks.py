"""Tutorials and notebooks: each runs from its first cell to its last, and is stored without outputs and paths of a machine."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest

import aeris

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "tutorials").glob("*.ipynb"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ATTENDED = {"watch_training"}
"""Notebooks for someone who looks and stops: run by themselves they train to the end. A browser goes through them, in another test."""
LARGEST_OUTPUT = 400_000
"""Characters of a cell's output, of which a picture takes up to 250 000."""
SECONDS = 300
"""A cell that takes longer hangs; on two cores that do nothing else a whole notebook takes less than a minute."""

FROM_A_NETWORK = r"<(?:script|link|img)[^>]*(?:src|href)=['\"]https?:[^>]*>|js_urls = \[\s*['\"]http|\"url\":\s*\"https?:[^\"]*"
"""Where a page, or the script by which Bokeh loads others, names something that is not on this machine."""

by_name = pytest.mark.parametrize("path", [*TUTORIALS, *NOTEBOOKS], ids=lambda path: path.stem)


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


def test_tutorials_are_numbered():
    assert [path.stem[:3] for path in TUTORIALS] == [f"{number:02d}_" for number in range(1, len(TUTORIALS) + 1)]
    assert len(TUTORIALS) >= 8 and len(NOTEBOOKS) >= 3


@by_name
def test_a_notebook_is_listed(path):
    assert f"]({path.name})" in (path.parent / "README.md").read_text()
    assert f"]({path.parent.name}/{path.name})" in (ROOT / "README.md").read_text()


@by_name
def test_a_notebook_is_stored_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].source.startswith(f"# {int(path.stem[:2])}. " if path in TUTORIALS else "# ")
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


def run(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    """A notebook and what its cells said, run in a folder of its own."""
    from nbclient import NotebookClient

    # The kernel, and the processes that it starts, take the package that is tested.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(aeris.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("TMPDIR", str(folder))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path, tmp_path, monkeypatch):
    notebook = run(path, tmp_path, monkeypatch)
    for cell in notebook.cells:
        assert sum(map(len, outputs_of(cell))) < LARGEST_OUTPUT, cell.source
        told = "\n".join(outputs_of(cell, "text/"))
        assert of_this_machine(told) == [], cell.source
        assert "Warning" not in told, cell.source
    assert any(outputs_of(cell, "image/png") for cell in notebook.cells), "no picture"


@pytest.mark.full
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem not in ATTENDED], ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    """Its interactive pictures bring their scripts along, megabytes of them, and reach for no network."""
    notebook = run(path, tmp_path, monkeypatch)
    pages = [output for cell in notebook.cells for kind in ("text/html", "application/javascript") for output in outputs_of(cell, kind)]
    for page in pages:
        assert re.findall(FROM_A_NETWORK, page) == []
    for cell in notebook.cells:
        assert "Warning" not in "\n".join(outputs_of(cell, "text/stream")), cell.source
    interactive = any("bokeh" in page or "data:image/png" in page for page in pages)
    assert interactive or any(outputs_of(cell, "image/png") for cell in notebook.cells), "no picture"
