"""One training step of a layout on this machine, every byte that its ranks send counted."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import timedelta
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from torch import Tensor

from aeris.data.variables import state_channels
from aeris.device import choose
from aeris.errors import ConfigurationError
from aeris.model.config import ModelConfig
from aeris.model.network import Network
from aeris.swipe import Groups, Layout, Pass, Pipeline, ShardedAdamW, held_blocks
from aeris.swipe.ledger import Ledger, record
from aeris.swipe.plan import memory_of, sent_bytes

KINDS = ("pipeline", "heads", "shift", "gradients", "parameters", "norm")
TIMEOUT = timedelta(minutes=5)
ELEMENT = 4
"""Bytes of an element: the step is computed in float32, which every processor can."""


def measure(model: ModelConfig, layout: Layout, batch: int, micro_batch: int = 1) -> list[Ledger]:
    """Takes one training step on random numbers, every rank a process of this machine on the CPU.

    Args:
        model: The network; channels left empty are the 69 of the paper.
        layout: How ranks share it.
        batch: Images of the step over all ranks.
        micro_batch: Images of a forward pass.

    Returns:
        What each rank sent in the step.

    Raises:
        ConfigurationError: The layout cannot cut the network or the batch, or the network is too large for this machine.
    """
    model = model if model.channels else replace(model, channels=state_channels())
    layout.check(model, batch=batch, micro_batch=micro_batch)
    _check_memory(model, layout, batch, micro_batch)
    if layout.world == 1:
        return [_step(model, Groups.alone(), batch, micro_batch)]
    with TemporaryDirectory() as folder:
        rendezvous = f"file://{Path(folder).as_posix()}/rendezvous"
        with ProcessPoolExecutor(layout.world, multiprocessing.get_context("spawn")) as pool:
            asked = [pool.submit(_rank, rank, rendezvous, model, layout, batch, micro_batch) for rank in range(layout.world)]
            return [answer.result() for answer in asked]


def table(ledgers: list[Ledger], model: ModelConfig, layout: Layout, batch: int) -> str:
    """What was counted beside what the closed formula says, by kind, in lines to read.

    Args:
        ledgers: What each rank sent, from :func:`measure`.
        model: The network.
        layout: How ranks shared it.
        batch: Images of the step.
    """
    model = model if model.channels else replace(model, channels=state_channels())
    formula = [sent_bytes(model, layout, rank, batch, ELEMENT) for rank in range(layout.world)]
    lines = [f"{'bytes sent':<12}{'messages':>10}{'all ranks':>16}{'most of a rank':>16}{'by the formula':>16}"]
    for kind in KINDS:
        sent = [ledger.sent[kind] for ledger in ledgers]
        most = f"{max(by_kind[kind] for by_kind in formula):>16,}" if kind in formula[0] else f"{'':>16}"
        lines.append(f"{kind:<12}{sum(ledger.messages[kind] for ledger in ledgers):>10,}{sum(sent):>16,}{max(sent):>16,}{most}")
    return "\n".join(lines)


def _check_memory(model: ModelConfig, layout: Layout, batch: int, micro_batch: int) -> None:
    # In float32, and without the fused kernel, about twice of what is planned.
    needed = 2 * layout.world * sum(memory_of(model, layout, batch, micro_batch).values())
    available = psutil.virtual_memory().available / 1e9
    if needed > available:
        raise ConfigurationError(
            f"All {layout.world} ranks would need about {needed:.0f} GB on this machine, which has {available:.0f} GB left",
            "A step is measured with every rank on this machine",
            "Measure the same layout of a smaller model, or leave --measure out for the formulas alone",
        )


def _rank(rank: int, rendezvous: str, model: ModelConfig, layout: Layout, batch: int, micro_batch: int) -> Ledger:
    torch.set_num_threads(1)
    choose("cpu").init_process_group(init_method=rendezvous, rank=rank, world_size=layout.world, timeout=TIMEOUT)
    groups = Groups.build(layout)
    try:
        return _step(model, groups, batch, micro_batch)
    finally:
        groups.leave()


def _step(model: ModelConfig, groups: Groups, batch: int, micro_batch: int) -> Ledger:
    network = Network(model, blocks=held_blocks(model, groups))
    pipeline = Pipeline(network, model, groups, torch.device("cpu"))
    optimizer = ShardedAdamW(pipeline.parameters(), [], pipeline.shared_parameters(), groups, 0.0, (0.9, 0.95), 1e-8)
    passes = groups.layout.micro_batches(batch, micro_batch)
    with record(groups) as ledger:
        pipeline.step(_loss, [lambda: _pass(model, pipeline, micro_batch)] * passes)
        optimizer.step(rate=1e-4, clip=1.0, remember=0.9, counted=torch.zeros(1, dtype=torch.float64))
    return ledger


def _pass(model: ModelConfig, pipeline: Pipeline, samples: int) -> Pass:
    given = {"t_B": torch.full((samples,), 0.5), "interval_B": torch.full((samples,), 24.0)}
    if not (pipeline.has_first or pipeline.has_last):
        return (), None, given
    tokens, channels = pipeline.tokens(samples).shape[:-1], len(model.channels)
    noisy, condition, velocity = (torch.randn(*tokens, count) for count in (channels, model.conditions, channels))
    return (noisy, condition), velocity, given


def _loss(predicted: Tensor, velocity: Tensor) -> Tensor:
    return (predicted - velocity).square().sum() / prod(predicted.shape)
