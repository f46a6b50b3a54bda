"""The command line: the functions of the notebook, one to one, so that a batch job and a notebook say the same thing."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import tyro
from tyro.extras import SubcommandApp

from aeris.errors import AerisError, ConfigurationError
from aeris.model.config import ModelConfig
from aeris.model.presets import Consistency, SamplingRecipe, TrainingRecipe
from aeris.swipe import Layout

Preset = Literal["tiny", "small", "aeris_1_3b", "aeris_1_3b_6h", "aeris_13b", "aeris_26b", "aeris_40b", "aeris_80b"]
Recipe = Literal["default", "24h", "6h", "consistency", "distillation"]
Precision = Literal["bfloat16", "float32", "float64"]


def _changes_of(config: type, without: str = "") -> type:
    """A dataclass like `config` in which every field may be left out, and one is not there."""
    fields = [(field.name, Optional[field.type], None) for field in dataclasses.fields(config) if field.name != without]  # noqa: UP045
    made = dataclasses.make_dataclass(f"{config.__name__}Changes", fields, frozen=True)
    made.__doc__, made.__module__ = config.__doc__, config.__module__
    return made


ModelChanges = _changes_of(ModelConfig)
TrainingChanges = _changes_of(TrainingRecipe, without="objective")
ConsistencyChanges = _changes_of(Consistency, without="kind")
SamplingChanges = _changes_of(SamplingRecipe)


def _given(changes: Any) -> dict[str, Any]:
    """The fields that were given."""
    return {field.name: value for field in dataclasses.fields(changes) if (value := getattr(changes, field.name)) is not None}


def _changed(objective: Any, kind: type, given: dict[str, Any]) -> Any:
    """An objective with changes to those of one kind."""
    if given and not isinstance(objective, kind):
        raise ConfigurationError(
            f"--{kind.__name__.lower()}.{next(iter(given))} with a recipe for {objective.kind}",
            "It changes another objective than the recipe's",
            f"Leave it out, or use --recipe {kind.__name__.lower()}",
        )
    return dataclasses.replace(objective, **given)


def demo(out: Path = Path("demo"), steps: int = 700, seed: int = 0, lead: str = "24h") -> None:
    """The whole line on the simulated planet, with a page to look at: simulate, prepare, train, forecast, verify.

    Args:
        out: Directory of everything it leaves; called again, it goes on where it was.
        steps: Optimizer steps of the training.
        seed: Seed of training and sampling.
        lead: Length of the forecasts that are scored, for example 24h or 72h.
    """
    from aeris.demo import demo as run_demo

    done = run_demo(out, steps, seed, lead)
    for score in ("crps_over_optimum", "rmse_over_optimum"):
        means = ", ".join(f"{value['mean']:.3f} at {at}" for at, value in done.scores[score].items())
        print(f"{score.replace('_', ' ')}: {means}")
    print(f"look at {done.report}")


def simulate(out: Path, years: float = 1.0, grid: tuple[int, int] = (32, 64), seed: int = 0, start: str = "2001-01-01") -> None:
    """Simulates weather on an invented planet, whose exact forecast is known, and writes it as Zarr.

    Args:
        out: The Zarr store to write.
        years: Length of the simulation.
        grid: Rows and columns.
        seed: Seed of the planet and of its weather.
        start: First time.
    """
    import aeris

    _refuse_existing(out)
    partial = out.with_name(f".{out.name}.partial")
    aeris.simulate_planet(years=years, start=start, grid=grid, seed=seed).to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
    partial.rename(out)
    print(f"wrote {out}")


def prepare(
    source: Annotated[str, tyro.conf.Positional],
    out: Path,
    interval: str = "6h",
    chunk: int | None = None,
    gaps: Literal["refuse", "skip"] = "refuse",
    intervals: tuple[str, ...] = (),
) -> None:
    """Turns a dataset into a training store with its statistics; resumable.

    Args:
        source: Anything aeris opens: Zarr, NetCDF or GRIB, a path or a URL.
        out: The training store.
        interval: Step of the model that will be trained.
        chunk: Rows and columns of a chunk; left out, the largest divisor of both axes up to 30.
        gaps: What to do where times are further apart than the interval.
        intervals: Further steps of the model, multiples of the first, such as 12h 24h.
    """
    import aeris

    print(aeris.prepare(source, out, interval=interval, chunk=chunk, gaps=gaps, intervals=intervals))


def check(store: Annotated[Path, tyro.conf.Positional]) -> None:
    """Reads a whole training store and says what is in it.

    Args:
        store: The training store.
    """
    import aeris

    print(aeris.Store.open(store).check())


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
            calls, distillation makes one of the diffusion model that it starts from.
        start: Run or checkpoint of the same network, from whose averaged weights to begin; left out, they are random.
        model: Changes to the preset.
        training: Changes to the recipe's training.
        consistency: Changes to the objective of the recipes consistency and distillation.
        sampling: Changes to the recipe's sampling.
        layout: How the processes of ``torchrun`` share the work.
    """
    import aeris
    from aeris.model import presets

    makes = {"default": TrainingRecipe, "24h": presets.training_24h, "6h": presets.training_6h}
    makes |= {"consistency": presets.consistency, "distillation": presets.distillation}
    base = makes[recipe]()
    made = dataclasses.replace(base, objective=_changed(base.objective, Consistency, _given(consistency)), **_given(training))
    paper = {"24h": presets.sampling_24h, "6h": presets.sampling_6h}
    suggested = paper[recipe]() if recipe in paper else presets.sampling_for(made)
    run = aeris.train(
        getattr(presets, preset)(**_given(model)),
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
        sampling=dataclasses.replace(suggested, **_given(sampling)),
        layout=layout,
        start=start,
    )
    print(run)


