"""Solar radiation at the top of the atmosphere, the one forcing that changes with time.

It is astronomy and needs no data: the network gets it from here, in training and in every step of a forecast alike. The orbit is
that of the Integrated Forecasting System, with which ERA5 was made; the accumulation over an hour is exact.

Symbols
    φ, λ   latitude and longitude       δ, E   solar declination and equation of time       d   distance to the sun, astronomical units
    h      hour angle, 0 at local apparent noon, rising by 2π a day        cos Z = sin φ sin δ + cos φ cos δ cos h
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from aeris.errors import DataError

SOLAR_IRRADIANCE = 1361.0
"""Total solar irradiance at one astronomical unit in W m⁻².

The reference value of ECMWF's radiation scheme ecRad (radiation_ecckd.F90), after Kopp and Lean (2011, doi:10.1029/2010GL045777).
ERA5 follows the solar cycle about it, by less than 0.1 %.
"""

OBLIQUITY = 0.409093
"""Tilt of the earth's axis in radians (`REPSM` of the Integrated Forecasting System)."""

_EPOCH = np.datetime64("2000-01-01T12:00:00", "ns")
_DAY = np.timedelta64(86_400_000_000_000, "ns")
_HOUR = np.timedelta64(3_600_000_000_000, "ns")
_POINTS_AT_ONCE = 1 << 20


class Sun(NamedTuple):
    """Where the sun stands: declination in radians, equation of time in seconds, distance in astronomical units."""

    declination: np.ndarray
    equation_of_time: np.ndarray
    distance: np.ndarray


def sun(times: np.ndarray) -> Sun:
    """The sun's position, from the astronomical functions of the Integrated Forecasting System.

    They are trigonometric series in the years since noon of 1 January 2000 (`fctast.h` of ecmwf-ifs/ecland; IFS documentation
    Cy41r2, part IV). The equation of time is apparent minus mean solar time.

    Args:
        times: ``datetime64`` in UTC, of any shape.

    Returns:
        Three float64 arrays of the same shape.
    """
    year = (times.astype("datetime64[ns]") - _EPOCH) / _DAY / 365.25
    anomaly = 1.7535 + 6.283076 * year
    mean_anomaly = 6.240075 + 6.283020 * year
    mean_longitude = 4.8951 + 6.283076 * year
    longitude = (
        4.8952
        + 6.283320 * year
        - 0.0075 * np.sin(anomaly)
        - 0.0326 * np.cos(anomaly)
        - 0.0003 * np.sin(2 * anomaly)
        + 0.0002 * np.cos(2 * anomaly)
    )
    equation_of_time = (
        591.8 * np.sin(2 * mean_longitude)
        - 459.4 * np.sin(mean_anomaly)
        + 39.5 * np.sin(mean_anomaly) * np.cos(2 * mean_longitude)
        - 12.7 * np.sin(4 * mean_longitude)
        - 4.8 * np.sin(2 * mean_anomaly)
    )
    return Sun(
        declination=np.arcsin(np.sin(OBLIQUITY) * np.sin(longitude)),
        equation_of_time=equation_of_time,
        distance=1.0001 - 0.0163 * np.sin(anomaly) + 0.0037 * np.cos(anomaly),
    )


def toa_incident_solar_radiation(times: ArrayLike, latitude: ArrayLike, longitude: ArrayLike) -> np.ndarray:
    """Solar energy that falls on a horizontal square metre at the top of the atmosphere in the hour ending at each time.

    This is `tisr` as ERA5 accumulates it: S₀ d⁻² ∫ max(0, cos Z) dt, integrated in closed form; declination, equation of time
    and distance are those of the middle of the hour.

    Args:
        times: One or more ``datetime64`` in UTC, the ends of the hours, shape ``(time,)`` or a single one.
        latitude: Degrees north, shape ``(latitude,)``.
        longitude: Degrees east, shape ``(longitude,)``.

    Returns:
        Float32 array of shape ``(time, latitude, longitude)`` in J m⁻²; exactly zero where the sun stays down.

    Raises:
        DataError: A time is missing, or a latitude lies beyond a pole.
    """
    times = np.atleast_1d(np.asarray(times, dtype="datetime64[ns]"))
    rows, columns = np.deg2rad(np.atleast_1d(latitude)), np.deg2rad(np.atleast_1d(longitude))
    _check(times, rows)
    radiation = np.empty((len(times), len(rows), len(columns)), np.float32)
    block = max(1, _POINTS_AT_ONCE // max(1, radiation[:1].size))
    for first in range(0, len(times), block):
        radiation[first : first + block] = _accumulate(times[first : first + block], rows, columns)
    return radiation


def _check(times: np.ndarray, rows: np.ndarray) -> None:
    if np.isnat(times).any():
        raise DataError("A time is missing (NaT)", "Radiation needs a date and an hour", "Drop the missing times")
    if not np.all(np.abs(rows) <= np.pi / 2 + 1e-6):
        raise DataError(
            f"Latitudes from {np.rad2deg(rows.min()):.6g} to {np.rad2deg(rows.max()):.6g}",
            "Latitudes are degrees between -90 and 90",
            "Give ds.latitude.values of a canonical dataset",
        )


def _accumulate(times: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """J m⁻² over the hours ending at `times`; angles in radians; float64 of shape ``(time, latitude, longitude)``."""
    middle = times - _HOUR // 2
    declination, equation_of_time, distance = (value[:, None, None] for value in sun(middle))
    mean_solar_day = ((middle - times.astype("datetime64[D]")) / _DAY)[:, None, None]
    noon_angle = 2 * np.pi * (mean_solar_day + equation_of_time / 86400 - 0.5) + columns
    a = np.sin(rows)[:, None] * np.sin(declination)
    b = np.cos(rows)[:, None] * np.cos(declination)
    half_hour = np.pi / 24
    daylight = _sunlit_integral(noon_angle + half_hour, a, b) - _sunlit_integral(noon_angle - half_hour, a, b)
    return SOLAR_IRRADIANCE / distance**2 * (86400 / (2 * np.pi)) * np.maximum(daylight, 0.0)


def _sunlit_integral(h: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """∫₀ʰ max(0, a + b cos h') dh', for any hour angle.

    Sunrise and sunset are at ∓H with cos H = -a/b. Within a day the integral is F(h) = a h + b sin h held constant outside
    [-H, H]; each whole turn adds the day's 2 F(H).
    """
    sunset = np.arccos(np.clip(-a / np.maximum(b, 1e-12), -1.0, 1.0))
    turns = np.round(h / (2 * np.pi))
    lit = np.clip(h - 2 * np.pi * turns, -sunset, sunset)
    return 2 * turns * (a * sunset + b * np.sin(sunset)) + (a * lit + b * np.sin(lit))  # grouped so that the night cancels exactly
