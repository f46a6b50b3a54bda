"""The spectral part of the fair CRPS: against the transforms of verification, a loop in numpy, and finite differences."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from aeris.data.grid import Grid
from aeris.data.harmonics import Sphere
from aeris.errors import DataError
from aeris.model.quadrants import pixel_ids, to_tokens
from aeris.swipe import Groups
from aeris.training.spectrum import Spectrum
from aeris.verification.spectra import power

WINDOW = (4, 8)
GRIDS = {"bands": Grid.regular(16, 32), "without a pole": Grid(Grid.regular(17, 32).latitude[:-1], Grid.regular(17, 32).longitude)}


def spectrum_of(grid: Grid) -> Spectrum:
    fields = SimpleNamespace(
        geography=SimpleNamespace(grid=grid), ids=pixel_ids(grid.shape, WINDOW), dtype=torch.float64, device=torch.device("cpu")
    )
    return Spectrum(fields, Groups.alone())


def maps(grid: Grid, count: int) -> torch.Tensor:
    """Rough fields of two channels, each ``(1, 2, rows, columns)``, one after the other."""
    return torch.randn(count, 1, 2, *grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def array(grid: Grid, field: torch.Tensor) -> xr.DataArray:
    coords = {"latitude": grid.latitude, "longitude": grid.longitude}
    return xr.DataArray(field.numpy(), coords, dims=("sample", "channel", "latitude", "longitude"))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_squares_of_coefficients_are_the_power_of_verification(grid):
    (field,) = maps(grid, 1)
    coefficients = spectrum_of(grid).coefficients(to_tokens(field, WINDOW))
    np.testing.assert_allclose(coefficients.square().sum((2, 4)), power(array(grid, field)), rtol=1e-10, atol=1e-14)


def test_the_score_is_a_loop_over_ducc0s_coefficients():
    grid = GRIDS["bands"]
    one, other, truth = maps(grid, 3)
    tokens = [to_tokens(field, WINDOW) for field in (one - truth, other - truth, truth)]
    found = spectrum_of(grid).relative_crps(tokens[:2], tokens[2])
    sphere = Sphere.on(grid)
    x, y, z = (sphere.analysis(field.numpy())[0] for field in (one, other, truth))
    for channel in range(2):
        relative = []
        for degree in range(1, sphere.largest + 1):
            score = amplitude = 0.0
            for place in np.flatnonzero(sphere.degree == degree):
                for part in (np.real, np.imag):
                    a, b, c = (float(part(field[channel, place])) * np.sqrt(sphere.share[place]) for field in (x, y, z))
                    score += (abs(a - c) + abs(b - c) - abs(a - b)) / 2
                    amplitude += c**2
            relative.append(score / (2 * degree + 1) / np.sqrt(amplitude / (2 * degree + 1)))
        assert float(found[0, channel]) == pytest.approx(np.mean(relative), rel=1e-9)


def test_its_gradient_is_that_of_finite_differences():
    grid = Grid.regular(8, 16)
    *members, truth = (to_tokens(field, WINDOW) for field in maps(grid, 3))
    spectrum = spectrum_of(grid)
    assert torch.autograd.gradcheck(lambda *errors: spectrum.relative_crps(errors, truth), [one.requires_grad_() for one in members])


def test_a_field_without_small_scales_gives_a_number():
    grid = GRIDS["bands"]
    flat = torch.ones(1, 2, *grid.shape, dtype=torch.float64)
    tokens = to_tokens(flat, WINDOW)
    assert torch.isfinite(spectrum_of(grid).relative_crps([tokens * 0.1, tokens * -0.1], tokens)).all()


def test_rows_that_cannot_be_analysed_are_refused():
    with pytest.raises(DataError, match="A spectrum needs rows with both poles"):
        spectrum_of(Grid(np.linspace(80, -70, 16), Grid.regular(16, 32).longitude))
