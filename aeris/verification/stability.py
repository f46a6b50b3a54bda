"""Drift and stability of long forecasts: global means, variance and spectra by lead, against those of the truth's own climate.

A forecast of 90 days or a year cannot be held against the weather that happened; it can be held against the climate. Of every field
the annual cycle of the truth is taken away, hour by hour of the day, cell by cell. What is left is described by a few statistics:

- ``mean``: its mean over the globe, in the unit of the variable,
- ``variance``: ln of its mean square over the globe, degrees 1 and above,
- ``power 1``, ``power 2-3``, ``power 4-7`` ...: ln of its power in octaves of spherical-harmonic degrees, up to three quarters of the
  largest degree.

A forecast that drifts leaves in the mean or in low degrees, one that dies or blurs in the variance or in high degrees, one that grows
noisy in high degrees.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification.daily import need_plausible, need_units
from aeris.verification.pairing import CELLS, LEAD, attributes_of, need_same_grid, open_archive
from aeris.verification.seasons import AnnualCycle, time_pieces
from aeris.verification.spectra import power

HARMONICS = 2
"""Of the annual cycle, of fields and of their statistics."""

PARTS = 4
"""Of the past, each of which is held against the others."""

LEAST_WINDOWS = 20
"""Fewer windows of the past do not tell how much a window's mean varies."""


class _Judged(NamedTuple):
    """A variable's windows: values less the climate's, the sampling error, windows of the past, members that are missing."""

    value: xr.DataArray
    sigma: xr.DataArray
    past_windows: int
    missing: int


def stability(
    fc: xr.Dataset | str | Path,
    past: xr.Dataset,
    variables: list[str] | None = None,
    days: float = 10.0,
    risk: float = 0.05,
) -> xr.Dataset:
    """Whether a long forecast stays within the climate of the past, lead by lead.

    The leads are cut into windows; a last one that is not full is left out and counted. In each, every statistic (see the head of this
    file) is averaged over members, initial times and leads. The past is cut into windows of the same length, and its statistics, less
    their own annual cycle, have a standard deviation σ from window to window: the *sampling error of the climatology*, with the
    persistence of its weather in it. Each quarter of the past is held against the annual cycle of the other three, as the forecast is
    against the whole. A forecast window departs by

        d = (mean of the forecast's window − climate's value at that season) / (σ √(1 + q/N)),

    N being the windows of the past and q = 1 + 2·2 the terms of the annual cycle. **Stable** means |d| ≤ limit for all variables, levels,
    statistics and windows, the limit being that quantile of Student's t (N − q degrees of freedom) at which a forecast drawn from the
    climate itself is called unstable with probability `risk` or less (Bonferroni: risk over the number of comparisons). Averages over
    members vary less than a single window of the past, so that for an ensemble the risk is smaller than stated. A value that is not
    finite is unstable.

    What it cannot see: a departure below about ``limit`` σ in every window, and errors that leave these statistics as they are, such as a
    wrong place of the storm tracks. It takes window means as Gaussian and successive windows of the past as independent. The past must
    not be that of a changing climate: its trend would be in σ.

    Args:
        fc: Forecast archive of many days, or the path of one. Members that are NaN at a lead are left out there.
        past: Canonical dataset of the truth's climate, on the same grid, with times at the hours of the day of the forecast's valid times.
        variables: Those to look at; all that both hold where there is none.
        days: Length of a window in days, at least one step of the forecast.
        risk: Probability of a false alarm, between 0 and 1.

    Returns:
        Dataset with, by variable, ``value.{variable}`` (window mean less the climate's, ``(statistic, prediction_timedelta, [level])``,
        at the last lead of each window), ``sigma.{variable}``, ``departure.{variable}`` in standard errors, and ``stable.{variable}``;
        ``limit``; and ``stable``, the verdict on all. Attributes: ``missing_members``, ``leads_left_out``, ``past_windows``,
        ``comparisons``.

    Raises:
        DataError: The past is shorter than twenty windows or than its annual cycle needs, lacks an hour of the day, has gaps; or a window
            of the forecast has no member.
        ConfigurationError: A window or a risk that cannot be.
    """
    archive, names = _compared(open_archive(fc), past, variables)
    width, windows, left_out = _windows(archive[LEAD].values, days)
    if not 0 < risk < 1:
        raise ConfigurationError(f"A risk of {risk}", "It is a probability between 0 and 1", "Give 0.05")
    past = _at_hours(past, archive)
    judged = {name: _statistics_of(name, archive, past, width, windows) for name in names}
    comparisons = sum(int(np.prod(entry.value.shape)) for entry in judged.values())
    count = min(entry.past_windows for entry in judged.values())
    terms = 1 + 2 * HARMONICS
    limit = float(stats.t.isf(risk / 2 / comparisons, count - terms))
    result = xr.Dataset({"limit": ((), limit, {"units": "1", "long_name": "largest departure of a stable forecast"})})
    for name, entry in judged.items():
        error = entry.sigma * np.sqrt(1 + terms / entry.past_windows)
        departure = (entry.value / error).assign_attrs(units="1", long_name=f"departure in standard errors, {name}")
        result = result.assign({f"value.{name}": entry.value, f"sigma.{name}": entry.sigma, f"departure.{name}": departure})
        result[f"stable.{name}"] = bool((abs(departure) <= limit).all())
    result["stable"] = all(bool(result[f"stable.{name}"]) for name in names)
    missing = sum(entry.missing for entry in judged.values())
    return result.assign_attrs(missing_members=missing, leads_left_out=left_out, past_windows=count, comparisons=comparisons)


