"""Weights of AERIS-GB, the published code of the paper (github.com/argonne-lcf/AERIS-GB, 538b6f8), into the network of this package.

Its training writes one file for each stage of the pipeline, ``checkpoint_PP{k}.pth``: the embedding, stages of as many blocks as
``sublayers`` says, and the head. Its window-parallel inference joins them to one state whose names begin with ``input_stage``,
``layers.{stage}`` and ``output_stage``. Both are read. What differs from the network as the paper draws it is set by `presets.snapshot`:
no rotary embedding, modulation before normalisation, poles that attend to each other, and rows counted from the dropped pole row.

That code leaves the first of 721 rows out. Which pole that is it does not say beyond a comment that names the north; so it is taken here,
and ``rows="south"`` takes the south.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from aeris.data.variables import RADIATION, STATIC, state_channels
from aeris.errors import CheckpointError
from aeris.interop.files import Settings, check_tensors, read_file, state_of
from aeris.interop.foreign import Flavour, Foreign, Rows
from aeris.interop.surroundings import read_geography, read_statistics
from aeris.model import presets
from aeris.model.config import ModelConfig

KINDS: dict[Flavour, tuple[str, ...]] = {"ema": ("ema_state_dict",), "net": ("main_model_state_dict", "model_state_dict")}
"""Names under which a stage's file keeps its average, and its weights: in float32, or rounded to the activations' dtype."""

UNUSED = ("ape.inv_freq", "latent_embed.", ".1.norm.")
"""Parts of the names of tensors that are stored and not used by a diffusion model with a time network in every block."""

BLOCK = {
    "0.weight": "norm_attention.weight",
    "1.to_qkv.weight": "attention.qkv.weight",
    "1.wo.weight": "attention.out.weight",
    "2.weight": "norm_mlp.weight",
    "3.w1.weight": "mlp.gate_up.weight",
    "3.w2.weight": "mlp.out.weight",
    "4.modulation.0.weight": "time.hidden.weight",
    "4.modulation.0.bias": "time.hidden.bias",
    "4.modulation.2.weight": "time.out.weight",
    "4.modulation.2.bias": "time.out.bias",
}
"""Tensors of a block: their names there and here. Queries, keys and values, gate and up, and shift, scale, gate stand in the same order."""

EMBEDDING = {"proj.weight": "embedding.project.weight", "proj.bias": "embedding.project.bias"}
HEAD = {
    "norm.weight": "head.norm.weight",
    "head.weight": "head.project.weight",
    "modulation.0.weight": "head.time.hidden.weight",
    "modulation.0.bias": "head.time.hidden.bias",
    "modulation.2.weight": "head.time.out.weight",
    "modulation.2.bias": "head.time.out.bias",
}


def read(path: Path, static: xr.Dataset | str | Path | None, rows: Rows = "north", weights: Flavour = "ema") -> Foreign:
    """Reads a model of AERIS-GB.

    Args:
        path: Folder with ``.hydra/config.yaml``, the statistics and the stages' files; or one file of that folder: a stage's, where there
            are several sets, or the joined state.
        static: Dataset with the static fields on the whole grid.
        rows: Which row came first in its training data; the row of that pole is the one that it leaves out.
        weights: Their average, or the weights themselves.

    Raises:
        CheckpointError: A file, a setting or a tensor is missing, or another than it can be.
        DataError: The static fields lack one, or stand on another grid.
    """
    folder = path if path.is_dir() else path.parent
    settings = Settings.read(folder)
    geography = read_geography(static, _forcings(settings), 90.0 if rows == "north" else -90.0)
    model = dimensions(settings, geography.grid.shape, rows)
    stages, images = _stages(path, settings, weights)
    hours = settings.get("model.interval", int)
    noise = settings.get("model.sigma_min", float), settings.get("model.sigma_max", float)
    return Foreign(
        model=model,
        tensors=_rename(stages, model),
        statistics=read_statistics(folder, model.channels, model.forcings, hours, residual_mean=True),
        geography=geography,
        training=replace(presets.training_24h() if hours == 24 else presets.training_6h(), noise=noise),
        sampling=replace(presets.sampling_24h(), noise=noise),
        interval=np.timedelta64(hours * 3600, "s"),
        images=images,
    )


def _forcings(settings: Settings) -> tuple[str, ...]:
    enhanced = settings.get("model.enhanced_channels3", bool, False) or settings.get("model.enhanced_channels4", bool, False)
    return (RADIATION, *STATIC) if enhanced else ()


def dimensions(settings: Settings, grid: tuple[int, int], rows: Rows) -> ModelConfig:
    """The network's dimensions, with the choices of that code.

    Args:
        settings: The configuration of its training.
        grid: Rows and columns, one pole row left out.
        rows: Which row came first in its training data.

    Raises:
        CheckpointError: A setting is missing, or asks for another network.
    """
    _refuse_other_networks(settings)
    dim, heads = settings.get("model.dim", int), settings.get("model.heads", int)
    if heads * settings.get("model.head_dim", int) != dim:
        settings.refuse("model.head_dim", settings.get("model.head_dim", int), f"Heads fill the width: {heads} × head_dim is {dim}")
    config = ModelConfig(
        grid=grid,
        channels=state_channels(sea=settings.get("model.enhanced_channels4", bool, False)),
        forcings=_forcings(settings),
        dim=dim,
        depth=(settings.get("model.PP_stages", int) - 2) * settings.get("model.sublayers", int),
        heads=heads,
        mlp=settings.get("model.mlp_dim", int),
        window=settings.pair("model.window_size"),
        shift_every=settings.get("model.sublayers", int),
    )
    modulates_first = settings.get("model.layerwise_t_emb_after_mod_norm", bool, False)
    return replace(
        presets.snapshot(config),
        norm_order="modulate_norm" if modulates_first else "norm_modulate",
        # Rows are numbered from the one that was left out, which is their first.
        position_rows=(1, 1) if rows == "north" else (grid[0], -1),
    )


def _refuse_other_networks(settings: Settings) -> None:
    """Refuses what that code can be asked for and this network is not."""
    for name, wanted, rule in (
        ("diffusion", True, "A forecast is drawn by a diffusion model; that code also has deterministic ones"),
        ("rit", False, "A forecast is drawn by a diffusion model; that code also has deterministic ones of random intervals"),
        ("layerwise_t_emb", True, "Every block owns its time network, as in both diffusion models whose configuration was published"),
    ):
        if settings.get(f"model.{name}", bool, False) is not wanted:
            settings.refuse(f"model.{name}", not wanted, rule)
    attention = settings.get("model.attn_fn", str, "flash")
    if attention not in ("flash", "naive"):
        settings.refuse("model.attn_fn", attention, "Attention is by softmax of scaled products ('flash' or 'naive')")
    for name, only in (("sigma_data", 1.0), ("sinusoidal_emb_max_period", 10_000.0)):
        if settings.get(f"model.{name}", float, only) != only:
            settings.refuse(f"model.{name}", settings.get(f"model.{name}", float), f"It is {only:g}")


def _stages(path: Path, settings: Settings, weights: Flavour) -> tuple[list[tuple[Path, dict[str, Tensor]]], int]:
    """The tensors of each stage with the file that they stand in, and the images that were seen."""
    count = settings.get("model.PP_stages", int)
    if path.is_file() and not re.search(r"checkpoint_PP\d+\.pth$", path.name):
        return _split(path, state_of(read_file(path), KINDS[weights], path), count), 0
    files = _stage_files(path, count)
    contents = [read_file(file) for file in files]
    stages = [(file, state_of(content, KINDS[weights], file)) for file, content in zip(files, contents, strict=True)]
    return stages, int(contents[0].get("cur_nimg", 0))


def _stage_files(path: Path, count: int) -> list[Path]:
    """The files of all stages, of the set that was named or of the only one."""
    folder = path if path.is_dir() else path.parent
    found = sorted(path.name for path in folder.glob("*checkpoint_PP*.pth")) if path.is_dir() else [path.name]
    prefixes = sorted({re.sub(r"checkpoint_PP\d+\.pth$", "", name) for name in found})
    if len(prefixes) > 1 and "" not in prefixes:
        raise CheckpointError(
            f"{folder} holds several sets of stages: {', '.join(f'{prefix}checkpoint_PP*.pth' for prefix in prefixes)}",
            "One set makes a model",
            f"Name one of its files, for example {folder / prefixes[-1]}checkpoint_PP0.pth",
        )
    prefix = prefixes[0] if prefixes else ""
    files = [folder / f"{prefix}checkpoint_PP{stage}.pth" for stage in range(count)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}",
            f"A model of PP_stages={count} has a file for each stage, from {files[0].name} to {files[-1].name}",
            "Copy the files of all stages, of one training, into one folder",
        )
    return files


def _split(path: Path, joined: Mapping[str, Tensor], count: int) -> list[tuple[Path, dict[str, Tensor]]]:
    """The joined state of the window-parallel inference, stage by stage."""
    heads = ["input_stage.", *(f"layers.{stage}." for stage in range(count - 2)), "output_stage."]
    stray = [name for name in joined if not name.startswith(tuple(heads))]
    if stray:
        raise CheckpointError(
            f"{path} holds {', '.join(stray[:4])}",
            f"With PP_stages={count} names begin with {heads[0]}, {heads[1]} ... {heads[-2]}, {heads[-1]}",
            "Name a state of the window-parallel inference, or the folder of the stages' files",
        )
    return [(path, {name.removeprefix(head): value for name, value in joined.items() if name.startswith(head)}) for head in heads]


def _rename(stages: list[tuple[Path, dict[str, Tensor]]], model: ModelConfig) -> dict[str, Tensor]:
    """Tensors by the names that they have here, checked and in float32."""
    tensors: dict[str, Tensor] = {}
    for number, (file, found) in enumerate(stages):
        names = _names(number, len(stages), model.shift_every)
        check_tensors(found, {there: _shape(here, model) for there, here in names.items()}, UNUSED, file)
        tensors |= {here: found[there].to(torch.float32) for there, here in names.items()}
    return tensors


def _names(stage: int, stages: int, blocks: int) -> dict[str, str]:
    """Names of a stage's tensors, there and here."""
    if stage == 0:
        return EMBEDDING
    if stage == stages - 1:
        return HEAD
    first = (stage - 1) * blocks
    return {f"modulelist.{j}.{there}": f"blocks.{first + j}.{here}" for j in range(blocks) for there, here in BLOCK.items()}


def _shape(name: str, model: ModelConfig) -> tuple[int, ...]:
    """Shape of a tensor by the name that it has here."""
    dim = model.dim
    vectors = 2 if name.startswith("head") else 6
    shapes: dict[str, tuple[int, ...]] = {
        "embedding.project.weight": (dim, model.inputs),
        "attention.qkv.weight": (3 * dim, dim),
        "attention.out.weight": (dim, dim),
        "mlp.gate_up.weight": (2 * model.mlp, dim),
        "mlp.out.weight": (dim, model.mlp),
        "time.hidden.weight": (dim, dim),
        "time.out.weight": (vectors * dim, dim),
        "time.out.bias": (vectors * dim,),
        "head.project.weight": (len(model.channels), dim),
    }
    return next((shape for end, shape in shapes.items() if name.endswith(end)), (dim,))
