"""Calibration of an ensemble: samplers are tried on a validation period, and one is chosen whose spread fits its error.

An ensemble that is too narrow or too wide for its error can be mended at the sampler, without training: by churn, and by the deviation of
its noise. Each candidate draws the same forecasts with the same noise, and is held against the sampler that was there, date by date.

The choice: of the candidates whose fair CRPS cannot be told from the lowest, that whose ratio of spread and error is nearest to one, by the
mean of ``|log ratio|`` over channels and leads. CRPS alone would hardly see the spread of a small ensemble, spread alone would take any
error; a channel counts in units of its own CRPS by the sampler that was there.

Symbols: K candidates, of which the first was there before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from aeris.data.sources import open_era5
from aeris.errors import ConfigurationError, DataError, StoreError
from aeris.forecasting.ensemble import check_forecast, forecast, open_checkpoint
from aeris.forecasting.rollout import check_sampler
from aeris.forecasting.weights import BUNDLED
from aeris.model.presets import Diffusion, SamplingRecipe, tuples_of
from aeris.progress import tqdm
from aeris.run import Run
from aeris.swipe import Layout
from aeris.training.checkpoint import Checkpoint
from aeris.verification.pairing import LEAD
from aeris.verification.scores import AREA, mean_statistics, scores_of, write_scores
from aeris.verification.significance import block_lengths, compare, intervals

SCORES = ("crps", "spread_skill")
INFLATIONS = (1.0, 0.95, 1.05, 1.1, 1.15, 1.2, 1.3)
"""Of samplers that cannot churn."""

CHURNS, INFLATIONS_WITH_CHURN = (0.0, 0.1, 0.25), (1.0, 1.05, 1.1, 1.2)
"""Growth of tan t at each step, and the inflations tried with it, of samplers that can."""

PRESENT = "as it was"
"""Name of the sampler that was there."""

LEADS = ("1D", "3D", "5D")
"""Scored besides the first step."""


@dataclass(frozen=True)
class Tuning:
    """What a tuning found.

    Attributes:
        scores: By ``candidate``: ``{score}.{variable}`` as from `aeris.verify`, with ``low.*`` and ``high.*``, the interval of each;
            ``relative.{score}.{variable}``, its loss over that of the sampler that was there, less one, with ``relative_low.*`` and
            ``relative_high.*``. Over all channels, by lead: ``crps``, over that of the sampler that was there, and ``spread_skill``, each
            with ``_low`` and ``_high``. Over all channels and leads: ``over_lowest``, the CRPS over the lowest, less one, with ``_low``
            and ``_high``; ``tied``, whether it cannot be told from it; and ``misfit``, the mean of ``|log spread_skill|``.
        candidates: The samplers, in their order there; the first was there before.
        chosen: The one that is recommended.
    """

    scores: xr.Dataset
    candidates: tuple[SamplingRecipe, ...]
    chosen: SamplingRecipe

    @classmethod
    def open(cls, path: str | Path) -> Tuning:
        """Reads what `tune` left in its directory.

        Raises:
            StoreError: There is no finished tuning.
        """
        file = Path(path) / "scores.zarr"
        if not file.exists():
            raise StoreError(f"{path} holds no finished tuning", "A tuning leaves scores.zarr when it is done", "Call aeris.tune again")
        scores = xr.open_zarr(file, consolidated=False, decode_timedelta=True).load()
        recipes = tuple(_recipe(text) for text in scores.sampling.values)
        return cls(scores, recipes, recipes[int(scores.chosen.values.argmax())])

    def table(self) -> pd.DataFrame:
        """A row for each candidate: CRPS against the sampler that was there and spread over error, at each lead with its interval."""
        scores, rows = self.scores, {}
        for name in scores.candidate.values:
            one, row = scores.sel(candidate=name), {}
            for lead in scores[LEAD].values:
                at, when = one.sel({LEAD: lead}), f"{lead / np.timedelta64(1, 'h'):g} h"
                change = [100 * (float(at[part]) - 1) for part in ("crps", "crps_low", "crps_high")]
                row["CRPS, %", when] = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*change)
                ratio = [float(at[part]) for part in ("spread_skill", "spread_skill_low", "spread_skill_high")]
                row["spread / error", when] = "{:.2f} [{:.2f}, {:.2f}]".format(*ratio)
            row["all leads", "misfit"] = f"{float(one.misfit):.3f}"
            row["all leads", "CRPS"] = "chosen" if bool(one.chosen) else "tied with the lowest" if bool(one.tied) else "above the lowest"
            rows[str(name)] = row
        return pd.DataFrame.from_dict(rows, orient="index").sort_index(axis=1, level=0, sort_remaining=False)


def tune(
    checkpoint: str | Path | Run | Checkpoint,
    truth: xr.Dataset | str | Path,
    period: slice,
    *,
    members: int = 8,
    leads: Sequence[str] | None = None,
    apart: str = "126h",
    candidates: Sequence[SamplingRecipe] | None = None,
    out: str | Path = "tuning",
    seed: int = 0,
    batch: int = 8,
    precision: Literal["bfloat16", "float32", "float64"] = "bfloat16",
    compile: bool = False,
    confidence: float = 0.95,
    write: bool = False,
    progress: bool = True,
) -> Tuning:
    """Tries samplers on a validation period, chooses one, and on request makes it the checkpoint's own.

    The period must be one that the model was not trained on, and is spent afterwards: judge the chosen sampler on another. The forecasts
    lie in the directory `out`, so that an interrupted tuning goes on where it was; once it is done they can be removed.

    Args:
        checkpoint: A run, of which the newest checkpoint is taken, or a checkpoint.
        truth: Canonical dataset of the period, or anything `aeris.open_era5` opens: initial states and what happened.
        period: First initial and last valid time, both inclusive.
        members: Members of each forecast.
        leads: Leads that are scored; None takes one step, and a day, three and five where the model steps on them.
        apart: Least time between initial times; by default five days and a quarter, so that every time of the day has its share.
        candidates: Samplers to try besides the checkpoint's own; None takes :func:`candidates_of`.
        out: Directory of the forecasts and of ``scores.zarr``.
        seed: Seed of the forecasts, the same for all candidates.
        batch: Members computed together.
        precision: Dtype of the activations.
        compile: Whether to compile the network.
        confidence: Probability that the intervals shall have.
        write: Whether to write the chosen sampler into the checkpoint's manifest.
        progress: Whether to show progress bars.

    Returns:
        Scores of all candidates, and the one chosen; also in ``scores.zarr``, which `Tuning.open` reads.

    Raises:
        CheckpointError: The checkpoint is unfinished or damaged.
        ConfigurationError: A candidate, lead, period or count cannot work.
        DataError: The truth lacks a time or channel, or the period is too short.
        StoreError: `out` holds a tuning with other arguments, or the checkpoint cannot be written.
    """
    opened, truth = open_checkpoint(checkpoint), truth if isinstance(truth, xr.Dataset) else open_era5(truth)
    recipes = _checked(opened, candidates, members, write)
    scored = _leads(leads, opened.interval)
    starts = _starts(truth, period, apart, scored)
    check_forecast(opened, truth, starts, members, pd.Timedelta(scored[-1]), batch, Layout())
    how = {"members": members, "seed": seed, "batch": batch, "precision": precision, "compile": compile}
    means = [
        _statistics(opened, truth, starts, scored, recipe, Path(out), progress=progress, **how)
        for recipe in tqdm(recipes, desc="tuning", unit="sampler", disable=not progress)
    ]
    scores = _scores(means, [_name(recipe, recipes[0]) for recipe in recipes], confidence)
    about = {"weights": opened.weights_id, "step": opened.step, "members": members, "initial_times": len(starts), "confidence": confidence}
    # Text of any length, which Zarr 3 has a place for.
    coordinates = {"candidate": scores.candidate.values.astype(object), "sampling": ("candidate", _texts(recipes))}
    write_scores(scores.assign_coords(coordinates).assign_attrs(about), Path(out) / "scores.zarr")
    found = Tuning.open(out)
    if write:
        opened.recommend(found.chosen)
    return found


def _statistics(
    checkpoint: Checkpoint, truth: xr.Dataset, starts: np.ndarray, leads: np.ndarray, recipe: SamplingRecipe, out: Path, **how: Any
) -> xr.Dataset:
    """Mean statistics of the forecasts that one sampler draws, each initial time by itself."""
    place = out / "forecasts" / f"{_digest(recipe)}.zarr"
    place.parent.mkdir(parents=True, exist_ok=True)
    fc = forecast(checkpoint, truth, starts, lead=pd.Timedelta(leads[-1]), out=place, sampling=recipe, **how)
    means = mean_statistics(fc.sel({LEAD: leads}), truth, baselines=(), metrics=SCORES)
    return means[sorted(map(str, means.data_vars))]  # sums over channels have one order, whatever that in which an archive is opened


def candidates_of(checkpoint: Checkpoint) -> list[SamplingRecipe]:
    """Samplers near a checkpoint's own, at the same number of network calls.

    Inflations of the noise; with solvers that can churn each of them with three amounts of churn. Weights that were tuned through rollouts
    know the angles of their sampler alone, which churn would move.
    """
    present = checkpoint.sampling
    if present.solver in ("dpm2m", "consistency") or not isinstance(checkpoint.training.objective, Diffusion):
        return [replace(present, inflation=inflation) for inflation in INFLATIONS]
    return [replace(present, churn=growth * present.steps, inflation=inflation) for growth in CHURNS for inflation in INFLATIONS_WITH_CHURN]


def _checked(checkpoint: Checkpoint, candidates: Sequence[SamplingRecipe] | None, members: int, write: bool) -> list[SamplingRecipe]:
    """The samplers to try, that of the checkpoint first, each once."""
    asked = candidates_of(checkpoint) if candidates is None else list(candidates)
    recipes = list(dict.fromkeys([checkpoint.sampling, *asked]))
    if len(recipes) < 2:
        raise ConfigurationError(
            "No candidate but the sampler that is there", "Samplers are held against each other", "Give one more, or leave candidates out"
        )
    for recipe in recipes:
        check_sampler(recipe, checkpoint)
    if members < 2:
        raise ConfigurationError(f"members={members}", "One member has no spread", "Use members=8")
    if write and (checkpoint.path in BUNDLED.values() or not (checkpoint.path / "manifest.json").is_file()):
        raise ConfigurationError(
            f"write=True with the weights at {checkpoint.path}",
            "A sampler is written into the manifest of a checkpoint of your own",
            "Leave it out and give sampling=tuning.chosen to aeris.forecast, or tune a copy",
        )
    return recipes


def _leads(leads: Sequence[str] | None, interval: np.timedelta64) -> np.ndarray:
    """Leads that are scored, timedelta64[ns], rising."""
    step = pd.Timedelta(interval)
    if leads is None:
        leads = [str(step), *(lead for lead in LEADS if pd.Timedelta(lead) > step and not pd.Timedelta(lead) % step)]
    try:
        found = sorted({pd.Timedelta(lead) for lead in leads})
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"leads={leads}", "Leads are lengths of time", "Use for example ['6h', '3D']") from error
    wrong = [lead for lead in found if lead < step or lead % step]
    if wrong or not found:
        raise ConfigurationError(
            f"leads={list(leads)}", f"Leads are positive multiples of the model's interval, {step}", f"Use for example ['{step}']"
        )
    return np.array([lead.to_timedelta64() for lead in found]).astype("timedelta64[ns]")


def _starts(truth: xr.Dataset, period: slice, apart: str, leads: np.ndarray) -> np.ndarray:
    """Initial times of a period from which every lead ends in it, enough of them for an interval."""
    times = pd.DatetimeIndex(truth.time.values)
    try:
        inside, gap = times[times.slice_indexer(period.start, period.stop)], pd.Timedelta(apart)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"period={period}, apart={apart!r}", "A period is a slice of two dates, and apart a length of time", "Use slice('2018', '2018')"
        ) from error
    starts: list[pd.Timestamp] = []
    for time in inside:
        if time + pd.Timedelta(leads[-1]) <= inside[-1] and (not starts or time - starts[-1] >= gap):
            starts.append(time)
    chosen = np.array(starts, dtype="datetime64[ns]")
    try:
        block_lengths(xr.Dataset(coords={"time": chosen, LEAD: leads}))
    except DataError as error:
        raise DataError(
            f"period={period} holds {len(starts)} initial times {gap} apart: {error.found[0].lower()}{error.found[1:]}",
            error.rule,
            "Choose a longer period, fewer leads, or initial times at least as far apart as the longest lead is long",
        ) from error
    missing = [time for start in chosen for time in start + leads if time not in times]
    if missing:
        raise DataError(
            f"The truth has no {missing[0]}",
            "It holds every initial time and every lead after it",
            "Fill the gap, or choose another period",
        )
    return chosen


def _scores(means: Sequence[xr.Dataset], names: Sequence[str], confidence: float) -> xr.Dataset:
    """All that `Tuning.scores` holds but the samplers."""
    joined = xr.concat([one.assign_coords(system=[name]) for one, name in zip(means, names, strict=True)], "system")
    by_channel = xr.concat([scores_of(one).isel(system=0, drop=True) for one in means], pd.Index(names, name="candidate"))
    by_channel = by_channel[[name for name in by_channel if str(name).partition(".")[0] in SCORES]]
    parts = [by_channel.drop_attrs(deep=False), *(_beside(joined, score, names, confidence) for score in SCORES)]
    pooled = _over_channels(joined)
    crps = _compared(pooled, "crps", names, names[0], confidence)
    ratio = intervals(pooled, "spread_skill", confidence=confidence).rename(system="candidate")
    parts.append(_named(crps + 1, "all", "crps", "relative"))
    parts.append(_named(ratio, "all", "spread_skill", "value"))
    ratios = _along_channels(field for name, field in by_channel.items() if str(name).startswith("spread_skill."))
    parts.append(xr.Dataset({"misfit": abs(xr.apply_ufunc(np.log, ratios)).mean(["channel", LEAD])}))
    parts.append(_against_the_lowest(pooled, names, confidence))
    scores = xr.merge(parts, compat="override", join="exact")
    best = int(scores.misfit.where(scores.tied).argmin("candidate"))
    return scores.assign(chosen=("candidate", np.arange(len(names)) == best))


def _beside(means: xr.Dataset, score: str, names: Sequence[str], confidence: float) -> xr.Dataset:
    """Intervals of a score by channel, and its loss over that of the first sampler."""
    alone = intervals(means, score, confidence=confidence).rename(system="candidate")
    own = {name.replace(".", f".{score}.", 1): field for name, field in _text_named(alone).items() if not name.startswith("value.")}
    compared = _text_named(_compared(means, score, names, names[0], confidence))
    prefixes = {"relative": "relative", "low": "relative_low", "high": "relative_high"}
    split = {name: name.partition(".")[::2] for name in compared}
    other = {f"{prefixes[part]}.{score}.{variable}": compared[name] for name, (part, variable) in split.items()}
    return xr.Dataset({**own, **other})


def _text_named(ds: xr.Dataset) -> dict[str, xr.DataArray]:
    return {str(name): field for name, field in ds.data_vars.items()}


def _compared(means: xr.Dataset, score: str, names: Sequence[str], reference: str, confidence: float) -> xr.Dataset:
    """Relative difference of each candidate from one of them with its interval, ``relative.*``, ``low.*`` and ``high.*``."""
    found = [compare(means, score, system=name, reference=reference, confidence=confidence) for name in names]
    wanted = [str(name) for name in found[0].data_vars if str(name).partition(".")[0] in ("relative", "low", "high")]
    return xr.concat([one[wanted] for one in found], pd.Index(list(names), name="candidate"), combine_attrs="drop_conflicts")


def _named(found: xr.Dataset, variable: str, name: str, value: str) -> xr.Dataset:
    """A value and its interval as ``name``, ``name_low`` and ``name_high``."""
    return xr.Dataset({name: found[f"{value}.{variable}"], **{f"{name}_{end}": found[f"{end}.{variable}"] for end in ("low", "high")}})


def _over_channels(means: xr.Dataset) -> xr.Dataset:
    """Mean statistics of all channels in one variable, each in units of its own.

    CRPS is that over the first sampler's, squared errors and variances over the first sampler's squared error: means over channels of these
    are the statistics of which `compare` and `intervals` make a score.
    """
    units = {"fair_crps": "fair_crps", "squared_error": "squared_error", "expected_squared_error": "squared_error"}
    every = _along_channels(means.data_vars.values())
    first = every.isel(system=0, drop=True).mean("time")
    scaled = [every.sel(statistic=name) / first.sel(statistic=unit, drop=True) for name, unit in units.items()]
    mean = xr.concat(scaled, "statistic").mean("channel")
    area = xr.ones_like(mean.isel(statistic=[0])).assign_coords(statistic=[AREA])
    return xr.Dataset({"all": xr.concat([mean, area], "statistic")})


def _along_channels(fields: Iterable[xr.DataArray]) -> xr.DataArray:
    """Variables, and their levels, one after the other along ``channel``."""
    each = [field.rename(level="channel") if "level" in field.dims else field.expand_dims("channel") for field in fields]
    return xr.concat([field.drop_vars("channel", errors="ignore") for field in each], "channel", combine_attrs="drop")


def _against_the_lowest(pooled: xr.Dataset, names: Sequence[str], confidence: float) -> xr.Dataset:
    """CRPS over channels and leads against the lowest, and which candidates cannot be told from it."""
    every = pooled.mean(LEAD).expand_dims({LEAD: pooled[LEAD].values[-1:]}, axis=-1)
    lowest = int(every["all"].sel(statistic="fair_crps").mean("time").squeeze(LEAD).argmin("system"))
    found = _compared(every, "crps", names, names[lowest], confidence).squeeze(LEAD, drop=True)
    told = _named(found, "all", "over_lowest", "relative")
    return told.assign(tied=told.over_lowest_low <= 0)


def _name(recipe: SamplingRecipe, present: SamplingRecipe) -> str:
    """In what a sampler differs from the one that was there."""
    differing = [field.name for field in fields(recipe) if getattr(recipe, field.name) != getattr(present, field.name)]
    return ", ".join(f"{name}={getattr(recipe, name)}" for name in differing) or PRESENT


def _digest(recipe: SamplingRecipe) -> str:
    """A name for files, whatever the order of the candidates."""
    return hashlib.blake2b(json.dumps(asdict(recipe)).encode(), digest_size=6).hexdigest()


def _texts(recipes: Sequence[SamplingRecipe]) -> np.ndarray:
    return np.array([json.dumps(asdict(recipe)) for recipe in recipes], dtype=object)


def _recipe(text: str) -> SamplingRecipe:
    return SamplingRecipe(**tuples_of(json.loads(text)))
