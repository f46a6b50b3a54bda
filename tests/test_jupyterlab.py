"""JupyterLab in a real browser, cell by cell: engines train, stop, forecast and are looked at; a kernel goes, an engine is lost.

What is seen is compared with what stands on disk. Nothing but this machine is asked for anything.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
import pytest

import aeris
from aeris.run import Run

TOKEN = "of-this-test"
PREFIX = "/user/ada"
"""Under which a JupyterHub would serve it."""
SEEN_WITHIN = 15.0
"""Seconds in which the loss of an engine is told."""
SECONDS = 180.0
"""Longest wait for anything, on two cores that four engines, a kernel, a browser and perhaps other tests share."""

TITLES = """() => (window.Bokeh?.documents ?? []).flatMap(document => [...document._all_models.values()])
    .filter(model => model.type == 'Title').map(model => model.text)"""
"""What the page calls its plots."""

COLUMNS = """() => (window.Bokeh?.documents ?? []).flatMap(document => [...document._all_models.values()])
    .filter(model => model.type == 'ColumnDataSource').flatMap(model => Object.values(model.data))
    .filter(column => column.length < 1000 && typeof column[0] == 'number').map(column => [...column])"""
"""The numbers that its lines are drawn from, column by column."""

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A home of our own for JupyterLab, its kernels and their engines, all of which end with it."""
    home = tmp_path_factory.mktemp("jupyter")
    yield home
    for process in started_in(home):
        process.kill()


