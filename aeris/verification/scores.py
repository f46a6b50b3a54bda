"""`verify`: holds a forecast archive against the truth and against its baselines."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from aeris.errors import DataError
from aeris.verification.baselines import Others, System, climatological, systems_of
from aeris.verification.climatology import Climatology, climatology_of
from aeris.verification.metrics import METRICS, STATISTICS, Metric
from aeris.verification.pairing import CELLS, NO_CLIMATOLOGY, Case, Pairing, Piece, pair, pieces, read_case

AREA, MEMBERS = "area", "members"
"""Names under which the mean statistics carry the part of the globe that was averaged over, and how many members there were."""


def verify(
    fc: xr.Dataset | str | Path,
    truth: xr.Dataset,
    climatology: xr.Dataset | Climatology | None = None,
    baselines: Iterable[str | Others] | str | Others = ("persistence",),
) -> xr.Dataset:
    """Scores an ensemble forecast and its baselines against the truth.

    Statistics are averaged over the globe, by cell area, and over initial times; a score is made of the averages. Cells where the
    truth is missing (sea surface temperature over land) are left out with their area. A member that is missing at some initial time
    and lead is left out there; where the forecast has none, the baselines are not scored either. The archive is read piece by piece.

    Args:
        fc: Forecast archive ``(time, number, prediction_timedelta, [level,] latitude, longitude)``, or the path of one.
        truth: Canonical dataset with ``time``, holding every initial time plus lead. It may hold fewer variables and levels, which
            are then the ones scored.
        climatology: For the anomaly correlation and the baseline ``"climatology"``: a dataset by ``dayofyear`` (and ``hour``), one
            whose ``time`` are the valid times, or `aeris.verification.climatology.ensemble_climatology` of past states.
        baselines: ``"persistence"`` (the truth at the initial time, held), ``"climatology"``, ``"optimum"`` (the exact forecast of
            the simulated planet), and mappings of further names to forecast archives.

    Returns:
        Dataset with variables ``{score}.{variable}``, the scores being those of `aeris.verification.metrics.METRICS` (``acc`` only
        with a climatology), and dimensions ``system`` (``"forecast"``, then the baselines), ``prediction_timedelta`` and, where the
        variable has one, ``level``. Spread and its ratio to the error are NaN for one member. The attributes say how many initial
        times and members there were, and how many members were missing.

    Raises:
        DataError: Forecast, truth, climatology or a baseline do not fit together, or no member of the forecast is there.
        ConfigurationError: A baseline is unknown, or lacks what it needs.
        StoreError: There is no archive at the path given.
    """
    pairing = pair(fc, truth)
    normal = None if climatology is None else climatological(pairing, climatology_of(climatology))
    means = global_means(pairing, systems_of(pairing, truth, normal, baselines), normal)
    members = pairing.forecast.sizes["number"]
    attributes = {"initial_times": len(pairing.times), "members": members, "missing_members": _missing_members(means, members)}
    return scores_of(means).assign_attrs(attributes, weights="cell area")


def write_scores(scores: xr.Dataset, path: str | Path) -> None:
    """Writes scores as Zarr 3, whole or not at all; what stood at `path` is replaced."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    # Text of fixed length has no place in the specification of Zarr 3; text of any length has.
    named = scores.assign_coords(system=scores.system.astype(object))
    named.to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


def global_means(
    pairing: Pairing, systems: Mapping[str, System], normal: System | None = None, scores: Iterable[str] = tuple(METRICS)
) -> xr.Dataset:
    """Statistics averaged over the globe, by cell area, each initial time by itself.

    Args:
        pairing: What is compared.
        systems: The forecast, which comes first, and its baselines.
        normal: The climatology, for the statistics of anomalies.
        scores: Names of the scores that shall be made of them.

    Returns:
        Dataset of the compared variables, ``(statistic, system, time, prediction_timedelta, [level])``. Besides the statistics there
        are ``"area"``, the part of the globe that was averaged over, and ``"members"``, how many members there were.
    """
    wanted = [METRICS[score] for score in scores if normal is not None or not METRICS[score].needs_climatology]
    statistics = [name for name in STATISTICS if any(name in metric.statistics for metric in wanted)]
    leading = {"statistic": [*statistics, AREA, MEMBERS], "system": list(systems), "time": pairing.times}
    means = {name: pairing.room(name, leading, np.nan) for name in pairing.variables}
    for step, time in enumerate(pairing.times):
        for order, name, piece, case in _cases(pairing, systems, normal, time):
            weights = (pairing.cell_area * case.known).transpose(*case.truth.dims)
            averages = [_average(STATISTICS[statistic](case), case.known, weights) for statistic in statistics]
            means[name][{"system": order, "time": step} | piece] = np.stack([*averages, weights.mean(CELLS), case.count])
    return xr.Dataset(means)


