"""What a run was asked to do: checked before it starts, written into its directory, and held to when it goes on."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from aeris.data.contents import hours
from aeris.data.disk import write_whole
from aeris.data.harmonics import Sphere
from aeris.data.statistics import HOUR
from aeris.data.store import Store
from aeris.errors import ConfigurationError
from aeris.model.config import ModelConfig
from aeris.model.presets import Crps, SamplingRecipe, TrainingRecipe, check_solver
from aeris.run import Run
from aeris.swipe import Layout
from aeris.training.start import Start, check_teacher


@dataclass(frozen=True)
class Configuration:
    """All that decides the numbers of a run.

    Attributes:
        model: The network, with its channels named.
        recipe: How it is trained.
        sampling: How its checkpoints suggest to sample.
        steps: Optimizer steps.
        batch: Images a step.
        micro_batch: Images a forward pass.
        period: First and last time to train on, each inclusive; None where open.
        precision: Dtype of the activations.
        seed: Seed of weights, data order and noise.
        statistics_id: Identity of the store's statistics.
        start: Weights that it begins from; None where they are random.
    """

    model: ModelConfig
    recipe: TrainingRecipe
    sampling: SamplingRecipe
    steps: int
    batch: int
    micro_batch: int
    period: tuple[str | None, str | None]
    precision: str
    seed: int
    statistics_id: str
    start: Start | None = None

    @property
    def period_slice(self) -> slice:
        """The period as an inclusive slice."""
        return slice(*self.period)

    @property
    def longest_span(self) -> int:
        """Length of the network's longest step in intervals of the store."""
        return _longest_span(self.model)


def configure(
    model: ModelConfig,
    store: Store,
    steps: int,
    batch: int,
    micro_batch: int,
    period: slice | None,
    precision: str,
    seed: int,
    recipe: TrainingRecipe,
    sampling: SamplingRecipe,
    start: Start | None = None,
) -> Configuration:
    """Checks what was asked for against the store.

    Raises:
        ConfigurationError: Sizes, precision, period or teacher that cannot work, or a model that does not fit the store.
    """
    _check_sizes(steps, batch, micro_batch, precision)
    check_teacher(start, recipe, model)
    check_solver(sampling, recipe.objective)
    if not model.channels:
        model = replace(model, channels=store.channels, forcings=store.statistics.forcings)
    _check_model(model, store)
    _check_intervals(model, store)
    period, longest = period or slice(None), _longest_span(model)
    if not len(store.pairs(period, longest)):
        raise ConfigurationError(
            f"period={period} holds no two times {hours(longest * store.interval)} apart",
            f"The store runs from {store.times[0]} to {store.times[-1]}",
            "Choose a period inside it",
        )
    if isinstance(recipe.objective, Crps):
        _check_rollouts(recipe, recipe.objective, sampling, store, period, longest)
    ends = tuple(None if end is None else str(end) for end in (period.start, period.stop))
    identity = store.statistics.id
    return Configuration(model, recipe, sampling, steps, batch, micro_batch, ends, precision, seed, identity, start)  # type: ignore[arg-type]


def _check_sizes(steps: int, batch: int, micro_batch: int, precision: str) -> None:
    if min(steps, batch, micro_batch) < 1:
        raise ConfigurationError(
            f"steps={steps}, batch={batch}, micro_batch={micro_batch}", "All are at least 1", "Use for example 2000, 4, 4"
        )
    if batch % micro_batch:
        fits = [size for size in range(1, batch + 1) if batch % size == 0]
        raise ConfigurationError(f"micro_batch={micro_batch}", f"It divides the batch of {batch}", f"Use one of {fits}")
    if precision not in ("bfloat16", "float32", "float64"):
        raise ConfigurationError(f"precision={precision!r}", "It is 'bfloat16', 'float32' or 'float64'", "Use 'bfloat16'")


