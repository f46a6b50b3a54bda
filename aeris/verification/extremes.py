"""How unusual: the extreme forecast index and the shift of tails against a climatology, and return periods of yearly extremes.

Symbols: members x_m, m = 1..M; F_c the climatological distribution of the day, from past days of its season.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy import special, stats

from aeris.errors import ConfigurationError, DataError
from aeris.verification.daily import How, daily, daily_members, row_blocks
from aeris.verification.pairing import CELLS, LEAD, need_same_grid, open_archive

LEAST_BLOCKS = 10
"""Fewer yearly extremes do not tell three parameters."""

LEAST_SHARE = 0.9
"""Share of the days of a year that must be known for its extreme to count."""


def extreme_forecast_index(
    fc: xr.Dataset | str | Path, past: xr.Dataset, variable: str, how: How = "mean", level: int | None = None, days: int = 15
) -> xr.Dataset:
    """How far the ensemble lies from the climatology of the season, from -1 (all members below all past days) to 1 (above).

    EFI = 2/π ∫ (p − F(p)) / √(p (1 − p)) dp from 0 to 1, F(p) being the share of members below the p-quantile of the climatology
    (Lalaurette 2003, https://doi.org/10.1256/qj.02.152, with the weight of Zsótér 2006, ECMWF Newsletter 107). F is a step at
    r_m = F_c(x_m) for every member, so that with p = sin² θ the integral has a closed form and needs no quadrature:

        EFI = 4/π · mean of arcsin √r_m − 1.

    r_m is the share of past days below the member, days equal to it counting half. An ensemble that is drawn from the climatology
    has a mean EFI of 0.

    The shift of tails tells by how much the extreme members lie beyond the extreme past days (Zsótér 2006):
    SOT = (Q_f(f) − Q_c(c)) / (Q_c(c) − Q_c(f)) with f, c = 90, 99 % (``shift_of_upper_tail``) or 10, 1 % (``shift_of_lower_tail``);
    positive where a tenth of the members lie beyond the hundredth part of the past.

    Args:
        fc: Forecast archive, or the path of one.
        past: Canonical dataset of past states on the same grid, of at least one year; it must not hold the verified days.
        variable: Canonical name, or ``"10m_wind_speed"``.
        how: ``"max"``, ``"min"`` or ``"mean"`` of a UTC day.
        level: hPa, for a variable on levels.
        days: How far a past day may be from the day of the year.

    Returns:
        Dataset ``(time, prediction_timedelta, latitude, longitude)`` with ``efi``, ``shift_of_upper_tail`` and
        ``shift_of_lower_tail``; the leads are whole days from the day of the initial time. Members that are missing are left out;
        attribute ``missing_members`` counts them (summed over initial times, days and cells where the past is known), and
        ``smallest_sample`` is the least number of past days for a cell that has any.

    Raises:
        DataError: Grids or units do not fit, or there is no past day of the season.
        StoreError: There is no archive at that path.
    """
    archive = open_archive(fc)
    need_same_grid("the past", past, archive)
    blocks = [_index_of_rows(archive.isel(latitude=rows), past.isel(latitude=rows), variable, how, level, days) for rows in _rows(past)]
    joined = xr.concat(blocks, "latitude")
    sample = joined.sample.where(joined.sample > 0)
    about = {"missing_members": int(joined.missing.where(joined.sample > 0).sum()), "smallest_sample": int(sample.min().fillna(0))}
    return joined.drop_vars(["missing", "sample"]).assign_attrs(about)


def _rows(past: xr.Dataset) -> list[slice]:
    return list(row_blocks(past.sizes["latitude"], past.sizes["time"] * past.sizes["longitude"]))


def _index_of_rows(archive: xr.Dataset, past: xr.Dataset, variable: str, how: How, level: int | None, days: int) -> xr.Dataset:
    """The index on a block of rows: its past is read once, its members by initial time."""
    normal = daily(past, variable, how, level)
    index = pd.DatetimeIndex(normal.time.values)
    parts = []
    for time in archive.time.values:
        ensemble = daily_members(archive.sel(time=time, drop=True), time, variable, how, level)
        valid = pd.DatetimeIndex(time.astype("datetime64[D]") + ensemble[LEAD].values)
        fields = [_against(members.values, normal.values[_season(index, day, days)]) for members, day in zip(ensemble, valid, strict=True)]
        parts.append(_dataset(fields, ensemble))
    return xr.concat(parts, xr.IndexVariable("time", archive.time.values), join="outer")


def _dataset(fields: list[dict[str, np.ndarray]], ensemble: xr.DataArray) -> xr.Dataset:
    """Fields of each day as a dataset."""
    coordinates = {dim: ensemble[dim] for dim in (LEAD, *CELLS)}
    name = ensemble.attrs["long_name"]
    texts = {"efi": "extreme forecast index", "shift_of_upper_tail": "shift of tails, 90 %", "shift_of_lower_tail": "shift of tails, 10 %"}
    return xr.Dataset(
        {
            key: ((LEAD, *CELLS), np.stack([day[key] for day in fields]), {"units": "1", "long_name": f"{texts.get(key, key)}, {name}"})
            for key in fields[0]
        },
        coordinates,
    )


def _season(index: pd.DatetimeIndex, moment: pd.Timestamp, days: int) -> np.ndarray:
    """Positions of the past days around a day of the year."""
    distance = np.abs(index.day_of_year - moment.day_of_year)
    found = np.flatnonzero(np.minimum(distance, 365 - distance) <= days)
    if not len(found):
        raise DataError(
            f"No past day stands for {moment:%Y-%m-%d}: the past runs from {index[0]:%Y-%m-%d} to {index[-1]:%Y-%m-%d}",
            f"It needs days within {days} days of that day of the year",
            "Give past states of at least one whole year",
        )
    return found


def _against(members: np.ndarray, sample: np.ndarray) -> dict[str, np.ndarray]:
    """Index and shifts of members ``(M, ...)`` against past days ``(N, ...)``; a past day that is missing is left out."""
    count = (~np.isnan(sample)).sum(axis=0)
    rank = np.stack([((sample < one).sum(axis=0) + (sample <= one).sum(axis=0)) / 2 for one in members])
    with np.errstate(invalid="ignore", divide="ignore"):
        angle = np.arcsin(np.sqrt(rank / count))
    angle[np.isnan(members)] = np.nan
    there = (~np.isnan(angle)).sum(axis=0)
    mean = np.nansum(angle, axis=0) / np.where(there > 0, there, np.nan)
    tails = {"shift_of_upper_tail": (90, 99), "shift_of_lower_tail": (10, 1)}
    shifts = {key: _shift(members, sample, *pair) for key, pair in tails.items()}
    return {"efi": 4 / np.pi * mean - 1, **shifts, "missing": len(members) - there, "sample": count}


def _shift(members: np.ndarray, sample: np.ndarray, inner: float, outer: float) -> np.ndarray:
    """Shift of tails; NaN where the past does not vary, or nothing is there."""
    past_inner, past_outer = _quantiles(sample, [inner, outer])
    (ours,) = _quantiles(members, [inner])
    width = past_outer - past_inner
    return (ours - past_outer) / np.where(width == 0, np.nan, width)


def _quantiles(sample: np.ndarray, percentiles: list[float]) -> np.ndarray:
    """Percentiles along the first axis; gaps are left out cell by cell, where there are any."""
    whole = ~np.isnan(sample).any(axis=0)
    result = np.full((len(percentiles), *sample.shape[1:]), np.nan)
    result[:, whole] = np.percentile(sample[:, whole], percentiles, axis=0)
    some = ~whole & ~np.isnan(sample).all(axis=0)
    if some.any():
        result[:, some] = np.nanpercentile(sample[:, some], percentiles, axis=0)
    return result


def yearly_extremes(days: xr.DataArray, side: str = "above") -> xr.DataArray:
    """The largest (or, with ``"below"``, smallest) daily value of each calendar year.

    Args:
        days: Daily series ``(time, ...)``.
        side: ``"above"`` or ``"below"``.

    Returns:
        ``(year, ...)``. A year of which less than nine tenths of the days are known is NaN; the attribute ``incomplete_years``
        counts such years and cells.
    """
    if side not in ("above", "below"):
        raise ConfigurationError(f"Extremes on the side {side!r}", "It is 'above' or 'below'", "Give one of them")
    by_year = days.groupby("time.year")
    extremes = by_year.max() if side == "above" else by_year.min()
    whole = by_year.count() >= LEAST_SHARE * 365
    return extremes.where(whole).assign_attrs(days.attrs, incomplete_years=int((~whole).sum()))


def fit_gev(extremes: xr.DataArray, dim: str = "year", side: str = "above") -> xr.Dataset:
    """The generalized extreme value distribution of block extremes, by probability-weighted moments, cell by cell.

    With β_r = E[x F(x)^r], l₁ = β₀, l₂ = 2β₁ − β₀ and c = l₂ / (3β₂ − β₀) − ln 2 / ln 3 the shape is k = 7.8590 c + 2.9554 c²
    (Hosking, Wallis and Wood 1985, https://doi.org/10.1080/00401706.1985.10488049); scale and location follow from l₂ and l₁. It is
    closed, so that it serves a whole globe, and is steadier than the maximum of the likelihood for fewer than fifty blocks.

    Args:
        extremes: Block extremes along `dim`; NaN is left out.
        dim: The dimension of the blocks.
        side: ``"below"`` for smallest values: these are turned about zero, and so are the levels that come from the fit.

    Returns:
        ``shape``, ``location`` and ``scale`` as `scipy.stats.genextreme` takes them (a positive shape has an upper bound), and
        ``blocks``, how many were known. NaN where fewer than ten are, or where they do not vary.

    Raises:
        DataError: There are fewer than ten blocks everywhere.
    """
    sign = -1.0 if side == "below" else 1.0
    known = extremes.notnull().sum(dim)
    if int(known.max()) < LEAST_BLOCKS:
        raise DataError(
            f"{int(known.max())} blocks of {extremes.name or 'extremes'}",
            f"Three parameters need at least {LEAST_BLOCKS} blocks that are known",
            "Give a longer past, or empirical_return_periods of what there is",
        )
    shape, location, scale = xr.apply_ufunc(
        _gev_of, sign * extremes.astype("float64"), input_core_dims=[[dim]], output_core_dims=[[], [], []]
    )
    units = extremes.attrs.get("units", "")
    fit = xr.Dataset({"shape": shape, "location": location.assign_attrs(units=units), "scale": scale.assign_attrs(units=units)})
    enough = (known >= LEAST_BLOCKS) & (scale > 0)
    return fit.where(enough).assign(blocks=known).assign_attrs(side=side, units=units)


def _gev_of(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shape, location and scale of the last axis, by Hosking's estimator; gaps sort to the end and have no weight."""
    ordered, n = np.sort(blocks, axis=-1), (~np.isnan(blocks)).sum(axis=-1)[..., None]
    i = np.arange(blocks.shape[-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = [np.ones_like(ordered), i / (n - 1), i * (i - 1) / ((n - 1) * (n - 2))]
        b0, b1, b2 = (np.nansum(weight * ordered, axis=-1) / n[..., 0] for weight in weights)
        c = (2 * b1 - b0) / (3 * b2 - b0) - np.log(2) / np.log(3)
        k = 7.8590 * c + 2.9554 * c**2
        k = np.where(np.abs(k) < 1e-6, 1e-6, k)  # the limit is Gumbel's
        gamma = special.gamma(1 + k)
        scale = (2 * b1 - b0) * k / (gamma * (1 - 2.0**-k))
    return k, b0 + scale * (gamma - 1) / k, scale


def return_level(fit: xr.Dataset, years: float | list[float]) -> xr.DataArray:
    """The value that is exceeded (undershot, for a fit of smallest values) once in so many years on average.

    Args:
        fit: From `fit_gev`.
        years: More than one.

    Returns:
        ``(return_period, ...)``, in the unit of the extremes.

    Raises:
        ConfigurationError: A return period of a year or less.
    """
    period = np.atleast_1d(np.asarray(years, "float64"))
    if (period <= 1).any():
        raise ConfigurationError(
            f"A return period of {period.min():g} years", "A yearly extreme returns in more than one year", "Give 2 or more"
        )
    periods = xr.DataArray(period, {"return_period": period}, ["return_period"], attrs={"units": "years"})
    level = xr.apply_ufunc(stats.genextreme.isf, 1 / periods, fit["shape"], fit.location, fit.scale)
    sign = -1.0 if fit.attrs["side"] == "below" else 1.0
    return (sign * level).assign_attrs(units=fit.attrs["units"], long_name="return level")


def return_period(fit: xr.Dataset, values: xr.DataArray | float) -> xr.DataArray:
    """In how many years a yearly extreme goes beyond a value once, on average; infinite beyond the bound of the distribution.

    Args:
        fit: From `fit_gev`.
        values: In the unit of the extremes, for example the members of a forecast.
    """
    sign = -1.0 if fit.attrs["side"] == "below" else 1.0
    chance = xr.apply_ufunc(stats.genextreme.sf, sign * values, fit["shape"], fit.location, fit.scale)
    with np.errstate(divide="ignore"):
        return (1 / chance).assign_attrs(units="years", long_name="return period")


def empirical_return_periods(extremes: xr.DataArray, dim: str = "year", side: str = "above") -> xr.DataArray:
    """Return period of each block extreme by its rank i from the extreme end, (n + 1) / i years (Weibull's plotting position).

    Args:
        extremes: Block extremes along `dim`; NaN stays NaN and does not count. Equal values share their mean rank.
        dim: The dimension of the blocks.
        side: ``"above"`` or ``"below"``.
    """
    sign = -1.0 if side == "above" else 1.0
    rank = xr.apply_ufunc(
        lambda blocks: stats.rankdata(blocks, axis=-1, nan_policy="omit"),
        sign * extremes,
        input_core_dims=[[dim]],
        output_core_dims=[[dim]],
    ).transpose(*extremes.dims)
    periods = (extremes.notnull().sum(dim) + 1) / rank.where(extremes.notnull())
    return periods.transpose(*extremes.dims).assign_attrs(units="years", long_name="return period")
