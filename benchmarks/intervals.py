"""One network for steps of 6, 12 and 24 hours beside one for steps of 6 hours, on the planet.

Both are trained for as many steps on the same store. Fair CRPS over the planet's optimum, and the spread-skill ratio, at 6 h, 1, 3 and
5 days: of the one network (``one``), and of the other in steps of 6 h and of 24 h. At whole days forecasts in the fewest steps are those in
steps of 24 h, bit for bit, and at 6 h those in steps of 6 h. What was interrupted goes on.

    python benchmarks/intervals.py OUT [--grid 32 64] [--dim 96] [--steps 700] [--years 2] [--starts 16] [--only train one 24h 6h]
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
from aeris.demo import APART_DAYS, by_channel, training_seconds
from aeris.device import choose
from aeris.diffusion.solver import calls
from aeris.model import presets
from aeris.training.checkpoint import Checkpoint

LEADS = {"6h": 6, "1d": 24, "3d": 72, "5d": 120}
HOURS = (6, 12, 24)
MEMBERS = 8


def data(given: argparse.Namespace) -> tuple[aeris.Store, xr.Dataset]:
    """The store of all intervals, and a season that is not trained on."""
    world, kept = aeris.Planet(grid=tuple(given.grid), seed=0), given.out / "truth.zarr"
    if not kept.exists():
        past = world.simulate(years=given.years, start="2001-01-01", seed=0)
        aeris.prepare(past, given.out / "store.zarr", interval="6h", intervals=[f"{hours}h" for hours in HOURS])
        days = given.starts * (APART_DAYS + 1) + 6
        world.simulate(years=days / 365.25, start="2005-01-01", seed=1).to_zarr(kept, zarr_format=3, consolidated=False)
    return aeris.Store.open(given.out / "store.zarr"), xr.open_zarr(kept, consolidated=False).load()


def train(given: argparse.Namespace, store: aeris.Store) -> dict:
    """Trains a network of one interval and one of all, each beginning with the same weights; what it took."""
    seconds = {}
    for name, intervals in (("one", ()), ("several", HOURS)):
        model = presets.tiny(grid=tuple(given.grid), dim=given.dim, mlp=8 * given.dim // 3, intervals=intervals)
        precision = choose().fastest_precision()
        run = aeris.train(model, store, given.out / name, steps=given.steps, precision=precision, checkpoint_every=100)
        seconds[name] = {"seconds": round(training_seconds(run.logbook), 1), "loss": round(float(run.logbook.loss[-100:].mean()), 4)}
    return seconds


def score(given: argparse.Namespace, truth: xr.Dataset, checkpoint: Path, step: str) -> dict:
    """Scores of forecasts of five days in steps of one length."""
    apart = APART_DAYS * 4 + 1
    times = truth.time.values[: apart * given.starts : apart][: given.starts]
    began, precision = time.perf_counter(), choose().fastest_precision()
    out = given.out / f"{checkpoint.name}-{step}.zarr"
    forecast = aeris.forecast(checkpoint, truth, times, MEMBERS, "5d", out, precision=precision, step=step)
    seconds, samplings = time.perf_counter() - began, forecast.sizes["prediction_timedelta"]
    told: dict = {"seconds": round(seconds, 1), "calls": samplings * len(calls(Checkpoint.open(checkpoint).sampling))}
    leads = {name: np.timedelta64(hours, "h").astype("timedelta64[ns]") for name, hours in LEADS.items()}
    there = {name: lead for name, lead in leads.items() if lead in forecast.prediction_timedelta.values}
    chosen = forecast.sel(prediction_timedelta=list(there.values())).load()
    scores = aeris.verify(chosen, truth, metrics=("crps", "spread_skill"), baselines=("optimum",))
    crps, ratio = (by_channel(scores, metric) for metric in ("crps", "spread_skill"))
    for name, lead in there.items():
        at = crps.sel(prediction_timedelta=lead)
        over = at.sel(system="forecast", drop=True) / at.sel(system="optimum", drop=True)
        told[name] = {
            "crps_over_optimum": round(float(over.to_array().mean()), 4),
            "spread_skill": round(float(ratio.sel(system="forecast", prediction_timedelta=lead).to_array().mean()), 4),
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--grid", type=int, nargs=2, default=[32, 64])
    parser.add_argument("--dim", type=int, default=96)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--years", type=float, default=2.0)
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--only", nargs="+", default=["train", "24h", "6h", "one"])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    store, truth = data(given)
    for what in given.only:
        if what == "train":
            found = train(given, store)
        else:
            whose, step = ("one", "6h") if what == "one" else ("several", what)
            found = score(given, truth, given.out / whose, step)
        print(json.dumps({what: found, "threads": torch.get_num_threads()}), flush=True)


if __name__ == "__main__":
    main()
