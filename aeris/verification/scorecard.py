"""Scorecards: where one system is better than another, by how much, and where that may be luck.

Whatever the score, below zero is better than the reference. Compared are losses, of which less is better: an error or CRPS itself, 1 − ACC
of the anomaly correlation, max(r, 1/r) of the ratio r of spread and error, the factor by which they differ.

Of many cells some are marked by chance: at 95 % confidence about one in twenty even where the systems are equally good, and more where the
initial times are few; see `aeris.verification.significance`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import xarray as xr

from aeris.errors import ConfigurationError, DataError
from aeris.verification.metrics import METRICS
from aeris.verification.pairing import LEAD
from aeris.verification.significance import compare

PARTS = ("difference", "relative", "low", "high", "p_value", "dates")


def scorecard(
    means: xr.Dataset,
    reference: str = "persistence",
    *,
    system: str = "forecast",
    scores: Iterable[str] = ("rmse", "crps"),
    confidence: float = 0.95,
    draws: int = 1000,
    block: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Compares two systems score by score, variable by variable, level by level and lead by lead.

    Args:
        means: From `aeris.verification.scores.mean_statistics`, which keeps each initial time by itself.
        reference: The system that is held against.
        system: The system that is judged.
        scores: Of `aeris.verification.metrics.METRICS`, those that have a loss.
        confidence: Probability that the intervals shall have.
        draws: Samples of the bootstrap.
        block: Initial times of a block; see `aeris.verification.significance.compare`.
        seed: Of the draws.

    Returns:
        One row for each comparison: ``system, reference, score, variable, level`` (hPa, missing at the surface), ``channel`` (both in one
        name), ``region`` where the statistics have regions, ``lead``; the ``difference`` of the scores in ``units``; ``relative``, the
        relative difference of their losses, with its interval ``low`` to ``high`` and ``confidence``; ``p_value``; ``dates``, the initial
        times that both systems have; and ``verdict``: ``"better"`` or ``"worse"`` where the interval lies on one side of zero, else
        ``"undecided"``, and ``"no data"`` where one of the systems has none. Cards can be put together with ``pandas.concat``.

    Raises:
        ConfigurationError: A score is unknown or has no loss, or numbers make no sense.
        DataError: There is no such system, it is the reference itself, or there are too few initial times.
    """
    scores = [scores] if isinstance(scores, str) else list(scores)
    _check(scores, system, reference)
    rows = []
    for score in scores:
        found = compare(means, score, system=system, reference=reference, confidence=confidence, draws=draws, block=block, seed=seed)
        rows += [_rows(found, str(variable)).assign(score=score) for variable in means.data_vars]
    card = pd.concat(rows, ignore_index=True).assign(system=system, reference=reference, confidence=confidence)
    card["verdict"] = np.select([card.relative.isna(), card.high < 0, card.low > 0], ["no data", "better", "worse"], "undecided")
    leading = ["system", "reference", "score", "variable", "level", "channel", *(["region"] if "region" in card else []), "lead"]
    return card[[*leading, "difference", "units", "relative", "low", "high", "confidence", "p_value", "dates", "verdict"]]


def as_text(card: pd.DataFrame) -> pd.DataFrame:
    """A scorecard to be read: a row for each channel, a column for each lead in hours.

    Args:
        card: From `scorecard`.

    Returns:
        Text such as ``-12.1 % [-15.0, -9.2] n=16``: relative difference, its interval, and the initial times. Rows are named by system,
        reference, score, region and channel. For numbers use ``card.pivot(index=..., columns="lead", values="relative")``.
    """
    cells = [
        "no data"
        if row.verdict == "no data"
        else f"{100 * row.relative:+.1f} % [{100 * row.low:+.1f}, {100 * row.high:+.1f}] n={row.dates}"
        for row in card.itertuples()
    ]
    rows = [name for name in ("system", "reference", "score", "region", "channel") if name in card]
    table = card.assign(cell=cells, hours=card.lead / pd.Timedelta(hours=1)).pivot(index=rows, columns="hours", values="cell")
    return table.reindex(pd.MultiIndex.from_frame(card[rows].drop_duplicates())).rename_axis(columns="lead (h)")


def _check(scores: list[str], system: str, reference: str) -> None:
    judged = [name for name, metric in METRICS.items() if metric.loss]
    wrong = [name for name in scores if name not in judged]
    if wrong or not scores:
        raise ConfigurationError(
            f"scores={scores}", f"A scorecard is of scores of which less, or more, is better: {', '.join(judged)}", "Choose among them"
        )
    if system == reference:
        raise DataError(f"{system!r} against itself", "A scorecard compares two systems", "Name another reference")


def _rows(found: xr.Dataset, variable: str) -> pd.DataFrame:
    """Comparisons of one variable."""
    parts = xr.Dataset({part: found[f"{part}.{variable}"].reset_coords(drop=True) for part in PARTS})
    rows = parts.to_dataframe().reset_index().rename(columns={LEAD: "lead"})
    level = rows["level"].astype("Int64") if "level" in rows else pd.array([pd.NA] * len(rows), dtype="Int64")
    rows = rows.assign(variable=variable, level=level, units=found[f"difference.{variable}"].attrs["units"], dates=rows.dates.astype(int))
    return rows.assign(channel=[variable if pd.isna(one) else f"{variable}_{one}" for one in rows.level])
