"""Calibration: whether the truth looks like one more member of the ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from aeris.errors import DataError
from aeris.verification.kept import by_initial_time
from aeris.verification.metrics import METRICS, STATISTICS
from aeris.verification.pairing import CELLS, LEAD, Case, Gaps, Pairing, attributes_of, pair
from aeris.verification.regions import Regions, cell_weights, region_weights
from aeris.verification.seasons import sums_by_season


def spread_skill(
    members: xr.DataArray, truth: xr.DataArray, weights: xr.DataArray | None = None, dims: Sequence[str] = CELLS
) -> xr.DataArray:
    """Spread over error of an ensemble in memory, corrected for its size: 1 if truth and members are exchangeable.

    √((M + 1)/M · E[variance] / E[(x̄ − y)²]), the means being taken before the root (Fortin et al. 2014,
    https://doi.org/10.1175/JHM-D-14-0008.1).

    Args:
        members: ``(number, ..., latitude, longitude)``.
        truth: The same without ``number``.
        weights: Weights of the mean, for example cell areas; equal where there are none.
        dims: Dimensions of the mean E.

    Returns:
        The ratio, without `dims`.
    """
    case = Case.of(members.variable.astype("float64"), truth.variable.astype("float64"))
    weights = truth.notnull() * (1.0 if weights is None else weights)
    ratio = METRICS["spread_skill"]
    fields = [truth.copy(data=STATISTICS[name](case).transpose(*truth.dims)) for name in ratio.statistics]
    return ratio.of_means(*(field.weighted(weights).mean(dims) for field in fields))


LEFT_OUT = "left_out"
"""Under which sums of areas carry how many cases were left out."""


def rank_histogram(
    fc: xr.Dataset | str | Path,
    truth: xr.Dataset,
    *,
    regions: Regions | None = None,
    seasons: bool = False,
    gaps: Gaps = "refuse",
    keep: str | Path | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """How often the truth falls below all members, between two of them, or above all (Hamill 2001,
    Monthly Weather Review 129, 550-560).

    Every cell counts by its area. Where the truth equals members it is shared equally among the ranks that it could have. Only
    cases with all members count: with fewer the ranks are others. Those that are left out are counted.

    Args:
        fc: Forecast archive, or the path of one.
        truth: Canonical dataset, as for `aeris.verify`.
        regions: Over which to count, as for `aeris.verify`; None is the globe.
        seasons: Whether to count over the initial times of each season too.
        gaps: Where the truth lacks a time, ``"refuse"``, or ``"skip"`` it and count it.
        keep: Folder in which what each initial time gave is kept, as for `aeris.verify`.
        progress: Whether to show a progress bar.

    Returns:
        Dataset with the relative frequency of each rank by variable, ``([season,] [region,] prediction_timedelta, [level,] rank)``; the
        ranks are numbered from 0, the truth below all members, to M. Flat at 1 / (M + 1) for a perfect ensemble. NaN where no case counts.
        The attribute ``left_out_cases`` counts the initial times and leads at which a member or the truth of some variable was missing.

    Raises:
        DataError: Forecast and truth do not fit together, or the forecast has one member only.
    """
    pairing = pair(fc, truth, gaps)
    need_members(pairing)
    shares = None if regions is None else region_weights(regions, truth)
    made_of = {"what": "ranks", "regions": shares}
    areas = by_initial_time(partial(_areas_of_ranks, shares=shares), pairing, keep, made_of, progress=progress)
    return _frequencies(sums_by_season(areas, pairing.times, seasons), pairing)


def need_members(pairing: Pairing) -> None:
    """Raises a DataError where the forecast has one member only."""
    if pairing.forecast.sizes["number"] < 2:
        raise DataError("The forecast has one member", "Ranks need an ensemble", "Forecast with members=2 or more")


def ranks_of(pairing: Pairing) -> xr.Dataset:
    """Relative frequency of the ranks, as `rank_histogram` gives it, of what was paired already."""
    return _frequencies(_areas_of_ranks(pairing), pairing)


def _areas_of_ranks(pairing: Pairing, shares: xr.DataArray | None = None) -> xr.Dataset:
    """Area on which the truth has each rank, ``(rank, [region,] prediction_timedelta, [level])``, and cases left out, by lead."""
    weights = cell_weights(pairing.cell_area, shares, pairing.truth.sizes["longitude"])
    ranks = {"rank": np.arange(pairing.forecast.sizes["number"] + 1), "region": ["globe"] if shares is None else shares.region.values}
    areas = {name: pairing.room(name, ranks, 0.0) for name in pairing.variables}
    counted = xr.DataArray(True, {LEAD: pairing.leads}, [LEAD])
    for name, area in areas.items():
        for piece, case in pairing.cases(name):
            area[piece] += _area_of_ranks(case, weights)
        known = area.sum("rank").max("region") > 0
        counted &= known.all("level") if "level" in known.dims else known
    sums = xr.Dataset(areas).assign({LEFT_OUT: (~counted).astype(int)})
    return sums if shares is not None else sums.isel(region=0, drop=True)


def _frequencies(areas: xr.Dataset, pairing: Pairing) -> xr.Dataset:
    """Relative frequency of each rank, ``([season,] [region,] prediction_timedelta, [level,] rank)``."""
    found = areas.drop_vars(LEFT_OUT).map(lambda area: _frequency(area, pairing.forecast[area.name]))
    left_out = areas[LEFT_OUT].isel(season=0, missing_dims="ignore").sum()
    return found.assign_attrs(left_out_cases=int(left_out) + pairing.left_out_starts * pairing.leads.size)


def _frequency(area: xr.DataArray, field: xr.DataArray) -> xr.DataArray:
    """Relative frequency of each rank of one variable."""
    total = area.sum("rank")
    about = {"units": "1", "long_name": f"relative frequency of the rank of the truth, {attributes_of(field)['long_name']}"}
    return (area / total.where(total > 0)).transpose(..., "rank").drop_attrs().assign_attrs(about)


def _area_of_ranks(case: Case, weights: np.ndarray) -> xr.Variable:
    """Area on which the truth has each rank, ``(region, ..., rank)``, with weights of cells ``(region, cells)``.

    A truth that could have any rank from `low` to `high` adds a share to each: the share is added at `low`, taken away after
    `high`, and summed up.
    """
    total = case.members.sizes["number"]
    low, high = (case.members < case.truth).sum("number"), (case.members <= case.truth).sum("number")
    share = (case.known & (case.count == total)) / (high - low + 1)
    start, stop, part = (field.transpose(*case.truth.dims).values.reshape(*case.count.shape, -1) for field in (low, high + 1, share))
    steps = np.zeros((len(weights), *case.count.shape, total + 2))
    for region, *place in np.ndindex(*steps.shape[:-1]):
        here = tuple(place)
        area = weights[region] * part[here]
        steps[(region, *here)] = np.bincount(start[here], area, total + 2) - np.bincount(stop[here], area, total + 2)
    return xr.Variable(["region", *case.count.dims, "rank"], np.cumsum(steps, axis=-1)[..., :-1])
