"""Storm tracks: whole across the date line and Greenwich, those of the forecast from the initial time, real ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from cartopy import crs

import aeris
from aeris.errors import DataError
from aeris.views.storm_tracks import during, lines, points, read_tracks, storm_table

LEAD = "prediction_timedelta"


def storm(track_id: int, start: str, longitude: np.ndarray, latitude: float = 20.0) -> pd.DataFrame:
    time = pd.date_range(start, periods=len(longitude), freq="6h")
    return pd.DataFrame({"track_id": track_id, "time": time, "lat": latitude, "lon": longitude, "wind10": 20.0 + np.arange(len(longitude))})


@pytest.mark.parametrize("centre", [0.0, 180.0, 90.0])
@pytest.mark.parametrize("middle", [0.0, 180.0])
@pytest.mark.parametrize("turn", [lambda lon: lon % 360, lambda lon: (lon + 180) % 360 - 180], ids=["0 to 360", "-180 to 180"])
def test_no_line_crosses_the_map(centre, middle, turn):
    """A storm that moves 20 degrees east is 20 degrees of line, wherever the map is cut and however longitudes are counted."""
    table = read_tracks(storm(1, "2001-01-01", turn(np.linspace(middle - 10, middle + 10, 9)), latitude=0.0))
    drawn = lines(table, crs.PlateCarree(centre))
    steps = np.concatenate([np.diff(line[:, 0]) for line in drawn])
    assert np.abs(steps).max() < 5 and np.abs(steps).sum() == pytest.approx(20, abs=0.1)


def test_tracks_are_those_of_the_forecast(forecast):
    times, leads = forecast.forecast.time.values, forecast.forecast[LEAD].values
    first = storm(1, str(times[0] - np.timedelta64(12, "h")), np.arange(20.0, 40.0, 2.0))
    late = storm(2, str(times[0] + np.timedelta64(30, "h")), np.arange(20.0, 40.0, 2.0))
    table = read_tracks(pd.concat([late, first]))
    chosen = during(table, times[0], leads)
    assert set(chosen.track_id) == {1} and len(chosen) == 5  # the initial time and four six-hourly leads
    named = read_tracks(pd.concat([first.assign(initial_time=times[0], number=0), first.assign(initial_time=times[1], number=1)]))
    assert set(during(named, times[0], leads).number) == {0}


def test_the_explorer_draws_tracks_and_lists_storms(forecast):
    start = forecast.forecast.time.values[0]
    table = storm(7, str(start), np.linspace(168.0, 188.0, 5))
    app = aeris.explore(forecast.forecast, forecast.truth, tracks=table.to_xarray())
    assert {tuple({*np.sign(line[:, 0])}) for line in app.picture.storms} == {(1.0,), (-1.0,)}  # two sides of one map
    np.testing.assert_allclose(app.picture.centres, [[173.0, 20.0]])
    app.lead = app.reader.leads[1]
    np.testing.assert_allclose(app.picture.centres, [[-172.0, 20.0]])
    app.centre = 180.0
    assert min(line[:, 0].min() for line in app.picture.storms) == pytest.approx(-12.0)  # from the middle of the map
    app.tab = 5
    row = app.drawn[1].object.iloc[0]
    assert row["storm"] == 7 and row["begins (UTC)"] == pd.Timestamp(start).strftime("%Y-%m-%d %H") and row["strongest wind"] == 24.0
    with pytest.raises(ValueError, match="tab"):
        aeris.explore(forecast.forecast).tab = 5


def test_a_table_without_places_is_refused(forecast):
    with pytest.raises(DataError, match="no lat, lon"):
        aeris.explore(forecast.forecast, tracks=pd.DataFrame({"track_id": [1], "time": ["2001-01-01"]}))


def test_a_storm_behind_the_globe_is_not_drawn():
    table = read_tracks(storm(1, "2001-01-01", np.array([170.0, 172.0])))
    assert len(points(table, np.datetime64("2001-01-01"), crs.Orthographic(0.0))) == 0
    assert len(points(table, np.datetime64("2001-01-01"), crs.Orthographic(180.0))) == 1
    assert lines(table, crs.Orthographic(0.0)) == []


def test_real_tracks_lie_where_they_were(shared_data):
    """A year of tropical cyclones: every line stays near its records, though two of them cross Greenwich."""
    path = shared_data / "huracanpy" / "ERA5_1996_UZ.csv"
    table = read_tracks(pd.read_csv(path, parse_dates=["time"]))
    assert len(storm_table(table)) == 89 and storm_table(table)["lowest pressure"].min() == table.slp.min()
    for centre in (0.0, 180.0):
        drawn = lines(table, crs.PlateCarree(centre))
        assert max(np.abs(np.diff(line[:, 0])).max() for line in drawn) < 15
    tracks = xr.Dataset({name: ("record", table[name]) for name in table})
    assert read_tracks(tracks).track_id.nunique() == 89
