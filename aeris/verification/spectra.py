"""Spectra: how much of a field's variance each spherical-harmonic degree holds.

With orthonormal harmonics f = Σ_lm a_lm Y_lm the power of degree l is ``p_l = Σ_m |a_lm|² / 4π``, all orders m = -l..l counted, so that
Σ_l p_l is the mean of f² over the globe (Parseval). The transforms are those of ducc0, which are exact for fields without degrees
above the largest that the grid resolves.
"""

from __future__ import annotations

from functools import partial, reduce
from operator import add
from pathlib import Path

import numpy as np
import xarray as xr

from aeris.data.harmonics import Sphere, whole_scalar
from aeris.data.spherical import RADIUS
from aeris.data.variables import SEA, SEA_ICE_POINT
from aeris.errors import ConfigurationError
from aeris.verification.kept import by_initial_time
from aeris.verification.pairing import CELLS, LEAD, Case, Gaps, Pairing, attributes_of, pair


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
    sphere = Sphere.of(field)
    spectrum = xr.apply_ufunc(
        lambda maps: sphere.by_degree(np.abs(sphere.analysis(maps)) ** 2),
        whole_scalar(field),
        input_core_dims=[CELLS],
        output_core_dims=[["degree"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"degree": sphere.largest + 1}, "allow_rechunk": True},
    )
    return spectrum.assign_coords(degree=np.arange(sphere.largest + 1))


def mean_power(
    fc: xr.Dataset | str | Path, truth: xr.Dataset, *, gaps: Gaps = "refuse", keep: str | Path | None = None, progress: bool = False
) -> xr.Dataset:
    """Power of the members and of the truth at the valid times, each averaged over members and initial times.

    Sea surface temperature over land is filled with its freezing point in both. Members that are not there are left out, and those of
    valid times without truth; both are counted.

    Args:
        fc: Forecast archive, or the path of one.
        truth: Canonical dataset, as for `aeris.verify`.
        gaps: Where the truth lacks a time, ``"refuse"``, or ``"skip"`` it and count it.
        keep: Folder in which what each initial time gave is kept, as for `aeris.verify`.
        progress: Whether to show a progress bar.

    Returns:
        Dataset of the common variables, ``(system, prediction_timedelta, [level,] degree)``; the systems are ``"forecast"`` and
        ``"truth"``. The attribute ``units`` is that of the variable, squared; ``left_out_members`` counts the members that were left out,
        summed over initial times and leads.

    Raises:
        DataError: Forecast and truth do not fit together, the grid cannot be analysed, or a field has gaps.
    """
    pairing = pair(fc, truth, gaps)
    largest = Sphere.of(pairing.forecast).largest
    sums = reduce(add, by_initial_time(partial(_powers, largest=largest), pairing, keep, {"what": "spectra"}, progress=progress))
    return xr.Dataset({name: _mean_power_of(sums, name, pairing) for name in pairing.variables})


def _powers(pairing: Pairing, largest: int) -> xr.Dataset:
    """Sums of powers, ``(system, prediction_timedelta, [level,] degree)``, and how many fields were summed, by variable."""
    sums: dict[str, xr.DataArray] = {}
    cells = {dim: pairing.forecast[dim] for dim in CELLS}
    for name in pairing.variables:
        count = pairing.room(name, {"system": ["forecast", "truth"]}, 0.0)
        total = count.expand_dims(degree=np.arange(largest + 1), axis=-1).copy()
        for piece, case in pairing.cases(name):
            for order, fields in enumerate((case.members, case.truth.set_dims(("number", *case.truth.dims)))):
                maps, there = whole_maps(name, case, fields)
                total[{"system": order} | piece] += power(xr.DataArray(maps, cells, name=name)).sum("number").values
                count[{"system": order} | piece] += there.sum("number")
        sums |= {f"total.{name}": total, f"count.{name}": count}
    return xr.Dataset(sums)


