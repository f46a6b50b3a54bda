"""Fine-tuning through rollouts: the right forecast, the right gradient, the right windows, and a curriculum that a resume keeps."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from test_trainer import MODEL, run_of, same, weights

from aeris.data.harmonics import Sphere
from aeris.data.store import Store, prepare
from aeris.diffusion import noise
from aeris.errors import ConfigurationError, DataError
from aeris.forecasting.course import even
from aeris.forecasting.rollout import Ensemble, Forecaster, rollout
from aeris.model.presets import Crps, SamplingRecipe, TrainingRecipe
from aeris.model.quadrants import to_pixels
from aeris.swipe.stream import finish
from aeris.training.batches import Reader
from aeris.training.checkpoint import Checkpoint
from aeris.training.configuration import configure
from aeris.training.fine_tuning import CrpsTraining
from aeris.training.trainer import Trainer

SAMPLING = SamplingRecipe(steps=2, noise=(1.0, 200.0))
RECIPE = TrainingRecipe(warmup_images=8, objective=Crps(curriculum=(4, 8, 12)))


def trainer_of(
    store: Store,
    curriculum: tuple[int, ...] = (4, 8, 12),
    members: int = 2,
    sampling: SamplingRecipe = SAMPLING,
    spectrum: float = 0.0,
    gradient_steps: int | None = None,
) -> Trainer:
    recipe = replace(RECIPE, objective=Crps(members, curriculum, spectrum, gradient_steps))
    trainer = Trainer(configure(MODEL, store, 6, 2, 2, None, "float64", 0, recipe, sampling), store)
    with torch.no_grad():
        for number, parameter in enumerate(trainer.network.parameters()):
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number), dtype=parameter.dtype)
    return trainer


def batch_of(trainer: Trainer):
    with trainer.batches() as batches:
        return next(batches)


@pytest.fixture(scope="module")
def tuned(small_store, tmp_path_factory):
    """A run of six steps, through rollouts of one, two and three."""
    out = tmp_path_factory.mktemp("runs") / "tuned"
    return run_of(small_store, out, recipe=RECIPE, sampling=SAMPLING, batch=2, precision="float64", checkpoint_every=2)


@pytest.mark.parametrize("sampling", [SAMPLING, SamplingRecipe(solver="heun", steps=2, churn=0.4)], ids=lambda sampling: sampling.solver)
def test_a_rollout_is_that_of_a_forecast(small_store, tuned, monkeypatch, sampling):
    """Both are given the same noise, named by step and member."""
    key = noise.key

    def common(seed: int, purpose: str, *place: int) -> tuple[int, int]:
        if purpose.startswith("fine-tuning "):
            _, lead, member, *rest = place
            return key(seed, purpose.removeprefix("fine-tuning "), lead, member, *rest)
        lead, _, member, *rest = place
        return key(seed, purpose, lead, member, *rest)

    monkeypatch.setattr(noise, "key", common)
    checkpoint = replace(Checkpoint.open(tuned.path), training=TrainingRecipe())
    trainer = trainer_of(small_store, curriculum=(0, 0, 2), sampling=sampling)
    trainer.begin(checkpoint)
    batch, objective = batch_of(trainer), trainer.objective
    assert isinstance(objective, CrpsTraining) and batch.intervals == 3
    _, ends = objective._roll_out(batch, [(slice(0, 2), 0), (slice(0, 2), 1)])
    forecaster = Forecaster(checkpoint, sampling, precision="float64")
    for sample, start in enumerate(trainer.fields.tokens(batch.state[:2])):
        ensemble = Ensemble(batch.times[sample], [0, 1], {0: torch.stack([start, start])})
        for end, reached in zip(ends, rollout(forecaster, [ensemble], even(3), seed=0), strict=True):
            torch.testing.assert_close(torch.stack([member[sample] for member in end]).detach(), reached.newest, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize(("curriculum", "members", "spectrum"), [((2,), 2, 0.0), ((0, 0, 2), 3, 0.0), ((0, 2), 2, 0.5)])
def test_the_gradient_is_that_of_finite_differences(small_store, curriculum, members, spectrum):
    """Along one direction in the space of all weights, through every step of a rollout."""
    trainer = trainer_of(small_store, curriculum, members, spectrum=spectrum)
    batch, parameters = batch_of(trainer), list(trainer.network.parameters())
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) for parameter in parameters]
    trainer.objective.step(batch)
    slope = sum(float((parameter.grad * along).sum()) for parameter, along in zip(parameters, direction, strict=True))
    assert all(parameter.grad.abs().max() > 0 for parameter in parameters)

    def moved(by: float) -> float:
        with torch.no_grad():
            for parameter, along in zip(parameters, direction, strict=True):
                parameter += by * along
        return float(trainer.objective.step(batch))

    step = 1e-8  # small, since the loss has a kink wherever two members or a member and the truth agree
    difference = (moved(step) - moved(-2 * step)) / (2 * step)
    assert slope == pytest.approx(difference, rel=1e-5)


def test_a_gradient_through_the_last_steps_takes_the_first_as_given(small_store):
    """The loss is that of the whole rollout; the gradient that of a rollout of one step from where the first two led."""
    whole, last = (trainer_of(small_store, curriculum=(0, 0, 2), gradient_steps=steps) for steps in (None, 1))
    batch = batch_of(whole)
    assert float(whole.objective.step(batch)) == float(last.objective.step(batch))
    found = {name: parameter.grad for name, parameter in last.network.named_parameters()}
    travellers = [(slice(0, 2), 0), (slice(0, 2), 1)]
    _, ends = whole.objective._roll_out(batch, travellers)
    requests = [whole.objective.requests(batch, one, 3, state.detach()) for one, state in zip(travellers, ends[1], strict=True)]
    members = []
    for request in requests:
        asked, (*first, last_angle) = next(request), whole.objective.angles
        for angle in first:
            asked = request.send(whole.network(*asked, angle))
        members.append(finish(request, whole.network(*asked, last_angle)))
    whole.network.zero_grad()
    whole.objective._crps(members, batch, slice(0, 2)).backward()
    for name, parameter in whole.network.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-13)


def test_the_loss_is_the_fair_crps_of_the_last_step(small_store, tuned):
    """In numpy from physical fields: |X − Y| of two members and the truth, over the residuals' deviations and all that is scored."""
    trainer = trainer_of(small_store, curriculum=(0, 2))
    batch, objective = batch_of(trainer), trainer.objective
    loss = float(objective.step(batch))
    parts = [(slice(0, 2), 0), (slice(0, 2), 1)]
    _, ends = objective._roll_out(batch, parts)
    x, y = (end.detach().numpy() for end in ends[-1])
    truth = trainer.fields.tokens(batch.target[:2]).numpy()
    crps = (np.abs(x - truth) + np.abs(y - truth) - np.abs(x - y)) / 2 / small_store.statistics.residual_std
    weight = trainer.fields.loss_weight("uniform").numpy()
    assert loss == pytest.approx((weight * crps).sum() / (2 * 16 * 32), rel=1e-9)
    assert (batch.target_times - batch.times == 2 * small_store.interval).all()


