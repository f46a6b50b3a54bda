"""Places, leads and bands: also across the end of the circle, and where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aeris.data.grid import Grid
from aeris.views.slices import at_leads, at_place, band_text, in_band, place_text


@pytest.fixture
def numbered() -> xr.DataArray:
    """A field of 6×8 cells, 45° wide, that holds the numbers of its cells."""
    grid = Grid.regular(6, 8)
    return xr.DataArray(np.arange(48).reshape(6, 8), {"latitude": grid.latitude, "longitude": grid.longitude}, ["latitude", "longitude"])


@pytest.mark.parametrize(("longitude", "column"), [(0, 0), (22, 0), (23, 1), (337, 7), (338, 0), (359.9, 0), (-22, 0), (-23, 7), (-180, 4)])
def test_the_nearest_column_is_found_around_the_circle(numbered, longitude, column):
    assert int(at_place(numbered, (75.0, longitude))) == column


def test_the_truth_is_known_only_where_it_is():
    times = np.datetime64("2001-01-01T00", "ns") + np.arange(3) * np.timedelta64(6, "h")
    truth = xr.DataArray([1.0, 2.0, 3.0], {"time": times}, ["time"])
    found = at_leads(truth, times[1], np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]"))
    np.testing.assert_array_equal(found, [2.0, 3.0, np.nan])
    assert (found.prediction_timedelta.values / np.timedelta64(1, "h")).tolist() == [0, 6, 12]


def test_a_band_has_the_rows_between_its_edges(numbered):
    assert in_band(numbered, 10, 50).latitude.values.tolist() == [45.0, 15.0]
    assert in_band(numbered, 40, 42).latitude.values.tolist() == [45.0]
    assert in_band(numbered, -90, 90).sizes["latitude"] == 6


def test_places_and_bands_in_words():
    assert place_text(51.5, 359.9) == "51.5°N, 0.1°W" and place_text(-33.9, 180.0) == "33.9°S, 180.0°W"
    assert place_text(0.0, 20.0) == "0.0°N, 20.0°E"
    assert band_text(-30.0, 60.0) == "30°S to 60°N"
