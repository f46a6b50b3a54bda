"""Initial states that are not quite known: each member begins a little apart from the analysis.

Two kinds, both off unless asked for. Differences of past states have the shapes and the balance of the weather; isotropic noise has a
spectrum that is known, and no balance at all. Members 2k and 2k + 1 are mirror images of each other about the analysis, so that a whole
number of pairs has it as its mean.

A perturbation is a function of seed, initial time and member, computed in numpy on the processor: no batch, layout or engine changes a bit.
Afterwards humidity is not negative, no value leaves the bounds of its variable, and sea surface temperature over land is as it was.

Shapes:
    T  initial time      M  member      C  state channel      H, W  pixel row, column      N  packed coefficient
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr

from aeris.data.grid import Grid
from aeris.data.spherical import RADIUS, degree_order, synthesis
from aeris.data.states import fill_land
from aeris.data.variables import parse_channel
from aeris.diffusion import noise
from aeris.errors import ConfigurationError, DataError
from aeris.model.presets import tuples_of
from aeris.training.checkpoint import Checkpoint

HUMIDITY = "specific_humidity"
YEAR_DAYS = 365.25


@dataclass(frozen=True)
class PastDifferences:
    """Differences of two past states of the same season and time of the day, scale · (x(a) − x(b)) / √2.

    With independent states and a scale of one the perturbation has the variance of the climate about its season's mean.

    Attributes:
        scale: Deviation of the perturbation in climatological deviations, for example 0.05.
        apart: Least time between the two states.
        season: Largest distance of either from the day of the year of the initial time.
        past: Dataset of the past states, anything `aeris.open_era5` opens; None takes those of the initial dataset. Only states before the
            initial time are drawn.
    """

    scale: float
    apart: str = "5D"
    season: str = "30D"
    past: str | None = None
    kind: Literal["past differences"] = "past differences"

    def __post_init__(self) -> None:
        _check_scale(self.scale)
        for name in ("apart", "season"):
            try:
                positive = pd.Timedelta(getattr(self, name)) > pd.Timedelta(0)
            except ValueError:
                positive = False
            if not positive:
                raise ConfigurationError(f"{name}={getattr(self, name)!r}", "It is a length of time", "Use for example '5D'")


@dataclass(frozen=True)
class SphericalNoise:
    """Gaussian noise, independent from channel to channel, with the same statistics everywhere and in every direction on the sphere.

    Attributes:
        scale: Deviation of the perturbation in deviations of the change over one interval, channel by channel.
        length: Correlation length in km: the correlation of two points at a distance d is about exp(−d² / 2 length²), of which the power of
            degree l is (2l + 1) exp(−l (l + 1) (length / a)² / 2) with the earth's radius a.
        spectrum: Power of the degrees from 0 in place of it, as `aeris.verification.spectra.power` gives it; only its shape counts.
    """

    scale: float
    length: float = 700.0
    spectrum: tuple[float, ...] | None = None
    kind: Literal["spherical noise"] = "spherical noise"

    def __post_init__(self) -> None:
        _check_scale(self.scale)
        if not self.length > 0:
            raise ConfigurationError(f"length={self.length}", "A correlation length is positive, in km", "Use for example 700")
        if self.spectrum is not None:
            power = np.asarray(self.spectrum, dtype=np.float64)
            if power.ndim != 1 or not np.isfinite(power).all() or power.min(initial=0) < 0 or not power.sum() > 0:
                raise ConfigurationError(
                    f"spectrum={self.spectrum}",
                    "The power of every degree is a number that is not negative, and not all are zero",
                    "Leave it out",
                )


Perturbation = PastDifferences | SphericalNoise
"""What members begin apart by; `kind` tells them apart in JSON."""

KINDS: dict[str, type[Perturbation]] = {"past differences": PastDifferences, "spherical noise": SphericalNoise}


def perturbation_of_json(**content: Any) -> Perturbation:
    """Inverse of `dataclasses.asdict`."""
    made = KINDS.get(content["kind"])
    if made is None:
        raise ConfigurationError(
            f"perturb={content}", f"A perturbation is one of {sorted(KINDS)}", "Use the version of aeris that wrote it"
        )
    return made(**tuples_of(content))


def _check_scale(scale: float) -> None:
    if not 0 < scale <= 2:
        raise ConfigurationError(
            f"scale={scale}", "It is positive and at most 2; an analysis is far better than the climate", "Use for example 0.05"
        )


class InitialStates:
    """Where the members of each initial time begin.

    Args:
        states_TCHW: The analyses, with sea surface temperature over land filled.
        times: Initial times, datetime64[ns].
        checkpoint: The checkpoint that goes on from them.
        perturb: By what members begin apart; None lets all begin at the analysis.
        past_times: Times of the dataset of past states; needed for their differences.
        read: Reads physical states ``(T, C, H, W)`` of that dataset at some times.
        members: Members of each initial time.

    Raises:
        ConfigurationError: The spectrum has degrees that the grid does not resolve.
        DataError: Fewer pairs of past states are there than pairs of members.
    """

    def __init__(
        self,
        states_TCHW: np.ndarray,
        times: np.ndarray,
        checkpoint: Checkpoint,
        perturb: Perturbation | None = None,
        past_times: np.ndarray | None = None,
        read: Callable[[np.ndarray], np.ndarray] | None = None,
        members: int = 1,
    ) -> None:
        self.states, self.times, self.checkpoint, self.perturb = states_TCHW, times, checkpoint, perturb
        self.past_times, self.read = past_times, read
        if isinstance(perturb, SphericalNoise):
            _ = self._deviation_of_coefficients
        elif isinstance(perturb, PastDifferences):
            for time in times:
                self._check_pairs(time, members)

    def of(self, time: int, members: Sequence[int], seed: int) -> np.ndarray:
        """Initial states of some members, float32 ``(M, C, H, W)``.

        Args:
            time: Index of the initial time.
            members: Their numbers.
            seed: Seed of the forecast.
        """
        state = self.states[time]
        if self.perturb is None:
            return np.repeat(state[None], len(members), axis=0)
        begins = [state + (-1) ** (member % 2) * self._perturbation(self.times[time], member // 2, seed) for member in members]
        return self._physical(np.stack(begins))

    def _perturbation(self, time: np.datetime64, pair: int, seed: int) -> np.ndarray:
        """What is added to the first member of a pair, float32 ``(C, H, W)``."""
        seconds = int((time - np.datetime64(0, "s")) / np.timedelta64(1, "s"))
        key = noise.key(seed, "initial perturbation", seconds, pair)
        drawn = self._noise(key) if isinstance(self.perturb, SphericalNoise) else self._difference(time, key)
        return drawn.astype(np.float32)

    def _noise(self, key: tuple[int, int]) -> np.ndarray:
        channels, degrees = self.checkpoint.statistics.channels, self._deviation_of_coefficients
        assert isinstance(self.perturb, SphericalNoise)
        normals = noise.normals([key], torch.arange(degrees.shape[1]), 2 * len(channels), torch.float64)[0].numpy().T
        coefficients = degrees[0] * normals[: len(channels)] + 1j * degrees[1] * normals[len(channels) :]
        grid: Grid = self.checkpoint.geography.grid
        fields = synthesis(coefficients, np.deg2rad(90.0 - grid.latitude), grid.shape[1])
        deviations = self.perturb.scale * np.asarray(self.checkpoint.statistics.residual_std)
        return deviations[:, None, None] * fields

    @cached_property
    def _deviation_of_coefficients(self) -> np.ndarray:
        """Deviation of real and imaginary part of each packed coefficient of a field of variance one, ``(2, N)``.

        With orthonormal harmonics degree l holds Σ_m ``|a_lm|²`` / 4π of the variance over m = −l..l. Only m ≥ 0 is kept: a_l0 is real, the
        others have half of their variance in each part.
        """
        assert isinstance(self.perturb, SphericalNoise)
        rows, columns = self.checkpoint.geography.grid.shape
        largest = min(rows - 1, (columns - 1) // 2)
        degree, order = degree_order(largest)
        power = _power(self.perturb, largest)
        deviation = np.sqrt(4 * np.pi * power / power.sum() / (2 * np.arange(largest + 1) + 1))[degree]
        return np.stack([np.where(order > 0, deviation / np.sqrt(2), deviation), np.where(order > 0, deviation / np.sqrt(2), 0.0)])

    def _difference(self, time: np.datetime64, key: tuple[int, int]) -> np.ndarray:
        assert isinstance(self.perturb, PastDifferences) and self.read is not None
        pairs = self._pairs(time)
        one, other = self.read(pairs[(key[0] << 32 | key[1]) % len(pairs)]).astype(np.float64)
        return self.perturb.scale * (one - other) / np.sqrt(2)

    def _pairs(self, time: np.datetime64) -> np.ndarray:
        """Times of the pairs of past states that an initial time may draw from, ``(pairs, 2)``."""
        assert isinstance(self.perturb, PastDifferences) and self.past_times is not None
        past = np.sort(self.past_times[self.past_times < time])
        days = (time - past).astype("timedelta64[s]").astype(np.int64) / 86400.0
        away = np.abs((days + YEAR_DAYS / 2) % YEAR_DAYS - YEAR_DAYS / 2)
        alike = past[(away <= pd.Timedelta(self.perturb.season) / pd.Timedelta("1D")) & (days % 1 == 0)]
        first, second = np.nonzero(alike[None, :] - alike[:, None] >= pd.Timedelta(self.perturb.apart).to_timedelta64())
        return np.stack([alike[first], alike[second]], axis=1)

    def _check_pairs(self, time: np.datetime64, members: int) -> None:
        assert isinstance(self.perturb, PastDifferences)
        found, needed = len(self._pairs(time)), -(-members // 2)
        if found < needed:
            raise DataError(
                f"Before {np.datetime_as_string(time, unit='m')} there are {found} pairs of past states",
                f"{members} members need {needed} pairs of the same time of the day, within {self.perturb.season} of the day of the year, "
                f"and {self.perturb.apart} apart",
                "Name a dataset that reaches further back, PastDifferences(past=...)",
            )

    def _physical(self, states_MCHW: np.ndarray) -> np.ndarray:
        """States within the bounds of their variables, sea surface temperature over land set back."""
        channels = self.checkpoint.statistics.channels
        for index, channel in enumerate(map(parse_channel, channels)):
            low, high = channel.variable.bounds
            np.clip(states_MCHW[:, index], 0.0 if channel.variable.name == HUMIDITY else low, high, out=states_MCHW[:, index])
        return fill_land(states_MCHW, channels, self.checkpoint.geography.sea_mask)


def check_reach(perturb: Perturbation | None, initial: xr.Dataset | str | Path) -> None:
    """Refuses differences of past states that stand in the memory of this process, where others are to read them.

    Raises:
        ConfigurationError: They do.
    """
    if isinstance(perturb, PastDifferences) and perturb.past is None and isinstance(initial, xr.Dataset):
        raise ConfigurationError(
            "Differences of the past states of a Dataset in this process's memory",
            "Engines read past states from a path or a URL",
            "Name it, with PastDifferences(past=...), or give the path as initial",
        )


def _power(perturb: SphericalNoise, largest: int) -> np.ndarray:
    """Power of the degrees from 0 to the largest, to be normalised."""
    degree = np.arange(largest + 1)
    if perturb.spectrum is None:
        return (2 * degree + 1) * np.exp(-degree * (degree + 1) * (1000 * perturb.length / RADIUS) ** 2 / 2)
    if len(perturb.spectrum) > largest + 1:
        raise ConfigurationError(
            f"spectrum has the degrees 0 to {len(perturb.spectrum) - 1}",
            f"The grid resolves those up to {largest}",
            "Leave out those above",
        )
    return np.pad(perturb.spectrum, (0, largest + 1 - len(perturb.spectrum)))
