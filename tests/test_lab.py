"""`aeris lab`: the tutorials are copied once, and opened where only their owner comes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from aeris import lab
from aeris.cli import main
from aeris.errors import StoreError

ROOT = Path(__file__).parents[1]


def test_what_is_there_already_stays(tmp_path):
    first = lab.copy_notebooks(tmp_path / "mine")
    assert {file.name for file in (ROOT / "tutorials").glob("*.ipynb")} <= {file.name for file in first}
    mine = tmp_path / "mine" / "tutorials" / "01_first_forecast.ipynb"
    mine.write_text("changed")
    removed = tmp_path / "mine" / "tutorials" / "02_simulated_planet.ipynb"
    removed.unlink()
    assert lab.copy_notebooks(tmp_path / "mine") == [removed]
    assert mine.read_text() == "changed"


def test_pages_that_a_copied_notebook_links_to_are_copied_too(tmp_path):
    for file in lab.copy_notebooks(tmp_path):
        if file.suffix == ".ipynb":
            for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text()):
                assert (file.parent / target).exists(), f"{file.name}: {target}"


def test_a_package_without_tutorials_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lab, "__file__", str(tmp_path / "aeris" / "lab.py"))
    monkeypatch.setattr(lab.metadata, "files", lambda name: [])
    assert main(["lab", "--out", str(tmp_path / "lab")]) == 2
    assert "No tutorials came with" in capsys.readouterr().err


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file is a file"):
        lab.copy_notebooks(tmp_path / "file")


def test_without_the_extra_one_message_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", None)
    assert main(["lab", "--out", str(tmp_path / "lab")]) == 2
    assert "pip install 'aeris[views]'" in capsys.readouterr().err
    assert not (tmp_path / "lab").exists()


def test_its_page_does_not_ask_whether_to_fetch_news(tmp_path, monkeypatch):
    """What the server answers as the default of the setting by which the page asks; a default of the user's own stays."""
    from jupyterlab.labapp import LabApp
    from jupyterlab_server.settings_utils import get_settings

    found = {}

    def serve(words: list[str]) -> None:
        schemas = LabApp(core_mode=True).schemas_dir
        for name in ("apputils-extension:notification", "docmanager-extension:plugin"):
            answer, _ = get_settings("", schemas, "", f"@jupyterlab/{name}")
            found.update({key: value.get("default") for key, value in answer["schema"]["properties"].items()})

    (tmp_path / "config" / "labconfig").mkdir(parents=True)
    (tmp_path / "config" / "labconfig" / "default_setting_overrides.json").write_text(
        '{"@jupyterlab/docmanager-extension:plugin": {"autosaveInterval": 17}}'
    )
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path / "config"))
    monkeypatch.setattr(LabApp, "launch_instance", serve)
    assert main(["lab", "--out", str(tmp_path / "lab"), "--no-browser"]) == 0
    assert (found["fetchNews"], found["autosaveInterval"]) == ("false", 17)


def test_it_listens_on_this_machine_alone_and_looks_for_no_news(tmp_path, monkeypatch):
    from jupyterlab.labapp import LabApp

    given: list[str] = []
    monkeypatch.setattr(LabApp, "launch_instance", given.extend)
    assert main(["lab", "--out", str(tmp_path), "--port", "8901", "--no-browser"]) == 0
    app = LabApp()
    app.parse_command_line(given)
    assert app.news_url is None and app.check_for_updates_class.__name__ == "NeverCheckForUpdate"
    server = app.config.ServerApp
    assert (server.ip, server.port, server.root_dir, server.open_browser) == ("127.0.0.1", 8901, str(tmp_path), False)
    assert "token" not in server  # Jupyter makes one up
