"""What a cluster is asked for, checked in the notebook before an engine starts, and written down as what the engines are told."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from aeris.cluster.jobs import ForecastSpecification, TrainSpecification
from aeris.data.store import Store
from aeris.errors import ConfigurationError
from aeris.forecasting.ensemble import check_forecast, open_checkpoint
from aeris.forecasting.perturbations import Perturbation, check_reach
from aeris.model.config import ModelConfig
from aeris.model.presets import SamplingRecipe, TrainingRecipe
from aeris.run import Run
from aeris.swipe import Layout
from aeris.training.checkpoint import Checkpoint
from aeris.training.configuration import start_run
from aeris.training.start import starting_point
from aeris.training.state import ask
from aeris.training.trainer import configuration_of


def training(
    model: ModelConfig,
    data: str | Path | Store,
    out: str | Path,
    steps: int,
    batch: int,
    micro_batch: int | None,
    period: slice | None,
    precision: str,
    seed: int,
    recipe: TrainingRecipe | None,
    sampling: SamplingRecipe | None,
    layout: Layout,
    checkpoint_every: int,
    start: str | Path | Run | Checkpoint | None,
) -> tuple[TrainSpecification, Run]:
    """A training, with its arguments in the order of `aeris.Cluster.train`, and the directory of its run.

    Raises:
        ConfigurationError: Anything that `aeris.train` would refuse.
    """
    store = data if isinstance(data, Store) else Store.open(data)
    begin = starting_point(start, out, model, store)
    configuration = configuration_of(model, store, steps, batch, micro_batch, period, precision, seed, recipe, sampling, layout, begin)  # type: ignore[arg-type]
    ends = None if period is None else tuple(None if end is None else str(end) for end in (period.start, period.stop))
    specification = TrainSpecification(
        layout,
        model,
        str(Path(store.path).absolute()),
        str(Path(out).absolute()),
        steps,
        batch,
        configuration.micro_batch,
        ends,  # type: ignore[arg-type]
        precision,
        seed,
        recipe,
        sampling,
        checkpoint_every,
        None if begin is None else begin.path,
    )
    run = start_run(Path(out), configuration, store, layout)
    if run.step < steps:
        ask(run)
    return specification, run


def forecast(
    checkpoint: str | Path | Run | Checkpoint,
    initial: xr.Dataset | str | Path,
    times: Sequence[Any] | np.ndarray,
    members: int,
    lead: str | pd.Timedelta,
    out: str | Path,
    seed: int,
    batch: int,
    sampling: SamplingRecipe | None,
    precision: str,
    compile: bool,
    layout: Layout,
    step: str | pd.Timedelta | None,
    perturb: Perturbation | None,
) -> ForecastSpecification:
    """A forecast, with its arguments in the order of `aeris.Cluster.forecast`; initial states in memory are written for the engines.

    Raises:
        ConfigurationError: Weights that are in no directory, or anything that `aeris.forecast` would refuse.
    """
    opened = open_checkpoint(checkpoint)
    if not (opened.path / "manifest.json").is_file():
        raise ConfigurationError(
            f"The weights of {opened.path} are in this process's memory",
            "Engines read a checkpoint from its directory",
            "Write one, with aeris.load(..., out=DIRECTORY)",
        )
    starts, _, _ = check_forecast(opened, initial, times, members, lead, batch, layout, step, perturb)
    check_reach(perturb, initial)
    path = Path(out).absolute()
    return ForecastSpecification(
        layout,
        str(opened.path.absolute()),
        _as_path(initial, starts, path),
        tuple(str(time) for time in starts),
        members,
        _as_text(lead),
        str(path),
        seed,
        batch,
        sampling,
        precision,
        compile,
        step=None if step is None else _as_text(step),
        perturb=perturb,
    )


def _as_text(length: str | pd.Timedelta) -> str:
    return length if isinstance(length, str) else str(pd.Timedelta(length))


def _as_path(initial: xr.Dataset | str | Path, times: np.ndarray, archive: Path) -> str:
    """Where engines read the initial states: of a dataset those times are written beside the archive."""
    if not isinstance(initial, xr.Dataset):
        return str(initial)
    path = archive.with_name(f"{archive.stem}.initial.zarr")
    partial = path.with_name(f".{path.name}.partial")
    initial.sel(time=times).drop_encoding().to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)
    return str(path)
