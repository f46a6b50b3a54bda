"""One or two network calls a step in place of nineteen: distilled, tuned on rollouts, or both, on the simulated planet.

The teacher is the model that ``aeris demo`` left. Beside its own samplers (ten-step Heun, 19 calls; its default, 7 calls):

    one          the teacher's weights, one call tuned on the fair CRPS of two members after one to eight steps, of pixels and spectrum
    two          the same with two calls
    distilled    a consistency model of one call, distilled from the teacher
    both         the distilled one, tuned as the first

Of each: fair CRPS over that of Heun and of the planet's optimum, spread-skill ratio, and power over the truth's, at 6 h, 1, 3 and 5 days,
from 128 forecasts of the same dates; and the time of one step of eight members, in turn with the others. Everything goes on where it was
interrupted, and each part is left out where it is not named.

    aeris demo --out DEMO
    python benchmarks/few_calls.py DEMO OUT --train one --score heun default one --time
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr

import aeris
from aeris.demo import APART_DAYS, MEMBERS, STARTS, by_channel, training_seconds
from aeris.diffusion.solver import calls
from aeris.forecasting.course import Move
from aeris.forecasting.ensemble import initial_states
from aeris.forecasting.rollout import Ensemble, Forecaster
from aeris.model import presets
from aeris.model.presets import SamplingRecipe
from aeris.verification.spectra import mean_power, ratio_of

LEADS = ("6h", "1D", "3D", "5D")
HEUN = SamplingRecipe(solver="heun", steps=10, noise=(0.1, 200.0))
ONE, TWO = presets.sampling_consistency(1), presets.two_calls()
TRAINED = {
    "one": (None, presets.fine_tuning(), ONE),
    "two": (None, presets.fine_tuning(), TWO),
    "distilled": (None, presets.distillation(), ONE),
    "both": ("distilled", presets.fine_tuning(), ONE),
}
"""What each begins from (the teacher where it is None), how it is trained, and its sampler."""
DRAWN = {"heun": (None, HEUN), "default": (None, SamplingRecipe()), **{name: (name, how[2]) for name, how in TRAINED.items()}}
"""Weights and sampler of each system."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", nargs="*", default=[], choices=TRAINED)
    parser.add_argument("--score", nargs="*", default=[], choices=DRAWN)
    parser.add_argument("--time", action="store_true", help="time one step of those that are there")
    parser.add_argument("--distil-steps", type=int, default=900)
    parser.add_argument("--tune-steps", type=int, default=500)
    parser.add_argument("--rate", type=float, help="largest step size of what is trained")
    parser.add_argument("--lead", default="5D")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.train:
        tell("trained", {name: train(given, name)})
    for name in given.score:
        tell("scored", {name: score(given, name)})
    if given.time:
        tell("timed", times(given))


def tell(what: str, found: dict) -> None:
    print(json.dumps({what: found, "threads": torch.get_num_threads()}), flush=True)


def weights(given: argparse.Namespace, name: str | None) -> Path:
    return given.demo / "run" if name is None else given.out / name / "run"


def train(given: argparse.Namespace, name: str) -> dict:
    """Trains one of them; what it took."""
    begins, recipe, sampling = TRAINED[name]
    tuning = isinstance(recipe.objective, presets.Crps)
    run = aeris.train(
        presets.tiny(),
        given.demo / "store.zarr",
        weights(given, name),
        steps=given.tune_steps if tuning else given.distil_steps,
        batch=2 if tuning else 4,
        recipe=recipe if given.rate is None else replace(recipe, learning_rate=given.rate),
        sampling=sampling,
        start=weights(given, begins),
        checkpoint_every=50,
        progress=False,
    )
    loss = run.logbook.loss.values
    return {
        "seconds": round(training_seconds(run.logbook), 1),
        "steps": run.step,
        "loss": [float(loss[:50].mean()), float(loss[-50:].mean())],
    }


