"""Candidates for cyclones: against a flood fill in plain Python, analytic vortices, and Typhoon Hagibis."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage
from vortices import separation, state

import aeris
from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification.contours import Mesh, contour, minima
from aeris.verification.cyclone_detection import Criteria, Search, _deepest, _thickness, detect

GRID = Grid.regular(181, 360)


def flood(values: np.ndarray, ds: xr.Dataset, row: int, column: int, rise: float, radius: float, around: bool) -> str:
    """The closed contour of TempestExtremes, cell by cell from a queue; "cut" where a regional grid ends first."""
    latitude, longitude = ds.latitude.values, ds.longitude.values
    queue, seen, outcome = deque([(row, column)]), set(), "closed"
    while queue:
        here = queue.popleft()
        if here in seen:
            continue
        seen.add(here)
        if not (0 <= here[0] < len(latitude) and 0 <= here[1] < len(longitude)):
            step = [latitude[1] - latitude[0], longitude[1] - longitude[0]]
            place = latitude[0] + here[0] * step[0], longitude[0] + here[1] * step[1]
            if separation(latitude[row], longitude[column], *map(np.float64, place)) > radius:
                return "open"
            outcome = "cut"
            continue
        if separation(latitude[row], longitude[column], latitude[here[0]], longitude[here[1]]) > radius:
            return "open"
        if values[here] - values[row, column] >= rise:
            continue
        for i, j in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            queue.append((here[0] + i, (here[1] + j) % len(longitude) if around else here[1] + j))
    return outcome


def rough(shape: tuple[int, int], seed: int, smooth: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape)
    return 101_000 + 6000 * ndimage.gaussian_filter(noise, smooth, mode=("nearest", "wrap"))


def on(values: np.ndarray, latitude: np.ndarray, longitude: np.ndarray) -> xr.Dataset:
    return xr.Dataset({"mean_sea_level_pressure": (("latitude", "longitude"), values)}, {"latitude": latitude, "longitude": longitude})


@pytest.mark.parametrize("around", [True, False])
@pytest.mark.parametrize(("rise", "radius"), [(100.0, 5.5), (300.0, 8.0), (200.0, 3.0)])
def test_contours_are_those_of_a_flood_fill(around, rise, radius):
    latitude = np.arange(60, -61, -2.0)
    longitude = np.arange(0, 360, 2.0) if around else np.arange(100, 190, 2.0)
    values = rough((len(latitude), len(longitude)), seed=1)
    ds = on(values, latitude, longitude)
    mesh = Mesh.of(ds)
    assert mesh.periodic == around
    places = np.argwhere(minima(values, mesh) & (np.abs(latitude) < 50)[:, None])
    found = [contour(values, mesh, *place, rise, radius) for place in places.tolist()]
    assert found == [flood(values, ds, *place, rise, radius, around) for place in places.tolist()]
    assert {"open", "closed"} <= set(found)


def test_the_edge_of_a_region_cuts_a_contour():
    latitude, longitude = np.arange(35, -1, -1.0), np.arange(120, 161, 1.0)
    inside = detect(state(latitude, longitude, [(20, 140, 3000)]))
    edge = detect(state(latitude, longitude, [(20, 160, 3000)]))
    assert len(inside) == 1 and inside.attrs["cut"] == 0
    assert len(edge) == 0 and edge.attrs["cut"] == 1


def test_merging_is_that_of_all_pairs():
    grid = Grid.regular(91, 180)
    values = rough(grid.shape, seed=2, smooth=1.0)
    mesh = Mesh.of(on(values, grid.latitude, grid.longitude))
    counts = Counter()
    found = _deepest(values, mesh, Criteria(latitude=30, merge=7.3), counts)
    rows, columns = np.nonzero(minima(values, mesh) & (np.abs(grid.latitude) <= 30)[:, None])
    places = list(zip(rows, columns, values[rows, columns], strict=True))
    kept = []
    for row, column, value in places:
        near = separation(grid.latitude[row], grid.longitude[column], grid.latitude[rows], grid.longitude[columns]) <= 7.3
        if not (values[rows, columns][near] < value).any():
            kept.append((row, column))
    assert list(zip(*found, strict=True)) == kept
    assert counts["merged"] == len(places) - len(kept) > 100


def test_the_first_column_is_beside_the_last():
    values = rough((31, 60), seed=3, smooth=1.0)
    latitude, longitude = np.arange(30, -31, -2.0), np.arange(60) * 6.0
    found = minima(values, Mesh.of(on(values, latitude, longitude)))
    turned = minima(np.roll(values, 30, axis=1), Mesh.of(on(values, latitude, longitude)))
    assert np.array_equal(np.roll(found, 30, axis=1), turned) and found[:, [0, -1]].any()


@pytest.mark.parametrize("longitude", [0.0, 359.0, 180.0, 0.4, 90.0])
@pytest.mark.parametrize("latitude", [15.0, -20.0])
def test_a_vortex_is_found_anywhere_on_the_circle(latitude, longitude):
    found = detect(state(GRID.latitude, GRID.longitude, [(latitude, longitude, 4000)]))
    assert found[["lat", "lon"]].to_numpy().tolist() == [[latitude, round(longitude) % 360]]


def test_a_region_over_greenwich_is_one_region():
    """open_era5 puts the columns of such a region as 0..10, 350..359."""
    east = np.r_[np.arange(0, 16.0), np.arange(345, 360.0)]
    whole = state(np.arange(30, -1, -1.0), np.arange(-15, 16.0), [(12.0, -0.3, 4000)])
    found = detect(state(np.arange(30, -1, -1.0), east, [(12.0, -0.3, 4000)]))
    assert found[["lat", "lon"]].to_numpy().tolist() == [[12.0, 0.0]]
    assert found.slp[0] == float(whole.mean_sea_level_pressure.sel(latitude=12, longitude=0))


def test_depth_and_wind_are_those_of_the_fields():
    centres = [(15.0, 140.0, 4000), (-18.0, 359.0, 2500)]
    fields = state(GRID.latitude, GRID.longitude, centres)
    found = detect(fields)
    speed = np.hypot(fields["10m_u_component_of_wind"], fields["10m_v_component_of_wind"]).values
    for order, (latitude, longitude, _) in enumerate(centres):
        near = separation(latitude, longitude, GRID.latitude[:, None], GRID.longitude) <= 2.0
        assert found.wind10[order] == speed[near].max()
        assert found.slp[order] == float(fields.mean_sea_level_pressure.sel(latitude=latitude, longitude=longitude))
    assert found.wind10.tolist() == pytest.approx([40.0, 25.0], rel=0.02)


def test_criteria_decide():
    fields = state(GRID.latitude, GRID.longitude, [(15.0, 140.0, 4000)], warm=40.0)
    cold = detect(fields)
    assert len(cold) == 0 and cold.attrs["cold"] == 1
    assert "from geopotential" in cold.attrs["criteria"]
    without = detect(fields.drop_vars("geopotential"))
    assert len(without) == 1 and "no warm core: its levels are not there" in without.attrs["criteria"]
    assert len(detect(fields, Criteria(warm_core_fall=20.0))) == 1
    shallow = detect(state(GRID.latitude, GRID.longitude, [(15.0, 140.0, 150)]))
    assert len(shallow) == 0 and shallow.attrs["open"] >= 1
    assert len(detect(state(GRID.latitude, GRID.longitude, [(15.0, 140.0, 4000)]), Criteria(latitude=10.0))) == 0


def test_near_vortices_are_one_and_far_ones_two():
    near = detect(state(GRID.latitude, GRID.longitude, [(15.0, 177.0, 2000), (15.0, 182.0, 4000)]))
    far = detect(state(GRID.latitude, GRID.longitude, [(15.0, 175.0, 2000), (15.0, 187.0, 4000)]))
    assert near.lon.tolist() == [182.0]
    assert far.lon.tolist() == [187.0, 175.0]


def test_winds_alone_find_their_maximum():
    fields = state(GRID.latitude, GRID.longitude, [(15.0, 0.0, 3000)]).drop_vars(["mean_sea_level_pressure", "geopotential"])
    found = detect(fields)
    speed = np.hypot(fields["10m_u_component_of_wind"], fields["10m_v_component_of_wind"])
    assert found.wind10.tolist() == [float(speed.max())] and "slp" not in found
    assert separation(15.0, 0.0, found.lat.values, found.lon.values)[0] == pytest.approx(1.0, abs=0.05)
    assert found.attrs["criteria"].startswith("maximum of the 10 m wind")


def test_even_fields_have_no_candidates():
    assert len(detect(on(np.full(GRID.shape, 101_000.0), GRID.latitude, GRID.longitude))) == 0


def test_thickness_from_temperature_is_the_hypsometric_equation():
    """T = a + b ln p, for which the trapezoidal rule is exact: R (a ln(p2/p1) + b/2 (ln² p2 - ln² p1))."""
    levels, (a, b) = np.array([200, 300, 400, 500, 700]), (-20.0, 45.0)
    profile = (a + b * np.log(levels))[:, None, None] + np.zeros((1, 3, 4))
    ds = xr.Dataset(
        {"temperature": (("level", "latitude", "longitude"), profile)},
        {"level": levels, "latitude": [10.0, 9.0, 8.0], "longitude": [0.0, 1.0, 2.0, 3.0]},
    )
    exact = 287.05 * (a * np.log(500 / 300) + b / 2 * (np.log(500) ** 2 - np.log(300) ** 2))
    np.testing.assert_allclose(_thickness(ds, Mesh.of(ds), "temperature", Criteria()), exact, rtol=1e-12)


def test_hagibis_and_its_warm_core(shared_data):
    surface = aeris.open_era5(shared_data / "easyclimate" / "test_slp_typhoon_201919.nc").isel(time=[0])
    upper = aeris.open_era5(shared_data / "easyclimate" / "test_t_typhoon_201919.nc")
    found = detect(xr.merge([surface, upper], join="outer"))
    assert found[["lat", "lon"]].to_numpy().tolist() == [[19.75, 140.25]]
    assert found.slp[0] / 100 == pytest.approx(962.8, abs=0.05)
    assert "thickness 300-500 hPa from temperature" in found.attrs["criteria"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda ds: ds[["geopotential"]], ["holds geopotential", "mean_sea_level_pressure", "open_era5"]),
        (lambda ds: ds.where(ds.longitude > 3), ["1.1% of", "is missing", "whole"]),
        (lambda ds: ds * np.nan, ["missing throughout", "mean_sea_level_pressure"]),
        (lambda ds: ds.isel(latitude=slice(None, None, -1)), ["north to south", "open_era5"]),
        (lambda ds: ds.isel(longitude=[0, 1, 2, 50, 51, 90, 91]), ["equally spaced", "one gap"]),
        (lambda ds: ds.rename(latitude="lat"), ["latitude"]),
        (lambda ds: ds.expand_dims(time=[0, 1]), ["dimension time", "track"]),
    ],
)
def test_bad_fields_are_refused(spoil, words):
    fields = state(GRID.latitude, GRID.longitude, [(15.0, 140.0, 4000)])
    with pytest.raises(DataError) as refusal:
        detect(spoil(fields))
    assert all(word in str(refusal.value) for word in words), refusal.value


@pytest.mark.parametrize("wrong", [{"merge": 0.0}, {"pressure_rise": np.nan}, {"latitude": 80.0}, {"warm_core_levels": (500, 300)}])
def test_bad_criteria_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Criteria(**wrong)


def test_a_search_is_settled_before_anything_is_read():
    fields = state(GRID.latitude, GRID.longitude, [])
    assert Search.of(fields, Criteria()).variables() == [
        "mean_sea_level_pressure",
        "10m_u_component_of_wind",
        "10m_v_component_of_wind",
        "geopotential",
    ]
    assert Search.of(fields, Criteria(warm_core_levels=(250, 500))).warm_core is None
