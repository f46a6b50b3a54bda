"""Events: how good the probabilities are that a value exceeds a threshold.

All of it follows from one table: on which area so many members foretold the event and it came, or did not. Tables of several initial
times are added up first, and every score is made of the sum.

Symbols: M members; k of them foretell the event, p = k / M; o is 1 where it came, else 0; ō its mean, the base rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from aeris.errors import ConfigurationError
from aeris.verification.kept import by_initial_time
from aeris.verification.pairing import CELLS, LEAD, Case, Gaps, Pairing, Piece, pair, pieces, read_case
from aeris.verification.regions import Regions, cell_weights, region_weights

Thresholds = Mapping[str, Sequence[float] | xr.DataArray]
"""By variable: values, or a field ``(threshold, [level,] [latitude, longitude])``, for example of percentiles of a climatology."""


def thresholds_of(words: Sequence[str]) -> dict[str, list[float]]:
    """Thresholds from words such as ``2m_temperature=303.15,308.15``.

    Raises:
        ConfigurationError: A word is something else.
    """
    thresholds = {}
    for word in words:
        name, _, values = word.partition("=")
        try:
            thresholds[name] = [float(value) for value in values.split(",")]
        except ValueError as error:
            raise ConfigurationError(
                f"The thresholds {word!r}", "Thresholds are a variable and numbers", "Use for example 2m_temperature=303.15,308.15"
            ) from error
    return thresholds


CAME, FORETOLD = "came", "foretold"
_TABLE = (CAME, FORETOLD)


def event_table(
    fc: xr.Dataset | str | Path,
    truth: xr.Dataset,
    thresholds: Thresholds,
    *,
    above: bool = True,
    regions: Regions | None = None,
    gaps: Gaps = "refuse",
    keep: str | Path | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Counts, by area, how many members foretold an event and whether it came.

    Where the truth is missing, nothing is counted. Cases that lack a member are left out: their probabilities would be others. These and
    cases without any truth are told in the attribute ``left_out_cases``, by variable, initial time, lead and level.

    Args:
        fc: Forecast archive, or the path of one.
        truth: Canonical dataset, as for `aeris.verify`.
        thresholds: Of each variable to look at, in its unit.
        above: Whether the event is to be above the threshold; else below.
        regions: Over which to add up, as for `aeris.verify`; None is the globe.
        gaps: Where the truth lacks a time, ``"refuse"``, or ``"skip"`` it: nothing is counted there.
        keep: Folder in which the table of each initial time is kept, as for `aeris.verify`.
        progress: Whether to show a progress bar.

    Returns:
        Dataset with one table for each variable, ``(time, prediction_timedelta, [level,] [region,] threshold, foretold, came)``:
        the part of the globe's area with so many members (0 to M) and that outcome (0, 1). Of a season it is
        ``table.isel(time=table.time.dt.season == "DJF")``.

    Raises:
        DataError: Forecast and truth do not fit together.
        ConfigurationError: A threshold is of a variable that is not compared, or is no number.
    """
    pairing = pair(fc, truth, gaps)
    check_thresholds(thresholds, pairing)
    pairing = replace(pairing, forecast=pairing.forecast[list(thresholds)], truth=pairing.truth[list(thresholds)])
    shares = None if regions is None else region_weights(regions, truth)
    tables = list(
        by_initial_time(
            lambda alone: _tables(alone, thresholds, above, shares),
            pairing,
            keep,
            {"what": "events", "thresholds": thresholds, "above": above, "regions": shares},
            progress=progress,
        )
    )
    whole = xr.concat(tables, "time", combine_attrs="override")
    of_a_start = sum(pairing.room(name, {}, 0.0).size for name in pairing.variables)
    left_out = sum(table.attrs["left_out_cases"] for table in tables) + pairing.left_out_starts * of_a_start
    return whole.assign_attrs(left_out_cases=left_out)


def _tables(pairing: Pairing, thresholds: Thresholds, above: bool, shares: xr.DataArray | None) -> xr.Dataset:
    """`event_table` of a pairing that was checked."""
    members = pairing.forecast.sizes["number"]
    weights = cell_weights(pairing.cell_area, shares, pairing.truth.sizes["longitude"])
    tables, left_out = {}, 0
    for name in pairing.variables:
        limits = limits_of(thresholds[name], pairing.forecast[name])
        leading = {"time": pairing.times, "threshold": limits.threshold.values, FORETOLD: np.arange(members + 1), CAME: [0, 1]}
        leading |= {} if shares is None else {"region": shares.region.values}
        table = pairing.room(name, leading, 0.0)
        for time, piece, case in _cases(pairing, name):
            complete = (case.count == members).values
            left_out += int((~complete | ~case.known.any(CELLS).values).sum())
            counted = _count(case, limits.isel(_level_of(piece, limits)), above, members, weights, complete)
            table[{"time": time} | piece] = counted if shares is not None else counted[:, :, :, 0]
        table = table.transpose("time", LEAD, "level", "region", "threshold", FORETOLD, CAME, missing_dims="ignore")
        tables[name] = table.assign_attrs(units="1", event="above" if above else "below", threshold_units=table.attrs["units"])
    return xr.Dataset(tables, attrs={"members": members, "left_out_cases": left_out})


