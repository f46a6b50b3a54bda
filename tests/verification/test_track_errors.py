"""Matching and errors: huracanpy, sums by hand, and reanalysis against best tracks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from vortices import archive, separation

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification.cyclone_tracks import track
from aeris.verification.great_circle import EARTH_RADIUS
from aeris.verification.track_errors import match_tracks, mean_track_errors, track_errors
from aeris.verification.track_table import read_tracks, table

DEGREE = EARTH_RADIUS * np.deg2rad(1.0)


def tracks_of(*walks: dict, steps: int = 8) -> xr.Dataset:
    """Tracks with constant steps, six-hourly; a walk has the columns of its records, each a value or one for each step."""
    times = pd.date_range("2020-09-01", periods=steps, freq="6h")
    return table(pd.concat([pd.DataFrame({"track_id": number, "time": times} | walk) for number, walk in enumerate(walks)]))


def straight(latitude: float, longitude: float, north: float, east: float, steps: int = 8, **columns) -> dict:
    return {"lat": latitude + north * np.arange(steps), "lon": longitude + east * np.arange(steps), **columns}


@pytest.mark.parametrize(
    ("north", "east", "shift", "along", "across"),
    [
        (1.0, 0.0, (0.5, 0.0), 0.5, 0.0),
        (1.0, 0.0, (-0.5, 0.0), -0.5, 0.0),
        (-1.0, 0.0, (0.5, 0.0), -0.5, 0.0),
        (0.0, 1.0, (0.0, 0.5), 0.5, 0.0),
        (0.0, 1.0, (0.5, 0.0), 0.0, -0.5),
        (0.0, -1.0, (0.5, 0.0), 0.0, 0.5),
    ],
)
@pytest.mark.parametrize("longitude", [356.0, 176.0, 30.0])
def test_the_parts_of_an_error(north, east, shift, along, across, longitude):
    """On the equator and along a meridian, where great circles are those of the map; also over 0° and 180°."""
    best = tracks_of(straight(0.0, longitude, north, east, slp=95_000.0, wind10=50.0))
    forecast = tracks_of(straight(shift[0], longitude + shift[1], north, east, slp=96_500.0, wind10=41.0))
    errors = track_errors(forecast, best)
    np.testing.assert_allclose(errors.distance, 0.5 * DEGREE, rtol=1e-9)
    np.testing.assert_allclose(errors.along, along * DEGREE, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(errors.across, across * DEGREE, rtol=1e-9, atol=1e-6)
    assert set(errors.slp_error.values) == {1500.0} and set(errors.wind10_error.values) == {-9.0}
    assert errors.sizes["record"] == 8 and errors.attrs["matches"] == 1


def test_the_way_is_that_of_arrival_and_a_rest_keeps_it():
    best = tracks_of({"lat": [0, 1, 1, 1, 1.0], "lon": [10, 10, 11, 11, 12.0]}, steps=5)
    forecast = tracks_of({"lat": [0.5, 1.5, 1.0, 1.0, 1.0], "lon": [10, 10, 11.5, 11.5, 12.5]}, steps=5)
    np.testing.assert_allclose(track_errors(forecast, best).along, 0.5 * DEGREE, rtol=1e-3)


def test_a_best_track_that_never_moves_has_no_direction():
    best, forecast = tracks_of(straight(10, 10, 0, 0)), tracks_of(straight(10.5, 10, 0, 0))
    errors = track_errors(forecast, best)
    assert errors.attrs["without_direction"] == 8 and errors.along.isnull().all() and errors.distance.notnull().all()


def shaken(tracks: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    """The same tracks moved by up to a degree, numbered anew, every tenth left out."""
    frame = tracks.to_dataframe()[["track_id", "time", "lat", "lon", "slp", "wind10"]]
    ids = frame.track_id.unique()
    frame = frame[frame.track_id.isin(np.delete(ids, np.arange(0, len(ids), 10)))]
    moved = {
        name: frame[name] + frame.track_id.map(dict(zip(ids, rng.uniform(-0.7, 0.7, len(ids)), strict=True))) for name in ("lat", "lon")
    }
    return table(frame.assign(track_id=frame.track_id + 10_000, **moved))


def test_matches_are_those_of_huracanpy(shared_data):
    huracanpy = pytest.importorskip("huracanpy")
    best = read_tracks(shared_data / "huracanpy" / "ERA5_1996_UZ.csv")
    forecast = shaken(best, np.random.default_rng(0))
    matching = match_tracks(forecast, best, within=300.0, first=4, common=4)
    theirs = huracanpy.assess.match([forecast, best], names=["forecast", "best"], max_dist=300, min_overlap=4)
    ours = set(zip(matching.pairs.track_id, matching.pairs.best_id, strict=True))
    assert ours == set(zip(theirs.id_forecast, theirs.id_best, strict=True))
    assert all(forecast_id == best_id + 10_000 for forecast_id, best_id in ours)
    points, held = best.to_dataframe().groupby("track_id").size(), set(np.unique(forecast.track_id) - 10_000)
    long_ones = set(points.index[points >= 4])
    assert {best_id for _, best_id in ours} == long_ones & held and len(ours) == 79
    shared = best.to_dataframe()
    shared = shared[shared.time.isin(forecast.time.values)].groupby("track_id").size()
    assert set(matching.misses.best_id) == set(shared.index[shared >= 4]) - held
    assert set(matching.false_alarms.track_id - 10_000) == held - long_ones
    np.testing.assert_allclose(matching.pairs.set_index("track_id").separation, theirs.set_index("id_forecast").dist.sort_index(), rtol=0.2)


def test_of_two_the_nearer_is_matched_and_each_once():
    best = tracks_of(straight(10, 100, 0, 1), straight(13, 100, 0, 1))
    forecast = tracks_of(straight(11, 100, 0, 1), straight(11.9, 100, 0, 1), straight(-40, 100, 0, 1))
    matching = match_tracks(forecast, best)
    assert list(zip(matching.pairs.track_id, matching.pairs.best_id, strict=True)) == [(0, 0), (1, 1)]
    assert matching.false_alarms.track_id.tolist() == [2]
    np.testing.assert_allclose(matching.pairs.separation, [DEGREE, 1.1 * DEGREE], rtol=1e-6)
    contested = match_tracks(tracks_of(straight(10.2, 100, 0, 1), straight(10.1, 100, 0, 1)), best)
    assert list(zip(contested.pairs.track_id, contested.pairs.best_id, strict=True)) == [(0, 1), (1, 0)]


def test_tracks_that_part_early_do_not_match():
    best, forecast = tracks_of(straight(10, 100, 0, 1)), tracks_of(straight(10, 100, 1.5, 1))
    assert len(match_tracks(forecast, best).pairs) == 0
    assert len(match_tracks(forecast, best, first=2, common=2).pairs) == 1


def course(latitude: float, longitude: float, steps: int = 12):
    return [(latitude, longitude + 1.5 * step, 4000.0) for step in range(steps)]


def test_every_member_is_held_against_the_truth():
    """Member 0 has the cyclone, member 1 has none, member 2 has it 3° too far north and another one besides."""
    fc = archive(Grid.regular(91, 180), [[course(14, 350)], [[None] * 12], [course(17, 350), course(-14, 100)]])
    steps = pd.date_range("2020-09-01T06", periods=12, freq="6h")
    best = table(pd.DataFrame({"track_id": "A", "time": steps, "lat": 14.0, "lon": 350 + 1.5 * np.arange(12), "slp": 97_000.0}))
    tracks = track(fc)
    matching = match_tracks(tracks, best)
    assert matching.pairs[["number", "best_id"]].to_numpy().tolist() == [[0, "A"], [2, "A"]]
    assert matching.misses[["number", "best_id"]].to_numpy().tolist() == [[1, "A"]]
    assert matching.false_alarms.number.tolist() == [2]
    assert repr(matching) == "Matching(2 matches, 1 misses, 1 false alarms)"
    errors = track_errors(tracks, best, matching)
    frame = errors.to_dataframe()
    rows = tracks.to_dataframe().merge(best.to_dataframe(), on="time", suffixes=("", "_best"))
    rows = rows[rows.lat > 0]
    by_hand = EARTH_RADIUS * np.deg2rad([separation(*row) for row in rows[["lat_best", "lon_best", "lat", "lon"]].to_numpy()])
    np.testing.assert_allclose(sorted(frame.distance), sorted(by_hand))
    means = mean_track_errors(errors)
    assert means.lead.values.tolist() == list(np.arange(6.0, 73, 6)) and set(means.distance_pairs.values) == {2}
    np.testing.assert_allclose(means.distance, pd.Series(by_hand).groupby(rows.lead.to_numpy()).mean())
    assert (means.attrs["matches"], means.attrs["misses"], means.attrs["false_alarms"]) == (2, 1, 1)


def test_means_are_of_what_is_known():
    best = tracks_of(straight(0, 100, 0, 1, slp=[9.5e4, np.nan] * 4))
    forecast = tracks_of(straight(0, 100.5, 0, 1, slp=[9.6e4] * 4 + [9.4e4] * 4))
    errors = track_errors(forecast, best)
    assert errors.attrs["missing_slp_error"] == 4
    means = mean_track_errors(errors, by="best_id")
    assert (float(means.slp_error[0]), float(means.slp_error_absolute[0]), int(means.slp_error_pairs[0])) == (0.0, 1000.0, 4)
    assert means.slp_error.attrs["units"] == "Pa" and "wind10_error" not in means
    with pytest.raises(DataError, match="No column 'lead'"):
        mean_track_errors(errors)


@pytest.mark.parametrize("name", ["hato_2017_west_pacific", "helene_2024_north_atlantic"])
def test_reanalysis_against_best_tracks(shared_data, name):
    path = shared_data / "earth2studio" / f"reference_track_{name}.csv"
    found = read_tracks(path, rename={"msl": "slp", "wind_speed": "wind10"})
    raw = pd.read_csv(path)
    times = pd.to_datetime(raw[["year", "month", "day", "hour"]])
    best = table(pd.DataFrame({"track_id": "best", "time": times, "lat": raw.lat_ib, "lon": raw.lon_ib, "slp": raw.msl_ib}).dropna())
    errors = track_errors(found, best)
    both = raw.dropna(subset=["lat", "lat_ib", "lon", "lon_ib", "msl_ib"])
    by_hand = EARTH_RADIUS * np.deg2rad([separation(*row) for row in both[["lat_ib", "lon_ib", "lat", "lon"]].to_numpy()])
    np.testing.assert_allclose(errors.distance, by_hand)
    np.testing.assert_allclose(errors.slp_error, both.msl - both.msl_ib)
    means = mean_track_errors(errors, by="best_id")
    assert 20 < float(means.distance[0]) < 80  # km: the reanalysis knows where they were
    assert float(means.slp_error[0]) > 500  # Pa: but not how deep
    np.testing.assert_allclose(np.hypot(errors.along, errors.across), errors.distance, rtol=1e-3)


def test_bad_requests_are_refused():
    best = tracks_of(straight(0, 100, 0, 1))
    late = best.assign(time=best.time + np.timedelta64(3, "h"))
    with pytest.raises(DataError, match=r"The tracks run from 2020-09-01 00:00:00 .* at the times that both have"):
        match_tracks(best, late)
    with pytest.raises(DataError, match="In the best tracks there is no track_id"):
        match_tracks(best, best.drop_vars("track_id"))
    with pytest.raises(ConfigurationError, match="first=5, common=4"):
        match_tracks(best, best, first=5)
