"""Checkpoints without pickle: safetensors files and a JSON manifest that is written last.

A checkpoint is a directory::

    weights.safetensors      parameters by their name in the whole network
    average.safetensors      their exponential average
    optimizer.safetensors    the moments of AdamW, as exp_avg/NAME and exp_avg_sq/NAME
    geography.safetensors    latitude, longitude, static fields, sea mask
    manifest.json            step, model, recipes, statistics, and name, shape and checksum of everything above

A pipeline writes a file for each of its ranks, ``weights.0.safetensors`` and so on. Names are those of the whole network in any
layout, so that any other can read them.

Without its manifest a checkpoint is unfinished, and no reader takes it for one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from aeris.data.disk import write_whole
from aeris.data.grid import Grid
from aeris.data.statistics import Statistics
from aeris.errors import CheckpointError, StoreError
from aeris.interop.swift import SwiftConfig, SwiftNetwork
from aeris.model.config import ModelConfig
from aeris.model.fields import Geography
from aeris.model.network import Network
from aeris.model.presets import SamplingRecipe, TrainingRecipe, check_solver, tuples_of
from aeris.run import Run
from aeris.swipe import Groups

FORMAT = 1
NETWORKS: dict[str, type[ModelConfig] | type[SwiftConfig]] = {"aeris": ModelConfig, "swift": SwiftConfig}
"""Networks that a checkpoint may hold, by their name in a manifest."""


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
    model: ModelConfig | SwiftConfig
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
            model=NETWORKS[manifest.get("network", "aeris")](**manifest["model"]),
            training=TrainingRecipe(**tuples_of(manifest["training"])),
            sampling=SamplingRecipe(**tuples_of(manifest["sampling"])),
            interval=np.timedelta64(manifest["interval_seconds"], "s"),
            statistics=Statistics.from_dict(manifest["statistics"]),
        )

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """Checksum and shapes of each file, as the manifest gives them."""
        files: dict[str, dict[str, Any]] = json.loads((self.path / "manifest.json").read_text())["files"]
        return files

    def _named(self, name: str) -> list[str]:
        """Files of one kind, ``weights.safetensors`` or ``weights.0.safetensors`` and so on."""
        return sorted(file for file in self.files if file.split(".")[0] == name)

    def shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of one kind, as the manifest gives them."""
        return {key: tuple(shape) for file in self._named(name) for key, shape in self.files[file]["shapes"].items()}

    def tensors(self, name: str, wanted: Container[str] | None = None) -> dict[str, Tensor]:
        """Tensors of one kind, ``weights``, ``average``, ``optimizer`` or ``geography``.

        Args:
            name: The kind.
            wanted: Names of those wanted; files that hold none of them are not opened. None takes all.

        Raises:
            CheckpointError: A file is missing or damaged.
        """
        tensors: dict[str, Tensor] = {}
        for file in self._named(name):
            keys = [key for key in self.files[file]["shapes"] if wanted is None or key in wanted]
            if keys:
                self._check_file(file)
                with safe_open(self.path / file, "pt") as content:
                    tensors |= {key: content.get_tensor(key) for key in keys}
        return tensors

    def _check_file(self, name: str) -> None:
        file = self.path / name
        if not file.exists() or _checksum(file) != self.files[name]["sha256"]:
            raise CheckpointError(
                f"{file} is {'damaged' if file.exists() else 'missing'}",
                "Every file of a checkpoint has the checksum that its manifest gives",
                "Take an older checkpoint of the run, or copy the file again",
            )

    @property
    def weights_id(self) -> str:
        """Checksum of the averaged weights, with which a forecast is drawn."""
        sums = [self.files[file]["sha256"] for file in self._named("average")]
        return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()

    def recommend(self, sampling: SamplingRecipe) -> Checkpoint:
        """Makes a sampler the one that is used unless another is asked for.

        The manifest is written anew, by an atomic rename; tensors and their checksums stay as they are. Later checkpoints of the same run
        recommend what the run was begun with.

        Raises:
            ConfigurationError: The sampler is not for such a network.
            StoreError: The manifest cannot be written.
        """
        check_solver(sampling, self.training.objective)
        file = self.path / "manifest.json"
        try:
            manifest = json.loads(file.read_text())
            write_whole(file, [json.dumps({**manifest, "sampling": asdict(sampling)}, indent=1).encode()])
        except OSError as error:
            raise StoreError(
                f"{file} could not be written: {error}",
                "A sampler is kept in the manifest of a checkpoint that stands in a directory",
                "Copy the checkpoint to where it can be written",
            ) from error
        return replace(self, sampling=sampling)

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


