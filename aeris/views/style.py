"""What all pictures share: colours of systems, colour scales of fields, and words for units, leads and channels.

Colours are those of Okabe and Ito, which stay apart for colour-blind readers (https://jfly.uni-koeln.de/color/); every system has a
marker and a line of its own as well. Field scales are even in brightness: viridis, cividis, magma, and one from blue to red about zero.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from aeris.data.variables import VARIABLES, WIND_PAIRS

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""The colours, those that are told apart most easily first; yellow, which is faint on white, last."""
TRUTH: dict[str, Any] = {"color": "black", "linestyle": "-", "linewidth": 1.8}
SYSTEMS: dict[str, dict[str, Any]] = {
    "forecast": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "optimum": {"color": "#009E73", "linestyle": "-.", "marker": "D"},
    "persistence": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    "climatology": {"color": "#7F7F7F", "linestyle": ":", "marker": "^"},
}
_OTHERS = ("#CC79A7", "#E69F00", "#56B4E9")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SIGNED = {name for pair in WIND_PAIRS for name in pair}


class NotebookFigure(Figure):
    """A figure that a notebook shows without pyplot, so that it belongs to no window and any thread may draw and drop it."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=120)
        return stream.getvalue()


def new_figure(width: float = 6.4, height: float = 4.0, layout: Literal["constrained", "compressed"] = "constrained") -> NotebookFigure:
    """An empty figure of a size in inches; "compressed" suits axes of a fixed shape, such as maps."""
    return NotebookFigure(figsize=(width, height), layout=layout)


def system_styles(systems: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A line style for each system; those without one of their own get further colours in turn."""
    unknown = [name for name in systems if name not in SYSTEMS]
    others = {name: {"color": _OTHERS[i % len(_OTHERS)], "linestyle": "-", "marker": "v"} for i, name in enumerate(unknown)}
    return {name: SYSTEMS.get(name) or others[name] for name in systems}


def colour_scale(field: xr.DataArray, kind: str = "value", limits: tuple[float, float] | None = None) -> dict[str, Any]:
    """Colour map and limits of a field, as matplotlib takes them.

    Args:
        field: The field, with its variable's name.
        kind: ``"value"``, ``"spread"`` (from zero), ``"probability"`` (from 0 to 1) or ``"difference"`` (about zero). Winds are about
            zero as values too.
        limits: Smallest and largest value, where several maps shall share them.

    Returns:
        ``cmap``, ``vmin`` and ``vmax``.
    """
    if kind == "probability":
        return {"cmap": "magma_r", "vmin": 0.0, "vmax": 1.0}
    low, high = limits or (float(field.min()), float(field.max()))
    if kind == "spread":
        return {"cmap": "cividis", "vmin": 0.0, "vmax": high}
    if kind == "difference" or field.name in _SIGNED:
        reach = max(abs(low), abs(high))
        return {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
    return {"cmap": "viridis", "vmin": low, "vmax": high}


def unit_text(units: str) -> str:
    """A unit as it is printed: ``m**2 s**-2`` becomes m² s⁻², ``1`` nothing."""
    return "" if units == "1" else re.sub(r"\*\*(-?\d+)", lambda power: power[1].translate(_SUPERSCRIPTS), units)


def with_unit(text: str, units: str) -> str:
    """A label with its unit in brackets, where it has one."""
    return f"{text} ({unit_text(units)})" if unit_text(units) else text


def units_of(field: xr.DataArray) -> str:
    """The unit of a variable: its own, else that of the registry."""
    known = VARIABLES.get(str(field.name))
    return field.attrs.get("units", known.units if known else "1")


def variable_text(name: str, level: int | None = None) -> str:
    """What a channel is called in a title, for example 'geopotential at 500 hPa'."""
    text = VARIABLES[name].long_name if name in VARIABLES else name.replace("_", " ")
    return text if level is None else f"{text} at {level} hPa"


def hours(leads: Any) -> Any:
    """One or several leads in hours."""
    return leads / np.timedelta64(1, "h")


def label_leads(ax: Axes, leads: np.ndarray) -> None:
    """Labels the horizontal axis with the lead in hours, in steps that divide a day or are days."""
    longest = float(hours(leads.max()))
    step = next((step for step in (1, 3, 6, 12, 24, 48) if longest / step <= 9), 24 * max(1, round(longest / 24 / 8)))
    ax.xaxis.set_major_locator(MultipleLocator(step))
    ax.set_xlim(0.0, 1.02 * longest)
    ax.set_xlabel("lead (h)")


def lead_text(lead: np.timedelta64) -> str:
    """A lead in words: '6 h', or '3 d' for two days and more."""
    count = float(hours(lead))
    return f"{count / 24:g} d" if count >= 48 and count % 24 == 0 else f"{count:g} h"


def time_text(time: np.datetime64) -> str:
    """A time in words: '2001-01-31 06 UTC'."""
    return np.datetime_as_string(time, unit="h").replace("T", " ") + " UTC"


def choose_level(field: xr.DataArray, level: int | None) -> xr.DataArray:
    """One level of a field that stands on levels; the field itself where it does not."""
    return field if level is None else field.sel(level=level)
