"""Coastlines that need no network: those of the earth from the package, those of another planet from its land mask."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

import xarray as xr

from aeris.views.resampling import resample

if TYPE_CHECKING:
    from shapely import MultiLineString

Coast = xr.DataArray | Literal["earth"] | None
"""A land mask ``(latitude, longitude)`` whose outline is drawn, the coast of the earth, or nothing."""


@cache
def earth() -> MultiLineString:
    """The coast of the earth at 1:110 million in degrees (Natural Earth, public domain)."""
    from shapely.geometry import shape

    text = resources.files("aeris.views").joinpath("assets", "coastline_110m.geojson").read_text()
    return shape(json.loads(text))


def coast_of(ds: xr.Dataset) -> Coast:
    """The coast to draw on maps of a dataset: that of its own land mask where it has one, else that of the earth."""
    return ds.get("land_sea_mask", "earth")


def draw_coast(ax: Any, coast: Coast, colour: str = "black") -> None:
    """Draws a coast on a cartopy axes."""
    from cartopy import crs

    if isinstance(coast, xr.DataArray):
        image, extent = resample(coast, ax.projection)
        ax.contour(image, levels=[0.5], extent=extent, origin="lower", colors=colour, linewidths=0.8)
    elif coast == "earth":
        ax.add_geometries([earth()], crs=crs.PlateCarree(), facecolor="none", edgecolor=colour, linewidth=0.6)
