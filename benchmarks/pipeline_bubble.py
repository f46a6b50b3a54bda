"""Idle share of every schedule, with stages that sleep instead of computing.

    torchrun --nproc-per-node 4 benchmarks/pipeline_bubble.py

Forward, input gradient and weight gradient of a stage take 20 ms each. Of a pipeline of PP ranks, v stages each, and M micro-batches a
schedule without zero bubble is idle (PP − 1) / (v·M + PP − 1) of the time. A rank is idle while it is in none of its passes: what Python
and autograd do within a pass is work, waiting for a message is not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import nn

from aeris.device import choose
from aeris.swipe import Groups, Layout, Pipeline, deferral
from aeris.swipe.layout import STAGES_PER_RANK
from aeris.swipe.routed_stage import RoutedStage

PAUSE, PASSES, STEPS = 0.02, 8, 11


@dataclass(frozen=True)
class Shape:
    """Dimensions of a network whose blocks are all alike."""

    depth: int
    grid: tuple[int, int] = (2, 2)
    window: tuple[int, int] = (2, 2)
    heads: int = 1

    def shifted(self, block: int) -> bool:
        return False


class Sleep(torch.autograd.Function):
    """Sleeps in both directions."""

    @staticmethod
    def forward(ctx, x, backward):
        ctx.backward_pause = backward
        time.sleep(PAUSE)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(ctx.backward_pause)
        return gradient, None


class Block(nn.Module):
    """A block that sleeps; its weight gradient sleeps with the rest of the backward pass, or waits."""

    def __init__(self, waits: bool) -> None:
        super().__init__()
        self.linear, self.pause = nn.Linear(4, 4, bias=False), PAUSE if waits else 2 * PAUSE

    def forward(self, x, context, seam):
        return Sleep.apply(self.linear(x), self.pause)


class Network(nn.Module):
    """Blocks and nothing else."""

    width, compute_dtype, token_fields, tokens_per_pixel = 4, torch.float32, (), 1

    def __init__(self, depth: int, waits: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(waits) for _ in range(depth))

    def context(self, t):
        return t

    def embed(self, x):
        return x

    def read_out(self, x, context):
        return x


def slow_gradient(add, *arguments) -> None:
    time.sleep(PAUSE)
    add(*arguments)


class Clock:
    """Adds up the seconds that a rank spends in passes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, method):
        """The same method of a stage, timed."""

        def timed(*arguments, **options):
            started = time.perf_counter()
            result = method(*arguments, **options)
            self.seconds += time.perf_counter() - started
            return result

        return timed


def one_pass():
    x = torch.zeros(1, 1, 1, 4, 1, 4)
    return (x,), x, {"t": torch.zeros(1)}


def one_step(pipeline: Pipeline, clock: Clock) -> tuple[float, float]:
    """Seconds of a step, and the share of it that the ranks were idle, in the mean."""
    dist.barrier()
    clock.seconds, started = 0.0, time.perf_counter()
    pipeline.step(lambda y, target: (y - target).square().sum(), [one_pass] * PASSES)
    dist.barrier()
    seconds = time.perf_counter() - started
    idle = torch.tensor(1 - clock.seconds / seconds)
    dist.all_reduce(idle)
    return seconds, float(idle) / dist.get_world_size()


def main() -> None:
    device, world, clock = choose(), None, Clock()
    add = deferral._add_gradient
    for name in ("forward_one_chunk", "backward_one_chunk", "backward_weight_one_chunk"):
        setattr(RoutedStage, name, clock.watch(getattr(RoutedStage, name)))
    for schedule, stages in STAGES_PER_RANK.items():
        waits = schedule in ("interleaved_zero_bubble", "zbv")
        if world is None:
            device.init_process_group()
            world = dist.get_world_size()
        deferral._add_gradient = partial(slow_gradient, add)
        groups = Groups.build(Layout(pp=world, schedule=schedule))
        pipeline = Pipeline(Network(world * stages, waits), Shape(world * stages), groups, torch.device("cpu"))
        measured = sorted(one_step(pipeline, clock) for _ in range(STEPS))
        seconds, idle = measured[STEPS // 2]
        if dist.get_rank() == 0:
            formula, least = (world - 1) / (stages * PASSES + world - 1), stages * PASSES * 3 * PAUSE
            print(f"{schedule:<26} idle {idle:6.1%}   formula {formula:6.1%}   step {seconds / least:.2f} of its sleep", flush=True)


if __name__ == "__main__":
    main()
