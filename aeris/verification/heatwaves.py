"""Heat waves, cold spells and wind storms by one rule: a daily value beyond what the season knows, for days on end.

A spell is a run of at least `days` days, each of which lies strictly beyond a percentile of its own day of the year. Threshold and
runs are those of xclim (`percentile_doy`, `windowed_run_count`), which agrees to rounding: xclim's own indices take the thresholds
of this room as they are, and this room needs no xclim.

What is missing is never counted as "not beyond": a series with a missing day is left out as a whole, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from aeris.errors import ConfigurationError, DataError
from aeris.verification.daily import WIND_SPEED, How, daily, daily_members, lead_days, row_blocks
from aeris.verification.pairing import CELLS, LEAD, need_same_grid, need_times, open_archive

PERCENTILE_METHOD: Literal["median_unbiased"] = "median_unbiased"
"""Hyndman and Fan's method 8, as xclim takes it: plotting positions (i - 1/3) / (n + 1/3)."""

DAYS_OF_YEAR = 366


@dataclass(frozen=True)
class Spell:
    """What counts as a spell.

    Attributes:
        variable: Canonical name, or ``"10m_wind_speed"``.
        daily: What stands for a day: the ``"max"``, ``"min"`` or ``"mean"`` of its steps.
        percentile: Percentile of the climatology, 0 to 100, beyond which a day counts.
        side: ``"above"`` it or ``"below"`` it, strictly.
        days: Least length of a spell.
        level: hPa, for a variable on levels.
    """

    variable: str
    daily: How
    percentile: float
    side: Literal["above", "below"]
    days: int
    level: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.percentile < 100 or self.side not in ("above", "below") or self.days < 1:
            raise ConfigurationError(
                f"A spell of {self.days} days {self.side} percentile {self.percentile:g}",
                "It takes a percentile between 0 and 100, 'above' or 'below', and at least one day",
                "Give for example Spell('2m_temperature', 'max', 90, 'above', 3)",
            )


HEAT_WAVE = Spell("2m_temperature", "max", 90, "above", 3)
COLD_SPELL = Spell("2m_temperature", "min", 10, "below", 3)
WIND_STORM = Spell(WIND_SPEED, "max", 98, "above", 1)


def thresholds(past: xr.Dataset, spell: Spell, window: int = 5) -> xr.DataArray:
    """The percentile of each day of the year, cell by cell.

    Args:
        past: Canonical dataset of past states, lazy or not; it is read by blocks of rows.
        spell: What is looked for.
        window: Days around a day of the year, in each year, that belong to its sample; odd.

    Returns:
        ``(dayofyear, latitude, longitude)``, the days 1 to 366, in the unit of the variable. NaN where the past is always missing.

    Raises:
        DataError: The past does not hold every day of the year, or the variable.
    """
    per_row = past.sizes["time"] * past.sizes["longitude"]
    parts = [
        percentile_by_day(daily(past.isel(latitude=rows), spell.variable, spell.daily, spell.level), spell.percentile, window)
        for rows in row_blocks(past.sizes["latitude"], per_row)
    ]
    return xr.concat(parts, "latitude", combine_attrs="override")


def percentile_by_day(days: xr.DataArray, percentile: float, window: int = 5) -> xr.DataArray:
    """The percentile of each day of the year of daily series.

    The sample of a day of the year is all values within ``window // 2`` days of it in any year. Percentiles of the days 1 to 365 are
    spread over 1 to 366, because the last has a quarter of the sample (as in `xclim.core.calendar.percentile_doy`).

    A few years ask for a wider window. Of the n days in the sample only about n (1 − p/100) lie beyond the percentile, so that a longer
    spell can hardly be found in the very years that made the threshold: 4 years and 5 days leave 2 days of 20 beyond the 90th.

    Args:
        days: ``(time, ...)``, one value a day without gaps in the axis; NaN is left out.
        percentile: 0 to 100.
        window: An odd number of days.

    Returns:
        ``(dayofyear, ...)``, with the attributes that xclim's indices need.

    Raises:
        DataError: A day of the year has no value.
        ConfigurationError: The window is not odd.
    """
    if window < 1 or window % 2 == 0:
        raise ConfigurationError(f"A window of {window} days", "It has as many days before as after", "Give an odd number such as 5")
    days = days.transpose("time", ...)
    index = _daily_axis(days)
    values = days.values.reshape(len(index), -1)
    known = ~np.isnan(values).all(axis=1)
    rows = [_around(np.flatnonzero(index.day_of_year == day), window, known) for day in range(1, DAYS_OF_YEAR)]
    lacking = [day for day, positions in enumerate(rows, 1) if not len(positions)]
    if lacking:
        raise DataError(
            f"{len(lacking)} days of the year have no past, the first is day {lacking[0]}; "
            f"it runs from {index[0]:%Y-%m-%d} to {index[-1]:%Y-%m-%d}",
            "A threshold needs past days from every time of the year",
            "Give at least one whole year, better ten",
        )
    table = np.stack([_percentile(values[positions], percentile) for positions in rows])
    spread = _to_leap_year(table).reshape(DAYS_OF_YEAR, *days.shape[1:])
    coordinates = {key: value for key, value in days.coords.items() if "time" not in value.dims}
    about = {
        "units": days.attrs.get("units", ""),
        "long_name": f"{percentile:g}th percentile, {days.attrs.get('long_name', days.name)}",
        "climatology_bounds": [f"{index[0]:%Y-%m-%d}", f"{index[-1]:%Y-%m-%d}"],
        "window": window,
        "smallest_sample": min(map(len, rows)),
    }
    return xr.DataArray(
        spread, {**coordinates, "dayofyear": np.arange(1, DAYS_OF_YEAR + 1)}, ["dayofyear", *days.dims[1:]], days.name, about
    )


