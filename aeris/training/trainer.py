"""The training loop on one process: the next residual's distribution, learned by TrigFlow.

The state of a run is a function of its configuration and the number of steps: the order of the data and the noise are keyed by
(seed, image), so that a resumed run cannot be told from one that was never interrupted.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from aeris import device as devices
from aeris.data.store import Store, sample_order
from aeris.diffusion import noise, trigflow
from aeris.errors import CheckpointError
from aeris.model import flops
from aeris.model.config import ModelConfig
from aeris.model.fields import Fields, Geography
from aeris.model.network import Network
from aeris.model.presets import SamplingRecipe, TrainingRecipe
from aeris.run import Run
from aeris.training import average
from aeris.training.checkpoint import Checkpoint, load_weights, save
from aeris.training.configuration import Configuration, configure, start_run
from aeris.training.logbook import Logbook
from aeris.training.schedule import learning_rate

COMPILE_FROM_STEPS = 1000
"""Shorter runs train eager: compiling would take longer than it saves."""


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
    checkpoint_every: int = 500,
    progress: bool = True,
) -> Run:
    """Trains a model, or goes on with a run that was interrupted.

    A run is stopped gracefully by SIGTERM or SIGINT: it writes a checkpoint and returns. Calling again with the same arguments
    goes on where it was; on the same machine the weights are bit-identical to those of an uninterrupted run.

    Args:
        model: The network; channels left empty are those of the store.
        data: Training store, or its path.
        out: Directory of the run.
        steps: Optimizer steps of the whole run.
        batch: Images a step.
        micro_batch: Images a forward pass; divides `batch`. None takes the whole batch at once.
        period: Inclusive slice of times to train on; None takes all.
        precision: Dtype of the activations. Weights, averages and residuals are float32 (float64 for exact tests).
        seed: Seed of weights, data order and noise.
        recipe: Optimizer, schedule, noise range and average; None takes the defaults, which suit small models.
        sampling: Recipe that the checkpoint suggests to whoever samples from it.
        checkpoint_every: Steps between checkpoints; one is written at the end too.
        progress: Whether to show a progress bar.

    Returns:
        The run.

    Raises:
        ConfigurationError: The model does not fit the store, or the run in `out` was started with other arguments.
        CheckpointError: The run's newest checkpoint is damaged.
        StoreError: A checkpoint could not be written.
    """
    store = data if isinstance(data, Store) else Store.open(data)
    configuration = configure(
        model, store, steps, batch, micro_batch, period, precision, seed, recipe or TrainingRecipe(), sampling or SamplingRecipe()
    )
    run = start_run(Path(out), configuration, store)
    trainer = Trainer(configuration, store)
    if run.checkpoints:
        trainer.load(Checkpoint.open(run.newest))
    if trainer.step < steps:
        _loop(trainer, run, checkpoint_every, progress)
    return run


def _loop(trainer: Trainer, run: Run, checkpoint_every: int, progress: bool) -> None:
    """Steps until the end or a signal, with logbook, progress bar and checkpoints."""
    total, logbook = trainer.configuration.steps, Logbook(run.path / "logbook.jsonl", trainer.step)
    bar = tqdm(total=total, initial=trainer.step, desc="training", unit="step", disable=not progress)
    try:
        with bar, _signals() as stopped, trainer.batches() as batches:
            while trainer.step < total and not stopped():
                line = trainer.advance(next(batches))
                logbook.write(line)
                bar.set_postfix(loss=f"{line['loss']:.4f}", refresh=False)
                bar.update()
                if trainer.step % checkpoint_every == 0 and trainer.step < total:
                    trainer.save(run)
        trainer.save(run)
    finally:
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


@dataclass(frozen=True)
class Batch:
    """States of one step as they were read: physical fields ``(B, C, H, W)``, their times, and the number of the first image."""

    state: Tensor
    target: Tensor
    times: np.ndarray
    target_times: np.ndarray
    first_image: int


class Trainer:
    """Network, optimizer and average of one run, and the step that moves them.

    Args:
        configuration: What to train.
        store: The data.
    """

    def __init__(self, configuration: Configuration, store: Store) -> None:
        self.configuration, self.store = configuration, store
        self.device = devices.choose()
        self.step = self.images = self.skipped = 0
        self.pairs = store.pairs(configuration.period_slice)
        place, wide = self.device.torch_device, torch.float64 if configuration.precision == "float64" else torch.float32
        self.network = Network(configuration.model, configuration.seed).to(place, wide)
        self.network.compute_dtype = getattr(torch, configuration.precision)
        self.geography = geography_of(store)
        self.fields = Fields(store.statistics, self.geography, configuration.model.window, place, wide)
        self.average = {name: parameter.detach().clone() for name, parameter in self.network.named_parameters()}
        self.optimizer = _adamw(self.network, configuration.recipe)
        self.loss_weight = self.fields.loss_weight(configuration.recipe.channel_weights)
        if configuration.steps >= COMPILE_FROM_STEPS and self.device.compile_available():
            self.network.compile_blocks()

    def loss(self, batch: Batch, part: slice) -> Tensor:
        """The part of a batch's loss that the images of `part` contribute."""
        fields, configuration = self.fields, self.configuration
        place = self.device.torch_device
        state, target = (fields_.to(place, fields.dtype, non_blocking=True) for fields_ in (batch.state[part], batch.target[part]))
        images = range(batch.first_image + part.start, batch.first_image + part.stop)
        keys = [noise.key(configuration.seed, "training noise", image) for image in images]
        start = noise.key(configuration.seed, "training angle")
        uniform = [noise.spread_evenly(start, image) for image in images]
        t_B = trigflow.angle(torch.tensor(uniform, dtype=fields.dtype, device=place), configuration.recipe.noise)
        z = fields.masked(noise.normals(keys, fields.ids, len(fields.channels), fields.dtype))
        noisy, velocity = trigflow.interpolate(fields.residual(state, target), z, t_B)
        condition = fields.condition(state, batch.times[part], batch.target_times[part])
        predicted = self.network(noisy, condition, t_B)
        return trigflow.weighted_loss(predicted, velocity, self.loss_weight, configuration.batch * fields.pixels)

    def advance(self, batch: Batch) -> dict[str, Any]:
        """Takes one optimizer step and returns its line of the logbook."""
        configuration, started = self.configuration, time.perf_counter()
        size = configuration.micro_batch
        loss = torch.zeros((), dtype=torch.float64)
        for start in range(0, configuration.batch, size):
            part = self.loss(batch, slice(start, start + size))
            part.backward()
            loss += part.detach().cpu()
        self.step += 1
        self.images += configuration.batch
        rate = learning_rate(configuration.recipe, self.images, configuration.steps * configuration.batch)
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), configuration.recipe.clip))
        finite = bool(np.isfinite(grad_norm))
        if finite:
            self._update(rate)
        self.skipped += not finite
        self.optimizer.zero_grad(set_to_none=True)
        self.device.synchronize()
        return self._line(float(loss), grad_norm, rate, time.perf_counter() - started)

    def _update(self, rate: float) -> None:
        """Moves the weights and their average."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        remember = average.decay(self.configuration.recipe, self.configuration.batch, self.images)
        average.update(self.average.values(), self.network.parameters(), remember)

    def _line(self, loss: float, grad_norm: float, rate: float, seconds: float) -> dict[str, Any]:
        speed = self.configuration.batch / seconds
        return {
            "step": self.step,
            "images": self.images,
            "loss": loss,
            "grad_norm": grad_norm,
            "lr": rate,
            "seconds": seconds,
            "samples_per_second": speed,
            "tflops_per_rank": flops.exact(self.configuration.model) * speed / 1e12,
            "memory_gb": self.device.memory_gb(),
            "skipped": self.skipped,
        }

    @contextmanager
    def batches(self) -> Iterator[Iterator[Batch]]:
        """Batches from the present step on, the next one read while the present one is used."""
        with ThreadPoolExecutor(1, "aeris-reader") as pool:

            def stream() -> Iterator[Batch]:
                ahead = pool.submit(self._read, self.images)
                while True:
                    batch = ahead.result()
                    ahead = pool.submit(self._read, batch.first_image + self.configuration.batch)
                    yield batch

            yield stream()

    def _read(self, first_image: int) -> Batch:
        configuration, store = self.configuration, self.store
        order = sample_order(len(self.pairs), configuration.seed, first_image, configuration.batch)
        states = self.pairs[order]
        targets = np.array([store.partner(int(index)) for index in states])

        def read(indices: np.ndarray) -> Tensor:
            return torch.from_numpy(np.stack([store.read(int(index)) for index in indices]))

        return Batch(read(states), read(targets), store.times[states], store.times[targets], first_image)

    def save(self, run: Run) -> None:
        """Writes a checkpoint into a run."""
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
        moments = {
            f"{kind}/{name}": self.optimizer.state[parameter][kind]
            for name, parameter in self.network.named_parameters()
            for kind in ("exp_avg", "exp_avg_sq", "step")
            if parameter in self.optimizer.state
        }
        weights = dict(self.network.named_parameters())
        save(checkpoint, {"weights": weights, "average": self.average, "optimizer": moments}, self.geography)

    def load(self, checkpoint: Checkpoint) -> None:
        """Takes up a checkpoint's weights, average, optimizer and position.

        Raises:
            CheckpointError: It was trained on other statistics, or its tensors are not those of this network.
        """
        if checkpoint.statistics.id != self.store.statistics.id:
            raise CheckpointError(
                f"{checkpoint.path} was trained with statistics {checkpoint.statistics.id}, the store has {self.store.statistics.id}",
                "A run goes on with the store that it began with",
                "Use that store, or start a new run",
            )
        load_weights(checkpoint, self.network)
        with torch.no_grad():
            for name, tensor in checkpoint.tensors("average").items():
                self.average[name].copy_(tensor)
        self._load_moments(checkpoint.tensors("optimizer"))
        self.step, self.images, self.skipped = checkpoint.step, checkpoint.images, checkpoint.skipped

    def _load_moments(self, moments: dict[str, Tensor]) -> None:
        parameters = dict(self.network.named_parameters())
        for key, tensor in moments.items():
            kind, name = key.split("/", 1)
            place = "cpu" if kind == "step" else parameters[name].device
            self.optimizer.state[parameters[name]][kind] = tensor.to(place)


def geography_of(store: Store) -> Geography:
    """Grid, static fields and sea mask of a store."""
    return Geography(store.grid, dict(zip(store.static, store.static_fields, strict=True)), store.sea_mask)


def _adamw(network: Network, recipe: TrainingRecipe) -> torch.optim.AdamW:
    """AdamW that decays the blocks' matrices and nothing else."""
    decayed = [parameter for parameter in network.blocks.parameters() if parameter.dim() > 1]
    chosen = {id(parameter) for parameter in decayed}
    others = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.eps, fused=True)