def save(checkpoint: Checkpoint, tensors: Mapping[str, Mapping[str, Tensor]], geography: Geography, groups: Groups | None = None) -> None:
    """Writes a checkpoint; the manifest comes last, by an atomic rename.

    Of all ranks that hold the same tensors one writes them, and the first rank of all the manifest. Every rank calls this.

    Args:
        checkpoint: Everything but the tensors; its `path` must not hold a finished checkpoint.
        tensors: The kinds ``weights``, ``average`` and ``optimizer``, each with this rank's tensors.
        geography: Grid, static fields and sea mask.
        groups: This rank's place; None is a process alone.

    Raises:
        StoreError: The disk is full or does not take the files; what was finished before is untouched.
    """
    path, groups = checkpoint.path, groups or Groups.alone()
    at, first = groups.at, groups.rank == 0
    if first:
        shutil.rmtree(path, ignore_errors=True)
    groups.barrier()
    files = {(name if groups.layout.pp == 1 else f"{name}.{at.pp}"): content for name, content in tensors.items()}
    if first:
        files["geography"] = _geography_tensors(geography)
    written = groups.collect(_write(path, files) if (at.dp, at.row, at.column, at.sp) == (0, 0, 0, 0) else {})
    problem = next((part for part in written if isinstance(part, str)), None)
    if first and problem is None:
        described = {name: content for part in written for name, content in part.items()}
        problem = _write_manifest(checkpoint, described)
    if problem is not None:
        shutil.rmtree(path, ignore_errors=True)
        raise StoreError(
            f"The checkpoint {path} could not be written: {problem}", "A checkpoint is written whole or not at all", "Free space and resume"
        )


def _write(path: Path, files: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any] | str:
    """Writes tensors; returns checksum and shapes of each file, or what went wrong."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            save_file({key: value.detach().cpu().contiguous() for key, value in content.items()}, path / f"{name}.safetensors")
        return {
            f"{name}.safetensors": {
                "sha256": _checksum(path / f"{name}.safetensors"),
                "shapes": {key: list(value.shape) for key, value in content.items()},
            }
            for name, content in files.items()
        }
    except (OSError, SafetensorError) as error:
        return str(error)


def _write_manifest(checkpoint: Checkpoint, files: Mapping[str, Any]) -> str | None:
    try:
        write_whole(checkpoint.path / "manifest.json", [json.dumps(_manifest(checkpoint, files), indent=1).encode()])
    except (OSError, StoreError) as error:
        return str(error)
    return None


def _geography_tensors(geography: Geography) -> dict[str, Tensor]:
    fields = {"latitude": geography.grid.latitude, "longitude": geography.grid.longitude, **geography.static}
    if geography.sea_mask is not None:
        fields["sea_mask"] = geography.sea_mask.astype(np.uint8)
    return {name: torch.tensor(field) for name, field in fields.items()}


def _manifest(checkpoint: Checkpoint, files: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "step": checkpoint.step,
        "images": checkpoint.images,
        "skipped": checkpoint.skipped,
        "network": next(name for name, config in NETWORKS.items() if type(checkpoint.model) is config),
        "model": asdict(checkpoint.model),
        "training": asdict(checkpoint.training),
        "sampling": asdict(checkpoint.sampling),
        "interval_seconds": int(checkpoint.interval / np.timedelta64(1, "s")),
        "statistics": checkpoint.statistics.to_dict(),
        "statistics_id": checkpoint.statistics.id,
        "files": dict(files),
    }


def build(model: ModelConfig | SwiftConfig, blocks: Container[int] | None = None) -> Network | SwiftNetwork:
    """The network of a checkpoint's dimensions, or that part of it which holds some blocks; its weights are yet to be loaded."""
    return SwiftNetwork(model, blocks) if isinstance(model, SwiftConfig) else Network(model, blocks=blocks)


def load_weights(
    checkpoint: Checkpoint,
    network: nn.Module,
    held: Mapping[str, Tensor] | None = None,
    which: Literal["weights", "average"] = "weights",
) -> None:
    """Copies a checkpoint's weights, or their average, into a network or a part of one.

    Args:
        checkpoint: The checkpoint.
        network: The network.
        held: Parameters that are needed of it; None takes all and refuses what is left over.
        which: The weights, or their average.

    Raises:
        CheckpointError: A tensor is missing, left over, or of another shape.
    """
    shapes, parameters = checkpoint.shapes(which), dict(held or network.named_parameters())
    names = parameters.keys() if held else parameters.keys() | shapes.keys()
    wrong = [name for name in names if shapes.get(name) != _shape(parameters, name)]
    if wrong:
        name = sorted(wrong)[0]
        raise CheckpointError(
            f"{checkpoint.path} has {name} as {shapes.get(name)}, the network as {_shape(parameters, name)}",
            "A checkpoint holds exactly the tensors of its network",
            "Build the network from the checkpoint's own model configuration",
        )
    tensors = checkpoint.tensors(which, parameters)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _shape(tensors: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def _checksum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
