"""Power per degree: harmonics of known power on every kind of grid, and Parseval."""

from __future__ import annotations

import ducc0
import numpy as np
import pytest
import xarray as xr

from aeris.data.grid import Grid
from aeris.data.spherical import degree_order
from aeris.data.variables import WIND_PAIRS
from aeris.errors import ConfigurationError, DataError
from aeris.verification import pairing
from aeris.verification.coherence import coherence
from aeris.verification.kinetic_energy import mean_kinetic_energy
from aeris.verification.spectra import effective_resolution, mean_power, power, power_ratio
from aeris.verification.zonal_spectra import mean_zonal_energy

LEAD, WINDS = "prediction_timedelta", WIND_PAIRS[1]

GRIDS = {
    "bands 32×64": (Grid.regular(32, 64), 31),
    "both poles 33×64": (Grid.regular(33, 64), 31),
    "both poles 73×144": (Grid.regular(73, 144), 71),
    "both poles 17×64": (Grid.regular(17, 64), 15),
    "few columns 32×40": (Grid.regular(32, 40), 19),
    "Gaussian 40×80": (Grid(90 - np.rad2deg(ducc0.misc.GL_thetas(40)), np.arange(80) * 4.5), 39),
    "no poles 89×180": (Grid(np.linspace(88, -88, 89), np.arange(180) * 2.0), 44),
    "from 2.5° east": (Grid(Grid.regular(32, 64).latitude, 2.5 + np.arange(64) * 5.625), 31),
}


def synthesis(coefficients: np.ndarray, grid: Grid, largest: int) -> xr.DataArray:
    """A field from packed coefficients, ring by ring at any latitudes: no quadrature is involved."""
    rows, columns = grid.shape
    field = ducc0.sht.synthesis(
        alm=coefficients[None].astype(np.complex128),
        theta=np.deg2rad(90 - grid.latitude),
        lmax=largest,
        spin=0,
        nphi=np.full(rows, columns, np.uint64),
        phi0=np.full(rows, np.deg2rad(grid.longitude[0])),
        ringstart=np.arange(rows, dtype=np.uint64) * np.uint64(columns),
    )
    return xr.DataArray(field.reshape(rows, columns), {"latitude": grid.latitude, "longitude": grid.longitude}, ["latitude", "longitude"])


def random_coefficients(largest: int, seed: int = 0) -> np.ndarray:
    _, order = degree_order(largest)
    real, imaginary = np.random.default_rng(seed).standard_normal((2, len(order)))
    return real + 1j * imaginary * (order > 0)


def mean_square(coefficients: np.ndarray, largest: int) -> float:
    """Mean over the globe of the square of a field, by Gauss-Legendre quadrature of enough points to be exact."""
    rows = 2 * largest + 2
    grid = Grid(90 - np.rad2deg(ducc0.misc.GL_thetas(rows)), np.arange(2 * rows) * 180 / rows)
    weights = ducc0.misc.GL_weights(rows, 1)
    square = (synthesis(coefficients, grid, largest) ** 2).mean("longitude").values
    return float(weights @ square / weights.sum())


@pytest.mark.parametrize("name", GRIDS)
def test_parseval(name):
    """For a field without higher degrees the powers sum to the mean square of the field."""
    grid, largest = GRIDS[name]
    coefficients = random_coefficients(largest)
    spectrum = power(synthesis(coefficients, grid, largest))
    assert spectrum.degree.values.tolist() == list(range(largest + 1))
    assert float(spectrum.sum()) == pytest.approx(mean_square(coefficients, largest), rel=1e-6)


@pytest.mark.parametrize("name", GRIDS)
def test_every_degree_gets_its_own_power(name):
    grid, largest = GRIDS[name]
    coefficients = random_coefficients(largest, seed=1)
    degree, order = degree_order(largest)
    expected = [
        np.sum(np.abs(np.where(order > 0, np.sqrt(2), 1) * coefficients)[degree == one] ** 2) / (4 * np.pi) for one in range(largest + 1)
    ]
    np.testing.assert_allclose(power(synthesis(coefficients, grid, largest)), expected, rtol=1e-9)


