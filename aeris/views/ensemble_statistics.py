"""What an ensemble says: mean, spread, quantiles, the probability of exceeding a threshold, zonal power, daily maxima.

All of it is of members that are there; which those are is the business of `aeris.views.archive_reader`. Where a member has a missing
value, as sea surface temperature has over land, so has the statistic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from aeris.data.grid import Grid
from aeris.errors import DataError
from aeris.views.slices import LEAD, in_band
from aeris.views.style import unit_text

Kind = Literal["member", "mean", "spread", "probability"]


@dataclass(frozen=True)
class Quantity:
    """What is shown of an ensemble.

    Attributes:
        kind: One member, the ensemble mean, the spread (unbiased standard deviation), or the probability of exceeding a threshold.
        member: Number of the member.
        threshold: In the unit of the variable.
        above: Whether the threshold is to be exceeded; else to be fallen short of.
    """

    kind: Kind = "mean"
    member: int = 0
    threshold: float = 0.0
    above: bool = True

    def of(self, members: xr.DataArray) -> xr.DataArray:
        """The quantity of an ensemble ``(number, ...)``: ``(...)``, with the unit among its attributes.

        Raises:
            DataError: The member is not among them, there is none, or there is but one and a spread is asked for.
        """
        if members.sizes["number"] < self._needed:
            raise DataError(
                f"{members.sizes['number']} members have come this far",
                f"The {self.kind} needs at least {self._needed}",
                "Choose an earlier lead or another initial time, or wait and refresh",
            )
        statistic = {"member": self._member, "mean": mean, "spread": spread, "probability": self._probability}[self.kind](members)
        return statistic.assign_attrs(units=self.unit(members.attrs.get("units", "1")))

    def unit(self, units: str) -> str:
        """Its unit, where the variable's is `units`."""
        return "1" if self.kind == "probability" else units

    def text(self, units: str) -> str:
        """What it is called in a title, where the variable's unit is `units`."""
        words = {"member": f"member {self.member}", "mean": "ensemble mean", "spread": "ensemble spread (standard deviation)"}
        side = "more" if self.above else "less"
        return words.get(self.kind) or f"probability of {side} than {self.threshold:g} {unit_text(units)}".rstrip()

    @property
    def scale(self) -> str:
        """The kind of its colour scale, as `aeris.views.style.colour_scale` takes it."""
        return "value" if self.kind in ("mean", "member") else self.kind

    @property
    def _needed(self) -> int:
        return 2 if self.kind == "spread" else 1

    def _member(self, members: xr.DataArray) -> xr.DataArray:
        if self.member not in members.number:
            raise DataError(
                f"Member {self.member} has not come this far",
                f"There are the members {', '.join(map(str, members.number.values))}",
                "Choose one of these or an earlier lead, or wait and refresh",
            )
        return members.sel(number=self.member, drop=True)

    def _probability(self, members: xr.DataArray) -> xr.DataArray:
        return exceedance_probability(members, self.threshold, self.above)


def mean(members: xr.DataArray) -> xr.DataArray:
    """Ensemble mean of ``(number, ...)``."""
    return members.mean("number", skipna=False, keep_attrs=True)


def spread(members: xr.DataArray) -> xr.DataArray:
    """Standard deviation of the members ``(number, ...)`` about their mean, from the unbiased variance."""
    return members.std("number", ddof=1, skipna=False, keep_attrs=True)


def exceedance_probability(members: xr.DataArray, threshold: float, above: bool = True) -> xr.DataArray:
    """Share of the members ``(number, ...)`` above, or below, a threshold, from 0 to 1."""
    beyond = members > threshold if above else members < threshold
    return beyond.mean("number").where(members.notnull().all("number")).assign_attrs(units="1").rename(members.name)


def quantiles(members: xr.DataArray, probabilities: tuple[float, ...]) -> xr.DataArray:
    """Quantiles ``(quantile, ...)`` of the members that are not NaN, linear between order statistics."""
    return members.quantile(list(probabilities), "number", keep_attrs=True)