def check_thresholds(thresholds: Thresholds, pairing: Pairing) -> None:
    """Refuses thresholds of what is not compared, and such as are no numbers."""
    absent = [name for name in thresholds if name not in pairing.variables]
    if absent or not thresholds:
        raise ConfigurationError(
            f"Thresholds of {', '.join(absent) or 'nothing'}",
            f"The variables that are compared are {', '.join(pairing.variables)}",
            f"Use for example {{{pairing.variables[0]!r}: [300.0]}}",
        )
    for name, values in thresholds.items():
        if not np.isfinite(np.asarray(values, float)).all() or not np.size(values):
            raise ConfigurationError(
                f"A threshold of {name} is {values}", "A threshold is a finite number in the variable's unit", "Leave it out"
            )


def limits_of(values: Sequence[float] | xr.DataArray, field: xr.DataArray) -> xr.DataArray:
    """Thresholds with a dimension and coordinate ``threshold``, at the levels of the variable."""
    if isinstance(values, xr.DataArray):
        values = values.sel(level=field.level) if "level" in values.dims else values
        if "threshold" not in values.dims:
            values = values.expand_dims("threshold")
        return values if "threshold" in values.coords else values.assign_coords(threshold=np.arange(values.sizes["threshold"]))
    limits = np.atleast_1d(np.asarray(values, float))
    return xr.DataArray(limits, {"threshold": limits}, "threshold")


def _level_of(piece: Piece, limits: xr.DataArray) -> Piece:
    return {dim: part for dim, part in piece.items() if dim in limits.dims}


def _cases(pairing: Pairing, name: str) -> Iterator[tuple[int, Piece, Case]]:
    """Reads the cases of a variable with the number of their initial time."""
    for number, time in enumerate(pairing.times):
        members, truth = pairing.members(time)[name], pairing.truth_after(time)[name]
        for piece in pieces(members):
            yield number, piece, read_case(members.isel(piece), truth.isel(piece))


def _count(case: Case, limits: xr.DataArray, above: bool, members: int, weights: np.ndarray, complete: np.ndarray) -> np.ndarray:
    """The table of one case, ``(threshold, foretold, came, region, lead, [level])``."""
    shape = case.count.shape
    table = np.zeros((limits.sizes["threshold"], 2 * (members + 1), len(weights), *shape))
    for number in range(limits.sizes["threshold"]):
        limit = limits.isel(threshold=number, drop=True).variable
        foretold = (case.members > limit) if above else (case.members < limit)
        came = (case.truth > limit) if above else (case.truth < limit)
        kind = (2 * foretold.sum("number") + came).transpose(*case.truth.dims).values.reshape(*shape, -1)
        known = case.known.values.reshape(*shape, -1)
        for place in np.ndindex(*shape):
            for region, weight in enumerate(weights if complete[place] else []):
                counted = np.bincount(kind[place], weight * known[place], 2 * (members + 1))
                table[(number, slice(None), region, *place)] = counted / known.shape[-1]
    return table.reshape(limits.sizes["threshold"], members + 1, 2, len(weights), *shape)


def _joined(table: xr.Dataset) -> xr.Dataset:
    """The table of all initial times together, as shares of the area that was counted."""
    table = table.sum("time", keep_attrs=True) if "time" in table.dims else table
    total = table.sum(_TABLE)
    return table / total.where(total > 0)


def _probability(table: xr.Dataset) -> xr.DataArray:
    return table[FORETOLD] / table[FORETOLD].max()


def base_rate(table: xr.Dataset) -> xr.Dataset:
    """How often the event came, ō."""
    return _joined(table).sel({CAME: 1}, drop=True).sum(FORETOLD, skipna=False)


def brier_score(table: xr.Dataset, fair: bool = True) -> xr.Dataset:
    """Brier score of the probabilities, E (p − o)² (Brier 1950, Monthly Weather Review 78, 1-3).

    Args:
        table: From `event_table`.
        fair: Whether to take off E p (1 − p) / (M − 1), what a small ensemble adds (Ferro 2014, https://doi.org/10.1002/qj.2270).

    Returns:
        The score without unit; 0 is perfect. NaN where nothing was counted. A single member has no fair score: its plain one.
    """
    joined, p = _joined(table), _probability(table)
    members = int(table[FORETOLD].max())
    loss = (p - table[CAME]) ** 2 - (p * (1 - p) / (members - 1) if fair and members > 1 else 0.0)
    return (joined * loss).sum(_TABLE, skipna=False)


def brier_skill(table: xr.Dataset, reference: xr.Dataset | None = None, fair: bool = True) -> xr.Dataset:
    """1 − BS / BS of a reference: 1 is perfect, 0 no better than the reference.

    Args:
        table: From `event_table`.
        reference: Table of another forecast of the same cases; None takes the base rate itself, whose score is ō (1 − ō).
        fair: As for `brier_score`.
    """
    rate = base_rate(table)
    other = rate * (1 - rate) if reference is None else brier_score(reference, fair)
    return 1 - brier_score(table, fair) / other.where(other > 0)


