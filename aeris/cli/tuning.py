"""The command of calibration, which leaves scores of every sampler that was tried, and on request the chosen one in the checkpoint."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from aeris.cli.arguments import Precision
from aeris.model.presets import SamplingRecipe


def tune(
    checkpoint: Path,
    truth: str,
    period: tuple[str, str],
    members: int = 8,
    leads: tuple[str, ...] = (),
    apart: str = "126h",
    inflations: tuple[float, ...] = (),
    churns: tuple[float, ...] = (),
    out: Path = Path("tuning"),
    seed: int = 0,
    batch: int = 8,
    precision: Precision = "bfloat16",
    compile: bool = False,
    write: bool = False,
) -> None:
    """Tries samplers on a validation period and chooses one whose spread fits its error; interrupted and called again, it goes on.

    Args:
        checkpoint: A run, of which the newest checkpoint is taken, or a checkpoint.
        truth: Dataset that holds the period: a path or a URL.
        period: First initial and last valid time, both inclusive; not of the years that the model was trained on.
        members: Members of each forecast.
        leads: Leads that are scored; left out, one step, and a day, three and five where the model steps on them.
        apart: Least time between initial times.
        inflations: Deviations of the noise to try; left out with the churns, those that suit the checkpoint's sampler.
        churns: Amounts of churn to try with each of them.
        out: Directory of the forecasts and of scores.zarr.
        seed: Seed of the forecasts.
        batch: Members computed together.
        precision: Dtype of the activations.
        compile: Compile the network, worth it for many forecasts.
        write: Write the chosen sampler into the checkpoint, for forecasts that ask for no other.
    """
    import aeris
    from aeris.training.checkpoint import Checkpoint

    found = aeris.tune(
        checkpoint,
        truth,
        slice(*period),
        members=members,
        leads=leads or None,
        apart=apart,
        candidates=_grid(Checkpoint.open(checkpoint).sampling, inflations, churns),
        out=out,
        seed=seed,
        batch=batch,
        precision=precision,
        compile=compile,
        write=write,
    )
    print(found.table().to_string())
    print(f"chosen: {found.chosen}")
    print(f"wrote {out / 'scores.zarr'}" + (f" and the sampler into {checkpoint}" if write else ""))


def _grid(present: SamplingRecipe, inflations: tuple[float, ...], churns: tuple[float, ...]) -> list[SamplingRecipe] | None:
    """Every inflation with every amount of churn; None where neither was given."""
    if not inflations and not churns:
        return None
    pairs = itertools.product(churns or (present.churn,), inflations or (present.inflation,))
    return [replace(present, churn=churn, inflation=inflation) for churn, inflation in pairs]
