"""Scores of the tails: the CRPS beyond a threshold, and the loss of a quantile.

Symbols: members x_m, m = 1..M; truth y; E the mean over cells, by area, and initial times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from aeris.errors import ConfigurationError, DataError
from aeris.verification.events import Thresholds, check_thresholds, limits_of
from aeris.verification.kept import by_initial_time
from aeris.verification.metrics import fair_crps
from aeris.verification.pairing import LEAD, Case, Gaps, Pairing, pair
from aeris.verification.regions import Regions, cell_weights, region_weights
from aeris.verification.seasons import sums_by_season

Score = Callable[[Case, xr.Variable], xr.Variable]
"""A field of scores from a case and a threshold or level."""

MISSING = "missing members"


def tail_crps(
    fc: xr.Dataset | str | Path,
    truth: xr.Dataset,
    thresholds: Thresholds,
    *,
    above: bool = True,
    regions: Regions | None = None,
    seasons: bool = False,
    gaps: Gaps = "refuse",
    keep: str | Path | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Threshold-weighted CRPS: the fair CRPS of max(x, threshold), which sees what lies above it alone (Allen et al. 2023,
    https://doi.org/10.1137/22M1532184).

    Args:
        fc: Forecast archive, or the path of one.
        truth: Canonical dataset, as for `aeris.verify`.
        thresholds: Of each variable to look at, in its unit.
        above: Whether the upper tail is meant; else min(x, threshold).
        regions: Over which to average besides each other, as for `aeris.verify`; None is the globe.
        seasons: Whether to average over the initial times of each season too.
        gaps: Where the truth lacks a time, ``"refuse"``, or ``"skip"`` it.
        keep: Folder in which what each initial time gave is kept, as for `aeris.verify`.
        progress: Whether to show a progress bar.

    Returns:
        Dataset of those variables, in their unit, ``([season,] threshold, [region,] prediction_timedelta, [level])``. The attribute
        ``missing_members`` counts the members that were left out, summed over initial times and leads, and ``missing_truth`` the
        initial times and leads without truth of some variable; ``scored_area`` of each variable is the part of the globe, or of the
        largest region, that was scored on average.

    Raises:
        DataError: Forecast and truth do not fit together.
        ConfigurationError: A threshold is of a variable that is not compared, or is no number.
    """
    pairing = pair(fc, truth, gaps)
    check_thresholds(thresholds, pairing)
    keep_side = np.fmax if above else np.fmin

    def cut(field: xr.Variable, limit: xr.Variable) -> xr.Variable:
        kept: xr.Variable = xr.apply_ufunc(keep_side, field, limit)
        return kept.transpose(*field.dims).where(field.notnull())

    def score(case: Case, limit: xr.Variable) -> xr.Variable:
        return fair_crps(Case.of(cut(case.members, limit), cut(case.truth, limit)))

    limits = {name: limits_of(values, pairing.forecast[name]) for name, values in thresholds.items()}
    shares = None if regions is None else region_weights(regions, truth)
    made_of = {"what": "tail CRPS", "thresholds": thresholds, "above": above, "regions": shares}
    parts = by_initial_time(partial(_sums, limits=limits, score=score, shares=shares), pairing, keep, made_of, progress=progress)
    return _means(sums_by_season(parts, pairing.times, seasons), pairing)


