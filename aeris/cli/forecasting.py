"""Commands of forecasting: an ensemble, and weights of others to draw it from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from aeris.cli.arguments import Precision, SamplingChanges, given
from aeris.swipe import Layout


def forecast(
    checkpoint: Path,
    initial: str,
    times: tuple[str, ...],
    members: int = 16,
    lead: str = "10d",
    out: Path = Path("forecast.zarr"),
    seed: int = 0,
    batch: int = 8,
    precision: Precision = "bfloat16",
    compile: bool = False,
    step: str | None = None,
    sampling: SamplingChanges = SamplingChanges(),  # type: ignore[valid-type]  # noqa: B008
    layout: Layout = Layout(),  # noqa: B008
) -> None:
    """Draws an ensemble from each initial time into an archive, or goes on with one that was interrupted.

    Args:
        checkpoint: A run, of which the newest checkpoint is taken, or a checkpoint.
        initial: Dataset that holds the initial times: a path or a URL.
        times: Initial times.
        members: Members from each initial time.
        lead: Length of the forecast.
        out: The archive.
        seed: Seed of the forecast.
        batch: Members computed together.
        precision: Dtype of the activations.
        compile: Compile the network, worth it for long forecasts.
        step: Length of the steps of a model that knows several, such as 24h, or fewest to reach every lead in as few as can be.
        sampling: Changes to the sampler that the checkpoint suggests.
        layout: How the processes of ``torchrun`` share the work.
    """
    import aeris
    from aeris.training.checkpoint import Checkpoint

    recipe = dataclasses.replace(Checkpoint.open(checkpoint).sampling, **given(sampling))
    aeris.forecast(
        checkpoint,
        initial,
        times,
        members,
        lead,
        out,
        seed,
        batch=batch,
        sampling=recipe,
        precision=precision,
        compile=compile,
        layout=layout,
        step=step,
    )
    print(f"wrote {out}")


def borrow(
    name: Annotated[Literal["aeris-gb", "swift"], tyro.conf.Positional],
    path: Annotated[Path, tyro.conf.Positional],
    static: str,
    out: Path,
    interval: str | None = None,
    rows: Literal["north", "south"] | None = None,
    weights: Literal["ema", "net"] = "ema",
) -> None:
    """Turns weights of others into a checkpoint that forecast takes; nothing in their files is run.

    Args:
        name: Whose weights they are.
        path: Folder of the weights with their configuration and statistics, or one of its files.
        static: Dataset with the static fields on the model's grid: a path or a URL.
        out: Directory of the checkpoint.
        interval: Length of a step, where the model knows several; left out, six hours.
        rows: Which row came first in the data of their training; left out, what is taken to be so.
        weights: The average of the weights, or the weights themselves.
    """
    import aeris

    print(f"wrote {aeris.load(name, path, static, out, interval, rows, weights).path}")
