"""Maps: every pixel shows the cell it lies in, in any projection, without a seam and without network."""

from __future__ import annotations

import io

import cartopy.crs as ccrs
import numpy as np
import pytest
import xarray as xr
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from aeris.data.grid import Grid
from aeris.errors import DataError
from aeris.views.coastline import coast_of, earth
from aeris.views.maps import map_figure
from aeris.views.resampling import resample
from aeris.views.style import colour_scale, lead_text, time_text, unit_text, with_unit


def field_on(grid: Grid, values: np.ndarray, name: str = "2m_temperature") -> xr.DataArray:
    return xr.DataArray(values, {"latitude": grid.latitude, "longitude": grid.longitude}, ["latitude", "longitude"], name)


def pixels(figure) -> np.ndarray:
    stream = io.BytesIO()
    figure.savefig(stream, format="rgba", dpi=60)
    return np.frombuffer(stream.getvalue(), np.uint8)


PROJECTIONS = [
    ccrs.PlateCarree(),
    ccrs.PlateCarree(180),
    ccrs.Robinson(),
    ccrs.Mollweide(150),
    ccrs.NorthPolarStereo(),
    ccrs.Orthographic(0, 30),
]


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda projection: type(projection).__name__)
@pytest.mark.parametrize("shape", [(16, 32), (19, 36)])
def test_a_pixel_shows_the_cell_it_lies_in(projection, shape):
    """A field that numbers its cells, against the cell whose edges hold the pixel's own coordinates."""
    grid = Grid.regular(*shape)
    image, (left, right, bottom, top) = resample(field_on(grid, np.arange(np.prod(shape)).reshape(shape)), projection)
    rows, columns = image.shape
    rng = np.random.default_rng(0)
    for j, i in zip(rng.integers(0, rows, 200), rng.integers(0, columns, 200), strict=True):
        x, y = left + (i + 0.5) * (right - left) / columns, bottom + (j + 0.5) * (top - bottom) / rows
        longitude, latitude = ccrs.PlateCarree().transform_point(x, y, projection)
        if np.isnan(image[j, i]):
            assert not np.isfinite(longitude)
            continue
        row, column = divmod(int(image[j, i]), shape[1])
        assert abs((longitude - grid.longitude[column] + 180) % 360 - 180) <= 180 / shape[1] + 1e-6
        assert np.argmin(np.abs(grid.latitude - latitude)) == row or abs(latitude - grid.latitude[row]) < 90 / shape[0] + 6


@pytest.mark.parametrize("central", [0, 180])
def test_there_is_no_seam_at_the_end_of_the_circle(central):
    """cos λ is smooth, so neighbouring pixels differ by no more than one step of the grid."""
    grid = Grid.regular(90, 180)
    image, _ = resample(field_on(grid, np.ones((90, 1)) * np.cos(np.deg2rad(grid.longitude))), ccrs.PlateCarree(central))
    assert np.isfinite(image).all()
    assert np.abs(np.diff(image, axis=1)).max() < 1.01 * np.deg2rad(2.0)
    assert np.abs(image[:, 0] - image[:, -1]).max() < 1.01 * np.deg2rad(2.0)


def test_a_map_needs_no_network(network_refused, forecast):
    field = forecast.truth["2m_temperature"].isel(time=0)
    with network_refused():
        figure = map_figure(field, "Temperature", coast="earth")
        assert len(pixels(figure))
    bar = figure.axes[1]
    assert figure.axes[0].get_title() == "Temperature"
    assert bar.get_xlabel() == "temperature at 2 m (K)"


def test_the_title_is_within_the_picture(forecast):
    figure = map_figure(forecast.truth["2m_temperature"].isel(time=0), "Temperature")
    figure.canvas.draw()
    assert figure.axes[0].title.get_window_extent().y1 <= figure.bbox.height


def test_coasts_are_seen(forecast):
    field = forecast.truth["2m_temperature"].isel(time=0) * 0 + 280
    none, of_earth, own = (pixels(map_figure(field, "x", coast)) for coast in (None, "earth", coast_of(forecast.truth)))
    assert (none != of_earth).sum() > 1000 and (none != own).sum() > 1000 and (own != of_earth).sum() > 1000


