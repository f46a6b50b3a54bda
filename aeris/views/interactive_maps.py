"""Maps that can be zoomed and clicked, in any projection, with a coastline, and never a seam or a download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr
from bokeh.models import BoxZoomTool, CustomJSTickFormatter
from cartopy import crs
from matplotlib import colormaps
from matplotlib.colors import to_hex

from aeris.data.grid import Grid
from aeris.views.coastline import Coast, earth
from aeris.views.resampling import Plane
from aeris.views.slices import Place

PROJECTIONS: dict[str, Callable[[float], crs.Projection]] = {
    "PlateCarree": crs.PlateCarree,
    "Robinson": crs.Robinson,
    "Mollweide": crs.Mollweide,
    "Orthographic": lambda centre: crs.Orthographic(centre, 20.0),
    "Orthographic, north pole": lambda centre: crs.Orthographic(centre, 90.0),
    "Orthographic, south pole": lambda centre: crs.Orthographic(centre, -90.0),
}
"""Projections to choose from, each made from its central longitude."""

FINEST = 1440
"""Most pixels across a map: the columns of a grid of 0.25°. A coarser grid needs fewer for crisp cells."""

COAST_ON = {"cividis": "white", "magma_r": "#7f7f7f"}
"""Colour of the coast on colour maps on which black would not be seen."""

STORM = "#D55E00"
"""Colour of storm tracks, which is seen on all colour maps of fields."""

WIDTH = 640
"""Width of a map on the screen."""


@dataclass(frozen=True)
class Picture:
    """A field ready to be drawn.

    Attributes:
        field: ``(latitude, longitude)``.
        title: What it shows.
        scale: ``cmap``, ``vmin`` and ``vmax`` as from `aeris.views.style.colour_scale`.
        label: What the colour bar says.
        storms: Their tracks in the plane of the map, each ``(points, 2)``.
        centres: Where they are, ``(points, 2)``.
    """

    field: xr.DataArray
    title: str
    scale: dict[str, Any]
    label: str
    storms: Sequence[np.ndarray] = ()
    centres: Sequence[np.ndarray] = ()


def map_plane(grid: Grid, projection: str, centre: float) -> Plane:
    """The plane of a projection of `PROJECTIONS`, with as many pixels as the grid has columns where these are not too few or too many."""
    return Plane.of(grid, PROJECTIONS[projection](centre), min(max(WIDTH, grid.shape[1]), FINEST))


class MapView:
    """A map of a grid in one projection, whose picture can change while zoom and place stay.

    Args:
        plane: The plane of its projection over the grid of all its fields.
        centre: Central longitude in degrees.
        coast: The coast to draw.
        picture: The first picture.
        place: The place to mark.
        clicked: Called with the place that was clicked.

    Attributes:
        element: The HoloViews overlay.
        tap: The stream of clicks, in the projection's plane.
    """

    def __init__(self, plane: Plane, centre: float, coast: Coast, picture: Picture, place: Place, clicked: Callable[[Place], None]) -> None:
        self.projection, self._plane = plane.projection, plane
        self._picture, self._place = hv.streams.Pipe(data=picture), hv.streams.Pipe(data=place)
        image = hv.DynamicMap(self._image, streams=[self._picture])
        marker = hv.DynamicMap(self._marker, streams=[self._place])
        self.tap = hv.streams.Tap(source=image)
        self.tap.add_subscriber(lambda x, y: self._tapped(x, y, clicked))
        storms = hv.DynamicMap(_storm_lines, streams=[self._picture]) * hv.DynamicMap(_storm_centres, streams=[self._picture])
        ground = globe(self.projection)
        self.element = (ground * image * coast_lines(coast, self.projection, picture.scale["cmap"]) * storms * marker).opts(
            **frame(self._plane.extent), **axes(self.projection, centre)
        )

    def show(self, picture: Picture) -> None:
        """Draws another picture of the same variable and quantity."""
        self._picture.send(picture)

    def mark(self, place: Place) -> None:
        """Marks another place."""
        self._place.send(place)

    def _image(self, data: Picture) -> hv.Image:
        pixels = self._plane.image(data.field).astype(np.float32)[::-1]
        left, right, bottom, top = self._plane.extent
        value = hv.Dimension("value", label=data.label)
        image = hv.Image(pixels, kdims=["x", "y"], vdims=[value], bounds=(left, bottom, right, top))
        return image.opts(
            cmap=palette(data.scale["cmap"]),
            clim=(data.scale["vmin"], data.scale["vmax"]),
            title=data.title,
            colorbar=True,
            colorbar_position="bottom",
            clabel=data.label,
            tools=["hover"],
            hover_tooltips=[(data.label, "@image")],
        )

    def _marker(self, data: Place) -> hv.Points:
        x, y = self.projection.transform_point(data[1], data[0], crs.PlateCarree())
        where = [(x, y)] if np.isfinite([x, y]).all() else []
        return hv.Points(where, kdims=["x", "y"]).opts(
            marker="circle_cross", size=14, color="white", fill_alpha=0.6, line_color="black", line_width=2
        )

    def _tapped(self, x: float | None, y: float | None, clicked: Callable[[Place], None]) -> None:
        place = None if x is None or y is None else place_under(x, y, self.projection)
        if place is not None:
            clicked(place)


def _storm_lines(data: Picture) -> hv.Path:
    return hv.Path(list(data.storms), kdims=["x", "y"]).opts(color=STORM, line_width=2)


def _storm_centres(data: Picture) -> hv.Points:
    return hv.Points(list(data.centres), kdims=["x", "y"]).opts(marker="circle", size=9, color=STORM, line_color="black", line_width=1.5)


def place_under(x: float, y: float, projection: crs.Projection) -> Place | None:
    """The place at a point of a projection's plane; None outside the globe. The longitude is from 0 to 360."""
    longitude, latitude = crs.PlateCarree().transform_point(x, y, projection)
    if not np.isfinite([longitude, latitude]).all() or abs(latitude) > 90.0:
        return None
    return float(latitude), float(longitude % 360.0)


