"""Mean and standard deviation of states, of their change over one interval or several, and of the forcings.

All sums are in float64 and weighted by cell area; sea surface temperature counts over sea alone. A state is looked at once: its
moments are kept, and moments merge without loss, so that the result depends neither on the order of the work nor on where it was
broken off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from aeris.data.forcing import toa_incident_solar_radiation
from aeris.data.grid import Grid
from aeris.data.variables import RADIATION, SEA
from aeris.errors import DataError

HOUR = np.timedelta64(1, "h")

RADIATION_TIMES = 256
"""At most so many times, evenly spread over the store, enter the statistics of radiation."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Weight, mean and squared deviation of some fields, one number for each.

    Attributes:
        weight: Sum of the weights.
        mean: Weighted mean, float64 of shape ``(fields,)``.
        squares: Weighted sum of squared deviations from the mean, float64 of shape ``(fields,)``.
    """

    weight: float
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, values: Iterable[np.ndarray], weights: Sequence[np.ndarray]) -> Moments:
        """Moments of the fields of one time, which together weigh one.

        Args:
            values: The fields, each of shape ``(rows, columns)``.
            weights: For each field the weight of every grid point, shape ``(rows, columns)``, sum one.
        """
        pairs = [_weighted(field.astype(np.float64), weight) for field, weight in zip(values, weights, strict=True)]
        mean, squares = np.array(pairs).reshape(-1, 2).T
        return cls(1.0, mean, squares)

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets together (Chan, Golub and LeVeque 1979, STAN-CS-79-773, equation 1.5)."""
        weight = self.weight + other.weight
        step = other.mean - self.mean
        mean = self.mean + step * (other.weight / weight)
        squares = self.squares + other.squares + step**2 * (self.weight * other.weight / weight)
        return Moments(weight, mean, squares)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation, shape ``(fields,)``."""
        return np.sqrt(self.squares / self.weight)


def _weighted(field: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Mean and squared deviation, exact for a constant. Plain sums, whose order does not depend on the number of threads."""
    origin = field.flat[np.argmax(weight > 0)]
    field = field - origin
    mean = np.sum(weight * field)
    return float(origin + mean), float(np.sum(weight * (field - mean) ** 2))


class Residual(NamedTuple):
    """How states change over an interval.

    Attributes:
        mean: Mean change of each channel, float64 of shape ``(channels,)``.
        std: Its standard deviation.
    """

    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True, eq=False)
class Statistics:
    """What standardizes the input of a network and scales its output back.

    Attributes:
        channels: Names of the state channels.
        mean: Mean of each channel, float64 of shape ``(channels,)``, as are the next three.
        std: Standard deviation of each channel.
        residual_mean: Mean change over one interval.
        residual_std: Standard deviation of the change over one interval.
        forcings: Names of the forcings: radiation, then the static fields.
        forcing_mean: Mean of each forcing, float64 of shape ``(forcings,)``.
        forcing_std: Standard deviation of each forcing; one where the field is constant.
        further: Change over further intervals, by their length in hours.
    """

    channels: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    residual_mean: np.ndarray
    residual_std: np.ndarray
    forcings: tuple[str, ...]
    forcing_mean: np.ndarray
    forcing_std: np.ndarray
    further: Mapping[int, Residual] = field(default_factory=dict)

    def residual(self, interval: np.timedelta64) -> Residual:
        """How states change over an interval: one of the further ones, else the first."""
        return self.further.get(round(interval / HOUR), Residual(self.residual_mean, self.residual_std))

    @property
    def of_first_interval(self) -> Statistics:
        """The same without further intervals."""
        return replace(self, further={})

    @property
    def id(self) -> str:
        """Digest of the content: the same for the same numbers, wherever they were computed."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Lists of strings and floats, from which JSON loses nothing; further intervals only where there are any."""
        content = {field.name: np.asarray(getattr(self, field.name)).tolist() for field in fields(self) if field.name != "further"}
        further = {str(hours): {"mean": of.mean.tolist(), "std": of.std.tolist()} for hours, of in sorted(self.further.items())}
        return {**content, "further": further} if further else content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Statistics:
        """The statistics that `to_dict` wrote."""
        apart = ("channels", "forcings", "further")
        numbers = {name: np.array(value, np.float64) for name, value in content.items() if name not in apart}
        further = {
            int(hours): Residual(np.array(of["mean"], np.float64), np.array(of["std"], np.float64))
            for hours, of in content.get("further", {}).items()
        }
        return cls(channels=tuple(content["channels"]), forcings=tuple(content["forcings"]), further=further, **numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Statistics) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.id)


