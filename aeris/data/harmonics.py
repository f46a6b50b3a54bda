"""Spherical-harmonic transforms on the grids of forecasts: which rows can be analysed, scalars, gradients and the two parts of a wind.

The transforms are those of ducc0. They are exact for fields without degrees above the largest that the rows resolve. Coefficients are
packed as in `aeris.data.spherical`; longitudes count from the first column, which no power, correlation or derivative can see.

Shapes
    B ...  any leading dimensions      N  packed coefficients      H, W  rows (north to south) and columns
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ducc0
import numpy as np
import xarray as xr

from aeris.data.grid import Grid, restore_pole_row
from aeris.data.spherical import RADIUS, degree_order
from aeris.data.variables import SEA_ICE_POINT
from aeris.errors import DataError


@dataclass(frozen=True)
class Rows:
    """A family of rows on which ducc0 can analyse exactly.

    Attributes:
        geometry: ducc0's name of it.
        latitude: Rows in degrees, from their number.
        largest_degree: Largest degree that they resolve, from their number.
    """

    geometry: str
    latitude: Callable[[int], np.ndarray]
    largest_degree: Callable[[int], int]


def _gaussian(rows: int) -> np.ndarray:
    return 90.0 - np.rad2deg(np.asarray(ducc0.misc.GL_thetas(rows)))


ROWS = (
    Rows("CC", lambda rows: np.linspace(90.0, -90.0, rows), lambda rows: rows - 2),
    Rows("F1", lambda rows: 90.0 - (np.arange(rows) + 0.5) * 180.0 / rows, lambda rows: rows - 1),
    Rows("GL", _gaussian, lambda rows: rows - 1),
    Rows("F2", lambda rows: 90.0 - (np.arange(rows) + 1) * 180.0 / (rows + 1), lambda rows: (rows - 1) // 2),
)
"""Both poles; centres of equal bands; Gaussian; equally spaced without the poles."""


@dataclass(frozen=True)
class Sphere:
    """A grid on which fields can be analysed; a grid whose last pole row was dropped has it again.

    Attributes:
        grid: The grid, with its last pole row.
        geometry: ducc0's name of the rows.
        largest: Largest degree that rows and columns resolve: n - 2 for n rows with both poles, n - 1 for centres of equal bands and
            for Gaussian rows, (n - 1) // 2 for equally spaced rows without the poles, and never more than half the columns.
    """

    grid: Grid
    geometry: str
    largest: int

    @classmethod
    def of(cls, field: xr.Dataset | xr.DataArray) -> Sphere:
        """The sphere of a field's grid, as :meth:`on`."""
        return cls.on(Grid.of(field))

    @classmethod
    def on(cls, grid: Grid) -> Sphere:
        """The sphere of a grid.

        Raises:
            DataError: The rows are of no kind that can be analysed exactly.
        """
        whole = grid.whole
        for rows in ROWS:
            if np.allclose(whole.latitude, rows.latitude(len(whole.latitude)), atol=1e-3):
                return cls(whole, rows.geometry, min(rows.largest_degree(len(whole.latitude)), (grid.shape[1] - 1) // 2))
        raise DataError(
            f"The {grid.shape[0]} rows from {grid.latitude[0]:.4g}° to {grid.latitude[-1]:.4g}°",
            "A spectrum needs rows with both poles, centres of equal bands, Gaussian rows, or equally spaced rows without the poles",
            "Bring the field onto such a grid, for example with aeris.coarsen(ds, (rows, columns))",
        )

    @cached_property
    def degree(self) -> np.ndarray:
        """Degree l of each packed coefficient, ``(N,)``."""
        return degree_order(self.largest)[0]

    @cached_property
    def order(self) -> np.ndarray:
        """Order m of each packed coefficient, ``(N,)``."""
        return degree_order(self.largest)[1]

    @cached_property
    def share(self) -> np.ndarray:
        """What \\|a_lm\\|² adds to the mean square of a field, ``(N,)``: only m ≥ 0 is kept, so all but m = 0 count twice."""
        return np.where(self.order > 0, 2.0, 1.0) / (4 * np.pi)

    def by_degree(self, products: np.ndarray) -> np.ndarray:
        """Sums of real products of coefficients ``(..., N)`` over the orders, counted by `share`, ``(..., largest + 1)``."""
        flat = (self.share * products).reshape(-1, len(self.share))
        sums = np.stack([np.bincount(self.degree, one, self.largest + 1) for one in flat])
        return sums.reshape(*products.shape[:-1], self.largest + 1)

    def analysis(self, maps: np.ndarray) -> np.ndarray:
        """Coefficients ``(..., N)`` of scalars ``(..., H, W)``.

        Raises:
            DataError: A value is missing.
        """
        need_no_gaps(maps)
        return self._each(maps[..., None, :, :], lambda one: ducc0.sht.analysis_2d(map=one, spin=0, **self._about)[0], len(self.degree))

    def vector_analysis(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of the divergent and of the rotational part of a wind ``(..., H, W)``, each ``(..., N)``, in the wind's unit.

        With velocity potential χ and streamfunction ψ, V = ∇χ + k × ∇ψ, they are √(l(l+1)) / a times those of χ and ψ; the power of a part
        is its mean square, as for a scalar.

        Raises:
            DataError: A value is missing.
        """
        need_no_gaps(u)
        need_no_gaps(v)
        southward_eastward = np.stack([-v, u], axis=-3)
        both = self._each(
            southward_eastward, lambda one: ducc0.sht.analysis_2d(map=one, spin=1, **self._about).ravel(), 2 * len(self.degree)
        )
        divergent, rotational = np.split(both, 2, axis=-1)
        return divergent, rotational

    def synthesis(self, coefficients: np.ndarray) -> np.ndarray:
        """Scalars ``(..., H, W)`` from coefficients ``(..., N)``."""
        return self._maps(coefficients, 0, "STANDARD")[..., 0, :, :]

    def gradient(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Eastward and northward derivative, per metre, each ``(..., H, W)``, of the scalars with coefficients ``(..., N)``."""
        southward_eastward = self._maps(coefficients, 1, "DERIV1") / RADIUS
        return southward_eastward[..., 1, :, :], -southward_eastward[..., 0, :, :]

    def _maps(self, coefficients: np.ndarray, spin: int, mode: str) -> np.ndarray:
        rows, columns = self.grid.shape
        about = self._about | {"ntheta": rows, "nphi": columns, "spin": spin, "mode": mode}
        flat = coefficients.reshape(-1, 1, coefficients.shape[-1])
        maps = np.stack([ducc0.sht.synthesis_2d(alm=one, **about) for one in flat])
        return maps.reshape(*coefficients.shape[:-1], 1 + spin, rows, columns)

    @property
    def _about(self) -> dict[str, Any]:
        return {"lmax": self.largest, "geometry": self.geometry}

    @staticmethod
    def _each(maps: np.ndarray, transform: Callable[[np.ndarray], np.ndarray], size: int) -> np.ndarray:
        """Coefficients ``(..., size)`` of maps ``(..., components, H, W)``, one after the other."""
        flat = np.ascontiguousarray(maps, np.float64).reshape(-1, *maps.shape[-3:])
        coefficients = np.empty((len(flat), size), np.complex128)
        for one, field in zip(coefficients, flat, strict=True):
            one[:] = transform(field)
        return coefficients.reshape(*maps.shape[:-3], size)


def whole_scalar(field: xr.DataArray) -> xr.DataArray:
    """A field with its last pole row, which takes the mean of the row beside it where it was dropped."""
    if not Grid.of(field).pole_dropped:
        return field
    name = field.name or "field"
    return restore_pole_row(field.to_dataset(name=name))[name].transpose(*field.dims)


def whole_wind(u: xr.DataArray, v: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The components of a wind with their last pole row.

    Where that was dropped, each takes the zonal wavenumber 1 of the row beside it (`aeris.data.grid.restore_pole_row`): at the pole a
    smooth wind is one vector, whose components turn once around the circle.
    """
    if not Grid.of(u).pole_dropped:
        return u, v
    names = ("u_component_of_wind", "v_component_of_wind")
    both = restore_pole_row(xr.Dataset(dict(zip(names, (u, v), strict=True))))
    return both[names[0]].transpose(*u.dims), both[names[1]].transpose(*v.dims)


def need_no_gaps(maps: np.ndarray) -> None:
    """Raises a DataError where a value is missing."""
    if np.isnan(maps).any():
        raise DataError(
            f"{np.isnan(maps).mean():.1%} of the field is missing",
            "A spectrum needs a value in every cell",
            f"Fill it; sea surface temperature over land with {SEA_ICE_POINT} K",
        )