def test_harmonics_written_out():
    """sin φ has mean square 1/3 (m = 0), cos φ cos λ 1/3 (m = 1), both of degree 1; cos² φ cos 2λ 4/15, of degree 2."""
    grid = Grid.regular(32, 64)
    latitude, longitude = (
        xr.DataArray(np.deg2rad(values), {name: values}, name)
        for name, values in (("latitude", grid.latitude), ("longitude", grid.longitude))
    )
    ones = xr.ones_like(latitude) * xr.ones_like(longitude)
    fields = [
        (1, 1 / 3, np.sin(latitude) * ones),
        (1, 1 / 3, np.cos(latitude) * np.cos(longitude)),
        (2, 4 / 15, np.cos(latitude) ** 2 * np.cos(2 * longitude)),
        (0, 9.0, 3.0 * ones),
    ]
    for degree, mean, field in fields:
        spectrum = power(field)
        assert spectrum[degree].item() == pytest.approx(mean)
        assert spectrum.sum().item() == pytest.approx(mean)


def test_a_dropped_pole_row_is_put_back():
    whole = Grid.regular(73, 144)
    field = synthesis(random_coefficients(10), whole, 10)
    dropped = power(field.isel(latitude=slice(None, -1)))
    assert dropped.sizes["degree"] == 72
    np.testing.assert_allclose(dropped[:11], power(field)[:11], rtol=1e-3)


def test_leading_dimensions_and_dask_are_kept():
    fields = xr.concat([synthesis(random_coefficients(31, seed), Grid.regular(32, 64), 31) for seed in range(3)], "number")
    lazy = power(fields.chunk(number=1, latitude=8))
    assert lazy.chunks is not None and lazy.dims == ("number", "degree")
    np.testing.assert_allclose(lazy, power(fields))


def test_grids_and_gaps_that_cannot_be_analysed_are_refused():
    field = synthesis(random_coefficients(7), Grid.regular(32, 64), 7)
    with pytest.raises(DataError, match=r"missing.*every cell"):
        power(field.where(field.latitude > 0))
    uneven = field.assign_coords(latitude=field.latitude.values + 0.02 * np.arange(32) - 0.4)
    with pytest.raises(DataError, match=r"32 rows.*both poles"):
        power(uneven)


def test_ratio_is_of_mean_powers(beside):
    """Members twice as large as the truth have four times its power; means come before the ratio."""
    fc, truth = beside(members=3, leads=(6, 24))
    happened = truth.rename(time="valid").sel(valid=fc.time + fc[LEAD]).drop_vars("valid")
    twice = (2 * happened).expand_dims(number=3)
    ratio = power_ratio(twice, truth)
    assert mean_power(fc, truth)["geopotential"].attrs["units"] == "m**4 s**-4"
    assert ratio["geopotential"].dims == (LEAD, "level", "degree")
    np.testing.assert_allclose(ratio["geopotential"], 4.0)
    about = {"units": "1", "long_name": "power, geopotential, over that of the truth", "left_out_members": 0}
    assert ratio["geopotential"].attrs == about
    expected = power(fc["geopotential"]).mean(("time", "number")) / power(happened["geopotential"]).mean("time")
    np.testing.assert_allclose(power_ratio(fc, truth)["geopotential"], expected.transpose(LEAD, "level", "degree"))


def test_pieces_and_missing_members_do_not_matter(beside, monkeypatch):
    fc, truth = beside(members=3)
    fewer = fc.copy(deep=True)
    for field in fewer.data_vars.values():
        field[{"number": 2}] = np.nan
    expected = mean_power(fc.isel(number=slice(2)), truth)
    monkeypatch.setattr(pairing, "PIECE_VALUES", 1)
    xr.testing.assert_allclose(mean_power(fewer, truth), expected)


