"""The training loop: the next residual's distribution, learned as the recipe's objective has it.

The state of a run is a function of its configuration and the number of steps: the order of the data and the noise are keyed by
(seed, image), so that a resumed run cannot be told from one that was never interrupted.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from aeris import device as devices
from aeris.data.store import Store
from aeris.errors import CheckpointError
from aeris.model import flops
from aeris.model.config import ModelConfig
from aeris.model.fields import Fields, Geography
from aeris.model.presets import SamplingRecipe, TrainingRecipe, sampling_for
from aeris.progress import tqdm
from aeris.run import Run
from aeris.swipe import Groups, Layout, Pipeline, ShardedAdamW, Update, share
from aeris.swipe.optimizer import MOMENTS
from aeris.swipe.watch import watch
from aeris.training import average
from aeris.training.batches import Batch, Reader
from aeris.training.checkpoint import Checkpoint, load_weights, save
from aeris.training.configuration import Configuration, configure, start_run
from aeris.training.logbook import Logbook
from aeris.training.networks import network_of, worth_compiling
from aeris.training.objectives import objective_of
from aeris.training.schedule import learning_rate
from aeris.training.start import Start, starting_point
from aeris.training.state import told


def train(
    model: ModelConfig,
    data: str | Path | Store,
    out: str | Path,
    steps: int = 2000,
    batch: int = 4,
    micro_batch: int | None = None,
    period: slice | None = None,
    precision: Literal["bfloat16", "float32", "float64"] = "bfloat16",
    seed: int = 0,
    recipe: TrainingRecipe | None = None,
    sampling: SamplingRecipe | None = None,
    layout: Layout | None = None,
    checkpoint_every: int = 500,
    progress: bool = True,
    start: str | Path | Run | Checkpoint | None = None,
) -> Run:
    """Trains a model, or goes on with a run that was interrupted.

    With a layout of several ranks every process calls this, for example under ``torchrun``; together they compute what one
    process would.

    A run is stopped gracefully by SIGTERM or SIGINT: it writes a checkpoint and returns. Calling again with the same arguments
    goes on where it was; on the same machine the weights are bit-identical to those of an uninterrupted run.

    Args:
        model: The network; channels left empty are those of the store.
        data: Training store, or its path.
        out: Directory of the run.
        steps: Optimizer steps of the whole run.
        batch: Images a step, over all ranks.
        micro_batch: Images a forward pass; divides a replica's share of the batch. None takes the whole share at once, or one
            image in a pipeline.
        period: Inclusive slice of times to train on; None takes all.
        precision: Dtype of the activations. Weights, averages and residuals are float32 (float64 for exact tests).
        seed: Seed of weights, data order and noise.
        recipe: Objective, optimizer, schedule, noise range and average; None takes the defaults, which train small diffusion models.
        sampling: Recipe that the checkpoint suggests to whoever samples from it; None takes one that suits what is trained.
        layout: How ranks share the work; None is a process alone. A run may go on with another.
        checkpoint_every: Steps between checkpoints; one is written at the end too.
        progress: Whether to show a progress bar.
        start: Run or checkpoint of the same network, from whose averaged weights to begin; None begins from random ones. A network of
            several intervals may begin from one of its first interval alone.

    Returns:
        The run.

    Raises:
        RankLost: Another rank has gone.
        ConfigurationError: The model does not fit the store, the layout or the start, the run in `out` was started with other
            arguments, or the processes were asked for different things.
        CheckpointError: The run's newest checkpoint, or the one to start from, is damaged.
        StoreError: A checkpoint could not be written.
    """
    store = data if isinstance(data, Store) else Store.open(data)
    layout = layout or Layout()
    begin = starting_point(start, out, model, store)
    configuration = configuration_of(model, store, steps, batch, micro_batch, period, precision, seed, recipe, sampling, layout, begin)
    groups = Groups.join(layout, devices.choose())
    groups.agree(asdict(configuration), "what to train")
    if groups.rank == 0:
        start_run(Path(out), configuration, store, layout)
    groups.barrier()
    run = Run.open(out)
    trainer = Trainer(configuration, store, groups)
    if run.checkpoints:
        trainer.load(Checkpoint.open(run.newest))
    elif begin is not None:
        trainer.begin(begin.open())
    if trainer.step < steps:
        with told(run, groups, trainer.device, precision), watch(groups, run.path / "engines", lambda: trainer.step):
            _loop(trainer, run, checkpoint_every, progress)
    return run


def configuration_of(
    model: ModelConfig,
    store: Store,
    steps: int,
    batch: int,
    micro_batch: int | None,
    period: slice | None,
    precision: str,
    seed: int,
    recipe: TrainingRecipe | None,
    sampling: SamplingRecipe | None,
    layout: Layout,
    start: Start | None = None,
) -> Configuration:
    """What :func:`train` makes of its arguments, whole and checked against store and layout.

    Raises:
        ConfigurationError: As :func:`train`.
    """
    micro_batch = micro_batch or (1 if layout.pp > 1 else max(1, batch // layout.dp))
    recipe = recipe or TrainingRecipe()
    sampling = sampling or sampling_for(recipe)
    configuration = configure(model, store, steps, batch, micro_batch, period, precision, seed, recipe, sampling, start)
    layout.check(configuration.model, batch=batch, micro_batch=micro_batch)
    return configuration


def _loop(trainer: Trainer, run: Run, checkpoint_every: int, progress: bool) -> None:
    """Steps until the end or a signal, with logbook, progress bar and checkpoints."""
    total, first = trainer.configuration.steps, trainer.groups.rank == 0
    logbook = Logbook(run.path / "logbook.jsonl", trainer.step) if first else None
    bar = tqdm(total=total, initial=trainer.step, desc="training", unit="step", disable=not (progress and first))
    try:
        with bar, _signals() as asked, trainer.batches() as batches:
            stop = False
            while trainer.step < total and not stop:
                line = trainer.advance(next(batches), asked() or (first and run.asked_to_stop))
                # Several ranks hear of a signal together, a step after it came.
                stop = line.pop("stop") or (trainer.groups.layout.world == 1 and asked())
                if logbook:
                    logbook.write(line)
                bar.set_postfix(loss=f"{line['loss']:.4f}", refresh=False)
                bar.update()
                if trainer.step % checkpoint_every == 0 and trainer.step < total:
                    trainer.save(run)
        trainer.save(run)
    finally:
        if logbook:
            logbook.close()


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """A question that says yes once SIGTERM or SIGINT came; a second SIGINT interrupts at once."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def note(number: int, frame: Any) -> None:
        if came.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Trainer:
    """One rank's network, optimizer and average, and the step that moves them.

    Args:
        configuration: What to train.
        store: The data.
        groups: This rank's place in the layout; None is a process alone.
    """

    def __init__(self, configuration: Configuration, store: Store, groups: Groups | None = None) -> None:
        self.configuration, self.store = configuration, store
        self.groups = groups or Groups.alone()
        self.device = devices.choose()
        self.device.reuse_freed_memory()
        self.step = self.images = self.skipped = 0
        place, wide = self.device.torch_device, torch.float64 if configuration.precision == "float64" else torch.float32
        model, layout = configuration.model, self.groups.layout
        self.network = network_of(configuration, self.groups, self.device)
        self.geography = geography_of(store)
        part = None if layout.token_ranks == 1 else share(layout, self.groups.at)
        self.fields = Fields(store.statistics, self.geography, model.window, place, wide, part)
        self.pipeline = Pipeline(self.network, model, self.groups, place)
        self.optimizer = _optimizer(self.pipeline, configuration.recipe)
        self.reader = Reader(store, configuration, self.groups, self.pipeline.has_first or self.pipeline.has_last)
        self.objective = objective_of(configuration, self.fields, self.pipeline, self.device)
        if worth_compiling(configuration, self.groups, self.device):
            self.network.compile_blocks()

    def advance(self, batch: Batch, stop: bool = False) -> dict[str, Any]:
        """Takes one optimizer step and returns its line of the logbook.

        Args:
            batch: This rank's images.
            stop: Whether this rank was asked to stop; all ranks hear of it in the line's ``stop``.
        """
        configuration, started = self.configuration, time.perf_counter()
        loss = self.objective.step(batch)
        self.step += 1
        self.images += configuration.batch
        recipe = configuration.recipe
        update = self.optimizer.step(
            rate=(rate := learning_rate(recipe, self.images, configuration.steps * configuration.batch)),
            clip=recipe.clip,
            remember=average.decay(recipe, configuration.batch, self.images),
            counted=torch.stack([loss.double(), loss.new_tensor(float(stop), dtype=torch.float64)]),
        )
        self.skipped += not update.finite
        self.device.synchronize()
        return self._line(update, rate, time.perf_counter() - started)

    def _line(self, update: Update, rate: float, seconds: float) -> dict[str, Any]:
        speed, (loss, stop) = self.configuration.batch / seconds, update.counted
        return {
            "step": self.step,
            "images": self.images,
            "loss": loss,
            "grad_norm": update.grad_norm,
            "lr": rate,
            "seconds": seconds,
            "samples_per_second": speed,
            "tflops_per_rank": flops.exact(self.configuration.model) * speed / 1e12 / self.groups.layout.world,
            "memory_gb": self.device.memory_gb(),
            "skipped": self.skipped,
            "stop": stop > 0,
        }

    def batches(self) -> AbstractContextManager[Iterator[Batch]]:
        """Batches from the present step on, the next one read while the present one is used."""
        return self.reader.batches(self.images)

    def save(self, run: Run) -> None:
        """Writes a checkpoint into a run; every rank calls it."""
        configuration = self.configuration
        checkpoint = Checkpoint(
            path=run.path / "checkpoints" / f"step-{self.step:08d}",
            step=self.step,
            images=self.images,
            skipped=self.skipped,
            model=configuration.model,
            training=configuration.recipe,
            sampling=configuration.sampling,
            interval=self.store.interval,
            statistics=self.store.statistics,
        )
        weights: dict[str, Tensor] = {**self.pipeline.parameters()}
        files = {"weights": weights, "average": self.optimizer.averages(), "optimizer": self.optimizer.moments()}
        save(checkpoint, files, self.geography, self.groups)

    def begin(self, checkpoint: Checkpoint) -> None:
        """Begins from another run's averaged weights, whatever layout wrote them; moments, average and position begin anew."""
        held = self.pipeline.parameters()
        if not checkpoint.model.intervals:
            held.pop("interval.weight", None)  # zero, as it is: all intervals begin as the one that the checkpoint knows
        load_weights(checkpoint, self.network, held, "average")
        self.optimizer.begin()

    def load(self, checkpoint: Checkpoint) -> None:
        """Takes up a checkpoint's weights, average, moments and position, whatever layout wrote it.

        Raises:
            CheckpointError: It was trained on other statistics, or its tensors are not those of this network.
        """
        if checkpoint.statistics.id != self.store.statistics.id:
            raise CheckpointError(
                f"{checkpoint.path} was trained with statistics {checkpoint.statistics.id}, the store has {self.store.statistics.id}",
                "A run goes on with the store that it began with",
                "Use that store, or start a new run",
            )
        parameters = self.pipeline.parameters()
        load_weights(checkpoint, self.network, parameters)
        self.optimizer.load(
            checkpoint.tensors("average", parameters),
            checkpoint.tensors("optimizer", [f"{kind}/{name}" for kind in MOMENTS for name in parameters]),
            checkpoint.step - checkpoint.skipped,
        )
        self.step, self.images, self.skipped = checkpoint.step, checkpoint.images, checkpoint.skipped


def geography_of(store: Store) -> Geography:
    """Grid, static fields and sea mask of a store."""
    return Geography(store.grid, dict(zip(store.static, store.static_fields, strict=True)), store.sea_mask)


def _optimizer(pipeline: Pipeline, recipe: TrainingRecipe) -> ShardedAdamW:
    """AdamW that decays the blocks' matrices and nothing else."""
    parameters = pipeline.parameters()
    decayed = [name for name, parameter in parameters.items() if name.startswith("blocks.") and parameter.dim() > 1]
    return ShardedAdamW(parameters, decayed, pipeline.shared_parameters(), pipeline.groups, recipe.weight_decay, recipe.betas, recipe.eps)
