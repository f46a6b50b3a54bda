"""Random-interval training: each image has a length of step of its own, and is measured by that length's statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_trainer import MODEL, RECIPE, run_of

from aeris.diffusion import trigflow
from aeris.errors import ConfigurationError
from aeris.model.presets import Crps, SamplingRecipe, distillation
from aeris.model.quadrants import to_pixels
from aeris.training.batches import Reader
from aeris.training.checkpoint import Checkpoint
from aeris.training.configuration import configure
from aeris.training.trainer import Trainer

SEVERAL = replace(MODEL, intervals=(6, 12, 24))
ROLLOUTS = replace(RECIPE, objective=Crps(curriculum=(0, 2)))
TWO_CALLS = SamplingRecipe(steps=2, noise=(1.0, 200.0))


def trainer_of(store, recipe=RECIPE, sampling=None, batch: int = 8, model=SEVERAL) -> Trainer:
    return Trainer(configure(model, store, 6, batch, batch, None, "float64", 0, recipe, sampling or SamplingRecipe()), store)


def hours(batch) -> list[int]:
    return (batch.lengths / np.timedelta64(1, "h")).astype(int).tolist()


def test_lengths_are_drawn_evenly_and_name_the_target(intervals_store):
    trainer = trainer_of(intervals_store)
    blind = Reader(intervals_store, trainer.configuration, trainer.groups, needed=False)
    drawn = [length for seen in range(0, 480, 8) for length in hours(blind.read(seen))]
    counts = [drawn.count(length) for length in (6, 12, 24)]
    assert sum(counts) == 480 and all(abs(count - 160) < 4 * (480 * 2 / 9) ** 0.5 for count in counts)
    batch, later = trainer.reader.read(16), {time: index for index, time in enumerate(intervals_store.times)}
    assert hours(batch) == drawn[16:24] and len(set(hours(batch))) > 1
    for image, length in enumerate(hours(batch)):
        target = intervals_store.read(later[batch.times[image] + np.timedelta64(length, "h")])
        np.testing.assert_array_equal(batch.target[image], target)


def test_residuals_are_standardised_by_their_own_length(intervals_store):
    """In numpy from the store itself, whose statistics are held elsewhere."""
    trainer = trainer_of(intervals_store)
    batch = trainer.reader.read(0)
    assert len(set(hours(batch))) == 3
    (noisy, _), velocity, given = trainer.objective.draw(batch, slice(0, 8))
    t = trigflow.expand(given["t_B"], noisy)
    residual = to_pixels(t.cos() * noisy - t.sin() * velocity, MODEL.window).numpy()
    of = [intervals_store.statistics.residual(np.timedelta64(length, "h")) for length in hours(batch)]
    mean, std = (np.array(rows)[:, :, None, None] for rows in zip(*of, strict=True))
    change = batch.target.numpy().astype(np.float64) - batch.state.numpy()
    np.testing.assert_allclose(residual[:, :-1], ((change - mean) / std)[:, :-1], atol=1e-6)
    assert given["interval_B"].tolist() == hours(batch)


def test_a_step_and_its_residual_are_inverse(intervals_store):
    trainer = trainer_of(intervals_store)
    batch, fields = trainer.reader.read(0), trainer.fields
    state, target = (fields.tokens(pixels.double()) for pixels in (batch.state, batch.target))
    residual = fields.residual(state, target, batch.lengths)
    for image, length in enumerate(batch.lengths):
        torch.testing.assert_close(fields.next_state(state[image], residual[image], length), target[image], rtol=1e-12, atol=1e-5)


def test_the_length_is_learned(intervals_store, tmp_path):
    run = run_of(intervals_store, tmp_path / "run", model=SEVERAL)
    network = trainer_of(intervals_store).network
    assert not network.interval.weight.any()
    trainer = trainer_of(intervals_store)
    trainer.begin(Checkpoint.open(run.path))
    assert trainer.network.interval.weight.abs().min() > 0


def test_a_network_of_one_length_is_where_it_may_begin(intervals_store, small_store, tmp_path):
    """The stores have the same states. All lengths begin as the one that is known, and part from it as they are trained."""
    one = run_of(small_store, tmp_path / "one")
    run_of(intervals_store, tmp_path / "several", model=SEVERAL, start=one, steps=1)
    begun, trainer = trainer_of(intervals_store), trainer_of(small_store, model=MODEL)
    for some in (begun, trainer):
        some.begin(Checkpoint.open(one.path))
    (noisy, condition), _, given = begun.objective.draw(begun.reader.read(0), slice(0, 8))
    assert torch.equal(begun.network(noisy, condition, **given), trainer.network(noisy, condition, given["t_B"]))
    several = Checkpoint.open(tmp_path / "several").tensors("weights")
    known = Checkpoint.open(one.path).tensors("average")
    assert set(several) - set(known) == {"interval.weight"}
    assert all((several[name] - known[name]).abs().max() < 1e-3 for name in known)  # one step, at the start of the warm-up


def test_nobody_teaches_lengths_that_he_does_not_know(intervals_store, small_store, tmp_path):
    one = run_of(small_store, tmp_path / "one", steps=1)
    with pytest.raises(ConfigurationError, match=r"model has intervals=\(6, 12, 24\), its teacher \(\)"):
        run_of(intervals_store, tmp_path / "run", model=SEVERAL, start=one, recipe=distillation(), steps=1)
    with pytest.raises(ConfigurationError, match="has a network of intervals="):
        several = run_of(intervals_store, tmp_path / "several", model=SEVERAL, steps=1)
        run_of(intervals_store, tmp_path / "back", start=several, steps=1)


def test_a_rollout_takes_one_length_for_all_its_steps(intervals_store):
    """And its loss, in numpy, is measured by the deviation of that length."""
    trainer = trainer_of(intervals_store, ROLLOUTS, TWO_CALLS, batch=2)
    with torch.no_grad():
        trainer.network.interval.weight.fill_(0.3)
        torch.nn.init.normal_(trainer.network.head.project.weight, std=0.1)
    batches = [trainer.reader.read(seen) for seen in range(0, 32, 2)]
    assert {tuple(hours(batch)) for batch in batches} == {(6, 6), (12, 12), (24, 24)}
    batch = next(batch for batch in batches if hours(batch) == [24, 24])
    assert (batch.target_times - batch.times == np.timedelta64(48, "h")).all()
    objective, network = trainer.objective, trainer.network
    loss = float(objective.step(batch))
    members = []
    for member in range(2):
        state = trainer.fields.tokens(batch.state.double())
        for lead in (1, 2):
            asked = objective.requests(batch, (slice(0, 2), member), lead, state)
            x, condition = next(asked)
            for number, t_B in enumerate(objective.angles):
                velocity = network(x, condition, t_B, torch.full((2,), 24.0, dtype=torch.float64))
                try:
                    x, condition = asked.send(velocity)
                except StopIteration as end:
                    assert number == len(objective.angles) - 1
                    state = end.value
        members.append(state.detach().numpy())
    truth, (x, y) = trainer.fields.tokens(batch.target.double()).numpy(), members
    crps = (np.abs(x - truth) + np.abs(y - truth) - np.abs(x - y)) / 2 / intervals_store.statistics.further[24].std
    weight = trainer.fields.loss_weight("uniform").numpy()
    assert loss == pytest.approx((weight * crps).sum() / (2 * 16 * 32), rel=1e-9)


@pytest.mark.parametrize(
    ("intervals", "message"),
    [
        ((6, 18), r"knows no changes over 18 h.*intervals=\['18h'\]"),
        ((12, 24), r"intervals=\(12, 24\), and the store steps of 6 h.*interval='12h', intervals=\['24h'\]"),
    ],
)
def test_a_store_that_does_not_know_the_lengths_is_refused(intervals_store, intervals, message):
    with pytest.raises(ConfigurationError, match=message):
        trainer_of(intervals_store, model=replace(MODEL, intervals=intervals))


def test_a_store_of_one_length_is_refused(small_store):
    with pytest.raises(ConfigurationError, match=r"knows no changes over 12 h, 24 h.*aeris.prepare\(ds, path, interval='6h', intervals="):
        trainer_of(small_store)


def test_a_period_too_short_for_the_longest_step_is_refused(intervals_store):
    with pytest.raises(ConfigurationError, match="no two times 24 h apart"):
        configure(SEVERAL, intervals_store, 6, 8, 8, slice("2001-01-01", "2001-01-01"), "float64", 0, RECIPE, SamplingRecipe())
