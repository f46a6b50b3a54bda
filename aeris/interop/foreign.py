"""A model of others, in the names and orders of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from aeris.data.statistics import Statistics
from aeris.interop.swift import SwiftConfig
from aeris.model.config import ModelConfig
from aeris.model.fields import Geography
from aeris.model.presets import SamplingRecipe, TrainingRecipe

Rows = Literal["north", "south"]
"""Which row comes first in the fields that a model was trained on."""

Flavour = Literal["ema", "net"]
"""Whether the average of the weights is read, or the weights themselves."""


@dataclass(frozen=True, eq=False)
class Foreign:
    """What was read of a model, ready for a checkpoint.

    Attributes:
        model: The network's dimensions.
        tensors: Its parameters by the names that the network has here, float32.
        statistics: Statistics that its fields are standardised with.
        geography: Grid and static fields.
        training: What is known of its training; the range of noise counts.
        sampling: How it was sampled.
        interval: Its step in time.
        images: Images it had seen, where that is told.
    """

    model: ModelConfig | SwiftConfig
    tensors: Mapping[str, Tensor]
    statistics: Statistics
    geography: Geography
    training: TrainingRecipe
    sampling: SamplingRecipe
    interval: np.timedelta64
    images: int = 0
