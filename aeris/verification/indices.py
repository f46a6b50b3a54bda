"""Forecasts of an index, such as Niño 3.4 or RMM1: plumes as a table, anomalies, correlation, and all other scores.

An index is a series: of the truth ``(time)``, of a forecast ``(time, number, prediction_timedelta)``.
"""

from __future__ import annotations

import pandas as pd
import xarray as xr

from aeris.data.grid import Grid
from aeris.errors import DataError
from aeris.verification.pairing import CELLS, LEAD, need_times
from aeris.verification.seasons import AnnualCycle

LEAST_CASES = 3
"""Initial times with which a correlation says anything at all."""


def as_field(index: xr.DataArray) -> xr.Dataset:
    """An index as a field that is everywhere the same, which is all that `aeris.verify`, event tables and rank histograms ask for.

    Args:
        index: ``(time)`` or ``(time, number, prediction_timedelta)``.

    Returns:
        Dataset of one variable, called as the index or ``"index"``, on the smallest of grids.

    Raises:
        DataError: A time of the index is not known, or stands twice.
    """
    _need_each_time_once(index)
    cells = dict(zip(CELLS, (Grid.regular(2, 2).latitude, Grid.regular(2, 2).longitude), strict=True))
    return index.expand_dims(cells).transpose(..., *CELLS).to_dataset(name=index.name or "index")


def index_anomalies(index: xr.DataArray, cycle: AnnualCycle) -> xr.DataArray:
    """Departures of an index from its annual cycle, at its times or at its valid times."""
    if LEAD not in index.dims:
        return cycle.anomalies(index)
    parts = [cycle.anomalies(index.sel(time=time), time + index[LEAD].values, LEAD) for time in index.time.values]
    return xr.concat(parts, "time", combine_attrs="override").transpose(*index.dims)


def plume_table(
    index: xr.DataArray, truth: xr.DataArray | None = None, quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
) -> pd.DataFrame:
    """An ensemble of an index as a table: a row for each initial time and lead.

    Args:
        index: ``(time, number, prediction_timedelta)``.
        truth: ``(time)``; NaN where it lacks a valid time.
        quantiles: Between 0 and 1.

    Returns:
        Columns ``valid``, ``members`` (how many are there), ``mean``, ``deviation`` (unbiased), ``q5`` and so on, and ``truth``. Its
        ``attrs`` say the unit, and how many members and truths are missing.

    Raises:
        DataError: A time of the truth is not known, or stands twice.
    """
    index = index.transpose("time", LEAD, "number")
    valid = pd.DatetimeIndex(_valid_times(index).values.ravel())
    values = pd.DataFrame(index.values.reshape(len(valid), -1))
    columns = {"valid": valid, "members": values.count(axis=1), "mean": values.mean(axis=1), "deviation": values.std(axis=1)}
    columns |= {f"q{100 * share:g}": values.quantile(share, axis=1) for share in quantiles}
    rows = pd.MultiIndex.from_product([index.time.values, index[LEAD].values], names=["time", "lead"])
    table = pd.DataFrame(columns).set_axis(rows)
    table.attrs = {"units": index.attrs.get("units", ""), "missing_members": int(values.isna().sum().sum())}
    if truth is not None:
        _need_each_time_once(truth)
        table["truth"] = truth.reindex(time=valid).values
        table.attrs["missing_truths"] = int(table.truth.isna().sum())
    return table


def correlation(forecast: xr.DataArray, truth: xr.DataArray) -> xr.Dataset:
    """Pearson's correlation of the ensemble mean with the truth over the initial times, by lead.

    Args:
        forecast: ``(time, number, prediction_timedelta)``; members may be NaN.
        truth: ``(time)``, holding every initial time plus lead; may be NaN.

    Returns:
        ``correlation``, and ``cases``, the initial times with some member and a truth, both ``(prediction_timedelta)``. The attributes
        say how many members and truths are missing.

    Raises:
        DataError: The truth lacks a valid time, the units differ, or at some lead fewer than three cases are left.
    """
    mean, happened = beside(forecast, truth)
    cases = (mean.notnull() & happened.notnull()).sum("time")
    if cases.min() < LEAST_CASES:
        lead = cases.idxmin(LEAD)
        raise DataError(
            f"{int(cases.min())} initial times at {pd.Timedelta(lead.item())} with a member and a truth",
            f"A correlation needs {LEAST_CASES} at least",
            "Give more initial times, or cut the leads with sel(prediction_timedelta=...)",
        )
    return xr.Dataset(
        {
            "correlation": xr.corr(mean, happened, "time").assign_attrs(units="1", long_name="correlation of the ensemble mean"),
            "cases": cases.assign_attrs(units="1", long_name="initial times that counted"),
        },
        attrs={"missing_members": int(forecast.isnull().sum()), "missing_truths": int(happened.isnull().sum())},
    )


def beside(forecast: xr.DataArray, truth: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The ensemble mean of an index and the truth at its valid times, both ``(time, prediction_timedelta, ...)``.

    Raises:
        DataError: The truth lacks a valid time, one of its times is not known or stands twice, or the units differ.
    """
    ours, theirs = forecast.attrs.get("units", ""), truth.attrs.get("units", "")
    if ours and theirs and ours != theirs:
        raise DataError(f"The index is in {ours}, its truth in {theirs}", "Both must have one unit", "Convert one of them")
    _need_each_time_once(truth)
    valid = _valid_times(forecast)
    need_times("the truth", truth.to_dataset(name="truth"), valid.values.ravel())
    happened = truth.rename(time="valid").sel(valid=valid).drop_vars("valid")
    return forecast.mean("number").transpose("time", LEAD, ...), happened


def _valid_times(forecast: xr.DataArray) -> xr.DataArray:
    """Initial times plus leads, ``(time, prediction_timedelta)``."""
    return forecast.time + forecast[LEAD]


def _need_each_time_once(index: xr.DataArray) -> None:
    times = index.get_index("time")
    if times.hasnans or not times.is_unique:
        raise DataError(
            f"{int(times.isna().sum())} times of the index are not known, {int(times.dropna().duplicated().sum())} stand twice",
            "Each time of an index stands once",
            "Leave them out with index.sel(time=index.time.notnull()).drop_duplicates('time')",
        )
