"""Tracks of tropical cyclones through analyses or the members of a forecast.

Candidates of consecutive times are joined if they are near each other, and a track is kept if it lasts, blows and stays in the tropics for
long enough. The defaults are those of TempestExtremes for tropical cyclones (Ullrich et al. 2021, https://doi.org/10.5194/gmd-14-5023-2021),
without the one for the height of the ground. Other than there a candidate belongs to one track only: the shortest joints come first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr

from aeris.errors import ConfigurationError, DataError
from aeris.verification.cyclone_detection import Criteria, Search
from aeris.verification.great_circle import arc
from aeris.verification.pairing import LEAD, open_archive
from aeris.verification.track_table import table

Span: TypeAlias = str | pd.Timedelta | np.timedelta64


@dataclass(frozen=True)
class Rules:
    """How candidates become tracks.

    Attributes:
        reach: Longest way from one point of a track to the next, great-circle degrees, whatever the time between; 8° suit 6 h.
        gap: Longest time from one point of a track to the next.
        shortest: Least time from the first point of a track to its last.
        wind: A track blows where its 10 m wind is at least this, m s⁻¹; not asked where the wind is not known.
        latitude: It is in the tropics where its latitude, north or south, is at most this.
        count: At so many points it must blow, and at so many it must be in the tropics.
    """

    reach: float = 8.0
    gap: Span = "24h"
    shortest: Span = "54h"
    wind: float = 10.0
    latitude: float = 50.0
    count: int = 10

    def __post_init__(self) -> None:
        for name in ("gap", "shortest"):
            try:
                span = pd.Timedelta(getattr(self, name))
            except (ValueError, TypeError):
                span = pd.Timedelta(-1)
            if span is pd.NaT or span < pd.Timedelta(0):
                raise ConfigurationError(f"Rules.{name} = {getattr(self, name)!r}", "It is a length of time", "Use for example '24h'")
            object.__setattr__(self, name, span)
        if not (0 < self.reach <= 90 and self.count >= 0 and self.latitude > 0):
            raise ConfigurationError(
                f"Rules with reach={self.reach}, count={self.count}, latitude={self.latitude}",
                "The reach is from 0° to 90°, the latitude positive, the count not negative",
                "Use the defaults: Rules()",
            )

    def __str__(self) -> str:
        return (
            f"steps up to {self.reach:g} degrees and {_hours(self.gap):g} h, {_hours(self.shortest):g} h or longer, "
            f"{self.count} times with {self.wind:g} m s**-1 or more, {self.count} times within {self.latitude:g} degrees of the equator"
        )


@dataclass(frozen=True)
class Sequence:
    """Fields that follow each other in time: analyses, or one member of one forecast.

    Attributes:
        labels: What tells its tracks from others: ``initial_time`` and ``number``.
        times: Valid times.
        states: The fields along ``step``, lazy.
    """

    labels: dict[str, Any]
    times: pd.DatetimeIndex
    states: xr.Dataset

    def __str__(self) -> str:
        labels = {name: np.datetime_as_string(value, unit="m") if name == "initial_time" else value for name, value in self.labels.items()}
        return " ".join(f"{name} {value}" for name, value in labels.items()) or "the dataset"


def track(fc: xr.Dataset | str | Path, *, criteria: Criteria | None = None, rules: Rules | None = None) -> xr.Dataset:
    """Tracks of tropical cyclones in analyses or in every member of a forecast, each member for itself.

    One field is in memory at a time, so that an archive may be larger than memory.

    Args:
        fc: Forecast archive, or the path of one; or a canonical dataset with ``time`` (and ``number``). Any global or regional grid.
        criteria: What makes a candidate.
        rules: What makes a track of candidates.

    Returns:
        Table of tracks (see `aeris.verification.track_table`), of no records if there are none. Its attributes have ``criteria`` and
        ``rules``, those that were applied; ``tracked``, the members of each initial time that were tracked, with a cyclone or without;
        ``left_out``, how many lack a field and were not, and ``left_out_members``, which; and the counts of `DROPPED`.

    Raises:
        DataError: No member is whole, the fields that are needed are not there, or a dimension is not known.
        StoreError: There is no archive at the path given.
    """
    ds = open_archive(fc) if not isinstance(fc, xr.Dataset) or LEAD in fc.dims else fc
    search, rules = Search.of(ds, criteria or Criteria()), rules or Rules()
    counts, left_out, pieces = Counter[str](), [], []
    tracked: dict[str, list[int]] = {}
    for sequence in _sequences(ds[search.variables()]):
        points = _points(sequence, search, counts)
        if points is None:
            left_out.append(str(sequence))
            continue
        numbers = _kept(points, stitch(points, rules), rules, counts)
        pieces.append(points[numbers >= 0].assign(track_id=numbers[numbers >= 0] + counts["tracks"]))
        counts["tracks"] += int(numbers.max(initial=-1)) + 1
        if "initial_time" in sequence.labels:
            tracked.setdefault(pd.Timestamp(sequence.labels["initial_time"]).isoformat(), []).append(sequence.labels["number"])
    if not pieces:
        raise DataError(
            f"Every member lacks a field: {'; '.join(left_out[:3])}",
            f"A sequence is tracked if {', '.join(search.variables())} are there at all of its times",
            "Let the forecast finish, or cut it to what is there with fc.sel(prediction_timedelta=...)",
        )
    about = {"criteria": search.applied(), "rules": str(rules), "left_out": len(left_out), "left_out_members": "; ".join(left_out)}
    if tracked:
        about |= {"tracked": json.dumps(tracked), "leads": (ds[LEAD].values / np.timedelta64(1, "h")).astype("float64")}
    return table(pd.concat(pieces, ignore_index=True), about | {name: counts[name] for name in DROPPED})


DROPPED = ("open", "cold", "cut", "merged", "unjoined", "short", "weak", "poleward")
"""What the attributes of tracks count. Candidates: without a closed contour, without a warm core, cut by the edge of the grid, near a
deeper one. Tracks: of one point, too short, with too little wind, too far from the equator."""


def _sequences(ds: xr.Dataset) -> Iterator[Sequence]:
    """The sequences of a dataset, member by member.

    Raises:
        DataError: Its dimensions are neither those of an archive nor those of analyses, or its times do not rise.
    """
    along = LEAD if LEAD in ds.dims else "time"
    others = {str(dim) for dim in ds.dims} - {"time", LEAD, "number", "level", "latitude", "longitude"}
    if along not in ds.coords or others:
        raise DataError(
            f"The dimensions {', '.join(map(str, ds.dims))}",
            f"Tracks need time, or time and {LEAD}, and at most number besides",
            "Keep the time with ds.sel(time=[...]) rather than ds.sel(time=...), and choose one of any further dimension",
        )
    if not (ds[along].dtype.kind in "mM" and np.all(np.diff(ds[along].values) > np.timedelta64(0))):
        raise DataError(f"The {along} of the dataset does not rise", "Tracks follow the time", f"Sort it with ds.sortby({along!r})")
    forecasts = [({"initial_time": time}, ds.sel(time=time, drop=True)) for time in ds.time.values] if along == LEAD else [({}, ds)]
    for labels, forecast in forecasts:
        times = pd.DatetimeIndex(forecast[along].values + labels.get("initial_time", np.timedelta64(0)))
        for number in forecast.number.values.tolist() if "number" in forecast.dims else [None]:
            member = forecast if number is None else forecast.sel(number=number, drop=True)
            yield Sequence(labels | ({} if number is None else {"number": number}), times, member.rename({along: "step"}))


def _points(sequence: Sequence, search: Search, counts: Counter[str]) -> pd.DataFrame | None:
    """The candidates of all times of a sequence, or None if a field is not there."""
    found, seen = [], Counter[str]()
    for step, time in enumerate(sequence.times):
        candidates = search.candidates(sequence.states.isel(step=step, drop=True), seen)
        if candidates is None:
            return None
        lead = {"lead": _hours(time - sequence.labels["initial_time"])} if "initial_time" in sequence.labels else {}
        found.append(candidates.assign(**sequence.labels, **lead, time=time))
    counts.update(seen)
    return pd.concat(found, ignore_index=True)


def stitch(points: pd.DataFrame, rules: Rules) -> np.ndarray:
    """Joins candidates into tracks.

    Time after time, every candidate is joined to the track whose last point is nearest, within reach and gap; where two want the same,
    the shorter joint comes first. What is left over begins a track.

    Args:
        points: Candidates with ``time``, ``lat`` and ``lon``.
        rules: `Rules.reach` and `Rules.gap` are used.

    Returns:
        The number of its track for each row of `points`, from 0.
    """
    latitude, longitude, times = points.lat.to_numpy(), points.lon.to_numpy(), points.time.to_numpy()
    numbers, ends = np.full(len(points), -1), np.empty(0, dtype=int)
    for time in np.unique(times):
        here = np.flatnonzero(times == time)
        open_ones = np.flatnonzero(time - times[ends] <= rules.gap)
        last = ends[open_ones]
        ways = arc(latitude[last][:, None], longitude[last][:, None], latitude[here], longitude[here])
        for track_order, point in zip(*np.unravel_index(np.argsort(ways, axis=None, kind="stable"), ways.shape), strict=True):
            number = open_ones[track_order]
            if ways[track_order, point] <= rules.reach and times[ends[number]] < time and numbers[here[point]] < 0:
                numbers[here[point]], ends[number] = number, here[point]
        new = here[numbers[here] < 0]
        numbers[new] = len(ends) + np.arange(len(new))
        ends = np.concatenate([ends, new])
    return numbers


def _kept(points: pd.DataFrame, numbers: np.ndarray, rules: Rules, counts: Counter[str]) -> np.ndarray:
    """The numbers of the tracks that are kept, counted anew from 0; -1 for the points of others."""
    kept = np.full(len(points), -1)
    count = 0
    for number in range(int(numbers.max(initial=-1)) + 1):
        mine = np.flatnonzero(numbers == number)
        reason = _refusal(points.iloc[mine], rules)
        if reason:
            counts[reason] += 1
        else:
            kept[mine], count = count, count + 1
    return kept


def _refusal(points: pd.DataFrame, rules: Rules) -> str | None:
    """Why a track is not kept."""
    if points.time.iloc[-1] - points.time.iloc[0] < rules.shortest:
        return "short" if len(points) > 1 else "unjoined"
    if "wind10" in points and (points.wind10 >= rules.wind).sum() < rules.count:
        return "weak"
    return "poleward" if (points.lat.abs() <= rules.latitude).sum() < rules.count else None


def _hours(span: Any) -> float:
    return pd.Timedelta(span) / pd.Timedelta(hours=1)
