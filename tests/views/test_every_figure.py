"""What holds of every picture: a title, units on its axes, colours that readers with any eyes can tell apart, and no network."""

from __future__ import annotations

import importlib
import inspect
import io
import pkgutil
import re
from collections.abc import Callable, Iterator

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import pytest
import xarray as xr
from bokeh.models import ColorBar, LinearColorMapper
from bokeh.plotting import figure as BokehFigure
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

import aeris
import aeris.views
from aeris.data.grid import Grid
from aeris.verification.coherence import coherence
from aeris.verification.consistency import consistency
from aeris.verification.diagnostics import DIAGNOSTICS
from aeris.verification.events import event_table
from aeris.verification.kinetic_energy import mean_kinetic_energy
from aeris.verification.stability import stability
from aeris.views.calibration import rank_figure
from aeris.views.climate import hovmoller_figure, index_figure
from aeris.views.consistency import FAVOURITES, consistency_figure
from aeris.views.events import brier_figure, reliability_figure
from aeris.views.madden_julian import phase_figure
from aeris.views.maps import map_figure
from aeris.views.plumes import plume_figure
from aeris.views.scorecard import scorecard_figure
from aeris.views.scores import parts_figure, score_figure
from aeris.views.shares import share_figure
from aeris.views.sidebar import HOVMOLLER
from aeris.views.spectra import coherence_figure, kinetic_energy_figure, spectra_figure
from aeris.views.stability import stability_figure
from aeris.views.style import OKABE_ITO
from aeris.views.tracks import track_figure
from aeris.views.training import loss_figure, training_figure

LEAD = "prediction_timedelta"
DAYS = pd.date_range("2001-01-01", periods=60)


def index() -> xr.DataArray:
    """Two initial times, seven members and thirty days of an index."""
    coordinates = {"time": DAYS[[10, 20]], "number": np.arange(7), LEAD: pd.to_timedelta(np.arange(1, 31), unit="D")}
    values = np.random.default_rng(0).standard_normal((2, 7, 30))
    return xr.DataArray(values, coordinates, list(coordinates), "nino34", {"units": "K", "long_name": "Niño 3.4"})


def drift() -> xr.Dataset:
    """The verdict on a month of noise."""
    cells = Grid.regular(8, 16)
    grid = {"latitude": cells.latitude, "longitude": cells.longitude}
    times = pd.date_range("2001-01-01", periods=750)
    values = 280 + np.random.default_rng(0).standard_normal((750, 8, 16))
    past = xr.Dataset({"2m_temperature": (("time", *grid), values)}, {"time": times, **grid})
    ahead = past.isel(time=slice(1, 31)).rename(time=LEAD).assign_coords({LEAD: pd.to_timedelta(np.arange(1, 31), unit="D")})
    return stability(ahead.expand_dims(time=times[:1], number=[0]), past)


def card() -> pd.DataFrame:
    row = {"score": "rmse", "variable": "geopotential", "level": 500, "channel": "geopotential_500", "verdict": "better", "relative": -0.2}
    who = {"system": "forecast", "reference": "IFS ENS", "confidence": 0.95, "dates": 16}
    return pd.DataFrame([{**row, **who, "lead": lead} for lead in pd.to_timedelta([6, 24], unit="h")])


def diagnosed(forecast) -> tuple[xr.Dataset, list[str]]:
    """The favourites among the diagnostics of the forecast, and those without a unit."""
    found = consistency(forecast.forecast, forecast.truth)
    (like, *_) = (field for field in found.data_vars.values() if "system" in field.dims)
    shares = [name for name, diagnostic in DIAGNOSTICS.items() if diagnostic.units == "1"]
    found = found.assign({name: xr.zeros_like(like).assign_attrs(units="1", long_name=DIAGNOSTICS[name].long_name) for name in shares})
    return found, [name for name in FAVOURITES if name in found]


def tracks() -> xr.Dataset:
    times = pd.date_range("2020-09-01", periods=5, freq="6h")
    columns = {
        "track_id": np.zeros(5),
        "time": times,
        "lat": np.arange(10.0, 15.0),
        "lon": np.arange(300.0, 305.0),
        "wind10": np.full(5, 30.0),
    }
    return xr.Dataset({name: ("record", values) for name, values in columns.items()})


def logbook() -> xr.Dataset:
    steps = np.arange(1, 41)
    columns = {"loss": 1.0 / steps, "grad_norm": np.full(40, 0.5), "lr": 1e-3 / steps, "samples_per_second": np.full(40, 8.0)}
    return xr.Dataset({name: ("step", values) for name, values in columns.items()}, {"step": steps})


def regions(forecast) -> xr.Dataset:
    return aeris.verify(forecast.forecast, forecast.truth, baselines=(), regions=["global", "tropics", "europe"])