def forecast(
    checkpoint: Path,
    initial: str,
    times: tuple[str, ...],
    members: int = 16,
    lead: str = "10d",
    out: Path = Path("forecast.zarr"),
    seed: int = 0,
    batch: int = 8,
    precision: Precision = "bfloat16",
    compile: bool = False,
    step: str | None = None,
    sampling: SamplingChanges = SamplingChanges(),  # type: ignore[valid-type]  # noqa: B008
    layout: Layout = Layout(),  # noqa: B008
) -> None:
    """Draws an ensemble from each initial time into an archive, or goes on with one that was interrupted.

    Args:
        checkpoint: A run, of which the newest checkpoint is taken, or a checkpoint.
        initial: Dataset that holds the initial times: a path or a URL.
        times: Initial times.
        members: Members from each initial time.
        lead: Length of the forecast.
        out: The archive.
        seed: Seed of the forecast.
        batch: Members computed together.
        precision: Dtype of the activations.
        compile: Compile the network, worth it for long forecasts.
        step: Length of the steps of a model that knows several, such as 24h, or fewest to reach every lead in as few as can be.
        sampling: Changes to the sampler that the checkpoint suggests.
        layout: How the processes of ``torchrun`` share the work.
    """
    import aeris
    from aeris.training.checkpoint import Checkpoint

    recipe = dataclasses.replace(Checkpoint.open(checkpoint).sampling, **_given(sampling))
    aeris.forecast(
        checkpoint,
        initial,
        times,
        members,
        lead,
        out,
        seed,
        batch=batch,
        sampling=recipe,
        precision=precision,
        compile=compile,
        layout=layout,
        step=step,
    )
    print(f"wrote {out}")


def borrow(
    name: Annotated[Literal["aeris-gb", "swift"], tyro.conf.Positional],
    path: Annotated[Path, tyro.conf.Positional],
    static: str,
    out: Path,
    interval: str | None = None,
    rows: Literal["north", "south"] | None = None,
    weights: Literal["ema", "net"] = "ema",
) -> None:
    """Turns weights of others into a checkpoint that forecast takes; nothing in their files is run.

    Args:
        name: Whose weights they are.
        path: Folder of the weights with their configuration and statistics, or one of its files.
        static: Dataset with the static fields on the model's grid: a path or a URL.
        out: Directory of the checkpoint.
        interval: Length of a step, where the model knows several; left out, six hours.
        rows: Which row came first in the data of their training; left out, what is taken to be so.
        weights: The average of the weights, or the weights themselves.
    """
    import aeris

    print(f"wrote {aeris.load(name, path, static, out, interval, rows, weights).path}")


