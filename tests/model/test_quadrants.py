"""Quadrant order against the textbook way: rolling and cutting the field."""

from __future__ import annotations

import pytest
import torch

from aeris.model.quadrants import pixel_ids, shift, to_pixels, to_tokens, unshift

SHAPES = [((24, 48), (8, 8)), ((12, 24), (4, 6)), ((8, 8), (8, 8))]


@pytest.mark.parametrize(("grid", "window"), SHAPES)
def test_round_trip_is_exact(grid, window):
    field = torch.randn(2, 3, *grid)
    assert torch.equal(to_pixels(to_tokens(field, window), window), field)


@pytest.mark.parametrize(("grid", "window"), SHAPES)
def test_shift_equals_rolling_the_field_by_half_a_window(grid, window):
    field = torch.randn(2, 3, *grid)
    rolled = torch.roll(field, (-(window[0] // 2), -(window[1] // 2)), dims=(2, 3))
    assert torch.equal(shift(to_tokens(field, window)), to_tokens(rolled, window))


@pytest.mark.parametrize(("grid", "window"), SHAPES)
def test_unshift_undoes_shift(grid, window):
    tokens = to_tokens(torch.randn(1, 2, *grid), window)
    assert torch.equal(unshift(shift(tokens)), tokens)
    assert torch.equal(shift(unshift(tokens)), tokens)


def test_tokens_of_a_window_are_its_quadrants_row_by_row():
    ids = pixel_ids((4, 8), (4, 4))
    assert ids.shape == (1, 2, 4, 4)
    assert ids[0, 0].tolist() == [[0, 1, 8, 9], [2, 3, 10, 11], [16, 17, 24, 25], [18, 19, 26, 27]]
    assert ids[0, 1, 0].tolist() == [4, 5, 12, 13]
