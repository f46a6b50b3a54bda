"""The panel that starts forecasts, with a stand-in for a cluster that fills a real archive in steps, and once with engines."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import aeris
from aeris.data.grid import Grid
from aeris.errors import ClusterError, ConfigurationError, DataError, EngineLost
from aeris.forecasting.archive import Archive
from aeris.views.forecast_panel import free_name

TIMES = np.array(["2001-01-01T00", "2001-01-01T06", "2001-01-03T12"], "datetime64[ns]")


class Started:
    """A forecast of two groups of members that goes on when it is told to."""

    def __init__(self, path: Path, times: np.ndarray, members: int, lead: str) -> None:
        leads = np.arange(1, int(lead.removesuffix("h")) // 6 + 1) * np.timedelta64(6, "h")
        self.path, self.ended = path, False
        self.failure: Exception | None = None
        self.archive = Archive(
            path, ("2m_temperature",), Grid.regular(16, 32), times, members, members // 2, leads.astype("timedelta64[ns]")
        )

    def fill(self, group: int, leads: range) -> None:
        self.archive.lay_out({"batch": self.archive.group})
        for lead in leads:
            number = np.arange(self.archive.group) + group * self.archive.group
            states = 280 + np.broadcast_to(number[:, None, None, None] + lead, (len(number), 1, 16, 32))
            self.archive.write(0, group, lead, states.astype(np.float32))

    def wait(self, timeout: float | None = None) -> bool:
        if self.failure is not None:
            raise self.failure
        return self.ended

    def stop(self) -> None:
        self.ended = True


class StandIn:
    """A cluster that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.refusal: Exception | None = None

    def forecast(self, checkpoint, initial, times, members=16, lead="10d", out="forecast.zarr", seed=0):
        if self.refusal is not None:
            raise self.refusal
        self.asked.append({"checkpoint": checkpoint, "times": times.tolist(), "members": members, "lead": lead, "out": out, "seed": seed})
        return Started(Path(out), times, members, lead)


@pytest.fixture
def initial() -> xr.Dataset:
    grid = Grid.regular(16, 32)
    coords = {"time": TIMES, "latitude": grid.latitude, "longitude": grid.longitude}
    return xr.Dataset({"2m_temperature": (("time", "latitude", "longitude"), np.full((3, 16, 32), 280.0))}, coords)


@pytest.fixture
def cluster() -> StandIn:
    return StandIn()


def run(steps) -> None:
    """Runs what needs a loop of events, as a notebook has one."""
    asyncio.run(asyncio.wait_for(steps(), 60))


def notice(panel) -> str:
    return panel._notice.object if panel._notice.visible else ""


def test_a_forecast_is_chosen_started_and_seen_while_it_fills(cluster, initial, tmp_path):
    panel = aeris.explore(tmp_path / "f.zarr", cluster=cluster, checkpoint="run", initial=initial)
    assert panel.explorer is None and panel.archive == str(tmp_path / "f.zarr")

    async def steps() -> None:
        panel.time, panel.members, panel.days, panel.seed = TIMES[1], 4, 0.5, 7
        panel._button.clicks += 1
        (asked,) = cluster.asked
        assert asked == {
            "checkpoint": "run", "times": [TIMES[1].item()], "members": 4, "lead": "12h", "out": tmp_path / "f.zarr", "seed": 7,
        }  # fmt: skip
        panel.look()
        assert panel.explorer is None and panel._button.disabled and not panel._stop.disabled
        panel.started.fill(0, range(2))
        panel.look()
        assert "2 of 4 members" in panel.explorer.picture.title and panel.explorer.follow
        assert panel._said.object == "4 of 8 states, 2 of 4 members complete" and panel._bar.value == 50
        shown = panel.explorer
        panel.started.fill(1, range(2))
        panel.started.ended = True
        panel.look()
        assert panel.explorer is shown and "4 of 4 members" in shown.picture.title and not shown.follow
        assert panel._said.object == "8 of 8 states, 4 of 4 members complete" and not panel._button.disabled
        assert panel.archive == str(tmp_path / "f-2.zarr")

    run(steps)


def test_the_panel_looks_by_itself_and_a_second_forecast_takes_the_place_of_the_first(cluster, initial, tmp_path):
    panel = aeris.explore(tmp_path / "f.zarr", cluster=cluster, checkpoint="run", initial=initial)

    async def until(holds) -> None:
        while not holds():
            await asyncio.sleep(0.05)

    async def steps() -> None:
        panel.members, panel.days = 2, 0.25
        for name in ("f.zarr", "f-2.zarr"):
            panel.start()
            for group in (0, 1):
                panel.started.fill(group, range(1))
            panel.started.ended = True
            await until(lambda name=name: panel.explorer is not None and panel.explorer.reader.path.name == name)
            assert panel._place.objects == [panel.explorer.layout]

    run(steps)


