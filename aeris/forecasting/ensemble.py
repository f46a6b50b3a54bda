"""An ensemble of forecasts from a checkpoint, streamed into an archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from aeris import device as devices
from aeris.data.grid import Grid, drop_pole_row
from aeris.data.states import channels_of, check_state, fill_land, stack
from aeris.errors import ConfigurationError, DataError
from aeris.forecasting.archive import Archive, open_forecast
from aeris.forecasting.course import Move, course, needed, told
from aeris.forecasting.perturbations import InitialStates, PastDifferences, Perturbation
from aeris.forecasting.rollout import Ensemble, Forecaster, rollout
from aeris.model.presets import SamplingRecipe
from aeris.model.quadrants import to_pixels
from aeris.progress import tqdm
from aeris.run import Run
from aeris.swipe import Groups, Layout, gather
from aeris.swipe.watch import watch
from aeris.training.checkpoint import Checkpoint


def forecast(
    checkpoint: str | Path | Run | Checkpoint,
    initial: xr.Dataset | str | Path,
    times: Sequence[Any] | np.ndarray,
    members: int = 16,
    lead: str | pd.Timedelta = "10d",
    out: str | Path = "forecast.zarr",
    seed: int = 0,
    batch: int = 8,
    sampling: SamplingRecipe | None = None,
    precision: Literal["bfloat16", "float32", "float64"] = "bfloat16",
    compile: bool = False,
    layout: Layout | None = None,
    progress: bool = True,
    step: str | pd.Timedelta | None = None,
    perturb: Perturbation | None = None,
) -> xr.Dataset:
    """Draws an ensemble from each initial time and writes it into an archive, or goes on with one that was interrupted.

    A member is a function of the checkpoint, the initial state, the seed and its number: members are computed in batches of a
    fixed size, the last one filled up, so that neither their count nor an interruption changes a bit on one kind of machine.
    With a layout of several ranks every process calls this; batches of members are dealt to the data replicas, fill the pipelines,
    and are written by ranks that own them.

    Args:
        checkpoint: A run, of which the newest checkpoint is taken, or a checkpoint, such as ``aeris.load("demo")``.
        initial: Canonical dataset that holds the initial times, or anything `aeris.open_era5` opens.
        times: Initial times.
        members: Members from each initial time.
        lead: Length of the forecast, a multiple of the step.
        out: The archive.
        seed: Seed of the forecast.
        batch: Members computed, and stored in a shard, together.
        sampling: Sampler; None takes the checkpoint's.
        precision: Dtype of the activations.
        compile: Whether to compile the network, worth it for long forecasts.
        layout: How ranks share the work; None is a process alone.
        progress: Whether to show a progress bar.
        step: Length of the steps of a model that knows several, at whose multiples the leads are; None takes the model's first interval.
            ``"fewest"`` has a lead at every multiple of that, each reached in as few steps as can be: neighbouring leads of a member
            then come from different steps, and a member is no course of the weather.
        perturb: By what members begin apart from the initial state, of `aeris.forecasting.perturbations`; None lets all begin there.

    Returns:
        The archive, lazy, as `aeris.open_forecast` gives it.

    Raises:
        CheckpointError: The checkpoint is unfinished or damaged.
        ConfigurationError: Lead, step, members, batch, sampler or perturbation cannot work.
        DataError: The initial states lack a time or channel, or stand on another grid, or past states are too few.
        StoreError: `out` holds something else, or the disk is full.
    """
    opened = open_checkpoint(checkpoint)
    layout = layout or Layout()
    starts, moves, analyses = check_forecast(opened, initial, times, members, lead, batch, layout, step, perturb)
    groups = Groups.join(layout, devices.choose())
    forecaster = Forecaster(opened, sampling, precision, compile, groups)
    leads = np.array([move.end for move in moves]) * opened.interval.astype("timedelta64[ns]")
    archive = Archive(Path(out), tuple(opened.statistics.channels), opened.geography.grid, starts, members, min(batch, members), leads)
    configuration = {**_configuration(opened, forecaster, archive, seed, batch, precision, compile), **told(moves, opened.interval)}
    if perturb is not None:  # archives of before there were any go on
        configuration["perturb"] = asdict(perturb)
    groups.agree(configuration, "what to forecast")
    if groups.rank == 0:
        archive.lay_out(configuration)
    groups.barrier()
    tasks = [(time, group) for time in range(len(starts)) for group in range(archive.groups)]
    # The ledger moves while others write: all ranks go by what the first one sees.
    done = groups.collect([archive.finished(*task) for task in tasks])[0]
    own = list(zip(tasks, done, strict=True))[groups.at.dp :: layout.dp]
    bar = tqdm(total=len(tasks) * len(leads), desc="forecasting", unit="step", disable=not progress or groups.rank > 0)
    with bar, watch(groups, archive.path.with_name(f"{archive.path.stem}.engines"), lambda: bar.n):
        for first in range(0, len(own), layout.pp):
            _run_tasks(forecaster, archive, analyses, own[first : first + layout.pp], moves, seed, batch, bar)
    groups.barrier()
    return open_forecast(out)


def check_forecast(
    checkpoint: Checkpoint,
    initial: xr.Dataset | str | Path,
    times: Sequence[Any] | np.ndarray,
    members: int,
    lead: str | pd.Timedelta,
    batch: int,
    layout: Layout,
    step: str | pd.Timedelta | None = None,
    perturb: Perturbation | None = None,
) -> tuple[np.ndarray, list[Move], InitialStates]:
    """Initial times, steps and initial states of a forecast, all checked as :func:`forecast` describes.

    Raises:
        ConfigurationError: Lead, step, members, batch, layout or perturbation cannot work.
        DataError: The initial states lack a time or channel, or stand on another grid, or past states are too few.
    """
    moves, starts = course(checkpoint, lead, step), _times(times)
    _check_counts(members, batch)
    layout.check(checkpoint.model)
    initial = _opened(initial)
    states = initial_states(initial, checkpoint, starts)
    if not isinstance(perturb, PastDifferences):
        return starts, moves, InitialStates(states, starts, checkpoint, perturb)
    past = initial if perturb.past is None else _opened(perturb.past)
    read = partial(initial_states, past, checkpoint)
    return starts, moves, InitialStates(states, starts, checkpoint, perturb, past.time.values, read, members)


def open_checkpoint(checkpoint: str | Path | Run | Checkpoint) -> Checkpoint:
    """The checkpoint itself, the newest of a run, or the one at a path."""
    if isinstance(checkpoint, Checkpoint):
        return checkpoint
    return Checkpoint.open(checkpoint.path if isinstance(checkpoint, Run) else checkpoint)


Task = tuple[tuple[int, int], int]
"""Initial time and group of members, and the leads that are finished."""


def _run_tasks(
    forecaster: Forecaster,
    archive: Archive,
    analyses: InitialStates,
    tasks: list[Task],
    moves: list[Move],
    seed: int,
    slots: int,
    bar: tqdm,
) -> None:
    """Rolls groups of members out together, each from where its ledger stands, and writes them as they come."""
    replicas = forecaster.groups.layout.dp
    ensembles = []
    for (time, group), done in tasks:
        members = list(archive.numbers(group))
        # A batch of fixed size gives each member the same bits however many run with it.
        members += [members[-1]] * (slots - len(members))
        begins = needed(moves, done) if forecaster.pipeline.has_first else ()
        tokens = {lead: _first_states(forecaster, archive, analyses, time, group, moves, lead, seed, slots) for lead in begins}
        ensembles.append(Ensemble(archive.times[time], members, tokens, done))
        bar.update(done * replicas)
    for ensemble in rollout(forecaster, ensembles, moves, seed):
        number = next(number for number, other in enumerate(ensembles) if other is ensemble)
        _write(forecaster, archive, ensemble, *tasks[number][0], number)
        bar.update(replicas)


def _first_states(
    forecaster: Forecaster,
    archive: Archive,
    analyses: InitialStates,
    time: int,
    group: int,
    moves: list[Move],
    lead: int,
    seed: int,
    slots: int,
) -> Tensor:
    """The states of a group of members from which steps begin: the initial ones or those at a lead, filled up to a whole batch."""
    numbers = archive.numbers(group)
    index = next((number for number, move in enumerate(moves) if move.end == lead), None)
    states = analyses.of(time, numbers, seed) if index is None else archive.read(time, group, index)
    states = np.concatenate([states, np.repeat(states[-1:], slots - len(numbers), axis=0)])
    return forecaster.fields.whole_tokens(torch.from_numpy(states).to(forecaster.device.torch_device, forecaster.fields.dtype))


def _write(forecaster: Forecaster, archive: Archive, ensemble: Ensemble, time: int, group: int, number: int) -> None:
    """Writes the states of a group from the rank that owns it; those that share its tokens hand them over."""
    if not ensemble.states:
        return
    groups, count = forecaster.groups, len(archive.numbers(group))
    whole = gather(ensemble.newest[:count], groups.layout, groups.image, first=1)
    owner = groups.layout.ranks(dp=groups.at.dp, pp=groups.at.pp)[number % groups.layout.token_ranks]
    if groups.rank == owner:
        archive.write(time, group, ensemble.moves - 1, to_pixels(whole, forecaster.fields.window).float().cpu().numpy())


def _times(times: Sequence[Any] | np.ndarray) -> np.ndarray:
    try:
        starts = pd.DatetimeIndex(pd.to_datetime(list(times))).values.astype("datetime64[ns]")
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"times={times!r}", "Initial times are dates", "Use for example ['2020-08-21T00']") from error
    if not len(starts) or (np.diff(starts) <= np.timedelta64(0)).any():
        raise ConfigurationError(
            f"times={[str(time) for time in starts]}", "Initial times are at least one, rising", "Sort them and drop repetitions"
        )
    return starts


def _check_counts(members: int, batch: int) -> None:
    if members < 1 or batch < 1:
        raise ConfigurationError(f"members={members}, batch={batch}", "Both are at least 1", "Use for example members=16, batch=8")


def initial_states(initial: xr.Dataset | str | Path, checkpoint: Checkpoint, times: np.ndarray) -> np.ndarray:
    """Physical initial states of a checkpoint's channels.

    Args:
        initial: Canonical dataset, or what `aeris.open_era5` opens.
        checkpoint: The checkpoint.
        times: Initial times, datetime64[ns].

    Returns:
        float32 ``(time, C, H, W)``; sea surface temperature over land is filled.

    Raises:
        DataError: A channel or time is missing, the grid is another, or a value is missing or not physical.
    """
    ds = _on_grid(_opened(initial), checkpoint.geography.grid)
    channels = checkpoint.statistics.channels
    _check_channels(ds, channels)
    missing = [str(time) for time in times if time not in ds.time.values]
    if missing:
        raise DataError(
            f"The initial states have no {missing[0]}",
            f"They run from {ds.time.values[0]} to {ds.time.values[-1]}",
            "Choose times among ds.time",
        )
    states = fill_land(stack(ds.sel(time=times), channels), channels, checkpoint.geography.sea_mask)
    for state, time in zip(states, times, strict=True):
        check_state(state, channels, None, time)
    return states


def _opened(source: xr.Dataset | str | Path) -> xr.Dataset:
    if isinstance(source, xr.Dataset):
        return source
    from aeris.data.sources import open_era5

    return open_era5(source)


def _on_grid(ds: xr.Dataset, grid: Grid) -> xr.Dataset:
    found = Grid.of(ds)
    if not found.same_as(grid) and grid.dropped_pole is not None:
        ds = drop_pole_row(ds, grid.dropped_pole)
        found = Grid.of(ds)
    if not found.same_as(grid):
        raise DataError(
            f"The initial states stand on {found}",
            f"The checkpoint was trained on {grid}",
            f"Use aeris.coarsen(ds, {grid.shape}) where it is finer",
        )
    return ds


def _check_channels(ds: xr.Dataset, channels: Sequence[str]) -> None:
    held = channels_of(ds)
    for name in channels:
        if name not in held:
            raise DataError(
                f"The initial states lack {name}", f"The checkpoint needs {len(channels)} channels: {', '.join(channels)}", "Add it"
            )


def _configuration(
    checkpoint: Checkpoint, forecaster: Forecaster, archive: Archive, seed: int, batch: int, precision: str, compile: bool
) -> dict[str, Any]:
    """All that decides the numbers of an archive."""
    return {
        "weights": checkpoint.weights_id,
        "step": checkpoint.step,
        "channels": list(archive.channels),
        "times": [str(time) for time in archive.times],
        "members": archive.members,
        "leads_hours": [float(lead / np.timedelta64(1, "h")) for lead in archive.leads],
        "seed": seed,
        "batch": archive.group,
        "slots": batch,
        "sampling": asdict(forecaster.recipe),
        "precision": precision,
        "compile": compile,
        "device": forecaster.device.kind,
    }
