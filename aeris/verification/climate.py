"""Indices of the tropical ocean and of bands of latitude: Niño boxes, plumes, Hovmöller diagrams, and scores of any index.

An index is a series: of the truth ``(time)``, of a forecast ``(time, number, prediction_timedelta)``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from aeris.data.grid import Grid, row_edges
from aeris.data.variables import SEA
from aeris.errors import ConfigurationError, DataError
from aeris.verification.daily import need_plausible, need_units
from aeris.verification.metrics import METRICS, STATISTICS
from aeris.verification.pairing import CELLS, LEAD, NO_CLIMATOLOGY, Case, need_times
from aeris.verification.seasons import AnnualCycle, time_pieces

Box = tuple[float, float, float, float]
"""South, north, west and east edge in degrees; a box may cross any meridian."""

NINO: dict[str, Box] = {
    "1+2": (-10.0, 0.0, 270.0, 280.0),
    "3": (-5.0, 5.0, 210.0, 270.0),
    "3.4": (-5.0, 5.0, 190.0, 240.0),
    "4": (-5.0, 5.0, 160.0, 210.0),
}
"""The boxes of NOAA's Climate Prediction Center, degrees north and east."""

LEAST_COVER = 0.5
"""Part of a box's area that must be known for its mean to count."""


def box_mean(field: xr.DataArray, box: Box) -> xr.DataArray:
    """Area-weighted mean over a box, of the known cells. A cell counts by the area that it shares with the box.

    Args:
        field: ``(..., latitude, longitude)`` on a global grid, lazy or not; only the rows and columns of the box are read, in pieces
            along ``time``.
        box: South, north, west and east edge.

    Returns:
        Float64 without the cells. NaN where less than half of the box's area is known (land); the attribute ``missing`` counts these.

    Raises:
        DataError: The grid is not global, or so much of the box is unknown at every time.
        ConfigurationError: The box has no area.
    """
    weights = box_weights(Grid.of(field), box)
    inside = {dim: np.flatnonzero(weights.sum([other for other in CELLS if other != dim]).values > 0) for dim in CELLS}
    part, weight = field.isel(inside), weights.isel(inside).values
    pieces = time_pieces(part) if "time" in part.dims else [part]
    means = [_mean_of(piece, weight) for piece in pieces]
    mean = xr.concat(means, "time", combine_attrs="override") if "time" in part.dims else means[0]
    missing = int(mean.isnull().sum())
    if missing == mean.size:
        raise DataError(
            f"No mean of {field.name or 'the field'} over {_box_text(box)}",
            f"At least {LEAST_COVER:.0%} of the box's area must be known at some time; land has no sea surface temperature",
            "Choose a box over the sea",
        )
    return mean.transpose(*(dim for dim in field.dims if dim not in CELLS)).assign_attrs(field.attrs, missing=missing)


def box_weights(grid: Grid, box: Box) -> xr.DataArray:
    """Area that each cell shares with a box, over the area of the box, ``(latitude, longitude)``."""
    south, north, west, east = box
    if not (-90 <= south < north <= 90 and 0 < east - west <= 360):
        raise ConfigurationError(
            f"The box {_box_text(box)}", "South lies below north and west before east", "Give (south, north, west, east)"
        )
    edges = np.clip(row_edges(grid.latitude), south, north)
    rows = -np.diff(np.sin(np.deg2rad(edges)))
    half = 180.0 / grid.shape[1]
    turns = 360.0 * np.arange(-2, 3)[:, None]
    columns = np.clip(np.minimum(grid.longitude + half + turns, east) - np.maximum(grid.longitude - half + turns, west), 0, None).sum(
        axis=0
    )
    whole = (np.sin(np.deg2rad(north)) - np.sin(np.deg2rad(south))) * (east - west)
    return xr.DataArray(np.outer(rows, columns) / whole, {"latitude": grid.latitude, "longitude": grid.longitude}, CELLS)


def _mean_of(field: xr.DataArray, weight: np.ndarray) -> xr.DataArray:
    field = field.transpose(..., *CELLS)
    values = field.values.astype("float64")
    known = ~np.isnan(values)
    area = np.einsum("...yx,yx->...", known, weight)
    total = np.einsum("...yx,yx->...", np.where(known, values, 0.0), weight)
    mean = total / np.where(area >= LEAST_COVER, area, np.nan)
    return xr.DataArray(mean, {key: c for key, c in field.coords.items() if not set(c.dims) & set(CELLS)}, field.dims[:-2], field.name)


