"""Files of others, read as data and never as code: tensors, and the configuration that a training with Hydra leaves.

Tensors stand in safetensors or in torch's zip format. The latter describes its content by a pickle; it is read by torch's restricted
reader, which knows tensors and plain containers and runs nothing that the file names. What asks for more is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from aeris.errors import CheckpointError

Value = TypeVar("Value")

CONFIGURATIONS = (".hydra/config.yaml", "config.yaml")
"""Where the configuration of a training stands, in its folder."""


def read_file(path: Path) -> dict[str, Any]:
    """Tensors and plain values of a file, as far as possible without reading the tensors yet.

    Args:
        path: A file in safetensors, or in the zip format that `torch.save` writes.

    Raises:
        CheckpointError: There is no such file, it is damaged, or it holds more than tensors and plain containers.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing", "Weights of others are read from files", "Name the file, or its folder")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}", "A file of weights holds tensors by name", "Save a state_dict")
    _check_plain(content, path)
    return content


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)) from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        asked = re.findall(r"GLOBAL ([\w.]+)", str(error))
        raise CheckpointError(
            f"{path} asks for more than tensors and plain containers{f': {asked[0]}' if asked else ''}",
            "Nothing is run from a file of weights",
            "Save the state_dict alone, or better as safetensors",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(path, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__) from error


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read: {reason}",
        "Weights stand in safetensors, or in the zip format that torch.save writes",
        "Copy the file again, or save it anew with a recent torch",
    )


def _check_plain(content: Any, path: Path) -> None:
    """Refuses whatever is no tensor, number, text or container of these, also where torch was told to trust more."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            _check_plain(key, path)
            _check_plain(value, path)
    elif isinstance(content, list | tuple | set):
        for value in content:
            _check_plain(value, path)
    elif not (content is None or isinstance(content, Tensor | str | bytes | int | float | complex | torch.Size | torch.dtype)):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}", "A file of weights holds tensors and plain containers", "Save the state_dict alone"
        )


def state_of(content: Mapping[str, Any], kinds: Sequence[str], path: Path) -> dict[str, Tensor]:
    """The tensors of one kind in a file that may hold several, such as weights and their average.

    Args:
        content: What :func:`read_file` gave.
        kinds: Names under which the kind is kept, the first that is there being taken; a file of nothing but tensors is taken whole.
        path: The file, for the message.

    Raises:
        CheckpointError: The file holds none of them.
    """
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content)
    for kind in kinds:
        found = content.get(kind)
        if isinstance(found, Mapping) and found:
            return {str(name): value for name, value in found.items()}
    raise CheckpointError(
        f"{path} holds {', '.join(map(repr, content)) or 'nothing'}",
        f"The weights asked for are kept as {' or '.join(map(repr, kinds))}",
        "Ask for weights='ema' or weights='net', whichever the file holds",
    )


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], unused: Iterable[str], where: Path | str) -> None:
    """Compares names and shapes with what an architecture has.

    Args:
        found: Tensors of a file.
        expected: Shape of each tensor that is needed.
        unused: Parts of names of tensors that the file may hold and nothing needs.
        where: The file, for the message.

    Raises:
        CheckpointError: A tensor is missing, has another shape, or is left over.
    """
    missing = [name for name in expected if name not in found]
    if missing:
        raise CheckpointError(
            f"{where} lacks {_some(missing)}",
            f"The configuration asks for {len(expected)} tensors there",
            "Name the whole file that fits it",
        )
    for name, shape in expected.items():
        if tuple(found[name].shape) != tuple(shape):
            raise CheckpointError(
                f"{where} holds {name} with the shape {tuple(found[name].shape)}",
                f"By the configuration it is {tuple(shape)}",
                "Give the configuration and the data that these weights were trained with",
            )
    left = [name for name in found if name not in expected and not any(part in name for part in unused)]
    if left:
        raise CheckpointError(
            f"{where} holds {_some(left)}, for which there is no place",
            "Every tensor of a file belongs to the network",
            "Give the configuration that these weights were trained with",
        )


def _some(names: Sequence[str], most: int = 4) -> str:
    """The first few of many names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass(frozen=True)
class Settings:
    """The configuration of a training, as Hydra left it.

    Attributes:
        path: The file.
        content: What it holds.
    """

    path: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """Reads the configuration of a folder.

        Raises:
            CheckpointError: There is none, or it is no YAML of plain values.
        """
        path = next((folder / name for name in CONFIGURATIONS if (folder / name).is_file()), None)
        if path is None:
            raise CheckpointError(
                f"{folder} lacks {CONFIGURATIONS[0]}",
                "Heads, windows, steps and noise of a model are told by its configuration alone",
                "Copy it from the training's folder",
            )
        try:
            content = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{path} is no YAML of plain values: {error}", "A configuration holds no objects", "Copy it again"
            ) from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} holds no sections", "A configuration has sections such as model", "Copy it again")
        return cls(path, content)

    def get(self, name: str, kind: type[Value], default: Value | None = None) -> Value:
        """One value.

        Args:
            name: Its name with the sections before it, such as ``"model.dim"``.
            kind: Its type; a whole number is taken for a float too.
            default: What holds where it is not there; None refuses that.

        Raises:
            CheckpointError: It is not there, or of another type.
        """
        value: Any = self.content
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        value = default if value is None else value
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise CheckpointError(
                f"{self.path} {'lacks ' + name if value is None else f'has {name}={value!r}'}",
                f"The network needs {name}, of type {kind.__name__}",
                "Copy the configuration again from the training's folder",
            )
        return value

    def pair(self, name: str) -> tuple[int, int]:
        """Rows and columns, given as two numbers or as one for both."""
        value = self.get(name, object)
        both: list[Any] = value if isinstance(value, list) else [value, value]
        if len(both) != 2 or not all(type(side) is int and side > 0 for side in both):
            raise CheckpointError(f"{self.path} has {name}={value!r}", "It is rows and columns", "Copy the configuration again")
        return both[0], both[1]

    def names(self, name: str) -> tuple[str, ...]:
        """A list of names."""
        return tuple(map(str, self.get(name, list)))

    def refuse(self, name: str, value: object, rule: str) -> None:
        """Refuses a value that asks for something that cannot be had.

        Raises:
            CheckpointError: Always.
        """
        raise CheckpointError(f"{self.path} has {name}={value!r}", rule, "Use weights that were trained otherwise")