def test_the_spectrum_is_a_second_part_of_the_loss(small_store):
    """Of the last step's members alone, by what verification takes for the coefficients of their fields."""
    plain, trainer = (trainer_of(small_store, curriculum=(0, 2), spectrum=weight) for weight in (0.0, 0.5))
    batch, objective = batch_of(trainer), trainer.objective
    _, ends = objective._roll_out(batch, [(slice(0, 2), 0), (slice(0, 2), 1)])
    sphere = Sphere.on(small_store.grid)
    std = small_store.statistics.residual_std
    start, truth = (field[:2].numpy().astype(np.float64) for field in (batch.state, batch.target))
    x, y = (sphere.analysis(to_pixels(end.detach(), MODEL.window).numpy() - truth) for end in ends[-1])
    amplitude = np.sqrt(sphere.by_degree(np.abs(sphere.analysis(truth - start)) ** 2))
    parts = [(np.abs(a) + np.abs(b) - np.abs(a - b)) / 2 for a, b in ((x.real, y.real), (x.imag, y.imag))]
    crps = np.zeros_like(amplitude)
    for share, degree, score in zip(np.sqrt(sphere.share), sphere.degree, np.moveaxis(sum(parts), -1, 0), strict=True):
        crps[..., degree] += share * score
    relative = (crps / amplitude / np.sqrt(2 * np.arange(crps.shape[-1]) + 1))[..., 1:].mean(-1)
    assert (amplitude[..., 1:] / std[:, None] > 1e-3).all(), "the floor is not what is tested here"
    expected = float(plain.objective.step(batch)) + 0.5 * relative.mean()
    assert float(objective.step(batch)) == pytest.approx(expected, rel=1e-6)


def test_micro_batches_add_up_to_the_batch(small_store):
    results = []
    for size in (2, 1):
        trainer = trainer_of(small_store, curriculum=(0, 2), spectrum=0.5)
        trainer.configuration = replace(trainer.configuration, micro_batch=size)
        trainer.objective = CrpsTraining(trainer.configuration, trainer.fields, trainer.pipeline)
        results.append((float(trainer.objective.step(batch_of(trainer))), [p.grad.clone() for p in trainer.network.parameters()]))
    (one, gradients), (two, others) = results
    assert one == pytest.approx(two, rel=1e-12)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("step", [1, 4])
def test_invariant_3_a_resume_in_the_middle_of_the_curriculum_cannot_be_seen(small_store, tuned, tmp_path, step, monkeypatch):
    advance = Trainer.advance

    def fail(self, batch, stop):
        if self.step == step:
            raise KeyboardInterrupt
        return advance(self, batch, stop)

    arguments = {"recipe": RECIPE, "sampling": SAMPLING, "batch": 2, "precision": "float64"}
    monkeypatch.setattr(Trainer, "advance", fail)
    with pytest.raises(KeyboardInterrupt):
        run_of(small_store, tmp_path / "run", checkpoint_every=1, **arguments)
    monkeypatch.undo()
    resumed = run_of(small_store, tmp_path / "run", checkpoint_every=1, **arguments)
    assert same(weights(resumed), weights(tuned))
    np.testing.assert_array_equal(resumed.logbook.loss, tuned.logbook.loss)


