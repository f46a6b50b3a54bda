"""Maps of tracks: lines that end at the edge of the map, and pictures of the tracks alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from aeris.errors import DataError
from aeris.views.tracks import cut, track_figure


def tracks(longitudes: list[float], latitudes: list[float], wind: float | None = None, number: int = 0) -> xr.Dataset:
    times = pd.date_range("2020-09-01", periods=len(longitudes), freq="6h")
    columns = {"track_id": [number] * len(times), "time": times, "lat": latitudes, "lon": np.mod(longitudes, 360)}
    return xr.Dataset(
        {name: ("record", np.asarray(values)) for name, values in columns.items()}
        | ({} if wind is None else {"wind10": ("record", [wind] * len(times))})
    )


def test_a_line_is_cut_at_both_edges():
    x, y = cut(np.array([170.0, -170.0, 170.0]), np.array([0.0, 10.0, 30.0]))
    np.testing.assert_array_equal(x, [170, 180, np.nan, -180, -170, -180, np.nan, 180, 170])
    np.testing.assert_array_equal(y, [0, 5, np.nan, 5, 10, 20, np.nan, 20, 30])


@pytest.mark.parametrize("start", [170.0, 350.0, 90.0])
def test_a_map_follows_the_tracks_over_the_meridians(start):
    longitudes = [start + 4 * step for step in range(6)]
    figure = track_figure(tracks(longitudes, list(range(10, 22, 2))), "a", best=tracks(longitudes, list(range(11, 23, 2))), margin=5.0)
    ax = figure.axes[0]
    np.testing.assert_allclose(ax.get_xlim(), (-15, 15), atol=1e-9)
    np.testing.assert_allclose(ax.get_ylim(), (5, 26), atol=1e-9)
    for line, first in zip(ax.get_lines(), (10, 11), strict=True):
        np.testing.assert_allclose(line.get_xdata(), [-10, -6, -2, 2, 6, 10], atol=1e-9)
        assert line.get_ydata()[0] == first
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["forecast", "best track"]


def test_winds_and_probabilities_have_a_colour_bar():
    winds = track_figure(tracks([10, 20], [10, 12], wind=30.0), "winds")
    assert winds.axes[1].get_xlabel() == "strongest wind at 10 m (m s⁻¹)"
    field = xr.DataArray(
        np.eye(5), {"latitude": np.arange(14, 4, -2.0), "longitude": np.arange(356, 366, 2.0) % 360}, ["latitude", "longitude"]
    )
    shown = track_figure(tracks([357, 2], [10, 12], wind=30.0), "chance", probability=field.assign_attrs(long_name="chance"))
    assert shown.axes[1].get_xlabel() == "chance"
    (mesh,) = [artist for artist in shown.axes[0].collections if type(artist).__name__ == "GeoQuadMesh"]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0.0, 1.0)
    # The column east of the middle of the map lies to the right.
    assert np.ma.filled(mesh.get_array(), 0).reshape(5, 5).tolist() == np.eye(5).tolist()


def test_no_track_is_refused():
    with pytest.raises(DataError, match="no track"):
        track_figure(tracks([10], [10]).isel(record=slice(0)), "none")
