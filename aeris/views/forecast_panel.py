"""The explorer beside a cluster: choose a forecast, press, and walk through it while it is computed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import panel as pn
import param
import xarray as xr

from aeris.errors import AerisError, DataError
from aeris.views.archive_reader import open_reader
from aeris.views.dashboard import Explorer
from aeris.views.page_messages import ColumnPage, Repeated

LOOK = 1.0
"""Seconds between two looks at the ledger of an archive that fills."""


class StartedForecast(Protocol):
    """What the panel must know of a forecast that was started."""

    path: Path

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for its end, or its stop, and says whether it has come; raises an `AerisError` where it failed."""

    def stop(self) -> None:
        """Stops it; what has been written stays."""


class ForecastingCluster(Protocol):
    """What the panel must know of a cluster, such as `aeris.Cluster`."""

    def forecast(
        self, checkpoint: Any, initial: Any, times: Any, members: int = ..., lead: Any = ..., out: Any = ..., seed: int = ...
    ) -> StartedForecast:
        """Starts a forecast and returns at once; raises an `AerisError` where it cannot work."""


class ForecastPanel(pn.viewable.Viewer):
    """A panel that starts forecasts, above an explorer of the last one; `aeris.explore` with a cluster makes one.

    Every field is a parameter, as those of the explorer are.

    Args:
        cluster: Where forecasts are computed.
        checkpoint: What `cluster` takes as one.
        initial: Initial states, as `cluster` takes them.
        times: The times that `initial` holds, rising.
        archive: Where the first forecast goes; the next ones get a number of their own.
        explorer: An explorer to begin with; None where there is nothing to look at yet.
        exploring: Arguments of the explorers to come.

    Attributes:
        explorer: The explorer that is shown; None before the first members have come.
        started: The forecast that was started last; None before.
        layout: The Panel object.
    """

    day: Any = param.CalendarDate(label="initial day")
    time: Any = param.Selector(label="initial time")
    members = param.Integer(default=8, bounds=(1, None), label="members")
    days = param.Number(default=5.0, bounds=(0.0, None), inclusive_bounds=(False, True), step=1.0, label="days")
    seed = param.Integer(default=0, bounds=(0, None), label="seed")
    archive = param.String(label="archive")

    def __init__(
        self,
        cluster: ForecastingCluster,
        checkpoint: Any,
        initial: Any,
        times: np.ndarray,
        archive: Path,
        explorer: Explorer | None = None,
        exploring: Mapping[str, Any] | None = None,
    ) -> None:
        self._cluster, self._checkpoint, self._initial = cluster, checkpoint, initial
        self._times, self._first_name, self._exploring = pd.DatetimeIndex(times), archive, dict(exploring or {})
        self.explorer = explorer
        self.started: StartedForecast | None = None
        self._looking = Repeated(self.look, LOOK)
        super().__init__()
        self.param.day.bounds = (self._times[0].date(), self._times[-1].date())
        self.param.watch(lambda *_: self._offer_times(), "day")
        self.day, self.archive = self._times[0].date(), str(free_name(archive))
        self._bar = pn.indicators.Progress(value=0, width=120, active=False, visible=False)
        self._said, self._notice = pn.pane.Markdown(""), pn.pane.Alert(visible=False, alert_type="danger")
        self._button = pn.widgets.Button(label="forecast", color="primary", on_click=lambda *_: self.start(), width=90)
        self._stop = pn.widgets.Button(label="stop", on_click=lambda *_: self.stop(), disabled=True, width=60)
        self._place = pn.Column(*([explorer] if explorer else []), sizing_mode="stretch_width")
        self.layout = ColumnPage(
            pn.Card(self._fields(), self._notice, title="Forecast", sizing_mode="stretch_width"), self._place, sizing_mode="stretch_width"
        )

    def __panel__(self) -> pn.viewable.Viewable:
        return self.layout

    def _fields(self) -> pn.Column:
        of = self.param
        fields = [
            pn.widgets.DatePicker.from_param(of.day, width=130),
            pn.widgets.Select.from_param(of.time, width=100),
            pn.widgets.IntInput.from_param(of.members, width=90),
            pn.widgets.FloatInput.from_param(of.days, width=90),
            pn.widgets.IntInput.from_param(of.seed, width=90),
            pn.widgets.TextInput.from_param(of.archive, width=260),
        ]
        return pn.Column(pn.FlexBox(*fields), pn.FlexBox(self._button, self._stop, self._bar, self._said, align_items="center"))

    def _offer_times(self) -> None:
        """The initial times of the day."""
        there = self._times[self._times.date == self.day]
        self.param.time.objects = {f"{time:%H:%M} UTC": time.to_datetime64() for time in there}
        self.time = there[0].to_datetime64() if len(there) else None

    def start(self) -> None:
        """Starts the forecast that was chosen, as the button does. A refusal is shown and nothing is started."""
        self._tell("")
        try:
            self._need_time()
            self._button.loading = True
            lead, out = f"{24 * self.days:g}h", Path(self.archive)
            times = np.array([self.time])
            self.started = self._cluster.forecast(self._checkpoint, self._initial, times, self.members, lead, out, self.seed)
        except AerisError as refusal:
            self._tell(str(refusal))
            return
        finally:
            self._button.loading = False
        self._show_state("waiting for the first members", running=True)
        self._bar.param.update(value=0, visible=True)
        self._looking.run(True)

    def stop(self) -> None:
        """Stops the forecast; started again with the same fields it goes on where it stands."""
        if self.started is not None:
            self.started.stop()

    def look(self) -> None:
        """Looks how far the forecast has come; opens the explorer as soon as there is something to see."""
        assert self.started is not None
        try:
            ended = self.started.wait(timeout=0.0)
            done, total, whole = self._progress(self.started.path)
            if done and (self.explorer is None or self.explorer.reader.path != self.started.path):
                self._open(self.started.path)
        except AerisError as failure:
            self._end("failed")
            self._tell(str(failure))
            return
        self._bar.value = round(100 * done / total)
        if done:
            self._show_state(f"{done} of {total} states, {whole} of {self.members} members complete", running=not ended)
        if ended and done < total:
            self._end("stopped")  # and the archive stays named: the same fields go on there
        elif ended:
            self._end(self._said.object)
            self.archive = str(free_name(self._first_name))

    def _need_time(self) -> None:
        if self.time is None:
            raise DataError(
                f"There is no initial state on {self.day}",
                f"Those that were given run from {self._times[0]:%Y-%m-%d %H:%M} to {self._times[-1]:%Y-%m-%d %H:%M} UTC",
                "Choose another day",
            )

    def _progress(self, path: Path) -> tuple[int, int, int]:
        """States that are done, all states, and members that are complete; none are while the archive is not laid out."""
        if not path.exists():
            return 0, 1, 0
        reader = open_reader(path)
        leads, length = reader.leads_done, len(reader.leads)
        assert leads is not None
        return int(leads.sum()), leads.size * length, int((leads == length).sum())

    def _open(self, path: Path) -> None:
        if self.explorer is not None:
            self.explorer.follow = False
        self.explorer = Explorer(path, **{**self._exploring, "follow": True})
        self._place.objects = [self.explorer]

    def _end(self, words: str) -> None:
        self._looking.run(False)
        self._show_state(words, running=False)
        if self.explorer is not None and self.started is not None and self.explorer.reader.path == self.started.path:
            self.explorer.follow = False
            self.explorer.refresh()

    def _show_state(self, words: str, running: bool) -> None:
        self._said.object = words
        self._button.disabled, self._stop.disabled = running, not running

    def _tell(self, text: str) -> None:
        self._notice.param.update(object=text, visible=bool(text))


def free_name(path: Path) -> Path:
    """The path, or where something stands there, the path with the first number that is free."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not name.exists())


def times_of(initial: xr.Dataset) -> np.ndarray:
    """The times of a dataset of initial states, rising."""
    return np.sort(initial.time.values.astype("datetime64[ns]"))