def brier_parts(table: xr.Dataset) -> xr.Dataset:
    """Reliability − resolution + uncertainty = plain Brier score (Murphy 1973, Journal of Applied Meteorology 12, 595-600).

    Returns:
        Dataset as the table, with a dimension ``part``: ``reliability`` (small is good), ``resolution`` (large is good),
        ``uncertainty``.
    """
    joined, p, rate = _joined(table), _probability(table), base_rate(table)
    used = joined.sum(CAME, skipna=False)
    came = (joined.sel({CAME: 1}, drop=True) / used.where(used > 0)).fillna(0.0)
    parts = {
        "reliability": (used * (p - came) ** 2).sum(FORETOLD, skipna=False),
        "resolution": (used * (came - rate) ** 2).sum(FORETOLD, skipna=False),
        "uncertainty": rate * (1 - rate),
    }
    return xr.concat(list(parts.values()), xr.Variable("part", np.array(list(parts), dtype=object)))


def reliability_diagram(table: xr.Dataset) -> xr.Dataset:
    """How often the event came when it was given each probability.

    Returns:
        Dataset with variables ``came.{variable}``, the observed frequency (on the diagonal for a reliable forecast; NaN where the
        probability was never given), and ``used.{variable}``, how often it was given; ``probability`` takes the place of
        ``foretold``.
    """
    joined = _joined(table)
    used = joined.sum(CAME, skipna=False)
    came = joined.sel({CAME: 1}, drop=True) / used.where(used > 0)
    both = came.rename({name: f"came.{name}" for name in came.data_vars}).merge(
        used.rename({name: f"used.{name}" for name in used.data_vars})
    )
    return both.assign_coords({FORETOLD: _probability(table).values}).rename({FORETOLD: "probability"})


def roc(table: xr.Dataset) -> xr.Dataset:
    """Relative operating characteristic: hits against false alarms if one acts from a probability on (Mason 1982).

    Returns:
        Dataset with variables ``hits.{variable}`` and ``false_alarms.{variable}``, rates from 0 to 1 along ``act_from``, the fewest
        members that one acts on (0 acts always, M + 1 never), and ``area.{variable}``, the area below the curve: 1 is perfect, 0.5
        no skill. NaN where the event came never or always.
    """
    curves: dict[str, xr.DataArray] = {}
    for name, one in _joined(table).data_vars.items():
        from_most = one.isel({FORETOLD: slice(None, None, -1)}).cumsum(FORETOLD, skipna=False).isel({FORETOLD: slice(None, None, -1)})
        acted = from_most.pad({FORETOLD: (0, 1)}, constant_values=0.0).rename({FORETOLD: "act_from"})
        acted = acted.assign_coords(act_from=np.arange(acted.sizes["act_from"]))
        total = one.sum(FORETOLD, skipna=False)
        rate = acted / total.where(total > 0)
        hits, false_alarms = rate.sel({CAME: 1}, drop=True), rate.sel({CAME: 0}, drop=True)
        width = false_alarms.isel(act_from=slice(None, -1)) - false_alarms.shift(act_from=-1).isel(act_from=slice(None, -1))
        height = (hits + hits.shift(act_from=-1)).isel(act_from=slice(None, -1)) / 2
        curves |= {
            f"hits.{name}": hits,
            f"false_alarms.{name}": false_alarms,
            f"area.{name}": (width * height).sum("act_from", skipna=False),
        }
    return xr.Dataset(curves)


def economic_value(table: xr.Dataset, cost_loss: Sequence[float]) -> xr.Dataset:
    """Relative economic value for users who act from the probability that suits them best (Richardson 2000,
    https://doi.org/10.1002/qj.49712656313).

    V(α) = (min(α, ō) − F α (1 − ō) + H ō (1 − α) − ō) / (min(α, ō) − ō α), the largest over the probabilities to act from; α is the cost
    of protection over the loss that it prevents, H and F the rates of hits and false alarms. 1 is as good as knowing, 0 as the base
    rate.

    Args:
        table: From `event_table`.
        cost_loss: Ratios α, between 0 and 1.

    Returns:
        Dataset of the variables, along ``cost_loss``.

    Raises:
        ConfigurationError: A ratio is not between 0 and 1.
    """
    ratios = np.atleast_1d(np.asarray(cost_loss, float))
    if not ((ratios > 0) & (ratios < 1)).all():
        raise ConfigurationError(f"cost_loss={cost_loss}", "A ratio of cost and loss lies between 0 and 1", "Use for example [0.1, 0.5]")
    ratio, curves, rate = xr.DataArray(ratios, {"cost_loss": ratios}, "cost_loss"), roc(table), base_rate(table)
    values = {}
    for name, came in rate.data_vars.items():
        least = xr.where(ratio < came, ratio, came)
        saved = least - curves[f"false_alarms.{name}"] * ratio * (1 - came) + curves[f"hits.{name}"] * came * (1 - ratio) - came
        values[name] = (saved / (least - came * ratio)).max("act_from")
    return xr.Dataset(values)
