"""Forecast tracks against best tracks: which belong together, and how far they are apart.

A forecast track is matched as by Froude et al. (2007, https://doi.org/10.1175/MWR3274.1): it stays near the best track over the first times
that both have. Where several would do, the nearest does, and each track is matched once in every member. What is left is a miss or a
false alarm.

Signs, seen from the best track and the way it went: along is positive ahead (the forecast is too fast), across is positive to the right,
and an intensity error is the forecast minus the best track. The way is that from the previous place of the best track, at its first place
that to the next (Heming 2017, https://doi.org/10.1002/met.1599, explains the components).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from aeris.errors import ConfigurationError, DataError
from aeris.verification.great_circle import along_and_across, bearing, distance
from aeris.verification.track_table import tracked_members

MEMBER = ("initial_time", "number")
INTENSITY = {"slp": "Pa", "wind10": "m s**-1"}


@dataclass(frozen=True)
class Matching:
    """Which forecast tracks belong to which best tracks.

    Attributes:
        pairs: One row for each match: ``track_id`` of the forecast, ``best_id``, ``separation`` in km (the mean over the first common
            times), ``common`` times, and ``initial_time`` and ``number`` where the forecast has them.
        misses: One row for each best track and member that should have a match and has none, ``best_id`` with the same labels.
        false_alarms: Forecast tracks without a match, ``track_id`` with the same labels.
    """

    pairs: pd.DataFrame
    misses: pd.DataFrame
    false_alarms: pd.DataFrame

    def __repr__(self) -> str:
        return f"Matching({len(self.pairs)} matches, {len(self.misses)} misses, {len(self.false_alarms)} false alarms)"


def match_tracks(tracks: xr.Dataset, best: xr.Dataset, *, within: float = 400.0, first: int = 4, common: int = 4) -> Matching:
    """Matches forecast tracks to best tracks, in every member for itself.

    Args:
        tracks: Table of tracks, as `track` returns it.
        best: Table of best tracks.
        within: Largest distance in km at each of the first common times.
        first: How many common times are looked at.
        common: How many common times there must be. A best track that has fewer times within those of the forecast is not missed.

    Returns:
        The matches, misses and false alarms. Members without any track miss too, if the table knows of them: see
        `aeris.verification.track_table.tracked_members`, and `one_forecast` to choose an initial time.

    Raises:
        ConfigurationError: A number cannot be.
        DataError: A table is none, or no time is in both.
    """
    if not (within > 0 and 1 <= first <= common):
        raise ConfigurationError(
            f"within={within}, first={first}, common={common}",
            "Tracks are held together at the first of their common times",
            "Use the defaults",
        )
    forecast, truth = _frame("the tracks", tracks), _frame("the best tracks", best)
    both = forecast.merge(truth, on="time", suffixes=("", "_best"))
    if both.empty:
        raise DataError(
            f"The tracks run {_span(forecast)}, the best tracks {_span(truth)}",
            "Tracks are matched at the times that both have",
            "Choose best tracks of the same period and hours",
        )
    both["separation"] = distance(both.lat_best, both.lon_best, both.lat, both.lon)
    labels = [name for name in MEMBER if name in forecast]
    accepted = _accepted(both, labels, within, first, common)
    pairs = _one_to_one(accepted, labels)
    expected = _expected(tracks, forecast, truth, common)
    misses = _without(expected, pairs, [*labels, "best_id"])
    false_alarms = _without(forecast[[*labels, "track_id"]].drop_duplicates(), pairs, [*labels, "track_id"])
    return Matching(pairs, misses, false_alarms)


def _accepted(both: pd.DataFrame, labels: list[str], within: float, first: int, common: int) -> pd.DataFrame:
    """The pairs of tracks that are near enough for long enough, the nearest first."""
    groups = both.sort_values("time").groupby([*labels, "track_id", "track_id_best"], sort=True)
    beginning = groups.head(first).groupby([*labels, "track_id", "track_id_best"], sort=True).separation
    pairs = pd.DataFrame({"separation": beginning.mean(), "farthest": beginning.max(), "common": groups.size()}).reset_index()
    pairs = pairs[(pairs.farthest <= within) & (pairs.common >= common)].rename(columns={"track_id_best": "best_id"})
    return pairs.sort_values("separation", kind="stable").drop(columns="farthest")


def _one_to_one(pairs: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Of pairs in order of preference those whose tracks are both still free."""
    taken: set[tuple] = set()
    rows = []
    for order, row in enumerate(pairs.itertuples(index=False)):
        member = tuple(getattr(row, name) for name in labels)
        mine = {("forecast", member, row.track_id), ("best", member, row.best_id)}
        if not mine & taken:
            taken |= mine
            rows.append(order)
    return pairs.iloc[rows].sort_values([*labels, "track_id"]).reset_index(drop=True)


