"""Solar radiation against brute-force integration, textbook insolation, an almanac and ERA5's surface radiation."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aeris.data.forcing import SOLAR_IRRADIANCE, sun, toa_incident_solar_radiation
from aeris.data.grid import Grid
from aeris.errors import DataError

YEAR = np.arange("2001-01-01", "2002-01-01", dtype="datetime64[h]")


def _quadrature(time: np.datetime64, latitude: np.ndarray, longitude: np.ndarray, samples: int = 3600) -> np.ndarray:
    """The hour cut into equal pieces, the sun's position taken anew in each of them."""
    moments = time - np.timedelta64(3600, "s") + ((np.arange(samples) + 0.5) * 3.6e12 / samples).astype("timedelta64[ns]")
    declination, equation_of_time, distance = sun(moments)
    seconds = (moments - moments.astype("datetime64[D]")) / np.timedelta64(1, "s") + equation_of_time
    angle = np.deg2rad(longitude)[:, None] + 2 * np.pi * seconds / 86400 - np.pi
    phi = np.deg2rad(latitude)[:, None, None]
    cosine = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(angle)
    return 3600 * SOLAR_IRRADIANCE * (np.maximum(cosine, 0) / distance**2).mean(-1)


@pytest.mark.parametrize("time", ["2001-06-21T00", "2004-02-29T12", "1979-10-03T18", "2024-12-31T06"])
def test_equals_brute_force_over_the_hour(time):
    latitude, longitude = np.linspace(90, -90, 19), np.arange(0, 360, 7.5)
    moment = np.datetime64(time, "ns")
    ours = toa_incident_solar_radiation([moment], latitude, longitude)[0]
    np.testing.assert_allclose(ours, _quadrature(moment, latitude, longitude), atol=200)  # of up to 5e6 J m-2


@pytest.mark.parametrize("day", ["2001-03-20", "2001-06-21", "2001-09-10", "2001-12-21"])
def test_daily_mean_is_the_textbook_insolation(day):
    """Q = S₀/π d⁻² (H sin φ sin δ + cos φ cos δ sin H) (Hartmann, Global Physical Climatology, equation 2.17)."""
    latitude = np.linspace(-90, 90, 37)
    hours = np.datetime64(day, "h") + np.arange(1, 25)
    mean = toa_incident_solar_radiation(hours, latitude, [0.0, 123.0]).astype(float).sum(0) / 86400
    noon = sun(np.datetime64(day, "h") + np.arange(12, 13))
    delta, phi = noon.declination[0], np.deg2rad(latitude)
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(delta), -1, 1))
    textbook = SOLAR_IRRADIANCE / np.pi / noon.distance[0] ** 2
    textbook = textbook * (sunset * np.sin(phi) * np.sin(delta) + np.cos(phi) * np.cos(delta) * np.sin(sunset))
    np.testing.assert_allclose(mean, np.stack([textbook] * 2, -1), atol=1.5)  # the declination moves within the day


def test_global_mean_is_a_quarter_of_the_beam():
    grid = Grid.regular(90, 180)
    hours = YEAR[::991]
    fields = toa_incident_solar_radiation(hours, grid.latitude, grid.longitude).astype(float)
    mean = (fields * grid.area[:, None]).mean((1, 2)) / 3600
    expected = SOLAR_IRRADIANCE / 4 / sun(hours - np.timedelta64(30, "m")).distance ** 2
    np.testing.assert_allclose(mean, expected, rtol=3e-4)


