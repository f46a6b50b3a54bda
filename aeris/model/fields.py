"""Physical fields to the network's tokens and back.

States and residuals are standardised channel by channel; the residual has statistics of its own, so that its deviation is one
(arXiv 2509.13523; reference implementation: state and residual statistics). Arithmetic in physical units is float32.

Over land, sea surface temperature is one constant: its noise, residual and velocity are zero there and it has no loss.

Shapes:
    B  sample            H, W  pixel row, column          C  state channel
    R, K  window row, column      Q  quadrant (4)         P  pixel of a quadrant
    I  conditioning channel: state, radiation, static fields, radiation at the target time
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from aeris.data.forcing import toa_incident_solar_radiation
from aeris.data.grid import Grid
from aeris.data.statistics import Statistics
from aeris.data.variables import RADIATION, SEA, SEA_ICE_POINT, channel_weights
from aeris.model.quadrants import pixel_ids, to_tokens


@dataclass(frozen=True, eq=False)
class Geography:
    """What a forecast must know of the planet beside its state.

    Attributes:
        grid: The grid.
        static: Static fields by name, float32 ``(H, W)``, in physical units.
        sea_mask: Where sea surface temperature is defined, bool ``(H, W)``; None where every pixel counts.
    """

    grid: Grid
    static: Mapping[str, np.ndarray]
    sea_mask: np.ndarray | None


class Part(Protocol):
    """The windows and tokens that one of several processes holds."""

    @property
    def rows(self) -> slice:
        """Its window rows."""

    @property
    def columns(self) -> slice:
        """Its window columns."""

    def cut(self, x_RKQP: Tensor, first: int = 0) -> Tensor:
        """Its part of whole tokens, whose axis R is the one named."""

    def cut_window(self, x_RKQP: Tensor, first: int = 0) -> Tensor:
        """Its part of tokens of its windows alone."""


class Fields:
    """Turns states into standardised tokens, conditions and residuals, and residuals into the next state.

    Args:
        statistics: Means and deviations of states, residuals and forcings.
        geography: Grid, static fields and sea mask.
        window: Rows and columns of a window.
        device: Where tensors live.
        dtype: Dtype of tokens; float64 for exact tests.
        part: Which windows and tokens are here; None has all of them.
    """

    def __init__(
        self,
        statistics: Statistics,
        geography: Geography,
        window: tuple[int, int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        part: Part | None = None,
    ) -> None:
        self.statistics, self.geography, self.window, self.part = statistics, geography, window, part
        self.device, self.dtype = torch.device(device), dtype
        self.mean, self.std = self._row(statistics.mean), self._row(statistics.std)
        self._scales: dict[np.timedelta64, tuple[Tensor, Tensor]] = {}

    def _row(self, values: Sequence[float] | np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=self.dtype, device=self.device)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the state channels."""
        return tuple(self.statistics.channels)

    @property
    def pixel_count(self) -> int:
        """Number of pixels of the whole grid."""
        return self.geography.grid.shape[0] * self.geography.grid.shape[1]

    @cached_property
    def ids(self) -> Tensor:
        """Global pixel number of every token here, int64 ``(R, K, Q, P)``."""
        ids = pixel_ids(self.geography.grid.shape, self.window)
        return (ids if self.part is None else self.part.cut(ids)).to(self.device)

    @cached_property
    def mask(self) -> Tensor | None:
        """One where a channel is predicted, zero for sea surface temperature over land: ``(R, K, Q, P, C)``, or None."""
        if self.geography.sea_mask is None or SEA not in self.channels:
            return None
        mask = torch.ones(len(self.channels), *self.geography.grid.shape, dtype=self.dtype, device=self.device)
        mask[self.channels.index(SEA)] = torch.as_tensor(self.geography.sea_mask, device=self.device).to(self.dtype)
        return self.whole_tokens(mask[None])[0]

    def channel_weight(self, channels: Literal["uniform", "paper"]) -> Tensor:
        """Weights of the channels in a loss, ``(C,)``; they add up to one.

        Args:
            channels: Whether all count alike, or as in the paper.
        """
        count = len(self.channels)
        return self._row(channel_weights(self.channels) if channels == "paper" else np.full(count, 1 / count))

    def loss_weight(self, channels: Literal["uniform", "paper"]) -> Tensor:
        """Latitude weight · channel weight · mask, ``(R, K, Q, P, C)``; sums to the number of pixels where nothing is masked.

        Args:
            channels: Whether all channels count alike, or as in the paper.
        """
        weights = self.channel_weight(channels)
        rows = torch.as_tensor(self.geography.grid.loss_weight, dtype=self.dtype, device=self.device)
        return self.masked(self.whole_tokens((weights[:, None, None] * rows[:, None].expand(self.geography.grid.shape))[None])[0])

    @cached_property
    def _static(self) -> Tensor:
        """Standardised static fields, ``(1, R, K, Q, P, S)``."""
        fields = [
            (np.asarray(self.geography.static[name], dtype=np.float64) - mean) / std
            for name, mean, std in self._forcing_statistics()
            if name != RADIATION
        ]
        stacked = np.stack(fields) if fields else np.empty((0, *self.geography.grid.shape))
        return self.whole_tokens(torch.as_tensor(stacked, dtype=self.dtype, device=self.device)[None])

    def _forcing_statistics(self) -> list[tuple[str, float, float]]:
        statistics = self.statistics
        return list(zip(statistics.forcings, statistics.forcing_mean, statistics.forcing_std, strict=True))

    def whole_tokens(self, x_BCHW: Tensor) -> Tensor:
        """Those pixels of the whole globe that are here, in quadrant order: ``(B, R, K, Q, P, C)``."""
        tokens = to_tokens(x_BCHW, self.window)
        return tokens if self.part is None else self.part.cut(tokens, first=1)

    def tokens(self, x_BCHW: Tensor) -> Tensor:
        """Pixels of the windows that are here, wherever they were read, in quadrant order: ``(B, R, K, Q, P, C)``."""
        tokens = to_tokens(x_BCHW.to(self.device, self.dtype, non_blocking=True), self.window)
        return tokens if self.part is None else self.part.cut_window(tokens, first=1)

    def masked(self, tokens: Tensor) -> Tensor:
        """Zeroes sea surface temperature over land."""
        return tokens if self.mask is None else tokens * self.mask

    def scale(self, interval: np.timedelta64) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the change over an interval, each ``(C,)``."""
        if interval not in self._scales:
            mean, std = self.statistics.residual(interval)
            self._scales[interval] = self._row(mean), self._row(std)
        return self._scales[interval]

    def residual(self, state: Tensor, following: Tensor, intervals: np.ndarray) -> Tensor:
        """Standardised residuals of physical states.

        Args:
            state: Tokens ``(B, R, K, Q, P, C)``.
            following: The states that followed, tokens of the same shape.
            intervals: How much later, timedelta64 ``(B,)``.
        """
        scales = [self.scale(interval) for interval in intervals]
        mean, std = (torch.stack(rows)[:, None, None, None, None] for rows in zip(*scales, strict=True))
        return self.masked((following - state - mean) / std)

    def hours(self, intervals: np.ndarray) -> Tensor:
        """Lengths of steps in hours, as the network is told them, ``(B,)``."""
        return self._row(intervals / np.timedelta64(1, "h"))

    def condition(self, state: Tensor, times: np.ndarray, target_times: np.ndarray) -> Tensor:
        """Everything the network is told beside the noisy target.

        Args:
            state: Physical state, tokens ``(B, R, K, Q, P, C)``.
            times: Its times, datetime64 ``(B,)``.
            target_times: The times of the next state.

        Returns:
            Tokens ``(B, R, K, Q, P, I)``.
        """
        parts = [(state - self.mean) / self.std, self._static.expand(len(state), *self._static.shape[1:])]
        if RADIATION in self.statistics.forcings:
            parts.insert(1, self.radiation(times))
            parts.append(self.radiation(target_times))
        return torch.cat(parts, dim=-1)

    def radiation(self, times: np.ndarray) -> Tensor:
        """Standardised radiation at the top of the atmosphere, ``(B, R, K, Q, P, 1)``."""
        (mean, std), (latitude, longitude) = self._radiation_statistics, self._coordinates
        field = toa_incident_solar_radiation(np.asarray(times), latitude, longitude)
        return self.tokens(torch.as_tensor((field - mean) / std)[:, None])

    @cached_property
    def _coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Latitudes and longitudes of the windows that are here."""
        grid = self.geography.grid
        if self.part is None:
            return grid.latitude, grid.longitude
        rows, columns = (
            np.asarray(values).reshape(-1, side) for values, side in zip((grid.latitude, grid.longitude), self.window, strict=True)
        )
        return rows[self.part.rows].ravel(), columns[self.part.columns].ravel()

    @cached_property
    def _radiation_statistics(self) -> tuple[float, float]:
        return next((mean, std) for name, mean, std in self._forcing_statistics() if name == RADIATION)

    def next_state(self, state: Tensor, residual: Tensor, interval: np.timedelta64) -> Tensor:
        """The physical state that a standardised residual leads to; sea surface temperature over land is set back.

        Args:
            state: Physical state, tokens ``(B, R, K, Q, P, C)``.
            residual: Tokens of the same shape.
            interval: How much later the state is.
        """
        mean, std = self.scale(interval)
        moved = state + residual * std + mean
        if self.mask is not None:
            index = self.channels.index(SEA)
            moved[..., index] = torch.where(self.mask[..., index] > 0, moved[..., index], SEA_ICE_POINT)
        return moved
