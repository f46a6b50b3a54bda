"""Maps of a field in any projection, with a coastline, and never a seam or a download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aeris.errors import DataError
from aeris.views.coastline import Coast, draw_coast
from aeris.views.resampling import resample
from aeris.views.style import colour_scale, new_figure, units_of, variable_text, with_unit

if TYPE_CHECKING:
    from cartopy.crs import Projection


def map_figure(
    field: xr.DataArray,
    title: str,
    coast: Coast = "earth",
    kind: str = "value",
    limits: tuple[float, float] | None = None,
    projection: Projection | None = None,
) -> Figure:
    """A map of one field with its colour bar.

    Args:
        field: ``(latitude, longitude)`` on a global grid; NaN is left grey. Its name and ``units`` label the colour bar.
        title: What the map shows.
        coast: ``"earth"``, a land mask ``(latitude, longitude)`` whose outline is drawn, or None.
        kind: ``"value"``, ``"spread"`` or ``"difference"``; see `aeris.views.style.colour_scale`.
        limits: Smallest and largest value of the colours; those of the field where there are none.
        projection: A cartopy projection; Robinson where there is none.

    Returns:
        A matplotlib figure, which a notebook shows by itself and ``savefig`` writes.

    Raises:
        DataError: The field has other dimensions, or its grid is not global.
    """
    from cartopy import crs

    if set(field.dims) != {"latitude", "longitude"}:
        raise DataError(
            f"A field with the dimensions {field.dims}",
            "A map shows one field (latitude, longitude)",
            "Choose one with ds[name].sel(time=..., level=...) or ds[name].isel(...)",
        )
    figure = new_figure(4.8, 3.2, "compressed")
    ax: Any = figure.add_subplot(projection=projection or crs.Robinson())
    ax.set_global()
    ax.set_facecolor("0.85")
    image, extent = resample(field, ax.projection)
    shown = ax.imshow(image, extent=extent, origin="lower", interpolation="none", **colour_scale(field, kind, limits))
    draw_coast(ax, coast, colour="white" if kind == "spread" else "black")
    ax.set_title(title, fontsize="medium")
    bar = figure.colorbar(shown, ax=ax, orientation="horizontal", shrink=0.8, aspect=35, pad=0.03, ticks=MaxNLocator(6))
    bar.set_label(with_unit(variable_text(str(field.name)) if kind == "value" else kind, units_of(field)))
    return figure
