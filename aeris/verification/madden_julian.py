"""The Madden-Julian oscillation: two indices of the tropical wind, after Wheeler and Hendon (2004).

They are the leading pair of empirical orthogonal functions of fields averaged from 15°S to 15°N
(https://doi.org/10.1175/1520-0493(2004)132<1917:AARMMI>2.0.CO;2): from each field its annual cycle (mean and three harmonics) and the
mean of the 120 days before are taken away; each is divided by its deviation, and all stand side by side in one vector. The original
has outgoing longwave radiation beside the winds at 850 and 200 hPa. It is no variable of this package, so that here is the form
of the winds alone; a dataset that holds it may name it too. Indices of two winds are those of three fields in phase, with less
convection in them, and are not the published RMM1 and RMM2. What ENSO does is taken away by the 120 days alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError
from aeris.verification.climate import hovmoller
from aeris.verification.daily import DAY, daily, daily_members
from aeris.verification.pairing import LEAD
from aeris.verification.seasons import AnnualCycle

WINDS: tuple[tuple[str, int | None], ...] = (("u_component_of_wind", 850), ("u_component_of_wind", 200))
"""Variables and levels in hPa of the form without radiation."""

EDGE = 15.0
"""Degrees from the equator that belong to the band."""


@dataclass(frozen=True)
class MaddenJulian:
    """The patterns and scales that turn tropical fields into two indices.

    Attributes:
        fields: Variables and levels.
        eofs: ``(mode, field, longitude)``, orthonormal.
        scale: Deviation by which each field is divided, ``(field)``.
        deviation: Deviation of the two principal components by which the indices are divided, ``(mode)``.
        cycle: Annual cycle of the band means, ``(…, field, longitude)``.
        background: Days before, whose mean is taken away; 0 for none.
        variance: Part of the variance that each mode explains, ``(mode)``; NaN for patterns that were given.
    """

    fields: tuple[tuple[str, int | None], ...]
    eofs: xr.DataArray
    scale: xr.DataArray
    deviation: xr.DataArray
    cycle: AnnualCycle
    background: int
    variance: xr.DataArray

    @classmethod
    def fit(
        cls,
        past: xr.Dataset,
        fields: tuple[tuple[str, int | None], ...] = WINDS,
        eofs: xr.DataArray | None = None,
        background: int = 120,
    ) -> MaddenJulian:
        """Scales, and patterns where none are given, from past states.

        The sign of a pattern is a convention: here the first has westerlies in its first field from 60° to 100° east, as that of
        Wheeler and Hendon has, and the second is turned so that it follows the first, as it does for eastward motion.

        Args:
            past: Canonical dataset of at least two years.
            fields: Variables and levels in hPa (None where there is none).
            eofs: Patterns ``(mode, field, longitude)`` on the longitudes of the past, such as the published ones.
            background: Days before, whose mean is taken away.

        Raises:
            DataError: A field is missing or has gaps, the past is too short, or the patterns do not fit.
        """
        band = bands(past, fields)
        cycle = AnnualCycle.fit(band)
        anomalies = without_background(cycle.anomalies(band), background).dropna("time", how="all")
        if anomalies.sizes["time"] < 365 or anomalies.isnull().any():
            raise DataError(
                f"{anomalies.sizes['time']} days after the first {background}, {int(anomalies.isnull().sum())} values missing",
                "Patterns need a year of tropical fields without gaps",
                "Give two years of past states or more, fields that stand over land too, and no gaps",
            )
        scale = (anomalies**2).mean(("time", "longitude")) ** 0.5
        vectors = (anomalies / scale).transpose("time", "field", "longitude")
        patterns, variance = _patterns(vectors) if eofs is None else (_checked(eofs, vectors), np.full(2, np.nan))
        deviation = xr.dot(vectors, patterns, dim=("field", "longitude")).std("time")
        return cls(tuple(fields), patterns, scale, deviation, cycle, background, xr.DataArray(variance, dims="mode"))

    def project(self, anomalies: xr.DataArray) -> xr.DataArray:
        """The two indices, of deviation one in the past: ``(..., mode)``; NaN where a value is missing.

        Args:
            anomalies: ``(..., field, longitude)``, without annual cycle and background.
        """
        components = xr.dot(anomalies / self.scale, self.eofs, dim=("field", "longitude"))
        return (components / self.deviation).rename("rmm").assign_attrs(units="1", long_name="index of the Madden-Julian oscillation")

    def indices(self, ds: xr.Dataset) -> xr.DataArray:
        """The indices of states, ``(time, mode)`` by day; the attribute ``missing`` counts days without, the first ones among them."""
        indices = self.project(without_background(self.cycle.anomalies(bands(ds, self.fields)), self.background))
        return indices.assign_attrs(missing=int(indices.isnull().any("mode").sum()))

    def forecast_indices(self, fc: xr.Dataset, truth: xr.Dataset) -> xr.DataArray:
        """The indices of a forecast, ``(time, number, prediction_timedelta, mode)`` by whole days.

        The days before, whose mean is taken away, are the truth up to the last day before the first whole one of the forecast, and
        the member itself from then on.

        Args:
            fc: Forecast archive; it is read by initial time.
            truth: Canonical dataset with the days before each initial time.

        Raises:
            DataError: The truth lacks one of the days before.
        """
        seen = self.cycle.anomalies(bands(truth, self.fields))
        parts = [self._from(fc.sel(time=time, drop=True), time, seen) for time in fc.time.values]
        joined = xr.concat(parts, xr.IndexVariable("time", fc.time.values), join="outer")
        return joined.transpose("time", "number", LEAD, "mode").assign_attrs(missing=int(joined.isnull().any("mode").sum()))

    def _from(self, members: xr.Dataset, time: np.datetime64, seen: xr.DataArray) -> xr.DataArray:
        start = time.astype("datetime64[D]").astype("datetime64[ns]")
        ahead = [_band(daily_members(members, time, name, "mean", level)) for name, level in self.fields]
        band = _side_by_side(ahead)
        valid = start + band[LEAD].values
        ahead_of_now = self.cycle.anomalies(band.assign_coords({LEAD: valid}).rename({LEAD: "time"}))
        before = pd.date_range(valid[0] - self.background * DAY, valid[0] - DAY)
        lacking = before.difference(seen.dropna("time", how="any").get_index("time"))
        if len(lacking):
            raise DataError(
                f"The truth lacks {len(lacking)} of the {self.background} days before {pd.Timestamp(valid[0]):%Y-%m-%d}, "
                f"the first is {lacking[0]:%Y-%m-%d}",
                "The mean of the days before is taken away",
                "Give a truth that begins earlier, or fit with background=0",
            )
        past = seen.sel(time=before).expand_dims(number=members.number)
        series = xr.concat([past, ahead_of_now], "time", combine_attrs="override")
        indices = self.project(without_background(series, self.background)).sel(time=valid)
        return indices.assign_coords(time=band[LEAD].values).rename(time=LEAD)


def bands(ds: xr.Dataset, fields: tuple[tuple[str, int | None], ...] = WINDS) -> xr.DataArray:
    """Daily means over 15°S to 15°N of several fields side by side, ``(time, field, longitude)``."""
    latitude = Grid.of(ds).latitude
    near = ds.isel(latitude=np.flatnonzero(np.abs(latitude) < EDGE + np.abs(np.diff(latitude)).max()))
    return _side_by_side([_band(daily(near, name, "mean", level)) for name, level in fields])


def _band(field: xr.DataArray) -> xr.DataArray:
    return hovmoller(field, -EDGE, EDGE).drop_vars("level", errors="ignore")


def _side_by_side(series: list[xr.DataArray]) -> xr.DataArray:
    return xr.concat([one.rename("band") for one in series], "field", combine_attrs="drop", coords="minimal", compat="override")


def without_background(anomalies: xr.DataArray, days: int) -> xr.DataArray:
    """Takes the mean of the `days` days before each day away; NaN for the first ones, and where one of those days is missing."""
    if days < 0:
        raise ConfigurationError(f"A background of {days} days", "It is none or more", "Give 120, or 0 for none")
    return anomalies if days == 0 else anomalies - anomalies.rolling(time=days).mean().shift(time=1)


def _patterns(vectors: xr.DataArray) -> tuple[xr.DataArray, np.ndarray]:
    """The two leading patterns, signed by convention, and the parts of the variance that they explain."""
    flat = vectors.values.reshape(vectors.sizes["time"], -1)
    _, size, patterns = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    shaped = patterns[:2].reshape(2, *vectors.shape[1:])
    west = (vectors.longitude.values >= 60) & (vectors.longitude.values <= 100)
    shaped[0] *= 1 if shaped[0, 0, west].mean() >= 0 else -1
    first, second = (flat @ pattern.ravel() for pattern in shaped)
    lead = 8  # days: a sixth of a period of 48
    shaped[1] *= 1 if (first[:-lead] * second[lead:]).sum() >= (first[lead:] * second[:-lead]).sum() else -1
    eofs = xr.DataArray(shaped, {"longitude": vectors.longitude}, ["mode", "field", "longitude"])
    return eofs, size[:2] ** 2 / (size**2).sum()


def _checked(eofs: xr.DataArray, vectors: xr.DataArray) -> xr.DataArray:
    if dict(eofs.sizes) != {"mode": 2, "field": vectors.sizes["field"], "longitude": vectors.sizes["longitude"]} or not np.allclose(
        eofs.longitude, vectors.longitude
    ):
        raise DataError(
            f"Patterns of {dict(eofs.sizes)}",
            f"They need two modes, {vectors.sizes['field']} fields and the {vectors.sizes['longitude']} longitudes of the data",
            "Interpolate them to ds.longitude",
        )
    return eofs.transpose("mode", "field", "longitude")
