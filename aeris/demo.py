"""The whole line on the simulated planet: simulate, prepare, train, forecast, verify, and a page to look at.

The planet's exact forecast stands beside the model's, so that the numbers are ratios to the best that any model could reach.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from aeris import device as devices
from aeris.data.disk import write_whole
from aeris.data.planet import Planet
from aeris.data.store import prepare
from aeris.data.variables import parse_channel
from aeris.forecasting.ensemble import forecast
from aeris.model import presets
from aeris.run import Run
from aeris.training.trainer import train
from aeris.verification.calibration import rank_histogram
from aeris.verification.climatology import ensemble_climatology
from aeris.verification.scores import verify, write_scores
from aeris.verification.spectra import mean_power, ratio_of
from aeris.views.report import write_report

YEARS = 2.0
MEMBERS = 8
SHOWN_MEMBERS = 16
STARTS = 16
APART_DAYS = 5
SHOWN_DAYS = 5
COMPILING_STEPS = 3


@dataclass(frozen=True)
class Demo:
    """What a demo left behind.

    Attributes:
        report: The page to look at.
        scores: Content of ``scores.json``.
    """

    report: Path
    scores: dict[str, Any]


def demo(out: str | Path = "demo", steps: int = 700, seed: int = 0, lead: str = "24h", say: Callable[[str], None] = print) -> Demo:
    """Runs the whole line and leaves planet, store, run, forecast, scores and report in a directory.

    Every part goes on where an earlier call was interrupted.

    Args:
        out: The directory.
        steps: Optimizer steps.
        seed: Seed of training and sampling.
        lead: Length of the forecasts that are scored; scores are told at 6 h, 24 h and this lead.
        say: Receives a line about each part.

    Returns:
        Where the report is, and the scores.
    """
    out, began = Path(out), time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    world = Planet(grid=(32, 64), seed=0)
    say(f"1/6  simulating {YEARS:g} years of a planet, and the season to forecast")
    past, truth = world.simulate(years=YEARS, start="2001-01-01", seed=0), _truth(world, out)
    say("2/6  preparing the training store")
    store = prepare(past, out / "store.zarr", interval="6h")
    say(f"3/6  training for {steps} steps")
    precision = _precision(out / "run")
    run = train(presets.tiny(), store, out / "run", steps=steps, batch=4, seed=seed, precision=precision)
    say(f"4/6  forecasting {SHOWN_MEMBERS} members for {SHOWN_DAYS} days, and {MEMBERS} from {STARTS - 1} other initial times for {lead}")
    starts = _starts(truth)
    how: dict[str, Any] = {"seed": seed, "batch": MEMBERS, "precision": precision, "compile": True}
    others = forecast(run, truth, starts[1:], MEMBERS, lead, out / "scored.zarr", **how).load()
    longest = max(pd.Timedelta(days=SHOWN_DAYS), pd.Timedelta(others.prediction_timedelta.values[-1]))
    shown = forecast(run, truth, starts[:1], SHOWN_MEMBERS, longest, out / "forecast.zarr", **how).load()
    scored = xr.concat([shown.sel(number=others.number, prediction_timedelta=others.prediction_timedelta), others], "time")
    say("5/6  verifying against persistence, climatology and the optimum")
    scores = verify(scored, truth, ensemble_climatology(past), ("persistence", "climatology", "optimum"))
    write_scores(scores, out / "scores.zarr")
    spectra = mean_power(scored, truth)
    summary = summarise(scores, ratio_of(spectra), training_seconds(run.logbook), steps, STARTS * MEMBERS)
    write_whole(out / "scores.json", [json.dumps(summary, indent=1).encode()])
    say("6/6  writing the report")
    report = write_report(
        out / "report.html",
        forecast=shown,
        truth=truth,
        scores=scores,
        spectra=spectra,
        facts=_facts(summary, run.configuration, began),
        ranks=rank_histogram(scored, truth),
        optimum=world.forecast(truth.sel(time=starts[:1]), list(shown.prediction_timedelta.values), SHOWN_MEMBERS),
    )
    return Demo(report, summary)


def training_seconds(logbook: xr.Dataset) -> float:
    """Seconds of all steps, with the first ones, in which the network is compiled, counted as the median step."""
    seconds = logbook.seconds.values
    return float(np.minimum(seconds[:COMPILING_STEPS], np.median(seconds)).sum() + seconds[COMPILING_STEPS:].sum())


def _truth(world: Planet, out: Path) -> xr.Dataset:
    """A season that the model is not trained on, kept in the demo's directory."""
    path = out / "planet.zarr"
    if not path.exists():
        partial = out / ".planet.partial"
        days = STARTS * APART_DAYS + SHOWN_DAYS + 5
        world.simulate(years=days / 365.25, start="2005-01-01", seed=1).to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
        partial.rename(path)
    return xr.open_zarr(path, consolidated=False).load()


def _precision(path: Path) -> Literal["bfloat16", "float32"]:
    """The faster dtype on this machine, or that of the run that is gone on with."""
    started = (path / "run.json").exists()
    return Run.open(path).configuration["precision"] if started else devices.choose().fastest_precision()


