"""Pictures of a training and of who holds what."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex

from aeris.errors import DataError
from aeris.views.shares import share_figure
from aeris.views.training import loss_figure


@pytest.fixture
def logbook() -> xr.Dataset:
    steps = np.arange(1, 41)
    return xr.Dataset({"loss": ("step", 1.0 / steps), "grad_norm": ("step", np.full(40, 0.5))}, {"step": steps})


def test_losses_and_their_running_mean_are_drawn(logbook):
    upper, lower = loss_figure(logbook).axes
    single, mean = (line.get_ydata() for line in upper.get_lines())
    np.testing.assert_allclose(single, logbook.loss)
    assert mean[0] == single[0]
    assert mean[1] == pytest.approx(single[:2].mean())
    assert mean[30] == pytest.approx(single[27:31].mean())
    np.testing.assert_allclose(lower.get_lines()[1].get_ydata(), 0.5)
    assert (upper.get_ylabel(), lower.get_ylabel(), lower.get_xlabel()) == ("loss", "gradient norm", "optimizer step")


def test_a_skipped_step_leaves_a_gap_and_not_a_hole_in_the_mean(logbook):
    logbook["grad_norm"][5] = np.nan
    mean = loss_figure(logbook).axes[1].get_lines()[1].get_ydata()
    np.testing.assert_allclose(mean, 0.5)


def test_ticks_carry_plain_numbers(logbook):
    figure = loss_figure(logbook.assign(loss=("step", np.linspace(1.1, 0.7, 40))))
    figure.canvas.draw()
    texts = [text.get_text() for which in ("major", "minor") for text in figure.axes[0].yaxis.get_ticklabels(which=which)]
    assert {"0.8", "0.9", "1"} <= set(texts)


def test_a_run_of_one_step_can_be_drawn(logbook):
    assert loss_figure(logbook.isel(step=[0])).axes[0].get_lines()[1].get_ydata().tolist() == [1.0]


RANKS = np.kron([[0, 1, 0, 1], [2, 3, 2, 3]], np.ones((2, 2), int))


def test_pixels_have_the_colour_of_their_rank_and_quadrants_its_number():
    ax = share_figure(RANKS, (4, 4), "Before").axes[0]
    image = ax.get_images()[0]
    np.testing.assert_array_equal(image.get_array(), RANKS)
    colours = [to_hex(image.cmap(image.norm(rank))) for rank in range(4)]
    assert len(set(colours)) == 4
    assert [text.get_text() for text in ax.texts] == ["0", "1", "0", "1", "2", "3", "2", "3"]
    assert ax.get_title() == "Before"


@pytest.mark.parametrize(("offset", "thick"), [((0, 0), {0, 4, 8}), ((2, 2), {2, 6})])
def test_windows_have_thick_borders_where_they_lie(offset, thick):
    ax = share_figure(RANKS, (4, 4), "x", offset=offset).axes[0]
    vertical = [line for line in ax.get_lines() if line.get_xdata()[0] == line.get_xdata()[1]]
    assert {line.get_xdata()[0] for line in vertical if line.get_linewidth() > 1} == thick
    assert {line.get_xdata()[0] for line in vertical} == {0, 2, 4, 6, 8}


def test_labels_may_be_given():
    labels = np.array([["a", "b", "c", "d"], ["e", "f", "g", "h"]])
    ax = share_figure(RANKS, (4, 4), "x", labels=labels).axes[0]
    assert "".join(text.get_text() for text in ax.texts) == "abcdefgh"
    assert ax.texts[5].get_position() == (3, 3)


def test_a_window_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match="4×8"):
        share_figure(RANKS, (3, 4), "x")
