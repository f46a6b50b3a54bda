"""Spherical harmonics of many small fields at once: synthesis, gradient, analysis and the linear operators of balanced flow.

A real field is f(φ, λ) = Σ_m Σ_l a_lm P_lm(sin φ) exp(imλ) with orthonormal harmonics and a_{l,-m} = (-1)^m conj a_lm, so that only
m ≥ 0 is kept. Coefficients are packed as in healpy and ducc0: (l, m) stands at m(2T+1-m)/2 + l for truncation T. The Legendre
functions come from ducc0; because one table serves every field, a transform is one matrix product for each order m and a
fast Fourier transform along the rows.

Shapes
    B ...  any leading dimensions      N  packed coefficients, (T+1)(T+2)/2      H, W  rows (north to south) and columns
"""

from __future__ import annotations

import ducc0
import numpy as np

RADIUS = 6.371e6
"""Mean radius of the earth a in m."""

ROTATION = 7.292e-5
"""Rotation rate of the earth Ω in rad s⁻¹."""


class Harmonics:
    """Transforms between packed coefficients and a grid.

    Args:
        truncation: Largest degree T.
        colatitude: Colatitudes of the rows in radians, shape ``(H,)``.
        columns: Number of equally spaced columns from 0° eastward, more than 2 T.
        weights: Quadrature weights of the rows (sum 2), which `analysis` needs, shape ``(H,)``.

    Attributes:
        colatitude: As given.
        degree: Degree l of each packed coefficient, shape ``(N,)``.
        order: Order m of each packed coefficient, shape ``(N,)``.
    """

    def __init__(self, truncation: int, colatitude: np.ndarray, columns: int, weights: np.ndarray | None = None) -> None:
        self.truncation, self.columns, self.weights = truncation, columns, weights
        self.rows, self.colatitude = len(colatitude), colatitude
        self.degree, self.order = degree_order(truncation)
        self._legendre = _by_order(truncation, colatitude, spin=0)[0]
        self._southward, self._eastward = _by_order(truncation, colatitude, spin=1)

    @classmethod
    def gauss(cls, truncation: int, rows: int, columns: int) -> Harmonics:
        """On Gauss-Legendre rows, whose analysis is exact for products up to degree 2 rows - 1."""
        weights = ducc0.misc.GL_weights(rows, 1) / (2 * np.pi)
        return cls(truncation, np.asarray(ducc0.misc.GL_thetas(rows)), columns, weights)

    def synthesis(self, coefficients: np.ndarray) -> np.ndarray:
        """Fields ``(..., H, W)`` from packed coefficients ``(..., N)``, float32."""
        return self._to_grid(coefficients, self._legendre)

    def gradient(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Eastward and northward derivative on the unit sphere, ∂f/∂λ / cos φ and ∂f/∂φ, each ``(..., H, W)``, float32."""
        return self._to_grid(1j * coefficients, self._eastward), -self._to_grid(coefficients, self._southward)

    def analysis(self, fields: np.ndarray) -> np.ndarray:
        """Packed coefficients ``(..., N)``, complex64, of fields ``(..., H, W)``, by Gauss-Legendre quadrature."""
        assert self.weights is not None
        leading = fields.shape[:-2]
        waves = ducc0.fft.r2c(np.ascontiguousarray(fields, np.float32).reshape(-1, self.rows, self.columns), axes=[2])
        waves *= (2 * np.pi / self.columns * self.weights).astype(np.float32)[:, None]
        packed = np.empty((2, len(waves), len(self.degree)), np.float32)
        start = 0
        for m, table in enumerate(self._legendre):
            stop = start + len(table)
            np.matmul(np.stack([waves[:, :, m].real, waves[:, :, m].imag]), table.T, out=packed[:, :, start:stop])
            start = stop
        return (packed[0] + 1j * packed[1]).reshape(*leading, -1)

    def _to_grid(self, coefficients: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
        leading = coefficients.shape[:-1]
        packed = coefficients.reshape(-1, coefficients.shape[-1])
        parts = np.stack([packed.real, packed.imag]).astype(np.float32, copy=False)
        waves = np.zeros((self.columns // 2 + 1, len(packed), self.rows), np.complex64)
        start = 0
        for m, table in enumerate(tables):
            stop = start + len(table)
            waves[m].real, waves[m].imag = parts[:, :, start:stop] @ table
            start = stop
        grid = ducc0.fft.c2r(waves.transpose(1, 2, 0), axes=[2], lastsize=self.columns, forward=False)
        return grid.reshape(*leading, self.rows, self.columns)


def synthesis(coefficients: np.ndarray, colatitude: np.ndarray, columns: int) -> np.ndarray:
    """Fields from their coefficients on any rows, in double precision and without tables: for a few fields on a grid of any size.

    Args:
        coefficients: Packed coefficients ``(fields, N)``; the first column stands at the longitude from which they count.
        colatitude: Colatitudes of the rows in radians, ``(H,)``.
        columns: Number of equally spaced columns, more than twice the truncation.

    Returns:
        Float64 ``(fields, H, W)``.
    """
    rows, truncation = len(colatitude), (int(np.sqrt(8 * coefficients.shape[-1] + 1)) - 3) // 2
    rings = {"nphi": np.full(rows, columns, np.uintp), "phi0": np.zeros(rows), "ringstart": np.arange(rows, dtype=np.uintp) * columns}
    alm = np.ascontiguousarray(coefficients, np.complex128)[:, None]
    maps = ducc0.sht.synthesis(alm=alm, theta=np.asarray(colatitude, np.float64), lmax=truncation, spin=0, **rings)
    return maps.reshape(len(alm), rows, columns)


def degree_order(truncation: int) -> tuple[np.ndarray, np.ndarray]:
    """Degree and order of each packed coefficient."""
    order = np.repeat(np.arange(truncation + 1), np.arange(truncation + 1, 0, -1))
    degree = np.concatenate([np.arange(m, truncation + 1) for m in range(truncation + 1)])
    return degree, order


def linear_balance(psi: np.ndarray, degree: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Geopotential in linear balance with a streamfunction: ∇²Φ = ∇·(f ∇ψ), f = 2Ω sin φ.

    In harmonics, with ε_l² = (l² - m²) / (4l² - 1),

        Φ_l = 2Ω [(l-1)/l ε_l ψ_{l-1} + (l+2)/(l+1) ε_{l+1} ψ_{l+1}]

    (from the recurrences of the Legendre functions; Daley 1991, Atmospheric Data Analysis, section 7.2). The global mean is zero.

    Args:
        psi: Packed coefficients ``(..., N)`` in m² s⁻¹, zero at the highest degree.
        degree: Degree of each, ``(N,)``.
        order: Order of each, ``(N,)``.

    Returns:
        Packed coefficients in m² s⁻².
    """
    here, above = np.maximum(degree, 1.0), degree + 1.0
    from_below = (here - 1) / here * np.sqrt((here**2 - order**2) / (4 * here**2 - 1))
    from_above = (above + 1) / above * np.sqrt((above**2 - order**2) / (4 * above**2 - 1))
    from_above[(degree == degree.max()) | (degree == 0)] = 0
    f_below, f_above = (2 * ROTATION * factor.astype(psi.real.dtype) for factor in (from_below, from_above))
    return f_below * np.roll(psi, 1, axis=-1) + f_above * np.roll(psi, -1, axis=-1)


def _by_order(truncation: int, colatitude: np.ndarray, spin: int) -> list[list[np.ndarray]]:
    """Legendre tables: for each component a list over m of float32 arrays ``(T + 1 - m, H)``.

    Spin 0 gives P_lm; spin 1 gives its derivative by colatitude and m P_lm / sin θ.
    """
    size = (truncation + 1) * (truncation + 2) // 2
    degree, _ = degree_order(truncation)
    columns = np.empty((1 + spin, truncation + 1, len(colatitude), truncation + 1))
    orders = np.arange(truncation + 1, dtype=np.uintp)
    starts = (orders * (2 * truncation + 1 - orders) // 2).astype(np.uintp)
    for row in range(truncation + 1):
        unit = np.zeros((1, size), np.complex128)
        unit[0, degree == row] = 1.0
        legendre = ducc0.sht.alm2leg(
            alm=unit, lmax=truncation, theta=colatitude, spin=spin, mval=orders, mstart=starts, mode="DERIV1" if spin else "STANDARD"
        )
        columns[:, row] = legendre.real if not spin else np.stack([legendre[0].real, legendre[1].imag])
    return [[np.ascontiguousarray(component[m:, :, m], np.float32) for m in range(truncation + 1)] for component in columns]
