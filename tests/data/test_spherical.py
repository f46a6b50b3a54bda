"""Spherical harmonics against ducc0's own transforms, the textbook harmonics of scipy, and the balance equation on a grid."""

from __future__ import annotations

import ducc0
import numpy as np
import pytest
from scipy.special import sph_harm_y

from aeris.data.spherical import ROTATION, Harmonics, degree_order, linear_balance

TRUNCATION = 21


@pytest.fixture(scope="module")
def coefficients() -> np.ndarray:
    degree, order = degree_order(TRUNCATION)
    real, imaginary = np.random.default_rng(0).standard_normal((2, 3, len(degree)))
    return np.where(order > 0, real + 1j * imaginary, real) / (1 + degree)


@pytest.fixture(scope="module")
def regular() -> Harmonics:
    return Harmonics(TRUNCATION, (np.arange(24) + 0.5) * np.pi / 24, 48)


def _close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, atol=3e-6 * np.abs(theirs).max())


def test_synthesis_and_gradient_are_those_of_ducc0(regular, coefficients):
    fields, (east, north) = regular.synthesis(coefficients), regular.gradient(coefficients)
    for k, one in enumerate(coefficients):
        about = {"alm": one[None], "lmax": TRUNCATION, "geometry": "F1", "ntheta": 24, "nphi": 48}
        _close(fields[k], ducc0.sht.synthesis_2d(spin=0, **about)[0])
        southward, eastward = ducc0.sht.synthesis_2d(spin=1, mode="DERIV1", **about)
        _close(east[k], eastward)
        _close(north[k], -southward)


@pytest.mark.parametrize(("degree", "order"), [(0, 0), (1, 0), (1, 1), (5, 2), (21, 21), (20, 7)])
def test_a_single_coefficient_is_the_textbook_harmonic(regular, degree, order):
    one = ((regular.degree == degree) & (regular.order == order)).astype(np.complex128)
    longitude = np.arange(48) * 2 * np.pi / 48
    harmonic = sph_harm_y(degree, order, regular.colatitude[:, None], longitude)
    _close(regular.synthesis(one), harmonic.real * (2 if order else 1))


def test_packing_is_that_of_healpy():
    degree, order = degree_order(TRUNCATION)
    np.testing.assert_array_equal(order * (2 * TRUNCATION + 1 - order) // 2 + degree, np.arange(len(degree)))


def test_analysis_undoes_synthesis(coefficients):
    gauss = Harmonics.gauss(TRUNCATION, TRUNCATION + 1, 2 * TRUNCATION + 2)
    np.testing.assert_allclose(gauss.analysis(gauss.synthesis(coefficients)), coefficients, atol=3e-6)


def test_linear_balance_holds_on_the_grid(coefficients):
    """∇²Φ = ∇·(f ∇ψ): the flux f ∇ψ is formed on Gaussian rows, and its divergence taken by ducc0's vector analysis."""
    degree, order = degree_order(TRUNCATION)
    psi = np.where((degree > 0) & (degree < TRUNCATION), coefficients, 0)
    shape = {"geometry": "GL", "ntheta": 40, "nphi": 60}
    slope = ducc0.sht.synthesis_2d(alm=psi[:1], spin=1, mode="DERIV1", lmax=TRUNCATION, **shape)
    coriolis = 2 * ROTATION * np.cos(np.asarray(ducc0.misc.GL_thetas(40)))[:, None]
    flux = ducc0.sht.analysis_2d(map=coriolis * slope, spin=1, lmax=TRUNCATION, geometry="GL")
    divergence = -np.sqrt(degree * (degree + 1)) * flux[0]
    laplacian = -degree * (degree + 1) * linear_balance(psi, degree, order)[0]
    np.testing.assert_allclose(laplacian, divergence, atol=1e-10 * np.abs(divergence).max())
