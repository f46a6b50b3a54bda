"""Processes that wait for work, so that a layout's test does not start its ranks anew."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = 120


class RankError(Exception):
    """What went wrong on the ranks that failed."""


class Ranks:
    """A pool of single-threaded processes that form a gloo world of any size up to their number.

    Args:
        count: Most ranks that a job may ask for; they start when they are first needed.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._workers: list[tuple[Any, Connection]] = []
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["aeris.training.trainer", "aeris.forecasting.ensemble", "torch.distributed.pipelining"])

    def run(self, world: int, job: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Runs `job(*arguments)` on so many ranks and returns what each gave."""
        assert world <= self.count
        while len(self._workers) < world:
            here, there = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(there,), daemon=True)
            process.start()
            self._workers.append((process, here))
        with tempfile.TemporaryDirectory() as folder:
            for rank, (_, pipe) in enumerate(self._workers[:world]):
                pipe.send((job, arguments, rank, world, os.path.join(folder, "rendezvous")))
            answers = [self._answer(rank) for rank in range(world)]
        failed = [answer for good, answer in answers if not good]
        if failed:
            self.close()
            raise RankError("\n".join(failed))
        return [answer for _, answer in answers]

    def _answer(self, rank: int) -> tuple[bool, Any]:
        process, pipe = self._workers[rank]
        if not pipe.poll(TIMEOUT):
            return False, f"rank {rank} gave no answer within {TIMEOUT} s"
        try:
            return pipe.recv()
        except EOFError:
            return False, f"rank {rank} died (exit {process.exitcode})"

    def close(self) -> None:
        """Ends the processes."""
        for process, _ in self._workers:
            process.kill()
            process.join()
        self._workers.clear()


def _serve(pipe: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        job, arguments, rank, world, rendezvous = pipe.recv()
        try:
            if world > 1:
                dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
            answer = True, job(*arguments)
        except BaseException:
            answer = False, f"rank {rank} of {world}:\n{traceback.format_exc()}"
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
        pipe.send(answer)
