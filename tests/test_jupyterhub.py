"""The kernels of docs/jupyterhub.md, registered as it says, run code."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

PAGE = (Path(__file__).parents[1] / "docs" / "jupyterhub.md").read_text()
PREFIX, PYTHON = "/opt/jupyterhub", "/opt/aeris/bin/python"
"""Where the page says that things are."""

pytestmark = pytest.mark.slow


def block(kind: str, containing: str) -> str:
    """The one block of code of the page that holds a word."""
    (found,) = (text for text in re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) if containing in text)
    return found


def answer(folder: Path, code: str) -> str:
    """What the kernel that is registered in a folder prints."""
    specifications = KernelSpecManager(kernel_dirs=[str(folder / "share" / "jupyter" / "kernels")])
    manager = KernelManager(kernel_name="aeris", kernel_spec_manager=specifications)
    manager.start_kernel()
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        said: list[str] = []
        client.execute_interactive(code, timeout=120, output_hook=lambda message: said.append(message["content"].get("text", "")))
        return "".join(said).strip()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_kernel_is_registered_by_one_command(tmp_path):
    words = shlex.split(block("bash", "ipykernel install").replace(PREFIX, str(tmp_path)))
    subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
    code = "import os, sys, aeris; print(sys.executable, os.environ['OMP_NUM_THREADS'], aeris.__version__)"
    assert answer(tmp_path, code).split()[:2] == [sys.executable, "4"]


def test_a_kernel_can_load_modules_first(tmp_path, monkeypatch):
    """With a shell whose `module load` sets a variable."""
    (tmp_path / ".bash_profile").write_text('module() { test "$1" = load && export LOADED="$2"; }\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    kernel = json.loads(block("json", "module load").replace(PYTHON, sys.executable))
    folder = tmp_path / "share" / "jupyter" / "kernels" / "aeris"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(kernel))
    code = "import os, sys, aeris; print(sys.executable, os.environ['LOADED'], os.getpid(), aeris.__version__)"
    executable, loaded, process, _ = answer(tmp_path, code).split()
    assert (executable, loaded) == (sys.executable, "frameworks")
    assert int(process) != os.getpid()
