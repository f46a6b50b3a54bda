"""Zonal spectra: the energy of each wavenumber along the circles of latitude, as WeatherBench 2 defines it.

Along a circle of circumference C = 2πa cos φ with L columns and F_k = L⁻¹ Σ_j f_j exp(-2πikj/L), the energy is::

    S_0 = C |F_0|²,    S_k = 2 C |F_k|² for k > 0,    wavelength C / k,

so that Σ_k S_k = (C / L) Σ_j f_j², the integral of f² along the circle (Rasp et al. 2024, https://doi.org/10.1029/2023MS004019; class
`ZonalEnergySpectrum`). One number differs: with an even number of columns the last wavenumber is its own mirror image, and is counted once
here, as the sum needs, where that project counts it twice. Near a triangular truncation degrees say more (`aeris.verification.spectra`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from aeris.data.grid import Grid
from aeris.data.harmonics import need_no_gaps
from aeris.errors import ConfigurationError
from aeris.verification.pairing import CELLS, Gaps, Pairing, pair
from aeris.verification.spectra import left_out_members, squared, whole_maps

WEATHERBENCH_RADIUS = 6_367_500.0
"""Radius of the earth in WeatherBench 2, in m: the mean of its equatorial and polar radius."""

WAVENUMBER = "zonal_wavenumber"


def zonal_energy(field: xr.DataArray) -> xr.DataArray:
    """Energy of each zonal wavenumber on each row.

    Args:
        field: ``(..., latitude, longitude)`` with columns around the globe.

    Returns:
        Float64 ``(..., latitude, zonal_wavenumber)`` in m times the square of the field's unit, with coordinates ``wavelength`` in m and
        ``frequency`` in m⁻¹, ``(latitude, zonal_wavenumber)``. A circle at a pole has no length and no energy.

    Raises:
        DataError: The columns are not equally spaced around the globe, or a value is missing.
    """
    columns = Grid.of(field).shape[1]
    circumference = _circumference(field)
    spectrum = xr.apply_ufunc(
        _shares,
        field,
        input_core_dims=[["longitude"]],
        output_core_dims=[[WAVENUMBER]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {WAVENUMBER: columns // 2 + 1}, "allow_rechunk": True},
    )
    return _with_lengths((circumference * spectrum).transpose(*spectrum.dims))


def _circumference(field: xr.DataArray) -> xr.DataArray:
    return 2 * np.pi * WEATHERBENCH_RADIUS * np.cos(np.deg2rad(field.latitude)).clip(min=0.0)


def _shares(rows: np.ndarray) -> np.ndarray:
    """Share of each wavenumber in the mean square of rows ``(..., columns)``."""
    need_no_gaps(rows)
    columns = rows.shape[-1]
    wavenumber = np.arange(columns // 2 + 1)
    twice = np.where((wavenumber > 0) & (2 * wavenumber < columns), 2.0, 1.0)
    return twice * np.abs(np.fft.rfft(rows.astype(np.float64), norm="forward")) ** 2


def _with_lengths(spectrum: xr.DataArray) -> xr.DataArray:
    wavenumber = xr.DataArray(np.arange(spectrum.sizes[WAVENUMBER]), dims=WAVENUMBER)
    circumference = _circumference(spectrum)
    return spectrum.assign_coords(
        {
            WAVENUMBER: wavenumber,
            "wavelength": (circumference / wavenumber.where(wavenumber > 0)).fillna(np.inf).assign_attrs(units="m"),
            "frequency": (wavenumber / circumference.where(circumference > 0)).T.assign_attrs(units="m**-1"),
        }
    )


def mean_zonal_energy(
    fc: xr.Dataset | str | Path, truth: xr.Dataset, south: float = -90.0, north: float = 90.0, *, gaps: Gaps = "refuse"
) -> xr.Dataset:
    """Zonal energy of the members and of the truth at the valid times, each averaged over members and initial times.

    Args:
        fc: Forecast archive, or the path of one.
        truth: Canonical dataset, as for `aeris.verify`.
        south: Southernmost latitude in degrees of the rows that are kept.
        north: Northernmost.
        gaps: Where the truth lacks a time, ``"refuse"``, or ``"skip"`` it and count it.

    Returns:
        Dataset of the common variables, ``(system, prediction_timedelta, [level,] latitude, zonal_wavenumber)``, as `zonal_energy`; the
        systems are ``"forecast"`` and ``"truth"``. Sea surface temperature over land is filled with its freezing point in both. Members
        that are missing, or without truth, are left out; ``left_out_members`` counts them as in `aeris.verification.spectra.mean_power`.

    Raises:
        DataError: Forecast and truth do not fit together, or a field has gaps.
        ConfigurationError: No row lies between the two latitudes.
    """
    pairing = pair(fc, truth, gaps)
    rows = (pairing.forecast.latitude >= south) & (pairing.forecast.latitude <= north)
    if not rows.any():
        raise ConfigurationError(
            f"south={south:g}, north={north:g}",
            f"At least one row must lie between them; the rows lie from {float(rows.latitude[-1]):g}° to {float(rows.latitude[0]):g}°",
            "Use for example south=30, north=60",
        )
    return xr.Dataset({name: _mean_energy(name, pairing, rows.values) for name in pairing.variables})


def _mean_energy(name: str, pairing: Pairing, rows: np.ndarray) -> xr.DataArray:
    """Mean energy of one variable on some rows."""
    count = pairing.room(name, {"system": ["forecast", "truth"]}, 0.0)
    wavenumbers = np.arange(pairing.forecast.sizes["longitude"] // 2 + 1)
    latitude = pairing.forecast.latitude.values[rows]
    total = count.expand_dims({"latitude": latitude, WAVENUMBER: wavenumbers}, (-2, -1)).copy()
    for piece, case in pairing.cases(name):
        for order, fields in enumerate((case.members, case.truth.set_dims(("number", *case.truth.dims)))):
            maps, there = whole_maps(name, case, fields)
            total[{"system": order} | piece] += _shares(maps.transpose(..., *CELLS).values[..., rows, :]).sum(0)
            count[{"system": order} | piece] += there.sum("number")
    mean = _with_lengths((total / count.where(count > 0) * _circumference(total)).transpose(*total.dims))
    about = {"units": squared(count.attrs["units"], "m"), "long_name": f"zonal energy, {count.attrs['long_name']}"}
    return mean.assign_attrs(about, left_out_members=left_out_members(count.sel(system="forecast"), pairing))
