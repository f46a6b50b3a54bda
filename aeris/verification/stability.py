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
from aeris.verification.daily import DAY, need_plausible, need_units
from aeris.verification.pairing import CELLS, LEAD, attributes_of, need_same_grid, open_archive
from aeris.verification.seasons import AnnualCycle, pieces_along
from aeris.verification.spectra import power

HARMONICS = 2
"""Of the annual cycle, of fields and of their statistics."""

TERMS = 1 + 2 * HARMONICS
"""Of that cycle, its mean among them."""

PARTS = 4
"""Of the past, each of which is held against the others."""

LEAST_DAYS, LEAST_WINDOWS = 2 * 365, 20
"""A shorter past does not tell a season from the weather of its only year, and fewer windows not how much their means vary."""

LEAST_ERROR = 0.01
"""Of a mean, over the root mean square of anomalies: what the truth keeps to the last digit would be lost by rounding alone."""


class _Judged(NamedTuple):
    """A variable's windows: values less the climate's, their standard error, windows of the past, members that are missing."""

    value: xr.DataArray
    error: xr.DataArray
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

    N being the windows of the past and q = 1 + 2·2 the terms of the annual cycle; σ of a mean is at least a hundredth of the anomalies'
    root mean square. **Stable** means ``|d| ≤ limit`` for all variables,
    levels, statistics and windows, the limit being that quantile of Student's t (N − q degrees of freedom) at which a forecast drawn
    from the climate itself is called unstable with probability `risk` or less (Bonferroni: risk over the number of comparisons).
    Averages over members vary less than a single window of the past, so that for an ensemble the risk is smaller than stated. A value
    that is not finite is unstable, and a forecast of which members are missing is not called stable: they may have left the finite
    numbers, or not be computed yet.

    What it cannot see: a departure below about ``limit`` σ in every window, and errors that leave these statistics as they are, such as a
    wrong place of the storm tracks. It takes window means as Gaussian and successive windows of the past as independent. The past must
    not be that of a changing climate: its trend would be in σ.

    Args:
        fc: Forecast archive of many days, or the path of one. Members that are NaN at a lead are left out of the means, and counted.
        past: Canonical dataset of the truth's climate, two years or more on the same grid, with times at the hours of the day of the
            forecast's valid times.
        variables: Those to look at; all that both hold where there is none.
        days: Length of a window in days, at least one step of the forecast.
        risk: Probability of a false alarm, between 0 and 1.

    Returns:
        Dataset with, by variable, ``value.{variable}`` (window mean less the climate's, ``(statistic, prediction_timedelta, [level])``,
        at the last lead of each window), ``error.{variable}``, its standard error σ √(1 + q/N), ``departure.{variable}``, their ratio
        d, and ``stable.{variable}``; ``limit``; and ``stable``, the verdict on all. Attributes: ``missing_members``,
        ``leads_left_out``, ``past_windows``, ``comparisons``.

    Raises:
        DataError: The past is shorter than two years or twenty windows, lacks an hour of the day, or has gaps; or a lead of the forecast
            has no member.
        ConfigurationError: A window or a risk that cannot be.
    """
    if not 0 < risk < 1:
        raise ConfigurationError(f"A risk of {risk}", "It is a probability between 0 and 1", "Give 0.05")
    archive = open_archive(fc)
    names = _compared(archive, past, variables)
    width, windows, left_out = _windows(archive[LEAD].values, days)
    past = _at_hours(past, archive)
    judged = {name: _judge(archive[name], past[name], width, windows) for name in names}
    comparisons = sum(entry.value.size for entry in judged.values())
    count = min(entry.past_windows for entry in judged.values())
    limit = float(stats.t.isf(risk / 2 / comparisons, count - TERMS))
    result = xr.Dataset({"limit": ((), limit, {"units": "1", "long_name": "largest departure of a stable forecast"})})
    for name, entry in judged.items():
        departure = (entry.value / entry.error).assign_attrs(units="1", long_name=f"departure in standard errors, {name}")
        result = result.assign({f"value.{name}": entry.value, f"error.{name}": entry.error, f"departure.{name}": departure})
        result[f"stable.{name}"] = bool((abs(departure) <= limit).all())
    missing = sum(entry.missing for entry in judged.values())
    result["stable"] = not missing and all(bool(result[f"stable.{name}"]) for name in names)
    return result.assign_attrs(missing_members=missing, leads_left_out=left_out, past_windows=count, comparisons=comparisons)


def departures(verdict: xr.Dataset) -> pd.DataFrame:
    """The verdict as a table: a row for each variable, level, statistic and window.

    Args:
        verdict: From `stability`.

    Returns:
        Columns ``variable``, ``level`` (NaN without levels), ``statistic``, ``day`` (of the window's last lead), ``value``, ``departure``.
    """
    tables = []
    for name in (str(key).removeprefix("departure.") for key in verdict if str(key).startswith("departure.")):
        one = verdict[[f"value.{name}", f"departure.{name}"]].rename({f"value.{name}": "value", f"departure.{name}": "departure"})
        one = one.assign_coords({LEAD: one[LEAD] / DAY}).rename({LEAD: "day"})
        tables.append(one.to_dataframe().reset_index().assign(variable=name))
    columns = ["variable", "level", "statistic", "day", "value", "departure"]
    return pd.concat(tables, ignore_index=True).reindex(columns=columns)


def reasons(verdict: xr.Dataset, most: int = 5) -> list[str]:
    """Why a forecast is not stable, in words: what leaves the limit first comes first; empty where it is stable.

    Args:
        verdict: From `stability`.
        most: How many reasons, at most.
    """
    table = departures(verdict)
    table["size"] = table.departure.abs().fillna(np.inf)
    beyond = table[table["size"] > float(verdict.limit)].sort_values(["day", "size"], ascending=[True, False])
    missing = verdict.attrs["missing_members"]
    found = [f"{missing} fields of members are missing"] if missing else []
    for (name, level, statistic), group in beyond.groupby(["variable", "level", "statistic"], sort=False, dropna=False):
        worst = group.loc[group["size"].idxmax()]
        unit = verdict[f"value.{name}"].attrs["units"].partition(",")[0]
        size = f"{worst.value:+.2g} {unit}" if statistic == "mean" else f"{np.exp(worst.value):.2g} times the climate's"
        where = name if np.isnan(level) else f"{name} at {level:g} hPa"
        found.append(
            f"{statistic} of {where} by day {group.day.min():g}; by day {worst.day:g} {size}, {worst.departure:+.1f} standard errors"
        )
    return found[:most]


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
    known = cycle.coefficients.isel(term=0, drop=True).notnull().all("hour")
    there = anomaly.notnull().any(CELLS)
    _need_whole(anomaly.isnull() & known & there, known, str(field.name or "the field"))
    filled = anomaly.fillna(0.0)
    area = known * xr.DataArray(Grid.of(field).area, dims="latitude")
    with np.errstate(divide="ignore", invalid="ignore"):
        spectrum = power(filled)
        found = {"mean": (filled * area).sum(CELLS, skipna=False) / area.sum(CELLS), "variance": _log_power(spectrum, 1, None)}
        for low, high in _octaves(int(spectrum.degree[-1])):
            found[f"power {low}" if low == high else f"power {low}-{high}"] = _log_power(spectrum, low, high)
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


def _need_whole(gaps: xr.DataArray, known: xr.DataArray, name: str) -> None:
    if gaps.any():
        raise DataError(
            f"{int(gaps.sum())} values of {name} are missing where the climate is known",
            "A global mean and a spectrum need every cell",
            "Fill them, or leave the variable out with variables=[...]",
        )
    if not known.any():
        raise DataError(f"The climate of {name} is known nowhere", "Its past has gaps in every cell", "Fill them")


def _compared(archive: xr.Dataset, past: xr.Dataset, variables: list[str] | None) -> list[str]:
    """The variables that are judged."""
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
    return names


def _windows(leads: np.ndarray, days: float) -> tuple[pd.Timedelta, list[np.ndarray], int]:
    """Positions of the leads of each full window, and how many leads are in none."""
    width = pd.Timedelta(days=days)
    step = pd.Timedelta(np.diff(leads).min()) if len(leads) > 1 else pd.Timedelta(leads[0])
    if width < step:
        raise ConfigurationError(f"A window of {width}", f"It holds at least one step of the forecast, {step}", "Give a longer window")
    number = np.ceil(leads / width.to_timedelta64()).astype(int) - 1
    full = int(leads[-1] / width.to_timedelta64() + 1e-9)
    windows = [np.flatnonzero(number == k) for k in range(full) if (number == k).any()]
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
    times = past.get_index("time")
    lacking = sorted(hours[0] - set(times.hour))
    if lacking:
        raise DataError(f"The past has no time at {lacking[0]} UTC", "It needs the hours of the forecast's valid times", "Give more of it")
    length = (times[-1] - times[0]) / DAY
    if length < LEAST_DAYS - 1:
        raise DataError(f"A past of {length:.0f} days", f"A climate is known from {LEAST_DAYS} days on", "Give a longer past")
    return past.isel(time=np.flatnonzero(times.hour.isin(list(hours[0]))))


def _judge(forecast: xr.DataArray, past: xr.DataArray, width: pd.Timedelta, windows: list[np.ndarray]) -> _Judged:
    """Window means of one variable less the climate's, and how much windows of the past vary."""
    ours, theirs = _on_common_levels(forecast, past)
    normal = _past_statistics(theirs)
    course = AnnualCycle.fit(normal, HARMONICS)
    sigma, count = _window_deviation(course.anomalies(normal), width)
    sigma = _at_least(sigma, normal)
    departures, missing = _departures(ours, AnnualCycle.fit(theirs, HARMONICS), course)
    means = [departures.isel({LEAD: window}).mean(LEAD) for window in windows]
    value = xr.concat(means, xr.IndexVariable(LEAD, ours[LEAD].values[[window[-1] for window in windows]])).transpose("statistic", ...)
    units = {"units": f"{attributes_of(ours)['units']}, or 1 for ln of power"}
    error = (sigma * np.sqrt(1 + TERMS / count)).assign_attrs(units, long_name=f"standard error, {ours.name}")
    return _Judged(value.assign_attrs(units, long_name=f"window mean less the climate's, {ours.name}"), error, count, missing)


def _on_common_levels(ours: xr.DataArray, theirs: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    if "level" not in ours.dims:
        return ours, theirs
    levels = [level for level in ours.level.values if level in theirs.level.values]
    if not levels:
        raise DataError(
            f"{ours.name} has no level in common with its past", "A level is judged against its own past", "Give one that both hold"
        )
    return ours.sel(level=levels), theirs.sel(level=levels)


def _past_statistics(past: xr.DataArray) -> xr.DataArray:
    """The statistics of past fields, each part of the past against the cycle of the other parts.

    Against a cycle that it was fitted to, the past would vary less than any forecast can.

    Raises:
        DataError: A field of the past is missing.
    """
    found = []
    for part in np.array_split(np.arange(past.sizes["time"]), PARTS):
        others = AnnualCycle.fit(past.drop_isel(time=part), HARMONICS)
        found += [climate_statistics(piece.load(), others) for piece in pieces_along(past.isel(time=part), "time")]
    joined = xr.concat(found, "time")
    gaps = int(joined.isel(statistic=0).isnull().sum())
    if gaps:
        raise DataError(
            f"{gaps} fields of the past lack {past.name}", "The climate's own variation needs a past without gaps", "Give a whole past"
        )
    return joined


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
    variance = (means**2).sum("window") / (len(whole) - TERMS)
    return variance**0.5, len(whole)


def _at_least(sigma: xr.DataArray, normal: xr.DataArray) -> xr.DataArray:
    """The deviations, that of a mean not below `LEAST_ERROR`."""
    anomaly = np.exp(normal.sel(statistic="variance", drop=True).mean("time") / 2)
    return xr.where(sigma.statistic == "mean", np.maximum(sigma, LEAST_ERROR * anomaly), sigma).transpose(*sigma.dims)


def _departures(forecast: xr.DataArray, cycle: AnnualCycle, course: AnnualCycle) -> tuple[xr.DataArray, int]:
    """Statistics of the forecast less the climate's, averaged over members and initial times by lead; how many members are missing.

    Raises:
        DataError: At some lead there is no member at all.
    """
    need_plausible(str(forecast.name), forecast.isel({LEAD: 0, "time": 0}).values)
    total, count, missing = xr.DataArray(0.0), xr.DataArray(0), 0
    for time in forecast.time.values:
        pieces = pieces_along(forecast.sel(time=time, drop=True), LEAD)
        values = xr.concat([_less_climate(piece.load(), time, cycle, course) for piece in pieces], LEAD)
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


def _less_climate(members: xr.DataArray, time: np.datetime64, cycle: AnnualCycle, course: AnnualCycle) -> xr.DataArray:
    valid = time + members[LEAD].values
    return course.anomalies(climate_statistics(members, cycle, valid, LEAD), valid, LEAD)
