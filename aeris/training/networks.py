"""A rank's part of a network, as training and its teachers need it."""

from __future__ import annotations

import torch

from aeris.device import Device
from aeris.model.network import Network
from aeris.swipe import Groups, held_blocks
from aeris.training.configuration import Configuration

COMPILE_FROM_STEPS = 1000
"""Shorter runs train eager: compiling would take longer than it saves."""


def network_of(configuration: Configuration, groups: Groups, device: Device) -> Network:
    """The blocks that this rank holds, with initial weights, where and as precisely as they are trained.

    Args:
        configuration: What is trained.
        groups: This rank's place.
        device: Where it computes.
    """
    model, wide = configuration.model, torch.float64 if configuration.precision == "float64" else torch.float32
    network = Network(model, configuration.seed, held_blocks(model, groups)).to(device.torch_device, wide)
    network.compute_dtype = getattr(torch, configuration.precision)
    return network


def worth_compiling(configuration: Configuration, groups: Groups, device: Device) -> bool:
    """Whether a run is long enough to compile its blocks, and can."""
    return configuration.steps >= COMPILE_FROM_STEPS and groups.layout.sp == 1 and device.compile_available()
