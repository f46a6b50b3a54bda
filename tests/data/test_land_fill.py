"""Sea surface temperature over land: one constant where the sea's mask is known, the smallest value of the field where it is not."""

from __future__ import annotations

import numpy as np

from aeris.data.states import fill_land
from aeris.data.variables import SEA, SEA_ICE_POINT

CHANNELS = ("2m_temperature", SEA)


def states() -> np.ndarray:
    """Two times; the last column is land."""
    found = 280 + np.random.default_rng(0).uniform(0, 10, (2, 2, 3, 4)).astype(np.float32)
    found[:, 1, :, -1] = np.nan
    return found


def test_land_becomes_the_freezing_point_where_the_mask_is_known():
    sea = np.ones((3, 4), bool)
    sea[:, -1] = False
    filled = fill_land(states(), CHANNELS, sea)
    assert (filled[:, 1, :, -1] == np.float32(SEA_ICE_POINT)).all()
    np.testing.assert_array_equal(filled[:, 1, :, :-1], states()[:, 1, :, :-1])


def test_without_a_mask_it_becomes_the_smallest_value_of_each_time():
    filled = fill_land(states(), CHANNELS, None)
    for before, after in zip(states(), filled, strict=True):
        assert (after[1, :, -1] == np.nanmin(before[1])).all()
        np.testing.assert_array_equal(after[0], before[0])


def test_a_state_without_the_channel_stays_as_it_is():
    missing = states()[:, 1:]
    np.testing.assert_array_equal(fill_land(missing.copy(), ("2m_temperature",), None), missing)
