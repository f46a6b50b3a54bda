"""The widgets of the explorer and what each of them redraws.

A map keeps its zoom while time, lead, member or threshold change: these send a new picture into it. A change of what the axes or colours
mean (variable, level, quantity, projection) makes a new map. Of the tabs only the one that is seen is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import panel as pn
import param
import xarray as xr

from aeris.data.grid import Grid
from aeris.errors import AerisError
from aeris.views import interactive_curves as curves
from aeris.views.archive_reader import open_reader
from aeris.views.coastline import coast_of
from aeris.views.ensemble_statistics import (
    Quantity,
    daily_maxima,
    exceedance_probability,
    hottest_days,
    mean,
    round_threshold,
    zonal_power,
)
from aeris.views.interactive_maps import PROJECTIONS, WIDTH, MapView, Picture, map_plane
from aeris.views.resampling import Plane
from aeris.views.slices import Channel, Place, at_leads, at_place, band_text, place_text
from aeris.views.style import choose_level, colour_scale, hours, lead_text, time_text, units_of, variable_text, with_unit

hv.extension("bokeh", logo=False, inline=True)  # scripts from this machine, not from a network

QUANTITIES = {"ensemble mean": "mean", "one member": "member", "ensemble spread": "spread", "exceedance probability": "probability"}
_WIDE = 230


class Explorer(pn.viewable.Viewer):
    """A forecast to walk through; `aeris.explore` makes one.

    Every widget is a parameter: ``explorer.lead = np.timedelta64(24, "h")`` does what the slider does.

    Args:
        forecast: Archive or its path.
        truth: Canonical dataset.
        variable: The one to begin with.
        follow: Refresh by itself.
        every: Seconds between two refreshes.

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
    keep_colours = param.Boolean(default=False, label="keep the colour limits")
    follow = param.Boolean(default=False, label="follow: refresh by itself")
    tab = param.Integer(default=0, bounds=(0, 3))

    def __init__(
        self,
        forecast: xr.Dataset | str | Path,
        truth: xr.Dataset | None = None,
        variable: str | None = None,
        follow: bool = False,
        every: float = 10.0,
    ) -> None:
        self.reader, self.truth, self._every = open_reader(forecast), truth, every
        self.picture: Picture | None = None
        self.drawn: Any = None
        self._map: MapView | None = None
        self._refusals: dict[str, str] = {}
        self._plane, self._field = lru_cache(maxsize=8)(self._make_plane), lru_cache(maxsize=16)(self._make_field)
        self._lead_line = hv.streams.Pipe(data=0.0)
        super().__init__()
        self._offer_choices(variable)
        self._map_pane, self._notice = pn.pane.HoloViews(), pn.pane.Alert(visible=False)
        self._rooms = [pn.Column(min_width=640, min_height=440) for _ in self._drawings]
        self._tabs = pn.Tabs(*zip(self._drawings, self._rooms, strict=True), dynamic=True)
        pictures = pn.FlexBox(pn.Column(self._notice, self._map_pane, width=WIDTH + 120), self._tabs)  # below each other on a narrow page
        self.layout = pn.Row(self._widgets(), pictures, sizing_mode="stretch_width")
        self._tabs.link(self, active="tab")
        self._connect()
        self._draw_all()
        self._callback: Any = None
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
    def chosen(self) -> Quantity:
        """The quantity with its member and threshold."""
        return Quantity(self.quantity, self.member, self.threshold, self.above)

    @property
    def units(self) -> str:
        """Unit of the variable."""
        return units_of(self.reader.forecast[self.variable])

    @property
    def happened(self) -> xr.DataArray | None:
        """The truth of the channel, lazy; None where there is none."""
        if self.truth is None or self.variable not in self.truth:
            return None
        field = self.truth[self.variable]
        if self.level is None:
            return field
        return choose_level(field, self.level) if "level" in field.dims and self.level in field.level else None

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

    # ------------------------------------------------------------------ choices and widgets

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

    def _widgets(self) -> pn.Column:
        numbers = ("latitude", "longitude", "threshold")
        self._widget: dict[str, Any] = {name: pn.widgets.FloatInput.from_param(self.param[name], width=_WIDE) for name in numbers}
        self._widget["lead"] = self._slider("lead", pn.widgets.DiscreteSlider, options=self.param.lead.get_range())
        self._widget["band"] = self._slider("band", pn.widgets.RangeSlider, start=-90.0, end=90.0, step=1.0)
        self._widget["centre"] = self._slider("centre", pn.widgets.FloatSlider, start=-180.0, end=180.0, step=10.0)
        names = ("variable", "level", "time", "quantity", "member", "above", "projection")
        self._widget |= {name: pn.widgets.Select.from_param(self.param[name], width=_WIDE) for name in names}
        self._widget |= {name: pn.widgets.Checkbox.from_param(self.param[name]) for name in ("keep_colours", "follow")}
        refresh = pn.widgets.Button(name="refresh", on_click=lambda *_: self.refresh(), disabled=self.reader.path is None)
        self._widget["follow"].disabled = self.reader.path is None
        order = ("variable", "level", "time", "lead", "quantity", "member", "above", "threshold", "projection", "centre")
        more = ("latitude", "longitude", "band", "keep_colours")
        return pn.Column(*(self._widget[name] for name in (*order, *more)), pn.Row(refresh, self._widget["follow"]), width=_WIDE + 20)

    def _slider(self, name: str, kind: type[pn.widgets.Widget], **options: Any) -> pn.widgets.Widget:
        """A slider that changes its parameter when it is let go: what it passes on its way would be read and drawn for nothing."""
        slider = kind(name=self.param[name].label, value=getattr(self, name), width=_WIDE, **options)
        slider.param.watch(lambda event: self.param.update(**{name: event.new}), "value_throttled")
        self.param.watch(lambda event: slider.param.update(value=event.new), name)
        return slider

    @property
    def _drawings(self) -> dict[str, Callable[[], Any]]:
        return {"Plume": self.plume, "Spectra": self.spectra, "Hovmöller": self.hovmoller, "Extremes": self.extremes}

    def _connect(self) -> None:
        """Which parameter redraws what."""
        watch = self.param.watch
        watch(lambda *_: self._offer_levels(), "variable")  # first, so that the others meet a level that is there
        watch(lambda *_: self._new_map(), ["variable", "level", "quantity", "projection", "centre"])
        watch(lambda *_: self._show_picture(), ["time", "lead", "member", "threshold", "above", "keep_colours"])
        watch(lambda *_: self._map.mark(self.place) if self._map else None, ["latitude", "longitude"])
        watch(lambda *_: self._draw_tab(), ["variable", "level", "time", "latitude", "longitude", "band", "tab", "threshold", "above"])
        watch(lambda *_: self._draw_tab() if self.tab == 2 else None, ["quantity", "member"])
        watch(lambda *_: self._lead_moved(), "lead")
        watch(lambda *_: self._hide_useless(), ["variable", "level", "quantity", "tab"])
        watch(lambda *_: self._follow(), "follow")

    def _hide_useless(self) -> None:
        """Shows only widgets that change something."""
        self._widget["threshold"].name = with_unit("threshold", self.units)
        self._widget["level"].visible = self.level is not None
        self._widget["member"].visible = self.quantity == "member"
        self._widget["above"].visible = self.quantity == "probability" or self.tab == 3
        self._widget["threshold"].visible = self.quantity == "probability" or self.tab == 3
        self._widget["band"].visible = self.tab in (1, 2)

    def _follow(self) -> None:
        if self._callback is not None:
            self._callback.stop()
            self._callback = None
        if self.follow:
            self._callback = pn.state.add_periodic_callback(self.refresh, period=round(1000 * self._every))

    # ------------------------------------------------------------------ the map

    def _draw_all(self) -> None:
        self._hide_useless()
        self._new_map()
        self._lead_moved()
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
        chosen, kind = self.chosen, "value" if self.quantity in ("mean", "member") else self.quantity
        field, there = self._field(self.channel, self.time, self.lead, chosen)
        count = "" if chosen.kind == "member" else f", {there} of {len(self.reader.numbers)} members"
        title = (
            f"{variable_text(*self.channel)}\n{chosen.text(self.units)}{count}\n"
            f"from {time_text(self.time)}, lead {lead_text(self.lead)}, valid {time_text(self.time + self.lead)}"
        )
        return Picture(field, title, self._scale(field, kind), self._label(kind))

    def _make_field(self, channel: Channel, time: np.datetime64, lead: np.timedelta64, chosen: Quantity) -> tuple[xr.DataArray, int]:
        """The quantity ``(latitude, longitude)``, and the number of members that were read for it."""
        if chosen.kind == "member":
            members = self.reader.member(channel, time, lead, chosen.member)
        else:
            members = self.reader.members(channel, time, lead)
        field = chosen.of(members.assign_attrs(units=self.units))
        return field.rename(channel[0]), members.sizes["number"]

    def _make_plane(self, projection: str, centre: float) -> Plane:
        return map_plane(Grid.of(self.reader.forecast), projection, centre)

    def _label(self, kind: str) -> str:
        """What the colour bar says."""
        return with_unit(variable_text(*self.channel) if kind == "value" else kind, self.chosen.unit(self.units))

    def _scale(self, field: xr.DataArray, kind: str) -> dict[str, Any]:
        if self.keep_colours and self.picture is not None and self._map is not None:
            return self.picture.scale
        return colour_scale(field, kind)

    # ------------------------------------------------------------------ the tabs

    def _lead_moved(self) -> None:
        self._lead_line.send(float(hours(self.lead)))
        if self.tab == 1:
            self._draw_tab()

    def _draw_tab(self) -> None:
        """Draws the tab that is seen."""
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

    def _series(self) -> xr.DataArray:
        return self.reader.series(self.channel, self.time, self.place).assign_attrs(units=self.units)

    def _title(self, what: str, where: str) -> str:
        return f"{variable_text(*self.channel)}: {what}\n{where}, from {time_text(self.time)}"

    def _cell_text(self, series: xr.DataArray) -> str:
        return place_text(float(series.latitude), float(series.longitude))

    def plume(self) -> hv.Overlay:
        """The plume at the place."""
        members, happened = self._series(), self.happened
        Quantity("mean").of(members.dropna("number", how="all"))  # refuses an ensemble without members
        truth = None if happened is None else at_leads(at_place(happened, self.place), self.time, self.reader.leads)
        count = int(members.notnull().any("prediction_timedelta").sum())
        title = self._title(f"{count} of {len(self.reader.numbers)} members", self._cell_text(members))
        return curves.plume(members, truth, title, self._lead_line)

    def spectra(self) -> hv.Overlay:
        """Zonal spectra of the members, of their mean and of the truth at the lead."""
        members, happened = self.reader.members(self.channel, self.time, self.lead), self.happened
        Quantity("mean").of(members)  # refuses an ensemble without members
        title = self._title(f"zonal power of {members.sizes['number']} members", f"{band_text(*self.band)}, lead {lead_text(self.lead)}")
        truth = None
        if happened is not None and self.time + self.lead in happened.time:
            truth = zonal_power(happened.sel(time=self.time + self.lead).load(), *self.band)
        return curves.spectra(zonal_power(members, *self.band), zonal_power(mean(members), *self.band), truth, self.units, title)

    def hovmoller(self) -> hv.Image:
        """The Hovmöller diagram of the quantity, of the mean over the band of latitudes."""
        band = self.reader.band(self.channel, self.time, *self.band).assign_attrs(units=self.units)
        there = band.isel(number=np.flatnonzero(band.notnull().all(("prediction_timedelta", "longitude")).values))
        field = self.chosen.of(there).rename(self.variable)
        kind = "value" if self.quantity in ("mean", "member") else self.quantity
        count = "" if self.quantity == "member" else f", {there.sizes['number']} members"
        title = self._title(f"{self.chosen.text(self.units)}{count}", f"mean over {band_text(*self.band)}")
        return curves.hovmoller(field, colour_scale(field, kind), self._label(kind), title)

    def extremes(self) -> pn.Column:
        """The probability of exceeding the threshold against the lead, and the days with the highest maxima."""
        series = self._series()
        members = series.isel(number=np.flatnonzero(series.notnull().all("prediction_timedelta").values))
        Quantity("mean").of(members)
        title = self._title(Quantity("probability", 0, self.threshold, self.above).text(self.units), self._cell_text(series))
        maxima = daily_maxima(members, self.time)
        days = hottest_days(maxima, self.threshold)
        table = curves.days_table(days, maxima.leads, self.units)
        return pn.Column(
            curves.exceedance_curve(exceedance_probability(members, self.threshold, self.above), title),
            curves.daily_maxima_diagram(maxima, self.threshold, self._title("highest value of each day", self._cell_text(series))),
            pn.pane.Markdown("Days by the mean of the members' maxima, with the probability of exceeding the threshold:"),
            pn.pane.DataFrame(table.head(5), float_format="{:.4g}".format),
        )
