"""All that a verification report shows, from one call that can be interrupted: scores, ranks, spectra and events.

Scores are of everything. Rank histograms and spectra are of a few channels and leads: of all of a large archive spectra would take
days, and nobody could look at them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from aeris.errors import ConfigurationError, DataError
from aeris.verification.baselines import Others
from aeris.verification.calibration import rank_histogram
from aeris.verification.climatology import Climatology
from aeris.verification.events import Thresholds, event_table
from aeris.verification.metrics import METRICS
from aeris.verification.pairing import LEAD, Gaps, Pairing, pair
from aeris.verification.regions import Regions
from aeris.verification.scorecard import scorecard
from aeris.verification.scores import mean_statistics, scores_of
from aeris.verification.significance import overlap
from aeris.verification.spectra import mean_power

Channel = tuple[str, int | None]

FAVOURITES: tuple[Channel, ...] = (
    ("geopotential", 500),
    ("2m_temperature", None),
    ("temperature", 850),
    ("mean_sea_level_pressure", None),
)
"""Channels that are shown where they are there."""

SHOWN_LEADS, TRANSFORMED = 5, 8
"""Leads of which ranks and spectra are shown, and members of which spectra are taken."""

COMPARED, COMPARED_LEADS = ("crps", "rmse", "acc"), 8
"""Scores by which systems are compared, where they are there, and at how many leads."""


@dataclass(frozen=True)
class Evaluation:
    """What a forecast was found to be like.

    Attributes:
        scores: From `aeris.verify`.
        ranks: From `aeris.verification.calibration.rank_histogram`, of a few channels and leads; None for a single member.
        spectra: From `aeris.verification.spectra.mean_power`, of a few channels, leads and members; None where they cannot be taken.
        events: From `aeris.verification.events.event_table`; None without thresholds.
        comparisons: From `aeris.verification.scorecard.scorecard`, of the forecast against each of its baselines on a few channels and
            leads; None without baselines or with too few initial times.
        left_out: What is None, and why.
    """

    scores: xr.Dataset
    ranks: xr.Dataset | None = None
    spectra: xr.Dataset | None = None
    events: xr.Dataset | None = None
    comparisons: pd.DataFrame | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)


def evaluate(
    fc: xr.Dataset | str | Path,
    truth: xr.Dataset,
    climatology: xr.Dataset | Climatology | None = None,
    baselines: Iterable[str | Others] | str | Others = ("persistence",),
    *,
    metrics: Iterable[str] | None = None,
    regions: Regions | None = None,
    seasons: bool = False,
    thresholds: Thresholds | None = None,
    gaps: Gaps = "refuse",
    keep: str | Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Scores a forecast as `aeris.verify` does, compares it with its baselines, and takes ranks, spectra and tables of events.

    Args:
        fc: As for `aeris.verify`, as are those that are not named here.
        truth: Canonical dataset.
        climatology: For anomalies.
        baselines: Beside which the forecast is scored; ranks, spectra and events are of the forecast alone.
        metrics: Scores; None takes all that do not take long.
        regions: Over which to average the scores.
        seasons: Whether to average over seasons too.
        thresholds: Of events, as for `aeris.verification.events.event_table`; None for no events.
        gaps: Where the truth lacks a time, ``"refuse"`` or ``"skip"``.
        keep: Folder in which everything is kept by initial time, each kind in a folder of its own.
        progress: Whether to show progress bars.

    Returns:
        Scores and what else could be found out.

    Raises:
        DataError: As `aeris.verify`.
        ConfigurationError: As `aeris.verify`, or a threshold is of no variable that is compared.
        StoreError: As `aeris.verify`.
    """
    pairing = pair(fc, truth, gaps)
    _check_variables(thresholds or {}, pairing)
    shown = _shown(pairing)

    def kept(what: str) -> Path | None:
        return None if keep is None else Path(keep) / what

    how = {"metrics": metrics, "regions": regions, "gaps": gaps}
    means = mean_statistics(fc, truth, climatology, baselines, **how, keep=kept("scores"), progress=progress)  # type: ignore[arg-type]
    scores = scores_of(means, seasons=seasons)
    comparisons, left_out = _comparisons(means, shown)
    some = Pairing(shown.forecast.isel(number=slice(TRANSFORMED)), shown.truth)
    tasks: dict[str, Callable[[], xr.Dataset]] = {
        "ranks": lambda: rank_histogram(shown.forecast, shown.truth, keep=kept("ranks"), progress=progress),
        "spectra": lambda: mean_power(some.forecast, some.truth, keep=kept("spectra"), progress=progress),
    }
    if thresholds:
        tasks["events"] = lambda: event_table(
            pairing.forecast, pairing.truth, thresholds, regions=None, keep=kept("events"), progress=progress
        )
    found: dict[str, xr.Dataset] = {}
    for what, task in tasks.items():
        try:
            found[what] = task()
        except DataError as refusal:
            left_out[what] = f"{refusal.found}. {refusal.rule}"
    return Evaluation(scores, **found, comparisons=comparisons, left_out=left_out)