def _mean_power_of(sums: xr.Dataset, name: str, pairing: Pairing) -> xr.DataArray:
    """Mean power of one variable, ``(system, prediction_timedelta, [level,] degree)``."""
    count, field = sums[f"count.{name}"], attributes_of(pairing.forecast[name])
    about = {"units": squared(field["units"]), "long_name": f"power, {field['long_name']}"}
    left_out = left_out_members(count.sel(system="forecast"), pairing)
    return (sums[f"total.{name}"] / count.where(count > 0)).drop_attrs().assign_attrs(about, left_out_members=left_out)


def left_out_members(count: xr.DataArray, pairing: Pairing) -> int:
    """How many members were left out at initial times and leads, from those that counted ``(prediction_timedelta, [level])``.

    One that lacks a level counts once. Initial times that were left out as a whole are counted too.
    """
    fewest = count.min([dim for dim in count.dims if dim != LEAD])
    starts = len(pairing.times) + pairing.left_out_starts
    return int((starts * pairing.forecast.sizes["number"] - fewest).sum())


def whole_maps(name: str, case: Case, fields: xr.Variable) -> tuple[xr.Variable, xr.Variable]:
    """Fields of a case without gaps, and which of them are there; those that are not are zero.

    Sea surface temperature takes its freezing point where the truth is missing. Where no truth is known, no field counts.
    """
    there = fields.notnull().any(CELLS) & case.known.any(CELLS)
    filled = fields.where(case.known, SEA_ICE_POINT) if name == SEA else fields
    return filled.where(there, 0.0), there


def squared(units: str, *factors: str) -> str:
    """The square of a unit, times further units: ``m**2 s**-2`` becomes ``m**4 s**-4``."""
    parts = [factor.partition("**") for factor in units.split() if factor != "1"]
    return " ".join([*factors, *(f"{name}**{2 * int(exponent or 1)}" for name, _, exponent in parts)]) or "1"


def power_ratio(fc: xr.Dataset | str | Path, truth: xr.Dataset, *, gaps: Gaps = "refuse") -> xr.Dataset:
    """Power of the members over that of the truth: 1 where the forecast is as rough as the weather.

    Args and errors are those of `mean_power`.

    Returns:
        Dataset of the common variables, ``(prediction_timedelta, [level,] degree)``, without unit.
    """
    return ratio_of(mean_power(fc, truth, gaps=gaps))


def ratio_of(means: xr.Dataset) -> xr.Dataset:
    """`power_ratio` from the powers that `mean_power` gave."""
    ratio = means.sel(system="forecast", drop=True) / means.sel(system="truth", drop=True)
    about = {name: f"{means[name].attrs['long_name']}, over that of the truth" for name in ratio}
    counted = {name: {key: means[name].attrs[key] for key in ("left_out_members",) if key in means[name].attrs} for name in ratio}
    return xr.Dataset({name: field.assign_attrs(units="1", long_name=about[name], **counted[name]) for name, field in ratio.items()})


def effective_resolution(ratio: xr.Dataset, share: float = 0.5) -> xr.Dataset:
    """The shortest wavelength down to which a forecast holds at least a share of the truth's power at every scale.

    The wavelength of degree l is 2πa / √(l(l+1)) (Jeans 1923). Degrees are tried from 1 on, and the last before the first that falls short
    counts: power that comes back at the end of a spectrum is noise. Averages over few dates make that first fall a matter of chance.

    Args:
        ratio: From `power_ratio` or `ratio_of`, along ``degree``.
        share: Smallest ratio that counts as resolved, above 0.

    Returns:
        Dataset of the variables without ``degree``, in m. The wavelength of the largest degree where none falls short, infinite where
        degree 1 does, NaN where nothing was compared.

    Raises:
        ConfigurationError: The share is not above 0.
    """
    if not share > 0:
        raise ConfigurationError(f"share={share}", "A share of the truth's power lies above 0", "Use for example share=0.5")
    waves = ratio.sel(degree=slice(1, None))
    last = (waves >= share).cumprod("degree").sum("degree")  # how many degrees from 1 on hold the share, hence the last of them
    wavelength = 2 * np.pi * RADIUS / (last * (last + 1.0)) ** 0.5
    found = wavelength.where(waves.notnull().all("degree"))
    about = {"units": "m", "long_name": f"shortest wavelength with {share:g} of the truth's power"}
    return xr.Dataset({name: field.assign_attrs(about) for name, field in found.items()})
