"""Plumes, scores, spectra and rank histograms: what is drawn is what was computed."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from aeris.errors import ConfigurationError
from aeris.verification.coherence import coherence
from aeris.verification.consistency import consistency
from aeris.verification.kinetic_energy import mean_kinetic_energy
from aeris.views.calibration import rank_figure
from aeris.views.consistency import consistency_figure
from aeris.views.plumes import plume_figure
from aeris.views.scores import score_figure
from aeris.views.spectra import coherence_figure, kinetic_energy_figure, spectra_figure
from aeris.views.style import SYSTEMS, system_styles

LEAD = "prediction_timedelta"


def lines(ax) -> dict[str, np.ndarray]:
    return {line.get_label(): np.column_stack(line.get_data()) for line in ax.get_lines() if not line.get_label().startswith("_")}


def test_a_plume_holds_members_mean_and_truth(forecast):
    figure = plume_figure(forecast.forecast, forecast.truth, "geopotential", (40.0, 100.0), level=500, optimum=forecast.optimum)
    ax = figure.axes[0]
    drawn = lines(ax)
    cell = {"latitude": 40.0, "longitude": 100.0}
    members = forecast.forecast["geopotential"].isel(time=0).sel(level=500).sel(**cell, method="nearest")
    start = forecast.forecast.time.values[0]
    truth = (
        forecast.truth["geopotential"].sel(level=500).sel(**cell, method="nearest").sel(time=start + np.array([0, 6, 24], "timedelta64[h]"))
    )
    np.testing.assert_allclose(drawn["truth"], np.column_stack([[0, 6, 24], truth]))
    np.testing.assert_allclose(drawn["forecast: mean of 3 members"][1:, 1], members.mean("number"), rtol=1e-6)
    assert "optimum: mean of 4 members" in drawn
    assert len(ax.get_lines()) == 3 + 1 + 4 + 1 + 1
    assert ax.get_xlabel() == "lead (h)" and "m² s⁻²" in ax.get_ylabel() and "500 hPa" in ax.get_title()


def test_a_plume_finds_its_cell_across_the_end_of_the_circle(forecast):
    step = 360 / 32
    drawn = lines(plume_figure(forecast.forecast, forecast.truth, "2m_temperature", (0.0, 360 - 0.4 * step)).axes[0])
    cell = forecast.truth["2m_temperature"].sel(latitude=0.0, method="nearest").isel(longitude=0)
    assert drawn["truth"][0, 1] == cell.sel(time=forecast.forecast.time[0])


def test_a_plume_goes_on_where_the_truth_ends(forecast):
    start = forecast.forecast.time.values[0]
    short = forecast.truth.sel(time=slice(start, start + np.timedelta64(12, "h")))
    drawn = lines(plume_figure(forecast.forecast, short, "2m_temperature", (0.0, 0.0)).axes[0])
    assert drawn["truth"][:, 0].tolist() == [0, 6] and len(drawn["forecast: mean of 3 members"]) == 3


def test_scores_are_drawn_with_their_baselines(forecast):
    ax = score_figure(forecast.scores, "crps", "geopotential", 500).axes[0]
    drawn = lines(ax)
    assert list(drawn) == ["forecast", "persistence", "optimum"]
    for system, line in drawn.items():
        np.testing.assert_allclose(line, np.column_stack([[6, 24], forecast.scores["crps.geopotential"].sel(system=system, level=500)]))
    assert ax.get_ylim()[0] == 0 and "m² s⁻²" in ax.get_ylabel()


def test_a_system_without_spread_is_left_out(forecast):
    assert list(lines(score_figure(forecast.scores, "spread_skill", "2m_temperature").axes[0])) == ["forecast", "optimum"]


@pytest.mark.parametrize("score", ["rmse", "rmse_member", "mae", "bias", "spread"])
def test_every_score_can_be_drawn(forecast, score):
    ax = score_figure(forecast.scores, score, "2m_temperature").axes[0]
    assert "(K)" in ax.get_ylabel() and "temperature at 2 m" in ax.get_title()
    low, high = ax.get_ylim()
    assert all((line[:, 1] >= low).all() and (line[:, 1] <= high).all() for line in lines(ax).values())


def test_systems_differ_in_colour_line_and_marker():
    styles = system_styles([*SYSTEMS, "ifs", "gencast"])
    assert len({to_hex(style["color"]) for style in styles.values()}) == 6
    for key in ("linestyle", "marker"):
        assert len({style[key] for style in SYSTEMS.values()}) == len(SYSTEMS)


def test_spectra_are_drawn_against_the_truth(forecast):
    upper, lower = spectra_figure(forecast.spectra, "2m_temperature").axes
    assert upper.get_xscale() == upper.get_yscale() == "log"
    assert list(lines(upper)) == ["truth", "forecast, 6 h", "forecast, 24 h"]
    power = forecast.spectra["2m_temperature"].isel({LEAD: 1}).sel(degree=slice(1, None))
    np.testing.assert_allclose(lines(upper)["forecast, 24 h"][:, 1], power.sel(system="forecast"))
    np.testing.assert_allclose(lower.get_lines()[1].get_ydata(), power.sel(system="forecast") / power.sel(system="truth"))
    assert "K²" in upper.get_ylabel()
    assert lower.get_ylim()[0] <= 0.5 and lower.get_ylim()[1] >= 2


def test_rank_histograms_are_drawn_beside_the_flat_one(forecast):
    ax = rank_figure(forecast.ranks, "geopotential", 850).axes[0]
    steps = {patch.get_label(): patch.get_data().values for patch in ax.patches}
    np.testing.assert_allclose(steps["24 h"], forecast.ranks["geopotential"].sel(level=850).isel({LEAD: 1}))
    assert lines(ax)["perfect ensemble"][0, 1] == pytest.approx(1 / 4)


def test_kinetic_energy_is_drawn_in_its_parts(forecast):
    energies = mean_kinetic_energy(forecast.forecast, forecast.truth)
    upper, lower = kinetic_energy_figure(energies, 500).axes
    assert upper.get_xscale() == upper.get_yscale() == "log"
    assert list(lines(upper)) == ["truth", "forecast, 6 h", "forecast, 24 h", "rotational", "divergent"]
    energy = energies["kinetic_energy"].sel(level=500, part="rotational", degree=slice(1, None)).isel({LEAD: 1})
    np.testing.assert_allclose(lines(upper)["forecast, 24 h"][:, 1], energy.sel(system="forecast"))
    ratio = (energy.sel(system="forecast") / energy.sel(system="truth")).values
    drawn = lower.get_lines()[1].get_ydata()
    np.testing.assert_allclose(drawn[:13], ratio[:13])
    assert "m² s⁻²" in upper.get_ylabel() and "500 hPa" in upper.get_title()
    assert "10 m" in kinetic_energy_figure(energies).axes[0].get_title()


def test_a_wind_without_divergence_has_no_ratio_of_it(forecast):
    """The planet's wind turns alone; what rounding leaves of its divergent part is not drawn."""
    upper, lower = kinetic_energy_figure(mean_kinetic_energy(forecast.forecast, forecast.truth), 250).axes
    dashed = [line for line in lower.get_lines() if line.get_linestyle() == "--"]
    assert len(dashed) == 2 and all(np.isnan(line.get_ydata()).all() for line in dashed)
    assert upper.get_ylim()[0] > 1e-7


