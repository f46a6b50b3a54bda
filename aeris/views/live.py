"""A run while it trains: curves and numbers that follow its logbook, in a notebook or a terminal.

Everything comes from the run's directory, so that it does not matter who trains the run, or which kernel looks.
"""

from __future__ import annotations

import base64
import threading
import time
from dataclasses import dataclass
from html import escape

import numpy as np
import xarray as xr

from aeris.progress import tqdm
from aeris.run import POLL, Run

SMOOTH = 50
"""Steps over which numbers are averaged."""


@dataclass(frozen=True)
class Progress:
    """How far a run is, and how fast.

    Attributes:
        step: Steps taken.
        steps: Steps of the whole run.
        loss: Mean loss of the last steps.
        grad_norm: Mean gradient norm of the last steps.
        lr: Step size.
        samples_per_second: Over all ranks.
        tflops_per_rank: 10¹² operations a second, of a rank.
        share_of_peak: Of the fastest matrix product on its device; NaN where that is not known.
        memory_gb: 10⁹ bytes.
        seconds_left: Until the last step, at the present speed.
        skipped: Steps skipped because the gradient was not finite.
        state: How the run stands, with the reason where it failed.
    """

    step: int
    steps: int
    loss: float
    grad_norm: float
    lr: float
    samples_per_second: float
    tflops_per_rank: float
    share_of_peak: float
    memory_gb: float
    seconds_left: float
    skipped: int
    state: str


def progress_of(run: Run, logbook: xr.Dataset | None = None) -> Progress | None:
    """How far a run is; None before its first step.

    Args:
        run: The run.
        logbook: Its logbook, if it has been read.
    """
    logbook = run.logbook if logbook is None else logbook
    if not logbook.sizes["step"]:
        return None
    last, state = logbook.isel(step=slice(-SMOOTH, None)), run.state
    mean = {str(name): float(values.mean()) for name, values in last.data_vars.items()}
    step, steps = int(logbook.step[-1]), int(run.configuration["steps"])
    return Progress(
        step=step,
        steps=steps,
        loss=mean["loss"],
        grad_norm=mean["grad_norm"],
        lr=float(last.lr[-1]),
        samples_per_second=1 / float((1 / last.samples_per_second).mean()),
        tflops_per_rank=mean["tflops_per_rank"],
        share_of_peak=mean["tflops_per_rank"] / state.get("peak_tflops", np.nan),
        memory_gb=float(last.memory_gb[-1]),
        seconds_left=(steps - step) * float(last.seconds.median()),
        skipped=int(last.skipped[-1]),
        state=state["state"] + (f": {state['reason']}" if state["state"] == "failed" else ""),
    )


def duration(seconds: float) -> str:
    """A length of time as hours, minutes and seconds: ``1:02:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def page(run: Run) -> str:
    """Curves and numbers of a run as HTML that stands by itself."""
    logbook = run.logbook
    progress = progress_of(run, logbook)
    title = f"<b>{escape(run.path.name)}</b>"
    if progress is None:
        return f"<div>{title}: {escape(run.state['state'])}, no step yet</div>"
    from aeris.views.training import training_figure

    figure = base64.b64encode(training_figure(logbook)._repr_png_()).decode()
    style = "text-align:left;padding:0 1.2em 0 0"
    cells = "".join(f"<td style='{style}'>{name}<br><b>{escape(text)}</b></td>" for name, text in numbers(progress))
    picture = f"<img width=780 src='data:image/png;base64,{figure}'>"
    return f"<div>{title}: {escape(progress.state + advice(run))}<table><tr>{cells}</tr></table>{picture}</div>"


def advice(run: Run) -> str:
    """What to do about a run that has failed: nobody but the kernel that asked for it would start it again."""
    if run.state["state"] != "failed":
        return ""
    return f". Called again with the same arguments, train goes on from step {run.step}, after Cluster.restore() where an engine has gone."


def numbers(progress: Progress) -> list[tuple[str, str]]:
    """Names and values of what a run tells of itself, with units."""
    share = "" if np.isnan(progress.share_of_peak) else f", {progress.share_of_peak:.0%} of peak"
    skipped = f", {progress.skipped} skipped" if progress.skipped else ""
    return [
        ("step", f"{progress.step} of {progress.steps}{skipped}"),
        ("loss", f"{progress.loss:.4f}"),
        ("gradient norm", f"{progress.grad_norm:.3g}"),
        ("step size", f"{progress.lr:.2e}"),
        ("samples s⁻¹", f"{progress.samples_per_second:.3g}"),
        ("a rank", f"{progress.tflops_per_rank:.3g} TFLOP s⁻¹{share}"),
        ("memory", f"{progress.memory_gb:.2f} GB"),
        ("left", duration(progress.seconds_left)),
    ]


class Live:
    """A cell that follows a run in the background until it ends.

    Args:
        run: The run.
        interval: Seconds between two looks.
    """

    def __init__(self, run: Run, interval: float) -> None:
        from IPython.display import HTML, display

        self._run, self._interval, self._html = run, interval, HTML
        self._stop = threading.Event()
        self._cell = display(HTML(page(run)), display_id=True)
        self._thread = threading.Thread(target=self._follow, name=f"live {run.path.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the updates with a last one; the training goes on."""
        self._stop.set()
        self._thread.join()

    def _ipython_display_(self) -> None:
        """Shows nothing as the last line of a cell, which has its page already."""

    def _follow(self) -> None:
        following = True
        while following:
            stopped = self._stop.wait(self._interval)
            following = not stopped and self._run.state["state"] in ("started", "running")
            self._cell.update(self._html(page(self._run)))


def live(run: Run, interval: float = 2.0) -> Live | None:
    """Follows a run: in a notebook by a cell that updates itself, elsewhere by a progress bar until the run ends.

    Args:
        run: The run.
        interval: Seconds between two looks.
    """
    if _in_notebook():
        return Live(run, interval)
    _follow_in_terminal(run)
    return None


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def _follow_in_terminal(run: Run) -> None:
    with tqdm(total=run.configuration["steps"], desc=run.path.name, unit="step") as bar:
        while True:
            ended = run.state["state"] not in ("started", "running")
            progress = progress_of(run)
            if progress is not None:
                bar.set_postfix(dict(numbers(progress)[1:]), refresh=False)
                bar.update(progress.step - bar.n)
            if ended:
                return
            time.sleep(POLL)
