"""What commands have in common: names, changes to the fields of a preset or a recipe, and that nothing is replaced."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, Optional

from aeris.errors import StoreError
from aeris.model.config import ModelConfig
from aeris.model.presets import SamplingRecipe

Preset = Literal["tiny", "small", "aeris_1_3b", "aeris_1_3b_6h", "aeris_13b", "aeris_26b", "aeris_40b", "aeris_80b"]
Precision = Literal["bfloat16", "float32", "float64"]


def changes_of(config: type, without: str = "") -> type:
    """A dataclass like `config` in which every field may be left out, and one is not there."""
    fields = [(field.name, Optional[field.type], None) for field in dataclasses.fields(config) if field.name != without]  # noqa: UP045
    made = dataclasses.make_dataclass(f"{config.__name__}Changes", fields, frozen=True)
    made.__doc__, made.__module__ = config.__doc__, config.__module__
    return made


ModelChanges = changes_of(ModelConfig)
SamplingChanges = changes_of(SamplingRecipe)


def given(changes: Any) -> dict[str, Any]:
    """The fields that were given."""
    return {field.name: value for field in dataclasses.fields(changes) if (value := getattr(changes, field.name)) is not None}


def refuse_existing(out: Path) -> None:
    """Refuses to write where something is.

    Raises:
        StoreError: Something is there.
    """
    if out.exists():
        raise StoreError(f"{out} exists", "Nothing that is there is replaced", "Choose another name for --out, or remove it")
