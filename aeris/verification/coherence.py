"""Coherence: down to which scale a forecast is where the truth is.

Power says whether a scale is there, coherence whether it is in its place. At degree l, with coefficients a of the forecast and b of the
truth::

    r_l = Σ_m Re a_lm b*_lm / √(Σ_m |a_lm|² · Σ_m |b_lm|²),

each sum being averaged over members and initial times before the root and the quotient (Boer 1984,
https://doi.org/10.1175/1520-0493(1984)112<1183:ASAOPA>2.0.CO;2). Of members and truth that are drawn from one distribution the coherence
r of a member is the share of the variance that could be known, and that of a mean of endless members √r.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from aeris.data.harmonics import Sphere, whole_scalar
from aeris.verification.baselines import System, climatological
from aeris.verification.climatology import Climatology, climatology_of
from aeris.verification.pairing import CELLS, LEAD, Case, Gaps, Pairing, pair, pieces, read_case
from aeris.verification.spectra import left_out_members, whole_maps

SYSTEMS = ("members", "mean")

_ROUNDING = 1e-24
"""Share of the largest power below which a power is what rounding left."""


def coherence(
    fc: xr.Dataset | str | Path, truth: xr.Dataset, climatology: xr.Dataset | Climatology | None = None, *, gaps: Gaps = "refuse"
) -> xr.Dataset:
    """Correlation of the forecast with the truth at each spherical-harmonic degree.

    Args:
        fc: Forecast archive, or the path of one.
        truth: Canonical dataset, as for `aeris.verify`.
        climatology: As for `aeris.verify`; its mean is taken off both. Without it the largest scales are coherent by their climate alone.
        gaps: Where the truth lacks a time, ``"refuse"``, or ``"skip"`` it and count it.

    Returns:
        Dataset of the common variables, ``(system, prediction_timedelta, [level,] degree)``, without unit: 1 is perfect, 0 no better than
        chance. The systems are ``"members"``, each member with the truth, and ``"mean"``, the mean of the members that are there. Sea
        surface temperature over land is filled with its freezing point in both. NaN where no member is there, or a degree has no power.
        Members that are missing, or without truth, are left out; ``left_out_members`` counts them as in
        `aeris.verification.spectra.mean_power`.

    Raises:
        DataError: Forecast, truth and climatology do not fit together, the grid cannot be analysed, or a field has gaps.
    """
    pairing = pair(fc, truth, gaps)
    normal = None if climatology is None else climatological(pairing, climatology_of(climatology))
    return xr.Dataset({name: _coherence_of(name, pairing, normal) for name in pairing.variables})


def _coherence_of(name: str, pairing: Pairing, normal: System | None) -> xr.DataArray:
    """Coherence of one variable, ``(system, prediction_timedelta, [level,] degree)``."""
    sphere = Sphere.of(pairing.forecast)
    room = pairing.room(name, {"sum": ["product", "forecast", "truth"], "system": list(SYSTEMS)}, 0.0)
    sums = room.expand_dims(degree=np.arange(sphere.largest + 1), axis=-1).copy()
    alone, count = Pairing(pairing.forecast[[name]], pairing.truth[[name]]), pairing.room(name, {}, 0.0)
    for time in pairing.times:
        members, truth = alone.members(time)[name], alone.truth_after(time)[name]
        usual = None if normal is None else normal(time)[name].mean("number")
        for piece in pieces(members):
            case = read_case(members.isel(piece), truth.isel(piece))
            mean = None if usual is None else usual.isel(piece)
            sums[piece] += _sums_of(name, case, mean, sphere, pairing)
            count[piece] += (case.there & case.known.any(CELLS)).sum("number")
    product, forecast, happened = (sums.sel(sum=part, drop=True) for part in sums["sum"].values)
    scale = (forecast * happened) ** 0.5
    about = {"units": "1", "long_name": f"coherence with the truth, {room.attrs['long_name']}"}
    ratio = product / scale.where(scale > _ROUNDING * scale.max("degree"))
    return ratio.assign_attrs(about, left_out_members=left_out_members(count, pairing))


def _sums_of(name: str, case: Case, usual: xr.DataArray | None, sphere: Sphere, pairing: Pairing) -> np.ndarray:
    """Product and powers of one case, ``(sum, system, prediction_timedelta, [level,] degree)``, added up over the members."""
    there = case.members.notnull().any(CELLS).values[..., None]
    members, happened = (_coefficients(name, case, fields, usual, sphere, pairing) for fields in (case.members, case.truth))
    count = there.sum(0)
    mean = np.where(there, members, 0.0).sum(0) / np.maximum(count, 1)

    def sums(forecast: np.ndarray) -> list[np.ndarray]:
        return [np.real(forecast * happened.conj()), np.abs(forecast) ** 2, np.broadcast_to(np.abs(happened) ** 2, forecast.shape)]

    each = [np.where(there, one, 0.0).sum(0) for one in sums(members)]
    of_mean = [np.where(count > 0, one, 0.0) for one in sums(mean)]
    return sphere.by_degree(np.stack([np.stack(both) for both in zip(each, of_mean, strict=True)]))


def _coefficients(name: str, case: Case, fields: xr.Variable, usual: xr.DataArray | None, sphere: Sphere, pairing: Pairing) -> np.ndarray:
    """Coefficients ``([number,] prediction_timedelta, [level,] N)`` of anomalies; zero where a field is not there."""
    maps, there = whole_maps(name, case, fields)
    if usual is not None:
        normal = xr.Variable(usual.dims, usual.values)
        maps = (maps - whole_maps(name, case, normal)[0]).where(there, 0.0)
    ordered = maps.transpose(*[dim for dim in ("number", LEAD, "level") if dim in maps.dims], *CELLS)
    field = xr.DataArray(ordered, {dim: pairing.forecast[dim] for dim in CELLS}, name=name)
    return sphere.analysis(whole_scalar(field).values)