def test_the_fields_offer_the_times_of_the_initial_states(cluster, initial, tmp_path):
    panel = aeris.explore(tmp_path / "f.zarr", initial, cluster=cluster, checkpoint="run")
    assert list(panel.param.time.objects) == [TIMES[0], TIMES[1]]
    panel.day = datetime.date(2001, 1, 3)
    assert panel.time == TIMES[2]
    panel.day = datetime.date(2001, 1, 2)
    panel.start()
    assert "no initial state on 2001-01-02" in notice(panel) and cluster.asked == []


def test_a_refusal_and_a_failure_are_told_in_words(cluster, initial, tmp_path):
    panel = aeris.explore(tmp_path / "f.zarr", cluster=cluster, checkpoint="run", initial=initial)
    cluster.refusal = ClusterError("The cluster is training tiny", "A cluster does one job at a time", "Wait for it (.wait())")

    async def steps() -> None:
        panel.start()
        assert notice(panel) == "The cluster is training tiny. A cluster does one job at a time. Wait for it (.wait())."
        assert not panel._button.disabled and panel.started is None
        cluster.refusal = None
        panel.start()
        assert notice(panel) == ""
        panel.started.failure = EngineLost("Engine 1 has gone", "The ranks work together", "Start it again")
        panel.look()
        assert notice(panel).startswith("Engine 1 has gone") and panel._said.object == "failed"
        assert not panel._button.disabled and panel.archive == str(tmp_path / "f.zarr")  # pressed again, it goes on there

    run(steps)


def test_stop_stops_it_and_what_is_there_stays(cluster, initial, tmp_path):
    panel = aeris.explore(tmp_path / "f.zarr", cluster=cluster, checkpoint="run", initial=initial)

    async def steps() -> None:
        panel.members = 4
        panel.start()
        panel.started.fill(0, range(1))
        panel._stop.clicks += 1
        panel.look()
        assert panel._said.object == "stopped" and notice(panel) == "" and not panel._button.disabled
        assert panel.archive == str(tmp_path / "f.zarr")  # pressed again, it goes on there

    run(steps)


def test_what_is_missing_is_refused_before_anything_is_drawn(cluster, initial, tmp_path, forecast):
    with pytest.raises(ConfigurationError, match="without a checkpoint"):
        aeris.explore(tmp_path / "f.zarr", initial, cluster=cluster)
    with pytest.raises(ConfigurationError, match="without initial states"):
        aeris.explore(tmp_path / "f.zarr", cluster=cluster, checkpoint="run")
    with pytest.raises(ConfigurationError, match="without a cluster"):
        aeris.explore(forecast.forecast, checkpoint="run")
    with pytest.raises(DataError, match="initial dataset has no coordinate time"):
        aeris.explore(tmp_path / "f.zarr", cluster=cluster, checkpoint="run", initial=initial.isel(time=0, drop=True))


def test_a_forecast_that_is_there_is_shown_beside_the_panel(cluster, forecast, tmp_path):
    panel = aeris.explore(forecast.forecast, forecast.truth, cluster=cluster, checkpoint="run")
    assert "3 of 3 members" in panel.explorer.picture.title
    assert panel.archive == "forecast.zarr"


def test_names_that_are_taken_get_a_number(tmp_path):
    assert free_name(tmp_path / "f.zarr") == tmp_path / "f.zarr"
    for name in ("f.zarr", "f-2.zarr"):
        (tmp_path / name).mkdir()
    assert free_name(tmp_path / "f.zarr") == tmp_path / "f-3.zarr"


@pytest.mark.slow
def test_with_engines_the_ensemble_fills(tmp_path):
    states = aeris.Planet(grid=(32, 64), seed=0).simulate(years=0.01, start="2005-01-01", seed=1)
    with aeris.Cluster.local(engines=2, directory=tmp_path / "ipython") as started:
        panel = aeris.explore(tmp_path / "f.zarr", states, cluster=started, checkpoint=aeris.load("demo"))

        async def steps() -> None:
            panel.members, panel.days = 16, 0.25
            panel.start()
            assert notice(panel) == ""
            while not panel.started.wait(timeout=0.1):
                await asyncio.sleep(0.2)
            while panel._button.disabled:
                await asyncio.sleep(0.1)

        asyncio.run(asyncio.wait_for(steps(), 240))
    assert panel._said.object == "16 of 16 states, 16 of 16 members complete"
    assert "16 of 16 members" in panel.explorer.picture.title