def verify(
    forecast: str,
    truth: str,
    out: Path,
    baselines: tuple[str, ...] = ("persistence",),
    references: tuple[str, ...] = (),
    climatology: str | None = None,
    metrics: tuple[str, ...] = (),
    regions: tuple[str, ...] = (),
    seasons: bool = False,
    thresholds: tuple[str, ...] = (),
    gaps: Literal["refuse", "skip"] = "refuse",
) -> None:
    """Scores a forecast archive against the truth, into a Zarr store and a page beside it; interrupted and called again, it goes on.

    Args:
        forecast: The archive, of aeris or any in WeatherBench 2's shape: a path or a URL.
        truth: Dataset that holds the valid times: a path or a URL.
        out: Zarr store of the scores; the page has its name with the ending html.
        baselines: Of persistence, climatology and, on the simulated planet, optimum.
        references: Further forecasts to score beside it, each as NAME=PATH: published archives in WeatherBench 2's shape, by path or URL.
        climatology: Past states from which a climatology is made, or a climatology by day of the year as WeatherBench 2 stores it.
        metrics: Scores to compute; left out, all that do not take long.
        regions: Regions to average over, such as global, tropics or europe; left out, the globe.
        seasons: Whether to average over the initial times of each season too.
        thresholds: Events to look at, such as 2m_temperature=303.15,308.15: the value is above the threshold.
        gaps: Where the truth lacks a time: refuse, or skip it and count it.
    """
    import aeris
    from aeris.verification.climatology import open_climatology
    from aeris.verification.evaluation import evaluate
    from aeris.verification.events import thresholds_of
    from aeris.verification.scores import write_scores

    kept, page, began = out.with_name(f".{out.name}.kept"), out.with_suffix(".html"), time.time()
    _refuse_existing(out)
    if not kept.exists():
        _refuse_existing(page)
    happened = aeris.open_era5(truth)
    happened.encoding["source"] = truth
    found = evaluate(
        forecast,
        happened,
        None if climatology is None else open_climatology(climatology),
        (*baselines, _named_paths(references)),
        metrics=metrics or None,
        regions=regions or None,
        seasons=seasons,
        thresholds=thresholds_of(thresholds) or None,
        gaps=gaps,
        keep=kept,
        progress=True,
    )
    if "references" in found.scores.attrs:
        print(found.scores.attrs["references"])
    if find_spec("matplotlib") is None:
        print("no page was written: pictures come with pip install 'aeris[views]'")
    else:
        from aeris.views.report import write_report

        facts = {
            "Forecast": forecast,
            "Truth": truth,
            "Systems": ", ".join(map(str, found.scores.system.values)),
            **({"Climatology": climatology} if climatology else {}),
            **({"Events": "above " + ", ".join(thresholds)} if thresholds else {}),
        }
        write_report(
            page,
            scores=found.scores,
            facts=facts,
            ranks=found.ranks,
            spectra=found.spectra,
            events=found.events,
            comparisons=found.comparisons,
            left_out=found.left_out,
            made=_made(began),
            title=f"Verification of {Path(forecast).name}",
        )
        print(f"wrote {page}")
    write_scores(found.scores, out)
    shutil.rmtree(kept)
    print(f"wrote {out}")