def reasons(verdict: xr.Dataset, most: int = 5) -> list[str]:
    """Why a forecast is not stable: its largest departures in words, the largest first; empty where it is stable."""
    limit, found = float(verdict.limit), []
    for name in (str(key).removeprefix("departure.") for key in verdict if str(key).startswith("departure.")):
        departure = verdict[f"departure.{name}"]
        for place in np.argwhere(~(abs(departure.values) <= limit)):
            at = departure[tuple(place)]
            level = f" at {int(at.level)} hPa" if "level" in at.coords else ""
            days = at[LEAD].values / np.timedelta64(1, "D")
            size = float(at) if np.isfinite(at) else np.inf
            found.append((abs(size), f"{at.statistic.item()} of {name}{level} by day {days:g}: {size:+.1f}, limit {limit:.1f}"))
    return [text for _, text in sorted(found, key=lambda pair: -pair[0])[:most]]


def climate_statistics(field: xr.DataArray, cycle: AnnualCycle, valid: np.ndarray | None = None, dim: str = "time") -> xr.DataArray:
    """The statistics of a field's departure from an annual cycle.

    Args:
        field: ``(..., latitude, longitude)`` with `dim`; sea surface temperature may be missing over land.
        cycle: Annual cycle of the field.
        valid: The times of `dim`, where it is a lead.
        dim: The dimension of time.

    Returns:
        Float64 ``(..., statistic)``; NaN where the field is missing as a whole.

    Raises:
        DataError: A part of the field is missing where the cycle is not, or the grid cannot be analysed.
    """
    anomaly = cycle.anomalies(field, valid, dim).transpose(..., *CELLS)
    anomaly, there = _filled(field, anomaly, cycle)
    spectrum = power(anomaly)
    area = xr.DataArray(Grid.of(field).area, dims="latitude")
    known = cycle.coefficients.isel(hour=0, term=0, drop=True).notnull()
    mean = (anomaly * area).sum(CELLS) / (known * area).sum(CELLS)
    octaves = list(_octaves(int(spectrum.degree[-1])))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: dict[str, xr.DataArray] = {"mean": mean, "variance": _log_power(spectrum, 1, None)}
        for low, high in octaves:
            label = f"power {low}" if low == high else f"power {low}-{high}"
            found[label] = _log_power(spectrum, low, high)
    names = xr.IndexVariable("statistic", np.array(list(found)))
    joined = xr.concat(list(found.values()), names, coords="minimal", compat="override", combine_attrs="drop")
    # What cannot be computed of a field that is there is a failure of the forecast, not a gap.
    return joined.fillna(np.inf).where(there).transpose(..., "statistic")


def _log_power(spectrum: xr.DataArray, low: int, high: int | None) -> xr.DataArray:
    total = spectrum.sel(degree=slice(low, high)).sum("degree", skipna=False)
    return total.copy(data=np.log(total.values))


