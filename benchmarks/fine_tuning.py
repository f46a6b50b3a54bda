"""Few network calls a step instead of nineteen: a diffusion model's sampler before and after it was tuned on rollouts, on the planet.

The teacher is the model of ``aeris demo``. Its sampler of two calls is tuned on the fair CRPS of two members after one, two and four
steps. Fair CRPS over the planet's optimum, and the spread-skill ratio, at 6 h, 1, 3 and 5 days, from 128 forecasts each; beside them the
teacher with two calls as it is, and with the ten-step Heun sampler. Forecasts go on where they were interrupted.

    python benchmarks/fine_tuning.py DEMO OUT [--steps 480] [--only tune|tuned|untuned|heun ...]
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
from aeris.demo import by_channel, training_seconds
from aeris.model import presets
from aeris.model.presets import SamplingRecipe

LEADS = {"6h": 6, "1d": 24, "3d": 72, "5d": 120}
HEUN = SamplingRecipe(solver="heun", steps=10, noise=(0.1, 200.0))
MEMBERS, STARTS, APART = 8, 16, 21


def tune(demo: Path, out: Path, steps: int, batch: int) -> dict:
    """Tunes the sampler; what it took."""
    began = time.perf_counter()
    run = aeris.train(
        presets.tiny(),
        demo / "store.zarr",
        out / "run",
        steps=steps,
        batch=batch,
        recipe=presets.fine_tuning(),
        sampling=presets.two_calls(),
        start=demo / "run",
        checkpoint_every=40,
    )
    loss = run.logbook.loss.values
    lengths = [presets.fine_tuning().objective.intervals(batch * step) for step in range(len(loss))]
    means = {f"loss_at_{length}": [float(part[:20].mean()), float(part[-20:].mean())] for length, part in _by_length(loss, lengths).items()}
    return {"seconds": training_seconds(run.logbook), "wall": time.perf_counter() - began, "steps": run.step, **means}


def _by_length(loss: np.ndarray, lengths: list[int]) -> dict[int, np.ndarray]:
    return {length: loss[np.array(lengths) == length] for length in sorted(set(lengths))}


def score(checkpoint: Path, sampling: SamplingRecipe, demo: Path, out: Path, name: str) -> dict:
    """Scores of 128 forecasts of five days."""
    truth = xr.open_zarr(demo / "planet.zarr", consolidated=False).load()
    starts = truth.time.values[: APART * STARTS : APART][:STARTS]
    began = time.perf_counter()
    forecast = aeris.forecast(checkpoint, truth, starts, MEMBERS, "5d", out / f"{name}.zarr", sampling=sampling, compile=True)
    seconds = time.perf_counter() - began
    leads = np.array([np.timedelta64(hours, "h") for hours in LEADS.values()]).astype("timedelta64[ns]")
    chosen = forecast.sel(prediction_timedelta=leads).load()
    scores = aeris.verify(chosen, truth, metrics=("crps", "spread_skill"), baselines=("optimum",))
    crps, ratio = (by_channel(scores, metric) for metric in ("crps", "spread_skill"))
    told: dict = {"seconds": round(seconds, 1), "calls": len(_calls(sampling))}
    for label, lead in zip(LEADS, leads, strict=True):
        at = crps.sel(prediction_timedelta=lead)
        over = at.sel(system="forecast", drop=True) / at.sel(system="optimum", drop=True)
        told[label] = {
            "crps_over_optimum": round(float(over.to_array().mean()), 4),
            "spread_skill": round(float(ratio.sel(system="forecast", prediction_timedelta=lead).to_array().mean()), 4),
        }
    return told


def _calls(sampling: SamplingRecipe) -> list[float]:
    from aeris.diffusion.solver import calls

    return calls(sampling)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=480)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=["tune", "tuned", "untuned", "heun"])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for what in given.only:
        if what == "tune":
            found = tune(given.demo, given.out, given.steps, given.batch)
        else:
            checkpoint = given.out / "run" if what == "tuned" else given.demo / "run"
            found = score(checkpoint, HEUN if what == "heun" else presets.two_calls(), given.demo, given.out, what)
        print(json.dumps({what: found, "threads": torch.get_num_threads()}), flush=True)


if __name__ == "__main__":
    main()