def coast_lines(coast: Coast, projection: crs.Projection, cmap: str) -> hv.Path:
    """A coast in the plane of a projection, in a colour that is seen on a colour map."""
    lines: list[np.ndarray] = []
    if isinstance(coast, xr.DataArray):
        lines = _outline(coast, projection)
    elif coast == "earth":
        lines = list(_earth_in(projection))
    colour = COAST_ON.get(cmap, "black")
    return hv.Path(lines, kdims=["x", "y"]).opts(color=colour, line_width=0.8)


@lru_cache(maxsize=8)
def _earth_in(projection: crs.Projection) -> tuple[np.ndarray, ...]:
    """The lines of the earth's coast, each ``(points, 2)``."""
    return tuple(np.array(line.coords) for line in projection.project_geometry(earth(), crs.PlateCarree()).geoms)


def _outline(mask: xr.DataArray, projection: crs.Projection) -> list[np.ndarray]:
    """The outline of a land mask, as lines ``(points, 2)``."""
    from contourpy import contour_generator

    plane = Plane.of(Grid.of(mask), projection, WIDTH)
    image = np.ma.masked_invalid(plane.image(mask))
    left, right, bottom, top = plane.extent
    rows, columns = image.shape
    x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    y = bottom + (np.arange(rows) + 0.5) * (top - bottom) / rows
    return contour_generator(x, y, image).lines(0.5)  # type: ignore[return-value]


def globe(projection: crs.Projection) -> hv.Polygons:
    """The globe in grey, which shows where a value is missing."""
    return hv.Polygons([np.array(projection.boundary.coords)], kdims=["x", "y"]).opts(color="#d9d9d9", line_color="black", line_width=0.8)


def palette(cmap: str) -> list[str]:
    """256 colours of a matplotlib colour map."""
    return [to_hex(colour) for colour in colormaps[cmap](np.linspace(0.0, 1.0, 256))]


def frame(extent: tuple[float, float, float, float]) -> dict[str, Any]:
    """Plot options for the size of a map, which keeps its shape when it is zoomed."""
    left, right, bottom, top = extent
    width = WIDTH if right - left > 1.5 * (top - bottom) else round(0.7 * WIDTH)
    return {
        "frame_width": width,
        "frame_height": round(width * (top - bottom) / (right - left)),
        "default_tools": ["pan", "wheel_zoom", BoxZoomTool(match_aspect=True), "save", "reset"],
        "xlim": (left, right),
        "ylim": (bottom, top),
        "active_tools": ["wheel_zoom"],
        "show_grid": False,
        "fontsize": {"title": "11pt"},
    }


def axes(projection: crs.Projection, centre: float) -> dict[str, Any]:
    """Plot options for the axes: degrees where the plane has them, else none."""
    if not isinstance(projection, crs.PlateCarree):
        return {"xaxis": None, "yaxis": None}
    east = (
        "const east = ((tick + centre + 540) % 360 + 360) % 360 - 180;"
        "return Math.abs(east).toFixed(0) + '°' + (east % 180 ? (east < 0 ? 'W' : 'E') : '')"
    )
    north = "return Math.abs(tick).toFixed(0) + '°' + (tick ? (tick < 0 ? 'S' : 'N') : '')"
    return {
        "xlabel": "longitude",
        "ylabel": "latitude",
        "xticks": list(range(-180, 181, 60)),
        "yticks": list(range(-90, 91, 30)),
        "xformatter": CustomJSTickFormatter(args={"centre": centre}, code=east),
        "yformatter": CustomJSTickFormatter(code=north),
    }