@pytest.fixture(scope="module")
def lab(folder) -> Iterator[str]:
    """The address of an `aeris lab`."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    (folder / "config").mkdir()
    (folder / "tmp").mkdir()
    (folder / "config" / "jupyter_server_config.json").write_text(json.dumps({"ServerApp": {"allow_root": True, "base_url": PREFIX}}))
    kinds = {f"JUPYTER_{kind.upper()}_DIR": str(folder / kind) for kind in ("config", "data", "runtime")}
    package = os.pathsep.join([str(Path(aeris.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    # A long training would begin with minutes in which four engines compile; without a compiler it runs as it is.
    ours = {
        "CXX": "none",
        "JUPYTER_TOKEN": TOKEN,
        "IPYTHONDIR": str(folder / "ipython"),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": package,
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "aeris", "lab", "--no-browser", "--port", str(port), "--out", str(folder / "lab")]
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(words, env={**os.environ, **kinds, **ours}, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(port), f"JupyterLab, see {folder / 'lab.log'}")
        yield f"http://127.0.0.1:{port}{PREFIX}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def page(lab, tmp_path) -> Iterator[Any]:
    """A page of a browser that can reach that JupyterLab and nothing else, and that has asked for nothing else."""
    browsers = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    origin, elsewhere = lab.removesuffix(PREFIX), list[str]()

    def only_here(route: Any) -> None:
        here = route.request.url.startswith((origin, "data:", "blob:"))
        if not here:
            elsewhere.append(route.request.url)
        (route.continue_ if here else route.abort)()

    with browsers.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1300}, service_workers="block")
        page.set_default_timeout(1000 * SECONDS)
        page.route("**/*", only_here)
        page.on("websocket", lambda socket: None if socket.url.startswith(origin.replace("http", "ws")) else elsewhere.append(socket.url))
        yield page
        page.screenshot(path=tmp_path / "end.png")
        browser.close()
    assert elsewhere == []


class Notebook:
    """A notebook on a page.

    Args:
        page: The page.
        address: Where JupyterLab serves it.
        pictures: Folder for screenshots.
    """

    def __init__(self, page: Any, address: str, pictures: Path) -> None:
        self.page, self._pictures = page, pictures
        page.goto(f"{address}?token={TOKEN}&reset")  # without it, notebooks of other tests are opened beside it
        self.cells = page.locator(".jp-NotebookPanel .jp-Notebook .jp-Cell")
        self.cells.first.click()
        self.await_kernel()

    def await_kernel(self) -> None:
        self.page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")

    def run(self, number: int, refusal: str = "") -> Any:
        """Runs a cell as a person does: a click beside it and Shift+Enter. Gives its output, once the cell has ended.

        Args:
            number: Which of all cells.
            refusal: The error that it ends with; none by default.
        """
        cell = self.cells.nth(number)
        prompt = cell.locator(".jp-InputPrompt")
        cell.scroll_into_view_if_needed()
        prompt.click()
        before = prompt.inner_text()
        wait_until(lambda: self._pressed(prompt, before), f"cell {number} to begin", every=3.0)
        wait_until(lambda: re.search(r"\d", prompt.inner_text()), f"cell {number} to end")
        output = cell.locator(".jp-OutputArea")
        assert refusal in output.inner_text() if refusal else "Traceback" not in output.inner_text(), output.inner_text()
        return output

    def _pressed(self, prompt: Any, before: str) -> bool:
        """Whether a cell has begun; keys that are pressed before JupyterLab listens to them are lost."""
        if prompt.inner_text() == before:
            self.page.keyboard.press("Shift+Enter")
            self.page.wait_for_timeout(500)
        return prompt.inner_text() != before

    def restart_kernel(self) -> None:
        """By the keys that JupyterLab gives to it."""
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("0")
        self.page.keyboard.press("0")
        self.page.locator(".jp-Dialog button", has_text="Restart").click()
        self.page.wait_for_selector(".jp-Notebook-ExecutionIndicator:not([data-status=idle])")
        self.await_kernel()

    def picture(self, name: str) -> None:
        self.page.screenshot(path=self._pictures / f"{name}.png")
        (self._pictures / f"{name}.txt").write_text("\n".join(self.page.locator(".jp-OutputArea-output").all_inner_texts()))


def wait_until(condition: Any, what: str, seconds: float = SECONDS, every: float = 0.3) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(every)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def step_seen(output: Any) -> int:
    """The step that a live view tells."""
    told = re.search(r"step\s+(\d+) of", output.inner_text())
    return int(told[1]) if told else 0


def shown(page: Any, pattern: str) -> str:
    """The title that fits a pattern, once a plot has it."""
    page.wait_for_function(f"pattern => ({TITLES})().some(title => new RegExp(pattern).test(title))", arg=pattern)
    return next(title for title in page.evaluate(TITLES) if re.search(pattern, title))


def test_a_notebook_trains_on_engines_forecasts_and_explores(lab, page, folder, tmp_path):
    """`notebooks/watch_training.ipynb` as it is."""
    notebook = Notebook(page, f"{lab}/lab/tree/notebooks/watch_training.ipynb", tmp_path)
    cells = [number for number, cell in enumerate(notebook_of("watch_training")) if cell.cell_type == "code"]
    start, train, stop, forecast, end = cells

    notebook.run(start)
    live = notebook.run(train)
    wait_until(lambda: step_seen(live) > 0, "the first step")
    seen = step_seen(live)
    wait_until(lambda: step_seen(live) > seen, "a further step")
    assert live.locator("img").count() == 1
    notebook.picture("live")
    (run,) = (Run.open(path.parent) for path in (folder / "lab" / "notebooks").glob("watch-*/run/run.json"))
    assert {name: run.configuration["layout"][name] for name in ("dp", "pp", "wp", "sp")} == {"dp": 1, "pp": 2, "wp": [1, 2], "sp": 1}
    assert seen <= run.logbook.sizes["step"] < run.configuration["steps"]

    notebook.run(stop)
    assert run.state["state"] == "stopped"
    assert run.step == run.logbook.sizes["step"] > seen
    wait_until(lambda: "stopped" in live.inner_text() and step_seen(live) == run.step, "the live view to say so")

    notebook.run(forecast)
    archive = run.path.with_name("forecast.zarr")
    shown(page, r"from 2005[^°]* lead 6 h")
    notebook.picture("filling")

    was = places(page)
    figure = page.locator(".bk-Figure").first
    figure.scroll_into_view_if_needed()
    box = figure.bounding_box()
    wait_until(lambda: clicked(page, box, was), "the plume of another place", every=0.0)
    (place,) = set(places(page)) - set(was)
    page.locator(".noUi-handle").first.press("ArrowRight")
    shown(page, r"from 2005[^°]* lead 12 h")
    assert missing(archive), "the archive was full before its visitor had clicked and moved the lead"
    notebook.picture("clicked")
    wait_until(lambda: not missing(archive), "a full archive", every=2.0, seconds=4 * SECONDS)
    shown(page, r"8 of 8 members")

    wait_until(lambda: "8 of 8 members" in places(page)[place], "the plume of all members")
    field = aeris.open_forecast(archive)["2m_temperature"].isel(time=0)
    here = dict(zip(("latitude", "longitude"), place, strict=True))
    mean = field.sel(here, method="nearest").mean("number").values
    wait_until(lambda: any(np.allclose(line, mean) for line in columns(page, mean.size)), "the plume's mean to be that of the archive")
    notebook.picture("explored")
    assert "Traceback" not in page.locator(".jp-Notebook").inner_text()
    notebook.run(end)


def clicked(page: Any, box: dict[str, float], was: dict[tuple[float, float], str], patience: float = 20.0) -> bool:
    """Whether a click brings the plume of another place; a browser that is busy takes one for a long press, which a person repeats."""
    page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    end = time.monotonic() + patience
    while not set(places(page)) - set(was) and time.monotonic() < end:
        time.sleep(0.3)
    return bool(set(places(page)) - set(was))


def places(page: Any) -> dict[tuple[float, float], str]:
    """Latitude and longitude, from 0 to 360, that titles name, with the newest title of each; those of former plots stay on the page."""
    found = [(title, re.search(r"([\d.]+)°([NS]), ([\d.]+)°([EW])", title)) for title in page.evaluate(TITLES)]
    signs = {"N": 1, "S": -1, "E": 1, "W": -1}
    return {(float(at[1]) * signs[at[2]], float(at[3]) * signs[at[4]] % 360): title for title, at in found if at}


def columns(page: Any, length: int) -> list[list[float]]:
    """The columns of that length from which the page draws."""
    return [column for column in page.evaluate(COLUMNS) if len(column) == length]


SETUP = """
import aeris
from aeris.model.config import ModelConfig
world = aeris.Planet(grid=(16, 32)).simulate(years=0.05)
store = aeris.prepare(world, "store.zarr", interval="6h", chunk=4)
model = ModelConfig(grid=(16, 32), dim=32, depth=4, heads=8, mlp=24, window=(4, 4))
aeris.Cluster.local(engines=4, timeout=600).start()
"""
TRAIN = """
cluster = aeris.Cluster.attach()
run = cluster.train(model, store, "run", steps=100_000, precision="float32", layout=aeris.Layout(pp=2, wp=(1, 2)))
run.live()
"""
ATTACH = """
import aeris
cluster = aeris.Cluster.attach()
run = aeris.Run.open("run")
run.live()
"""
AGAIN = """
cluster.restore()
logbook = run.logbook
print(len(cluster.client.ids), "engines, steps", int(logbook.step[0]), "to", logbook.sizes["step"])
"""


def test_a_new_kernel_attaches_to_a_training_that_goes_on_and_tells_a_lost_engine(lab, page, folder, tmp_path):
    sources = [SETUP, TRAIN, ATTACH, "run.wait(timeout=60)", AGAIN, "cluster.stop()"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    book = nbformat.v4.new_notebook(metadata=kernel, cells=[nbformat.v4.new_code_cell(source.strip()) for source in sources])
    nbformat.write(book, folder / "lab" / "restart.ipynb")
    notebook = Notebook(page, f"{lab}/lab/tree/restart.ipynb", tmp_path)

    notebook.run(0)
    live = notebook.run(1)
    wait_until(lambda: step_seen(live) > 0, "the first step")
    run = Run.open(folder / "lab" / "run")
    notebook.restart_kernel()
    before = run.logbook.sizes["step"]
    wait_until(lambda: run.logbook.sizes["step"] > before, "the training to go on without its kernel")

    live = notebook.run(2)
    wait_until(lambda: step_seen(live) > before, "the new kernel to show it")
    assert live.locator("img").count() == 1
    notebook.picture("attached")

    process = next(process for process in started_in(folder, "ipyparallel.engine") if process.pid != run.state["process"])
    process.kill()
    wait_until(lambda: "failed" in live.inner_text(), "the loss to be told", SEEN_WITHIN)
    notebook.run(3, refusal="EngineLost")
    notebook.picture("lost")

    told = notebook.run(4).inner_text()
    assert f"4 engines, steps 1 to {run.logbook.sizes['step']}" in told
    notebook.run(5)


def started_in(folder: Path, word: str = "") -> list[psutil.Process]:
    """The processes whose IPython lives in a folder; those with a word on their command line."""
    every = [process.info for process in psutil.process_iter(["pid", "cmdline", "environ"])]
    ours = [info for info in every if (info["environ"] or {}).get("IPYTHONDIR", "").startswith(str(folder))]
    return [psutil.Process(info["pid"]) for info in ours if not word or word in info["cmdline"]]


@pytest.fixture
def archive(tmp_path) -> Path:
    """A small forecast."""
    world = aeris.Planet(grid=(16, 32))
    start = world.simulate(years=0.01)
    world.forecast(start.isel(time=[2]), lead=["6h", "12h"], members=3).to_zarr(tmp_path / "forecast.zarr", consolidated=False)
    return tmp_path / "forecast.zarr"


def test_the_served_explorer_comes_through_jupyter_s_proxy(lab, page, archive):
    pytest.importorskip("jupyter_server_proxy", reason="jupyter-server-proxy is not installed")
    words = [sys.executable, "-m", "aeris", "explore", str(archive), "--behind", lab]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split()[1]
            assert address.startswith(f"{lab}/proxy/")
            assert page.goto(address).url.startswith(f"{lab}/login"), "a stranger came through"
            page.goto(f"{lab}/lab?token={TOKEN}")
            assert page.goto(address.partition("?")[0]).status == 403
            page.goto(address)
            shown(page, "lead 6 h")
            page.locator(".noUi-handle").first.press("ArrowRight")
            shown(page, "lead 12 h")
        finally:
            server.terminate()


def missing(archive: Path) -> int:
    """Fields of members that an archive lacks as yet."""
    field = aeris.open_forecast(archive)["2m_temperature"]
    return int(field.isnull().any(("latitude", "longitude")).sum())


def notebook_of(name: str) -> list[nbformat.NotebookNode]:
    path = Path(aeris.__file__).parents[1] / "notebooks" / f"{name}.ipynb"
    return nbformat.read(path, as_version=4).cells