def test_orbit_agrees_with_the_almanac():
    """Solstices, equinoxes, perihelion and the extremes of the equation of time in 2001 (US Naval Observatory; Meeus 1998)."""
    position = sun(YEAR)
    degrees = np.rad2deg(position.declination)
    assert abs(degrees.max() - 23.44) < 0.01 and abs(degrees.min() + 23.44) < 0.01
    assert abs(YEAR[degrees.argmax()] - np.datetime64("2001-06-21T08", "h")) < np.timedelta64(12, "h")
    crossings = YEAR[:-1][np.diff(np.sign(degrees)) != 0]
    for found, known in zip(crossings, ("2001-03-20T13", "2001-09-22T23"), strict=True):
        assert abs(found - np.datetime64(known, "h")) < np.timedelta64(3, "h")
    assert abs(position.distance.min() - 0.98329) < 3e-4 and abs(position.distance.max() - 1.01671) < 3e-4
    assert abs(YEAR[position.distance.argmin()] - np.datetime64("2001-01-04T09", "h")) < np.timedelta64(3, "D")
    minutes = position.equation_of_time / 60
    assert abs(minutes.max() - 16.43) < 0.15 and abs(minutes.min() + 14.25) < 0.15
    assert abs(YEAR[minutes.argmax()] - np.datetime64("2001-11-03", "h")) < np.timedelta64(4, "D")
    assert abs(YEAR[minutes.argmin()] - np.datetime64("2001-02-11", "h")) < np.timedelta64(4, "D")


def test_polar_night_is_exactly_zero_and_polar_day_never_is():
    hours = np.datetime64("2001-12-21T00", "h") + np.arange(24)
    fields = toa_incident_solar_radiation(hours, [90.0, 80.0, 70.0, -70.0, -80.0, -90.0], np.arange(0, 360, 5.0))
    assert np.all(fields[:, :3] == 0.0)
    assert np.all(fields[:, 3:] > 0.0)
    np.testing.assert_allclose(fields[:, 5], fields[:, 5].mean(), rtol=1e-3)  # at the pole the sun only circles


def test_night_is_exactly_zero_across_the_date_line():
    field = toa_incident_solar_radiation(np.datetime64("2001-03-21T12"), [0.0, 45.0], np.arange(0, 360, 1.0))[0]
    assert np.all(field[:, 108:259] == 0.0) and np.all(field[:, :80] > 0) and np.all(field[:, 281:] > 0)


def test_longitude_conventions_agree():
    west = toa_incident_solar_radiation(YEAR[:30], [10.0], [-75.0, -180.0])
    east = toa_incident_solar_radiation(YEAR[:30], [10.0], [285.0, 180.0])
    np.testing.assert_allclose(west, east, atol=1)


def test_era5_surface_radiation_never_exceeds_it(shared_data):
    """ERA5 `ssrd` is accumulated over the same hour: less arrives at the ground everywhere, and none at night.

    The file was interpolated bilinearly from a fine grid, so a cell at the edge of the night holds a little light of its neighbours.
    """
    with xr.open_dataset(shared_data / "easyclimate" / "sample_data_N20.nc", engine="netcdf4") as file:
        surface = file.ssrd.load()
    top = toa_incident_solar_radiation(surface.time.values, surface.lat.values, surface.lon.values)
    assert np.all(surface.values <= top + 5e4)
    day = top > 1e6
    ratio = surface.values[day] / top[day]
    assert ratio.max() < 0.95 and 0.4 < ratio.mean() < 0.7
    for shift in (-1, 1):  # an hour too late or too early would already fail
        wrong = toa_incident_solar_radiation(surface.time.values + np.timedelta64(shift, "h"), surface.lat.values, surface.lon.values)
        assert not np.all(surface.values <= wrong + 5e4)


def test_float32_of_the_stated_shape_at_any_size():
    fields = toa_incident_solar_radiation(YEAR[:7], np.linspace(89.75, -89.75, 360), np.arange(720) / 2)
    assert fields.shape == (7, 360, 720) and fields.dtype == np.float32
    single = toa_incident_solar_radiation(YEAR[5], np.linspace(89.75, -89.75, 360), np.arange(720) / 2)
    np.testing.assert_array_equal(single[0], fields[5])  # blocks of any length, the same numbers


def test_refuses_missing_times_and_latitudes_beyond_the_poles():
    with pytest.raises(DataError, match="NaT"):
        toa_incident_solar_radiation([np.datetime64("NaT")], [0.0], [0.0])
    with pytest.raises(DataError, match=r"-90 and 90"):
        toa_incident_solar_radiation(YEAR[:1], [0.0, 270.0], [0.0])
