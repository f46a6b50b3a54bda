"""Maps of cyclone tracks, over the dateline and Greenwich, on top of a probability where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from aeris.errors import DataError
from aeris.views.coastline import Coast, draw_coast
from aeris.views.style import SYSTEMS, TRUTH, colour_scale, new_figure, with_unit

FORECAST = SYSTEMS["forecast"]["color"]
ON_PROBABILITY = "#56B4E9"
"""Seen on the light and the dark end of the colours of a probability."""


def track_figure(
    tracks: xr.Dataset,
    title: str,
    *,
    label: str = "forecast",
    best: xr.Dataset | None = None,
    probability: xr.DataArray | None = None,
    coast: Coast = "earth",
    margin: float = 5.0,
) -> Figure:
    """A map of tracks, around which as much of the earth is shown as they need.

    Args:
        tracks: Table of tracks with ``track_id``, ``time``, ``lat`` and ``lon``; points are coloured by ``wind10`` where it is known and no
            probability is shown.
        title: What the map shows.
        label: What the tracks are called beside best tracks.
        best: Table of best tracks, drawn in black.
        probability: ``(latitude, longitude)`` from 0 to 1, shown below the tracks.
        coast: ``"earth"``, a land mask whose outline is drawn, or None.
        margin: Degrees that are shown around the tracks.

    Returns:
        A matplotlib figure, which a notebook shows by itself and ``savefig`` writes.

    Raises:
        DataError: There is no track to show.
    """
    from cartopy import crs

    found, known = tracks.to_dataframe(), None if best is None else best.to_dataframe()
    everything = pd.concat([frame[["lat", "lon"]] for frame in (found, known) if frame is not None])
    if everything.empty:
        raise DataError("There is no track", "A map is drawn around tracks", "Use map_figure for a map without any")
    centre = _middle(everything.lon.to_numpy())
    left, right, bottom, top = _box(everything, centre, margin)
    width = 6.0
    figure = new_figure(width, float(np.clip(width * (top - bottom) / (right - left), 2.5, 7.0)) + 1.2, "compressed")
    ax: Any = figure.add_subplot(projection=crs.PlateCarree(central_longitude=centre))
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.set_facecolor("white")
    if probability is not None:
        _probability(figure, ax, probability, centre)
    draw_coast(ax, coast, colour="0.5")
    _meridians(ax, right - left)
    colour = FORECAST if probability is None else ON_PROBABILITY
    _draw(ax, found, centre, {"color": colour, "linewidth": 1.0}, label)
    if known is not None:
        halo = [withStroke(linewidth=3.5, foreground="white")]
        _draw(ax, known, centre, {**TRUTH, "marker": ".", "markersize": 4, "path_effects": halo}, "best track")
        ax.legend(loc="best", fontsize="small")
    if probability is None and "wind10" in tracks:
        _winds(figure, ax, found, centre)
    ax.set_title(title, fontsize="medium")
    return figure


def _middle(longitude: np.ndarray) -> float:
    """The middle of the shortest arc that holds all longitudes."""
    sorted_ones = np.sort(longitude % 360.0)
    gaps = np.diff(sorted_ones, append=sorted_ones[0] + 360.0)
    widest = int(np.argmax(gaps))
    return float((sorted_ones[widest] + gaps[widest] / 2 + 180.0) % 360.0)


def _beside(longitude: np.ndarray, centre: float) -> np.ndarray:
    """Degrees east of the centre of the map, -180 to 180."""
    return (longitude - centre + 180.0) % 360.0 - 180.0


def _box(places: pd.DataFrame, centre: float, margin: float) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of the map, which is at least as wide as high."""
    x, y = _beside(places.lon.to_numpy(), centre), places.lat.to_numpy()
    bottom, top = max(y.min() - margin, -90.0), min(y.max() + margin, 90.0)
    aside = max(margin, (top - bottom - np.ptp(x)) / 2)
    return max(x.min() - aside, -180.0), min(x.max() + aside, 180.0), bottom, top


def _meridians(ax: Any, width: float) -> None:
    """Meridians and parallels. Left to itself cartopy finds hardly any meridian on a map over the dateline."""
    step = next((step for step in (1, 2, 5, 10, 20, 30) if width / step <= 8), 60)
    lines = ax.gridlines(draw_labels=["left", "bottom"], color="0.85", linewidth=0.5, xlocs=np.arange(-180, 180, step))
    lines.xlabel_style = lines.ylabel_style = {"size": "small"}


def _draw(ax: Any, frame: pd.DataFrame, centre: float, style: dict[str, Any], label: str) -> None:
    for order, (_, one) in enumerate(frame.groupby("track_id")):
        one = one.sort_values("time")
        line = cut(_beside(one.lon.to_numpy(), centre), one.lat.to_numpy())
        ax.plot(*line, label=None if order else label, **style)


def cut(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a line where it leaves a map of 360° at one edge and comes back at the other.

    Args:
        x: Degrees east of the middle of the map, -180 to 180.
        y: Latitude.

    Returns:
        The line with, at each such place, its points on both edges and NaN between them.
    """
    parts = [np.array([x[0]])], [np.array([y[0]])]
    for step in range(1, len(x)):
        way = x[step] - x[step - 1]
        if abs(way) > 180.0:
            edge = -np.copysign(180.0, way)
            share = (edge - x[step - 1]) / (way + 2 * edge)
            height = y[step - 1] + share * (y[step] - y[step - 1])
            parts[0].append(np.array([edge, np.nan, -edge]))
            parts[1].append(np.array([height, np.nan, height]))
        parts[0].append(x[step : step + 1])
        parts[1].append(y[step : step + 1])
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def _winds(figure: Figure, ax: Any, frame: pd.DataFrame, centre: float) -> None:
    points = ax.scatter(_beside(frame.lon.to_numpy(), centre), frame.lat, c=frame.wind10, s=16, cmap="viridis", zorder=3)
    bar = figure.colorbar(points, ax=ax, orientation="horizontal", shrink=0.7, aspect=35, pad=0.04)
    bar.set_label(with_unit("strongest wind at 10 m", "m s**-1"))


def _probability(figure: Figure, ax: Any, probability: xr.DataArray, centre: float) -> None:
    x = _beside(probability.longitude.values.astype("float64"), centre)
    order = np.argsort(x)
    field = probability.transpose("latitude", "longitude").values[:, order]
    shown = ax.pcolormesh(
        x[order], probability.latitude, np.where(field > 0, field, np.nan), shading="nearest", **colour_scale(probability, "probability")
    )
    bar = figure.colorbar(shown, ax=ax, orientation="horizontal", shrink=0.7, aspect=35, pad=0.04)
    bar.set_label(probability.attrs.get("long_name", "probability"))