def test_coherence_is_drawn_for_members_and_mean(forecast):
    found = coherence(forecast.forecast, forecast.truth)
    ax = coherence_figure(found, "geopotential", 500).axes[0]
    assert list(lines(ax)) == ["6 h", "24 h", "ensemble mean", "members"]
    expected = found["geopotential"].sel(level=500, system="mean", degree=slice(1, None)).isel({LEAD: 0})
    np.testing.assert_allclose(lines(ax)["6 h"][:, 1], expected)
    assert ax.get_ylim()[1] == pytest.approx(1.02)


def test_consistency_is_drawn_beside_the_truth(forecast):
    found = consistency(forecast.forecast, forecast.truth)
    axes = consistency_figure(found).axes
    assert len(axes) == 6
    drawn = lines(axes[0])
    assert list(drawn) == ["250-500 hPa", "500-850 hPa", "truth"]
    np.testing.assert_allclose(drawn["500-850 hPa"][:, 1], found["hydrostatic_residual"].sel(system="forecast", layer="500-850"))
    assert axes[0].get_ylabel() == "K" and axes[0].get_ylim()[0] == 0
    (one,) = consistency_figure(found, ["total_energy"]).axes
    for system in ("forecast", "truth"):
        np.testing.assert_allclose(lines(one)[system], np.column_stack([[6, 24], found["total_energy"].sel(system=system)]))
    assert one.get_ylabel() == "J m⁻²"


def test_what_is_kept_is_drawn_as_a_line(forecast):
    """The planet's mean sea level pressure changes by rounding alone."""
    ax = consistency_figure(consistency(forecast.forecast, forecast.truth, ["sea_level_pressure"])).axes[0]
    low, high = ax.get_ylim()
    assert high - low > 5


def test_an_unknown_diagnostic_is_named(forecast):
    found = consistency(forecast.forecast, forecast.truth, ["kinetic_energy"])
    with pytest.raises(ConfigurationError, match=r"drift.*kinetic_energy"):
        consistency_figure(found, ["drift.kinetic_energy"])