def score(given: argparse.Namespace, name: str) -> dict:
    """Draws 128 forecasts of one of them, and scores them."""
    truth = xr.open_zarr(given.demo / "planet.zarr", consolidated=False).load()
    stride = APART_DAYS * 4 + 1
    starts = truth.time.values[: stride * STARTS : stride][:STARTS]
    whose, sampling = DRAWN[name]
    leads = [lead for lead in pd.to_timedelta(list(LEADS)) if lead <= pd.Timedelta(given.lead)]
    out = given.out / f"{name}-{given.lead}.zarr"
    forecast = aeris.forecast(
        weights(given, whose), truth, starts, MEMBERS, given.lead, out, sampling=sampling, compile=True, progress=False
    )
    forecast = forecast.sel(prediction_timedelta=leads).load()
    scores = aeris.verify(forecast, truth, metrics=("crps", "spread_skill"), baselines=("optimum",))
    crps, ratio = (by_channel(scores, metric) for metric in ("crps", "spread_skill"))
    power = by_channel(ratio_of(mean_power(forecast, truth))).sel(degree=slice(1, 23)).to_array().mean("variable")
    told: dict = {"calls": len(calls(sampling))}
    for label, lead in zip(LEADS, forecast.prediction_timedelta.values, strict=False):
        at = crps.sel(prediction_timedelta=lead)
        ours = at.sel(system="forecast", drop=True).to_array()
        told[label] = {
            "crps_over_optimum": round(float((ours / at.sel(system="optimum", drop=True).to_array()).mean()), 4),
            "crps": dict(zip(ours["variable"].values.tolist(), ours.values.tolist(), strict=True)),
            "spread_skill": round(float(ratio.sel(system="forecast", prediction_timedelta=lead).to_array().mean()), 4),
            "power": [round(float(end(power.sel(prediction_timedelta=lead))), 3) for end in (np.min, np.max)],
        }
    _remember(given.out / "scores.json", name, told)
    return {label: _over_heun(given.out, name, label, at) if isinstance(at, dict) else at for label, at in told.items()}


def _remember(file: Path, name: str, told: dict) -> None:
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**known, name: told}))


def _over_heun(out: Path, name: str, label: str, at: dict) -> dict:
    """Scores at one lead, with CRPS over that of Heun, averaged over channels, where Heun was scored before."""
    known = json.loads((out / "scores.json").read_text())
    shown = {key: value for key, value in at.items() if key != "crps"}
    if label in known.get("heun", {}):
        heun = known["heun"][label]["crps"]
        shown["crps_over_heun"] = round(float(np.mean([at["crps"][channel] / heun[channel] for channel in heun])), 4)
    return shown


def times(given: argparse.Namespace, turns: int = 9) -> dict:
    """Times one step of eight members by each system that is there, in turn; medians of the time of Heun over that of each."""
    truth = xr.open_zarr(given.demo / "planet.zarr", consolidated=False).isel(time=slice(1)).load()
    start = truth.time.values[:1]
    there = {name: made for name, made in DRAWN.items() if weights(given, made[0]).exists()}
    forecasters = {name: Forecaster(weights(given, whose), sampling, compile=True) for name, (whose, sampling) in there.items()}
    seconds: dict[str, list[float]] = {name: [] for name in forecasters}
    for _ in range(turns):
        for name, forecaster in forecasters.items():
            fields = torch.from_numpy(initial_states(truth, forecaster.checkpoint, start)).repeat(8, 1, 1, 1)
            ensemble = Ensemble(start[0], range(8), {0: forecaster.fields.whole_tokens(fields.to(forecaster.fields.dtype))})
            before = time.perf_counter()
            forecaster.step([ensemble], [Move(0, 1)], 0)
            seconds[name].append(time.perf_counter() - before)
    found = {}
    for name, taken in seconds.items():
        ratios = [slow / fast for slow, fast in zip(seconds["heun"][1:], taken[1:], strict=True)]
        found[name] = {"heun_over": round(float(np.median(ratios)), 2), "from": round(min(ratios), 2), "to": round(max(ratios), 2)}
    return found


if __name__ == "__main__":
    main()