def test_land_is_filled_alike_in_forecast_and_truth(beside):
    fc, truth = (ds[["2m_temperature"]].rename({"2m_temperature": "sea_surface_temperature"}) + 285 for ds in beside())
    land = xr.DataArray(np.random.default_rng(1).random((8, 16)) < 0.4, dims=("latitude", "longitude"))
    filled = mean_power(fc.where(~land, 271.35), truth.where(~land, 271.35))
    xr.testing.assert_allclose(mean_power(fc.where(~land), truth.where(~land)), filled)
    xr.testing.assert_allclose(mean_power(fc, truth.where(~land)), filled)
    with pytest.raises(DataError, match="missing"):
        mean_power(fc.rename(sea_surface_temperature="2m_temperature"), truth.where(~land).rename(sea_surface_temperature="2m_temperature"))


def ratio_with(values: list[float]) -> xr.Dataset:
    return xr.Dataset({"geopotential": ("degree", np.array([np.nan, *values]))}, {"degree": np.arange(len(values) + 1)})


@pytest.mark.parametrize(
    ("values", "share", "last"),
    [([1.0, 0.9, 0.6, 0.4, 0.2], 0.5, 3), ([1.0, 0.9, 0.6, 0.4, 0.2], 0.8, 2), ([1.0, 0.4, 1.0, 1.0], 0.5, 1), ([1.2, 0.9, 0.8], 0.5, 3)],
)
def test_effective_resolution_is_the_last_degree_that_holds_its_share(values, share, last):
    """The wavelength of degree l is 2πa / √(l(l+1)); power that comes back behind a gap does not count."""
    found = effective_resolution(ratio_with(values), share)["geopotential"]
    assert found.item() == pytest.approx(2 * np.pi * 6.371e6 / np.sqrt(last * (last + 1)))
    assert found.attrs["units"] == "m"


def test_effective_resolution_of_nothing():
    assert effective_resolution(ratio_with([0.1, 1.0]))["geopotential"] == np.inf
    assert effective_resolution(ratio_with([np.nan, np.nan]))["geopotential"].isnull()
    with pytest.raises(ConfigurationError, match="share"):
        effective_resolution(ratio_with([1.0]), share=0.0)


def test_a_smoothed_forecast_resolves_less(beside):
    """Waves above degree 8 taken away from the members: the resolution is that of degree 8."""
    grid = Grid.regular(32, 64)
    fields = [synthesis(random_coefficients(31, seed), grid, 31) for seed in range(2)]
    degree, _ = degree_order(31)
    smooth = [synthesis(random_coefficients(31, seed) * (degree <= 8), grid, 31) for seed in range(2)]
    truth = (
        xr.concat(fields, "time")
        .assign_coords(time=np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]"))
        .to_dataset(name="geopotential")
    )
    lead = np.timedelta64(86400 * 10**9, "ns")
    fc = xr.concat(smooth, "time").assign_coords(time=truth.time - lead).expand_dims({LEAD: [lead]}).to_dataset(name="geopotential")
    found = effective_resolution(power_ratio(fc, truth))["geopotential"]
    assert found.item() == pytest.approx(2 * np.pi * 6.371e6 / np.sqrt(72))


@pytest.mark.parametrize("compute", [mean_power, coherence, mean_zonal_energy, mean_kinetic_energy], ids=lambda compute: compute.__name__)
def test_members_that_are_missing_or_without_truth_are_left_out_and_counted(beside, compute):
    """Of four members one is missing at one lead, and a day later the truth: what is left is as if the archive had neither."""
    fc, truth = (ds.rename(geopotential=WINDS[0]).assign({WINDS[1]: ds.geopotential.roll(longitude=3)}) for ds in beside(dates=3))
    fc = fc[list(WINDS)]
    fewer = fc.copy(deep=True)
    fewer[WINDS[0]][{"time": 0, "number": 3, LEAD: 1}] = np.nan
    gappy = truth.drop_sel(time=fc.time.values[1] + np.timedelta64(6, "h"))
    found = compute(fewer, gappy, gaps="skip")
    assert max(field.attrs["left_out_members"] for field in found.values()) == 1 + 4
    early = compute(fc.isel(time=[0, 2]), truth).isel({LEAD: 0})
    for name, field in found.items():
        np.testing.assert_allclose(field.isel({LEAD: 0}), early[name], rtol=1e-9, err_msg=str(name))
    with pytest.raises(DataError, match="lacks 1 of the times"):
        compute(fc, gappy)
