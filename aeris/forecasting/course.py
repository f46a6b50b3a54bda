"""Which steps a forecast takes to its leads, where a network knows several lengths.

Everything is counted in the network's first interval: a lead of 4 is 24 h where that is 6 h, and 0 is the initial state.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from aeris.data.contents import hours
from aeris.data.statistics import HOUR
from aeris.errors import ConfigurationError
from aeris.training.checkpoint import Checkpoint

FEWEST = "fewest"


class Move(NamedTuple):
    """One step of a forecast.

    Attributes:
        begin: Lead that it begins from.
        end: Lead that it reaches.
    """

    begin: int
    end: int

    @property
    def span(self) -> int:
        """Its length."""
        return self.end - self.begin


def course(checkpoint: Checkpoint, lead: str | pd.Timedelta, step: str | pd.Timedelta | None = None) -> list[Move]:
    """The step to each lead of a forecast, in their order.

    Args:
        checkpoint: Whose network takes the steps.
        lead: The last lead.
        step: Length of all steps, and so the distance of the leads; None takes the network's first interval. With ``"fewest"`` the leads
            are all multiples of that, each reached in as few steps as can be.

    Raises:
        ConfigurationError: The network takes no steps of this length, or no number of them is `lead`.
    """
    lengths = _lengths(checkpoint)
    spans = [int(length / lengths[0]) for length in lengths]
    if step == FEWEST:
        return fewest(_count(lead, lengths[0]), spans)
    length = lengths[0] if step is None else _length(step, "step")
    if length not in lengths:
        raise ConfigurationError(
            f"step={step!r}",
            f"The network takes steps of {', '.join(map(hours, lengths))}",
            f"Use one of them, or {FEWEST!r}, or leave it out" if len(lengths) > 1 else "Leave it out",
        )
    return even(_count(lead, length), spans[lengths.index(length)])


def even(count: int, span: int = 1) -> list[Move]:
    """So many steps of one length, one after the other."""
    return [Move(span * number, span * (number + 1)) for number in range(count)]


def fewest(last: int, spans: Sequence[int]) -> list[Move]:
    """Every lead reached in the fewest steps, long ones first (as in Pangu-Weather, doi:10.1038/s41586-023-06185-3).

    Since long steps come first, many leads share the states on their way, and each costs one step from a lead before it.

    Args:
        last: The last lead.
        spans: Lengths of steps, one of them 1.
    """
    steps, moves = [0], []
    for lead in range(1, last + 1):
        count, span = min((steps[lead - span], span) for span in spans if span <= lead)
        steps.append(count + 1)
        moves.append(Move(lead - span, lead))
    return moves


def needed(moves: Sequence[Move], done: int) -> set[int]:
    """Leads that are reached once so many moves are made, and from which later ones begin."""
    reached = {0, *(move.end for move in moves[:done])}
    return {move.begin for move in moves[done:]} & reached


def told(moves: Sequence[Move], interval: np.timedelta64) -> dict[str, Any]:
    """What an archive's configuration says of the steps: nothing where all are the network's first interval.

    Args:
        moves: The steps.
        interval: The network's first interval.
    """
    span = moves[0].span
    if moves == even(len(moves)):
        return {}
    return {"step_hours": float(span * interval / HOUR) if moves == even(len(moves), span) else FEWEST}


def _lengths(checkpoint: Checkpoint) -> list[np.timedelta64]:
    """Lengths of the steps that a checkpoint's network takes, the first one first."""
    further = [np.timedelta64(length, "h") for length in checkpoint.model.intervals[1:]]
    return [length.astype("timedelta64[ns]") for length in (checkpoint.interval, *further)]


def _length(value: str | pd.Timedelta, name: str) -> np.timedelta64:
    try:
        length = pd.Timedelta(re.sub(r"d$", "D", value) if isinstance(value, str) else value)
    except ValueError as error:
        raise ConfigurationError(f"{name}={value!r}", f"A {name} is a length of time", "Use for example '10d' or '6h'") from error
    return length.to_timedelta64().astype("timedelta64[ns]")


def _count(lead: str | pd.Timedelta, step: np.timedelta64) -> int:
    """How many steps of one length make a lead."""
    length, one = pd.Timedelta(_length(lead, "lead")), pd.Timedelta(step)
    if length < one or length % one:
        raise ConfigurationError(
            f"lead={lead!r}",
            f"A lead is a positive multiple of the step, {one}",
            f"Use for example '{max(1, length // one) * one}'",
        )
    return length // one
