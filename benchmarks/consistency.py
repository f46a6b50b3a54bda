"""A one-step model distilled on the simulated planet, beside the forty calls of its teacher.

    aeris demo --out demo
    python benchmarks/consistency.py --demo demo --out distilled --steps 900

trains from the demo's weights, draws the same ensembles with both, and prints by lead fair CRPS over that of the teacher's ten-step Heun
sampler, spread-skill ratio and power over the truth's, and the time of 19 calls over that of one, measured in turn.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import aeris
from aeris.demo import APART_DAYS, MEMBERS, STARTS, by_channel, training_seconds
from aeris.forecasting.ensemble import initial_states
from aeris.forecasting.rollout import Ensemble, Forecaster
from aeris.model import presets
from aeris.model.presets import SamplingRecipe
from aeris.verification.spectra import mean_power, ratio_of

HEUN = SamplingRecipe(solver="heun", steps=10, noise=(0.1, 200.0))
OURS = {"one call": presets.sampling_consistency(1), "two calls": presets.sampling_consistency(2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True, help="directory that aeris demo left")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--rate", type=float, default=3e-3, help="largest step size")
    parser.add_argument("--lead", default="24h")
    options = parser.parse_args()
    teacher = aeris.Run.open(options.demo / "run")
    recipe = replace(presets.distillation(), learning_rate=options.rate)
    precision = teacher.configuration["precision"]
    how = {"steps": options.steps, "start": teacher, "recipe": recipe, "precision": precision, "progress": False}
    run = aeris.train(presets.tiny(), options.demo / "store.zarr", options.out / "run", **how)
    logbook = run.logbook
    print(f"{options.steps} steps in {training_seconds(logbook):.0f} s; loss {logbook.loss[-100:].mean():.4f} at the end", flush=True)
    speed(teacher, run, options.demo, precision)
    truth = xr.open_zarr(options.demo / "planet.zarr", consolidated=False).load()
    scores = {name: score(made, truth) for name, made in forecasts(teacher, run, truth, options, precision).items()}
    for name, (crps, ratio, power) in scores.items():
        for lead in crps.prediction_timedelta.values:
            hours = int(lead / np.timedelta64(1, "h"))
            at = {"prediction_timedelta": lead}
            over = (crps.sel(at) / scores["heun"][0].sel(at)).to_array().mean()
            best = (crps.sel(at) / crps.attrs["optimum"].sel(at)).to_array().mean()
            spectrum = power.sel(at, degree=slice(1, 23)).to_array().mean("variable")
            told = f"CRPS {over:.3f} of Heun, {best:.3f} of the optimum; spread-skill {ratio.sel(at).to_array().mean():.3f}"
            print(f"{name:<10} {hours:>4} h  {told}; power {spectrum.min():.3f} to {spectrum.max():.3f}", flush=True)


def forecasts(teacher: aeris.Run, run: aeris.Run, truth: xr.Dataset, options: argparse.Namespace, precision: str) -> dict[str, xr.Dataset]:
    """The same dates and members by each sampler."""
    stride = APART_DAYS * 4 + 1
    starts = truth.time.values[: stride * STARTS : stride][:STARTS]
    made = {}
    for name, (weights, sampling) in {"heun": (teacher, HEUN), **{name: (run, recipe) for name, recipe in OURS.items()}}.items():
        out = options.out / f"{name.replace(' ', '_')}.zarr"
        how = {"sampling": sampling, "precision": precision, "progress": False}
        made[name] = aeris.forecast(weights, truth, starts, MEMBERS, options.lead, out, 0, **how).load()
    return made


def score(forecast: xr.Dataset, truth: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Fair CRPS with the optimum's in its attributes, spread-skill ratio, and power over the truth's, by channel."""
    scores = aeris.verify(forecast, truth, None, ("optimum",))
    crps, ratio = (by_channel(scores, name) for name in ("crps", "spread_skill"))
    ours = crps.sel(system="forecast", drop=True).assign_attrs(optimum=crps.sel(system="optimum", drop=True))
    return ours, ratio.sel(system="forecast", drop=True), by_channel(ratio_of(mean_power(forecast, truth)))


def speed(teacher: aeris.Run, run: aeris.Run, demo: Path, precision: str, turns: int = 7) -> None:
    """Times one step of eight members with 19 calls and with one, in turn."""
    truth = xr.open_zarr(demo / "planet.zarr", consolidated=False).isel(time=slice(1)).load()
    drawn = {"19": Forecaster(teacher.path, HEUN, precision), "1": Forecaster(run.path, OURS["one call"], precision)}
    start = truth.time.values[:1]
    seconds: dict[str, list[float]] = {name: [] for name in drawn}
    for _ in range(turns):
        for name, forecaster in drawn.items():
            fields = torch.from_numpy(initial_states(truth, forecaster.checkpoint, start)).repeat(8, 1, 1, 1)
            ensemble = Ensemble(start[0], range(8), forecaster.fields.whole_tokens(fields.to(forecaster.fields.dtype)))
            before = time.perf_counter()
            forecaster.step([ensemble], 0)
            seconds[name].append(time.perf_counter() - before)
    ratios = [slow / fast for slow, fast in zip(seconds["19"][1:], seconds["1"][1:], strict=True)]
    print(
        f"a step of eight members: 19 calls take {np.median(ratios):.1f} times as long as one ({min(ratios):.1f} to {max(ratios):.1f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
