"""Zonal energy against a direct Fourier sum, the integral along the circle, and single waves."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification import pairing
from aeris.verification.zonal_spectra import WEATHERBENCH_RADIUS, mean_zonal_energy, zonal_energy

LEAD = "prediction_timedelta"


def random_field(rows: int, columns: int) -> xr.DataArray:
    grid = Grid.regular(rows, columns)
    values = np.random.default_rng(0).standard_normal(grid.shape)
    return xr.DataArray(values, {"latitude": grid.latitude, "longitude": grid.longitude}, ["latitude", "longitude"])


@pytest.mark.parametrize(("rows", "columns"), [(8, 16), (9, 15)])
def test_it_is_the_sum_of_the_definition(rows, columns):
    """F_k = (1/L) Σ f exp(-2πikj/L), S_0 = C |F_0|², S_k = 2 C |F_k|², written out; the last wavenumber of an even number counts once."""
    field = random_field(rows, columns)
    spectrum = zonal_energy(field)
    for row, latitude in enumerate(field.latitude.values):
        circle = 2 * np.pi * 6_367_500.0 * np.cos(np.deg2rad(latitude))
        for k in range(columns // 2 + 1):
            total = sum(field.values[row, j] * np.exp(-2j * np.pi * k * j / columns) for j in range(columns)) / columns
            twice = 1 if k == 0 or 2 * k == columns else 2
            assert spectrum[row, k].item() == pytest.approx(twice * circle * abs(total) ** 2, abs=1e-6)
            if k and circle > 1:
                assert spectrum.wavelength[row, k].item() == pytest.approx(circle / k)
                assert spectrum.frequency[row, k].item() == pytest.approx(k / circle)


@pytest.mark.parametrize("columns", [15, 16])
def test_the_sum_is_the_integral_along_the_circle(columns):
    field = random_field(9, columns)
    spacing = 2 * np.pi * WEATHERBENCH_RADIUS * np.cos(np.deg2rad(field.latitude)) / columns
    np.testing.assert_allclose(zonal_energy(field).sum("zonal_wavenumber"), ((field**2).sum("longitude") * spacing), atol=1e-6)


def test_a_wave_has_its_wavelength():
    """3 + 2 cos 5λ: energy 9 C at wavenumber 0 and 2 C at wavenumber 5, whose wavelength at 60° is half that at the equator."""
    field = 3 + 2 * np.cos(5 * np.deg2rad(random_field(181, 40).longitude)) * xr.ones_like(random_field(181, 40).latitude)
    spectrum = zonal_energy(field.transpose("latitude", "longitude"))
    circle = 2 * np.pi * WEATHERBENCH_RADIUS
    expected = np.zeros(21)
    expected[[0, 5]] = [9 * circle, 2 * circle]
    np.testing.assert_allclose(spectrum.sel(latitude=0), expected, atol=1e-5)
    assert spectrum.wavelength.sel(latitude=60, zonal_wavenumber=5).item() == pytest.approx(circle / 10)
    assert float(spectrum.sel(latitude=90).sum()) == pytest.approx(0, abs=1e-6)


def test_dask_and_leading_dimensions():
    fields = xr.concat([random_field(8, 16), 2 * random_field(8, 16)], "number")
    lazy = zonal_energy(fields.chunk(number=1, longitude=4))
    assert lazy.chunks is not None and lazy.dims == ("number", "latitude", "zonal_wavenumber")
    np.testing.assert_allclose(lazy[1], 4 * lazy[0])


def test_means_over_members_and_times(beside, monkeypatch):
    fc, truth = beside(members=3)
    fewer = fc.copy(deep=True)
    for field in fewer.data_vars.values():
        field[{"number": 2}] = np.nan
    monkeypatch.setattr(pairing, "PIECE_VALUES", 1)
    means = mean_zonal_energy(fewer, truth, south=20, north=60)["geopotential"]
    assert means.dims == ("system", LEAD, "level", "latitude", "zonal_wavenumber") and means.attrs["units"] == "m m**4 s**-4"
    rows = fc.latitude[(fc.latitude >= 20) & (fc.latitude <= 60)]
    expected = zonal_energy(fc["geopotential"].isel(number=slice(2))).mean(("time", "number")).sel(latitude=rows)
    np.testing.assert_allclose(means.sel(system="forecast"), expected.transpose(LEAD, "level", ...))
    happened = truth["geopotential"].rename(time="valid").sel(valid=fc.time + fc[LEAD]).drop_vars("valid")
    of_truth = zonal_energy(happened).mean("time").sel(latitude=rows)
    np.testing.assert_allclose(means.sel(system="truth"), of_truth.transpose(LEAD, "level", ...))
    np.testing.assert_allclose(means.wavelength, expected.wavelength)


def test_gaps_and_empty_bands_are_refused(beside):
    field = random_field(8, 16)
    with pytest.raises(DataError, match="missing"):
        zonal_energy(field.where(field.longitude > 30))
    with pytest.raises(ConfigurationError, match="row"):
        mean_zonal_energy(*beside(), south=89, north=90)
