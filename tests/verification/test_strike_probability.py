"""Strike and genesis probabilities: against paths cut into small steps, and ensembles whose members are counted by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from test_great_circle import interpolated
from vortices import archive, separation

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification.cyclone_tracks import Rules, track
from aeris.verification.great_circle import EARTH_RADIUS
from aeris.verification.strike_probability import genesis_probability, strike_probability
from aeris.verification.track_table import read_tracks, table, write_tracks

GRID = Grid.regular(91, 180)
START = pd.Timestamp("2020-09-01")


def ensemble(*walks: tuple[int, list[tuple[float, float]]], members: int = 4, first: int = 1) -> xr.Dataset:
    """Tracks of members, six-hourly from the lead `first` × 6 h."""
    frames = []
    for number, (member, places) in enumerate(walks):
        leads = 6.0 * (first + np.arange(len(places)))
        columns = {"track_id": number, "number": member, "initial_time": START, "lead": leads}
        time = START + pd.to_timedelta(leads, unit="h")
        frames.append(pd.DataFrame(columns | {"time": time, "lat": [p[0] for p in places], "lon": [p[1] for p in places]}))
    tracked = '{"2020-09-01T00:00:00": [' + ", ".join(map(str, range(members))) + "]}"
    return table(pd.concat(frames), {"tracked": tracked, "leads": np.arange(1, 21) * 6.0})


WALKS = (
    (0, [(12.0, 352.0), (14.0, 358.5), (17.0, 4.0), (25.0, 6.0)]),
    (0, [(13.0, 352.0), (15.0, 358.5)]),
    (1, [(11.0, 355.0), (12.0, 1.0), (12.0, 1.0), (16.0, 8.0)]),
    (2, [(-15.0, 178.0), (-18.0, 183.0)]),
)


@pytest.mark.parametrize("within", [120.0, 300.0])
def test_strikes_are_those_of_paths_in_small_steps(within):
    probability = strike_probability(ensemble(*WALKS), GRID, within=within)
    count = np.zeros(GRID.shape)
    sure = np.ones(GRID.shape, dtype=bool)
    for member in range(3):
        nearest = np.full(GRID.shape, np.inf)
        for number, places in WALKS:
            for start, end in pairwise(places) if number == member else ():
                for point in zip(*interpolated(start, end, 200), strict=True):
                    arcs = separation(*point, GRID.latitude[:, None], GRID.longitude)
                    nearest = np.minimum(nearest, EARTH_RADIUS * np.deg2rad(arcs))
        sure &= np.abs(nearest - within) > 1.0
        count += nearest <= within
    assert sure.mean() > 0.99 and count.max() == (2 if within == 300 else 1)
    np.testing.assert_array_equal(probability.values[sure], count[sure] / 4)
    assert probability.attrs["units"] == "1" and f"within {within:g} km" in probability.attrs["long_name"]


def test_a_region_has_the_probabilities_of_the_globe():
    whole = strike_probability(ensemble(*WALKS), GRID, within=300.0)
    region = whole.sel(latitude=slice(30, 0), longitude=slice(0, 20))
    xr.testing.assert_equal(strike_probability(ensemble(*WALKS), region, within=300.0), region)


def test_only_the_window_counts():
    tracks = ensemble((0, [(10.0, 20.0), (10.0, 30.0), (10.0, 40.0), (10.0, 50.0)]))
    probability = strike_probability(tracks, GRID, within=150.0, window=("2020-09-01T12", "2020-09-01T18"))
    struck = probability.longitude[(probability.sel(latitude=10) > 0)].values
    assert struck.tolist() == [30, 32, 34, 36, 38, 40] or struck.tolist() == [*range(30, 41, 2)]
    assert float(strike_probability(tracks, GRID, window=("2020-09-02T12", "2020-09-03")).max()) == 0.0


def test_members_without_a_cyclone_are_members():
    fc = archive(GRID, [[[(12.1, 30.0 + step, 4000.0) for step in range(12)]], [[None] * 12]])
    tracks = track(fc)
    assert float(strike_probability(tracks, fc).max()) == 0.5
    none = track(fc.isel(number=[1]))
    assert float(strike_probability(none, fc).max()) == 0.0


def test_of_several_forecasts_one_is_named(tmp_path):
    one = archive(GRID, [[[(12.1, 30.0 + step, 4000.0) for step in range(12)]]] * 2)
    other = archive(GRID, [[[None] * 12]] * 2, start="2020-09-05")
    tracks = track(xr.concat([one, other], "time"))
    with pytest.raises(DataError, match="2 initial times from 2020-09-01 00:00:00 to 2020-09-05"):
        strike_probability(tracks, GRID)
    assert float(strike_probability(tracks, GRID, initial_time="2020-09-01").max()) == 1.0
    assert float(strike_probability(tracks, GRID, initial_time="2020-09-05").max()) == 0.0
    with pytest.raises(DataError, match="no forecast of 2020-09-03"):
        strike_probability(tracks, GRID, initial_time="2020-09-03")
    write_tracks(tracks, tmp_path / "tracks.csv")
    bare = read_tracks(tmp_path / "tracks.csv")
    with pytest.raises(DataError, match="2 members have a track; how many were tracked is not known"):
        strike_probability(bare, GRID)
    assert float(strike_probability(bare, GRID, members=8).max()) == 0.25
    with pytest.raises(ConfigurationError, match="members=1"):
        strike_probability(bare, GRID, members=1)


def born(longitude: float, first: int = 4, member: int = 0, latitude: float = 12.0):
    return ensemble((member, [(latitude, longitude), (latitude, longitude + 1)]), first=first)


WEEK = ("2020-09-01", "2020-09-07")


@pytest.mark.parametrize(
    ("tracks", "region", "window", "probability"),
    [
        (born(355.0), (5, 25, 340, 20), WEEK, 0.25),
        (born(5.0), (5, 25, 340, 380), WEEK, 0.25),
        (born(5.0), (5, 25, -20, 20), WEEK, 0.25),
        (born(185.0), (5, 25, 170, -170), WEEK, 0.25),
        (born(30.0), (5, 25, 340, 20), WEEK, 0.0),
        (born(355.0), (5, 25, 0, 360), WEEK, 0.25),
        (born(355.0, latitude=30.0), (5, 25, 0, 360), WEEK, 0.0),
        (born(355.0, first=1), (5, 25, 0, 360), WEEK, 0.0),  # it is there from the beginning
        (born(355.0), (5, 25, 0, 360), ("2020-09-03", "2020-09-07"), 0.0),
    ],
)
def test_genesis(tracks, region, window, probability):
    assert genesis_probability(tracks, region=region, window=window) == probability


def test_two_births_in_one_member_are_one_member():
    walks = [(0, [(12.0, 10.0), (12.0, 11.0)]), (0, [(12.0, 40.0), (12.0, 41.0)]), (3, [(12.0, 70.0), (12.0, 71.0)])]
    assert genesis_probability(ensemble(*walks, first=4), region=(5, 25, 0, 360), window=WEEK) == 0.5


def test_a_known_cyclone_that_is_found_late_is_not_new():
    times = pd.date_range(START - pd.Timedelta("1D"), periods=12, freq="6h")
    known = table(pd.DataFrame({"track_id": "A", "time": times, "lat": 13.0, "lon": 355.5}))
    new = table(pd.DataFrame({"track_id": "A", "time": times[6:], "lat": 13.0, "lon": 355.5}))
    request = {"region": (5, 25, 0, 360), "window": WEEK}
    assert genesis_probability(born(355.0), **request, known=known) == 0.0
    assert genesis_probability(born(355.0), **request, known=new) == 0.25
    assert genesis_probability(born(300.0), **request, known=known) == 0.25


def test_genesis_in_a_forecast_that_was_tracked():
    late = [None] * 4 + [(12.1, 30.0 + step, 4000.0) for step in range(12)]
    early = [(12.1, 30.0 + step, 4000.0) for step in range(16)]
    tracks = track(archive(GRID, [[late], [early], [[None] * 16]]), rules=Rules())
    assert genesis_probability(tracks, region=(0, 30, 0, 90), window=WEEK) == pytest.approx(1 / 3)


def test_bad_requests_are_refused():
    tracks = born(355.0)
    for wrong, words in [
        ({"within": 0.0}, "within=0.0"),
        ({"window": ("2020-09-07", "2020-09-01")}, "before the last"),
        ({"window": ("soon", "later")}, "window="),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            strike_probability(tracks, GRID, **wrong)
    with pytest.raises(ConfigurationError, match="south, north, west, east"):
        genesis_probability(tracks, region=(25, 5, 0, 360), window=WEEK)
    with pytest.raises(DataError, match="no tracks of a forecast"):
        strike_probability(tracks.drop_vars(["initial_time", "number", "lead"]).drop_attrs(), GRID)
