"""The fair CRPS as a loss: against a double loop, verification's own score, finite differences, and what it is smallest for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from scores.probability import crps_for_ensemble

from aeris.diffusion.crps import weighted_crps

SHAPE = (2, 3, 4)  # sample, token, channel


@pytest.fixture
def drawn() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Three members, a truth and a weight of which one entry is zero."""
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(4, *SHAPE, generator=generator, dtype=torch.float64)
    weight = torch.rand(SHAPE[1:], generator=generator, dtype=torch.float64)
    weight[1, 2] = 0
    return list(fields[:3]), fields[3], weight


def test_it_is_the_double_loop_of_its_definition(drawn):
    members, truth, weight = drawn
    total = 0.0
    for place in np.ndindex(SHAPE):
        values = [float(member[place]) for member in members]
        error = np.mean([abs(value - float(truth[place])) for value in values])
        apart = sum(abs(one - other) for one in values for other in values) / (2 * 3 * 2)
        total += float(weight[place[1:]]) * (error - apart)
    assert float(weighted_crps(members, truth, weight, 7)) == pytest.approx(total / 7, rel=1e-12)


def test_it_is_the_score_of_verification(drawn):
    members, truth, weight = drawn
    names = ("sample", "token", "channel")
    score = crps_for_ensemble(
        xr.DataArray(torch.stack(members).numpy(), dims=("number", *names)),
        xr.DataArray(truth.numpy(), dims=names),
        "number",
        method="fair",
        preserve_dims=names,
    )
    assert float(weighted_crps(members, truth, weight, 1)) == pytest.approx(float((score.values * weight.numpy()).sum()), rel=1e-12)


def test_its_gradient_is_that_of_finite_differences(drawn):
    members, truth, weight = drawn
    leaves = [member.requires_grad_() for member in members]
    assert torch.autograd.gradcheck(lambda *given: weighted_crps(given, truth, weight, 5), leaves)


def test_parts_of_a_batch_add_up(drawn):
    members, truth, weight = drawn
    parts = [weighted_crps([member[part] for member in members], truth[part], weight, 7) for part in (slice(0, 1), slice(1, 2))]
    assert float(sum(parts)) == pytest.approx(float(weighted_crps(members, truth, weight, 7)), rel=1e-12)


def test_two_members_suffice_to_find_mean_and_deviation_of_the_truth():
    """Members mean + deviation · z, with both learnt from truths of a normal distribution by this loss alone."""
    generator = torch.Generator().manual_seed(0)
    mean, deviation = torch.zeros((), requires_grad=True), torch.full((), 0.1, requires_grad=True)
    optimizer = torch.optim.Adam([mean, deviation], lr=0.02)
    for _ in range(400):
        one, other, truth = torch.randn(3, 4096, 1, generator=generator)
        loss = weighted_crps([mean + deviation * one, mean + deviation * other], 1.5 + 0.7 * truth, torch.ones(1), 4096)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(mean) == pytest.approx(1.5, abs=0.03)
    assert abs(float(deviation)) == pytest.approx(0.7, abs=0.03)
