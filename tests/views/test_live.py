"""A run that is followed by its directory alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from aeris.errors import EngineLost
from aeris.run import Run
from aeris.views.live import Live, duration, live, numbers, page, progress_of
from aeris.views.training import training_figure

STEPS = 200


def line(step: int) -> dict:
    numbers = {"images": 4 * step, "loss": 1 / step, "grad_norm": 2.0, "lr": 1e-3, "seconds": 0.5, "samples_per_second": 8.0}
    return {"step": step, **numbers, "tflops_per_rank": 0.25, "memory_gb": 1.5, "skipped": 1}


@pytest.fixture
def run(tmp_path) -> Run:
    """A run of two hundred steps that stands at the sixtieth, trained by this process."""
    (tmp_path / "run.json").write_text(json.dumps({"steps": STEPS}))
    tell(tmp_path, state="running")
    (tmp_path / "logbook.jsonl").write_text("".join(json.dumps(line(step)) + "\n" for step in range(1, 61)))
    return Run(tmp_path)


def tell(path, **state) -> None:
    content = {"host": socket.gethostname(), "process": os.getpid(), "ranks": 1, "peak_tflops": 0.5, **state}
    (path / "state.json").write_text(json.dumps(content))


def test_progress_is_that_of_the_last_fifty_steps(run):
    progress = progress_of(run)
    assert (progress.step, progress.steps, progress.skipped) == (60, STEPS, 1)
    assert progress.loss == pytest.approx(np.mean([1 / step for step in range(11, 61)]))
    assert progress.seconds_left == pytest.approx(140 * 0.5)
    assert progress.share_of_peak == pytest.approx(0.5)
    assert ("left", "0:01:10") in numbers(progress)
    assert ("a rank", "0.25 TFLOP s⁻¹, 50% of peak") in numbers(progress)


def test_a_run_without_steps_says_so(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"steps": STEPS}))
    assert progress_of(Run(tmp_path)) is None
    assert "no step yet" in page(Run(tmp_path))


def test_the_page_holds_numbers_and_curves(run):
    text = page(run)
    assert "60 of 200, 1 skipped" in text and "data:image/png;base64," in text
    labels = [ax.get_ylabel() for ax in training_figure(run.logbook).axes]
    assert labels == ["loss", "gradient norm", "step size", "samples s⁻¹"]


def test_a_run_that_failed_says_how_it_goes_on(run):
    assert "Called again" not in page(run)
    (run.path / "checkpoints" / "step-00000050").mkdir(parents=True)
    (run.path / "checkpoints" / "step-00000050" / "manifest.json").touch()
    tell(run.path, state="failed", reason="rank 3 has gone")
    assert "failed: rank 3 has gone. Called again with the same arguments, train goes on from step 50" in page(run)


def test_a_terminal_follows_to_the_end(run, capsys):
    def finish():
        time.sleep(0.6)
        with (run.path / "logbook.jsonl").open("a") as logbook:
            logbook.writelines(json.dumps(line(step)) + "\n" for step in range(61, STEPS + 1))
        tell(run.path, state="finished")

    thread = threading.Thread(target=finish)
    thread.start()
    assert live(run) is None
    thread.join()
    assert "200/200" in capsys.readouterr().err


def test_a_cell_that_is_stopped_shows_where_the_run_stood(run, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda html, display_id: SimpleNamespace(update=lambda html: shown.append(html.data)))
    view = Live(run, interval=60)
    with (run.path / "logbook.jsonl").open("a") as logbook:
        logbook.write(json.dumps(line(61)) + "\n")
    tell(run.path, state="stopped")
    view.stop()
    assert "61 of 200" in shown[-1] and "stopped" in shown[-1]


def test_waiting_ends_with_the_run_and_tells_why_it_failed(run):
    assert not run.wait(timeout=0.1)
    tell(run.path, state="stopped")
    assert run.wait(timeout=1)
    tell(run.path, state="failed", reason="rank 3 has gone")
    with pytest.raises(EngineLost, match="rank 3 has gone"):
        run.wait()


def test_a_process_that_is_there_no_more_has_failed(run):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    tell(run.path, state="running", process=gone.pid)
    assert run.state["state"] == "failed"
    with pytest.raises(EngineLost, match=f"process {gone.pid}, which trained it, has gone"):
        run.wait()
    tell(run.path, state="running", process=gone.pid, host="another")
    assert run.state["state"] == "running"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3723, "1:02:03")])
def test_duration(seconds, text):
    assert duration(seconds) == text