def test_the_curriculum_counts_images():
    objective = Crps(curriculum=(4, 8, 0, 6))
    assert [objective.intervals(seen) for seen in (0, 3, 4, 11, 12, 17, 18, 1000)] == [1, 1, 2, 2, 4, 4, 4, 4]
    assert objective.lengths == [1, 2, 4]


def test_rollouts_neither_cross_a_gap_nor_leave_the_period(small_world, tmp_path):
    store = prepare(small_world.isel(time=[*range(5), *range(6, 14)]), tmp_path / "gap.zarr", chunk=4, gaps="skip")
    recipe = replace(RECIPE, objective=Crps(curriculum=(0, 0, 4)))
    configuration = configure(MODEL, store, 6, 2, 2, slice(None, store.times[11]), "float32", 0, recipe, SAMPLING)
    reader = Reader(store, configuration, trainer_of(store).groups, needed=False)
    read = [reader.read(seen) for seen in range(0, 40, 2)]
    begins = {time for batch in read for time in batch.times}
    assert begins == set(store.times[[0, 1, 5, 6, 7, 8]])
    assert all((batch.target_times - batch.times == 3 * store.interval).all() for batch in read)
    again = reader.read(14)
    np.testing.assert_array_equal(again.times, read[7].times)


def test_the_tuned_sampler_stands_in_the_checkpoint(tuned):
    checkpoint = Checkpoint.open(tuned.path)
    assert checkpoint.sampling == SAMPLING and checkpoint.training == RECIPE
    assert Forecaster(tuned.path).recipe == SAMPLING
    with pytest.raises(ConfigurationError, match=r"calls the network at.*sampler that they were tuned with"):
        Forecaster(tuned.path, SamplingRecipe(steps=3))


def test_a_run_is_tuned_from_another(small_store, tmp_path):
    """The first loss is that of the start's own averaged weights."""
    teacher = run_of(small_store, tmp_path / "teacher", steps=8)
    run = run_of(small_store, tmp_path / "run", steps=1, recipe=RECIPE, sampling=SAMPLING, start=teacher)
    trainer = Trainer(configure(MODEL, small_store, 1, 4, 4, None, "float32", 0, RECIPE, SAMPLING), small_store)
    trainer.begin(Checkpoint.open(teacher.path))
    assert run.logbook.loss[0] == pytest.approx(float(trainer.objective.step(batch_of(trainer))), rel=1e-6)


def test_the_recipe_survives_json(tuned):
    found = TrainingRecipe(**json.loads((tuned.path / "run.json").read_text())["recipe"])
    assert replace(found, betas=tuple(found.betas), noise=tuple(found.noise)) == RECIPE
    assert TrainingRecipe(**json.loads(json.dumps(asdict(RECIPE)))).objective == RECIPE.objective


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (lambda: {"recipe": replace(RECIPE, objective=Crps(members=1))}, "members=1"),
        (lambda: {"recipe": replace(RECIPE, objective=Crps(curriculum=()))}, r"curriculum=\(\)"),
        (lambda: {"recipe": replace(RECIPE, objective=Crps(spectrum=-1.0))}, "spectrum=-1.0"),
        (lambda: {"recipe": replace(RECIPE, objective=Crps(gradient_steps=0))}, "gradient_steps=0"),
        (lambda: {"recipe": replace(RECIPE, objective=Crps(curriculum=(4, 0)))}, r"curriculum=\(4, 0\)"),
        (lambda: {"recipe": replace(RECIPE, objective=Crps(curriculum=(-1, 4)))}, r"curriculum=\(-1, 4\)"),
        (lambda: {"recipe": replace(RECIPE, objective=Crps(curriculum=(4,) * 40))}, "holds no 41 states .* at most 39 lengths"),
        (lambda: {"period": slice("2001-01-01", "2001-01-01T12")}, "holds no 4 states .* at most 2 lengths"),
        (lambda: {"sampling": SamplingRecipe(steps=2, noise=(1.0, 500.0))}, r"noise=\(1.0, 500.0\).*noise=\(0.1, 500.0\)"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(small_store, tmp_path, changes, found):
    with pytest.raises(ConfigurationError, match=found):
        run_of(small_store, tmp_path / "run", **{"recipe": RECIPE, "sampling": SAMPLING, **changes()})
    assert not (tmp_path / "run").exists()


def test_a_spectrum_on_rows_that_have_none_is_refused_before_anything_is_written(small_world, tmp_path):
    rows = small_world.latitude.values + 2.0 * (np.arange(16) == 5)
    store = prepare(small_world.isel(time=slice(6)).assign_coords(latitude=rows), tmp_path / "rows.zarr")
    with pytest.raises(DataError, match="A spectrum needs rows with both poles"):
        run_of(store, tmp_path / "run", recipe=replace(RECIPE, objective=Crps(spectrum=1.0, curriculum=(4,))), sampling=SAMPLING)
    assert not (tmp_path / "run").exists()