def test_a_dataset_with_a_land_mask_has_a_coast_of_its_own(forecast):
    assert coast_of(forecast.truth).equals(forecast.truth["land_sea_mask"])
    assert coast_of(forecast.truth.drop_vars("land_sea_mask")) == "earth"


def test_a_notebook_gets_a_picture(forecast):
    assert map_figure(forecast.truth["2m_temperature"].isel(time=0), "x")._repr_png_().startswith(b"\x89PNG")


def test_missing_values_are_grey(forecast):
    sea = forecast.truth["sea_surface_temperature"].isel(time=0)
    figure = map_figure(sea, "Sea", coast=None, projection=ccrs.PlateCarree())
    shown = figure.axes[0].get_images()[0].get_array()
    assert 0.05 < np.mean(np.ma.getmaskarray(np.ma.masked_invalid(shown))) < 0.95
    assert figure.axes[0].get_facecolor()[:3] == to_rgb("0.85")


def test_what_is_not_one_field_is_refused(forecast):
    with pytest.raises(DataError, match=r"'time'.*isel"):
        map_figure(forecast.truth["2m_temperature"], "x")


# ------------------------------------------------------------------ the coast of the earth


def test_the_coast_is_where_it_is_on_earth():
    points = np.concatenate([np.array(line.coords) for line in earth().geoms])
    known = {"Gibraltar": (36.1, -5.6), "Cape Agulhas": (-34.8, 20.0), "Cape Horn": (-55.5, -68.5), "Cape Leeuwin": (-34.3, 115.1)}
    for place, (latitude, longitude) in known.items():
        distance = np.hypot(points[:, 1] - latitude, (points[:, 0] - longitude) * np.cos(np.deg2rad(latitude)))
        assert distance.min() < 1.5, place
    east_pacific = (abs(points[:, 1]) < 15) & (points[:, 0] > -140) & (points[:, 0] < -100)
    assert not east_pacific.any()


def test_no_coast_runs_along_the_date_line_or_across_the_map():
    for line in earth().geoms:
        longitude, latitude = np.array(line.coords).T
        assert np.abs(np.diff(longitude)).max() < 10 and np.abs(np.diff(latitude)).max() < 5
        at_date_line = np.isclose(np.abs(longitude), 180)
        assert not (at_date_line[1:] & at_date_line[:-1]).any()


# ------------------------------------------------------------------ colours and words


def test_colour_scales_fit_the_quantity():
    grid = Grid.regular(4, 8)
    values = np.linspace(-2.0, 6.0, 32).reshape(4, 8)
    assert colour_scale(field_on(grid, values)) == {"cmap": "viridis", "vmin": -2.0, "vmax": 6.0}
    assert colour_scale(field_on(grid, values), "difference") == {"cmap": "RdBu_r", "vmin": -6.0, "vmax": 6.0}
    assert colour_scale(field_on(grid, values, "u_component_of_wind"))["vmin"] == -6.0
    assert colour_scale(field_on(grid, values), "spread")["vmin"] == 0.0
    assert colour_scale(field_on(grid, values), limits=(0.0, 1.0))["vmax"] == 1.0


@pytest.mark.parametrize("name", ["viridis", "cividis"])
def test_sequential_scales_rise_evenly_in_brightness(name):
    """So that they can be read in grey and by colour-blind readers."""
    brightness = colormaps[name](np.linspace(0, 1, 50))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > 0).all()


def test_words():
    assert unit_text("m**2 s**-2") == "m² s⁻²"
    assert with_unit("ratio", "1") == "ratio" and with_unit("pressure", "Pa") == "pressure (Pa)"
    assert [lead_text(np.timedelta64(count, "h")) for count in (6, 24, 48, 60, 240)] == ["6 h", "24 h", "2 d", "60 h", "10 d"]
    assert time_text(np.datetime64("2001-01-31T06:00:00.000000000")) == "2001-01-31 06 UTC"