def band_mean(field: xr.DataArray, south: float, north: float, area: xr.DataArray | None = None) -> xr.DataArray:
    """Mean over a band of latitudes, by cell area.

    Args:
        field: ``(..., latitude, longitude)`` on a global grid, or rows of one that hold the band.
        south: Southern edge in degrees.
        north: Northern edge in degrees.
        area: Cell areas ``(latitude,)`` of the global grid, where the field has only rows of it.

    Returns:
        ``(..., longitude)``; missing cells are left out.
    """
    rows = in_band(field, south, north).load()  # once: the mean asks for the values and for where they are
    weight = in_band(cell_areas(field) if area is None else area, south, north)
    return rows.weighted(weight).mean("latitude", keep_attrs=True)


def cell_areas(field: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Cell areas ``(latitude,)`` of a global grid."""
    return xr.DataArray(Grid.of(field).area, {"latitude": field.latitude}, ["latitude"])


def zonal_power(field: xr.DataArray, south: float, north: float) -> xr.DataArray:
    """Power of each zonal wavenumber, averaged over a band of latitudes by cell area.

    With f(λ) = Σ_k c_k exp(ikλ) along a row, the power of wavenumber k is ``|c_k|² + |c_-k|²``; over all k it sums to the mean of f² along
    the row (Parseval).

    Args:
        field: ``(..., latitude, longitude)`` on a global grid.
        south: Southern edge in degrees.
        north: Northern edge in degrees.

    Returns:
        Float64 ``(..., wavenumber)`` in the square of the field's unit.

    Raises:
        DataError: A cell of the band is missing.
    """
    weight = in_band(cell_areas(field), south, north)
    rows = in_band(field, south, north)
    if bool(rows.isnull().any()):
        raise DataError(
            f"{field.name} has missing cells between {south:g}° and {north:g}° north",
            "A spectrum needs a value in every cell of its band",
            "Choose another band of latitudes, or a variable that is known everywhere",
        )
    return xr.apply_ufunc(
        _mean_power, rows, weight, input_core_dims=[["latitude", "longitude"], ["latitude"]], output_core_dims=[["wavenumber"]]
    ).assign_coords(wavenumber=np.arange(field.sizes["longitude"] // 2 + 1))


def _mean_power(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Power ``(..., wavenumber)`` of rows ``(..., latitude, longitude)``, averaged with weights ``(latitude,)``."""
    columns = rows.shape[-1]
    power = np.abs(np.fft.rfft(rows.astype(np.float64), axis=-1) / columns) ** 2
    power[..., 1 : (columns + 1) // 2] *= 2.0  # both signs of k, but for the mean and the shortest wave, which are their own mirror
    return np.average(power, axis=-2, weights=weight)


def daily_maxima(series: xr.DataArray, time: np.datetime64) -> xr.DataArray:
    """The largest value of each day (UTC) that a forecast reaches.

    Args:
        series: ``(number, prediction_timedelta)``, NaN where a member has not come so far.
        time: Initial time.

    Returns:
        ``(number, day)``; NaN for a member that lacks a lead of the day. The coordinate ``leads`` counts the leads that a day has: the
        first and the last day of a forecast may have fewer.
    """
    day = xr.DataArray((time + series[LEAD].values).astype("datetime64[D]").astype("datetime64[ns]"), dims=LEAD, name="day")
    grouped = series.assign_coords(day=day).groupby("day")
    maxima = grouped.max(skipna=False).transpose("number", "day")
    return maxima.assign_coords(leads=("day", np.unique(day.values, return_counts=True)[1]))


def hottest_days(maxima: xr.DataArray, threshold: float) -> xr.Dataset:
    """The days of a forecast in the order of their expected maximum, the highest first.

    Args:
        maxima: ``(number, day)`` as from `daily_maxima`.
        threshold: In the unit of the variable.

    Returns:
        ``mean``, ``lowest``, ``highest`` over the members that are there and ``probability`` of exceeding the threshold, each ``(day,)``.
    """
    count = maxima.notnull().sum("number")
    ds = xr.Dataset(
        {
            "mean": maxima.mean("number"),
            "lowest": maxima.min("number"),
            "highest": maxima.max("number"),
            "probability": (maxima > threshold).sum("number") / count.where(count > 0),
        }
    )
    known = ds.isel(day=(count > 0).values)
    return known.isel(day=np.argsort(-known["mean"].values, kind="stable"))


def round_threshold(field: xr.DataArray) -> float:
    """A threshold to begin with: the value that a tenth of the cells exceed, to three digits."""
    high = float(np.nanquantile(field.values[..., ::4, ::4], 0.9))
    return float(f"{high:.3g}")