def _starts(truth: xr.Dataset) -> np.ndarray:
    """Initial times at least `APART_DAYS` apart; an hour is added in turn so that every time of the day has its share."""
    stride = APART_DAYS * 4 + 1
    return truth.time.values[: stride * STARTS : stride][:STARTS]


def summarise(scores: xr.Dataset, spectra: xr.Dataset, seconds: float, steps: int, forecasts: int) -> dict[str, Any]:
    """The content of ``scores.json``, from scores that hold the forecast, persistence, climatology and the optimum.

    Args:
        scores: As `aeris.verify` gives them.
        spectra: Ratio of spherical-harmonic power to the truth's, by degree.
        seconds: Seconds of training, compilation left out.
        steps: Optimizer steps.
        forecasts: Number of forecasts scored.
    """
    crps, rmse, ratio = (by_channel(scores, name) for name in ("crps", "rmse", "spread_skill"))
    leads = [lead for lead in ("6h", "24h", "72h") if np.timedelta64(int(lead[:-1]), "h") in scores.prediction_timedelta]
    told = {lead: np.timedelta64(int(lead[:-1]), "h").astype("timedelta64[ns]") for lead in leads}

    def over_optimum(score: xr.Dataset, lead: np.timedelta64) -> dict[str, Any]:
        at = score.sel(prediction_timedelta=lead)
        ratios = at.sel(system="forecast", drop=True) / at.sel(system="optimum", drop=True)
        values = {str(name): round(float(value), 4) for name, value in ratios.data_vars.items()}
        return {"mean": round(float(np.mean(list(values.values()))), 4), "by_channel": values}

    def beats(system: str) -> bool:
        better = crps.sel(system="forecast", drop=True) < crps.sel(system=system, drop=True)
        return bool(better.sel(prediction_timedelta=list(told.values())).to_array().all())

    power = _up_to_three_quarters(by_channel(spectra))
    return {
        "training_seconds": round(seconds, 1),
        "steps": steps,
        "forecasts": forecasts,
        "crps_over_optimum": {name: over_optimum(crps, lead) for name, lead in told.items()},
        "rmse_over_optimum": {name: over_optimum(rmse, lead) for name, lead in told.items()},
        "spread_skill": {
            name: round(float(ratio.sel(system="forecast", prediction_timedelta=lead).to_array().mean()), 4) for name, lead in told.items()
        },
        "spectrum_ratio": {name: _range(power.sel(prediction_timedelta=lead).to_array().mean("variable")) for name, lead in told.items()},
        "worst_channel_spectrum_ratio": {name: _range(power.sel(prediction_timedelta=lead).to_array()) for name, lead in told.items()},
        "beats_persistence": beats("persistence"),
        "beats_climatology": beats("climatology"),
    }


def by_channel(ds: xr.Dataset, score: str | None = None) -> xr.Dataset:
    """One variable a channel: those of one score, without its prefix, and with each level for itself."""
    channels: dict[str, xr.DataArray] = {}
    for name, field in ds.data_vars.items():
        prefix, _, variable = str(name).rpartition(".")
        if prefix != (score or ""):
            continue
        if "level" not in field.dims:
            channels[variable] = field
            continue
        for level in field.level.values:
            channels[parse_channel(f"{variable}_{int(level)}").name] = field.sel(level=level, drop=True)
    return xr.Dataset(channels)


def _up_to_three_quarters(power: xr.Dataset) -> xr.Dataset:
    """Degrees from 1 to three quarters of the truncation."""
    return power.sel(degree=slice(1, int(0.75 * float(power.degree.max()))))


def _range(values: xr.DataArray) -> list[float]:
    return [round(float(values.min()), 4), round(float(values.max()), 4)]


def _facts(summary: dict[str, Any], configuration: dict[str, Any], began: float) -> dict[str, str]:
    """What was run, on what, and how long it took."""
    crps, ratio = summary["crps_over_optimum"], summary["spread_skill"]
    return {
        "Fair CRPS over the optimum's": ", ".join(f"{value['mean']:.3f} at {lead}" for lead, value in crps.items()),
        "Spread-skill ratio": ", ".join(f"{value:.2f} at {lead}" for lead, value in ratio.items()),
        "Better than persistence and climatology in every channel": "yes"
        if summary["beats_persistence"] and summary["beats_climatology"]
        else "no",
        "Forecasts scored": f"{summary['forecasts']}, from {STARTS} initial times {APART_DAYS} days or more apart",
        "Model": "tiny, {dim} wide, {depth} blocks, windows of {window[0]}×{window[1]} pixels".format(**configuration["model"]),
        "Training": "{} steps of {} images in {:.0f} s, {}".format(
            summary["steps"], configuration["batch"], summary["training_seconds"], configuration["precision"]
        ),
        "Machine": f"{platform.machine()}, {platform.system()}",
        "Versions": ", ".join(f"{name} {version}" for name, version in configuration["versions"].items()),
        "Whole demo": f"{time.perf_counter() - began:.0f} s",
    }
