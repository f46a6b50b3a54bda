"""The averaged weights of another run, from which a run begins."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from aeris.data.store import Store
from aeris.errors import CheckpointError, ConfigurationError
from aeris.model.config import ModelConfig
from aeris.model.presets import Consistency, Diffusion, TrainingRecipe
from aeris.run import Run
from aeris.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Start:
    """Where a run began.

    Attributes:
        path: What was named, a run or a checkpoint.
        checkpoint: The checkpoint that this was at the time.
        weights_id: Checksum of its averaged weights, by which it is known again.
    """

    path: str
    checkpoint: str
    weights_id: str

    def open(self) -> Checkpoint:
        """The checkpoint.

        Raises:
            CheckpointError: It has gone, or holds other weights by now.
        """
        checkpoint = Checkpoint.open(self.checkpoint)
        if checkpoint.weights_id != self.weights_id:
            raise CheckpointError(
                f"{self.checkpoint} has weights {checkpoint.weights_id[:12]}, the run began from {self.weights_id[:12]}",
                "A run keeps the weights that it began from",
                "Put them back, or start a new run",
            )
        return checkpoint


def starting_point(start: str | Path | Run | Checkpoint | None, out: str | Path, model: ModelConfig, store: Store) -> Start | None:
    """What a run begins from, checked against its model and its data.

    A run that goes on keeps what it began from, whether or not that is still there or has been trained further.

    Args:
        start: A run, of which the newest checkpoint is taken, or a checkpoint; None begins from random weights.
        out: Directory of the run.
        model: The network; channels may be left empty.
        store: The data.

    Raises:
        CheckpointError: There is no finished checkpoint.
        ConfigurationError: It has another network or other statistics.
    """
    if start is None:
        return None
    asked = str(Path(start if isinstance(start, str | Path) else start.path).absolute())
    began = recorded(out)
    if began is not None and began.path == asked:
        return began
    checkpoint = Checkpoint.open(asked)
    _check_model(checkpoint, model)
    known, given = checkpoint.statistics, store.statistics
    if not checkpoint.model.intervals:
        known, given = known.of_first_interval, given.of_first_interval
    if known.id != given.id:
        raise ConfigurationError(
            f"{checkpoint.path} was trained with statistics {known.id}, the store has {given.id}",
            "A run begins from weights that know its channels and their statistics",
            "Use the store that they were trained on",
        )
    return Start(asked, str(checkpoint.path), checkpoint.weights_id)


def recorded(out: str | Path) -> Start | None:
    """What the run in a directory began from; None if there is no run, or it began from random weights."""
    file = Path(out) / "run.json"
    content = json.loads(file.read_text()).get("start") if file.exists() else None
    return None if content is None else Start(**content)


def check_teacher(start: Start | None, recipe: TrainingRecipe, model: ModelConfig) -> None:
    """Refuses a distillation without a teacher, or from one that cannot teach it.

    Raises:
        CheckpointError: The teacher has gone, or holds other weights by now.
        ConfigurationError: There is none, it is no diffusion model, or it has not seen all the noise or all the intervals.
    """
    if not (isinstance(recipe.objective, Consistency) and recipe.objective.path == "teacher"):
        return
    if start is None:
        raise ConfigurationError(
            "A distillation without a start", "The weights that it begins from are its teacher", "Give start=RUN, a trained diffusion model"
        )
    teacher = start.open()
    taught, low, high = teacher.training, *recipe.noise
    if teacher.model.intervals != model.intervals:
        raise ConfigurationError(
            f"The model has intervals={model.intervals}, its teacher {teacher.model.intervals}",
            "A teacher is asked about intervals that it was trained on",
            f"Use intervals={teacher.model.intervals}, or train the teacher on {model.intervals} first",
        )
    if not isinstance(taught.objective, Diffusion):
        raise ConfigurationError(
            f"{start.checkpoint} was trained for {taught.objective.kind}",
            "A teacher gives the velocity of diffusion",
            "Start from a diffusion model, or use presets.consistency(), which needs no teacher",
        )
    if low < taught.noise[0] or high > taught.noise[1]:
        raise ConfigurationError(
            f"The recipe's tan t runs from {low} to {high}, the teacher's from {taught.noise[0]} to {taught.noise[1]}",
            "A teacher is asked about noise that it was trained on",
            f"Use noise=({max(low, taught.noise[0])}, {min(high, taught.noise[1])})",
        )


def _check_model(checkpoint: Checkpoint, model: ModelConfig) -> None:
    found = checkpoint.model
    asked = model if model.channels else replace(model, channels=found.channels, forcings=found.forcings)
    if not found.intervals:
        asked = replace(asked, intervals=())  # further ones begin as the one that it knows
    name = next((name for name in vars(found) if getattr(found, name) != getattr(asked, name)), None)
    if name is not None:
        raise ConfigurationError(
            f"{checkpoint.path} has a network of {name}={getattr(found, name)}, the model has {getattr(asked, name)}",
            "A run begins from weights of its own network",
            f"Use the model of that checkpoint, with {name}={getattr(found, name)!r}",
        )
