"""Checkpoints without pickle: safetensors files and a JSON manifest that is written last.

A checkpoint is a directory::

    weights.safetensors      parameters by their name in the whole network
    average.safetensors      their exponential average
    optimizer.safetensors    the moments of AdamW, as exp_avg/NAME and exp_avg_sq/NAME
    geography.safetensors    latitude, longitude, static fields, sea mask
    manifest.json            step, model, recipes, statistics, and name, shape and checksum of everything above

Without its manifest a checkpoint is unfinished, and no reader takes it for one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from aeris.data.disk import write_whole
from aeris.data.grid import Grid
from aeris.data.statistics import Statistics
from aeris.errors import CheckpointError, StoreError
from aeris.model.config import ModelConfig
from aeris.model.fields import Geography
from aeris.model.network import Network
from aeris.model.presets import SamplingRecipe, TrainingRecipe
from aeris.run import Run

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """All of a checkpoint but its tensors.

    Attributes:
        path: Its directory.
        step: Optimizer steps taken.
        images: Images seen; with the seed, this is the position in the data and in the noise.
        skipped: Steps that were skipped for a gradient that was not finite.
        model: The network's dimensions.
        training: Recipe it was trained with.
        sampling: Recipe to sample with, unless another is asked for.
        interval: Step of the model in time.
        statistics: Statistics that its fields are standardised with.
    """

    path: Path
    step: int
    images: int
    skipped: int
    model: ModelConfig
    training: TrainingRecipe
    sampling: SamplingRecipe
    interval: np.timedelta64
    statistics: Statistics

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Reads a manifest.

        Args:
            path: A checkpoint, or a run, of which the newest finished one is taken.

        Raises:
            CheckpointError: There is no finished checkpoint, or it was written by a newer format.
        """
        path = _resolve(Path(path))
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {manifest['format']}", f"This version reads format {FORMAT}", "Use the version of aeris that wrote it"
            )
        return cls(
            path=path,
            step=manifest["step"],
            images=manifest["images"],
            skipped=manifest["skipped"],
            model=ModelConfig(**manifest["model"]),
            training=TrainingRecipe(**_tuples(manifest["training"])),
            sampling=SamplingRecipe(**_tuples(manifest["sampling"])),
            interval=np.timedelta64(manifest["interval_seconds"], "s"),
            statistics=Statistics.from_dict(manifest["statistics"]),
        )

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Tensors of one file, ``weights``, ``average``, ``optimizer`` or ``geography``.

        Raises:
            CheckpointError: The file is missing or damaged.
        """
        file = self.path / f"{name}.safetensors"
        manifest = json.loads((self.path / "manifest.json").read_text())
        if not file.exists() or _checksum(file) != manifest["files"][file.name]["sha256"]:
            raise CheckpointError(
                f"{file} is {'damaged' if file.exists() else 'missing'}",
                "Every file of a checkpoint has the checksum that its manifest gives",
                "Take an older checkpoint of the run, or copy the file again",
            )
        return load_file(file)

    @property
    def weights_id(self) -> str:
        """Checksum of the averaged weights, with which a forecast is drawn."""
        return json.loads((self.path / "manifest.json").read_text())["files"]["average.safetensors"]["sha256"]

    @property
    def geography(self) -> Geography:
        """Grid, static fields and sea mask that the model was trained on."""
        fields = {name: tensor.numpy() for name, tensor in self.tensors("geography").items()}
        grid = Grid(fields.pop("latitude"), fields.pop("longitude"))
        sea = fields.pop("sea_mask", None)
        return Geography(grid, fields, None if sea is None else sea.astype(bool))


def _resolve(path: Path) -> Path:
    """The checkpoint that a path names."""
    if (path / "manifest.json").is_file():
        return path
    if (path / "run.json").is_file():
        return Run.open(path).newest
    raise CheckpointError(
        f"{path} holds no finished checkpoint",
        "A checkpoint is a directory with manifest.json, which is written last; a run holds some in checkpoints/",
        "Name a run, or one of its checkpoints/step-*",
    )


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples of a frozen dataclass."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def save(checkpoint: Checkpoint, tensors: Mapping[str, Mapping[str, Tensor]], geography: Geography) -> None:
    """Writes a checkpoint; the manifest comes last, by an atomic rename.

    Args:
        checkpoint: Everything but the tensors; its `path` must not hold a finished checkpoint.
        tensors: The files ``weights``, ``average`` and ``optimizer``.
        geography: Grid, static fields and sea mask.

    Raises:
        StoreError: The disk is full or does not take the files; what was finished before is untouched.
    """
    path = checkpoint.path
    shutil.rmtree(path, ignore_errors=True)
    try:
        path.mkdir(parents=True)
        files = {**tensors, "geography": _geography_tensors(geography)}
        for name, content in files.items():
            save_file({key: value.detach().cpu().contiguous() for key, value in content.items()}, path / f"{name}.safetensors")
        write_whole(path / "manifest.json", [json.dumps(_manifest(checkpoint, files), indent=1).encode()])
    except (OSError, SafetensorError) as error:
        shutil.rmtree(path, ignore_errors=True)
        raise StoreError(
            f"The checkpoint {path} could not be written: {error}", "A checkpoint is written whole or not at all", "Free space and resume"
        ) from error


def _geography_tensors(geography: Geography) -> dict[str, Tensor]:
    fields = {"latitude": geography.grid.latitude, "longitude": geography.grid.longitude, **geography.static}
    if geography.sea_mask is not None:
        fields["sea_mask"] = geography.sea_mask.astype(np.uint8)
    return {name: torch.tensor(field) for name, field in fields.items()}


def _manifest(checkpoint: Checkpoint, files: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "step": checkpoint.step,
        "images": checkpoint.images,
        "skipped": checkpoint.skipped,
        "model": asdict(checkpoint.model),
        "training": asdict(checkpoint.training),
        "sampling": asdict(checkpoint.sampling),
        "interval_seconds": int(checkpoint.interval / np.timedelta64(1, "s")),
        "statistics": checkpoint.statistics.to_dict(),
        "statistics_id": checkpoint.statistics.id,
        "files": {
            f"{name}.safetensors": {
                "sha256": _checksum(checkpoint.path / f"{name}.safetensors"),
                "shapes": {key: list(value.shape) for key, value in content.items()},
            }
            for name, content in files.items()
        },
    }


def load_weights(checkpoint: Checkpoint, network: Network, which: Literal["weights", "average"] = "weights") -> None:
    """Copies a checkpoint's weights, or their average, into a network.

    Raises:
        CheckpointError: A tensor is missing, left over, or of another shape.
    """
    tensors, parameters = checkpoint.tensors(which), dict(network.named_parameters())
    wrong = [name for name in tensors.keys() | parameters.keys() if _shape(tensors, name) != _shape(parameters, name)]
    if wrong:
        name = sorted(wrong)[0]
        raise CheckpointError(
            f"{checkpoint.path} has {name} as {_shape(tensors, name)}, the network as {_shape(parameters, name)}",
            "A checkpoint holds exactly the tensors of its network",
            "Build the network from the checkpoint's own model configuration",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _shape(tensors: dict[str, Any], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def _checksum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
