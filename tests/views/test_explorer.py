"""The explorer, driven by its parameters and streams; one test drives it in a browser."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import urlopen

import holoviews as hv
import numpy as np
import panel as pn
import param
import pytest
import xarray as xr
from bokeh.models import LinearColorMapper
from cartopy import crs

import aeris
from aeris.cli import main
from aeris.data.grid import Grid
from aeris.errors import ConfigurationError, DataError, StoreError
from aeris.verification.calibration import rank_histogram
from aeris.views import dashboard, tabs
from aeris.views.dashboard import SKILL
from aeris.views.explorer import make_server
from aeris.views.interactive_curves import hovmoller
from aeris.views.interactive_maps import PROJECTIONS, map_plane, palette, place_under

LEAD = "prediction_timedelta"


@pytest.fixture
def app(forecast):
    """The explorer of a forecast in memory with its truth."""
    return aeris.explore(forecast.forecast, forecast.truth)


def image(app) -> np.ndarray:
    """The pixels on the map, row by row from the north."""
    return image_element(app).dimension_values("value", flat=False)


def image_element(app) -> hv.Image:
    overlay = app._map_pane.object[()]
    return next(layer for layer in overlay if isinstance(layer, hv.Image))


def layers(overlay: hv.Overlay) -> dict[str, np.ndarray]:
    """The points of each curve by its label."""
    overlay = overlay[()] if isinstance(overlay, hv.DynamicMap) else overlay
    return {layer.label: np.column_stack([layer.dimension_values(i) for i in (0, 1)]) for layer in overlay if isinstance(layer, hv.Curve)}


def notice(app) -> str:
    return app._notice.object if app._notice.visible else ""


# ------------------------------------------------------------------ the map


def test_the_map_shows_the_mean_with_all_that_it_is(app, forecast):
    field = forecast.forecast["2m_temperature"].isel(time=0).sel({LEAD: app.lead}).mean("number")
    np.testing.assert_allclose(app.picture.field, field, rtol=1e-6)
    start = str(forecast.forecast.time.values[0])[:13].replace("T", " ")
    assert app.picture.title.splitlines()[:2] == ["temperature at 2 m", "ensemble mean, 3 of 3 members"]
    assert f"from {start} UTC, lead 6 h, valid" in app.picture.title
    assert app.picture.label == "temperature at 2 m (K)"


def test_widgets_change_the_picture(app, forecast):
    ds = forecast.forecast
    before = app.picture
    app.lead = ds[LEAD].values[1]
    assert "lead 24 h" in app.picture.title and not app.picture.field.equals(before.field)
    app.variable = "geopotential"
    assert app.level == 500 and "geopotential at 500 hPa" in app.picture.title
    app.level, app.time, app.quantity, app.member = 850, ds.time.values[1], "member", 2
    one = {"time": ds.time.values[1], LEAD: ds[LEAD].values[1], "level": 850}
    np.testing.assert_array_equal(app.picture.field, ds["geopotential"].sel(**one, number=2))
    assert "member 2" in app.picture.title
    app.quantity = "spread"
    np.testing.assert_allclose(app.picture.field, ds["geopotential"].sel(one).std("number", ddof=1), rtol=1e-5)
    assert app.picture.label == "spread (m² s⁻²)" and app.picture.scale["cmap"] == "cividis"
    app.quantity, app.threshold = "probability", 14000.0
    np.testing.assert_allclose(app.picture.field, (ds["geopotential"].sel(one) > 14000).mean("number"))
    app.above = False
    np.testing.assert_allclose(app.picture.field, (ds["geopotential"].sel(one) < 14000).mean("number"))
    assert "probability of less than 14000 m² s⁻²" in app.picture.title
    app.variable = "2m_temperature"
    assert app.level is None and not app._sidebar.widgets["level"].visible


def test_the_slider_moves_the_map_when_it_is_let_go(app, forecast):
    slider, (first, second) = app._sidebar.widgets["lead"], forecast.forecast[LEAD].values
    slider.value = second
    assert app.lead == first
    with param.edit_constant(slider):
        slider.value_throttled = second
    assert app.lead == second and "lead 24 h" in app.picture.title
    app.lead = first
    assert slider.value == first


def test_what_is_drawn_is_the_picture(app):
    """As bokeh gets it: the values, the colours and the title follow the lead in the plot that is already there."""
    plot = hv.renderer("bokeh").get_plot(app._map_pane.object)
    for lead in app.reader.leads:
        app.lead = lead
        drawn = image(app)
        assert np.nanmax(drawn) == pytest.approx(float(app.picture.field.max()), rel=1e-6)
        mapper = plot.state.select_one(LinearColorMapper)
        assert (mapper.low, mapper.high) == pytest.approx((app.picture.scale["vmin"], app.picture.scale["vmax"]))
        assert plot.state.title.text == app.picture.title


def test_colour_limits_can_be_kept(app):
    limits = app.picture.scale
    app.keep_colours = True
    app.lead = app.reader.leads[1]
    assert app.picture.scale == limits
    app.keep_colours = False
    assert app.picture.scale != limits


@pytest.mark.parametrize("name", PROJECTIONS)
def test_every_projection_is_drawn_and_clicks_come_back(app, name):
    """A click chooses the place that was drawn there."""
    app.projection, app.centre = name, 170.0
    assert notice(app) == "" and np.isfinite(image(app)).mean() > 0.5
    hv.renderer("bokeh").get_plot(app._map_pane.object)
    projection = PROJECTIONS[name](170.0)
    for latitude, longitude in ((20.0, 179.0), (-20.0, 181.0), (60.0, 150.0)):
        x, y = projection.transform_point(longitude, latitude, crs.PlateCarree())
        if not np.isfinite(x):
            continue
        assert place_under(x, y, projection) == pytest.approx((latitude, longitude), abs=1e-3)


def test_outside_the_globe_there_is_no_place():
    assert place_under(6.3e6, 6.3e6, PROJECTIONS["Orthographic"](0.0)) is None
    assert place_under(0.0, 95.0, PROJECTIONS["PlateCarree"](0.0)) is None


def test_the_map_is_whole_across_the_date_line_and_zero(forecast):
    """A wave of the longitude is smooth, so neighbouring columns of pixels differ little, wherever the map is cut."""
    ds = forecast.forecast.isel(time=[0])[["2m_temperature"]]
    ds["2m_temperature"] = 280 + 10 * np.cos(np.deg2rad(ds.longitude)) + 0 * ds["2m_temperature"]
    app = aeris.explore(ds)
    step = 10 * np.deg2rad(360 / 32)
    for centre in (0.0, 180.0, 90.0):
        app.centre = centre
        drawn = image(app)
        assert np.isfinite(drawn).all()
        assert np.abs(np.diff(drawn, axis=1)).max() < 1.01 * step and np.abs(drawn[:, 0] - drawn[:, -1]).max() < 1.01 * step
        middle = drawn[drawn.shape[0] // 2, drawn.shape[1] // 2]
        assert middle == pytest.approx(280 + 10 * np.cos(np.deg2rad(centre)), abs=step)


def test_a_finer_grid_gets_more_pixels(forecast):
    assert map_plane(Grid.regular(721, 1440), "PlateCarree", 0.0).row.shape == (720, 1440)
    assert map_plane(Grid.regular(16, 32), "PlateCarree", 0.0).row.shape == (320, 640)


def test_missing_cells_stay_missing(app):
    app.variable = "sea_surface_temperature"
    assert 0.05 < np.isnan(image(app)).mean() < 0.95
    app.quantity = "probability"
    assert 0.05 < np.isnan(image(app)).mean() < 0.95


def test_palettes_are_colours():
    assert len(palette("magma_r")) == 256 and palette("viridis")[0] == "#440154"


# ------------------------------------------------------------------ the place and the tabs


def test_a_click_moves_the_plume(app, forecast):
    first = layers(app.drawn)
    app._map.tap.event(x=-11.25, y=39.0)
    assert app.place == (39.0, 348.75)
    members = forecast.forecast["2m_temperature"].isel(time=0).sel(latitude=39.0, method="nearest").sel(longitude=348.75)
    shown = layers(app.drawn)
    np.testing.assert_allclose(shown["mean"], np.column_stack([[6, 24], members.mean("number")]), rtol=1e-6)
    start = forecast.forecast.time.values[0]
    truth = forecast.truth["2m_temperature"].sel(latitude=39.0, method="nearest").sel(longitude=348.75)
    expected = truth.sel(time=start + np.array([0, 6, 24], "timedelta64[h]"))
    np.testing.assert_allclose(shown["truth"], np.column_stack([[0, 6, 24], expected]))
    assert not np.array_equal(first["mean"], shown["mean"])


def test_a_click_beside_the_globe_changes_nothing(app):
    app.projection = "Orthographic"
    before = app.place
    app._map.tap.event(x=6.3e6, y=6.3e6)
    assert app.place == before


def test_without_truth_the_plume_has_none(forecast):
    assert "truth" not in layers(aeris.explore(forecast.forecast).drawn)


def test_spectra_follow_the_lead(app, forecast):
    app.tab = 1
    assert app._tabs.active == 1
    first = layers(app.drawn[0].object)
    app.lead = app.reader.leads[1]
    second = layers(app.drawn[0].object)
    assert set(second) == {"mean of the members' power", "power of the ensemble mean", "truth"}
    np.testing.assert_array_equal(second["truth"][:, 0], np.arange(1, 17))
    assert not np.array_equal(first["truth"], second["truth"])
    rows = forecast.truth["2m_temperature"].sel(time=app.time + app.lead, latitude=slice(60, 30))
    weight = np.cos(np.deg2rad(rows.latitude.values))
    power = 2 * np.abs(np.fft.rfft(rows.values, axis=1)[:, 3] / 32) ** 2
    assert second["truth"][2, 1] == pytest.approx(np.average(power, weights=weight), rel=1e-3)


def test_spectra_by_degree_are_those_of_the_whole_globe(app, forecast):
    """The mean square of the members and of the truth comes back as the sum of the power over the degrees (Parseval)."""
    app.tab, app.spectrum = 1, "degree"
    now = {"time": app.time, LEAD: app.lead}
    members, truth = forecast.forecast["2m_temperature"].sel(now), forecast.truth["2m_temperature"].sel(time=app.time + app.lead)
    area = xr.DataArray(Grid.of(truth).area, {"latitude": truth.latitude}, ["latitude"])
    drawn = layers(app.drawn[0].object)
    for name, field in (("truth", truth), ("mean of the members' power", members), ("power of the ensemble mean", members.mean("number"))):
        about_mean = field - field.weighted(area).mean(("latitude", "longitude"))
        expected = float((about_mean**2).weighted(area).mean(("latitude", "longitude")).mean())
        assert drawn[name][:, 1].sum() == pytest.approx(expected, rel=0.05)  # what the grid cannot resolve is not among the degrees
    assert drawn["truth"][:, 0].tolist() == list(range(1, 16))
    assert "the globe, lead 6 h" in title_of(app.drawn[0].object)


def title_of(element: hv.Element) -> str:
    element = element[()] if isinstance(element, hv.DynamicMap) else element
    return element.opts.get("plot").kwargs["title"]


def test_power_against_the_lead_is_told_over_that_of_the_truth(app, forecast):
    app.tab, app.spectrum, app.lead = 1, "degree", app.reader.leads[1]
    ratios = layers(app.drawn[1].object)
    assert list(ratios) == ["6 h", "24 h"]
    spectrum = layers(app.drawn[0].object)
    expected = spectrum["mean of the members' power"][:, 1] / spectrum["truth"][:, 1]
    np.testing.assert_allclose(ratios["24 h"][:, 1], expected, rtol=1e-6)
    alone = aeris.explore(forecast.forecast)
    alone.tab = 1
    ratios = layers(alone.drawn[1].object)
    np.testing.assert_allclose(ratios["6 h"][:, 1], 1.0)
    assert not np.allclose(ratios["24 h"][:, 1], 1.0)
    assert "over that at 6 h" in title_of(alone.drawn[1].object)


def test_of_a_fine_grid_only_some_members_are_transformed(app, monkeypatch):
    monkeypatch.setattr(tabs, "SPECTRUM_VALUES", 2 * 16 * 32)
    app.tab = 1
    assert "power of 2 of 3 members" in title_of(app.drawn[0].object)
    assert "power of 1 of 3 members over that of the truth" in title_of(app.drawn[1].object)


def test_spectra_of_an_archive_that_fills_end_where_it_stands(growing):
    app = aeris.explore(growing.path)
    app.time = app.reader.times[1]
    app.tab = 1
    assert "0 members" in notice(app) and app.drawn is None
    growing.gain(0, range(2), time=1)
    app.refresh()
    assert list(layers(app.drawn[1].object)) == ["6 h", "12 h"]


def test_a_spectrum_of_a_field_with_gaps_is_refused_in_words(app):
    app.variable = "sea_surface_temperature"
    app.tab, app.band = 1, (-90.0, 90.0)
    assert "missing cells" in notice(app)
    app.spectrum = "degree"
    assert "value in every cell" in notice(app) and app.drawn is None
    app.variable = "2m_temperature"
    assert notice(app) == ""


def test_the_hovmoller_diagram_shows_leads_and_longitudes(app, forecast):
    app.tab = 2
    rows = forecast.forecast["2m_temperature"].isel(time=0).sel(latitude=slice(60, 30)).mean("number")
    weight = np.cos(np.deg2rad(rows.latitude))
    expected = rows.weighted(weight).mean("latitude")
    drawn = app.drawn.dimension_values("value", flat=False)
    assert drawn.shape == (2, 32)
    by_lead = drawn[:: int(np.sign(np.diff(app.drawn.dimension_values("lead (h)", expanded=False))[0]))]
    np.testing.assert_allclose(by_lead[0], expected.isel({LEAD: 0}), rtol=1e-3)
    np.testing.assert_allclose(by_lead[-1], expected.isel({LEAD: 1}), rtol=1e-3)
    app.quantity = "spread"
    assert "ensemble spread" in app.drawn.opts.get("plot").kwargs["title"]


def test_unevenly_spaced_leads_stand_where_they_belong():
    leads = np.array([6, 12, 24], "timedelta64[h]").astype("timedelta64[ns]")
    field = xr.DataArray([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]], {LEAD: leads, "longitude": [0.0, 180.0]}, [LEAD, "longitude"])
    drawn = hovmoller(field, {"cmap": "viridis", "vmin": 1.0, "vmax": 4.0}, "value", "title")
    assert drawn.dimension_values("value", flat=False)[:, 0].tolist() in ([1, 2, 2, 4], [1, 2, 4, 4])
    assert drawn.bounds.lbrt() == (-90.0, 3.0, 270.0, 27.0)


def test_extremes_follow_the_threshold(app, forecast):
    app.tab = 3
    app.threshold = 250.0
    curve, days, _, table = app.drawn
    assert curve.object.dimension_values("probability").tolist() == [1.0, 1.0]
    assert isinstance(next(iter(days.object)), hv.BoxWhisker)
    assert table.object["probability"].tolist() == [1.0] * len(table.object)
    app.threshold = 350.0
    assert app.drawn[0].object.dimension_values("probability").tolist() == [0.0, 0.0]


# ------------------------------------------------------------------ spread and error


def test_skill_is_that_of_verify_for_this_channel_and_initial_time(app, forecast):
    app.variable, app.level, app.time, app.tab = "geopotential", 850, app.reader.times[1], SKILL
    one = forecast.forecast[["geopotential"]].sel(time=[app.time], level=[850])
    scores = aeris.verify(one, forecast.truth, baselines=()).sel(system="forecast", level=850)
    drawn = [layers(pane.object) for pane in app.drawn]
    np.testing.assert_allclose(drawn[0]["RMSE of the mean"][:, 1], scores["rmse.geopotential"], rtol=1e-6)
    np.testing.assert_allclose(drawn[0]["spread"][:, 1], scores["spread.geopotential"], rtol=1e-6)
    np.testing.assert_allclose(drawn[1][""][:, 1], scores["spread_skill.geopotential"], rtol=1e-6)
    assert drawn[0]["spread"][:, 0].tolist() == [6, 24]
    for lead in app.reader.leads:
        app.lead = lead
        ranks = rank_histogram(one.sel({LEAD: [lead]}), forecast.truth)["geopotential"].values.ravel()
        bars = next(layer for layer in app.drawn[2].object if isinstance(layer, hv.Histogram))
        np.testing.assert_allclose(bars.dimension_values("relative frequency"), ranks)
        assert "among 3 members" in title_of(app.drawn[2].object)


def test_without_truth_the_skill_tab_says_so(forecast):
    app = aeris.explore(forecast.forecast)
    app.tab = SKILL
    assert "no truth" in notice(app) and app.drawn is None
    app.tab = 0
    assert notice(app) == ""
    app = aeris.explore(forecast.forecast, forecast.truth.drop_vars("2m_temperature"))
    app.tab = SKILL
    assert "The truth has no temperature at 2 m" in notice(app)


def test_a_large_archive_is_scored_when_asked_to_and_lead_by_lead(app, monkeypatch):
    monkeypatch.setattr(dashboard, "AT_ONCE", 0)
    computed = []
    known = app._skills.compute
    monkeypatch.setattr(app._skills, "compute", lambda scene, lead: (computed.append(lead), known(scene, lead)))
    app.tab = SKILL
    assert computed == [] and "2 of 2 leads are not computed yet" in app.drawn[0][1].object

    async def press_and_wait() -> None:
        app._compute.clicks += 1
        while app._worker is not None:
            await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(press_and_wait(), 30))
    assert computed == list(app.reader.leads)
    assert layers(app.drawn[0].object)["spread"][:, 0].tolist() == [6, 24]
    app.variable = "geopotential"
    assert "2 of 2 leads" in app.drawn[0][1].object
    app.variable = "2m_temperature"
    assert len(computed) == 2 and layers(app.drawn[0].object)["spread"][:, 0].tolist() == [6, 24]


def test_leads_that_gain_members_are_scored_anew(growing):
    truth = growing.expected([3, 3]).isel(time=0, number=0, drop=True).rename({LEAD: "time"})
    truth = truth.assign_coords(time=growing.archive.times[0] + growing.archive.leads)
    app = aeris.explore(growing.path, truth)
    app.tab = SKILL
    before = layers(app.drawn[0].object)["spread"][:, 1]
    np.testing.assert_allclose(before[1:], np.std([0, 1000], ddof=1), rtol=1e-4)
    growing.gain(1, range(1, 2))
    app.refresh()
    after = layers(app.drawn[0].object)["spread"][:, 1]
    np.testing.assert_allclose(after[:2], np.std([0, 1000, 2000, 3000], ddof=1), rtol=1e-4)
    assert after[2] == before[2]


def test_members_that_are_missing_in_memory_are_left_out_of_spectra_and_skill(growing, recwarn):
    """Without a ledger only the values tell who is there."""
    archive = growing.expected([3, 1])
    archive["2m_temperature"][0, 1, 2] = np.nan  # one member is left at the last lead
    truth = archive.isel(time=0, number=0, drop=True).rename({LEAD: "time"})
    app = aeris.explore(archive, truth.assign_coords(time=archive.time.values[0] + archive[LEAD].values))
    app.tab = 1
    assert list(layers(app.drawn[1].object)) == ["6 h", "12 h", "18 h"]
    app.tab = SKILL
    spread = layers(app.drawn[0].object)["spread"][:, 1]
    np.testing.assert_allclose(spread, [np.std([0, 1000, 2000, 3000], ddof=1), np.std([0, 1000], ddof=1), np.nan], rtol=1e-4)
    app.lead = app.reader.leads[2]
    assert len(app.drawn) == 2  # no ranks among one member
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


# ------------------------------------------------------------------ an archive that fills


def test_members_that_are_not_there_are_left_out_until_they_are(growing):
    app = aeris.explore(growing.path)
    assert "4 of 4 members" in app.picture.title
    app.lead = app.reader.leads[2]
    assert "2 of 4 members" in app.picture.title
    np.testing.assert_allclose(app.picture.field[0], (200 + 1200) / 2)
    growing.gain(1, range(1, 3))
    assert "2 of 4 members" in app.picture.title
    app.refresh()
    assert "4 of 4 members" in app.picture.title
    np.testing.assert_allclose(app.picture.field[0], (200 + 1200 + 2200 + 3200) / 4)
    assert layers(app.drawn)["mean"][-1, 1] == pytest.approx(1700, abs=1)


def test_where_no_member_is_there_the_page_says_so(growing):
    app = aeris.explore(growing.path)
    app.time = app.reader.times[1]
    assert "0 members" in notice(app) and app.picture is None and app.drawn is None
    growing.gain(0, range(3), time=1)
    app.refresh()
    assert notice(app) == "" and "2 of 4 members" in app.picture.title


def test_a_plume_ends_with_the_last_lead_that_a_member_has_reached(growing, recwarn):
    growing.gain(1, range(2), time=1)
    app = aeris.explore(growing.path)
    app.time = app.reader.times[1]
    assert layers(app.drawn)["mean"][:, 0].tolist() == [6, 12]
    assert "2 of 4 members" in app.picture.title
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


def test_a_refresh_without_news_reads_nothing(growing, monkeypatch):
    app = aeris.explore(growing.path)
    monkeypatch.setattr(app, "_show_picture", lambda: pytest.fail("drawn again"))
    app.refresh()


def test_following_refreshes_by_itself(growing):
    async def wait_for_members() -> str:
        app = aeris.explore(growing.path, follow=True, every=0.05)
        app.lead = app.reader.leads[2]
        growing.gain(1, range(1, 3))
        for _ in range(100):
            await asyncio.sleep(0.05)
            if "4 of 4" in app.picture.title:
                break
        app.follow = False
        return app.picture.title

    assert "4 of 4 members" in asyncio.run(wait_for_members())


def test_what_is_in_memory_cannot_be_followed(forecast):
    with pytest.raises(ConfigurationError, match="path of the archive"):
        aeris.explore(forecast.forecast, follow=True)


# ------------------------------------------------------------------ refusals, network, command line


def test_refusals_come_before_work(forecast, tmp_path):
    with pytest.raises(StoreError, match="no forecast archive"):
        aeris.explore(tmp_path / "none.zarr")
    with pytest.raises(DataError, match="no variable 'rain'"):
        aeris.explore(forecast.forecast, variable="rain")
    with pytest.raises(DataError, match="truth has no coordinate latitude"):
        aeris.explore(forecast.forecast, forecast.truth.drop_vars("latitude"))


def test_without_the_extra_one_message_says_what_to_install(monkeypatch, forecast):
    monkeypatch.setitem(sys.modules, "panel", None)
    with pytest.raises(ConfigurationError, match=r"panel is not installed.*pip install 'aeris\[views\]'"):
        aeris.explore(forecast.forecast)


def test_no_network_is_needed(network_refused, forecast):
    with network_refused():
        app = aeris.explore(forecast.forecast, forecast.truth.drop_vars("land_sea_mask"))
        for name in PROJECTIONS:
            app.projection = name
            hv.renderer("bokeh").get_plot(app._map_pane.object)
        for tab in range(5):
            app.tab = tab


def test_a_notebook_cell_can_show_it(app):
    assert isinstance(app, pn.viewable.Viewer)
    assert app.__panel__().get_root().children


def test_the_command_refuses_in_one_message(tmp_path, capsys):
    assert main(["explore", str(tmp_path / "none.zarr")]) == 2
    assert "none.zarr is no forecast archive" in capsys.readouterr().err


@pytest.fixture
def served(forecast, tmp_path) -> Iterator[str]:
    """The address at which the command line serves a forecast, from a process of its own."""
    forecast.forecast.to_zarr(tmp_path / "f.zarr", consolidated=False)
    forecast.truth.to_zarr(tmp_path / "truth.zarr", consolidated=False)
    words = [sys.executable, "-m", "aeris", "explore", str(tmp_path / "f.zarr"), "--truth", str(tmp_path / "truth.zarr")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().split()[1]
        finally:
            server.terminate()


@pytest.mark.slow
def test_the_command_serves_on_this_machine_and_prints_where(served):
    assert served.startswith("http://127.0.0.1:")
    assert "f.zarr" in urlopen(served, timeout=60).read().decode()


@pytest.mark.slow
def test_who_does_not_know_the_address_is_refused(served):
    """Another user of this machine, who can reach the port."""
    root, _, secret = served.partition("?")
    forged = secret.rpartition(".")[0] + "." + "A" * 43
    for guess in ("", "?", "?bokeh-session-id=x", f"?{forged}", "autoload.js?bokeh-autoload-element=x"):
        with pytest.raises(HTTPError) as refusal:
            urlopen(root + guess, timeout=60)
        assert refusal.value.code == 403


@pytest.mark.parametrize("behind", ["hub.example.org", "https://*", "https://hub.example.org?next=/", "ftp://hub.example.org", "https://"])
def test_what_a_browser_cannot_come_through_is_refused(forecast, tmp_path, behind):
    forecast.forecast.to_zarr(tmp_path / "f.zarr", consolidated=False)
    with pytest.raises(ConfigurationError, match=r"address of a Jupyter server.*https://hub.example.org/user/me"):
        make_server(tmp_path / "f.zarr", behind=behind)


# ------------------------------------------------------------------ in a browser

TITLES = """() => (window.Bokeh?.documents ?? []).flatMap(document => [...document._all_models.values()])
    .filter(model => model.type == 'Title').map(model => model.text)"""
"""What the page calls its plots."""


@pytest.mark.full
def test_in_a_browser_the_slider_moves_the_map_and_a_click_the_plume(served):
    browsers = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    with browsers.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1700, "height": 1000})
        asked: list[str] = []
        faults: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(served)
        says = lambda text: page.wait_for_function(f"() => ({TITLES})().some(title => title.includes({text!r}))", timeout=60_000)  # noqa: E731
        says("lead 6 h")
        says("temperature at 2 m: 3 of 3 members")
        before = page.evaluate(TITLES)
        page.locator(".noUi-handle").first.press("ArrowRight")
        says("lead 24 h")
        canvas = page.locator(".bk-Figure").first.bounding_box()
        page.mouse.click(canvas["x"] + 0.3 * canvas["width"], canvas["y"] + 0.3 * canvas["height"])
        page.wait_for_function(
            f"titles => ({TITLES})().filter(title => title.includes('°')).join() != titles", arg=plumes(before), timeout=60_000
        )
        assert plumes(page.evaluate(TITLES)) != plumes(before)
        browser.close()
    assert faults == []
    assert [url for url in asked if not url.startswith((served.partition("?")[0], "data:", "blob:"))] == []


def plumes(titles: list[str]) -> str:
    """The titles that name a place."""
    return ",".join(title for title in titles if "°" in title)
