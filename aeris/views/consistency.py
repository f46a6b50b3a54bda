"""Physical consistency against the lead: is what the model draws as much air as the truth is?"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aeris.errors import ConfigurationError
from aeris.views.style import SYSTEMS, TRUTH, hours, label_leads, new_figure, unit_text

FAVOURITES = (
    *("hydrostatic_residual", "ageostrophic_share", "gradient_wind_share"),
    *("dry_air_pressure", "sea_level_pressure", "total_water", "kinetic_energy", "total_energy"),
    *("negative_humidity", "supersaturation"),
)
"""What is shown without being named: the first six that are there."""

SHARES = {
    "ageostrophic_share": "share of the wind",
    "gradient_wind_share": "share of the wind",
    "negative_humidity": "share of the area",
    "supersaturation": "share of the area",
}
"""What the axes of diagnostics without a unit tell."""

_COLUMNS = 3
_HEIGHTS = 3
_LEAST_SPAN = 1e-4


def consistency_figure(found: xr.Dataset, names: Sequence[str] | None = None) -> Figure:
    """Diagnostics of the forecast and of the truth against the lead, one panel for each.

    Args:
        found: From `aeris.verification.consistency.consistency`.
        names: Which diagnostics; None takes up to six of `FAVOURITES`.

    Returns:
        A matplotlib figure. The forecast is drawn through, the truth at the same times dotted; where a diagnostic stands on levels or
        layers, the highest, a middle and the lowest are shown.

    Raises:
        ConfigurationError: A diagnostic is not in the dataset.
    """
    chosen = [name for name in FAVOURITES if name in found][:6] if names is None else list(names)
    possible = [str(name) for name, field in found.items() if "system" in field.dims]
    unknown = [name for name in chosen if name not in possible]
    if unknown or not chosen:
        raise ConfigurationError(
            f"The diagnostics {', '.join(unknown) or 'none'}", f"The dataset holds {', '.join(possible)}", "Name one or more of them"
        )
    rows, columns = -(-len(chosen) // _COLUMNS), min(_COLUMNS, len(chosen))
    figure = new_figure(1.2 + 3.4 * columns, 0.6 + 2.9 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, name in zip(axes, chosen, strict=False):
        _panel(ax, found[name])
    for ax in axes[len(chosen) :]:
        ax.set_axis_off()
    return figure


def _panel(ax: Axes, field: xr.DataArray) -> None:
    """One diagnostic."""
    leads = field.prediction_timedelta.values
    dim = next((dim for dim in ("level", "layer") if dim in field.dims), None)
    places = [None] if dim is None else _heights(field.sizes[dim])
    colours = [SYSTEMS["forecast"]["color"]] if dim is None else colormaps["viridis"](np.linspace(0.1, 0.8, len(places)))
    for place, colour in zip(places, colours, strict=True):
        one = field if place is None else field.isel({dim: place})
        label = "forecast" if place is None else f"{one[dim].item():g} hPa" if dim == "level" else f"{one[dim].item()} hPa"
        ax.plot(hours(leads), one.sel(system="forecast"), color=colour, marker="o", markersize=3, linewidth=1.6, label=label)
        style = TRUTH | {"linestyle": ":"} | ({} if place is None else {"color": colour})
        ax.plot(hours(leads), one.sel(system="truth"), label="truth" if place is None else None, **style)
    if dim is not None:
        ax.plot([], [], color="grey", linestyle=":", label="truth")
    ax.set_title(_wrapped(field.attrs["long_name"]), fontsize="small")
    ax.set_ylabel(SHARES.get(str(field.name)) or unit_text(field.attrs["units"]))
    ax.ticklabel_format(axis="y", useOffset=False, scilimits=(-3, 6))
    label_leads(ax, leads)
    low, high = ax.get_ylim()
    least = _LEAST_SPAN * float(abs(field).max())  # what is kept to rounding is a line, not a mountain range
    ax.set_ylim(min(low, (low + high - least) / 2), max(high, (low + high + least) / 2))
    if field.attrs["units"] in ("1", "K") and float(field.min()) >= 0:
        ax.set_ylim(bottom=0.0)
    ax.legend(frameon=False, fontsize="x-small")
    ax.grid(alpha=0.3)


def _heights(count: int) -> list[int]:
    """Positions of the first, the middle and the last of so many."""
    return sorted(set(np.linspace(0, count - 1, min(count, _HEIGHTS)).round().astype(int).tolist()))


def _wrapped(text: str, width: int = 42) -> str:
    """A title on as many lines as it needs."""
    return "\n".join(textwrap.wrap(text[0].upper() + text[1:], width))