def area_weights(grid: Grid, channels: Sequence[str], sea: np.ndarray | None) -> list[np.ndarray]:
    """Share of every grid point in the mean of each channel: its cell's area, for sea surface temperature over sea alone.

    Args:
        grid: The grid.
        channels: Names of the channels.
        sea: Where sea surface temperature is defined, shape ``grid.shape``.

    Returns:
        One float64 array of shape ``grid.shape`` and sum one for each channel.
    """
    area = np.broadcast_to(grid.area[:, None], grid.shape)
    everywhere = area / area.sum()
    at_sea = everywhere if sea is None else area * sea / (area * sea).sum()
    return [at_sea if name == SEA else everywhere for name in channels]


def summarize(
    channels: Sequence[str],
    states: Iterable[Moments],
    residuals: Iterable[Moments],
    forcings: tuple[tuple[str, ...], Moments],
    further: Mapping[int, Iterable[Moments]] | None = None,
) -> Statistics:
    """Puts the moments of all times together, in the order given.

    Args:
        channels: Names of the state channels.
        states: Moments of the states.
        residuals: Moments of their changes over one interval.
        forcings: Names and moments of the forcings.
        further: Moments of changes over further intervals, by their length in hours.

    Raises:
        DataError: A channel never changes, so that its change cannot be scaled to one.
    """
    state, residual = reduce(Moments.__add__, states), reduce(Moments.__add__, residuals)
    longer = {hours: reduce(Moments.__add__, moments) for hours, moments in (further or {}).items()}
    for change in (residual, *longer.values()):
        _refuse_constant(channels, change)
    names, forcing = forcings
    spread = np.where(forcing.std > 0, forcing.std, 1.0)
    others = {hours: Residual(change.mean, change.std) for hours, change in longer.items()}
    return Statistics(tuple(channels), state.mean, state.std, residual.mean, residual.std, names, forcing.mean, spread, others)


def forcing_moments(times: np.ndarray, grid: Grid, static: tuple[str, ...], static_fields: np.ndarray) -> tuple[tuple[str, ...], Moments]:
    """Moments of radiation over at most `RADIATION_TIMES` of the times, evenly spread, and of the static fields.

    Args:
        times: ``datetime64`` of shape ``(times,)``.
        grid: The grid.
        static: Names of the static fields.
        static_fields: Their values, shape ``(static, rows, columns)``.

    Returns:
        The names, radiation first, and their moments.
    """
    chosen = times[np.unique(np.linspace(0, len(times) - 1, RADIATION_TIMES).round().astype(int))]
    names = (RADIATION, *static)
    weights = area_weights(grid, names, None)
    daily = (toa_incident_solar_radiation(chosen[i : i + 1], grid.latitude, grid.longitude) for i in range(len(chosen)))
    radiation = reduce(Moments.__add__, (Moments.of(field, weights[:1]) for field in daily))
    given = Moments.of(static_fields, weights[1:])
    return names, Moments(1.0, np.append(radiation.mean, given.mean), np.append(radiation.squares / radiation.weight, given.squares))


def _refuse_constant(channels: Sequence[str], residual: Moments) -> None:
    constant = [name for name, std in zip(channels, residual.std, strict=True) if not std > 0]
    if constant:
        raise DataError(
            f"The change of {', '.join(constant)} over one interval is the same everywhere and always",
            "The change of a channel is scaled to a standard deviation of one",
            "Leave the channel out, with ds.drop_vars or ds.drop_sel(level=...), and prepare it at another path",
        )
