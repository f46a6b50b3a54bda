"""Which images a step trains on, and the windows of them that this rank reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aeris.data.store import Store, sample_order
from aeris.diffusion import noise
from aeris.model.presets import Crps
from aeris.swipe import Groups, share
from aeris.training.configuration import Configuration


@dataclass(frozen=True)
class Batch:
    """This rank's images of one step, as they were read.

    Attributes:
        images: Their numbers in the run.
        seen: Images of the run before this step, the same on all ranks.
        times: Times of the states.
        target_times: Times of the states that are to be forecast.
        state: Physical fields ``(B, C, H, W)`` of this rank's windows; None on a rank that needs none.
        target: The same of the states that are to be forecast.
        intervals: Steps from the ones to the others.
    """

    images: range
    seen: int
    times: np.ndarray
    target_times: np.ndarray
    state: Tensor | None
    target: Tensor | None
    intervals: int = 1

    @property
    def lengths(self) -> np.ndarray:
        """Length of each image's steps, timedelta64 ``(B,)``."""
        return (self.target_times - self.times) // self.intervals

    def parts(self, size: int) -> list[slice]:
        """The batch divided into parts of so many images."""
        return [slice(start, start + size) for start in range(0, len(self.images), size)]


class Reader:
    """Reads this rank's share of each batch.

    Args:
        store: The data.
        configuration: What is trained: batch, period, seed and window.
        groups: This rank's place.
        needed: Whether this rank uses fields at all; between the first and the last stage of a pipeline none does.
    """

    def __init__(self, store: Store, configuration: Configuration, groups: Groups, needed: bool) -> None:
        self.store, self.configuration, self.groups, self.needed = store, configuration, groups, needed
        self.share = share(groups.layout, groups.at)

    @contextmanager
    def batches(self, seen: int) -> Iterator[Iterator[Batch]]:
        """Batches after so many images, the next one read while the present one is used."""
        with ThreadPoolExecutor(1, "aeris-reader") as pool:

            def stream() -> Iterator[Batch]:
                first = seen
                ahead = pool.submit(self.read, first)
                while True:
                    batch = ahead.result()
                    first += self.configuration.batch
                    ahead = pool.submit(self.read, first)
                    yield batch

            yield stream()

    def read(self, seen: int) -> Batch:
        """The batch after so many images."""
        configuration, store, layout = self.configuration, self.store, self.groups.layout
        count = configuration.batch // layout.dp
        first = seen + self.groups.at.dp * count
        objective = configuration.recipe.objective
        images = range(first, first + count)
        if isinstance(objective, Crps):
            # Members of a rollout travel together, and so do all images of its batch.
            intervals, spans = objective.intervals(seen), self._spans([seen] * count)
        else:
            intervals, spans = 1, self._spans(images)
        begins = store.pairs(configuration.period_slice, intervals * configuration.longest_span)
        states = begins[sample_order(len(begins), configuration.seed, first, count)]
        targets = np.array([store.partner(int(index), intervals * span) for index, span in zip(states, spans, strict=True)])
        fields = self._fields(states), self._fields(targets)
        return Batch(images, seen, store.times[states], store.times[targets], *fields, intervals)

    def _spans(self, numbers: Sequence[int]) -> list[int]:
        """The length of each image's steps in intervals of the store, one of the network's lengths that a number decides."""
        lengths, seed = self.configuration.model.intervals, self.configuration.seed
        if not lengths:
            return [1] * len(numbers)
        return [lengths[noise.choice(noise.key(seed, "training interval", number), len(lengths))] // lengths[0] for number in numbers]

    def _fields(self, indices: np.ndarray) -> Tensor | None:
        """This rank's own windows of some states."""
        if not self.needed:
            return None
        window, share = self.configuration.model.window, self.share
        windows = (self.store.read_windows(int(index), window, share.rows, share.columns) for index in indices)
        return torch.from_numpy(np.stack(list(windows)))