def _box_text(box: Box) -> str:
    south, north, west, east = box
    return f"{south:g}° to {north:g}° north and {west:g}° to {east:g}° east"


def nino(ds: xr.Dataset, region: str = "3.4") -> xr.DataArray:
    """Sea surface temperature of a Niño region.

    Args:
        ds: Canonical dataset, or a forecast archive.
        region: ``"1+2"``, ``"3"``, ``"3.4"`` or ``"4"``.

    Returns:
        In K, with the dimensions of the dataset but the cells.

    Raises:
        ConfigurationError: The region is unknown.
        DataError: There is no sea surface temperature, its unit is not K, or the box lies on land.
    """
    if region not in NINO:
        raise ConfigurationError(f"The Niño region {region!r}", f"It is one of {', '.join(NINO)}", "Give one of these, or use box_mean")
    if SEA not in ds:
        raise DataError(
            f"There is no {SEA} among {', '.join(map(str, ds.data_vars))}", "A Niño index is made of it", "Open it with aeris.open_era5"
        )
    need_units("The dataset", ds[SEA])
    index = box_mean(ds[SEA], NINO[region])
    need_plausible(SEA, index.values)
    return index.rename(f"nino_{region}").assign_attrs(units="K", long_name=f"sea surface temperature, Niño {region}")


def valid_times(forecast: xr.DataArray | xr.Dataset) -> np.ndarray:
    """Initial times plus leads, ``(time, prediction_timedelta)``."""
    return forecast.time.values[:, None] + forecast[LEAD].values


def index_anomalies(index: xr.DataArray, cycle: AnnualCycle) -> xr.DataArray:
    """Departures of an index from its annual cycle, at its times or at its valid times."""
    if LEAD not in index.dims:
        return cycle.anomalies(index)
    parts = [cycle.anomalies(index.sel(time=time), time + index[LEAD].values, LEAD) for time in index.time.values]
    return xr.concat(parts, "time", combine_attrs="override").transpose(*index.dims)


def plume(
    index: xr.DataArray, truth: xr.DataArray | None = None, quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
) -> pd.DataFrame:
    """An ensemble of an index as a table: a row for each initial time and lead.

    Args:
        index: ``(time, number, prediction_timedelta)``.
        truth: ``(time)``; NaN where it lacks a valid time.
        quantiles: Between 0 and 1.

    Returns:
        Columns ``valid``, ``members`` (how many are there), ``mean``, ``deviation`` (unbiased), ``q05`` and so on, and ``truth``. Its
        ``attrs`` say how many members and truths are missing.
    """
    index = index.transpose("time", LEAD, "number")
    valid = pd.DatetimeIndex(valid_times(index).ravel())
    values = pd.DataFrame(index.values.reshape(len(valid), -1))
    rows = pd.MultiIndex.from_product([index.time.values, index[LEAD].values], names=["time", "lead"])
    columns = {"valid": valid, "members": values.count(axis=1), "mean": values.mean(axis=1), "deviation": values.std(axis=1)}
    columns |= {f"q{round(100 * q):02d}": values.quantile(q, axis=1) for q in quantiles}
    table = pd.DataFrame(columns).set_axis(rows)
    table.attrs = {"missing_members": int(values.isna().sum().sum()), "units": index.attrs.get("units", "")}
    if truth is not None:
        table["truth"] = truth.reindex(time=valid).values
        table.attrs["missing_truths"] = int(table.truth.isna().sum())
    return table


