"""The command of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from aeris.cli.arguments import ModelChanges, Precision, Preset, SamplingChanges, changes_of, given
from aeris.errors import ConfigurationError
from aeris.model import presets
from aeris.model.presets import Consistency, Crps, Objective, SamplingRecipe, TrainingRecipe
from aeris.swipe import Layout

Recipe = Literal["default", "24h", "6h", "consistency", "distillation", "fine-tuning"]

TrainingChanges = changes_of(TrainingRecipe, without="objective")
ConsistencyChanges = changes_of(Consistency, without="kind")
CrpsChanges = changes_of(Crps, without="kind")

TRAININGS = {
    "default": TrainingRecipe,
    "24h": presets.training_24h,
    "6h": presets.training_6h,
    "consistency": presets.consistency,
    "distillation": presets.distillation,
    "fine-tuning": presets.fine_tuning,
}
SAMPLINGS = {"24h": presets.sampling_24h, "6h": presets.sampling_6h}
"""Samplers of recipes that have one of their own."""


def train(
    data: Path,
    out: Path,
    preset: Preset = "tiny",
    steps: int = 2000,
    batch: int = 4,
    micro_batch: int | None = None,
    period: tuple[str, str] | None = None,
    precision: Precision = "bfloat16",
    seed: int = 0,
    checkpoint_every: int = 500,
    recipe: Recipe = "default",
    start: Path | None = None,
    model: ModelChanges = ModelChanges(),  # type: ignore[valid-type]  # noqa: B008
    training: TrainingChanges = TrainingChanges(),  # type: ignore[valid-type]  # noqa: B008
    consistency: ConsistencyChanges = ConsistencyChanges(),  # type: ignore[valid-type]  # noqa: B008
    crps: CrpsChanges = CrpsChanges(),  # type: ignore[valid-type]  # noqa: B008
    sampling: SamplingChanges = SamplingChanges(),  # type: ignore[valid-type]  # noqa: B008
    layout: Layout = Layout(),  # noqa: B008
) -> None:
    """Trains a model, or goes on with a run that was interrupted.

    Args:
        data: Training store.
        out: Directory of the run.
        preset: The model to start from.
        steps: Optimizer steps.
        batch: Images a step, over all ranks.
        micro_batch: Images a forward pass; left out, the whole batch.
        period: First and last time to train on, both inclusive.
        precision: Dtype of the activations.
        seed: Seed of weights, data order and noise.
        checkpoint_every: Steps between checkpoints.
        recipe: Recipe to change: the default suits small models, 24h and 6h are the paper's; consistency trains a model of one or two
            calls, distillation makes one of the diffusion model that it starts from; fine-tuning tunes either on rollouts, for a sampler
            of one call.
        start: Run or checkpoint of the same network, from whose averaged weights to begin; left out, they are random.
        model: Changes to the preset.
        training: Changes to the recipe's training.
        consistency: Changes to the objective of the recipes consistency and distillation.
        crps: Changes to the objective of the recipe fine-tuning.
        sampling: Changes to the recipe's sampling.
        layout: How the processes of ``torchrun`` share the work.
    """
    import aeris

    _check_start(recipe, start)
    made = _training(recipe, training, consistency, crps)
    run = aeris.train(
        getattr(presets, preset)(**given(model)),
        data,
        out,
        steps=steps,
        batch=batch,
        micro_batch=micro_batch,
        period=None if period is None else slice(*period),
        precision=precision,
        seed=seed,
        checkpoint_every=checkpoint_every,
        recipe=made,
        sampling=_sampling(recipe, made, sampling),
        layout=layout,
        start=start,
    )
    print(run)


def _check_start(recipe: Recipe, start: Path | None) -> None:
    if recipe == "fine-tuning" and start is None:
        raise ConfigurationError(
            "--recipe fine-tuning without --start", "What is tuned was trained before", "Give --start RUN, a run of the same model"
        )


def _training(recipe: Recipe, training: object, consistency: object, crps: object) -> TrainingRecipe:
    """A recipe with what was changed of it."""
    base = TRAININGS[recipe]()
    objective = _changed(base.objective, Consistency, given(consistency), "consistency")
    objective = _changed(objective, Crps, given(crps), "fine-tuning")
    return replace(base, objective=objective, **given(training))


def _changed(objective: Objective, kind: type[Objective], changes: dict[str, Any], recipe: Recipe) -> Objective:
    """An objective with changes to those of one kind, which a recipe has."""
    if changes and not isinstance(objective, kind):
        raise ConfigurationError(
            f"--{kind.__name__.lower()}.{next(iter(changes))} with a recipe for {objective.kind}",
            "It changes another objective than the recipe's",
            f"Leave it out, or use --recipe {recipe}",
        )
    return replace(objective, **changes)


def _sampling(recipe: Recipe, training: TrainingRecipe, changes: object) -> SamplingRecipe:
    """How the checkpoints of a recipe suggest to sample, with what was changed of it."""
    suggested = SAMPLINGS[recipe]() if recipe in SAMPLINGS else presets.sampling_for(training)
    return replace(suggested, **given(changes))
