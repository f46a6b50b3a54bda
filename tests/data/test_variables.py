from __future__ import annotations

import csv

import numpy as np
import pytest

from aeris.data.variables import (
    LEVELS,
    PRESSURE,
    SEA,
    SEA_ICE_POINT,
    STATIC,
    SURFACE,
    VARIABLES,
    WIND_PAIRS,
    channel_weights,
    parse_channel,
    state_channels,
)
from aeris.errors import DataError


def test_the_channels_of_aeris():
    """arXiv 2509.13523: 70 predicted channels at 24 h, 69 at 6 h, surface first, then five variables on thirteen levels."""
    day, six_hours = state_channels(sea=True), state_channels(sea=False)
    assert (len(day), len(six_hours)) == (70, 69) and day[:-1] == six_hours and day[-1] == SEA
    assert day[:6] == (
        "2m_temperature",
        "10m_u_component_of_wind",
        "10m_v_component_of_wind",
        "mean_sea_level_pressure",
        "geopotential_50",
        "geopotential_100",
    )
    assert day[16:18] == ("geopotential_1000", "u_component_of_wind_50") and day[68] == "specific_humidity_1000"
    assert len(set(day)) == 70


def test_the_loss_weights_of_aeris():
    """1 for 2 m temperature, 0.1 for other surface fields, pressure over its sum on levels, all over 6.4 (6.3 without the sea)."""
    weights = dict(zip(state_channels(), channel_weights(state_channels()), strict=True))
    assert weights["2m_temperature"] == pytest.approx(1 / 6.4) == 0.15625
    for name in (*SURFACE[1:], SEA):
        assert weights[name] == pytest.approx(0.015625)
    for name in PRESSURE:
        on_levels = [weights[f"{name}_{level}"] for level in LEVELS]
        np.testing.assert_allclose(on_levels, np.array(LEVELS) / 6025 / 6.4)  # 6025 is the sum of the levels
        assert (round(on_levels[0], 4), round(on_levels[-1], 4)) == (0.0013, 0.0259)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert channel_weights(state_channels(sea=False))[0] == pytest.approx(1 / 6.3)


def test_weights_of_a_few_channels_share_their_variable():
    np.testing.assert_allclose(
        channel_weights(["geopotential_500", "temperature_850", "geopotential_1000"]), np.array([500 / 1500, 1, 1000 / 1500]) / 2
    )


def test_every_channel_name_is_read_back():
    for name in (*state_channels(), *STATIC, "toa_incident_solar_radiation"):
        assert parse_channel(name).name == name
    assert (parse_channel("u_component_of_wind_250").variable.short, parse_channel("u_component_of_wind_250").level) == ("u", 250)


@pytest.mark.parametrize(
    "name", ["z500", "geopotential", "geopotential_", "geopotential_0", "geopotential_5000", "2m_temperature_500", "geopotential_-5", ""]
)
def test_other_names_are_refused(name):
    with pytest.raises(DataError, match=r"Unknown channel.*'geopotential_500'"):
        parse_channel(name)


def test_the_registry_does_not_contradict_itself():
    names = [name for variable in VARIABLES.values() for name in {variable.name, variable.short, *variable.aliases}]
    assert len(names) == len(set(names)) and all(name == name.lower() for name in names)
    assert all(VARIABLES[name].pressure for name in PRESSURE) and not any(VARIABLES[name].pressure for name in (*SURFACE, SEA, *STATIC))
    assert {variable.kind for variable in VARIABLES.values()} == {"state", "forcing", "static"}
    assert all(variable.bounds[0] < variable.bounds[1] and variable.long_name for variable in VARIABLES.values())
    assert all(VARIABLES[u].units == VARIABLES[v].units == "m s**-1" for u, v in WIND_PAIRS)
    assert VARIABLES[SEA].bounds[0] < SEA_ICE_POINT


def test_era5_lies_within_the_bounds(shared_data):
    """Mean and deviation of ERA5 on thirteen levels; humidity is one-sided."""
    short = {variable.short: variable for variable in VARIABLES.values() if variable.pressure}
    with (shared_data / "physicsnemo" / "era5_13_levels_stats.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["variable"].lower() in short]
    assert len(rows) >= 4 * 13
    for row in rows:
        low, high = short[row["variable"].lower()].bounds
        mean, std = float(row["mean"]), float(row["std"])
        assert low < mean - 2 * std and mean + 3 * std < high, row
