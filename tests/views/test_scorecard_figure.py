"""The picture of a scorecard says what its rows say, in colours and without."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from aeris.errors import DataError
from aeris.views.scorecard import scorecard_figure

LEADS = pd.to_timedelta([6, 24, 72], unit="h")
CHANNELS = (("2m_temperature", pd.NA), ("geopotential", 500), ("geopotential", 850))


def card(scores: tuple[str, ...] = ("rmse", "acc"), **changes) -> pd.DataFrame:
    """Relative differences from -0.4 to 0.4, with a missing one and one without limit."""
    rows = []
    for score in scores:
        for (variable, level), start in zip(CHANNELS, (-0.4, -0.1, 0.2), strict=True):
            for step, lead in enumerate(LEADS):
                relative = start + 0.1 * step
                rows.append(
                    (score, variable, level, lead, relative, "better" if relative < -0.15 else "worse" if relative > 0.15 else "undecided")
                )
    made = pd.DataFrame(rows, columns=["score", "variable", "level", "lead", "relative", "verdict"])
    channel = [variable if pd.isna(level) else f"{variable}_{level}" for variable, level in zip(made.variable, made.level, strict=True)]
    return made.assign(system="forecast", reference="IFS ENS", channel=channel, confidence=0.95, dates=16, **changes)


def cell_texts(ax) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in ax.texts}


def test_rows_columns_and_marks_are_those_of_the_card():
    figure = scorecard_figure(card())
    left, right = figure.axes[:2]
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "temperature at 2 m",
        "geopotential at 500 hPa",
        "geopotential at 850 hPa",
    ]
    assert [label.get_text() for label in left.get_xticklabels()] == ["6 h", "24 h", "3 d"]
    assert (left.get_title(), right.get_title()) == ("RMSE", "1 − ACC") and figure.get_suptitle() == "forecast against IFS ENS"
    told = cell_texts(left)
    assert told[(0.5, 0.5)] == "▲ −40" and told[(1.5, 1.5)] == "0" and told[(2.5, 2.5)] == "▼ +40"
    assert "95 %" in figure.get_supxlabel() and "16 initial times" in figure.get_supxlabel() and "no data" not in figure.get_supxlabel()


def test_better_is_blue_and_worse_is_orange_for_every_score():
    for ax in scorecard_figure(card()).axes[:2]:
        (mesh,) = ax.collections
        colours = mesh.cmap(mesh.norm(mesh.get_array().reshape(3, 3)))
        np.testing.assert_allclose(colours[0, 0, :3], to_rgb("#0072B2"), atol=0.01)
        np.testing.assert_allclose(colours[2, 2, :3], to_rgb("#D55E00"), atol=0.01)
        np.testing.assert_allclose(colours[1, 1, :3], to_rgb("#F7F7F7"), atol=0.01)
        assert mesh.norm.vmin == -mesh.norm.vmax


def test_missing_and_endless_differences_are_told():
    holed = card(("crps",))
    holed.loc[[0, 4], ["relative", "verdict"]] = [[np.nan, "no data"], [np.inf, "worse"]]
    figure = scorecard_figure(holed)
    told = cell_texts(figure.axes[0])
    assert told[(0.5, 0.5)] == "–" and told[(1.5, 1.5)] == "▼ +∞" and "–: no data" in figure.get_supxlabel()
    (mesh,) = figure.axes[0].collections
    assert np.argwhere(np.ma.getmaskarray(mesh.get_array()).reshape(3, 3)).tolist() == [[0, 0]]
    figure.draw_without_rendering()


def test_pairs_and_regions_have_panels_of_their_own():
    both = pd.concat([card(("crps",)), card(("crps",)).assign(reference="GenCast", dates=12)])
    figure = scorecard_figure(both)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["forecast against IFS ENS\nCRPS", "forecast against GenCast\nCRPS"]
    assert "12 to 16 initial times" in figure.get_supxlabel()
    tropics = card(("crps",)).assign(region="tropics")
    assert scorecard_figure(tropics).axes[0].get_title() == "tropics\nCRPS"


def test_many_leads_leave_room_for_marks_alone():
    many = pd.concat([card(("crps",)).assign(lead=lambda one, days=days: one.lead + pd.Timedelta(days=3 * days)) for days in range(5)])
    texts = set(cell_texts(scorecard_figure(many).axes[0]).values())
    assert texts == {"▲", "▼", ""}


def test_differences_of_nothing_look_like_nothing():
    same = card(("crps",)).assign(relative=1e-5, verdict="undecided")
    (mesh,) = scorecard_figure(same).axes[0].collections
    np.testing.assert_allclose(mesh.cmap(mesh.norm(1e-5))[:3], to_rgb("#F7F7F7"), atol=0.01)


def test_small_differences_have_a_decimal():
    small = card(("crps",)).assign(relative=lambda one: one.relative / 20)
    figure = scorecard_figure(small)
    assert set(cell_texts(figure.axes[0]).values()) >= {"▲ −2.0", "▲ −1.5", "0", "+0.5", "▼ +2.0"}
    figure.draw_without_rendering()


@pytest.mark.parametrize("times", [1, 1 / 3, 1 / 20, 1 / 60])
def test_the_labels_of_the_colours_are_what_they_stand_at(times):
    figure = scorecard_figure(card(("crps",)).assign(relative=lambda one: one.relative * times))
    figure.draw_without_rendering()
    bar = figure.axes[-1]
    told = [float(label.get_text().replace("−", "-")) for label in bar.get_yticklabels()]
    np.testing.assert_allclose(told, bar.get_yticks(), atol=1e-9)
    assert len(told) > 3


def test_nothing_to_draw_is_refused():
    with pytest.raises(DataError, match="without rows"):
        scorecard_figure(card().iloc[:0])
