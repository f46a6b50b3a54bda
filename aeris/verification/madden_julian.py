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

from aeris.errors import ConfigurationError, DataError
from aeris.verification.climate import hovmoller
from aeris.verification.daily import DAY, daily, daily_members, quantity
from aeris.verification.indices import beside
from aeris.verification.pairing import LEAD
from aeris.verification.seasons import AnnualCycle

Fields = tuple[tuple[str, int | None], ...]
"""Variables and their levels in hPa; None where there is none."""

WINDS: Fields = (("u_component_of_wind", 850), ("u_component_of_wind", 200))
"""The form without radiation."""

EDGE = 15.0
"""Degrees from the equator that belong to the band."""

QUARTER = 12
"""Days in a quarter of a period of 48, by which the second index follows the first."""


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

    fields: Fields
    eofs: xr.DataArray
    scale: xr.DataArray
    deviation: xr.DataArray
    cycle: AnnualCycle
    background: int
    variance: xr.DataArray

    @classmethod
    def fit(cls, past: xr.Dataset, fields: Fields = WINDS, eofs: xr.DataArray | None = None, background: int = 120) -> MaddenJulian:
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
            ConfigurationError: The background is negative.
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

    def indices(self, ds: xr.Dataset) -> xr.DataArray:
        """The indices of states, ``(time, mode)`` by day; the attribute ``missing`` counts days without, the first ones among them."""
        return _counted(without_background(self._components(bands(ds, self.fields)), self.background))

    def forecast_indices(self, fc: xr.Dataset, truth: xr.Dataset) -> xr.DataArray:
        """The indices of a forecast, ``(time, number, prediction_timedelta, mode)`` by whole days.

        The days before, whose mean is taken away, are the truth up to the last day before the first whole one of the forecast, and
        the member itself from then on.

        Args:
            fc: Forecast archive; it is read by initial time.
            truth: Canonical dataset with the days before each initial time.

        Raises:
            DataError: The truth lacks one of the days before, or the forecast one of its own.
        """
        seen = self._components(bands(truth, self.fields))
        parts = [self._from(fc.sel(time=time, drop=True), time, seen) for time in fc.time.values]
        joined = xr.concat(parts, xr.IndexVariable("time", fc.time.values), join="outer")
        return _counted(joined.transpose("time", "number", LEAD, "mode"))

    def _components(self, band: xr.DataArray) -> xr.DataArray:
        """Principal components of daily band means over their deviation, ``(..., mode)``, the background still in them.

        It may be taken away afterwards, for both are linear.
        """
        return xr.dot(self.cycle.anomalies(band) / self.scale, self.eofs, dim=("field", "longitude")) / self.deviation

    def _from(self, members: xr.Dataset, time: np.datetime64, seen: xr.DataArray) -> xr.DataArray:
        """The indices of the members from one initial time, ``(prediction_timedelta, number, mode)``."""
        band = _side_by_side([daily_members(_band(members, *field), time, field[0], "mean") for field in self.fields])
        leads = band[LEAD].values
        if (np.diff(leads) != DAY).any():
            raise DataError(
                f"The forecast from {pd.Timestamp(time):%Y-%m-%d} lacks days between its leads",
                "The mean of the days before needs every day",
                "Give a forecast with daily leads or shorter ones",
            )
        valid = time.astype("datetime64[D]").astype("datetime64[ns]") + leads
        ahead = self._components(band.rename({LEAD: "time"}).assign_coords(time=valid))
        before = pd.date_range(valid[0] - self.background * DAY, valid[0] - DAY)
        lacking = before.difference(seen.dropna("time").get_index("time"))
        if len(lacking):
            raise DataError(
                f"The truth lacks {len(lacking)} of the {self.background} days before {pd.Timestamp(valid[0]):%Y-%m-%d}, "
                f"the first is {lacking[0]:%Y-%m-%d}",
                "The mean of the days before is taken away",
                "Give a truth that begins earlier, or fit with background=0",
            )
        series = xr.concat([seen.sel(time=before).expand_dims(number=members.number), ahead], "time")
        indices = without_background(series, self.background).sel(time=valid)
        return indices.assign_coords(time=leads).rename(time=LEAD)