def turning() -> xr.DataArray:
    return xr.concat([index(), 1.0 + index()], "mode")


def anomaly() -> xr.DataArray:
    values = np.random.default_rng(0).standard_normal((60, 12))
    return xr.DataArray(values, {"time": DAYS, "longitude": np.arange(12) * 30.0}, ["time", "longitude"], attrs={"units": "m s**-1"})


GALLERY: dict[str, Callable[..., Figure]] = {
    "brier_figure": lambda fc: brier_figure(event_table(fc.forecast, fc.truth, {"2m_temperature": [280.0]}), "2m_temperature"),
    "reliability_figure": lambda fc: reliability_figure(event_table(fc.forecast, fc.truth, {"2m_temperature": [280.0]}), "2m_temperature"),
    "rank_figure": lambda fc: rank_figure(fc.ranks, "geopotential", 850),
    "index_figure": lambda fc: index_figure(index()),
    "hovmoller_figure": lambda fc: hovmoller_figure(anomaly(), "Anomaly of the zonal wind"),
    "phase_figure": lambda fc: phase_figure(turning()),
    "consistency_figure": lambda fc: consistency_figure(*diagnosed(fc)),
    "map_figure": lambda fc: map_figure(fc.truth["2m_temperature"].isel(time=0), "Temperature", coast="earth"),
    "plume_figure": lambda fc: plume_figure(fc.forecast, fc.truth, "geopotential", (40.0, 100.0), level=500),
    "scorecard_figure": lambda fc: scorecard_figure(card()),
    "score_figure": lambda fc: score_figure(fc.scores, "crps", "geopotential", 500),
    "parts_figure": lambda fc: parts_figure(regions(fc), "rmse", "2m_temperature"),
    "share_figure": lambda fc: share_figure(np.arange(32).reshape(4, 8) % 4, (2, 2), "Which rank holds which pixels"),
    "spectra_figure": lambda fc: spectra_figure(fc.spectra, "2m_temperature"),
    "kinetic_energy_figure": lambda fc: kinetic_energy_figure(mean_kinetic_energy(fc.forecast, fc.truth), 500),
    "coherence_figure": lambda fc: coherence_figure(coherence(fc.forecast, fc.truth), "geopotential", 500),
    "stability_figure": lambda fc: stability_figure(drift(), "2m_temperature"),
    "track_figure": lambda fc: track_figure(tracks(), "Winds of a storm"),
    "loss_figure": lambda fc: loss_figure(logbook()),
    "training_figure": lambda fc: training_figure(logbook()),
}
"""One of each kind of picture."""

PURE = {"1", "spread / error", "ratio of power", "relative frequency", "coherence", "probability", "loss", "gradient norm", "step size"} | {
    *("RMM1", "RMM2", "optimizer step", "members below the truth", "forecast / truth", "Brier skill, 1 is perfect", "how often it came"),
    *("probability that was given", "how often given", "spherical-harmonic degree", "zonal wavenumber", "latitude", "longitude"),
    *("day (UTC)", "rank of the truth", "share of the area", "share of the wind", "probability of exceeding"),
    "ln of power (standard errors)",
}
"""What axes tell that has no unit, or whose ticks carry it."""
UNIT = r"(?:[KWJN%°]|Pa|hPa|mm|kg|m|s|h|d|days|samples|GB)[¹²³⁻⁰-⁹EN]*"
WITH_UNIT = re.compile(rf"(?s).*\(({UNIT})( {UNIT})*\)²?\)?(?:\n.*)?|{UNIT}( {UNIT})*")
"""A label that ends with a unit in brackets, or is one."""


@pytest.fixture(scope="module")
def gallery(forecast, network_refused) -> dict[str, Figure]:
    """All pictures, drawn without a network."""
    with network_refused():
        drawn = {name: make(forecast) for name, make in GALLERY.items()}
        for figure in drawn.values():
            figure.savefig(io.BytesIO(), dpi=50)
    return drawn


def test_no_picture_is_forgotten():
    """Every public function of the views that gives a figure is in the gallery."""
    found = set()
    for module in pkgutil.iter_modules(aeris.views.__path__, "aeris.views."):
        for name, made in inspect.getmembers(importlib.import_module(module.name), inspect.isfunction):
            gives = str(inspect.signature(made).return_annotation)
            if made.__module__ == module.name and not name.startswith("_") and gives in ("Figure", "NotebookFigure"):
                found.add(name)
    assert found - {"new_figure"} == set(GALLERY)


each = pytest.mark.parametrize("name", GALLERY)


@each
def test_a_title_says_what_is_shown(gallery, name):
    titles = [gallery[name].get_suptitle(), *(ax.get_title() for ax in gallery[name].axes)]
    assert len(max(titles, key=len)) > 3


