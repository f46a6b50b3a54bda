"""The plume: what every member says at one place, lead by lead."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aeris.views.slices import LEAD, Place, at_leads, at_place
from aeris.views.style import SYSTEMS, TRUTH, choose_level, hours, label_leads, new_figure, time_text, units_of, variable_text, with_unit


def plume_figure(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    variable: str,
    place: Place,
    level: int | None = None,
    time: np.datetime64 | None = None,
    optimum: xr.Dataset | None = None,
) -> Figure:
    """Members, their mean and the truth at the cell nearest to a place.

    Args:
        forecast: Archive ``(time, number, prediction_timedelta, ...)``.
        truth: Canonical dataset.
        variable: Its name.
        place: Latitude and longitude in degrees.
        level: In hPa, where the variable stands on levels.
        time: Initial time; the first of the forecast where there is none.
        optimum: The exact forecast of the simulated planet from the same initial time, to be drawn beside.

    Returns:
        A matplotlib figure.
    """
    time = forecast.time.values[0] if time is None else time
    members = _series(forecast, variable, level, place).sel(time=time)
    happened = at_leads(_series(truth, variable, level, place), time, members[LEAD].values)
    figure = new_figure()
    ax = figure.add_subplot()
    if optimum is not None:
        _draw_members(ax, _series(optimum, variable, level, place).sel(time=time), happened, "optimum")
    _draw_members(ax, members, happened, "forecast")
    known = happened.dropna(LEAD)
    ax.plot(hours(known[LEAD].values), known, marker="o", markersize=4, label="truth", zorder=5, **TRUTH)
    north, east = float(members.latitude), float(members.longitude)
    ax.set_title(f"{variable_text(variable, level)} at {north:.1f}°N, {east:.1f}°E\nfrom {time_text(time)}")
    label_leads(ax, members[LEAD].values)
    ax.set_ylabel(with_unit("value", units_of(forecast[variable])))
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)
    return figure


def _series(ds: xr.Dataset, variable: str, level: int | None, place: Place) -> xr.DataArray:
    """A variable at the nearest cell."""
    return at_place(choose_level(ds[variable], level), place)


def _draw_members(ax: Axes, members: xr.DataArray, happened: xr.DataArray, system: str) -> None:
    """Thin lines for the members, from the truth at lead zero, and a thick one for their mean."""
    start = happened.isel({LEAD: [0]}).expand_dims(number=members.number)
    whole = xr.concat([start, members.transpose("number", LEAD)], LEAD, coords="minimal", compat="override").values
    lead, style = hours(np.concatenate([[np.timedelta64(0, "ns")], members[LEAD].values])), SYSTEMS[system]
    ax.plot(lead, whole.T, color=style["color"], linewidth=0.9, alpha=0.5)
    ax.plot(lead, np.nanmean(whole, axis=0), **style, linewidth=2.2, markersize=4, label=f"{system}: mean of {len(whole)} members")
