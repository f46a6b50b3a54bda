"""Steps of several lengths: the fewest there can be, from states that are there, and a forecast that takes them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr
from test_ensemble import MODEL, SAMPLING, asking, same, trained

from aeris.diffusion import noise
from aeris.errors import ConfigurationError, StoreError
from aeris.forecasting.archive import Archive
from aeris.forecasting.course import Move, course, even, fewest, needed
from aeris.forecasting.rollout import Ensemble, Forecaster, rollout
from aeris.model.quadrants import to_pixels
from aeris.training.checkpoint import Checkpoint

SEVERAL = replace(MODEL, intervals=(6, 12, 24))


def breadth_first(last: int, spans: tuple[int, ...]) -> dict[int, int]:
    """Steps to every lead on a shortest way, by trying all."""
    steps, queue = {0: 0}, deque([0])
    while queue:
        lead = queue.popleft()
        for span in spans:
            if lead + span <= last and lead + span not in steps:
                steps[lead + span] = steps[lead] + 1
                queue.append(lead + span)
    return steps


@pytest.mark.parametrize("spans", [(1,), (1, 2, 4), (1, 3, 4), (1, 2, 4, 24), (1, 5, 7, 8)], ids=str)
def test_no_way_to_a_lead_is_shorter(spans):
    moves, shortest = fewest(60, spans), breadth_first(60, spans)
    assert [move.end for move in moves] == list(range(1, 61)) and {move.span for move in moves} <= set(spans)
    before = {move.end: move.begin for move in moves}
    for lead in range(1, 61):
        way = [lead]
        while way[-1]:
            way.append(before[way[-1]])
        assert len(way) - 1 == shortest[lead]


def test_long_steps_come_first():
    assert [move.begin for move in fewest(12, (1, 2, 4))] == [0, 0, 2, 0, 4, 4, 6, 4, 8, 8, 10, 8]


def test_what_later_steps_begin_from_is_kept():
    moves = fewest(8, (1, 2, 4))
    assert [needed(moves, done) for done in range(9)] == [{0}, {0}, {0, 2}, {0}, {4}, {4}, {4, 6}, {4}, set()]
    assert [needed(even(3, 4), done) for done in range(4)] == [{0}, {4}, {8}, set()]


@pytest.fixture(scope="module")
def run(intervals_store, tmp_path_factory):
    return trained(intervals_store, tmp_path_factory.mktemp("runs") / "run", SEVERAL)


@pytest.fixture
def ask(run, small_world, tmp_path):
    return asking(run, small_world, tmp_path, "48h")


def hours(fc) -> list[float]:
    return (fc.prediction_timedelta.values / np.timedelta64(1, "h")).tolist()


def test_leads_end_where_they_are_asked_to(run, small_store, tmp_path):
    checkpoint = Checkpoint.open(run.path)
    assert course(checkpoint, "2d") == course(checkpoint, "48h", "6h") == even(8)
    assert course(checkpoint, "2d", "24h") == [Move(0, 4), Move(4, 8)]
    one = replace(checkpoint, model=MODEL)
    assert course(one, "2d", "fewest") == course(one, "2d", "6h") == even(8)


def test_steps_of_a_day_have_leads_of_days(ask):
    assert hours(ask(step="24h")) == [24, 48]


def test_where_the_ways_to_a_lead_are_the_same_so_are_the_bits(ask):
    """The first step of a day is one step in both; the first six hours are the small step's; after a day both go on from there."""
    few, day, small = ask(step="fewest"), ask("day.zarr", step="24h"), ask("small.zarr")
    assert hours(few) == hours(small) == [6.0 * number for number in range(1, 9)]
    assert same(few.isel(prediction_timedelta=[3, 7]), day) and same(
        few.isel(prediction_timedelta=[0]), small.isel(prediction_timedelta=[0])
    )
    assert not same(few.isel(prediction_timedelta=[1]), small.isel(prediction_timedelta=[1]))
    assert same(small, ask("named.zarr", step="6h"))


