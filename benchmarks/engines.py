"""Engines against torchrun, on the same layout of two ranks, and the time from a cluster to its first step.

    python benchmarks/engines.py

Pairs of short trainings take turns, so that a machine that speeds up or slows down does so for both. What is compared is the mean
time of a step; how long processes and engines take to start is told apart.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import aeris
from aeris.run import Run

PAIRS, STEPS, FIRST = 9, 30, 5
"""Of each training the first steps are left out."""

LAYOUT = aeris.Layout(dp=2)
HOW = {"steps": STEPS, "batch": 4, "precision": "float32"}


def step_seconds(run: Run) -> float:
    return float(run.logbook.seconds[FIRST:].mean())


def with_torchrun(store: Path, out: Path) -> float:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "aeris", "train", "--data", str(store)]
    command += ["--out", str(out), "--layout.dp", "2", *(word for key, value in HOW.items() for word in (f"--{key}", str(value)))]
    subprocess.run(command, check=True, capture_output=True)
    return step_seconds(Run.open(out))


def with_engines(cluster: aeris.Cluster, store: Path, out: Path) -> float:
    run = cluster.train(aeris.presets.tiny(), store, out, layout=LAYOUT, **HOW)
    run.wait()
    return step_seconds(run)


def interval(ratios: list[float]) -> tuple[float, float]:
    """95 % interval of the median, by bootstrap."""
    drawn = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(low), float(high)


def first_step(store: Path, out: Path) -> tuple[float, float]:
    """Seconds until four engines are there, and until their first step is done."""
    began = time.perf_counter()
    with aeris.Cluster.local(engines=4) as cluster:
        started = time.perf_counter() - began
        run = cluster.train(aeris.presets.tiny(), store, out, layout=aeris.Layout(pp=2, wp=(1, 2)), **HOW)
        while not run.logbook.sizes["step"]:
            time.sleep(0.05)
        took = time.perf_counter() - began
        run.stop()
        run.wait()
    return started, took


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = aeris.prepare(aeris.simulate_planet(years=0.1), Path(folder, "store.zarr"), interval="6h").path
        ratios = []
        with aeris.Cluster.local(engines=2) as cluster:
            for pair in range(PAIRS):
                runs = [lambda out: with_torchrun(store, out), lambda out: with_engines(cluster, store, out)]
                order = (0, 1) if pair % 2 else (1, 0)
                seconds = dict(sorted((kind, runs[kind](Path(folder, f"{pair}-{kind}"))) for kind in order))
                ratios.append(seconds[1] / seconds[0])
                print(f"torchrun {seconds[0]:.3f} s a step, engines {seconds[1]:.3f} s: ratio {ratios[-1]:.3f}", flush=True)
        low, high = interval(ratios)
        print(f"engines / torchrun: median {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f}, 95 %) of {PAIRS} pairs")
        started, took = first_step(store, Path(folder, "first"))
        print(f"four engines there after {started:.1f} s, first step of pp 2 × wp 1×2 done after {took:.1f} s")


if __name__ == "__main__":
    main()