def amplitude_and_phase(indices: xr.DataArray) -> xr.Dataset:
    """Amplitude √(RMM1² + RMM2²) and phase, an eighth of the circle numbered as by Wheeler and Hendon.

    In phases 2 and 3 convection is strong over the Indian Ocean, in 4 and 5 over the Maritime Continent, in 6 and 7 over the western
    Pacific, in 8 and 1 over the western hemisphere and Africa. An oscillation counts as active from an amplitude of one on.

    Args:
        indices: ``(..., mode)``, two modes.

    Returns:
        ``amplitude`` and ``phase`` (1 to 8), NaN where an index is missing.
    """
    first, second = indices.isel(mode=0, drop=True), indices.isel(mode=1, drop=True)
    angle: xr.DataArray = xr.apply_ufunc(np.arctan2, second, first)
    fields = {"amplitude": (first**2 + second**2) ** 0.5, "phase": (angle + np.pi) // (np.pi / 4) % 8 + 1}
    return xr.Dataset({name: field.assign_attrs(units="1", long_name=f"{name} of the oscillation") for name, field in fields.items()})


def bivariate_skill(forecast: xr.DataArray, truth: xr.DataArray) -> xr.Dataset:
    """Correlation and root mean square error of a pair of indices, such as RMM1 and RMM2, by lead.

    COR = Σ (a₁b₁ + a₂b₂) / √(Σ (a₁² + a₂²) Σ (b₁² + b₂²)), RMSE = √ mean of (a₁ − b₁)² + (a₂ − b₂)², sums over initial times, a the
    truth and b the ensemble mean (Lin, Brunet and Derome 2008, https://doi.org/10.1175/2008MWR2459.1). No mean is taken away. A
    forecast is called useful while COR is at least 0.5; the RMSE of the climatology is √2 for indices of deviation one.

    Args:
        forecast: ``(time, number, prediction_timedelta, mode)``, two modes.
        truth: ``(time, mode)``.

    Returns:
        ``correlation``, ``rmse`` and ``cases`` by lead. Initial times at which a mode of the truth or all members of one are missing
        do not count; the attributes say how many values of members and truths were missing.

    Raises:
        DataError: The truth lacks a valid time, there are not two modes, or at some lead no case is left.
    """
    if forecast.sizes.get("mode") != 2 or truth.sizes.get("mode") != 2:
        raise DataError(
            "There are not two modes", "A bivariate score needs a dimension mode of two", "Join them with xr.concat(..., 'mode')"
        )
    mean, happened = beside(forecast, truth)
    there = (mean.notnull() & happened.notnull()).all("mode")
    cases, dims = there.sum("time"), ("time", "mode")
    if cases.min() == 0:
        raise DataError(
            "At some lead no initial time has both modes of forecast and truth", "Each lead needs one at least", "Cut the leads"
        )
    a, b = happened.where(there), mean.where(there)
    fields = {
        "correlation": ((a * b).sum(dims) / ((a**2).sum(dims) * (b**2).sum(dims)) ** 0.5, "bivariate correlation"),
        "rmse": ((((a - b) ** 2).sum(dims) / cases) ** 0.5, "bivariate root mean square error"),
        "cases": (cases, "initial times that counted"),
    }
    scores = {name: values.assign_attrs(units="1", long_name=text) for name, (values, text) in fields.items()}
    gaps = {"missing_members": int(forecast.isnull().sum()), "missing_truths": int(happened.isnull().sum())}
    return xr.Dataset(scores, attrs=gaps)


def bands(ds: xr.Dataset, fields: Fields = WINDS) -> xr.DataArray:
    """Daily means over 15°S to 15°N of several fields side by side, ``(time, field, longitude)``; only these rows are read."""
    return _side_by_side([daily(_band(ds, name, level), name, "mean") for name, level in fields])


def without_background(series: xr.DataArray, days: int) -> xr.DataArray:
    """Takes the mean of the `days` days before each day away; NaN for the first ones, and where one of those days is missing.

    Args:
        series: ``(time, ...)`` by day.
        days: How many; 0 for none.

    Raises:
        ConfigurationError: There are fewer than none.
    """
    if days < 0:
        raise ConfigurationError(f"A background of {days} days", "It is none or more", "Give 120, or 0 for none")
    if days == 0:
        return series
    series = series.transpose("time", ...)
    before = pd.DataFrame(series.values.reshape(len(series), -1)).rolling(days).mean().shift(1)
    return series - before.to_numpy().reshape(series.shape)


def _band(ds: xr.Dataset, name: str, level: int | None) -> xr.Dataset:
    return hovmoller(quantity(ds, name, level), -EDGE, EDGE).to_dataset(name=name)


def _counted(indices: xr.DataArray) -> xr.DataArray:
    about = {"units": "1", "long_name": "index of the Madden-Julian oscillation", "missing": int(indices.isnull().any("mode").sum())}
    return indices.rename("rmm").assign_attrs(about)


def _side_by_side(series: list[xr.DataArray]) -> xr.DataArray:
    return xr.concat([one.rename("band") for one in series], "field", combine_attrs="drop", coords="minimal", compat="override")


def _patterns(vectors: xr.DataArray) -> tuple[xr.DataArray, np.ndarray]:
    """The two leading patterns, signed by convention, and the parts of the variance that they explain."""
    flat = vectors.values.reshape(vectors.sizes["time"], -1)
    _, size, patterns = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    shaped = patterns[:2].reshape(2, *vectors.shape[1:])
    west = (vectors.longitude.values >= 60) & (vectors.longitude.values <= 100)
    shaped[0] *= 1 if shaped[0, 0, west].mean() >= 0 else -1
    first, second = (flat @ pattern.ravel() for pattern in shaped)
    follows = (first[:-QUARTER] * second[QUARTER:]).sum() >= (first[QUARTER:] * second[:-QUARTER]).sum()
    shaped[1] *= 1 if follows else -1
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
