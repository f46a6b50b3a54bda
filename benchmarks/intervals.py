"""One network for steps of 6, 12 and 24 hours beside the demo's network of 6 hours, on the planet.

The model of ``aeris demo`` is trained once more, now on random intervals, for as many steps. Fair CRPS over the planet's optimum, and
the spread-skill ratio, at 6 h, 1, 3 and 5 days: of the demo's network, and of the other in steps of 6 h and of 24 h. At whole days
forecasts in the fewest steps are those in steps of 24 h, bit for bit, and at 6 h those in steps of 6 h. What was interrupted goes on.

    python benchmarks/intervals.py DEMO OUT [--steps 700] [--starts 8] [--only train|demo|6h|24h ...]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import aeris
from aeris.demo import APART_DAYS, YEARS, by_channel, training_seconds
from aeris.diffusion.solver import calls
from aeris.model import presets
from aeris.training.checkpoint import Checkpoint

LEADS = {"6h": 6, "1d": 24, "3d": 72, "5d": 120}
HOURS = (6, 12, 24)
MEMBERS = 8


def train(demo: Path, out: Path, steps: int) -> dict:
    """Trains on all intervals as the demo was on one; what it took."""
    began = time.perf_counter()
    past = aeris.Planet(grid=(32, 64), seed=0).simulate(years=YEARS, start="2001-01-01", seed=0)
    store = aeris.prepare(past, out / "store.zarr", interval="6h", intervals=[f"{hours}h" for hours in HOURS])
    asked = aeris.Run.open(demo / "run").configuration
    run = aeris.train(presets.tiny(intervals=HOURS), store, out / "run", steps, asked["batch"], precision=asked["precision"])
    return {
        "seconds": training_seconds(run.logbook),
        "wall": time.perf_counter() - began,
        "steps": run.step,
        "precision": asked["precision"],
    }


def score(checkpoint: Path, step: str, demo: Path, out: Path, starts: int) -> dict:
    """Scores of forecasts of five days in steps of one length."""
    truth = xr.open_zarr(demo / "planet.zarr", consolidated=False).load()
    apart = APART_DAYS * 4 + 1
    times = truth.time.values[: apart * starts : apart][:starts]
    began = time.perf_counter()
    precision = aeris.Run.open(demo / "run").configuration["precision"]
    forecast = aeris.forecast(checkpoint, truth, times, MEMBERS, "5d", out, precision=precision, compile=True, step=step)
    seconds, samplings = time.perf_counter() - began, forecast.sizes["prediction_timedelta"]
    told: dict = {"seconds": round(seconds, 1), "calls": samplings * len(calls(Checkpoint.open(checkpoint).sampling))}
    leads = np.array([np.timedelta64(hours, "h") for hours in LEADS.values()]).astype("timedelta64[ns]")
    leads = leads[np.isin(leads, forecast.prediction_timedelta)]
    chosen = forecast.sel(prediction_timedelta=leads).load()
    scores = aeris.verify(chosen, truth, metrics=("crps", "spread_skill"), baselines=("optimum",))
    crps, ratio = (by_channel(scores, metric) for metric in ("crps", "spread_skill"))
    for lead in leads:
        at = crps.sel(prediction_timedelta=lead)
        over = at.sel(system="forecast", drop=True) / at.sel(system="optimum", drop=True)
        told[f"{lead / np.timedelta64(1, 'h'):g}h"] = {
            "crps_over_optimum": round(float(over.to_array().mean()), 4),
            "spread_skill": round(float(ratio.sel(system="forecast", prediction_timedelta=lead).to_array().mean()), 4),
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--only", nargs="+", default=["train", "24h", "6h", "demo"])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for what in given.only:
        if what == "train":
            found = train(given.demo, given.out, given.steps)
        else:
            checkpoint, step = (given.demo / "run", "6h") if what == "demo" else (given.out / "run", what)
            found = score(checkpoint, step, given.demo, given.out / f"{what}.zarr", given.starts)
        print(json.dumps({what: found, "threads": torch.get_num_threads()}), flush=True)


if __name__ == "__main__":
    main()