def _octaves(largest: int) -> Iterator[tuple[int, int]]:
    """1, 2-3, 4-7 ... up to three quarters of the largest degree."""
    end, low = max(1, largest * 3 // 4), 1
    while low <= end:
        yield low, min(2 * low - 1, end)
        low *= 2


def _filled(field: xr.DataArray, anomaly: xr.DataArray, cycle: AnnualCycle) -> tuple[xr.DataArray, xr.DataArray]:
    """Anomalies with zero where the climate is never known (land, for the sea's temperature), and which maps are there at all."""
    there = anomaly.notnull().any(CELLS)
    known = cycle.coefficients.isel(term=0, drop=True).notnull().all("hour")
    gaps = anomaly.isnull() & known & there
    if gaps.any():
        raise DataError(
            f"{int(gaps.sum())} values of {field.name or 'the field'} are missing where the climate is known",
            "A global mean and a spectrum need every cell",
            "Fill them, or leave the variable out with variables=[...]",
        )
    if not known.any():
        raise DataError(f"The climate of {field.name or 'the field'} is known nowhere", "Its past has gaps in every cell", "Fill them")
    return anomaly.fillna(0.0), there


def _compared(archive: xr.Dataset, past: xr.Dataset, variables: list[str] | None) -> tuple[xr.Dataset, list[str]]:
    need_same_grid("the past", past, archive)
    common = [str(name) for name in archive.data_vars if name in past and {"time", LEAD, *CELLS} <= set(archive[name].dims)]
    names = common if variables is None else variables
    lacking = [name for name in names if name not in common]
    if lacking or not names:
        raise DataError(
            f"Forecast and past have in common {', '.join(common) or 'nothing'}" + (f", not {', '.join(lacking)}" if lacking else ""),
            "A variable is judged against its own past",
            "Name variables that both hold",
        )
    for name in names:
        need_units("The forecast", archive[name])
        need_units("The past", past[name])
    return archive, names


def _windows(leads: np.ndarray, days: float) -> tuple[pd.Timedelta, list[np.ndarray], int]:
    """Positions of the leads of each full window, and how many leads are in none."""
    width = pd.Timedelta(days=days)
    step = pd.Timedelta(np.diff(leads).min()) if len(leads) > 1 else pd.Timedelta(leads[0])
    if width < step:
        raise ConfigurationError(f"A window of {width}", f"It holds at least one step of the forecast, {step}", "Give a longer window")
    number = np.ceil(leads / width.to_timedelta64()).astype(int) - 1
    last = leads[-1] / width.to_timedelta64()
    windows = [np.flatnonzero(number == k) for k in range(int(last + 1e-9)) if (number == k).any()]
    if len(windows) < 2:
        raise DataError(
            f"Leads up to {pd.Timedelta(leads[-1])} and windows of {width}",
            "Stability is judged in two windows or more",
            "Give a longer forecast, or shorter windows",
        )
    return width, windows, len(leads) - sum(map(len, windows))


def _at_hours(past: xr.Dataset, archive: xr.Dataset) -> xr.Dataset:
    """The past at the hours of the day that the forecast has; each initial time must have the same."""
    hours = [set(pd.DatetimeIndex(time + archive[LEAD].values).hour) for time in archive.time.values]
    if any(found != hours[0] for found in hours):
        raise DataError(
            "Initial times whose valid times fall on different hours of the day", "All must have the same", "Judge them one by one with sel"
        )
    held = past.get_index("time").hour
    lacking = sorted(hours[0] - set(held))
    if lacking:
        raise DataError(f"The past has no time at {lacking[0]} UTC", "It needs the hours of the forecast's valid times", "Give more of it")
    return past.isel(time=np.flatnonzero(np.isin(held, list(hours[0]))))


def _statistics_of(name: str, archive: xr.Dataset, past: xr.Dataset, width: pd.Timedelta, windows: list[np.ndarray]) -> _Judged:
    """Window means of one variable less the climate's, and how much windows of the past vary."""
    ours, theirs = _on_common_levels(archive[name], past[name])
    cycle = AnnualCycle.fit(theirs, HARMONICS)
    normal = _past_statistics(theirs)
    gaps = int(normal.isel(statistic=0).isnull().sum())
    if gaps:
        raise DataError(
            f"{gaps} fields of the past lack {name}", "The climate's own variation needs a past without gaps", "Give a whole past"
        )
    course = AnnualCycle.fit(normal, HARMONICS)
    sigma, count = _window_deviation(course.anomalies(normal), width)
    departures, missing = _departures(ours, cycle, course)
    means = [departures.isel({LEAD: window}).mean(LEAD) for window in windows]
    value = xr.concat(means, xr.IndexVariable(LEAD, ours[LEAD].values[[window[-1] for window in windows]]))
    about = {"units": attributes_of(ours)["units"] + ", or 1 for ln of power", "long_name": f"window mean less the climate's, {name}"}
    return _Judged(
        value.transpose("statistic", ...).assign_attrs(about),
        sigma.assign_attrs(about, long_name=f"sampling error, {name}"),
        count,
        missing,
    )


def _past_statistics(past: xr.DataArray) -> xr.DataArray:
    """The statistics of past fields, each part of the past against the cycle of the other parts.

    Against a cycle that it was fitted to, the past would vary less than any forecast can.
    """
    parts = np.array_split(np.arange(past.sizes["time"]), PARTS)
    found = []
    for part in parts:
        others = AnnualCycle.fit(past.isel(time=np.setdiff1d(np.arange(past.sizes["time"]), part)), HARMONICS)
        pieces = time_pieces(past.isel(time=slice(part[0], part[-1] + 1)))
        found += [climate_statistics(piece.load(), others) for piece in pieces]
    return xr.concat(found, "time")


def _on_common_levels(ours: xr.DataArray, theirs: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    if "level" not in ours.dims:
        return ours, theirs
    levels = [level for level in ours.level.values if level in theirs.level.values]
    if not levels:
        raise DataError(
            f"{ours.name} has no level in common with its past", "A level is judged against its own past", "Give one that both hold"
        )
    return ours.sel(level=levels), theirs.sel(level=levels)


def _window_deviation(residuals: xr.DataArray, width: pd.Timedelta) -> tuple[xr.DataArray, int]:
    """Standard deviation of the means of whole windows of the past, and how many there are."""
    number = (residuals.time.values - residuals.time.values[0]) // width.to_timedelta64()
    labels, size = np.unique(number, return_counts=True)
    whole = labels[size == size.max()]
    if len(whole) < LEAST_WINDOWS:
        raise DataError(
            f"A past of {len(whole)} whole windows of {width}",
            f"At least {LEAST_WINDOWS} tell how much a window varies",
            "Give a longer past, or shorter windows",
        )
    means = residuals.groupby(xr.DataArray(number, dims="time", name="window")).mean().sel(window=whole)
    variance = (means**2).sum("window") / (len(whole) - 1 - 2 * HARMONICS)
    return variance**0.5, len(whole)


def _departures(forecast: xr.DataArray, cycle: AnnualCycle, course: AnnualCycle) -> tuple[xr.DataArray, int]:
    """Statistics of the forecast less the climate's, averaged over members and initial times by lead; how many members are missing.

    Raises:
        DataError: At some lead there is no member at all.
    """
    total, count, missing = xr.DataArray(0.0), xr.DataArray(0), 0
    need_plausible(str(forecast.name), forecast.isel({LEAD: 0, "time": 0}).values)
    for time in forecast.time.values:
        valid = time + forecast[LEAD].values
        leads = [
            _one_start(piece, cycle, course, valid[np.isin(forecast[LEAD].values, piece[LEAD].values)])
            for piece in _lead_pieces(forecast, time)
        ]
        values = xr.concat(leads, LEAD)
        there = values.isel(statistic=0, drop=True).notnull()
        total = total + values.where(there, 0.0).sum("number", skipna=False)
        count = count + there.sum("number")
        missing += int((~there).sum())
    if not (count > 0).all():
        lead = count[LEAD].values[np.argwhere(count.transpose(LEAD, ...).values == 0)[0][0]]
        raise DataError(
            f"{forecast.name} has no member at {pd.Timedelta(lead)}",
            "Every lead needs a member that is there",
            "Let the forecast finish first",
        )
    return total / count, missing


def _one_start(piece: xr.DataArray, cycle: AnnualCycle, course: AnnualCycle, valid: np.ndarray) -> xr.DataArray:
    return course.anomalies(climate_statistics(piece.load(), cycle, valid, LEAD), valid, LEAD)


def _lead_pieces(forecast: xr.DataArray, time: np.datetime64) -> Iterator[xr.DataArray]:
    """The fields of one initial time, in pieces along the lead."""
    return (piece.rename(time=LEAD) for piece in time_pieces(forecast.sel(time=time, drop=True).rename({LEAD: "time"})))