def _check_rollouts(recipe: TrainingRecipe, objective: Crps, sampling: SamplingRecipe, store: Store, period: slice, span: int) -> None:
    if objective.spectrum:
        Sphere.on(store.grid)  # refuses rows that have no spectrum
    longest = max(objective.lengths)
    if not len(store.pairs(period, longest * span)):
        fits = [steps for steps in range(1, longest) if len(store.pairs(period, steps * span))]
        raise ConfigurationError(
            f"period={period} holds no {longest + 1} states that follow each other {hours(span * store.interval)} apart",
            f"A rollout of {longest} steps runs from the first of them to the last, across no gap and no end of the period",
            f"Choose a longer period, or a curriculum of at most {fits[-1]} lengths",
        )
    if sampling.noise[0] < recipe.noise[0] or sampling.noise[1] > recipe.noise[1]:
        raise ConfigurationError(
            f"The sampler that is tuned has noise={sampling.noise}, the recipe {recipe.noise}",
            "A sampler stays inside the noise range of the training",
            f"Use a recipe with noise={(min(sampling.noise[0], recipe.noise[0]), max(sampling.noise[1], recipe.noise[1]))}",
        )


def _check_model(model: ModelConfig, store: Store) -> None:
    if model.grid != store.grid.shape:
        raise ConfigurationError(
            f"The model has grid={model.grid}, the store {store.grid.shape}",
            "A model is trained on its own grid",
            f"Use grid={store.grid.shape}, or prepare the store from aeris.coarsen(ds, {model.grid})",
        )
    for what, asked, stored in (("channels", model.channels, store.channels), ("forcings", model.forcings, store.statistics.forcings)):
        if tuple(asked) != tuple(stored):
            lacks, extra = [n for n in asked if n not in stored], [n for n in stored if n not in asked]
            raise ConfigurationError(
                f"The store lacks the model's {what} {lacks} and has {extra} beside them"
                if lacks or extra
                else f"The {what} are in another order",
                f"Model and store hold the same {what} in the same order",
                f"Leave the model's {what} empty to take the store's, or prepare a store that holds them",
            )
    store.check_window(model.window)


def _check_intervals(model: ModelConfig, store: Store) -> None:
    known = [int(interval / HOUR) for interval in (store.interval, *store.further)]
    lacking = [length for length in model.intervals if length not in known]
    if not (lacking or (model.intervals and model.intervals[0] != known[0])):
        return
    if model.intervals[0] != known[0]:
        found = f"The model has intervals={model.intervals}, and the store steps of {hours(store.interval)}"
    else:
        found = f"The store {store.path} knows no changes over {', '.join(f'{length} h' for length in lacking)}"
    first, *further = (f"{length}h" for length in model.intervals)
    raise ConfigurationError(
        found,
        "The first interval of a model is that of its store, which has statistics of the others too",
        f"Prepare one by aeris.prepare(ds, path, interval={first!r}, intervals={further})",
    )


def _longest_span(model: ModelConfig) -> int:
    return model.intervals[-1] // model.intervals[0] if model.intervals else 1


def start_run(path: Path, configuration: Configuration, store: Store, layout: Layout) -> Run:
    """Makes the directory of a run, or finds the one that it goes on with; the layout may be another one then.

    Raises:
        ConfigurationError: A run with another configuration is there.
    """
    asked = json.loads(json.dumps(asdict(configuration)))
    if (path / "run.json").exists():
        run = Run.open(path)
        _check_same(path, asked, run.configuration)
        return run
    content = {**asked, "layout": asdict(layout), "store": str(store.path), "versions": _versions(), "revision": _revision()}
    write_whole(path / "run.json", [json.dumps(content, indent=1).encode()])
    return Run.open(path)


def _check_same(path: Path, asked: dict[str, Any], found: dict[str, Any]) -> None:
    # A run of an older version lacks what was added since; it had the defaults.
    made = {"model": ModelConfig, "recipe": TrainingRecipe, "sampling": SamplingRecipe}
    found = {**found, **{name: json.loads(json.dumps(asdict(kind(**found[name])))) for name, kind in made.items()}}
    differing = [name for name in asked if _identity(asked, name) != _identity(found, name)]
    if differing:
        name = differing[0]
        raise ConfigurationError(
            f"{path} holds a run with {name}={found.get(name)}, not {asked[name]}",
            "A run goes on only with the arguments that it began with",
            "Use the same arguments, or another directory",
        )


def _identity(content: Mapping[str, Any], name: str) -> Any:
    """By what an argument is compared: weights wherever they lie now, everything else as it is."""
    value = content.get(name)
    return value["weights_id"] if name == "start" and value is not None else value


def _versions() -> dict[str, str]:
    packages = {name: metadata.version(name) for name in ("aeris", "torch", "numpy", "zarr", "xarray")}
    return {"python": platform.python_version(), **packages}


def _revision() -> str | None:
    """Git revision of the package's own source, where it is a checkout."""
    asked = subprocess.run(["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None
