"""Tracks: vortices on known paths over 0° and 180°, those of TempestExtremes joined anew, and Michael in the winds of GFS."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from vortices import LEAD, analyses, archive, separation
from xarray.core import indexing

import aeris
from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification.best_tracks import read_hurdat2
from aeris.verification.cyclone_tracks import Rules, stitch, track
from aeris.verification.track_table import one_forecast, read_tracks, tracked_members, write_tracks

GRID = Grid.regular(91, 180)
STEPS = 12


def path(latitude: float, longitude: float, north: float = 0.4, east: float = 1.5, steps: int = STEPS, depth: float = 4000.0):
    return [(latitude + north * step, longitude + east * step, depth) for step in range(steps)]


def nearest(places) -> list[list[float]]:
    """The grid points of `GRID` nearest to centres."""
    return [[round(place[0] / 2) * 2.0, round(place[1] / 2) * 2.0 % 360] for place in places]


def of_track(tracks: xr.Dataset, number: int) -> pd.DataFrame:
    frame = tracks.to_dataframe()
    return frame[frame.track_id == number]


@pytest.mark.parametrize("start", [-8.3, 171.7, 100.7])
def test_a_vortex_is_followed_over_the_meridians(start):
    course = path(12.1, start)
    tracks = track(analyses(GRID, [course]))
    assert np.unique(tracks.track_id).tolist() == [0]
    assert of_track(tracks, 0)[["lat", "lon"]].to_numpy().tolist() == nearest(course)
    assert tracks.time.values.tolist() == analyses(GRID, [course]).time.values.tolist()


def test_members_are_tracked_for_themselves():
    east, west = path(12.1, 351.2), path(-12.1, 60.3, north=-0.4, east=-1.5)
    fc = archive(GRID, [[east, west], [[None] * STEPS], [west]])
    tracks = track(fc)
    frame = tracks.to_dataframe()
    assert [tuple(key) for key, _ in frame.groupby(["track_id", "number"])] == [(0, 0), (1, 0), (2, 2)]
    assert frame.initial_time.unique().tolist() == [fc.time.values[0]]
    assert (frame.time == frame.initial_time + pd.to_timedelta(frame.lead, unit="h")).all()
    assert of_track(tracks, 2)[["lat", "lon"]].to_numpy().tolist() == nearest(west)
    assert of_track(tracks, 2).lead.tolist() == list(np.arange(6.0, 73, 6))
    assert tracked_members(tracks) == {pd.Timestamp("2020-09-01"): [0, 1, 2]}


@pytest.mark.parametrize(("missing", "count"), [(1, 1), (3, 1), (4, 2)])
def test_a_gap_of_a_day_is_bridged_and_not_more(missing, count):
    """Three missing times lie between points 24 h apart."""
    course: list = path(12.1, 351.2, east=0.4, steps=32)
    course[12 : 12 + missing] = [None] * missing
    assert len(np.unique(track(analyses(GRID, [course])).track_id)) == count


def test_a_leap_begins_another_track():
    course = path(12.1, 340.0) + path(12.1, 20.0)
    assert len(np.unique(track(analyses(GRID, [course])).track_id)) == 2


def test_what_is_dropped_is_counted():
    brief, weak, far = path(12.1, 30.0, steps=5), path(12.1, 100.0, depth=900.0), path(48.0, 200.0, north=0.6)
    once = [(12.0, 290.0, 4000.0)] + [None] * (STEPS - 1)
    paths = [brief + [None] * (STEPS - 5), weak, far, once, path(-14.0, 250.0)]
    tracks = track(analyses(GRID, paths))
    assert len(np.unique(tracks.track_id)) == 1
    assert {name: tracks.attrs[name] for name in ("short", "weak", "poleward", "unjoined")} == dict.fromkeys(
        ["short", "weak", "poleward", "unjoined"], 1
    )
    looser = Rules(shortest="0h", wind=0, count=0)
    assert len(np.unique(track(analyses(GRID, paths), rules=looser).track_id)) == 5


def test_without_winds_they_are_not_asked_for():
    ds = analyses(GRID, [path(12.1, 30.0)])[["mean_sea_level_pressure"]]
    tracks = track(ds)
    assert "wind10" not in tracks and tracks.sizes["record"] == STEPS
    assert "no warm core" in tracks.attrs["criteria"]


def test_no_cyclone_is_no_error():
    tracks = track(archive(GRID, [[[None] * STEPS]] * 2))
    assert tracks.sizes["record"] == 0
    assert {"track_id", "time", "lat", "lon", "slp", "wind10", "initial_time", "number", "lead"} <= set(tracks)
    assert tracks.time.dtype.kind == "M"
    assert tracked_members(one_forecast(tracks)) == {pd.Timestamp("2020-09-01"): [0, 1]}


def test_a_member_that_is_not_whole_is_left_out_and_told():
    fc = archive(GRID, [[path(12.1, 30.0)]] * 3)
    fc["10m_u_component_of_wind"][{"number": 1, LEAD: 4}] = np.nan
    tracks = track(fc)
    assert np.unique(tracks.number).tolist() == [0, 2]
    assert tracks.attrs["left_out"] == 1 and tracks.attrs["left_out_members"] == "initial_time 2020-09-01T00:00 number 1"
    assert tracked_members(tracks) == {pd.Timestamp("2020-09-01"): [0, 2]}
    with pytest.raises(DataError, match=r"Every member lacks a field: initial_time 2020-09-01T00:00 number 1"):
        track(fc.isel(number=[1]))


class Counting(xr.backends.BackendArray):
    """Values on a disk that tells how many are read at once."""

    def __init__(self, values: np.ndarray, reads: list[int]) -> None:
        self.values, self.reads, self.shape, self.dtype = values, reads, values.shape, values.dtype

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key):
        part = self.values[key]
        self.reads.append(part.size)
        return part


def test_an_archive_is_read_field_by_field():
    fc = archive(GRID, [[path(12.1, 30.0)]] * 2)
    reads: list[int] = []
    lazy = fc.map(lambda field: field.copy(data=indexing.LazilyIndexedArray(Counting(field.values, reads))))
    xr.testing.assert_identical(track(lazy), track(fc))
    assert max(reads) == GRID.shape[0] * GRID.shape[1]
    assert len(reads) == 2 * STEPS * 5  # pressure, two winds, two levels


def test_an_archive_on_disk_is_tracked(tmp_path):
    fc = archive(GRID, [[path(12.1, 30.0)]])
    fc.to_zarr(tmp_path / "fc.zarr", consolidated=False)
    xr.testing.assert_identical(track(tmp_path / "fc.zarr"), track(fc))


@pytest.mark.parametrize(
    ("first", "second", "together"), [([100, 103], [101], [0, 1, 0]), ([100], [101, 104], [0, 0, 1]), ([0.5], [359.5, 3.5], [0, 0, 1])]
)
def test_a_candidate_belongs_to_one_track_the_nearest(first, second, together):
    times = [pd.Timestamp("2020-09-01")] * len(first) + [pd.Timestamp("2020-09-01T06")] * len(second)
    points = pd.DataFrame({"time": times, "lat": 10.0, "lon": [*map(float, [*first, *second])]})
    assert stitch(points, Rules()).tolist() == together


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 360), st.integers(0, 2**32 - 1))
def test_joining_knows_neither_longitude_nor_order(turn, seed):
    """Turned about the axis and with the candidates of each time in another order, the same points belong together."""
    rng = np.random.default_rng(seed)
    walks = [np.cumsum(np.vstack([[rng.uniform(-30, 30), rng.uniform(0, 360)], rng.normal(0, 1.5, (9, 2))]), axis=0) for _ in range(6)]
    times = pd.date_range("2020-09-01", periods=10, freq="6h")
    points = pd.concat([pd.DataFrame({"time": times, "lat": walk[:, 0], "lon": walk[:, 1] % 360}) for walk in walks], ignore_index=True)
    points["key"] = np.arange(len(points))
    turned = points.sample(frac=1, random_state=seed).assign(lon=lambda frame: (frame.lon + turn) % 360).reset_index(drop=True)

    def together(frame):
        return {frozenset(group.key) for _, group in frame.groupby(stitch(frame, Rules()))}

    assert together(points) == together(turned)


def test_the_tracks_of_tempestextremes_are_found_again_from_their_points(shared_data):
    """Its own points of the tropical cyclones of 1996 in ERA5, their numbers taken away."""
    points = read_tracks(shared_data / "huracanpy" / "ERA5_1996_UZ.csv").to_dataframe().sort_values("time").reset_index(drop=True)
    points["found"] = stitch(points, Rules())
    assert len(points) == 2274 and points.track_id.nunique() == 89
    assert len(points[["track_id", "found"]].drop_duplicates()) == points.found.nunique() == 89


def test_michael_in_the_winds_of_gfs(shared_data):
    """The maximum of the wind lies within 2° of the best track while that is a hurricane; one analysis is missing on the way."""
    ds = aeris.open_era5(shared_data / "simple-wind" / "gfs_1deg_u10v10_6h_20181006-20181016_michael.nc")
    best = read_hurdat2(shared_data / "hurdat" / "hurdat2_AL_EP_1980-2019.csv.gz").to_dataframe()
    best = best[(best.track_id == "AL142018") & (best.status == "HU")]
    tracks = track(ds.sel(time=slice("2018-10-06", "2018-10-12")), rules=Rules(wind=17.0)).to_dataframe()
    both = tracks.merge(best, on="time", suffixes=("", "_best"))
    both["arc"] = [separation(*row) for row in both[["lat_best", "lon_best", "lat", "lon"]].to_numpy()]
    michael = both[both["arc"] < 5]
    assert michael.track_id.nunique() == 1
    assert len(michael) == best.time.isin(ds.time.values).sum() == 10
    assert michael["arc"].max() < 2.0 and michael["arc"].median() < 0.7
    assert michael.wind10.max() == pytest.approx(43.8, abs=0.05)


@pytest.mark.parametrize("ending", ["csv", "nc"])
def test_huracanpy_reads_what_is_written(tmp_path, ending):
    huracanpy = pytest.importorskip("huracanpy")
    tracks = track(archive(GRID, [[path(12.1, 351.2), path(-12.1, 60.3)]] * 2))
    file = tmp_path / f"tracks.{ending}"
    write_tracks(tracks, file)
    theirs = huracanpy.load(str(file))
    assert theirs.time.dtype.kind == "M"
    for name in ("track_id", "time", "lat", "lon", "slp", "wind10", "number", "lead"):
        np.testing.assert_array_equal(theirs[name], tracks[name], err_msg=name)
    xr.testing.assert_equal(read_tracks(file), tracks)
    if ending == "nc":
        assert json.loads(read_tracks(file).attrs["tracked"]) == {"2020-09-01T00:00:00": [0, 1]}


def test_a_table_of_others_is_read(shared_data):
    table = read_tracks(
        shared_data / "earth2studio" / "reference_track_helene_2024_north_atlantic.csv", rename={"msl": "slp", "wind_speed": "wind10"}
    )
    raw = pd.read_csv(shared_data / "earth2studio" / "reference_track_helene_2024_north_atlantic.csv")
    assert table.attrs["left_out"] == raw.lat.isna().sum() > 0
    assert table.sizes["record"] == raw.lat.notna().sum()
    assert table.slp.values.tolist() == raw.msl.dropna().tolist()
    assert table.time.values[0] == np.datetime64("2024-09-24T00", "ns")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("track_id,time,lat\n0,2020-09-01,10\n", ["No column lon"]),
        ("track_id,time,lat,lon\n0,someday,10,20\n", ["time in", "cannot be read"]),
        ("track_id,time,lat,lon\n0,2020-09-01,10,20\n0,2020-09-01,11,20\n", ["Track 0", "two places"]),
        ("track_id,time,lat,lon\n0,2020-09-01,100,20\n", ["1 of 1 records", "place on earth"]),
    ],
)
def test_a_bad_table_is_refused(tmp_path, text, words):
    (tmp_path / "tracks.csv").write_text(text)
    with pytest.raises(DataError) as refusal:
        read_tracks(tmp_path / "tracks.csv")
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_bad_requests_are_refused(tmp_path):
    ds = analyses(GRID, [path(12.1, 30.0, steps=2)])
    for spoil, words in [
        (ds.isel(time=0, drop=True), "Tracks need time"),
        (ds.isel(time=[1, 0]), "does not rise"),
        (ds.expand_dims(scenario=2), "scenario"),
    ]:
        with pytest.raises(DataError, match=words):
            track(spoil)
    for wrong in ({"gap": "soon"}, {"shortest": "-6h"}, {"reach": 0.0}, {"count": -1}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            Rules(**wrong)
    with pytest.raises(ConfigurationError, match=r"\.csv or \.nc"):
        write_tracks(track(ds), tmp_path / "tracks.txt")
    with pytest.raises(DataError, match="no file"):
        read_tracks(tmp_path / "none.csv")
