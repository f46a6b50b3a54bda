"""Archives in the shapes in which WeatherBench 2 publishes them, opened and scored beside a forecast of another grid."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import dask.array
import numpy as np
import pytest
import xarray as xr
from test_scores import LEAD, refused

import aeris
from aeris.cli import main
from aeris.data.grid import Grid, regrid
from aeris.errors import DataError, StoreError
from aeris.verification.pairing import pair
from aeris.verification.references import meet, open_reference

Shape = Callable[[xr.Dataset], xr.Dataset]


def refined(archive: xr.Dataset) -> xr.Dataset:
    """The same on a grid of twice the rows and three times the columns, every cell cut into six of its value."""
    rows, columns = archive.sizes["latitude"], archive.sizes["longitude"]
    fine = archive.isel(latitude=np.repeat(np.arange(rows), 2), longitude=np.roll(np.repeat(np.arange(columns), 3), -1))
    grid = Grid.regular(2 * rows, 3 * columns)
    return fine.assign_coords(latitude=grid.latitude, longitude=grid.longitude)


def from_the_south(archive: xr.Dataset, members: str | None = None) -> xr.Dataset:
    """Rows rising and longitude before latitude, in float32, with a lead zero and a variable that no truth holds."""
    turned = archive.isel(latitude=slice(None, None, -1)).astype("float32")
    zero = turned.isel({LEAD: [0]}).assign_coords({LEAD: np.array([0], "timedelta64[ns]")})
    turned = xr.concat([zero + 99, turned], LEAD)
    turned["total_precipitation_24hr"] = turned["2m_temperature"] * 0
    turned = turned.assign_coords(latitude=turned.latitude.astype("float32"), longitude=turned.longitude.astype("float32"))
    turned = turned.transpose(..., LEAD, "level", "longitude", "latitude")
    return turned.rename(number=members) if members else turned


def ifs_ens(archive: xr.Dataset) -> xr.Dataset:
    """``(time, number, prediction_timedelta, [level,] longitude, latitude)``, members from one, levels of 32 bits."""
    ens = from_the_south(archive.assign_coords(number=np.arange(1, archive.sizes["number"] + 1), level=archive.level.astype("int32")))
    return ens.transpose("time", "number", LEAD, "level", "longitude", "latitude")


def ifs_hres(archive: xr.Dataset) -> xr.Dataset:
    """No members at all."""
    hres = from_the_south(archive.isel(number=0, drop=True))
    hres["geopotential"].attrs = {"units": "m**2 s**-2", "standard_name": "geopotential"}
    hres["2m_temperature"].attrs = {"units": "K", "short_name": "t2m"}
    return hres


def gencast(archive: xr.Dataset) -> xr.Dataset:
    """``sample`` for members, before the initial time."""
    return from_the_south(archive, "sample").transpose("sample", "time", ...)


def neuralgcm(archive: xr.Dataset) -> xr.Dataset:
    """``realization`` for members."""
    return from_the_south(archive, "realization")


def graphcast(archive: xr.Dataset) -> xr.Dataset:
    """A single forecast with the shorter names of its coordinates, from -180°."""
    single = from_the_south(archive.isel(number=0, drop=True))
    west = single.assign_coords(longitude=(single.longitude + 180) % 360 - 180).sortby("longitude")
    return west.rename(latitude="lat", longitude="lon")


def renamed(archive: xr.Dataset) -> xr.Dataset:
    """``init_time`` and ``lead_time``, the leads in hours without a unit."""
    other = from_the_south(archive).rename({"time": "init_time", LEAD: "lead_time"})
    return other.assign_coords(lead_time=(other.lead_time.values / np.timedelta64(1, "h")).astype("int64"))


SHAPES = [ifs_ens, ifs_hres, gencast, neuralgcm, graphcast, renamed]


def written(ds: xr.Dataset, path: Path) -> Path:
    """Zarr 2 with consolidated metadata, one lead a chunk."""
    lead = LEAD if LEAD in ds.dims else "lead_time"
    ds.chunk({lead: 1}).to_zarr(path, zarr_format=2, consolidated=True)
    return path


@pytest.fixture
def three(beside) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """A forecast, its truth, and another forecast, all on one grid."""
    fc, truth = beside(dates=4)
    return fc, truth, beside(members=3, dates=4, seed=9)[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_published_shape_becomes_an_archive(three, shape: Shape, tmp_path):
    other = three[2]
    found = open_reference(written(shape(other), tmp_path / "published.zarr"))
    single = shape in (ifs_hres, graphcast)
    assert set(found.dims) == {"time", LEAD, "level", "latitude", "longitude"} | (set() if single else {"number"})
    assert set(found.data_vars) == {"2m_temperature", "geopotential", "total_precipitation_24hr"}
    assert not any(field.variable._in_memory for field in found.values()), "read before anybody asked"
    expected = other.isel(number=0, drop=True) if single else other
    found = found[list(expected)].transpose(*expected["geopotential"].dims).sel({LEAD: other[LEAD]}).assign_coords(expected.coords)
    xr.testing.assert_allclose(found.load(), expected.astype("float32").drop_attrs())
    assert not (found == 99).any().to_array().any()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_published_archive_is_scored_as_if_it_stood_on_our_grid(three, shape: Shape, tmp_path):
    fc, truth, other = three
    path = written(shape(refined(other)), tmp_path / "published.zarr")
    s = aeris.verify(fc, truth, baselines=("persistence", {"theirs": path}))
    single = shape in (ifs_hres, graphcast)
    expected = aeris.verify(other.isel(number=[0]) if single else other, truth, baselines=())
    for name, scores in expected.items():
        np.testing.assert_allclose(s[name].sel(system="theirs"), scores.sel(system="forecast"), rtol=1e-5, atol=1e-6, err_msg=str(name))
    xr.testing.assert_allclose(s.sel(system=["forecast", "persistence"]), aeris.verify(fc, truth)[list(s.data_vars)])
    assert "averaged from the grid 16×48" in s.attrs["references"]
    assert "theirs: one member;" in s.attrs["references"] if single else "theirs: 3 members;" in s.attrs["references"]


def test_a_variable_that_the_registry_does_not_know_is_compared_too(three):
    fc, truth, other = (ds[["2m_temperature"]].rename({"2m_temperature": "total_precipitation_24hr"}) for ds in three)
    s = aeris.verify(fc, truth, baselines={"theirs": refined(other)})
    assert s["crps.total_precipitation_24hr"].sel(system="theirs").notnull().all()


def test_a_grid_that_does_not_divide(three):
    fc, truth, _ = three
    rng = np.random.default_rng(3)
    grid = Grid(np.linspace(90, -90, 14), np.arange(25) * 14.4)
    sizes = {**fc.sizes, "latitude": 14, "longitude": 25}
    fields = {name: (field.dims, rng.standard_normal([sizes[dim] for dim in field.dims])) for name, field in fc.items()}
    theirs = xr.Dataset(fields, {**fc.coords, "latitude": grid.latitude, "longitude": grid.longitude})
    s = aeris.verify(fc, truth, baselines={"theirs": theirs})
    expected = aeris.verify(regrid(theirs, Grid.of(fc)), truth, baselines=())
    np.testing.assert_allclose(s["crps.geopotential"].sel(system="theirs"), expected["crps.geopotential"][0])


def test_initial_times_that_a_reference_lacks_are_left_out_for_all_and_counted(three):
    fc, truth, other = three
    s = aeris.verify(fc, truth, baselines=("persistence", {"A": other.isel(time=[0, 1, 3]), "B": other.isel(time=[1, 2, 3])}))
    expected = aeris.verify(fc.isel(time=[1, 3]), truth, baselines=("persistence", {"A": other, "B": other}))
    xr.testing.assert_allclose(s, expected)
    assert s.attrs["initial_times"] == 2
    first = "A: 3 members; 1 of 4 initial times are left out because it lacks them, the first 2020-02-03T00:00"
    assert s.attrs["references"] == f"{first}. {first.replace('A', 'B', 1).replace('03T', '01T')}"
    with refused(DataError, "'?A and B", "no initial time in common"):
        aeris.verify(fc, truth, baselines={"A": other.isel(time=[0, 1]), "B": other.isel(time=[2])})


def test_what_a_reference_alone_lacks_is_missing_of_it_alone(three):
    fc, truth, other = three
    less = other[["geopotential"]].sel(level=[850]).isel({LEAD: [1]})
    s, whole = (aeris.verify(fc, truth, baselines={"theirs": one}) for one in (less, other))
    xr.testing.assert_allclose(s.sel(system="forecast"), whole.sel(system="forecast"))
    theirs, there = s.sel(system="theirs"), {LEAD: [1], "level": [1]}
    for score in ("rmse", "crps", "spread", "spread_skill"):
        expected = whole.sel(system="theirs")[f"{score}.geopotential"].isel(there)
        xr.testing.assert_allclose(theirs[f"{score}.geopotential"].isel(there), expected)
        assert theirs[f"{score}.geopotential"].notnull().sum() == 1
        assert theirs[f"{score}.2m_temperature"].isnull().all()
    assert s.attrs["references"] == "theirs: 3 members; it lacks 2m_temperature, leads 6 h, levels 500 hPa"


def test_a_sea_with_another_coast_is_left_out_for_all_and_counted(three):
    fc, truth, other = three
    rename = {"2m_temperature": "sea_surface_temperature"}
    land, theirs = (truth.longitude < east for east in (100, 170))
    sea = truth.rename(rename).assign(sea_surface_temperature=truth["2m_temperature"].where(~land))
    fc, other = fc.rename(rename), other.rename(rename)
    beyond = other.assign(sea_surface_temperature=other.sea_surface_temperature.where(~theirs))
    beyond["sea_surface_temperature"][{"time": 0}] = np.nan  # a forecast that is not there says nothing of the coast
    s = aeris.verify(fc, sea, baselines=("persistence", {"theirs": refined(beyond)}))
    narrower = sea.assign(sea_surface_temperature=sea.sea_surface_temperature.where(~(land | theirs)))
    expected = aeris.verify(fc, narrower, baselines=("persistence", {"theirs": other}))
    xr.testing.assert_allclose(s.sel(system=["forecast", "persistence"]), expected.sel(system=["forecast", "persistence"]))
    assert s["rmse.sea_surface_temperature"].sel(system="theirs").notnull().all()
    cells = int(((theirs & ~land) * xr.ones_like(truth.latitude)).sum())
    assert f"{cells} cells of sea_surface_temperature are left out" in s.attrs["references"]
    assert "geopotential" not in s.attrs["references"]


def test_a_coarser_reference_is_refused(three):
    fc, truth, other = three
    with refused(DataError, "'theirs' stands on the grid 4×8", "coarser", "aeris.regrid"):
        aeris.verify(fc, truth, baselines={"theirs": aeris.coarsen(other, (4, 8))})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ds: ds.isel({LEAD: 0}), (r"\bDataset has the dimensions", "prediction_timedelta or lead_time")),
        (lambda ds: ds.isel(time=0), ("time or init_time",)),
        (lambda ds: ds.assign_coords({LEAD: [6 * 3600 * 10**9, 24 * 3600 * 10**9]}), ("leads of", "21600000000000", "or hours")),
        (lambda ds: ds.assign_coords({LEAD: (LEAD, [1, 2], {"units": "fortnights"})}), ("in fortnights", "or hours")),
        (lambda ds: ds.assign_coords({LEAD: ["6h", "24h"]}), ("6h", "or hours")),
        (lambda ds: ds.isel(time=[0, 1, 1]), ("time 2020-02-02", "stands twice", "drop_duplicates")),
        (lambda ds: ds.rename({name: f"x_{name}" for name in ds.data_vars}), ("'theirs' holds x_2m_temperature", "in common")),
        (lambda ds: ds[["geopotential"]].mean("latitude").assign_coords(latitude=[2.0, 1.0]), ("holds geopotential, none with",)),
        (lambda ds: ds.assign(geopotential=ds.geopotential.assign_attrs(units="m")), ("geopotential of", "is in m", r"m\*\*2")),
        (lambda ds: ds.assign(geopotential=ds.geopotential.assign_attrs(units="furlong")), ("is in furlong",)),
        (lambda ds: ds.isel(latitude=[0, 2, 1]), ("latitudes", "rise or fall")),
        (lambda ds: ds.assign_coords(level=[1, 2])[["geopotential"]], ("holds geopotential", "in common")),
        (lambda ds: ds.assign_coords({LEAD: ds[LEAD] + np.timedelta64(1, "h")}), ("at leads 7, 25 h", "at leads 6, 24 h")),
        (lambda ds: ds.sel(level=500), ("geopotential has the dimensions", "level dimension in both or in none")),
    ],
    ids=lambda value: "" if callable(value) else value[0],
)
def test_what_cannot_be_understood_is_refused(three, change, words):
    fc, truth, other = three
    with refused(DataError, *words):
        aeris.verify(fc, truth, baselines={"theirs": change(other)})


def test_nothing_at_a_path_is_told(three, tmp_path):
    fc, truth, _ = three
    with refused(StoreError, "no forecast at", "nowhere"):
        aeris.verify(fc, truth, baselines={"theirs": tmp_path / "nowhere.zarr"})


def test_only_what_is_scored_is_read(three):
    """A reference of which every other initial time, lead and level fails when it is computed."""
    fc, truth, other = three
    fine = refined(other)

    def values(block_info) -> np.ndarray:
        place = block_info[None]["array-location"]
        assert place[0][0] != 1 and place[2][0] != 1 and place[3][0] != 1, "read what nobody asked for"
        return fine["geopotential"].values[tuple(slice(*edge) for edge in place)]

    shape = fine["geopotential"].shape
    chunks = ((1,) * shape[0], (shape[1],), (1,) * shape[2], (1,) * shape[3], *((size,) for size in shape[4:]))
    lazy = dask.array.map_blocks(values, chunks=chunks, dtype="float64", meta=np.empty((0,) * 6))
    theirs = fine.assign(geopotential=(fine["geopotential"].dims, lazy))
    wanted = {"time": [0, 2, 3]}
    cut = fc[["geopotential"]].isel(wanted | {LEAD: [0], "level": [0]})
    s = aeris.verify(cut, truth, baselines={"theirs": theirs})
    assert s["rmse.geopotential"].notnull().all()
    with pytest.raises(AssertionError, match="nobody asked"):
        aeris.verify(fc[["geopotential"]], truth, baselines={"theirs": theirs})


def test_an_archive_that_is_read_lazily_is_regridded_lazily(three, tmp_path):
    """Neither opening nor meeting reads a field: the truth is all there."""
    fc, truth, other = three
    refined(other).to_zarr(tmp_path / "own.zarr", zarr_format=3, consolidated=False)
    opened = xr.open_zarr(tmp_path / "own.zarr", chunks=None, consolidated=False, decode_timedelta=True)
    met, (others,) = meet(pair(fc, truth), [{"theirs": opened}])
    assert met.absent == {} and not any(field.variable._in_memory for field in others["theirs"].values())
    s = aeris.verify(fc, truth, baselines={"theirs": opened})
    np.testing.assert_allclose(s["crps.geopotential"].sel(system="theirs"), aeris.verify(other, truth)["crps.geopotential"][0])


# ------------------------------------------------------------------ over HTTP, and from the command line


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a folder, on the loopback device."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(tmp_path))) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", tmp_path
        serving.shutdown()
        thread.join()


def test_a_reference_is_read_over_http(three, server):
    pytest.importorskip("aiohttp", reason="addresses are read with the extra 'sources'")
    fc, truth, other = three
    address, folder = server
    path = written(ifs_ens(refined(other)), folder / "ens.zarr")
    here, there = (aeris.verify(fc, truth, baselines={"IFS ENS": source}) for source in (path, f"{address}/ens.zarr"))
    xr.testing.assert_identical(here, there)


def test_the_command_line_takes_references(three, tmp_path, capsys):
    # what the command line opens is held against physical bounds
    means = {"2m_temperature": 280.0, "geopotential": xr.DataArray([55000.0, 14000.0], {"level": three[1].level}, "level")}
    units = {"2m_temperature": "K", "geopotential": "m**2 s**-2"}
    fc, truth, other = (
        ds.map(lambda field: (field + means[field.name]).transpose(*field.dims).assign_attrs(units=units[field.name])) for ds in three
    )
    truth.to_zarr(tmp_path / "truth.zarr", zarr_format=3, consolidated=False)
    fc.to_zarr(tmp_path / "fc.zarr", zarr_format=3, consolidated=False)
    path = written(gencast(refined(other.isel(time=slice(3)))), tmp_path / "gencast.zarr")
    words = ["verify", "--forecast", f"{tmp_path}/fc.zarr", "--truth", f"{tmp_path}/truth.zarr", "--out"]
    assert main([*words, f"{tmp_path}/scores.zarr", "--references", f"GenCast={path}"]) == 0
    assert "GenCast: 3 members; averaged from the grid 16×48" in capsys.readouterr().out
    scores = xr.open_zarr(tmp_path / "scores.zarr", consolidated=False, decode_timedelta=True)
    assert scores.system.values.tolist() == ["forecast", "persistence", "GenCast"] and scores.attrs["initial_times"] == 3
    for wrong, told in (([f"{path}"], "NAME=PATH"), ([f"A={path}", f"A={path}"], "A stands twice")):
        assert main([*words, f"{tmp_path}/other.zarr", "--references", *wrong]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "other.zarr").exists()