def _made(began: float) -> dict[str, str]:
    """When, where and with which versions something was made that began at a time in seconds."""
    names = ("aeris", "numpy", "xarray", "zarr", "scores", "ducc0")
    versions = [f"python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in names)]
    return {
        "Made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, in {time.time() - began:.0f} s since it was last started",
        "Machine": f"{platform.machine()}, {platform.system()}",
        "Versions": ", ".join(versions),
    }


def plan(
    preset: Preset = "tiny",
    batch: int | None = None,
    micro_batch: int = 1,
    model: ModelChanges = ModelChanges(),  # type: ignore[valid-type]  # noqa: B008
    layout: Layout = Layout(),  # noqa: B008
    ranks: int | None = None,
    memory: float = 64.0,
    measure: bool = False,
) -> None:
    """Says what a layout costs a rank: memory, bytes sent, bubble; or which layout to take.

    Args:
        preset: The model to start from; its channels are the 69 of the paper.
        batch: Images a step over all ranks; left out, eight for each data replica.
        micro_batch: Images of a forward pass.
        model: Changes to the preset.
        layout: How ranks share the work.
        ranks: Suggest the layout of so many ranks instead.
        memory: With --ranks, memory of a rank in GB.
        measure: Take one step with every rank on this machine and count what it sends.
    """
    from aeris.data.variables import state_channels
    from aeris.model import presets
    from aeris.swipe import plan as plans

    config = getattr(presets, preset)(**{"channels": state_channels(), **_given(model)})
    if ranks is not None:
        layout = Layout.suggest(config, ranks, memory, batch)
        batch = batch or ranks
    batch = batch or 8 * layout.dp * micro_batch
    print(plans.plan(config, layout, batch, micro_batch))
    if measure:
        from aeris.training.measure import measure as measure_step
        from aeris.training.measure import table

        print(table(measure_step(config, layout, batch, micro_batch), config, layout, batch))


def explore(
    forecast: Annotated[Path, tyro.conf.Positional],
    truth: str | None = None,
    variable: str | None = None,
    port: int = 0,
    follow: bool = False,
    every: float = 10.0,
    behind: str | None = None,
) -> None:
    """Serves maps, plumes, spectra and extremes of a forecast to a browser on this machine, until it is interrupted.

    The address that is printed holds a secret, without which nothing is served.

    Args:
        forecast: The archive, of aeris or any in WeatherBench 2's shape, finished or not.
        truth: Dataset of what happened: a path or a URL.
        variable: The variable to begin with; left out, the first of the archive.
        port: Port to serve on; 0 takes any that is free.
        follow: Look for new members by itself.
        every: Seconds between two such looks.
        behind: Address, up to /lab, of the Jupyter server through whose jupyter-server-proxy the browser comes.
    """
    from aeris.views.explorer import make_server

    served = make_server(forecast, truth, port, behind, variable=variable, follow=follow, every=every)
    served.server.start()
    print(f"open {served.address} in a browser; Ctrl+C ends it", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        served.server.io_loop.start()


def lab(out: Path = Path("aeris-lab"), port: int = 8888, browser: bool = True) -> None:
    """Opens the tutorials in JupyterLab, on this machine alone and behind a token, until it is interrupted.

    Args:
        out: Folder that tutorials and notebooks are copied into; what is there already stays as it is.
        port: Port to serve on; where it is taken, the next one that is free.
        browser: Open a browser.
    """
    from aeris.lab import open_lab

    open_lab(out, port, browser)


def doctor() -> None:
    """Says which device and collectives were chosen on this machine, and why."""
    from aeris import device

    print(device.explain())


def _named_paths(references: Sequence[str]) -> dict[str, str]:
    """Paths or URLs by the names that stand before them."""
    from aeris.errors import ConfigurationError

    found: dict[str, str] = {}
    for reference in references:
        name, _, path = reference.partition("=")
        if not name or not path or "/" in name or name in found:
            raise ConfigurationError(
                f"--references {reference}" + (f", where {name} stands twice" if name in found else ""),
                "References are given as NAME=PATH, each name once",
                f"Use for example --references 'IFS ENS={path or reference}'",
            )
        found[name] = path
    return found


def _refuse_existing(out: Path) -> None:
    from aeris.errors import StoreError

    if out.exists():
        raise StoreError(f"{out} exists", "Nothing that is there is replaced", "Choose another name for --out, or remove it")


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "data simulate": simulate,
    "data prepare": prepare,
    "data check": check,
    "train": train,
    "forecast": forecast,
    "import": borrow,
    "verify": verify,
    "plan": plan,
    "explore": explore,
    "lab": lab,
    "doctor": doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Words of the command line; None takes the process's own.

    Returns:
        0, or 2 where an `AerisError` was raised, whose message is then the last line printed.
    """
    app, data = SubcommandApp(), SubcommandApp()
    for name, command in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        (data if group else app).command(name=last)(command)
    app.command(data, name="data", help="Simulates a planet, prepares training stores and checks them.")
    try:
        app.cli(prog="aeris", description="Interactive, probabilistic global weather forecasting.", args=arguments)
    except AerisError as error:
        print(f"aeris: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
