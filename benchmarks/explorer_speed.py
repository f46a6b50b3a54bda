"""How long the explorer takes to open a large archive and to draw another lead.

Makes an archive at 0.25° (721×1440 cells) with 50 members and 40 leads, laid out as a forecast lays it out. Only the leads that are visited
are written: waves with noise, which hardly compress. The file cache is warm. The plume reads the leads that are there, so a full archive
takes that many times as long.

    python benchmarks/explorer_speed.py [folder]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import holoviews as hv
import numpy as np

import aeris
from aeris.data.grid import Grid
from aeris.forecasting.archive import Archive

MEMBERS, GROUP, LEADS, VISITED = 50, 10, 40, 3
CHANNELS = ("2m_temperature", "geopotential_500")


def make(path: Path) -> None:
    """Lays the archive out and writes the first leads; the others are missing."""
    leads = (np.arange(1, LEADS + 1) * np.timedelta64(6, "h")).astype("timedelta64[ns]")
    grid = Grid(np.linspace(90, -90, 721)[:-1], np.arange(1440) / 4)
    archive = Archive(path, CHANNELS, grid, np.array(["2001-01-01"], "datetime64[ns]"), MEMBERS, GROUP, leads)
    archive.lay_out({"batch": GROUP})
    rng = np.random.default_rng(0)
    wave = 280 + 30 * np.cos(np.deg2rad(grid.latitude))[:, None] * np.cos(np.deg2rad(3 * grid.longitude))
    for group in range(archive.groups):
        for lead in range(VISITED):
            noise = rng.normal(0, 1, (1, len(CHANNELS), 720, 1440)) + rng.normal(0, 1, (GROUP, len(CHANNELS), 1, 1))
            archive.write(0, group, lead, (wave + noise).astype(np.float32))


def seconds(work: Callable[[], object]) -> float:
    """Time of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main(folder: Path) -> None:
    """Prints one line for each thing that a visitor does."""
    path = folder / "forecast.zarr"
    print(f"{seconds(lambda: make(path)):7.2f} s  write {VISITED} leads of {MEMBERS} members, {len(CHANNELS)} fields at 0.25°")
    print(f"{seconds(lambda: __import__('aeris.views.dashboard')):7.2f} s  import what draws")
    apps = []
    print(f"{seconds(lambda: apps.append(aeris.explore(path))):7.2f} s  open: the mean of all members, and the plume")
    app = apps[0]
    renderer = hv.renderer("bokeh")
    print(f"{seconds(lambda: renderer.get_plot(app._map_pane.object)):7.2f} s  first plot")
    for quantity, words in (("mean", "ensemble mean"), ("member", "one member"), ("spread", "spread")):
        app.quantity = quantity
        plot = renderer.get_plot(app._map_pane.object)
        for index, kind in ((1, "new"), (2, "new"), (1, "again")):
            taken = seconds(lambda index=index: setattr(app, "lead", app.reader.leads[index]))
            print(f"{taken:7.2f} s  {words}, {kind} lead: {plot.state.title.text.splitlines()[-1]}")
        app.lead = app.reader.leads[0]
        app.reader.members.cache_clear()
    clicked = seconds(lambda: app.choose_place((-33.0, 151.0)))
    print(f"{clicked:7.2f} s  click: the plume of {MEMBERS} members and the {VISITED} leads that are there")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
