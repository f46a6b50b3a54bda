"""Scores, and the statistics that they are made of.

A statistic is a field of one case: a squared error, a variance, a CRPS. A metric names its statistics and turns their *means*
over the globe and over initial times into a score. So a root is taken after the mean, never before, and statistics can be
averaged in any order, piece by piece. (The split is that of WeatherBench-X.)

Symbols: members x_m, m = 1..M; ensemble mean x̄; truth y; climatological mean c; E the mean over cells, by area, and initial times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scores.probability import crps_for_ensemble

from aeris.verification.pairing import Case


def error(case: Case) -> xr.Variable:
    """x̄ − y."""
    return case.mean - case.truth


def absolute_error(case: Case) -> xr.Variable:
    """``|x̄ − y|``."""
    return abs(case.mean - case.truth)


def squared_error(case: Case) -> xr.Variable:
    """(x̄ − y)²."""
    return (case.mean - case.truth) ** 2


def member_squared_error(case: Case) -> xr.Variable:
    """(x_m − y)², averaged over the members."""
    return ((case.members - case.truth) ** 2).mean("number")


def variance(case: Case) -> xr.Variable:
    """Unbiased variance of the members; NaN for one member."""
    return case.variance


def expected_squared_error(case: Case) -> xr.Variable:
    """(M + 1)/M times the variance.

    This is what (x̄ − y)² is on average if members and truth are drawn from one distribution: the mean of M members is off by
    itself by variance / M (Fortin et al. 2014, https://doi.org/10.1175/JHM-D-14-0008.1).
    """
    return (1.0 + 1.0 / case.count.where(case.count > 0)) * case.variance


def fair_crps(case: Case) -> xr.Variable:
    """Continuous ranked probability score, free of the bias of a small ensemble (Ferro 2014, https://doi.org/10.1002/qj.2270).

    ``E|x_m − y| − Σ_mn |x_m − x_n| / (2 M (M − 1))``; for one member the absolute error.
    """
    if not (case.count > 1).any():
        return absolute_error(case)
    members, truth = xr.DataArray(case.members), xr.DataArray(case.truth)
    crps = crps_for_ensemble(members, truth, "number", method="fair", preserve_dims=truth.dims).variable
    return crps if (case.count > 1).all() else crps.where(case.count > 1, absolute_error(case))


def debiased_squared_error(case: Case) -> xr.Variable:
    """(x̄ − y)² − variance/M: what the squared error would be on average with endless members, as WeatherBench 2 has it."""
    return squared_error(case) - case.variance / case.count.where(case.count > 0)


def anomaly_product(case: Case) -> xr.Variable:
    """(x̄ − c)(y − c)."""
    return (case.mean - case.climatology) * (case.truth - case.climatology)


def squared_forecast_anomaly(case: Case) -> xr.Variable:
    """(x̄ − c)²."""
    return (case.mean - case.climatology) ** 2


def squared_true_anomaly(case: Case) -> xr.Variable:
    """(y − c)²."""
    return (case.truth - case.climatology) ** 2


STATISTICS: dict[str, Callable[[Case], xr.Variable]] = {
    statistic.__name__: statistic
    for statistic in (
        error,
        absolute_error,
        squared_error,
        debiased_squared_error,
        member_squared_error,
        variance,
        expected_squared_error,
        fair_crps,
        anomaly_product,
        squared_forecast_anomaly,
        squared_true_anomaly,
    )
}
"""Statistics by name, which a score is made of."""


def energy_score(case: Case, shares: np.ndarray) -> np.ndarray:
    """Energy score of whole fields, free of the bias of a small ensemble (Gneiting & Raftery 2007,
    https://doi.org/10.1198/016214506000001437, section 4.3).

    E‖x_m − y‖ − Σ_mn ‖x_m − x_n‖ / (2 M (M − 1)), the norm being the root of the weighted mean square over the cells; for one
    member its distance from the truth.

    Args:
        case: The case.
        shares: Weights of the cells, ``(region, cells)``.

    Returns:
        ``(region, prediction_timedelta, [level])``; NaN where no member is there, or the truth is known nowhere in a region.
    """
    shape = case.count.shape
    errors = (case.members - case.truth.astype("float64")).transpose("number", *case.truth.dims).values
    errors = errors.reshape(len(errors), *shape, -1)
    known = case.known.transpose(*case.truth.dims).values.reshape(*shape, -1)
    score = np.full((len(shares), *shape), np.nan)
    for place in np.ndindex(*shape):
        there = np.where(known[place], errors[(slice(None), *place)], 0.0)
        there = there[~np.isnan(there).any(axis=1)]
        for region, share in enumerate(shares * known[place]):
            if len(there) and share.sum() > 0:
                score[(region, *place)] = _energy_of(there, share / share.sum())
    return score


def _energy_of(errors: np.ndarray, weights: np.ndarray) -> float:
    """Energy score of the errors of members ``(number, cells)``. Distances come from one product of matrices."""
    products = (errors * weights) @ errors.T
    squares, count = np.diag(products), len(errors)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0.0))
    return float(np.sqrt(squares).mean() - (apart.sum() / (2 * count * (count - 1)) if count > 1 else 0.0))


FIELD_STATISTICS: dict[str, Callable[[Case, np.ndarray], np.ndarray]] = {"energy_score": energy_score}
"""Statistics of whole fields, which are no means over cells."""


@dataclass(frozen=True)
class Metric:
    """A score, as a function of mean statistics.

    Attributes:
        long_name: What it is called in a plot.
        statistics: Names of the statistics whose means it takes, in order.
        of_means: The score from those means.
        in_units: Whether it has the unit of the variable; else it has none.
        needs_climatology: Whether its statistics need a climatology.
        needs_members: Whether it says nothing of a single member.
        on_request: Whether it is left out unless it is named, because it takes long.
        loss: What is the smaller the better the forecast, and never negative, by which systems are compared; None where the score has none.
    """

    long_name: str
    statistics: tuple[str, ...]
    of_means: Callable[..., xr.DataArray]
    in_units: bool = True
    needs_climatology: bool = False
    needs_members: bool = False
    on_request: bool = False
    loss: Callable[[xr.DataArray], xr.DataArray] | None = None


def _itself(mean: xr.DataArray) -> xr.DataArray:
    return mean


METRICS: dict[str, Metric] = {
    "rmse": Metric("root mean square error of the ensemble mean", ("squared_error",), np.sqrt, loss=_itself),
    "rmse_debiased": Metric(
        "root mean square error of the ensemble mean, freed of what a small ensemble adds",
        ("debiased_squared_error",),
        lambda squared: np.sqrt(squared.clip(min=0.0)),
        needs_members=True,
        loss=_itself,
    ),
    "rmse_member": Metric("root mean square error of a member", ("member_squared_error",), np.sqrt, loss=_itself),
    "mae": Metric("mean absolute error of the ensemble mean", ("absolute_error",), _itself, loss=_itself),
    "bias": Metric("bias of the ensemble mean", ("error",), _itself),
    "acc": Metric(
        "anomaly correlation of the ensemble mean",
        ("anomaly_product", "squared_forecast_anomaly", "squared_true_anomaly"),
        lambda product, forecast, true: product / np.sqrt(forecast * true),
        in_units=False,
        needs_climatology=True,
        loss=lambda correlation: 1.0 - correlation,
    ),
    "crps": Metric("fair continuous ranked probability score", ("fair_crps",), _itself, loss=_itself),
    "energy_score": Metric("energy score of the whole field", ("energy_score",), _itself, on_request=True, loss=_itself),
    "spread": Metric("ensemble spread", ("variance",), np.sqrt, needs_members=True),
    "spread_skill": Metric(
        "spread over error, corrected for the ensemble size",
        ("expected_squared_error", "squared_error"),
        lambda expected, squared: np.sqrt(expected / squared),
        in_units=False,
        needs_members=True,
        loss=lambda ratio: ratio.where(ratio >= 1.0, 1.0 / ratio),
    ),
}
"""Scores by name. All have the unit of the variable but for ``acc`` and ``spread_skill``, which have none. With the unbiased variance s² of
the members they are

- ``rmse``: √E (x̄ − y)²
- ``rmse_debiased``: √E [(x̄ − y)² − s² / M] (Rasp et al. 2024, https://doi.org/10.1029/2023MS004019)
- ``rmse_member``: √E mean_m (x_m − y)²
- ``mae``: ``E |x̄ − y|``
- ``bias``: E (x̄ − y)
- ``acc``: E (x̄ − c)(y − c) / √(E (x̄ − c)² · E (y − c)²), not centred (Wilks 2011, Statistical Methods in the Atmospheric Sciences)
- ``crps``: ``E [mean_m |x_m − y| − Σ_mn |x_m − x_n| / (2 M (M − 1))]`` (Ferro 2014, https://doi.org/10.1002/qj.2270)
- ``energy_score``: the same of whole fields, the norm for the modulus (Gneiting & Raftery 2007, https://doi.org/10.1198/016214506000001437)
- ``spread``: √E s²
- ``spread_skill``: √((M + 1) / M · E s² / E (x̄ − y)²) (Fortin et al. 2014, https://doi.org/10.1175/JHM-D-14-0008.1)
"""
