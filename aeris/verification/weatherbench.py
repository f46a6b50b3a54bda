"""Scores in the layout of WeatherBench 2's result files, to be laid beside those that it publishes."""

from __future__ import annotations

import numpy as np
import xarray as xr

from aeris.errors import DataError
from aeris.verification.pairing import LEAD

ENSEMBLE = {
    "crps": ("crps", 1),
    "rmse": ("ensemble_mean_mse", 2),
    "rmse_debiased": ("debiased_ensemble_mean_mse", 2),
    "spread": ("ensemble_variance", 2),
    "energy_score": ("energy_score", 1),
}
"""WeatherBench 2's name of a score of an ensemble, and the power of it that is meant."""

SINGLE = {"rmse": ("mse", 2), "mae": ("mae", 1), "bias": ("bias", 1), "acc": ("acc", 1)}
"""The same for a single forecast."""


def to_weatherbench2(scores: xr.Dataset, system: str = "forecast") -> xr.Dataset:
    """One system's scores as WeatherBench 2's `evaluate` script writes them.

    Its errors and spreads are mean squares, not their roots. A system with a spread gets the names of the probabilistic evaluation, one
    without those of the deterministic.

    Args:
        scores: From `aeris.verify`, of all seasons together.
        system: Which of its systems.

    Returns:
        Dataset with one variable for each of the forecast, ``(metric, region, lead_time, [level])``; the region is ``global`` where none
        was asked for. ``to_netcdf`` writes it.

    Raises:
        DataError: There is no such system, or none of its scores has a place in that layout.
    """
    if system not in scores.system:
        held = ", ".join(map(str, scores.system.values))
        raise DataError(f"There is no system {system!r}", f"The scores are of {held}", "Name one of them")
    own = scores.sel(system=system, drop=True)
    own = own.sel(season="all", drop=True) if "season" in own.dims else own
    spreads = [field for name, field in own.items() if str(name).startswith("spread.")]
    names = ENSEMBLE if any(field.notnull().any() for field in spreads) else SINGLE
    found: dict[str, dict[str, xr.DataArray]] = {}
    for name, field in own.items():
        score, _, variable = str(name).partition(".")
        if score in names:
            metric, exponent = names[score]
            found.setdefault(variable, {})[metric] = field**exponent
    if not found:
        raise DataError(
            f"The scores are {', '.join(map(str, scores.data_vars))}",
            f"One of {', '.join(names)} has a place there",
            "Verify with more metrics",
        )
    return xr.Dataset({variable: _joined(metrics) for variable, metrics in found.items()})


def _joined(metrics: dict[str, xr.DataArray]) -> xr.DataArray:
    """One variable with its metrics along a dimension of their own; theirs have units of their own, so it has none."""
    together = xr.concat(list(metrics.values()), xr.Variable("metric", np.array(list(metrics), dtype=object)), combine_attrs="drop")
    together = together if "region" in together.dims else together.expand_dims(region=np.array(["global"], dtype=object))
    return together.rename({LEAD: "lead_time"}).transpose("metric", "region", "lead_time", "level", missing_dims="ignore")