def hovmoller(field: xr.DataArray, south: float, north: float, cycle: AnnualCycle | None = None) -> xr.DataArray:
    """The mean over a band of latitude, as time (or lead) against longitude.

    Args:
        field: ``(..., latitude, longitude)``; for an archive the initial time is chosen before.
        south: Edge of the band in degrees north.
        north: The other edge.
        cycle: Of the same band, ``AnnualCycle.fit(hovmoller(past, south, north))``; what is returned are then anomalies.

    Returns:
        ``(..., longitude)``; a longitude where less than half of the band is known is NaN, and counted in the attribute ``missing``.

    Raises:
        ConfigurationError: The band has no width.
    """
    weights = box_weights(Grid.of(field), (south, north, 0.0, 360.0)).isel(longitude=0)
    rows = np.flatnonzero(weights.values > 0)
    weight = xr.DataArray(weights.values[rows] / weights.values.sum(), dims="latitude")
    part = field.isel(latitude=rows).drop_vars("latitude").astype("float64")
    known = xr.dot(part.notnull(), weight, dim="latitude")
    mean = xr.dot(part.fillna(0.0), weight, dim="latitude") / known.where(known >= LEAST_COVER)
    mean = mean.transpose(*(dim for dim in field.dims if dim != "latitude")).rename(field.name).assign_attrs(field.attrs)
    if cycle is not None:
        dim = "time" if "time" in mean.dims else LEAD
        valid = mean.time.values if dim == "time" else mean[LEAD].values + field.time.values
        mean = cycle.anomalies(mean, valid, dim)
    return mean.assign_attrs(missing=int(mean.isnull().sum()))


