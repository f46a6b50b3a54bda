"""Trained models by name."""

from __future__ import annotations

from pathlib import Path

from aeris.errors import ConfigurationError
from aeris.training.checkpoint import Checkpoint

BUNDLED = {"demo": Path(__file__).parent / "assets" / "demo"}
"""Checkpoints that come with the package, by name."""


def load(name: str, path: str | Path | None = None) -> Checkpoint:
    """A trained model by its name, which `aeris.forecast` takes as its first argument.

    ``"demo"`` comes with the package: the preset `tiny`, trained on two years of ``aeris.Planet(grid=(32, 64), seed=0)``. It makes
    steps of six hours, and needs neither a network nor a training of your own.

    Args:
        name: The model.
        path: Where its weights lie. Weights that come with the package need none.

    Returns:
        The checkpoint.

    Raises:
        ConfigurationError: There is no model of this name, or its weights are here and `path` was given.
        CheckpointError: The weights are damaged.
    """
    if name not in BUNDLED:
        raise ConfigurationError(
            f"There are no weights named {name!r}",
            f"Weights by name are {', '.join(map(repr, BUNDLED))}",
            "Use one of these, or give aeris.forecast the directory of a run of your own",
        )
    if path is not None:
        raise ConfigurationError(
            f"aeris.load({name!r}, path={str(path)!r})", "These weights come with the package", f"Use aeris.load({name!r})"
        )
    return Checkpoint.open(BUNDLED[name])
