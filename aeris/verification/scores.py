"""`verify`: holds a forecast archive against the truth and against its baselines."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification.baselines import FROM_START, System, climatological, systems_of
from aeris.verification.climatology import Climatology, climatology_of
from aeris.verification.kept import by_initial_time
from aeris.verification.metrics import FIELD_STATISTICS, METRICS, STATISTICS, Metric
from aeris.verification.pairing import LEAD, NO_CLIMATOLOGY, Case, Gaps, Pairing, Piece, pair, pieces, read_case
from aeris.verification.references import Others, meet
from aeris.verification.regions import Regions, cell_weights, region_weights
from aeris.verification.seasons import SEASONS

AREA, MEMBERS = "area", "members"
"""Names under which the mean statistics carry the part of the globe that was averaged over, and how many members there were."""


def verify(
    fc: xr.Dataset | str | Path,
    truth: xr.Dataset,
    climatology: xr.Dataset | Climatology | None = None,
    baselines: Iterable[str | Others] | str | Others = ("persistence",),
    *,
    metrics: Iterable[str] | None = None,
    regions: Regions | None = None,
    seasons: bool = False,
    gaps: Gaps = "refuse",
    keep: str | Path | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Scores an ensemble forecast and its baselines against the truth.

    Statistics are averaged over the globe or a region, by cell area, and over initial times; a score is made of the averages. Cells
    where the truth is missing (sea surface temperature over land) are left out with their area. A member that is missing at some
    initial time and lead is left out there; where the forecast has none, the baselines are not scored either. The archive is read
    piece by piece.

    Args:
        fc: Forecast archive ``(time, number, prediction_timedelta, [level,] latitude, longitude)``, or the path of one.
        truth: Canonical dataset with ``time``, holding every initial time plus lead. It may hold fewer variables and levels, which
            are then the ones scored.
        climatology: For the anomaly correlation and the baseline ``"climatology"``: a dataset by ``dayofyear`` (and ``hour``), one
            whose ``time`` are the valid times, or `aeris.verification.climatology.ensemble_climatology` of past states.
        baselines: ``"persistence"`` (the truth at the initial time, held), ``"climatology"``, ``"optimum"`` (the exact forecast of
            the simulated planet), and mappings of further names to references: forecast archives in WeatherBench 2's shape, open or by
            path or URL, which are averaged onto the forecast's grid. Initial times that one of them lacks are left out for all.
        metrics: Which of `aeris.verification.metrics.METRICS`; None takes all that need no more than one pass over the cells.
        regions: Over which to average besides each other: names of `aeris.verification.regions.REGIONS`, or regions by name.
        seasons: Whether to average over the initial times of each season too.
        gaps: Where the truth lacks a time, ``"refuse"``, or ``"skip"`` it and count it.
        keep: Folder in which the statistics of each initial time are kept as they are computed: called again, an interrupted
            verification goes on where it was, with the same bits.
        progress: Whether to show a progress bar.

    Returns:
        Dataset with variables ``{score}.{variable}`` (``acc`` only with a climatology) and dimensions ``system`` (``"forecast"``,
        then the baselines), ``prediction_timedelta``, ``level`` where the variable has one, ``region`` where regions were given and
        ``season`` (``"all"``, then those that occur). What an ensemble of one cannot have is NaN, and left out where no system has
        it. The attributes say how many initial times and members there were and what was left out: ``missing_members`` and
        ``missing_truth`` count members, and initial times and leads without truth; ``left_out`` tells of the rest in words, ``references``
        what the references are and lack. Each
        score has the attribute ``scored_area``, the mean part of the globe on which the truth was known and a member was there.

    Raises:
        DataError: Forecast, truth, climatology or a baseline do not fit together, or no member of the forecast is there.
        ConfigurationError: A baseline, metric or region is unknown, or lacks what it needs.
        StoreError: There is no archive at the path given, or `keep` holds something else.
    """
    means = mean_statistics(fc, truth, climatology, baselines, metrics=metrics, regions=regions, gaps=gaps, keep=keep, progress=progress)
    return scores_of(means, seasons=seasons)


