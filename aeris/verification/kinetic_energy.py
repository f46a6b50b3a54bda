"""Kinetic energy by scale, in its rotational and its divergent part, and what else follows from a wind: vorticity, divergence, potentials.

A wind on the sphere is V = k × ∇ψ + ∇χ. With orthonormal vector harmonics of degree l the kinetic energy per unit mass at that degree is
``E_l = Σ_m (|b_lm|² + |c_lm|²) / 8π``, b and c being the coefficients of the rotational and of the divergent part, so that Σ_l E_l is the
mean of (u² + v²)/2 over the globe (Parseval; Boer & Shepherd 1983,
https://doi.org/10.1175/1520-0469(1983)040<0164:LSTDTI>2.0.CO;2). There is no degree 0. A member that is as rough as the weather has its
energy at every degree; a divergent part that grows with lead tells of winds that no longer belong together.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from aeris.data.harmonics import Sphere, whole_wind
from aeris.data.spherical import RADIUS
from aeris.data.variables import WIND_PAIRS
from aeris.errors import DataError
from aeris.verification.pairing import CELLS, Gaps, Pairing, pair, pieces, read_case
from aeris.verification.spectra import left_out_members

PARTS = ("rotational", "divergent")
ENERGIES = dict(zip(("10m_kinetic_energy", "kinetic_energy"), WIND_PAIRS, strict=True))
"""Names of kinetic energies, and the winds that they are made of."""

_LONG_NAMES = {"10m_kinetic_energy": "kinetic energy at 10 m", "kinetic_energy": "kinetic energy"}


def kinetic_energy(u: xr.DataArray, v: xr.DataArray) -> xr.DataArray:
    """Kinetic energy per unit mass of each spherical-harmonic degree.

    At a pole the components of a wind turn with longitude. A row on a pole is taken as it is and must hold them so, as analyses do; where
    the last pole row was dropped, each component takes the zonal wavenumber 1 of the row beside it, off by the first order of the
    distance of two rows. Rows beside the poles need no such care.

    Args:
        u: Eastward wind in m s⁻¹ on a global grid, ``(..., latitude, longitude)``.
        v: Northward wind, on the same.

    Returns:
        Float64 ``(..., part, degree)`` in m² s⁻², `part` being one of `PARTS`; its sum is the mean kinetic energy over the globe for winds
        without degrees above the largest (`aeris.data.harmonics.Sphere`).

    Raises:
        DataError: The rows are of no kind that can be analysed exactly, or a value is missing.
    """
    sphere = Sphere.of(u)

    def energies(east: np.ndarray, north: np.ndarray) -> np.ndarray:
        divergent, rotational = sphere.vector_analysis(east, north)
        return np.stack([sphere.by_degree(np.abs(part) ** 2) / 2 for part in (rotational, divergent)], axis=-2)

    spectrum = xr.apply_ufunc(
        energies,
        *whole_wind(u, v),
        input_core_dims=[CELLS, CELLS],
        output_core_dims=[["part", "degree"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"part": 2, "degree": sphere.largest + 1}, "allow_rechunk": True},
    )
    about = {"units": "m**2 s**-2", "long_name": "kinetic energy"}
    return spectrum.assign_coords(part=np.array(PARTS, object), degree=np.arange(sphere.largest + 1)).assign_attrs(about)


def mean_kinetic_energy(fc: xr.Dataset | str | Path, truth: xr.Dataset, *, gaps: Gaps = "refuse") -> xr.Dataset:
    """Kinetic energy of the members and of the truth at the valid times, each averaged over members and initial times.

    Args:
        fc: Forecast archive, or the path of one.
        truth: Canonical dataset, as for `aeris.verify`.
        gaps: Where the truth lacks a time, ``"refuse"``, or ``"skip"`` it and count it.

    Returns:
        Dataset of ``"kinetic_energy"`` and ``"10m_kinetic_energy"``, as far as both hold both winds, in m² s⁻²:
        ``(system, prediction_timedelta, [level,] part, degree)``. Members that are not there, or without truth, are left out;
        ``left_out_members`` counts them as in `aeris.verification.spectra.mean_power`.
        `aeris.verification.spectra.ratio_of` makes ratios of it.

    Raises:
        DataError: Forecast and truth do not fit together, hold no pair of winds, the grid cannot be analysed, or a field has gaps.
    """
    pairing = pair(fc, truth, gaps)
    found = {name: winds for name, winds in ENERGIES.items() if set(winds) <= set(pairing.variables)}
    if not found:
        raise DataError(
            f"Forecast and truth have {', '.join(pairing.variables)} in common",
            f"Kinetic energy needs both winds: {' and '.join(WIND_PAIRS[1])}, or {' and '.join(WIND_PAIRS[0])}",
            "Give a forecast and a truth with both components",
        )
    return xr.Dataset({name: _mean_energy(winds, pairing).assign_attrs(long_name=_LONG_NAMES[name]) for name, winds in found.items()})


def _mean_energy(winds: tuple[str, str], pairing: Pairing) -> xr.DataArray:
    """Mean energy of one pair of winds, ``(system, prediction_timedelta, [level,] part, degree)``."""
    count = pairing.room(winds[0], {"system": ["forecast", "truth"]}, 0.0)
    degrees = np.arange(Sphere.of(pairing.forecast).largest + 1)
    total = count.expand_dims(part=np.array(PARTS, object), degree=degrees, axis=(-2, -1)).copy()
    cells = {dim: pairing.forecast[dim] for dim in CELLS}
    for time in pairing.times:
        members, truth = pairing.members(time), pairing.truth_after(time)
        for piece in pieces(members[winds[0]]):
            cases = [read_case(members[name].isel(piece), truth[name].isel(piece)) for name in winds]
            known = cases[0].known.any(CELLS) & cases[1].known.any(CELLS)
            for order, fields in enumerate(
                ([case.members for case in cases], [case.truth.set_dims(("number", *case.truth.dims)) for case in cases])
            ):
                there = fields[0].notnull().any(CELLS) & fields[1].notnull().any(CELLS) & known
                u, v = (xr.DataArray(field.where(there, 0.0), cells) for field in fields)
                total[{"system": order} | piece] += kinetic_energy(u, v).sum("number").values
                count[{"system": order} | piece] += there.sum("number")
    left_out = left_out_members(count.sel(system="forecast"), pairing)
    return (total / count.where(count > 0)).assign_attrs(units="m**2 s**-2", left_out_members=left_out)


def flow(u: xr.DataArray, v: xr.DataArray) -> xr.Dataset:
    """Vorticity, divergence, streamfunction and velocity potential of a wind, by spherical harmonics.

    ζ = ∇²ψ and δ = ∇²χ with V = k × ∇ψ + ∇χ; ψ and χ have no mean over the globe.

    Args:
        u: Eastward wind in m s⁻¹ on a global grid, ``(..., latitude, longitude)``, in memory.
        v: Northward wind, on the same.

    Returns:
        Dataset of ``vorticity`` and ``divergence`` in s⁻¹, ``streamfunction`` and ``velocity_potential`` in m² s⁻¹, float64, on the same
        grid. Poles as in `kinetic_energy`.

    Raises:
        DataError: The rows are of no kind that can be analysed exactly, or a value is missing.
    """
    sphere, rows = Sphere.of(u), u.sizes["latitude"]
    u, v = (field.transpose(..., *CELLS) for field in (u, v))
    parts = sphere.vector_analysis(*(field.values for field in whole_wind(u, v)))
    per_length = np.sqrt(sphere.degree * (sphere.degree + 1.0)) / RADIUS
    inverse = np.divide(1.0, per_length, out=np.zeros_like(per_length), where=per_length > 0)

    def on_grid(coefficients: np.ndarray, units: str, long_name: str) -> xr.DataArray:
        maps = sphere.synthesis(coefficients)[..., :rows, :]
        return xr.DataArray(maps, u.coords, u.dims, attrs={"units": units, "long_name": long_name})

    divergent, rotational = parts
    return xr.Dataset(
        {
            "vorticity": on_grid(-per_length * rotational, "s**-1", "relative vorticity"),
            "divergence": on_grid(-per_length * divergent, "s**-1", "divergence"),
            "streamfunction": on_grid(inverse * rotational, "m**2 s**-1", "streamfunction"),
            "velocity_potential": on_grid(inverse * divergent, "m**2 s**-1", "velocity potential"),
        }
    )