def verify_index(forecast: xr.DataArray, truth: xr.DataArray) -> xr.Dataset:
    """Scores of an ensemble forecast of an index, by lead.

    Args:
        forecast: ``(time, number, prediction_timedelta)``; members may be NaN.
        truth: ``(time)``, holding every initial time plus lead.

    Returns:
        Dataset ``(prediction_timedelta)`` with the scores of `aeris.verification.metrics.METRICS` that need no climatology, with
        ``correlation`` (Pearson's, of the ensemble mean, over initial times) and ``cases``, how many initial times counted: those at
        which the truth is known and some member is there. The attributes say how many members and truths were missing.

    Raises:
        DataError: The truth lacks a valid time, the units differ, or fewer than three cases are left at some lead.
    """
    case = _case_of(forecast, truth)
    there = (case.known & (case.count > 0)).values[..., 0, 0]
    cases = there.sum(axis=0)
    if cases.min() < 3:
        raise DataError(
            f"{cases.min()} initial times at {pd.Timedelta(forecast[LEAD].values[cases.argmin()])} with a member and a truth",
            "A score of an index is made of at least three",
            "Give more initial times, or cut the leads with sel(prediction_timedelta=...)",
        )
    scores = {}
    for name, metric in METRICS.items():
        if not metric.needs_climatology:
            fields = [
                np.where(there, STATISTICS[statistic](case).transpose("time", LEAD, *CELLS).values[..., 0, 0], np.nan)
                for statistic in metric.statistics
            ]
            together = np.all([~np.isnan(field) for field in fields], axis=0)
            count = np.where(together.sum(axis=0) > 0, together.sum(axis=0), np.nan)
            means = [xr.DataArray(np.where(together, field, 0.0).sum(axis=0) / count, {LEAD: forecast[LEAD]}, [LEAD]) for field in fields]
            units = forecast.attrs.get("units", "") if metric.in_units else "1"
            scores[name] = metric.of_means(*means).assign_attrs(units=units, long_name=metric.long_name)
    mean, happened = (np.where(there, field.transpose("time", LEAD, *CELLS).values[..., 0, 0], np.nan) for field in (case.mean, case.truth))
    about = {"units": "1", "long_name": "correlation of the ensemble mean"}
    scores["correlation"] = xr.DataArray(_correlation(mean, happened), {LEAD: forecast[LEAD]}, [LEAD], attrs=about)
    scores["cases"] = xr.DataArray(cases, {LEAD: forecast[LEAD]}, [LEAD], attrs={"units": "1", "long_name": "initial times that counted"})
    return xr.Dataset(scores).assign_attrs(_missing(forecast, case))


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation along the first axis, gaps in either left out; NaN where one does not vary."""
    x, y = x - np.nanmean(x, axis=0), y - np.nanmean(y, axis=0)
    size = np.sqrt(np.nansum(x**2, axis=0) * np.nansum(y**2, axis=0))
    return np.nansum(x * y, axis=0) / np.where(size > 0, size, np.nan)


def _case_of(forecast: xr.DataArray, truth: xr.DataArray) -> Case:
    """An index beside the truth, as one cell."""
    ours, theirs = forecast.attrs.get("units", ""), truth.attrs.get("units", "")
    if ours and theirs and ours != theirs:
        raise DataError(f"The index is in {ours}, its truth in {theirs}", "Both must have one unit", "Convert one of them")
    index, valid = truth.get_index("time"), valid_times(forecast)
    if index.hasnans or not index.is_unique:
        raise DataError(
            f"{int(index.isna().sum())} times of the truth are not known, {int(index.dropna().duplicated().sum())} stand twice",
            "Each time of an index stands once",
            "Leave them out with truth.sel(time=truth.time.notnull()).drop_duplicates('time')",
        )
    need_times("the truth", truth.to_dataset(name="truth"), valid.ravel())
    happened = truth.sel(time=valid.ravel()).values.reshape(valid.shape).astype("float64")
    members = forecast.transpose("number", "time", LEAD).values.astype("float64")
    dims = ("time", LEAD, *CELLS)
    return Case(xr.Variable(("number", *dims), members[..., None, None]), xr.Variable(dims, happened[..., None, None]), NO_CLIMATOLOGY)


def _missing(forecast: xr.DataArray, case: Case) -> dict[str, int]:
    return {"missing_members": int(forecast.isnull().sum()), "missing_truths": int((~case.known).sum())}


def bivariate_skill(forecast: xr.DataArray, truth: xr.DataArray) -> xr.Dataset:
    """Correlation and root mean square error of a pair of indices, such as RMM1 and RMM2, by lead.

    COR = Σ (a₁b₁ + a₂b₂) / √(Σ (a₁² + a₂²) Σ (b₁² + b₂²)), RMSE = √ mean of (a₁ − b₁)² + (a₂ − b₂)², sums over initial times, a the
    truth and b the ensemble mean (Lin, Brunet and Derome 2008, https://doi.org/10.1175/2008MWR2459.1). No mean is taken away. A
    forecast is called useful while COR is at least 0.5; the RMSE of the climatology is √2 for indices of deviation one.

    Args:
        forecast: ``(time, number, prediction_timedelta, mode)``, two modes.
        truth: ``(time, mode)``.

    Returns:
        ``correlation``, ``rmse`` and ``cases`` by lead. Initial times at which a mode of the truth or all members of one are missing
        do not count; the attributes say how many members and truths were missing.

    Raises:
        DataError: The truth lacks a valid time, there are not two modes, or no case is left.
    """
    if forecast.sizes.get("mode") != 2 or truth.sizes.get("mode") != 2:
        raise DataError(
            "There are not two modes", "A bivariate score needs a dimension mode of two", "Join them with xr.concat(..., 'mode')"
        )
    cases = [_case_of(forecast.isel(mode=k), truth.isel(mode=k)) for k in range(2)]
    b, a = (
        np.stack([getattr(case, what).transpose("time", LEAD, *CELLS).values[..., 0, 0] for case in cases]) for what in ("mean", "truth")
    )
    there = ~(np.isnan(a) | np.isnan(b)).any(axis=0)
    count = there.sum(axis=0)
    if count.min() == 0:
        raise DataError(
            "At some lead no initial time has both modes of forecast and truth", "Each lead needs one at least", "Cut the leads"
        )
    a, b = np.where(there, a, 0.0), np.where(there, b, 0.0)
    product, size_a, size_b = ((x * y).sum(axis=(0, 1)) for x, y in ((a, b), (a, a), (b, b)))
    size = np.sqrt(size_a * size_b)
    fields = {
        "correlation": (product / np.where(size > 0, size, np.nan), "bivariate correlation"),
        "rmse": (np.sqrt(((a - b) ** 2).sum(axis=(0, 1)) / count), "bivariate root mean square error"),
        "cases": (count, "initial times that counted"),
    }
    gaps = [_missing(forecast.isel(mode=k), cases[k]) for k in range(2)]
    scores = {name: (LEAD, values, {"units": "1", "long_name": text}) for name, (values, text) in fields.items()}
    return xr.Dataset(scores, {LEAD: forecast[LEAD]}, {key: gaps[0][key] + gaps[1][key] for key in gaps[0]})
