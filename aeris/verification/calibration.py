"""Calibration: whether the truth looks like one more member of the ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import xarray as xr

from aeris.errors import DataError
from aeris.verification.kept import by_initial_time
from aeris.verification.metrics import METRICS, STATISTICS
from aeris.verification.pairing import CELLS, Case, Pairing, attributes_of, pair


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


def rank_histogram(fc: xr.Dataset | str | Path, truth: xr.Dataset, *, keep: str | Path | None = None, progress: bool = False) -> xr.Dataset:
    """How often the truth falls below all members, between two of them, or above all (Hamill 2001,
    Monthly Weather Review 129, 550-560).

    Every cell counts by its area. Where the truth equals members it is shared equally among the ranks that it could have. Only
    cases with all members count: with fewer the ranks are others.

    Args:
        fc: Forecast archive, or the path of one.
        truth: Canonical dataset, as for `aeris.verify`.
        keep: Folder in which what each initial time gave is kept, as for `aeris.verify`.
        progress: Whether to show a progress bar.

    Returns:
        Dataset with the relative frequency of each rank by variable, ``(prediction_timedelta, [level,] rank)``; the ranks are
        numbered from 0, the truth below all members, to M. Flat at 1 / (M + 1) for a perfect ensemble. NaN where no case counts.

    Raises:
        DataError: Forecast and truth do not fit together, or the forecast has one member only.
    """
    pairing = pair(fc, truth)
    need_members(pairing)
    areas = by_initial_time(_areas_of_ranks, pairing, keep, {"what": "ranks"}, progress=progress)
    return _frequencies(reduce(add, areas), pairing)


def need_members(pairing: Pairing) -> None:
    """Raises a DataError where the forecast has one member only."""
    if pairing.forecast.sizes["number"] < 2:
        raise DataError("The forecast has one member", "Ranks need an ensemble", "Forecast with members=2 or more")


def ranks_of(pairing: Pairing) -> xr.Dataset:
    """Relative frequency of the ranks, as `rank_histogram` gives it, of what was paired already."""
    return _frequencies(_areas_of_ranks(pairing), pairing)


def _areas_of_ranks(pairing: Pairing) -> xr.Dataset:
    """Area on which the truth has each rank, ``(rank, prediction_timedelta, [level])``."""
    ranks = {"rank": np.arange(pairing.forecast.sizes["number"] + 1)}
    areas = {name: pairing.room(name, ranks, 0.0) for name in pairing.variables}
    for name, area in areas.items():
        for piece, case in pairing.cases(name):
            area[piece] += _area_of_ranks(case, pairing.cell_area)
    return xr.Dataset(areas)


def _frequencies(areas: xr.Dataset, pairing: Pairing) -> xr.Dataset:
    """Relative frequency of each rank, ``(prediction_timedelta, [level,] rank)``."""
    return areas.map(lambda area: _frequency(area, pairing.forecast[area.name]))


def _frequency(area: xr.DataArray, field: xr.DataArray) -> xr.DataArray:
    """Relative frequency of each rank, ``(prediction_timedelta, [level,] rank)``."""
    total = area.sum("rank")
    about = {"units": "1", "long_name": f"relative frequency of the rank of the truth, {attributes_of(field)['long_name']}"}
    return (area / total.where(total > 0)).transpose(..., "rank").drop_attrs().assign_attrs(about)


def _area_of_ranks(case: Case, cell_area: xr.Variable) -> xr.Variable:
    """Area on which the truth has each rank, ``(..., rank)``.

    A truth that could have any rank from `low` to `high` adds a share to each: the share is added at `low`, taken away after
    `high`, and summed up.
    """
    total = case.members.sizes["number"]
    low, high = (case.members < case.truth).sum("number"), (case.members <= case.truth).sum("number")
    share = cell_area * (case.known & (case.count == total)) / (high - low + 1)
    start, stop, area = (part.transpose(*case.truth.dims).values.reshape(*case.count.shape, -1) for part in (low, high + 1, share))
    steps = np.zeros((*case.count.shape, total + 2))
    for place in np.ndindex(*case.count.shape):
        steps[place] = np.bincount(start[place], area[place], total + 2) - np.bincount(stop[place], area[place], total + 2)
    return xr.Variable([*case.count.dims, "rank"], np.cumsum(steps, axis=-1)[..., :-1])