def _daily_axis(days: xr.DataArray) -> pd.DatetimeIndex:
    index = pd.DatetimeIndex(days.time.values)
    if (np.diff(index) != pd.Timedelta("1D")).any():
        raise DataError(
            f"{len(index)} times from {index[0]} to {index[-1]} that are not a day apart",
            "Daily values have one time for every day; a day without data is NaN",
            "Make them with aeris.verification.daily.daily, or with ds.resample(time='1D')",
        )
    return index


def _around(centres: np.ndarray, window: int, known: np.ndarray) -> np.ndarray:
    """Positions within the window of any centre that exist and are known; one that two centres share counts twice, as in xclim."""
    positions = (centres[:, None] + np.arange(window) - window // 2).ravel()
    positions = positions[(positions >= 0) & (positions < len(known))]
    return positions[known[positions]]


def _percentile(sample: np.ndarray, percentile: float) -> np.ndarray:
    """Percentile of each column of ``(days, cells)``. Columns without gaps are taken at once: `nanpercentile` is slow."""
    gaps = np.isnan(sample).sum(axis=0)
    result = np.full(sample.shape[1], np.nan, sample.dtype)
    result[gaps == 0] = np.percentile(sample[:, gaps == 0], percentile, axis=0, method=PERCENTILE_METHOD)
    some = (gaps > 0) & (gaps < len(sample))
    if some.any():
        result[some] = np.nanpercentile(sample[:, some], percentile, axis=0, method=PERCENTILE_METHOD)
    return result


def _to_leap_year(table: np.ndarray) -> np.ndarray:
    """Spreads 365 rows evenly over 366 by linear interpolation."""
    place = np.linspace(0, DAYS_OF_YEAR - 2, DAYS_OF_YEAR)
    below = np.minimum(place.astype(int), DAYS_OF_YEAR - 3)
    share = (place - below).astype(table.dtype)[:, None]
    return (1 - share) * table[below] + share * table[below + 1]


def beyond(days: xr.DataArray, threshold: xr.DataArray, side: str, valid: np.ndarray | None = None) -> xr.DataArray:
    """Whether each day lies beyond the threshold of its day of the year: 1, 0, or NaN where either is missing.

    Args:
        days: Daily values along ``time``, or along ``prediction_timedelta`` with `valid`.
        threshold: ``(dayofyear, ...)``.
        side: ``"above"`` or ``"below"``.
        valid: The days on which the leads fall.

    Raises:
        DataError: Threshold and values state different units.
    """
    ours, theirs = days.attrs.get("units", ""), threshold.attrs.get("units", "")
    if ours and theirs and ours != theirs:
        raise DataError(f"Values in {ours}, thresholds in {theirs}", "Both must have one unit", "Convert one of them")
    axis = "time" if valid is None else LEAD
    index = pd.DatetimeIndex(days.time.values if valid is None else valid)
    limit = threshold.sel(dayofyear=xr.DataArray(index.day_of_year.values, dims=axis)).drop_vars("dayofyear")
    with xr.set_options(keep_attrs=False, arithmetic_join="exact"):
        difference = days - limit
    hit = difference > 0 if side == "above" else difference < 0
    return hit.astype("float32").where(difference.notnull()).assign_attrs(units="1", long_name=f"{side} the threshold")


def run_lengths(hit: xr.DataArray, dim: str = "time") -> xr.DataArray:
    """Length of the run of ones to which each position belongs, 0 where it belongs to none.

    A series with a missing value is NaN throughout: how long a run lasts across it is not known.

    Args:
        hit: 1, 0 or NaN along `dim`.
        dim: The dimension of the runs.
    """
    lengths = xr.apply_ufunc(_run_lengths, hit, input_core_dims=[[dim]], output_core_dims=[[dim]])
    return lengths.transpose(*hit.dims).assign_attrs(units="d", long_name="length of the run")


def _run_lengths(hit: np.ndarray) -> np.ndarray:
    """Along the last axis: count forwards, then give every run its last count backwards."""
    length = np.zeros(hit.shape, np.float32)
    on = hit == 1
    for t in range(hit.shape[-1]):
        length[..., t] = (1 + (length[..., t - 1] if t else 0)) * on[..., t]
    for t in range(hit.shape[-1] - 2, -1, -1):
        length[..., t] = np.where(on[..., t] & on[..., t + 1], length[..., t + 1], length[..., t])
    return np.where(np.isnan(hit).any(axis=-1, keepdims=True), np.float32(np.nan), length)


def spells(days: xr.DataArray, threshold: xr.DataArray, spell: Spell) -> xr.Dataset:
    """Spells in daily series.

    Args:
        days: ``(time, ...)``, as `aeris.verification.daily.daily` makes them. A run that begins before the first day or ends after the
            last is as long as what is seen of it.
        threshold: ``(dayofyear, ...)``.
        spell: What counts.

    Returns:
        ``count`` of spells, ``days`` in them, and ``longest`` run (of any length), without ``time``; NaN where a day is missing. The
        attribute ``missing_series`` counts these.

    Raises:
        DataError: The days are not consecutive, or the units differ.
    """
    _daily_axis(days)
    lengths = run_lengths(beyond(days, threshold, spell.side))
    found = _summary(lengths, spell.days, "time")
    return found.assign_attrs(missing_series=int(found.longest.isnull().sum()))


def _summary(lengths: xr.DataArray, least: int, dim: str) -> xr.Dataset:
    inside = lengths >= least
    known = lengths.notnull().all(dim)
    begins = inside & ~inside.shift({dim: 1}, fill_value=False)
    counts = {"count": begins.sum(dim), "days": inside.sum(dim), "longest": lengths.max(dim)}
    about = {"count": "spells", "days": "days in spells", "longest": "longest run"}
    units = {"count": "1", "days": "d", "longest": "d"}
    return xr.Dataset({key: field.where(known).assign_attrs(units=units[key], long_name=about[key]) for key, field in counts.items()})


def probabilities(fc: xr.Dataset | str | Path, threshold: xr.DataArray, spell: Spell) -> xr.Dataset:
    """What an ensemble says of a spell, as fractions of its members.

    The archive is read by initial time and blocks of rows. A member with a missing value in any whole day of the forecast is left
    out at that cell.

    Args:
        fc: Forecast archive, or the path of one.
        threshold: ``(dayofyear, latitude, longitude)`` on the grid of the forecast, as `thresholds` gives it.
        spell: What counts.

    Returns:
        Dataset ``(time, [prediction_timedelta,] latitude, longitude)``, the leads being whole days from the day of the initial time:

        - ``exceedance``: of the day being beyond the threshold,
        - ``persistence``: of every day from the first whole one to this one being beyond it,
        - ``in_spell``: of the day belonging to a spell of at least ``spell.days`` within the whole days of the forecast,
        - ``any_spell``: of any such spell, without lead,
        - ``members``: how many members were counted, without lead.

        NaN where no member counts, or where a day is not whole for that initial time. Attributes: ``missing_series`` (members left
        out, summed over initial times and cells where others are there), ``missing_cells`` (initial times and cells without any),
        and ``incomplete_days``.

    Raises:
        DataError: Grids or units differ, no day is whole, or the forecast is shorter than a spell.
        StoreError: There is no archive at that path.
    """
    archive = open_archive(fc)
    need_same_grid("the threshold", threshold.to_dataset(name="threshold"), archive)
    _need_length(archive, spell)
    parts = [_at_time(archive.sel(time=time, drop=True), time, threshold, spell) for time in archive.time.values]
    begun = sum(lead_days(time, archive[LEAD].values)[3] for time in archive.time.values)
    joined = xr.concat(parts, xr.IndexVariable("time", archive.time.values), join="outer")
    return _described(joined, archive.sizes["number"], spell).assign_attrs(
        incomplete_days=begun, **_counts(joined, archive.sizes["number"])
    )


def _need_length(archive: xr.Dataset, spell: Spell) -> None:
    for time in archive.time.values:
        whole = len(lead_days(time, archive[LEAD].values)[0])
        if whole < spell.days:
            raise DataError(
                f"The forecast from {pd.Timestamp(time):%Y-%m-%dT%H} has {whole} whole UTC days",
                f"A spell lasts at least {spell.days} days",
                "Give longer leads, or a shorter spell",
            )


def _at_time(members: xr.Dataset, time: np.datetime64, threshold: xr.DataArray, spell: Spell) -> xr.Dataset:
    """Probabilities from one initial time."""
    per_row = members.sizes["number"] * members.sizes[LEAD] * members.sizes["longitude"]
    parts = []
    for rows in row_blocks(members.sizes["latitude"], per_row):
        days = daily_members(members.isel(latitude=rows), time, spell.variable, spell.daily, spell.level)
        limit = threshold.isel(latitude=rows).assign_coords({dim: days[dim] for dim in CELLS})
        parts.append(_fractions(beyond(days, limit, spell.side, time.astype("datetime64[D]") + days[LEAD].values), spell.days))
    return xr.concat(parts, "latitude")


def _fractions(hit: xr.DataArray, least: int) -> xr.Dataset:
    """Fractions of the members without gaps, of ``(prediction_timedelta, number, ...)``."""
    whole = hit.notnull().all(LEAD)
    hit = hit.where(whole)
    lengths = run_lengths(hit, LEAD)
    inside = (lengths >= least).astype("float32").where(whole)
    fields = {"exceedance": hit, "persistence": hit.cumprod(LEAD, skipna=False), "in_spell": inside, "any_spell": inside.max(LEAD)}
    fractions = {key: field.mean("number") for key, field in fields.items()}
    return xr.Dataset({**fractions, "members": whole.sum("number")})


def _counts(joined: xr.Dataset, members: int) -> dict[str, int]:
    count = joined.members
    return {"missing_series": int((members - count).where(count > 0).sum()), "missing_cells": int((count == 0).sum())}


def _described(joined: xr.Dataset, members: int, spell: Spell) -> xr.Dataset:
    what = f"{spell.variable}, daily {spell.daily} {spell.side} percentile {spell.percentile:g}"
    texts = {
        "exceedance": f"probability of {what}",
        "persistence": f"probability of {what} on every day so far",
        "in_spell": f"probability of a day in a spell of {spell.days} days, {what}",
        "any_spell": f"probability of a spell of {spell.days} days, {what}",
        "members": f"members that counted, of {members}",
    }
    fields = {name: field.assign_attrs(units="1", long_name=texts[str(name)]) for name, field in joined.items()}
    return xr.Dataset(fields).transpose("time", LEAD, *CELLS)


def outcomes(fc: xr.Dataset | str | Path, truth: xr.Dataset, threshold: xr.DataArray, spell: Spell) -> xr.Dataset:
    """What happened, by the rule and in the shape of `probabilities`: 1 or 0, NaN where the truth is missing.

    Args:
        fc: The archive whose initial times and leads count, or the path of one.
        truth: Canonical dataset that holds every initial time plus lead.
        threshold: As for `probabilities`.
        spell: What counts.

    Raises:
        DataError: The truth lacks a valid time, or what `probabilities` refuses.
    """
    archive = open_archive(fc)
    need_times("the truth", truth, (archive.time.values[:, None] + archive[LEAD].values).ravel())
    names = [name for name in truth.data_vars if {"time", *CELLS} <= set(truth[name].dims)]
    valid = xr.DataArray(archive.time.values[:, None] + archive[LEAD].values, {dim: archive[dim] for dim in ("time", LEAD)}, ["time", LEAD])
    parts = []
    for time in archive.time.values:
        happened = truth[names].sel(time=valid.sel(time=time).values).rename(time=LEAD).assign_coords({LEAD: archive[LEAD].values})
        parts.append(probabilities(happened.expand_dims(time=[time]), threshold, spell))
    joined = xr.concat(parts, "time", join="outer", combine_attrs="drop_conflicts")
    return joined.assign_attrs({key: sum(part.attrs[key] for part in parts) for key in parts[0].attrs})