def _expected(tracks: xr.Dataset, forecast: pd.DataFrame, truth: pd.DataFrame, common: int) -> pd.DataFrame:
    """The best tracks that each member should have: those with enough times within the times of the forecast."""
    held = tracked_members(tracks)
    if not held:
        return pd.DataFrame({"best_id": _reachable(truth, forecast.time.unique(), common)})
    pieces = []
    for start, numbers in held.items():
        leads = pd.to_timedelta(tracks.attrs["leads"], unit="h") if "leads" in tracks.attrs else None
        times = forecast.time[forecast.initial_time == start].unique() if leads is None else start + leads
        ids = pd.DataFrame({"best_id": _reachable(truth, times, common)})
        pieces.append(pd.DataFrame({"initial_time": start, "number": numbers}).merge(ids, how="cross"))
    return pd.concat(pieces, ignore_index=True)


def _reachable(truth: pd.DataFrame, times: Any, common: int) -> pd.Index:
    count = truth[truth.time.isin(times)].groupby("track_id").size()
    return count[count >= common].index


def _without(rows: pd.DataFrame, pairs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The rows that have no pair."""
    marked = rows.merge(pairs[keys].assign(matched=True), on=keys, how="left")
    return marked[marked.matched.isna()].drop(columns="matched").reset_index(drop=True)


def track_errors(tracks: xr.Dataset, best: xr.Dataset, matching: Matching | None = None) -> xr.Dataset:
    """Errors of place and intensity at every time that a forecast track and its best track share.

    Args:
        tracks: Table of tracks.
        best: Table of best tracks.
        matching: Which belong together; by `match_tracks` with its defaults if there is none.

    Returns:
        Dataset along ``record`` with ``track_id``, ``best_id``, ``time``, ``distance``, ``along`` and ``across`` in km, ``slp_error`` in
        Pa and ``wind10_error`` in m s⁻¹ where both have them, and ``initial_time``, ``number`` and ``lead`` of a forecast. Its attributes
        count ``matches``, ``misses`` and ``false_alarms``, the records ``without_direction`` (a best track that never moved: along and
        across are NaN), and what is not known of the intensities, ``missing_slp_error`` and ``missing_wind10_error``.
    """
    matching = matching or match_tracks(tracks, best)
    forecast, truth = _frame("the tracks", tracks), _with_heading(_frame("the best tracks", best))
    paired = forecast.merge(matching.pairs[["track_id", "best_id"]], on="track_id")
    both = paired.merge(truth, left_on=["best_id", "time"], right_on=["track_id", "time"], suffixes=("", "_best"))
    errors = both[[*(name for name in (*MEMBER, "lead") if name in forecast), "track_id", "best_id", "time"]].copy()
    errors["distance"] = distance(both.lat_best, both.lon_best, both.lat, both.lon)
    angle = bearing(both.lat_best, both.lon_best, both.lat, both.lon) - both.heading
    errors["along"], errors["across"] = along_and_across(errors.distance, angle)
    units = {"distance": "km", "along": "km", "across": "km"}
    for name in [name for name in INTENSITY if name in forecast and name in truth]:
        errors[f"{name}_error"], units[f"{name}_error"] = both[name] - both[f"{name}_best"], INTENSITY[name]
    about = {"matches": len(matching.pairs), "misses": len(matching.misses), "false_alarms": len(matching.false_alarms)}
    about |= {"without_direction": int(errors.along.isna().sum())}
    about |= {f"missing_{name}": int(errors[name].isna().sum()) for name in units if name.endswith("_error")}
    attributes = {name: {"units": unit} for name, unit in units.items()} | {"lead": {"units": "h"}}
    records = {str(name): ("record", column.to_numpy(), attributes.get(str(name), {})) for name, column in errors.items()}
    return xr.Dataset(records, attrs=about)


def mean_track_errors(errors: xr.Dataset, by: str = "lead") -> xr.Dataset:
    """Errors averaged over all pairs of each lead.

    Args:
        errors: As `track_errors` returns them.
        by: ``"lead"``, or another column such as ``"best_id"``.

    Returns:
        Dataset along `by` with the mean of each error under its own name (of signed errors that is the bias), the mean of its absolute
        value as ``{error}_absolute`` where it is signed, and how many pairs each mean has as ``{error}_pairs``.

    Raises:
        DataError: There is no such column.
    """
    if by not in errors:
        raise DataError(f"No column {by!r} among {', '.join(map(str, errors))}", "Errors are averaged by a column", "Use by='best_id'")
    names = [str(name) for name in errors if "units" in errors[name].attrs and name != "lead"]
    groups = errors.to_dataframe().groupby(by)
    means = {}
    for name in names:
        units = errors[name].attrs["units"]
        column = groups[name]
        means[name] = (by, column.mean().to_numpy(), {"units": units, "long_name": f"mean {name.replace('_', ' ')}"})
        if name != "distance":
            about = {"units": units, "long_name": f"mean absolute {name.replace('_', ' ')}"}
            means[f"{name}_absolute"] = (by, column.apply(lambda values: values.abs().mean()).to_numpy(), about)
        means[f"{name}_pairs"] = (by, column.count().to_numpy(), {"units": "1", "long_name": f"pairs with {name.replace('_', ' ')}"})
    return xr.Dataset(means, {by: (by, np.array(list(groups.groups)), errors[by].attrs)}, errors.attrs)


def _with_heading(truth: pd.DataFrame) -> pd.DataFrame:
    """Adds the direction of motion at each time, from the last place that is another one; at the first place, to the next one."""
    pieces = []
    for _, one in truth.sort_values("time").groupby("track_id"):
        latitude, longitude = one.lat.to_numpy(), one.lon.to_numpy()
        moved = np.append(False, distance(latitude[:-1], longitude[:-1], latitude[1:], longitude[1:]) > 0)
        arrival = np.append(np.nan, bearing(latitude[1:], longitude[1:], latitude[:-1], longitude[:-1]) + 180.0) % 360.0
        departure = np.append(bearing(latitude[:-1], longitude[:-1], latitude[1:], longitude[1:]), np.nan)
        heading = pd.Series(np.where(moved, arrival, np.nan)).ffill()
        first = np.flatnonzero(moved)
        if len(first):
            heading = heading.fillna(departure[first[0] - 1])
        pieces.append(one.assign(heading=heading.to_numpy()))
    return pd.concat(pieces)


def _frame(owner: str, tracks: xr.Dataset) -> pd.DataFrame:
    missing = [name for name in ("track_id", "time", "lat", "lon") if name not in tracks]
    if missing:
        raise DataError(
            f"In {owner} there is no {', '.join(missing)}",
            "A table of tracks has track_id, time, lat and lon along record",
            "Make one with track, read_tracks, read_hurdat2 or read_ibtracs",
        )
    return tracks.to_dataframe().reset_index(drop=True)


def _span(frame: pd.DataFrame) -> str:
    return f"from {frame.time.min()} to {frame.time.max()}" if len(frame) else "nowhere: it is empty"
