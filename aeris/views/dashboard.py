"""The explorer itself: what each of its parameters redraws.

A map keeps its zoom while time, lead, member or threshold change: these send a new picture into it. A change of what the axes or colours
mean (variable, level, quantity, projection) makes a new map. Of the tabs only the one that is seen is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import param
import xarray as xr
from cartopy.crs import Projection

from aeris.data.grid import Grid
from aeris.errors import AerisError
from aeris.views import storm_tracks, tabs
from aeris.views.archive_reader import open_reader
from aeris.views.coastline import coast_of
from aeris.views.ensemble_statistics import Quantity, round_threshold
from aeris.views.interactive_maps import PROJECTIONS, WIDTH, MapView, Picture, map_plane
from aeris.views.repeating import Repeated
from aeris.views.resampling import Plane
from aeris.views.scene import Scene
from aeris.views.sidebar import HOVMOLLER, SPECTRA, Sidebar
from aeris.views.skill import SkillBook, SkillWorker
from aeris.views.slices import Channel, Place
from aeris.views.style import colour_scale, hours, lead_text, time_text, variable_text

hv.extension("bokeh", logo=False, inline=True)  # scripts from this machine, not from a network

QUANTITIES = {"ensemble mean": "mean", "one member": "member", "ensemble spread": "spread", "exceedance probability": "probability"}
SPECTRUM = {"zonal wavenumber, in the band": "wavenumber", "spherical-harmonic degree": "degree"}
SKILL = 4
"""Number of the tab of spread and error; that of storms, which is there with tracks alone, comes after it."""

AT_ONCE = 2**24
"""Most values that are scored without being asked to: 64 MiB."""


class Explorer(pn.viewable.Viewer):
    """A forecast to walk through; `aeris.explore` makes one.

    Every widget is a parameter: ``explorer.lead = np.timedelta64(24, "h")`` does what the slider does.

    Args:
        forecast: Archive or its path.
        truth: Canonical dataset.
        variable: The one to begin with.
        follow: Refresh by itself.
        every: Seconds between two refreshes.
        tracks: Storm tracks, as `aeris.views.storm_tracks.read_tracks` takes them.

    Attributes:
        reader: Reads the archive.
        truth: As given.
        picture: What the map shows; None where there is nothing to show.
        drawn: What the tab that is seen shows.
        layout: The Panel object.
    """

    variable: Any = param.Selector(label="variable")
    level: Any = param.Selector(label="level (hPa)")
    time: Any = param.Selector(label="initial time")
    lead: Any = param.Selector(label="lead")
    quantity: Any = param.Selector(objects=QUANTITIES, default="mean", label="quantity")
    member: Any = param.Selector(label="member")
    threshold = param.Number(label="threshold")
    above: Any = param.Selector(objects={"more than": True, "less than": False}, default=True, label="probability of")
    projection: Any = param.Selector(objects=list(PROJECTIONS), default="PlateCarree", label="projection")
    centre = param.Number(default=0.0, bounds=(-180.0, 180.0), step=10.0, label="central longitude (°E)")
    latitude = param.Number(default=50.0, bounds=(-90.0, 90.0), label="latitude (°N)")
    longitude = param.Number(default=10.0, bounds=(-180.0, 360.0), label="longitude (°E)")
    band = param.Range(default=(30.0, 60.0), bounds=(-90.0, 90.0), label="band of latitudes (°N)")
    spectrum: Any = param.Selector(objects=SPECTRUM, default="wavenumber", label="power by")
    keep_colours = param.Boolean(default=False, label="keep the colour limits")
    follow = param.Boolean(default=False, label="follow: refresh by itself")
    tab = param.Integer(default=0, bounds=(0, SKILL + 1))

    def __init__(
        self,
        forecast: xr.Dataset | str | Path,
        truth: xr.Dataset | None = None,
        variable: str | None = None,
        follow: bool = False,
        every: float = 10.0,
        tracks: pd.DataFrame | xr.Dataset | None = None,
    ) -> None:
        self.reader, self.truth = open_reader(forecast), truth
        self._tracks = None if tracks is None else storm_tracks.read_tracks(tracks)
        self.picture: Picture | None = None
        self.drawn: Any = None
        self._map: MapView | None = None
        self._refusals: dict[str, str] = {}
        self._plane, self._field = lru_cache(maxsize=8)(self._make_plane), lru_cache(maxsize=16)(self._make_field)
        self._storms = lru_cache(maxsize=8)(self._make_storms)
        self._lead_line = hv.streams.Pipe(data=0.0)
        self._skills = SkillBook()
        self._worker: SkillWorker | None = None
        self._following, self._watching = Repeated(self.refresh, every), Repeated(self._watch_worker, 0.5)
        super().__init__()
        self.param.tab.bounds = (0, len(self._drawings) - 1)
        self._offer_choices(variable)
        self._sidebar = Sidebar(self, self.refresh if self.reader.path else None)
        self._compute = pn.widgets.Button(color="primary", on_click=lambda *_: self.compute_skill(), width=100)
        self._map_pane, self._notice = pn.pane.HoloViews(), pn.pane.Alert(visible=False)
        self._rooms = [pn.Column(min_width=640, min_height=440) for _ in self._drawings]
        self._tabs = pn.Tabs(*zip(self._drawings, self._rooms, strict=True), dynamic=True)
        picture = pn.Column(self._notice, self._map_pane, width=WIDTH + 120)
        self.layout = pn.FlexBox(self._sidebar.box, picture, self._tabs, sizing_mode="stretch_width")  # in one row, two or three
        self._tabs.link(self, bidirectional=True, active="tab")
        self._connect()
        self._draw_all()
        self.follow = follow

    def __panel__(self) -> pn.viewable.Viewable:
        return self.layout

    # ------------------------------------------------------------------ what is chosen

    @property
    def channel(self) -> Channel:
        """Variable and level."""
        return self.variable, self.level

    @property
    def place(self) -> Place:
        """The place that was chosen."""
        return self.latitude, self.longitude

    @property
    def scene(self) -> Scene:
        """All that is chosen."""
        quantity = Quantity(self.quantity, self.member, self.threshold, self.above)
        return Scene(self.reader, self.truth, self.channel, self.time, self.lead, quantity, self.place, self.band, self.spectrum)

    def choose_place(self, place: Place) -> None:
        """Chooses a place, as a click on the map does."""
        self.param.update(latitude=round(place[0], 3), longitude=round(place[1], 3))

    def refresh(self) -> None:
        """Looks whether the archive on disk has gained members or leads, and draws again if so."""
        if self.reader.path is None:
            return
        reader = open_reader(self.reader.path)
        before, now = self.reader.leads_done, reader.leads_done
        if before is None or now is None or not np.array_equal(before, now):
            self.reader = reader
            self._field.cache_clear()
            self._show_picture()
            self._draw_tab()

    # ------------------------------------------------------------------ choices

    def _offer_choices(self, variable: str | None) -> None:
        reader = self.reader
        self.param.variable.objects = {variable_text(name): name for name in reader.variables}
        self.param.time.objects = {time_text(time): time for time in reader.times}
        self.param.lead.objects = {lead_text(lead): lead for lead in reader.leads}
        self.param.member.objects = reader.numbers.tolist()
        self.time, self.lead, self.member = reader.times[0], reader.leads[0], reader.numbers.tolist()[0]
        self.variable = reader.check_variable(variable or reader.variables[0])
        self._offer_levels()

    def _offer_levels(self) -> None:
        """Levels of the variable, and a threshold that fits it."""
        levels = self.reader.levels(self.variable)
        offered: list[Any] = [*levels] or [None]
        self.param.level.objects = offered
        level = self.level if self.level in levels else (500 if 500 in levels else offered[0])
        field = self.reader.member((self.variable, level), self.time, self.lead, self.member)
        self.param.update(level=level, threshold=round_threshold(field) if field.sizes["number"] else self.threshold)

    @property
    def _drawings(self) -> dict[str, Callable[[], Any]]:
        always: dict[str, Callable[[], Any]] = {
            "Plume": lambda: tabs.plume(self.scene, self._lead_line),
            "Spectra": lambda: tabs.spectra(self.scene),
            "Hovmöller": lambda: tabs.hovmoller(self.scene),
            "Extremes": lambda: tabs.extremes(self.scene),
            "Skill": self._skill,
        }
        return always if self._tracks is None else {**always, "Storms": lambda: tabs.storms(self._storms_here, self.scene)}

    @property
    def _storms_here(self) -> pd.DataFrame:
        """The storm tracks of the forecast from the initial time."""
        assert self._tracks is not None
        return storm_tracks.during(self._tracks, self.time, self.reader.leads)

    def _connect(self) -> None:
        """Which parameter redraws what."""
        watch = self.param.watch
        watch(lambda *_: self._offer_levels(), "variable")  # first, so that the others meet a level that is there
        watch(lambda *_: self._new_map(), ["variable", "level", "quantity", "projection", "centre"])
        watch(lambda *_: self._show_picture(), ["time", "lead", "member", "threshold", "above", "keep_colours"])
        watch(lambda *_: self._map.mark(self.place) if self._map else None, ["latitude", "longitude"])
        watch(lambda *_: self._draw_tab(), ["variable", "level", "time", "tab"])
        watch(lambda *_: self._draw_tab(but=(SPECTRA, SKILL)), ["latitude", "longitude", "threshold", "above"])
        watch(lambda *_: self._draw_tab(SPECTRA, HOVMOLLER), "band")
        watch(lambda *_: self._draw_tab(SPECTRA), "spectrum")
        watch(lambda *_: self._draw_tab(HOVMOLLER), ["quantity", "member"])
        watch(lambda *_: self._lead_moved(), "lead")
        watch(lambda *_: self._sidebar.hide_useless(self), ["variable", "level", "quantity", "tab", "spectrum"])
        watch(lambda *_: self._following.run(self.follow), "follow")

    # ------------------------------------------------------------------ the map

    def _draw_all(self) -> None:
        self._sidebar.hide_useless(self)
        self._new_map()
        self._lead_line.send(float(hours(self.lead)))
        self._draw_tab()

    def _new_map(self) -> None:
        """A map for another variable, quantity or projection; the colour limits begin anew."""
        self._map = None
        self._show_picture()

    def _show_picture(self) -> None:
        """Sends the picture of the moment into the map, or makes the map where there is none."""
        with self._telling("map", self._clear_map):
            picture = self.make_picture()
            if self._map is None:
                coast = coast_of(self.truth) if self.truth is not None else "earth"
                plane = self._plane(self.projection, self.centre)
                self._map = MapView(plane, self.centre, coast, picture, self.place, self.choose_place)
                self._map_pane.object = self._map.element
            else:
                self._map.show(picture)
            self.picture = picture

    def _clear_map(self) -> None:
        self._map = self.picture = self._map_pane.object = None

    def make_picture(self) -> Picture:
        """The field of the quantity, with its title and colours.

        Raises:
            DataError: Too few members have come that far.
        """
        scene = self.scene
        field, there = self._field(self.channel, self.time, self.lead, scene.quantity)
        count = "" if self.quantity == "member" else f", {there} of {len(self.reader.numbers)} members"
        title = (
            f"{variable_text(*self.channel)}\n{scene.quantity.text(scene.units)}{count}\n"
            f"from {time_text(self.time)}, lead {lead_text(self.lead)}, valid {time_text(self.time + self.lead)}"
        )
        kept = self.keep_colours and self.picture is not None and self._map is not None
        scale = self.picture.scale if kept and self.picture else colour_scale(field, scene.quantity.scale)
        picture = Picture(field, title, scale, tabs.quantity_label(scene))
        if self._tracks is None:
            return picture
        projection = self._plane(self.projection, self.centre).projection
        centres = storm_tracks.points(self._storms_here, self.time + self.lead, projection)
        return replace(picture, storms=self._storms(self.time, projection), centres=list(centres))

    def _make_storms(self, time: np.datetime64, projection: Projection) -> list[np.ndarray]:
        return storm_tracks.lines(self._storms_here, projection)

    def _make_field(self, channel: Channel, time: np.datetime64, lead: np.timedelta64, chosen: Quantity) -> tuple[xr.DataArray, int]:
        """The quantity ``(latitude, longitude)``, and the number of members that were read for it."""
        if chosen.kind == "member":
            members = self.reader.member(channel, time, lead, chosen.member)
        else:
            members = self.reader.members(channel, time, lead)
        field = chosen.of(members.assign_attrs(units=self.scene.units))
        return field.rename(channel[0]), members.sizes["number"]

    def _make_plane(self, projection: str, centre: float) -> Plane:
        return map_plane(Grid.of(self.reader.forecast), projection, centre)

    # ------------------------------------------------------------------ the tabs

    def _lead_moved(self) -> None:
        """Moves the line that marks the lead, and draws what belongs to one lead."""
        self._lead_line.send(float(hours(self.lead)))
        if self.tab == SPECTRA and self.drawn is not None:
            with self._telling("tab", self._clear_tab):
                self.drawn[0] = pn.panel(tabs.spectrum(self.scene))
        elif self.tab in (SPECTRA, SKILL):
            self._draw_tab()

    def _draw_tab(self, *only: int, but: tuple[int, ...] = ()) -> None:
        """Draws the tab that is seen, if it is one of these."""
        if self.tab in but or (only and self.tab not in only):
            return
        with self._telling("tab", self._clear_tab):
            self.drawn = list(self._drawings.values())[self.tab]()
            self._rooms[self.tab].objects = [pn.panel(self.drawn)]

    def _clear_tab(self) -> None:
        self.drawn = None
        self._rooms[self.tab].clear()

    @contextmanager
    def _telling(self, part: str, clear: Callable[[], None]) -> Iterator[None]:
        """Shows a refusal above the map, where a server's log would hide it, and clears the part that cannot be drawn."""
        try:
            yield
            self._refusals.pop(part, None)
        except AerisError as refusal:
            self._refusals[part] = str(refusal)
            clear()
        told = "\n\n".join(dict.fromkeys(self._refusals.values()))
        self._notice.param.update(object=told, visible=bool(told), alert_type="warning")

    # ------------------------------------------------------------------ spread and error

    def _skill(self) -> pn.Column:
        scene, busy = self.scene, self._worker is not None
        missing = self._skills.missing(scene)
        if not busy and len(missing) * self.reader.values_per_lead <= AT_ONCE:
            for lead in missing:
                self._skills.compute(scene, lead)
        self._compute.label = "stop" if busy else "compute"
        return tabs.skill(scene, self._skills, self._lead_line, self._compute)

    def compute_skill(self) -> None:
        """Begins to compute spread and error at all leads, or stops it; they are drawn as they come."""
        if self._worker is not None:
            self._worker.stop()
            return
        self._worker = SkillWorker(self._skills, self.scene)
        self._watching.run(True)
        self._draw_tab(SKILL)

    def _watch_worker(self) -> None:
        """Draws what has been computed since the last look."""
        worker = self._worker
        if worker is None:
            return
        if not worker.busy:
            self._worker = None
            self._watching.run(False)
        with self._telling("skill", lambda: None):
            if worker.refusal is not None:
                raise worker.refusal
        if worker.grown() or not worker.busy:
            self._draw_tab(SKILL)
