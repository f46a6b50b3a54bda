"""JupyterLab beside the tutorials, on this machine alone."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from aeris.errors import ConfigurationError, StoreError

SHIPPED = ("tutorials/*.ipynb", "tutorials/*.md", "notebooks/*.ipynb", "docs/*.md", "docs/pictures/*.svg", "benchmarks/*.md")
"""What is copied: the notebooks, and the pages that they link to."""


def shipped_folder() -> Path:
    """Where tutorials and notebooks lie: in a clone its root, else the folder that was installed with the package.

    Raises:
        StoreError: They are in neither place.
    """
    clone = Path(__file__).parents[1]
    if (clone / "pyproject.toml").is_file() and (clone / "tutorials").is_dir():
        return clone
    for file in metadata.files("aeris") or ():
        if file.match("share/aeris/tutorials/*.ipynb"):
            return Path(str(file.locate())).resolve().parents[1]
    raise StoreError(f"No tutorials came with {clone / 'aeris'}", "A clone and an installed wheel have them", "Install aeris with pip")


def copy_notebooks(folder: Path) -> list[Path]:
    """Copies tutorials, notebooks and the pages that they link to; what is there already stays as it is.

    Args:
        folder: Where to.

    Returns:
        The files that were new.

    Raises:
        StoreError: No tutorials came with the package, or there is a file of the folder's name.
    """
    source = shipped_folder()
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file", "The notebooks are copied into a folder", "Choose another name for --out")
    found = [file.relative_to(source) for pattern in SHIPPED for file in sorted(source.glob(pattern))]
    new = [folder / file for file in found if not (folder / file).exists()]
    for target in new:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / target.relative_to(folder), target)
    return new


def open_lab(folder: Path, port: int, browser: bool) -> None:
    """Runs JupyterLab in a folder of :func:`copy_notebooks` until it is ended. It asks for a token, and looks for no news.

    Args:
        folder: The folder.
        port: Where it is taken, the next one that is free.
        browser: Whether to open a browser.

    Raises:
        ConfigurationError: JupyterLab is not installed.
    """
    try:
        from jupyterlab.labapp import LabApp
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The package {error.name} is not installed", "JupyterLab comes with the extra 'views'", "pip install 'aeris[views]'"
        ) from error
    copy_notebooks(folder)
    with _own_defaults():
        LabApp.launch_instance(
            [
                "--ServerApp.ip=127.0.0.1",
                f"--ServerApp.port={port}",
                f"--ServerApp.root_dir={folder.resolve()}",
                "--LabApp.default_url=/lab/tree/tutorials",
                "--LabApp.news_url=None",
                "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
                *([] if browser else ["--no-browser"]),
            ]
        )


@contextmanager
def _own_defaults() -> Iterator[None]:
    """Defaults of this JupyterLab beside those that a user or an administrator has set, which stay.

    Without a feed of news its page still asks whether to fetch them, unless the setting says no.
    """
    settings = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
    before = os.environ.get("JUPYTER_CONFIG_PATH", "")
    with tempfile.TemporaryDirectory(prefix="aeris-lab-") as folder:
        (Path(folder) / "labconfig").mkdir()
        (Path(folder) / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(settings))
        os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, [folder, before]))
        try:
            yield
        finally:
            os.environ["JUPYTER_CONFIG_PATH"] = before
