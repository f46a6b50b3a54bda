"""Weights of Swift (github.com/stockeh/swift, 9b8912e) into its network here: those trained by diffusion, and consistency models.

A folder of its training holds ``.hydra/config.yaml`` and ``checkpoints/checkpoint-{thousands of images}.pt``, each with the weights
(``net``) and their average (``ema``).

Which row comes first in its data that code does not say: it sorts the latitudes that it keeps, and not the fields. The published 1.4°
data are taken to run from south to north; ``rows="north"`` takes the other order. A network whose rows run the other way is the same
network with its positions and the rows of its patches turned over: attention inside a window knows no order, and a shift by half a
window up and one down make the same windows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from aeris.data.variables import RADIATION, STATIC
from aeris.errors import CheckpointError, ConfigurationError
from aeris.interop.files import Settings, check_tensors, read_file, state_of
from aeris.interop.foreign import Flavour, Foreign, Rows
from aeris.interop.surroundings import read_geography, read_statistics
from aeris.interop.swift import SwiftConfig
from aeris.model import presets
from aeris.model.presets import SamplingRecipe, TrainingRecipe
from aeris.model.quadrants import to_tokens

KINDS: dict[Flavour, tuple[str, ...]] = {"ema": ("ema",), "net": ("net",)}
CONSISTENT = ("SCMLoss", "CRPSLoss")
"""Losses of consistency models, by which they are trained and fine-tuned."""

PURE = math.tan(math.pi / 2)
"""Tangent of the angle of pure noise, a right one to rounding, at which consistency models are called there."""

UNUSED = ("logvar_embed.",)
"""A variance that weighted the loss."""

BLOCK = {
    "0.to_qkv.weight": "attention.qkv.weight",
    "0.wo.weight": "attention.out.weight",
    "0.scale": "attention.sharpness",
    **{f"0.norm.{name}": f"norm_attention.{name}" for name in ("norm.weight", "norm.bias", "modulation.weight", "modulation.bias")},
    "1.w1.weight": "mlp.gate_up.weight",
    "1.w2.weight": "mlp.out.weight",
    **{f"1.norm.{name}": f"norm_mlp.{name}" for name in ("norm.weight", "norm.bias", "modulation.weight", "modulation.bias")},
}
"""Tensors of a block: their names there and here."""

AROUND = {
    "pos_embed": "embedding.position",
    "patch_embed.emb.weight": "embedding.project.weight",
    "patch_embed.emb.bias": "embedding.project.bias",
    "latent_embed.l1.weight": "time.hidden.weight",
    "latent_embed.l1.bias": "time.hidden.bias",
    "latent_embed.l2.weight": "time.out.weight",
    "latent_embed.l2.bias": "time.out.bias",
    "auxiliary_embed.weight": "time.interval.weight",
    "auxiliary_embed.bias": "time.interval.bias",
    "head.head.0.weight": "head.weight",
}
"""Tensors beside the blocks: their names there and here."""


def read(
    path: Path,
    static: xr.Dataset | str | Path | None,
    interval: str | pd.Timedelta = "6h",
    rows: Rows = "south",
    weights: Flavour = "ema",
) -> Foreign:
    """Reads a model of Swift.

    Args:
        path: Folder with ``.hydra/config.yaml`` and the statistics, of whose checkpoints the newest is taken; or one checkpoint.
        static: Dataset with the static fields on the model's grid.
        interval: Length of a step, one of those that it was trained on.
        rows: Which row came first in its training data.
        weights: Their average, or the weights themselves.

    Raises:
        CheckpointError: A file, a setting or a tensor is missing, or another than it can be.
        ConfigurationError: It was not trained on steps of this length.
        DataError: The static fields lack one, or stand on another grid.
    """
    file, folder = _files(path)
    settings = Settings.read(folder)
    _refuse_other_networks(settings)
    forcings = settings.names("data.dataset.forcings")
    if sorted(forcings) != sorted((RADIATION, *STATIC)):
        settings.refuse("data.dataset.forcings", list(forcings), f"They are {RADIATION}, {', '.join(STATIC)}")
    geography = read_geography(static, forcings, None)
    hours = _hours(interval, settings)
    model = _model(settings, geography.grid.shape, hours)
    found = state_of(read_file(file), KINDS[weights], file)
    training, sampling = _recipes(settings)
    return Foreign(
        model=model,
        tensors=_convert(found, file, model, forcings, rows),
        statistics=read_statistics(folder, model.channels, model.forcings, hours, residual_mean=False),
        geography=geography,
        training=training,
        sampling=sampling,
        interval=np.timedelta64(hours * 3600, "s"),
        images=1000 * _number(file),
    )


def _files(path: Path) -> tuple[Path, Path]:
    """The checkpoint, and the folder of its training."""
    if path.is_dir():
        found = [file for where in (path / "checkpoints", path) for ending in ("pt", "safetensors") for file in where.glob(f"*.{ending}")]
        if not found:
            raise CheckpointError(
                f"{path} lacks checkpoints/checkpoint-*.pt",
                "Weights of Swift stand there",
                "Name the folder of a training, or a checkpoint",
            )
        return max(found, key=_number), path
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return path, folder


def _number(file: Path) -> int:
    """Thousands of images, which stand in the name of a checkpoint."""
    numbers = re.findall(r"\d+", file.stem)
    return int(numbers[-1]) if numbers else 0


def _refuse_other_networks(settings: Settings) -> None:
    """Refuses what that code can be asked for and this network is not."""
    target = settings.get("model._target_", str)
    if not target.endswith("SwinV2"):
        settings.refuse("model._target_", target, "Of Swift's networks SwinV2 is known")
    if not settings.get("precond._target_", str).endswith("PassPrecond"):
        settings.refuse("precond._target_", settings.get("precond._target_", str), "The network predicts the velocity of TrigFlow")
    if settings.get("precond.sigma_data", float, 1.0) != 1.0:
        settings.refuse("precond.sigma_data", settings.get("precond.sigma_data", float), "It is 1")
    if not settings.get("data.dataset.residual", bool, False):
        settings.refuse("data.dataset.residual", False, "The network predicts the change over a step")
    window, moved = settings.pair("model.window_size"), settings.pair("model.shift_size")
    if moved != (window[0] // 2, window[1] // 2):
        settings.refuse("model.shift_size", list(moved), f"Windows of {window} are shifted by half of that")


def _hours(interval: str | pd.Timedelta, settings: Settings) -> int:
    known = settings.get("data.dataset.intervals", list, [6, 12, 24])
    try:
        hours = pd.Timedelta(interval) / pd.Timedelta("1h")
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"interval={interval!r}", "It is a length of time", "Use for example '6h'") from error
    if hours not in known:
        raise ConfigurationError(
            f"interval={interval!r}", f"The network was trained on steps of {known} hours", f"Use for example '{known[0]}h'"
        )
    return int(hours)


def _model(settings: Settings, grid: tuple[int, int], hours: int) -> SwiftConfig:
    patch, window = settings.pair("model.patch_size"), settings.pair("model.window_size")
    return SwiftConfig(
        grid=grid,
        channels=settings.names("data.dataset.variables"),
        dim=settings.get("model.dim", int),
        depth=settings.get("model.depth", int),
        heads=settings.get("model.heads", int),
        window=(window[0] * patch[0], window[1] * patch[1]),
        patch=patch,
        interval_hours=float(hours) if settings.get("precond.auxiliary_dim", int, 0) else None,
        time_scale=settings.get("model.timestep_weight", float, 1.0),
    )


def _recipes(settings: Settings) -> tuple[TrainingRecipe, SamplingRecipe]:
    """One call at pure noise for consistency models, twenty levels evenly spaced in the logarithm for those trained by diffusion."""
    low, high = settings.get("loss.noise.sigma_min", float, 0.02), settings.get("loss.noise.sigma_max", float, 200.0)
    trained = settings.get("loss._target_", str).rpartition(".")[2]
    if trained == "TrigFlowLoss":
        return TrainingRecipe(noise=(low, high)), SamplingRecipe(solver="heun", steps=20, noise=(low, high), rho=float("inf"))
    if trained not in CONSISTENT:
        settings.refuse("loss._target_", trained, f"A model was trained by TrigFlowLoss, {' or '.join(CONSISTENT)}")
    training = replace(presets.consistency(), noise=(low, PURE))
    return training, presets.sampling_consistency(largest=PURE)


def _convert(found: Mapping[str, Tensor], file: Path, model: SwiftConfig, forcings: tuple[str, ...], rows: Rows) -> dict[str, Tensor]:
    """Tensors by the names and in the orders that they have here, checked and in float32."""
    if found and all(name.startswith("model.") for name in found):
        found = {name.removeprefix("model."): value for name, value in found.items()}
    names = dict(AROUND)
    for block in range(model.depth):
        names |= {f"transformer.layers.{block}.{there}": f"blocks.{block}.{here}" for there, here in BLOCK.items()}
    if model.interval_hours is None:
        names = {there: here for there, here in names.items() if not here.startswith("time.interval")}
    check_tensors(found, {there: _shape(there, model) for there in names}, UNUSED, file)
    tensors = {here: found[there].to(torch.float32) for there, here in names.items()}
    south_first = rows == "south"
    tensors["embedding.position"] = _places(tensors["embedding.position"], model, south_first)
    tensors["embedding.project.weight"] = _embedding(tensors["embedding.project.weight"], model, forcings, south_first)
    tensors["head.weight"] = _head(tensors["head.weight"], model, south_first)
    for block in range(model.depth):
        name = f"blocks.{block}.attention"
        tensors[f"{name}.sharpness"] = tensors[f"{name}.sharpness"].flatten()
        tensors[f"{name}.qkv.weight"] = _by_kind(tensors[f"{name}.qkv.weight"], model.heads)
    return tensors


def _shape(name: str, model: SwiftConfig) -> tuple[int, ...]:
    """Shape of a tensor by the name that it has there."""
    dim, pixels = model.dim, model.patch_area
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, model.patches[0] * model.patches[1], dim),
        "patch_embed.emb.weight": (dim, model.inputs * pixels),
        "auxiliary_embed.weight": (dim, 1),
        "head.head.0.weight": (len(model.channels) * pixels, dim),
        "modulation.weight": (2 * dim, dim),
        "modulation.bias": (2 * dim,),
        "to_qkv.weight": (3 * dim, dim),
        "wo.weight": (dim, dim),
        "0.scale": (1, model.heads, 1, 1),
        "w1.weight": (2 * model.mlp, dim),
        "w2.weight": (dim, model.mlp),
        "l1.weight": (dim, dim),
        "l2.weight": (dim, dim),
    }
    return next((shape for end, shape in shapes.items() if name.endswith(end)), (dim,))


def _places(position: Tensor, model: SwiftConfig, south_first: bool) -> Tensor:
    """Learned positions, row by row from the first one, in quadrant order from the north."""
    field = position[0].unflatten(0, model.patches)
    field = field.flip(0) if south_first else field
    return to_tokens(field.movedim(-1, 0)[None], model.patch_window)[0].contiguous()


def _embedding(weight: Tensor, model: SwiftConfig, forcings: tuple[str, ...], south_first: bool) -> Tensor:
    """Weights of a patch's pixels and channels, with the forcings in the order of this package."""
    cut = weight.unflatten(1, (*model.patch, model.inputs))
    cut = cut.flip(1) if south_first else cut
    states = 2 * len(model.channels)
    order = [*range(states), *(states + forcings.index(name) for name in model.forcings)]
    return cut[..., order].flatten(1).contiguous()


def _head(weight: Tensor, model: SwiftConfig, south_first: bool) -> Tensor:
    """Weights from channel, row, column to row, column, channel of a patch."""
    cut = weight.unflatten(0, (len(model.channels), *model.patch)).movedim(0, 2)
    cut = cut.flip(0) if south_first else cut
    return cut.flatten(0, 2).contiguous()


def _by_kind(weight: Tensor, heads: int) -> Tensor:
    """Queries, keys and values of each head in turn to all queries, all keys, all values."""
    return weight.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2).contiguous()
