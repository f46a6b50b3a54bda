"""Trained models by name: those that come with the package, and weights of others.

Weights of others are read by `aeris.interop`; here they become a checkpoint, which is forecast with as any other. It is kept in memory,
or written to a directory, from which engines and the command line take it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from torch import Tensor

from aeris.errors import ConfigurationError, StoreError
from aeris.interop import aeris_gb, swift_weights
from aeris.interop.foreign import Flavour, Foreign, Rows
from aeris.model.fields import Geography
from aeris.training.checkpoint import Checkpoint, save

BUNDLED = {name: Path(__file__).parent / "assets" / name for name in ("demo", "demo-one-call", "demo-two-calls")}
"""Checkpoints that come with the package, by name."""

FOREIGN = ("aeris-gb", "swift")
"""Weights of others that can be read, by name."""


@dataclass(frozen=True)
class BorrowedCheckpoint(Checkpoint):
    """Weights of others as a checkpoint that stands in no directory of its own: its tensors are in memory, or mapped from their files.

    Attributes:
        foreign: What was read; its tensors are the average, with which a forecast is drawn.
    """

    foreign: Foreign

    def shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of one kind."""
        return {key: tuple(value.shape) for key, value in self.tensors(name).items()}

    def tensors(self, name: str, wanted: Container[str] | None = None) -> dict[str, Tensor]:
        """Tensors of the kind ``average``; of the others there are none."""
        held = self.foreign.tensors if name == "average" else {}
        return {key: value for key, value in held.items() if wanted is None or key in wanted}

    @property
    def weights_id(self) -> str:
        """Checksum of the weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.foreign.tensors.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).data)
        return digest.hexdigest()

    @property
    def geography(self) -> Geography:
        """Grid and static fields that were given with the weights."""
        return self.foreign.geography


def load(
    name: str,
    path: str | Path | None = None,
    static: xr.Dataset | str | Path | None = None,
    out: str | Path | None = None,
    interval: str | pd.Timedelta | None = None,
    rows: Rows | None = None,
    weights: Flavour = "ema",
) -> Checkpoint:
    """A trained model by its name, which `aeris.forecast` takes as its first argument.

    ``"demo"`` comes with the package: the preset `tiny`, trained on two years of ``aeris.Planet(grid=(32, 64), seed=0)``. It makes
    steps of six hours, and needs neither a network nor a training of your own. ``"demo-one-call"`` and ``"demo-two-calls"`` are its
    weights, tuned for so few network calls a step.

    ``"aeris-gb"`` and ``"swift"`` are weights of others, which lie at `path` with the configuration and the statistics of their training
    (`docs/interop.md` says which files). Nothing in these files is run.

    Args:
        name: The model.
        path: Where the weights of others lie: a folder, or one of its files.
        static: Dataset with the static fields on the grid of such weights, or anything `aeris.open_era5` opens.
        out: Directory to write such weights to, as a checkpoint that engines and the command line can open; None keeps them in memory.
        interval: Length of a step, where such weights know several; None takes six hours.
        rows: Which row came first in the data of their training, ``"north"`` or ``"south"``; None takes what is taken to be so.
        weights: The average of such weights (``"ema"``), or the weights themselves (``"net"``).

    Returns:
        The checkpoint.

    Raises:
        ConfigurationError: There is no model of this name, or an argument does not go with it.
        CheckpointError: The weights are damaged or incomplete.
        DataError: The static fields do not fit.
        StoreError: `out` is there already.
    """
    if name in BUNDLED:
        if path is not None:
            raise ConfigurationError(
                f"aeris.load({name!r}, path={str(path)!r})", "These weights come with the package", f"Use aeris.load({name!r})"
            )
        return Checkpoint.open(BUNDLED[name])
    _check_foreign(name, path, interval, rows, weights)
    if out is not None and Path(out).exists():
        raise StoreError(f"{out} exists", "Nothing that is there is replaced", "Choose another name, or remove it")
    assert path is not None
    if name == "aeris-gb":
        foreign = aeris_gb.read(Path(path), static, rows or "north", weights)
    else:
        foreign = swift_weights.read(Path(path), static, interval or "6h", rows or "south", weights)
    checkpoint = _borrowed(foreign, Path(path))
    return checkpoint if out is None else _written(checkpoint, Path(out))


def _check_foreign(name: str, path: str | Path | None, interval: object, rows: str | None, weights: str) -> None:
    if name not in FOREIGN:
        raise ConfigurationError(
            f"There are no weights named {name!r}",
            f"Weights by name are {', '.join(map(repr, (*BUNDLED, *FOREIGN)))}",
            "Use one of these, or give aeris.forecast the directory of a run of your own",
        )
    if path is None:
        raise ConfigurationError(
            f"aeris.load({name!r}) without path", "Weights of others do not come with the package", f"Use aeris.load({name!r}, path=FOLDER)"
        )
    if not Path(path).exists():
        raise ConfigurationError(f"path={str(path)!r} is not there", "Weights of others are read from a folder or a file", "Name it whole")
    if (Path(path) / "manifest.json").is_file():
        raise ConfigurationError(
            f"{path} is a checkpoint of this package",
            "Weights of others are in the files of others",
            f"Give {str(path)!r} to aeris.forecast",
        )
    if name == "aeris-gb" and interval is not None:
        raise ConfigurationError(f"interval={interval!r}", "A model of AERIS-GB has one step, that of its configuration", "Leave it out")
    if rows not in (None, "north", "south"):
        raise ConfigurationError(f"rows={rows!r}", "The first row is the 'north' or the 'south'", "Use rows='north'")
    if weights not in ("ema", "net"):
        raise ConfigurationError(f"weights={weights!r}", "They are the average, 'ema', or the weights, 'net'", "Use weights='ema'")


def _borrowed(foreign: Foreign, path: Path) -> BorrowedCheckpoint:
    return BorrowedCheckpoint(
        path=path,
        step=0,
        images=foreign.images,
        skipped=0,
        model=foreign.model,
        training=foreign.training,
        sampling=foreign.sampling,
        interval=foreign.interval,
        statistics=foreign.statistics,
        foreign=foreign,
    )


def _written(borrowed: BorrowedCheckpoint, out: Path) -> Checkpoint:
    """The same in a directory."""
    fields = {name: getattr(borrowed, name) for name in Checkpoint.__dataclass_fields__}
    save(Checkpoint(**{**fields, "path": out}), {"average": borrowed.tensors("average")}, borrowed.geography)
    return Checkpoint.open(out)