def mean_statistics(
    fc: xr.Dataset | str | Path,
    truth: xr.Dataset,
    climatology: xr.Dataset | Climatology | None = None,
    baselines: Iterable[str | Others] | str | Others = ("persistence",),
    *,
    metrics: Iterable[str] | None = None,
    regions: Regions | None = None,
    gaps: Gaps = "refuse",
    keep: str | Path | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """What scores are made of: statistics averaged over the globe or regions, each initial time by itself.

    Arguments and errors are those of `verify`.

    Returns:
        Dataset of the compared variables, ``(statistic, system, time, prediction_timedelta, [level,] [region])``. Besides the
        statistics there are ``"area"``, the part of the globe that was averaged over, and ``"members"``, how many there were.
    """
    names = [baselines] if isinstance(baselines, str | Mapping) else list(baselines)
    pairing = pair(fc, truth, gaps, starts=any(name in FROM_START for name in names))
    pairing, opened = meet(pairing, names)
    normal = None if climatology is None else climatological(pairing, climatology_of(climatology))
    chosen = _chosen_metrics(metrics, normal)
    systems = systems_of(pairing, truth, normal, opened)
    shares = None if regions is None else region_weights(regions, truth)

    def means_at(alone: Pairing) -> xr.Dataset:
        return means_from(alone, systems, normal, alone.times[0], chosen, shares)

    made_of = {"metrics": list(chosen), "baselines": opened, "climatology": _stands_for(climatology, pairing), "regions": shares}
    means = by_initial_time(means_at, pairing, keep, {"what": "scores", **made_of}, progress=progress)
    rows, columns = Grid.of(pairing.forecast).shape
    about = {"members": pairing.forecast.sizes["number"], "left_out_starts": pairing.left_out_starts, "grid": f"{rows}×{columns}"}
    about |= {"references": ". ".join(pairing.notes)} if pairing.notes else {}
    return xr.concat(means, "time", combine_attrs="override").assign_attrs(about)


def _stands_for(climatology: xr.Dataset | Climatology | None, pairing: Pairing) -> dict[str, Any] | None:
    """What decides a climatology: its fields, and which of them stand for each valid time."""
    if climatology is None:
        return None
    climate = climatology_of(climatology)
    chosen = [positions.values.ravel() for time in pairing.times for positions in climate.select(time + pairing.leads).values()]
    return {"fields": climate.fields, "chosen": np.concatenate(chosen)}


def _chosen_metrics(names: Iterable[str] | None, normal: System | None) -> dict[str, Metric]:
    """The metrics of those names; without names, all that are possible and do not take long."""
    if names is None:
        return {
            name: metric
            for name, metric in METRICS.items()
            if not metric.on_request and (normal is not None or not metric.needs_climatology)
        }
    names = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        raise ConfigurationError(f"metrics={names}", f"A metric is one of {', '.join(METRICS)}", "Use for example metrics=['rmse', 'crps']")
    lacking = [name for name in names if METRICS[name].needs_climatology and normal is None]
    if lacking:
        raise ConfigurationError(
            f"The metric {lacking[0]!r} without a climatology",
            "An anomaly is taken from a climatology",
            "Give climatology=..., or leave it out",
        )
    return {name: METRICS[name] for name in names}


def write_scores(scores: xr.Dataset, path: str | Path) -> None:
    """Writes scores as Zarr 3, whole or not at all; what stood at `path` is replaced."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    # Text of fixed length has no place in the specification of Zarr 3; text of any length has.
    named = scores.assign_coords({name: one.astype(object) for name, one in scores.coords.items() if one.dtype.kind == "U"})
    named.to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


def means_from(
    pairing: Pairing,
    systems: Mapping[str, System],
    normal: System | None,
    time: np.datetime64,
    metrics: Mapping[str, Metric],
    shares: xr.DataArray | None = None,
) -> xr.Dataset:
    """The part of `mean_statistics` that belongs to one initial time.

    Args:
        pairing: What is compared.
        systems: The forecast, which comes first, and its baselines.
        normal: The climatology, for the statistics of anomalies.
        time: The initial time.
        metrics: The metrics whose statistics are needed.
        shares: Share of each cell that belongs to each region, ``(region, latitude, longitude)``; None is the globe.
    """
    names = list(dict.fromkeys(statistic for metric in metrics.values() for statistic in metric.statistics))
    regions = {} if shares is None else {"region": shares.region.values}
    weights = cell_weights(pairing.cell_area, shares, pairing.truth.sizes["longitude"])
    leading = {"statistic": [*names, AREA, MEMBERS], "system": list(systems), "time": [time], **regions}
    means = {name: pairing.room(name, leading, np.nan) for name in pairing.variables}
    for order, name, piece, case in _read_cases(pairing, systems, normal, time):
        values = _averages(case, names, weights)
        means[name][{"system": order, "time": 0} | piece] = values if regions else values[:, 0]
    return xr.Dataset(means)


def _averages(case: Case, statistics: Sequence[str], weights: np.ndarray) -> np.ndarray:
    """Averages of the statistics of a case, then the part of the globe, then the members: ``(statistic, region, lead, [level])``."""
    cellwise = [name for name in statistics if name in STATISTICS]
    total, summed = _sums(case, cellwise, weights)
    means = dict(zip(cellwise, summed / np.where(total > 0, total, np.nan), strict=True))
    means |= {name: FIELD_STATISTICS[name](case, weights) for name in statistics if name in FIELD_STATISTICS}
    count = np.broadcast_to(case.count.values, total.shape)
    return np.stack([*(means[name] for name in statistics), total / weights.shape[1], count])


def _sums(case: Case, statistics: Sequence[str], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and weighted sums of the statistics over the cells where the truth is known.

    Returns:
        ``(region, lead, [level])`` and ``(statistic, region, lead, [level])``.
    """
    shares = weights.reshape(len(weights), case.truth.sizes["latitude"], -1)
    total = np.zeros((len(weights), *case.count.shape))
    summed = np.zeros((len(statistics), *total.shape))
    for band, part in case.bands():
        known = part.known.values.reshape(*case.count.shape, -1)
        share = shares[:, band].reshape(len(weights), -1).T
        total += np.moveaxis(known.astype(float) @ share, -1, 0)
        for order, name in enumerate(statistics):
            field = STATISTICS[name](part).transpose(*case.truth.dims).values.reshape(known.shape)
            summed[order] += np.moveaxis(np.where(known, field, 0.0) @ share, -1, 0)
    return total, summed


def _read_cases(
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


def scores_of(means: xr.Dataset, seasons: bool = False) -> xr.Dataset:
    """The scores from mean statistics: these are averaged over initial times first.

    Args:
        means: As `mean_statistics` returns them, or a part of their initial times.
        seasons: Whether to average over the initial times of each season too.

    Returns:
        What `verify` returns.

    Raises:
        DataError: No member of the forecast is there.
    """
    means, absent_variables = _with_members(means)
    several = {str(most.system.item()): int(most) for most in _most_members(means)}
    possible = {name: metric for name, metric in METRICS.items() if set(metric.statistics) <= set(means.statistic.values)}
    absent = [name for name, metric in possible.items() if metric.needs_members and max(several.values()) < 2]
    parts = {"all": means}
    if seasons:
        by_season = dict(iter(means.groupby("time.season")))
        parts |= {season: by_season[season] for season in SEASONS if season in by_season}
    scores = [_scores_over_time(part, [name for name in possible if name not in absent]) for part in parts.values()]
    joined = (
        xr.concat(scores, xr.Variable("season", np.array(list(parts), dtype=object)), combine_attrs="override") if seasons else scores[0]
    )
    left_out = [f"{name}: no member of the forecast is whole at any initial time and lead" for name in absent_variables]
    if single := [name for name, most in several.items() if most == 1]:
        spreads = [name for name, metric in possible.items() if metric.needs_members]
        left_out.append(f"{', '.join(spreads)} of {', '.join(single)}: one member has no spread")
    left_out += [f"{name}: missing at {count} initial times and leads of the forecast" for name, count in _missing_baselines(means).items()]
    return joined.assign_attrs(
        initial_times=means.sizes["time"],
        members=means.attrs["members"],
        missing_members=_missing_members(means, means.attrs["members"]),
        missing_truth=_missing_truth(means),
        weights="cell area",
        period=" to ".join(dict.fromkeys(f"{time:%Y-%m-%d %H} UTC" for time in means.get_index("time")[[0, -1]])),
        grid=means.attrs["grid"],
        **({"left_out": "; ".join(left_out)} if left_out else {}),
        **{name: means.attrs[name] for name in ("references",) if name in means.attrs},
    )


def _scores_over_time(means: xr.Dataset, names: Iterable[str]) -> xr.Dataset:
    scores = {}
    for variable, statistics in means.items():
        area = statistics.sel(statistic=AREA, drop=True)
        for name in names:
            metric = METRICS[name]
            values = metric.of_means(*over_time(statistics.sel(statistic=list(metric.statistics)), area))
            scores[f"{name}.{variable}"] = values.assign_attrs(_score_attributes(metric, statistics), scored_area=_scored_area(area))
    return xr.Dataset(scores)


def over_time(statistics: xr.DataArray, area: xr.DataArray) -> list[xr.DataArray]:
    """Means over the initial times at which all of the statistics are there, so that a ratio of them compares like with like."""
    together = area.where(statistics.notnull().all("statistic")).fillna(0.0)
    means = statistics.weighted(together).mean("time")
    return [means.sel(statistic=name, drop=True) for name in means.statistic]


def _score_attributes(metric: Metric, field: xr.DataArray) -> dict[str, str]:
    return {"units": field.attrs["units"] if metric.in_units else "1", "long_name": f"{metric.long_name}, {field.attrs['long_name']}"}


def _most_members(means: xr.Dataset) -> xr.DataArray:
    """The most members that each system has anywhere."""
    counts = [field.sel(statistic=MEMBERS, drop=True) for field in means.values()]
    return xr.concat([count.max([dim for dim in count.dims if dim != "system"]) for count in counts], "variable").max("variable")


def _scored_area(area: xr.DataArray) -> float:
    """Mean part of the globe, or of the largest region, that was scored of the forecast where anything was."""
    of_forecast = area.isel(system=0)
    largest = of_forecast.max("region") if "region" in area.dims else of_forecast
    return round(float(largest.where(largest > 0).mean()), 6)


def _with_members(means: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
    """The variables of which the forecast has any member, and the names of the others.

    Raises:
        DataError: It has none of any.
    """
    there = [name for name, field in means.items() if (field.sel(statistic=MEMBERS).isel(system=0) > 0).any()]
    if not there:
        raise DataError(
            "No member of the forecast is there",
            "At least one must be whole at one initial time and lead; one that lacks a cell where the truth is known is missing",
            "Let the forecast finish first, or fill its gaps",
        )
    return means[there], [str(name) for name in means if name not in there]


def _missing_members(means: xr.Dataset, members: int) -> int:
    """How many members were missing, summed over initial times and leads; one that lacks a variable or level counts as missing."""
    counts = [field.sel(statistic=MEMBERS, system="forecast") for field in means.values()]
    fewest = np.min([count.min([dim for dim in count.dims if dim not in ("time", LEAD)]) for count in counts], axis=0)
    return int((members - fewest).sum())


def _cases(means: xr.Dataset, statistic: str) -> Iterator[xr.DataArray]:
    """A count or area of each variable, ``(system, time, prediction_timedelta)``: the largest of any level and region."""
    for field in means.values():
        values = field.sel(statistic=statistic, drop=True)
        yield values.max([dim for dim in values.dims if dim not in ("system", "time", LEAD)])


def _missing_truth(means: xr.Dataset) -> int:
    """At how many initial times and leads the forecast is there, and the truth of some variable is not."""
    both = zip(_cases(means, MEMBERS), _cases(means, AREA), strict=True)
    unknown = np.any([((members > 0) & ~(area > 0)).isel(system=0) for members, area in both], axis=0)
    return int(unknown.sum()) + means.attrs.get("left_out_starts", 0) * means.sizes[LEAD]


def _missing_baselines(means: xr.Dataset) -> dict[str, int]:
    """Of each baseline that has gaps, at how many initial times and leads it lacks a variable of which the forecast was scored."""
    lacking = [~(area > 0) & (area.isel(system=0) > 0) for area in _cases(means, AREA)]
    counts = np.any(lacking, axis=0).sum(axis=(1, 2))
    return {str(name): int(count) for name, count in zip(means.system.values, counts, strict=True) if count}
