"""Spectra: how much of a field's variance each spherical-harmonic degree holds.

With orthonormal harmonics f = Σ_lm a_lm Y_lm the power of degree l is ``p_l = Σ_m |a_lm|² / 4π``, all orders m = -l..l counted, so that
Σ_l p_l is the mean of f² over the globe (Parseval). The transforms are those of ducc0, which are exact for fields without degrees
above the largest that the grid resolves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path

import ducc0
import numpy as np
import xarray as xr

from aeris.data.grid import Grid, restore_pole_row
from aeris.data.spherical import degree_order
from aeris.data.variables import SEA, SEA_ICE_POINT
from aeris.errors import DataError
from aeris.verification.kept import by_initial_time
from aeris.verification.pairing import CELLS, Pairing, attributes_of, pair


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


def power(field: xr.DataArray) -> xr.DataArray:
    """Power of each spherical-harmonic degree.

    Args:
        field: A scalar on a global grid, ``(..., latitude, longitude)``. A grid whose last pole row was dropped gets it back first.

    Returns:
        Float64 ``(..., degree)`` in the square of the field's unit; its sum over the degrees is the mean square over the globe. The
        largest degree is n - 2 for n rows with both poles, n - 1 for centres of equal bands and for Gaussian rows, and never more
        than half the columns.

    Raises:
        DataError: The rows are of no kind that can be analysed exactly, or a value is missing.
    """
    grid = Grid.of(field)
    geometry, largest = _analysis_on(grid)
    if grid.pole_dropped:
        name = field.name or "field"
        field = restore_pole_row(field.to_dataset(name=name))[name].transpose(*field.dims)
    spectrum = xr.apply_ufunc(
        _power_of_maps,
        field,
        kwargs={"geometry": geometry, "largest": largest},
        input_core_dims=[CELLS],
        output_core_dims=[["degree"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"degree": largest + 1}, "allow_rechunk": True},
    )
    return spectrum.assign_coords(degree=np.arange(largest + 1))


def _analysis_on(grid: Grid) -> tuple[str, int]:
    """ducc0's name of the rows of a grid (its last pole row put back), and the largest degree that rows and columns resolve."""
    latitude = np.append(grid.latitude, -90.0) if grid.pole_dropped else grid.latitude
    for rows in ROWS:
        if np.allclose(latitude, rows.latitude(len(latitude)), atol=1e-3):
            return rows.geometry, min(rows.largest_degree(len(latitude)), (grid.shape[1] - 1) // 2)
    raise DataError(
        f"The {grid.shape[0]} rows from {grid.latitude[0]:.4g}° to {grid.latitude[-1]:.4g}°",
        "A spectrum needs rows with both poles, centres of equal bands, Gaussian rows, or equally spaced rows without the poles",
        "Bring the field onto such a grid, for example with aeris.coarsen(ds, (rows, columns))",
    )


def _power_of_maps(maps: np.ndarray, geometry: str, largest: int) -> np.ndarray:
    """Power ``(..., largest + 1)`` of maps ``(..., rows, columns)``."""
    if np.isnan(maps).any():
        raise DataError(
            f"{np.isnan(maps).mean():.1%} of the field is missing",
            "A spectrum needs a value in every cell",
            f"Fill it; sea surface temperature over land with {SEA_ICE_POINT} K",
        )
    flat = np.ascontiguousarray(maps, np.float64).reshape(-1, 1, *maps.shape[-2:])
    degree, order = degree_order(largest)
    # Of a real field ducc0 keeps m ≥ 0 alone; |a_lm| is the same for -m, so all but m = 0 count twice.
    share = np.where(order > 0, 2.0, 1.0) / (4 * np.pi)
    spectra = np.empty((len(flat), largest + 1))
    for spectrum, one in zip(spectra, flat, strict=True):
        coefficients = ducc0.sht.analysis_2d(map=one, spin=0, lmax=largest, geometry=geometry)[0]
        spectrum[:] = np.bincount(degree, share * np.abs(coefficients) ** 2)
    return spectra.reshape(*maps.shape[:-2], largest + 1)


def mean_power(fc: xr.Dataset | str | Path, truth: xr.Dataset, *, keep: str | Path | None = None, progress: bool = False) -> xr.Dataset:
    """Power of the members and of the truth at the valid times, each averaged over members and initial times.

    Sea surface temperature over land is filled with its freezing point in both. Members that are not there are left out, and those of
    valid times without truth.

    Args:
        fc: Forecast archive, or the path of one.
        truth: Canonical dataset, as for `aeris.verify`.
        keep: Folder in which what each initial time gave is kept, as for `aeris.verify`.
        progress: Whether to show a progress bar.

    Returns:
        Dataset of the common variables, ``(system, prediction_timedelta, [level,] degree)``; the systems are ``"forecast"`` and
        ``"truth"``. The attribute ``units`` is that of the variable, squared.

    Raises:
        DataError: Forecast and truth do not fit together, the grid cannot be analysed, or a field has gaps.
    """
    pairing = pair(fc, truth)
    _, largest = _analysis_on(Grid.of(pairing.forecast))
    sums = reduce(add, by_initial_time(partial(_powers, largest=largest), pairing, keep, {"what": "spectra"}, progress=progress))
    return xr.Dataset({name: _mean_power_of(sums, name, attributes_of(pairing.forecast[name])) for name in pairing.variables})


def _powers(pairing: Pairing, largest: int) -> xr.Dataset:
    """Sums of powers, ``(system, prediction_timedelta, [level,] degree)``, and how many fields were summed, by variable."""
    sums: dict[str, xr.DataArray] = {}
    cells = {dim: pairing.forecast[dim] for dim in CELLS}
    for name in pairing.variables:
        count = pairing.room(name, {"system": ["forecast", "truth"]}, 0.0)
        total = count.expand_dims(degree=np.arange(largest + 1), axis=-1).copy()
        for piece, case in pairing.cases(name):
            for order, fields in enumerate((case.members, case.truth.set_dims(("number", *case.truth.dims)))):
                there = fields.notnull().any(CELLS) & case.known.any(CELLS)
                filled = fields.where(case.known, SEA_ICE_POINT) if name == SEA else fields
                maps = xr.DataArray(filled.where(there, 0.0), cells, name=name)
                total[{"system": order} | piece] += power(maps).sum("number").values
                count[{"system": order} | piece] += there.sum("number")
        sums |= {f"total.{name}": total, f"count.{name}": count}
    return xr.Dataset(sums)


def _mean_power_of(sums: xr.Dataset, name: str, field: Mapping[str, str]) -> xr.DataArray:
    """Mean power of one variable, ``(system, prediction_timedelta, [level,] degree)``."""
    count = sums[f"count.{name}"]
    about = {"units": _squared(field["units"]), "long_name": f"power, {field['long_name']}"}
    return (sums[f"total.{name}"] / count.where(count > 0)).drop_attrs().assign_attrs(about)


def _squared(units: str) -> str:
    """The square of a unit: ``m**2 s**-2`` becomes ``m**4 s**-4``."""
    factors = [factor.partition("**") for factor in units.split() if factor != "1"]
    return " ".join(f"{name}**{2 * int(exponent or 1)}" for name, _, exponent in factors) or "1"


def power_ratio(fc: xr.Dataset | str | Path, truth: xr.Dataset) -> xr.Dataset:
    """Power of the members over that of the truth: 1 where the forecast is as rough as the weather.

    Args and errors are those of `mean_power`.

    Returns:
        Dataset of the common variables, ``(prediction_timedelta, [level,] degree)``, without unit.
    """
    return ratio_of(mean_power(fc, truth))


def ratio_of(means: xr.Dataset) -> xr.Dataset:
    """`power_ratio` from the powers that `mean_power` gave."""
    ratio = means.sel(system="forecast", drop=True) / means.sel(system="truth", drop=True)
    return ratio.map(
        lambda field: field.assign_attrs(units="1", long_name=f"{means[field.name].attrs['long_name']}, over that of the truth")
    )
