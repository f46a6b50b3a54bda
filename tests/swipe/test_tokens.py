"""Shares of tokens, and the way of quadrants when windows shift, simulated without processes."""

from __future__ import annotations

import pytest
import torch

from aeris.data.store import Store
from aeris.model.quadrants import shift, to_tokens, unshift
from aeris.swipe import Layout, join, share
from aeris.swipe.exchange import held_quadrants, route
from aeris.swipe.tokens import shares

LAYOUTS = [Layout(wp=wp, sp=sp) for wp in ((1, 1), (1, 2), (2, 1), (2, 2), (4, 2)) for sp in (1, 2, 4, 8, 16)]


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    """Every token of a 16×32 field of 4×4 windows, numbered by its pixel: ``(B, R, K, Q, P, C)``."""
    pixels = torch.arange(2 * 16 * 32, dtype=torch.float64).view(2, 1, 16, 32)
    return to_tokens(pixels, (4, 4))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_token_lives_on_one_rank_and_shares_join_to_the_whole(tokens, layout):
    parts = [part.cut(tokens, first=1) for part in shares(layout)]
    assert len({part.shape for part in parts}) == 1
    numbers = torch.cat([part.flatten() for part in parts])
    assert sorted(numbers.tolist()) == sorted(tokens.flatten().tolist())
    assert torch.equal(join(parts, layout, first=1), tokens)


def test_quadrants_and_their_parts_lie_where_the_paper_draws_them():
    """SP = 8 on a 4×4 window: ranks 0 and 1 share the top left quadrant, 6 and 7 the bottom right one; windows go round in turn."""
    pixels = torch.arange(16 * 32).view(1, 1, 16, 32)
    layout = Layout(wp=(2, 2), sp=8)
    held = [share(layout, layout.coordinates(rank)).cut(to_tokens(pixels, (4, 4)), first=1) for rank in (0, 1, 7, 8)]
    assert held[0][0, 0, 0].flatten().tolist() == [0, 1]
    assert held[1][0, 0, 0].flatten().tolist() == [32, 33]
    assert held[2][0, 0, 0].flatten().tolist() == [98, 99]
    assert held[3][0, 0, 0].flatten().tolist() == [4, 5]  # the window to the right belongs to the next window rank
    assert held[0][0, 1, 1].flatten().tolist() == [8 * 32 + 8, 8 * 32 + 9]  # and every second one again to the first


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_sending_quadrants_along_their_routes_is_the_shift(tokens, layout, back):
    """What every rank holds afterwards equals its share of the shifted field, bit for bit."""
    ranks = layout.ranks(dp=0, pp=0)
    before = {rank: share(layout, layout.coordinates(rank)).cut(tokens, first=1) for rank in ranks}
    after = {rank: torch.full_like(part, torch.nan) for rank, part in before.items()}
    for rank, part in before.items():
        at = layout.coordinates(rank)
        for place, quadrant in enumerate(held_quadrants(layout, at)):
            way = route(layout, at, quadrant, back)
            there = held_quadrants(layout, way.at)
            after[layout.rank(way.at)][:, :, :, way.quadrant - there[0]] = part[:, :, :, place].roll(way.roll, (1, 2))
    expected = unshift(tokens) if back else shift(tokens)
    assert torch.equal(join([after[rank] for rank in ranks], layout, first=1), expected)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_route_leads_back(layout):
    for rank in layout.ranks(dp=0, pp=0):
        at = layout.coordinates(rank)
        for quadrant in held_quadrants(layout, at):
            there = route(layout, at, quadrant)
            back = route(layout, there.at, there.quadrant, back=True)
            assert (back.at, back.quadrant) == (at, quadrant)
            assert [one + two for one, two in zip(there.roll, back.roll, strict=True)] == [0, 0]


@pytest.mark.parametrize("wp", [(1, 2), (2, 1), (2, 4)])
def test_a_rank_reads_its_own_windows_and_no_other_bytes(small_store: Store, monkeypatch, wp):
    from aeris.data import shards

    layout, read, touched = Layout(wp=wp), shards._read, []
    monkeypatch.setattr(shards, "_read", lambda path, file, offset, length: touched.append(length) or read(path, file, offset, length))
    whole = to_tokens(torch.from_numpy(small_store.read(3))[None], (4, 4))
    read_whole = sum(touched)
    for rank in layout.ranks():
        part = share(layout, layout.coordinates(rank))
        touched.clear()
        windows = torch.from_numpy(small_store.read_windows(3, (4, 4), part.rows, part.columns))[None]
        assert torch.equal(part.cut_window(to_tokens(windows, (4, 4)), first=1), part.cut(whole, first=1))
        states = 5 * 16 * 32 * 4
        index = read_whole - states
        count = (4 // wp[0]) * (8 // wp[1])
        assert sum(touched) <= states // layout.token_ranks + count * index