def quantile_score(
    fc: xr.Dataset | str | Path,
    truth: xr.Dataset,
    quantiles: Sequence[float],
    *,
    regions: Regions | None = None,
    seasons: bool = False,
    gaps: Gaps = "refuse",
    keep: str | Path | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Pinball loss of the ensemble's quantiles x_q: E (1[y < x_q] − q) (x_q − y) (Koenker & Bassett 1978).

    Quantiles are interpolated between the members that are there, as numpy does by default.

    Args:
        fc: Forecast archive, or the path of one.
        truth: Canonical dataset, as for `aeris.verify`.
        quantiles: Levels q, between 0 and 1.
        regions: As for `tail_crps`, as are those that follow.
        seasons: Whether to average over the initial times of each season too.
        gaps: Where the truth lacks a time, ``"refuse"``, or ``"skip"`` it.
        keep: Folder in which what each initial time gave is kept.
        progress: Whether to show a progress bar.

    Returns:
        Dataset of the variables, in their unit, ``([season,] quantile, [region,] prediction_timedelta, [level])``; attributes as
        `tail_crps`.

    Raises:
        DataError: Forecast and truth do not fit together.
        ConfigurationError: A level is not between 0 and 1.
    """
    levels = np.atleast_1d(np.asarray(quantiles, float))
    if not len(levels) or not ((levels > 0) & (levels < 1)).all():
        raise ConfigurationError(f"quantiles={quantiles}", "A quantile's level lies between 0 and 1", "Use for example [0.1, 0.9]")
    pairing = pair(fc, truth, gaps)
    limits = dict.fromkeys(pairing.variables, xr.DataArray(levels, {"quantile": levels}, "quantile"))
    shares = None if regions is None else region_weights(regions, truth)
    made_of = {"what": "quantile score", "quantiles": levels.tolist(), "regions": shares}
    parts = by_initial_time(partial(_sums, limits=limits, score=_pinball, shares=shares), pairing, keep, made_of, progress=progress)
    return _means(sums_by_season(parts, pairing.times, seasons), pairing)


def _pinball(case: Case, level: xr.Variable) -> xr.Variable:
    drawn = xr.Variable(case.truth.dims, _quantile(case.members.transpose("number", *case.truth.dims).values, float(level)))
    return ((case.truth < drawn) - level) * (drawn - case.truth.astype("float64"))


def _quantile(members: np.ndarray, level: float) -> np.ndarray:
    """The quantile along the first axis of the members that are there; NaN without any."""
    there = ~np.isnan(members).all(axis=tuple(range(1, members.ndim)))
    whole = members[there].astype("float64")
    if not len(whole):
        return np.full(members.shape[1:], np.nan)
    if not np.isnan(whole).any():
        return np.quantile(whole, level, axis=0)
    return np.nanquantile(whole, level, axis=0)


def _sums(pairing: Pairing, limits: Mapping[str, xr.DataArray], score: Score, shares: xr.DataArray | None) -> xr.Dataset:
    """By variable the sums of scores and of their weights, from one initial time, and the least members at each lead."""
    weights = cell_weights(pairing.cell_area, shares, pairing.truth.sizes["longitude"])
    regions = ["globe"] if shares is None else shares.region.values
    fewest = xr.DataArray(pairing.forecast.sizes["number"], {LEAD: pairing.leads}, [LEAD]).copy()
    unknown = xr.zeros_like(fewest)
    sums: dict[str, xr.DataArray] = {}
    for name, several in limits.items():
        (dim,) = {"threshold", "quantile"} & set(several.dims)
        area = pairing.room(name, {"region": regions}, 0.0)
        total = area.expand_dims({dim: several[dim].values}).copy()
        for piece, case in pairing.cases(name):
            area[piece] += _weighted(case.known, weights, case)
            for number in range(several.sizes[dim]):
                limit = several.isel({key: part for key, part in piece.items() if key in several.dims}).isel({dim: number}, drop=True)
                total[{dim: number} | piece] += _weighted(score(case, limit.variable).where(case.known, 0.0), weights, case)
            counts = case.count.min("level") if "level" in case.count.dims else case.count
            fewest[{LEAD: piece[LEAD]}] = np.minimum(fewest[{LEAD: piece[LEAD]}], counts)
        nowhere = ~(area > 0).any("region")
        unknown |= (nowhere.any("level") if "level" in nowhere.dims else nowhere) & (fewest > 0)
        sums |= {f"total {name}": total, f"area {name}": area}
    found = xr.Dataset(sums).assign({MISSING: pairing.forecast.sizes["number"] - fewest, "unknown": unknown})
    return found if shares is not None else found.isel(region=0, drop=True)


def _weighted(field: xr.Variable, weights: np.ndarray, case: Case) -> np.ndarray:
    """Sums over the cells, ``(region, prediction_timedelta, [level])``."""
    return np.moveaxis(field.transpose(*case.truth.dims).values.reshape(*case.count.shape, -1) @ weights.T, -1, 0)


def _means(sums: xr.Dataset, pairing: Pairing) -> xr.Dataset:
    """Means of scores from sums over initial times."""
    cells = pairing.truth.sizes["latitude"] * pairing.truth.sizes["longitude"]
    found = {}
    for name in (str(key).removeprefix("total ") for key in sums if str(key).startswith("total ")):
        total, area = sums[f"total {name}"], sums[f"area {name}"]
        if not float(area.sum()) > 0:
            raise DataError(
                f"No case of {name} can be scored", "Truth and at least one member must be there", "Let the forecast finish first"
            )
        largest = area.isel(season=0, missing_dims="ignore") / cells / len(pairing.times)
        largest = largest.max("region") if "region" in largest.dims else largest
        field = (total / area.where(area > 0)).transpose(*total.dims)
        found[name] = field.assign_attrs(total.attrs, scored_area=round(float(largest.mean()), 6))
    counts = sums[[MISSING, "unknown"]].isel(season=0, missing_dims="ignore").sum()
    missing_truth = int(counts["unknown"]) + pairing.left_out_starts * len(pairing.leads)
    return xr.Dataset(found, attrs={"missing_members": int(counts[MISSING]), "missing_truth": missing_truth})