@each
def test_axes_say_what_they_measure_and_in_which_unit(gallery, name):
    for ax in gallery[name].axes:
        for label in blanks_left_out(ax):
            assert label in PURE or WITH_UNIT.fullmatch(label), label


def blanks_left_out(ax: Axes) -> Iterator[str]:
    """The labels of an axis; a blank one only where numbers stand along it that nothing explains."""
    for axis in (ax.xaxis, ax.yaxis):
        label, ticks = axis.label.get_text(), [tick.get_text() for tick in axis.get_ticklabels() if tick.get_visible()]
        numbers = ax.axison and any(re.fullmatch(r"[\d.−-]+", tick) for tick in ticks)
        dates = type(axis.get_major_formatter()).__name__.endswith("DateFormatter")
        explained = dates or hasattr(ax, "projection") or ax.get_label() == "<colorbar>" or " over " in ax.get_title()
        if label or (numbers and not explained):
            yield label
    if ax.get_label() == "<colorbar>":
        yield ax.get_xlabel() or ax.get_ylabel()


@each
def test_colours_of_fields_are_even_in_brightness(gallery, name):
    for ax in gallery[name].axes:
        for drawn in (*ax.collections, *ax.images):
            if drawn.get_array() is not None and name != "share_figure":
                assert fits_all_eyes([to_rgb(colour) for colour in drawn.cmap(np.linspace(0, 1, 33))])


@each
def test_colours_of_lines_are_those_that_all_eyes_tell_apart(gallery, name):
    """Of Okabe and Ito, of a scale that is even in brightness where lines are in an order, or a grey."""
    scale = np.array([colour[:3] for colour in colormaps["viridis"](np.linspace(0, 1, 256))])
    for ax in gallery[name].axes:
        for line in ax.get_lines():
            red, green, blue = to_rgb(line.get_color())
            ordered = np.abs(scale - (red, green, blue)).max(1).min() < 0.01
            assert to_hex(line.get_color()).upper() in OKABE_ITO or red == green == blue or ordered, line.get_color()


def fits_all_eyes(colours: list[tuple[float, float, float]]) -> bool:
    """Whether brightness rises or falls all the way, or up to the middle and then the other way; and no red stands against green."""
    steps = np.diff(np.array(colours) @ [0.2126, 0.7152, 0.0722])
    half = len(steps) // 2
    one_way = (steps > 0).all() or (steps < 0).all()
    two_ways = (steps[: half - 1] > 0).all() and (steps[half + 1 :] < 0).all()
    (red, green, blue), (other_red, _, other_blue) = colours[0], colours[-1]
    return bool(one_way or (two_ways and blue > red and other_red > other_blue and green < blue))


@pytest.mark.parametrize("cmap", ["jet", "RdYlGn", "hsv", "PiYG"])
def test_the_rule_of_brightness_refuses_what_it_should(cmap):
    assert not fits_all_eyes([colour[:3] for colour in colormaps[cmap](np.linspace(0, 1, 33))])


# ------------------------------------------------------------------ the explorer


@pytest.mark.parametrize("quantity", ["mean", "member", "spread", "probability"])
def test_every_picture_of_the_explorer_has_title_units_and_fitting_colours(forecast, network_refused, quantity):
    with network_refused():
        app = aeris.explore(forecast.forecast, forecast.truth, variable="geopotential")
        app.quantity = quantity
        shown = list(figures_of(app._map_pane.object))
        for tab in range(len(app._drawings)) if quantity == "mean" else [HOVMOLLER]:  # the others do not depend on it
            app.tab = tab
            shown += [figure for part in parts_of(app.drawn) for figure in figures_of(part)]
    assert len(shown) >= (9 if quantity == "mean" else 2)
    for figure in shown:
        assert len(figure.title.text) > 10
        for axis in figure.axis:
            assert not axis.visible or axis.axis_label in PURE or WITH_UNIT.fullmatch(axis.axis_label), (figure.title.text, axis.axis_label)
        for mapper in figure.select({"type": LinearColorMapper}):
            assert fits_all_eyes([to_rgb(colour) for colour in mapper.palette[::8]])
        for bar in figure.select({"type": ColorBar}):
            assert bar.title == "probability" or WITH_UNIT.fullmatch(bar.title)


def parts_of(drawn) -> list:
    """The HoloViews elements of what a tab shows."""
    if isinstance(drawn, pn.pane.HoloViews):
        return [drawn.object]
    return [part for row in drawn for part in parts_of(row)] if isinstance(drawn, pn.layout.ListLike) else [drawn] * is_plot(drawn)


def is_plot(drawn) -> bool:
    return isinstance(drawn, hv.core.Dimensioned)


def figures_of(element) -> list:
    """The figures that bokeh draws of a HoloViews element."""
    return list(hv.renderer("bokeh").get_plot(element).state.select({"type": BokehFigure}))
