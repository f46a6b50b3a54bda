"""Invariant 2: noise is a function. Bitwise independence of order and layout, and normality."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from aeris.diffusion.noise import integers, key, normals, spread_evenly
from aeris.model.quadrants import pixel_ids, to_pixels


def test_integers_are_philox():
    """Against the published known-answer vectors of Philox4x32-10 (Random123, kat_vectors)."""
    zero = integers([(0, 0)], torch.zeros(2, 1, dtype=torch.int64))[:, 0, 0]
    assert [f"{int(word):08x}" for word in zero] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


def test_integers_equal_numpys_philox():
    """numpy ships the 64-bit Philox; an independent plain-integer Philox4x32-10 stands in for the 32-bit one."""

    def philox(counter, words):
        for _ in range(10):
            first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
            counter = (second >> 32 ^ counter[1] ^ words[0], second & 0xFFFFFFFF, first >> 32 ^ counter[3] ^ words[1], first & 0xFFFFFFFF)
            words = ((words[0] + 0x9E3779B9) & 0xFFFFFFFF, (words[1] + 0xBB67AE85) & 0xFFFFFFFF)
        return counter

    keys = [key(7, "test", 1), key(7, "test", 2)]
    counters = torch.tensor([[0, 5, 2**32 - 1], [3, 0, 9]])
    drawn = integers(keys, counters)
    for sample, place in itertools.product(range(2), range(3)):
        expected = philox((int(counters[0, place]), int(counters[1, place]), 0, 0), keys[sample])
        assert tuple(drawn[:, sample, place].tolist()) == expected


def test_invariant_2_noise_does_not_depend_on_order_or_layout():
    grid, window, channels = (16, 24), (4, 6), 7
    keys = [key(0, "sampling", lead, 12, member) for lead in (1, 2) for member in (0, 1)]
    whole = normals(keys, torch.arange(grid[0] * grid[1]), channels).movedim(-1, 1).unflatten(-1, grid)
    ids = pixel_ids(grid, window)
    assert torch.equal(to_pixels(normals(keys, ids, channels), window), whole)
    for row, column, quadrant in itertools.product(range(4), range(4), range(4)):
        part = normals(keys[2:3], ids[row, column, quadrant], channels)
        assert torch.equal(part, normals(keys, ids, channels)[2:3, row, column, quadrant])


def test_more_channels_leave_the_first_ones_alone():
    pixels = torch.arange(50)
    assert torch.equal(normals([key(0, "a")], pixels, 9)[..., :5], normals([key(0, "a")], pixels, 5))


@pytest.mark.parametrize("other", [key(1, "a", 1, 2), key(0, "b", 1, 2), key(0, "a", 2, 1), key(0, "a", 12), key(0, "a", 1, 3)])
def test_each_part_of_the_name_changes_the_noise(other):
    pixels = torch.arange(4000)
    one, two = normals([key(0, "a", 1, 2), other], pixels, 4)
    assert abs(float(torch.corrcoef(torch.stack([one.flatten(), two.flatten()]))[0, 1])) < 0.03


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_are_normal_and_uncorrelated(dtype):
    drawn = normals([key(3, "normality", sample) for sample in range(4)], torch.arange(8192), 8, dtype)
    assert stats.kstest(drawn.flatten().double().numpy(), "norm").pvalue > 1e-3
    assert bool(torch.isfinite(drawn).all())
    channels = np.corrcoef(drawn.flatten(0, 1).T.numpy())
    assert np.abs(channels - np.eye(8)).max() < 5 / np.sqrt(drawn.shape[0] * drawn.shape[1])
    neighbours = (drawn[:, 1:] * drawn[:, :-1]).mean()
    assert abs(float(neighbours)) < 5 / np.sqrt(drawn[:, 1:].numel())


def test_squares_of_neighbouring_channels_are_uncorrelated():
    """A wrong Box-Muller pairing would share the radius between channels."""
    squares = normals([key(5, "pairs")], torch.arange(40_000), 4, torch.float64)[0].square().T
    assert (torch.corrcoef(squares) - torch.eye(4)).abs().max() < 0.03


def test_terms_of_the_even_sequence_fill_the_interval_evenly():
    drawn = np.array([spread_evenly(key(0, "angle"), number) for number in range(2000)])
    assert stats.kstest(drawn, "uniform").statistic < 2e-3
    for start in (0, 137, 1990):
        assert np.histogram(drawn[start : start + 8], bins=4, range=(0, 1))[0].min() >= 1


def test_starts_of_even_sequences_are_uniform():
    assert stats.kstest([spread_evenly(key(seed, "angle"), 0) for seed in range(500)], "uniform").pvalue > 1e-3
