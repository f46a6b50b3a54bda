"""Commands of forecasting: an ensemble, and weights of others to draw it from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from aeris.cli.arguments import Precision, SamplingChanges, changes_of, given
from aeris.errors import ConfigurationError
from aeris.forecasting.perturbations import PastDifferences, Perturbation, SphericalNoise
from aeris.swipe import Layout

PastDifferencesGiven = changes_of(PastDifferences, without="kind")
SphericalNoiseGiven = changes_of(SphericalNoise, without="kind")


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
    past_differences: PastDifferencesGiven = PastDifferencesGiven(),  # type: ignore[valid-type]  # noqa: B008
    spherical_noise: SphericalNoiseGiven = SphericalNoiseGiven(),  # type: ignore[valid-type]  # noqa: B008
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
        past_differences: Lets members begin apart by differences of past states; left out, they do not.
        spherical_noise: Lets members begin apart by isotropic noise; left out, they do not.
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
        perturb=_perturbation(past_differences, spherical_noise),
    )
    print(f"wrote {out}")


def _perturbation(past_differences: Any, spherical_noise: Any) -> Perturbation | None:
    """The one that was asked for."""
    asked = {PastDifferences: given(past_differences), SphericalNoise: given(spherical_noise)}
    chosen = [(kind, fields) for kind, fields in asked.items() if fields]
    if not chosen:
        return None
    if len(chosen) > 1 or "scale" not in chosen[0][1]:
        raise ConfigurationError(
            "--past-differences and --spherical-noise together" if len(chosen) > 1 else f"A perturbation with {chosen[0][1]} and no scale",
            "Members begin apart by one of them, of a size that is given",
            "Use for example --past-differences.scale 0.05",
        )
    kind, fields = chosen[0]
    return kind(**fields)


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
