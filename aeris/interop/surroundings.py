"""What weights of others need beside them: the statistics of their training, and the static fields of the planet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import xarray as xr

from aeris.data.grid import Grid, drop_pole_row
from aeris.data.states import stack_static
from aeris.data.statistics import Statistics
from aeris.data.variables import RADIATION
from aeris.errors import CheckpointError, DataError
from aeris.model.fields import Geography


def read_statistics(folder: Path, channels: Sequence[str], forcings: Sequence[str], hours: int, residual_mean: bool) -> Statistics:
    """Statistics of AERIS-GB and Swift: ``normalize_{mean,std}.npz``, and of residuals ``normalize_diff_{mean,std}_{hours}.npz``.

    Each holds one number for every channel, by name; the first two for the forcings too.

    Args:
        folder: Where they are.
        channels: Names of the state channels.
        forcings: Names of the forcings.
        hours: The model's interval.
        residual_mean: Whether residuals have a mean of their own; else it is zero, and its file is not read.

    Raises:
        CheckpointError: A file or a channel is missing, or a number is not what it can be.
    """
    states = [*channels, *forcings]
    mean = _column(folder / "normalize_mean.npz", states)
    std = _column(folder / "normalize_std.npz", states, positive=True)
    zero = np.zeros(len(channels))
    count = len(channels)
    return Statistics(
        channels=tuple(channels),
        mean=mean[:count],
        std=std[:count],
        residual_mean=_column(folder / f"normalize_diff_mean_{hours}.npz", channels) if residual_mean else zero,
        residual_std=_column(folder / f"normalize_diff_std_{hours}.npz", channels, positive=True),
        forcings=tuple(forcings),
        forcing_mean=mean[count:],
        forcing_std=std[count:],
    )


def _column(path: Path, names: Sequence[str], positive: bool = False) -> np.ndarray:
    """One number for each name."""
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing", "Weights need the statistics that they were trained with", f"Copy {path.name} beside them"
        )
    try:
        with np.load(path, allow_pickle=False) as content:
            found = {name: np.asarray(content[name], np.float64).reshape(-1) for name in names if name in content}
    except (ValueError, OSError, BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "Statistics are arrays of numbers by channel", "Copy it again") from error
    wrong = [name for name in names if name not in found or found[name].size != 1 or not np.isfinite(found[name]).all()]
    wrong += [name for name in names if name not in wrong and positive and not found[name] > 0]
    if wrong:
        raise CheckpointError(
            f"{path} has no {'positive ' if positive else ''}number for {', '.join(wrong[:4])}",
            f"It needs one for each of {len(names)} fields",
            "Use the statistics that these weights were trained with",
        )
    return np.concatenate([found[name] for name in names])


def read_geography(static: xr.Dataset | str | Path | None, forcings: Sequence[str], dropped_pole: float | None) -> Geography:
    """The grid and the static fields on which weights work.

    Args:
        static: Canonical dataset with the static fields, or anything `aeris.open_era5` opens.
        forcings: Names of the forcings.
        dropped_pole: Latitude of the pole whose row the model leaves out of a grid with both; None keeps all rows.

    Returns:
        The geography without a sea mask: the models of others predict sea surface temperature over land as everywhere.

    Raises:
        DataError: A static field is missing, or stands on another grid.
    """
    names = tuple(name for name in forcings if name != RADIATION)
    if static is None:
        raise DataError(
            "Static fields are missing: static=None",
            f"Files of weights hold neither grid nor {' nor '.join(names) or 'coordinates'}",
            "Give static=, a dataset on the model's grid that holds them",
        )
    if not isinstance(static, xr.Dataset):
        from aeris.data.sources import open_era5

        static = open_era5(static)
    ds = static if dropped_pole is None else drop_pole_row(static, dropped_pole)
    grid = Grid.of(ds)
    if dropped_pole is not None and grid.dropped_pole != dropped_pole:
        raise DataError(
            f"The static fields stand on {grid}",
            f"The model works on a grid with both poles without its row at {dropped_pole:g}°",
            "Give static fields on the whole grid, such as 721 rows at 0.25°",
        )
    missing = [name for name in names if name not in ds]
    if missing:
        raise DataError(
            f"The static fields lack {', '.join(missing)}", f"The model was trained with {', '.join(names)}", "Add what is missing"
        )
    held, fields = stack_static(ds[list(names)] if names else ds.drop_vars(list(ds.data_vars)))
    return Geography(grid, dict(zip(held, fields, strict=True)), None)
