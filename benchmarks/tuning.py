"""A calibrated sampler, chosen on one part of a season and judged on another, on the simulated planet.

The model is that of ``aeris demo``, or another run of it. `aeris.tune` tries inflations of the noise on the first 45 days of the demo's
season, by its scores at some leads; the sampler that was there and the one chosen then draw forecasts of five days from initial times of
the rest. Told are fair CRPS over the planet's optimum, mean over channels, and the spread-skill ratio. The run is only read. Called
again, it goes on where it was interrupted.

    python benchmarks/tuning.py DEMO OUT
    python benchmarks/tuning.py DEMO OUT --run ONE_CALL --leads 6h 1D 3D 5D
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import aeris
from aeris.demo import by_channel
from aeris.training.checkpoint import Checkpoint

LEADS = {"6h": 6, "1d": 24, "3d": 72, "5d": 120}
INFLATIONS = (1.1, 1.2, 1.3)
MEMBERS, STARTS, APART, DAYS = 4, 8, 21, 45


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--run", type=Path, help="another run than the demo's")
    parser.add_argument("--leads", nargs="+", default=["6h", "1D"])
    given = parser.parse_args()
    run = given.run or given.demo / "run"
    truth, began = xr.open_zarr(given.demo / "planet.zarr", consolidated=False).load(), time.perf_counter()
    first, how = truth.time.values[0], {"members": MEMBERS, "batch": MEMBERS, "compile": True, "progress": False}
    found = aeris.tune(
        run,
        truth,
        slice(first, first + np.timedelta64(DAYS, "D")),
        leads=given.leads,
        candidates=[replace(Checkpoint.open(run).sampling, inflation=inflation) for inflation in INFLATIONS],
        out=given.out / "tuning",
        **how,
    )
    print(found.table().to_string(), flush=True)
    print(json.dumps({"tuning_seconds": round(time.perf_counter() - began, 1), "threads": torch.get_num_threads()}), flush=True)
    starts = truth.time.values[truth.time.values > first + np.timedelta64(DAYS, "D")][::APART][:STARTS]
    starts = starts[starts + np.timedelta64(LEADS["5d"], "h") <= truth.time.values[-1]]
    for recipe in dict.fromkeys([found.candidates[0], found.chosen]):
        out = given.out / f"inflation-{recipe.inflation:g}.zarr"
        forecast = aeris.forecast(run, truth, starts, lead="5d", out=out, sampling=recipe, **how)
        print(json.dumps({"inflation": recipe.inflation, "initial_times": len(starts), **scored(forecast, truth)}), flush=True)


def scored(forecast: xr.Dataset, truth: xr.Dataset) -> dict:
    """Fair CRPS over the optimum's and spread-skill ratio, means over channels, by lead."""
    leads = np.array([np.timedelta64(hours, "h") for hours in LEADS.values()]).astype("timedelta64[ns]")
    scores = aeris.verify(forecast.sel(prediction_timedelta=leads), truth, metrics=("crps", "spread_skill"), baselines=("optimum",))
    crps, ratio = (by_channel(scores, metric) for metric in ("crps", "spread_skill"))
    over = (crps.sel(system="forecast", drop=True) / crps.sel(system="optimum", drop=True)).to_array().mean("variable").values
    wide = ratio.sel(system="forecast").to_array().mean("variable").values
    return {label: [round(float(one), 4), round(float(other), 4)] for label, one, other in zip(LEADS, over, wide, strict=True)}


if __name__ == "__main__":
    main()
