"""The fair continuous ranked probability score of a few members, as a loss.

With the expectation over members and truth it is smallest where the members are drawn from the distribution of the truth, however
few they are (Ferro 2014, doi 10.1002/qj.2270): two of them are enough to train on (Swift, arXiv 2509.25631).

Shapes:
    M  member            B  sample            ... token axes          C  channel
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def weighted_crps(members_M: Sequence[Tensor], target: Tensor, weight: Tensor, terms: int) -> Tensor:
    """Σ w · CRPS over a fixed number of terms, the sum over channels included in w.

    ::

        CRPS = Σ_m |X_m − y| / M − Σ_{m<n} |X_m − X_n| / (M (M − 1))

    The denominator counts the whole batch and globe, whichever part of them is here, as in
    :func:`aeris.diffusion.trigflow.weighted_loss`.

    Args:
        members_M: At least two forecasts ``(B, ..., C)``.
        target: The truth, of the same shape.
        weight: Latitude weight · channel weight · mask, ``(..., C)``.
        terms: Images of the whole batch times pixels of the whole grid.
    """
    return (weight * fair_crps(members_M, target)).sum() / terms


def fair_crps(members_M: Sequence[Tensor], target: Tensor) -> Tensor:
    """Fair CRPS of every number of the target.

    Args:
        members_M: At least two forecasts, each of the target's shape.
        target: The truth.
    """
    count = len(members_M)
    error = torch.stack([(member - target).abs() for member in members_M]).sum(0) / count
    apart = torch.stack([(one - other).abs() for one, other in itertools.combinations(members_M, 2)]).sum(0) / (count * (count - 1))
    return error - apart