def test_a_longer_step_is_scaled_by_its_own_change_and_told_its_length(run, intervals_store):
    """Zero velocity leaves the noise as it was but for the last denoising, as for a small step; the network hears 24 hours."""
    forecaster, heard = Forecaster(run.newest, SAMPLING, "float64"), []
    context = forecaster.network.context
    forecaster.network.context = lambda **given: (heard.append(given["interval_B"].tolist()), context(**given))[1]
    condition, lit = forecaster.fields.condition, []
    forecaster.fields.condition = lambda state, *times: (lit.append(times), condition(state, *times))[1]
    with torch.no_grad():
        forecaster.network.head.project.weight.zero_()
    statistics, start = intervals_store.statistics.further[24], np.datetime64("2001-01-01T12", "ns")
    states = torch.from_numpy(np.stack([intervals_store.read(2)] * 2).astype(np.float64))
    ensemble = Ensemble(start, [0, 5], {4: forecaster.fields.tokens(states)})
    forecaster.step([ensemble], [Move(4, 8)], 9)
    keys = [noise.key(9, "sampling noise", 8, 978350400, member) for member in (0, 5)]
    z = to_pixels(noise.normals(keys, forecaster.fields.ids, 5, torch.float64), MODEL.window).numpy()
    expected = states.numpy() + math.cos(math.atan(SAMPLING.noise[0])) * statistics.std[:, None, None] * z + statistics.mean[:, None, None]
    expected[:, -1] = np.where(intervals_store.sea_mask, expected[:, -1], 271.35)
    np.testing.assert_allclose(to_pixels(ensemble.newest, MODEL.window).numpy(), expected, rtol=1e-6)
    assert heard and all(told == [24.0, 24.0] for told in heard)
    day = np.timedelta64(24, "h")
    np.testing.assert_array_equal(lit, [([start + day] * 2, [start + 2 * day] * 2)])


@pytest.mark.parametrize("after", [3, 6, 9, 13])
def test_invariant_5_a_forecast_in_fewest_steps_goes_on_where_it_stopped(ask, monkeypatch, after):
    whole, write, calls = ask(step="fewest", members=2), Archive.write, []

    def fail(self, *where):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(where[:3])
        write(self, *where)

    monkeypatch.setattr(Archive, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        ask("broken.zarr", step="fewest", members=2)
    monkeypatch.undo()
    assert same(ask("broken.zarr", step="fewest", members=2), whole)


def test_ensembles_at_different_leads_go_together(run, intervals_store):
    """Each ends where it would alone; no more states are held than later steps need."""
    forecaster, moves = Forecaster(run.newest, SAMPLING, "float32"), fewest(8, (1, 2, 4))
    start, tokens = intervals_store.times[3], forecaster.fields.tokens(torch.from_numpy(intervals_store.read(3))[None])

    def reached(ensembles) -> dict[tuple[int, int], torch.Tensor]:
        found = {}
        for ensemble in rollout(forecaster, ensembles, moves, seed=0):
            found[ensemble.members[0], ensemble.moves] = ensemble.newest
            assert len(ensemble.states) <= 3
        return found

    alone = reached([Ensemble(start, [0], {0: tokens})]) | reached([Ensemble(start, [1], {0: tokens})])
    further = Ensemble(start, [1], {0: tokens, 2: alone[1, 2]}, 3)
    together = reached([Ensemble(start, [0], {0: tokens}), further])
    assert set(together) == set(alone) - {(1, 1), (1, 2), (1, 3)}
    assert all(torch.equal(states, alone[place]) for place, states in together.items())


def test_what_the_network_cannot_do_is_refused_before_anything_is_written(ask, tmp_path):
    for changes, message in (
        ({"step": "18h"}, "takes steps of 6 h, 12 h, 24 h"),
        ({"step": "often"}, "step='often'"),
        ({"step": "24h", "lead": "36h"}, "multiple of the step, 1 days"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            ask(**changes)
    assert not (tmp_path / "forecast.zarr").exists()


def test_an_archive_goes_on_with_its_own_steps_alone(ask, tmp_path):
    ask(lead="12h")
    assert "step_hours" not in zarr.open_group(tmp_path / "forecast.zarr").attrs["forecast"]
    assert ask(lead="12h", step="6h").attrs["complete"] == 1.0
    with pytest.raises(StoreError, match="step_hours=None, not fewest"):
        ask(lead="12h", step="fewest")
    ask("few.zarr", lead="12h", step="fewest")
    ask("half.zarr", lead="12h", step="12h")
    assert zarr.open_group(tmp_path / "half.zarr").attrs["forecast"]["step_hours"] == 12.0
    with pytest.raises(StoreError, match="step_hours=fewest, not None"):
        ask("few.zarr", lead="12h")