def _average(field: xr.Variable, known: xr.Variable, weights: xr.Variable) -> np.ndarray:
    """Weighted mean over the globe where the truth is known; NaN where it is known nowhere."""
    filled = np.where(known, field.transpose(*known.dims), 0.0)
    total = weights.sum(CELLS)
    return np.einsum("...yx,...yx->...", filled, weights) / total.where(total > 0)


def _cases(
    pairing: Pairing, systems: Mapping[str, System], normal: System | None, time: np.datetime64
) -> Iterator[tuple[int, str, Piece, Case]]:
    """Reads all cases of one initial time: number of the system, variable, piece and case, the forecast before its baselines."""
    observed, normals = pairing.truth_after(time), None if normal is None else normal(time)
    forecasts = [normals if system is normal and normals is not None else system(time) for system in systems.values()]
    for name in pairing.variables:
        for piece in pieces(max((fields[name] for fields in forecasts), key=lambda field: field.size)):
            truth: xr.DataArray | xr.Variable = observed[name].isel(piece)
            past = None if normals is None else normals[name].isel(piece).load()
            climate = NO_CLIMATOLOGY if past is None else past.mean("number")
            for order, fields in enumerate(forecasts):
                members = past if fields is normals and past is not None else fields[name].isel(piece)
                case = read_case(members, truth, climate)
                truth = truth if order else case.truth
                yield order, name, piece, case


def scores_of(means: xr.Dataset) -> xr.Dataset:
    """The scores from mean statistics: these are averaged over initial times first.

    Args:
        means: As `global_means` returns them, or a part of their initial times.

    Returns:
        Dataset with variables ``{score}.{variable}`` without ``time``.
    """
    scores = {}
    for name, statistics in means.items():
        area = statistics.sel(statistic=AREA, drop=True)
        for score, metric in METRICS.items():
            if set(metric.statistics) <= set(means.statistic.values):
                values = metric.of_means(*_over_time(statistics.sel(statistic=list(metric.statistics)), area))
                scores[f"{score}.{name}"] = values.assign_attrs(_score_attributes(metric, statistics))
    return xr.Dataset(scores)


def _over_time(statistics: xr.DataArray, area: xr.DataArray) -> list[xr.DataArray]:
    """Means over the initial times at which all of the statistics are there, so that a ratio of them compares like with like."""
    together = area.where(statistics.notnull().all("statistic")).fillna(0.0)
    means = statistics.weighted(together).mean("time")
    return [means.sel(statistic=name, drop=True) for name in means.statistic]


def _score_attributes(metric: Metric, field: xr.DataArray) -> dict[str, str]:
    return {"units": field.attrs["units"] if metric.in_units else "1", "long_name": f"{metric.long_name}, {field.attrs['long_name']}"}


def _missing_members(means: xr.Dataset, members: int) -> int:
    """How many members were missing, summed over initial times and leads; one that lacks a variable or level counts as missing.

    Raises:
        DataError: There was none at all.
    """
    counts = [field.sel(statistic=MEMBERS, system="forecast") for field in means.values()]
    fewest = np.min([count.min("level") if "level" in count.dims else count for count in counts], axis=0)
    if not fewest.any():
        raise DataError(
            "No member of the forecast is there",
            "At least one must be whole at one initial time and lead; a member that is not yet computed is NaN",
            "Let the forecast finish first",
        )
    return int((members - fewest).sum())