def _comparisons(means: xr.Dataset, shown: Pairing) -> tuple[pd.DataFrame | None, dict[str, str]]:
    """Scorecards of the forecast against each of its baselines, and which of them cannot be."""
    own, *others = map(str, means.system.values)
    scores = [name for name in COMPARED if set(METRICS[name].statistics) <= set(means.statistic.values)]
    if not others or not scores:
        return None, {}
    some = means[list(shown.variables)].isel({LEAD: spread_out(means.sizes[LEAD], COMPARED_LEADS)})
    some = some.sel(level=shown.forecast.level) if "level" in some.dims else some
    some = some.sel(region=main_region(some), drop=True) if "region" in some.dims else some
    possible = 2 * overlap(some) <= some.sizes["time"] if some.sizes["time"] > 1 else np.full(some.sizes[LEAD], False)
    left_out = {}
    if possible.any() and not possible.all():
        hours = some[LEAD].values[~possible].min() / np.timedelta64(1, "h")
        left_out[f"comparison from {hours:g} h on"] = "Initial times that share no weather are fewer than two blocks"
        some = some.isel({LEAD: np.flatnonzero(possible)})
    try:
        return pd.concat([scorecard(some, other, system=own, scores=scores) for other in others], ignore_index=True), left_out
    except DataError as refusal:
        return None, {"comparison": f"{refusal.found}. {refusal.rule}"}


def main_region(ds: xr.Dataset) -> str:
    """The region that stands for all: the globe where it is there, else the first."""
    return "global" if "global" in ds.region.values else str(ds.region.values[0])


def _check_variables(thresholds: Thresholds, pairing: Pairing) -> None:
    absent = [name for name in thresholds if name not in pairing.variables]
    if absent:
        raise ConfigurationError(
            f"A threshold of {absent[0]}", f"The variables that are compared are {', '.join(pairing.variables)}", "Leave it out"
        )


def _shown(pairing: Pairing) -> Pairing:
    """The channels and leads of which ranks and spectra are shown."""
    levels = pairing.forecast.level.values.tolist() if "level" in pairing.forecast.dims else []
    channels = favourites(
        [(name, level) for name in pairing.variables for level in (levels if "level" in pairing.forecast[name].dims else [None])]
    )
    names = list(dict.fromkeys(name for name, _ in channels))
    chosen = {"level": [level for level in levels if level in {level for _, level in channels}]} if levels else {}
    forecast, truth = pairing.forecast[names], pairing.truth[names]
    chosen = chosen if "level" in forecast.dims else {}
    return Pairing(forecast.sel(chosen).isel({LEAD: spread_out(forecast.sizes[LEAD], SHOWN_LEADS)}), truth.sel(chosen))


def favourites(channels: Iterable[Channel], most: int = len(FAVOURITES)) -> list[Channel]:
    """The channels to show first, at most so many of them."""
    held = list(channels)
    return ([channel for channel in FAVOURITES if channel in held] + [channel for channel in held if channel not in FAVOURITES])[:most]


def spread_out(count: int, most: int) -> list[int]:
    """At most so many positions among `count`, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()
