"""Named models, and the recipes to train them and to sample from them.

Models are functions, so that one line changes one number: ``presets.tiny(depth=6)``. Dimensions of 1.3B, 13B and 40B are those
of the published configurations; 26B and 80B are *reconstructed* from their names, node counts and the published ones, as their
exact dimensions are not public.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from aeris.data.variables import state_channels
from aeris.errors import ConfigurationError
from aeris.model.config import ModelConfig

GLOBE = (720, 1440)
"""The 0.25° grid without its south pole row."""


@dataclass(frozen=True)
class Diffusion:
    """Trains the velocity of TrigFlow at every noise level (arXiv 2410.11081)."""

    kind: Literal["diffusion"] = "diffusion"


@dataclass(frozen=True)
class Consistency:
    """Trains the jump from any noise level to the sample, so that one or two network calls draw it (arXiv 2410.11081).

    Attributes:
        path: Along which the jump is to stay the same: that of the teacher, the averaged weights that the run begins from
            (distillation), or the straight one between sample and noise (training).
        warmup_images: Images over which the tangent's second term grows; None is the first fifth of the run.
        constant: Added to the tangent's root mean square, by which it is divided.
    """

    kind: Literal["consistency"] = "consistency"
    path: Literal["teacher", "straight"] = "teacher"
    warmup_images: int | None = None
    constant: float = 0.1

    def __post_init__(self) -> None:
        if self.path not in ("teacher", "straight"):
            raise ConfigurationError(f"path={self.path!r}", "A path is the teacher's or straight", "Use 'teacher' or 'straight'")
        if self.constant <= 0 or (self.warmup_images or 0) < 0:
            raise ConfigurationError(
                f"constant={self.constant}, warmup_images={self.warmup_images}",
                "The constant is positive, and a warm-up takes no negative time",
                "Use 0.1 and None",
            )


@dataclass(frozen=True)
class Crps:
    """Tunes the run's own sampler on the fair CRPS of a few members after a rollout (Swift, arXiv 2509.25631).

    Attributes:
        members: Members of each sample's ensemble.
        curriculum: Images that are rolled out for 1, 2, 3 and more steps, in this order; 0 leaves a length out. What is left of the run
            takes the last length.
        spectrum: Weight of the CRPS of spherical-harmonic coefficients beside that of pixels (FourCastNet 3, arXiv 2507.12144); 0
            leaves it out.
        gradient_steps: Steps at the end of a rollout that the gradient goes through; None is all of them.
    """

    members: int = 2
    curriculum: tuple[int, ...] = (400, 400, 0, 400)
    spectrum: float = 0.0
    gradient_steps: int | None = None
    kind: Literal["crps"] = "crps"

    def __post_init__(self) -> None:
        if self.members < 2:
            raise ConfigurationError(f"members={self.members}", "The spread of an ensemble is that of at least two members", "Use 2")
        if not self.curriculum or min(self.curriculum) < 0 or self.curriculum[-1] == 0:
            raise ConfigurationError(
                f"curriculum={self.curriculum}",
                "It is a number of images for rollouts of one step, of two, and so on; none is negative, and the last is not zero",
                "Use for example (400, 400, 0, 400)",
            )
        if self.spectrum < 0:
            raise ConfigurationError(f"spectrum={self.spectrum}", "A weight is not negative", "Use 0, or for example 1.0")
        if self.gradient_steps is not None and self.gradient_steps < 1:
            raise ConfigurationError(
                f"gradient_steps={self.gradient_steps}", "The gradient goes through at least the last step", "Use 4, or None for all"
            )

    @property
    def lengths(self) -> list[int]:
        """Steps of the rollouts that occur."""
        return [steps for steps, images in enumerate(self.curriculum, start=1) if images]

    def intervals(self, seen: int) -> int:
        """Steps of the rollouts that begin after so many images of the run."""
        ends = itertools.accumulate(self.curriculum)
        return next((steps for steps, end in enumerate(ends, start=1) if seen < end), len(self.curriculum))


Objective = Diffusion | Consistency | Crps
"""What a network can be trained for; `kind` tells them apart in JSON."""

OBJECTIVES: dict[str, type[Objective]] = {"diffusion": Diffusion, "consistency": Consistency, "crps": Crps}


@dataclass(frozen=True)
class TrainingRecipe:
    """How a network is trained.

    Attributes:
        learning_rate: Largest step size of AdamW.
        betas: Decay rates of AdamW's moments.
        eps: Smallest denominator of AdamW.
        weight_decay: Decoupled decay of the blocks' matrices.
        clip: Largest global gradient norm; the gradient is the true mean over globe and batch.
        noise: Smallest and largest tan t, between which it is drawn log-uniformly.
        warmup_images: Images over which the step size rises linearly from 1 %.
        rampdown_images: Images at the end over which it falls linearly to 0; None is the last 40 % of the run.
        ema_half_life_images: Half-life of the weights' average.
        ema_rampup: Largest half-life as a fraction of the images seen so far.
        channel_weights: Weights of the channels in the loss: all alike, or the paper's, which count 2 m temperature most and
            upper levels least.
        objective: What the network is trained for.
    """

    learning_rate: float = 1e-2
    betas: tuple[float, float] = (0.85, 0.9)
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 0.3
    noise: tuple[float, float] = (0.1, 200.0)
    warmup_images: int = 200
    rampdown_images: int | None = None
    ema_half_life_images: int = 100_000
    ema_rampup: float = 0.05
    channel_weights: Literal["uniform", "paper"] = "uniform"
    objective: Objective = Diffusion()

    def __post_init__(self) -> None:
        if isinstance(self.objective, Mapping):  # as it comes out of JSON
            object.__setattr__(self, "objective", _objective_of_json(self.objective))
        low, high = self.noise
        if not 0 < low < high:
            raise ConfigurationError(
                f"noise={self.noise}", "tan t is drawn between two positive values, the smaller first", "Use (0.2, 500)"
            )
        if self.channel_weights not in ("uniform", "paper"):
            raise ConfigurationError(f"channel_weights={self.channel_weights!r}", "They are 'uniform' or 'paper'", "Use 'uniform'")
        if self.learning_rate <= 0 or self.clip <= 0:
            raise ConfigurationError(
                f"learning_rate={self.learning_rate}, clip={self.clip}", "Both are positive", "Use for example 2e-4 and 1.0"
            )


def _objective_of_json(content: Mapping[str, Any]) -> Objective:
    made: Any = OBJECTIVES.get(content.get("kind", ""))
    if made is None:
        raise ConfigurationError(
            f"objective={dict(content)}", f"An objective is one of {sorted(OBJECTIVES)}", "Use the version of aeris that wrote it"
        )
    return made(**tuples_of(content))


def tuples_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a frozen dataclass as they come out of JSON, its lists as the tuples that they were."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}


@dataclass(frozen=True)
class SamplingRecipe:
    """How an ensemble member is drawn.

    Attributes:
        solver: Heun in the angle, DPM-Solver++(2S), or DPM-Solver++(2M); for consistency models their own.
        steps: Number of noise levels; a sample costs 2·steps − 1 network calls, with (2M) and consistency models `steps`.
        noise: Smallest and largest tan t of the levels.
        rho: Curvature of the levels between them; with infinity they are evenly spaced in the logarithm.
        churn: Fraction by which tan t is raised before a step, spread over the steps; 0 is off.
        churn_range: Values of tan t between which churn acts.
        inflation: Deviation of all noise that is drawn, its start as well as what is added on the way; 1 is that of the training. Above it
            the ensemble is wider than the network has learned (S_noise of EDM, arXiv 2206.00364, algorithm 2).
    """

    solver: Literal["heun", "dpm2s", "dpm2m", "consistency"] = "dpm2m"
    steps: int = 7
    noise: tuple[float, float] = (0.1, 200.0)
    rho: float = 10.0
    churn: float = 0.0
    churn_range: tuple[float, float] = (0.0, float("inf"))
    inflation: float = 1.0

    def __post_init__(self) -> None:
        least = 1 if self.solver == "consistency" else 2
        if self.steps < least:
            raise ConfigurationError(
                f"steps={self.steps}", f"This sampler needs at least {least} noise level{'s' * (least > 1)}", "Use for example 10"
            )
        if not 0 < self.noise[0] < self.noise[1]:
            raise ConfigurationError(f"noise={self.noise}", "tan t falls from a larger to a smaller positive value", "Use (0.2, 500)")
        if self.solver not in ("heun", "dpm2s", "dpm2m", "consistency"):
            raise ConfigurationError(
                f"solver={self.solver!r}", "A sampler is 'heun', 'dpm2s', 'dpm2m' or 'consistency'", "Use 'dpm2m' for a diffusion model"
            )
        if self.solver in ("dpm2m", "consistency") and self.churn:
            raise ConfigurationError(
                f"solver={self.solver!r} with churn={self.churn}",
                "The multistep solver extrapolates along one path, which churn leaves; a consistency model draws new noise at every level",
                "Use churn=0, or 'dpm2s'",
            )
        if not 0.5 <= self.inflation <= 2:
            raise ConfigurationError(
                f"inflation={self.inflation}",
                "Noise with another deviation than that of the training takes the network where it has not been; it lies between 0.5 and 2",
                "Use 1, or what aeris.tune finds",
            )


def tiny(**changes: Any) -> ModelConfig:
    """0.7 million parameters on 32×64: minutes on a laptop. Takes the channels of the training store."""
    return ModelConfig(**{"grid": (32, 64), "dim": 96, "depth": 4, "heads": 4, "mlp": 256, "window": (8, 8), **changes})


def small(**changes: Any) -> ModelConfig:
    """16 million parameters on 128×256 (1.4°): hours on one GPU. Takes the channels of the training store."""
    small_ = {"grid": (128, 256), "dim": 320, "depth": 8, "heads": 10, "mlp": 896, "window": (16, 16), "shift_every": 2}
    return ModelConfig(**{**small_, **changes})


def aeris_1_3b(**changes: Any) -> ModelConfig:
    """1.3 billion parameters, 24 h step, 60×60 windows: the model of the paper's science results."""
    sizes = {"dim": 1536, "depth": 24, "heads": 12, "mlp": 6144, "window": (60, 60), "shift_every": 3}
    return ModelConfig(**{"grid": GLOBE, "channels": state_channels(), **sizes, **changes})


def aeris_1_3b_6h(**changes: Any) -> ModelConfig:
    """1.3 billion parameters, 6 h step, 30×30 windows, without sea surface temperature: the paper's hurricane model."""
    return aeris_1_3b(**{"channels": state_channels(sea=False), "window": (30, 30), **changes})


def aeris_13b(**changes: Any) -> ModelConfig:
    """13 billion parameters; width, heads and depth as published, window reconstructed."""
    return _large(4608, 28, 36, 18_432, changes)


def aeris_26b(**changes: Any) -> ModelConfig:
    """26 billion parameters, for the LUMI machine; reconstructed. With 8 sequence ranks only a 60×60 window can be cut."""
    return _large(6144, 24, 48, 38_400, {"window": (60, 60), **changes})


def aeris_40b(**changes: Any) -> ModelConfig:
    """40 billion parameters, as published."""
    return _large(6144, 36, 48, 40_960, changes)


def aeris_80b(**changes: Any) -> ModelConfig:
    """80 billion parameters; reconstructed."""
    return _large(7680, 48, 60, 46_080, changes)


def _large(dim: int, depth: int, heads: int, mlp: int, changes: dict[str, Any]) -> ModelConfig:
    sizes = {"dim": dim, "depth": depth, "heads": heads, "mlp": mlp, "window": (30, 30), "shift_every": 2, "time_mlp": "shared"}
    return ModelConfig(**{"grid": GLOBE, "channels": state_channels(), **sizes, **changes})


def snapshot(config: ModelConfig) -> ModelConfig:
    """The same network with the choices of the authors' published code, for weights that were trained with it.

    No rotary embedding, modulation before normalisation, poles that attend to each other, torch's own smallest mean square (float32's
    rounding unit), and rows counted from the north pole, whose row was dropped.
    """
    return replace(config, rope=False, norm_order="modulate_norm", polar="wrap", norm_eps=2.0**-23, position_rows=(1, 1))


def training_24h() -> TrainingRecipe:
    """The paper's recipe for the 24 h model (its clip of 20 on gradients 192 times the true mean is 0.1 here)."""
    return TrainingRecipe(
        learning_rate=2e-4,
        betas=(0.85, 0.9),
        weight_decay=0.2,
        clip=0.1,
        noise=(0.2, 500.0),
        warmup_images=20_000,
        rampdown_images=50_000,
        channel_weights="paper",
    )


def training_6h() -> TrainingRecipe:
    """The paper's recipe for the 6 h model: as for 24 h, with less weight decay."""
    return replace(training_24h(), weight_decay=0.01)


def sampling_24h() -> SamplingRecipe:
    """The paper's sampler for the 24 h model: ten levels of tan t from 500 to 0.2, 19 network calls."""
    return SamplingRecipe(solver="heun", steps=10, noise=(0.2, 500.0))


def sampling_6h() -> SamplingRecipe:
    """The paper's sampler for the 6 h model, the same as for 24 h."""
    return sampling_24h()


SECOND_ANGLE = 1.1
"""Angle in radians of the second call of a consistency model (Swift, arXiv 2509.25631)."""


def sampling_consistency(steps: int = 1, largest: float = SamplingRecipe.noise[1]) -> SamplingRecipe:
    """The sampler of a consistency model: one network call from pure noise, and more from levels of noise below it.

    Args:
        steps: Number of network calls; the last of two or more is made at an angle of 1.1 radians.
        largest: Largest tan t that the network was trained on.
    """
    return SamplingRecipe(solver="consistency", steps=steps, noise=(math.tan(SECOND_ANGLE), largest))


def sampling_for(training: TrainingRecipe) -> SamplingRecipe:
    """How to sample from what a recipe trains, unless something else is asked for: a diffusion model follows its velocity, others jump."""
    return SamplingRecipe() if isinstance(training.objective, Diffusion) else sampling_consistency(largest=training.noise[1])


def check_solver(sampling: SamplingRecipe, objective: Objective) -> None:
    """Refuses a sampler that reads a network's output as what it is not.

    Raises:
        ConfigurationError: A consistency model is to be followed, or a diffusion model to jump.
    """
    if isinstance(objective, Crps):  # tuned with a sampler of its own, of either kind
        return
    jumps = isinstance(objective, Consistency)
    if jumps != (sampling.solver == "consistency"):
        raise ConfigurationError(
            f"The sampler has solver={sampling.solver!r}, the network is trained for {objective.kind}",
            "A consistency model jumps to the sample, a diffusion model follows its velocity",
            "Use presets.sampling_consistency()" if jumps else "Use solver='dpm2m'",
        )


def consistency() -> TrainingRecipe:
    """Consistency training without a teacher, for small models; from random weights, or from those of a start."""
    return TrainingRecipe(objective=Consistency(path="straight"))


def distillation() -> TrainingRecipe:
    """Consistency distillation of the diffusion model that the run begins from, for small models."""
    return TrainingRecipe(objective=Consistency(path="teacher"))


def fine_tuning() -> TrainingRecipe:
    """A quarter of an hour of rollouts of one to eight steps on two cores, for the sampler of a small model that was trained before."""
    objective = Crps(curriculum=(300, 200, 0, 200, 0, 0, 0, 300), spectrum=2.0)
    return TrainingRecipe(learning_rate=2e-3, warmup_images=40, objective=objective)


def two_calls() -> SamplingRecipe:
    """A sampler of two network calls, at tan t = 200 and 1, for which a diffusion model can be tuned as for one."""
    return SamplingRecipe(solver="dpm2m", steps=2, noise=(1.0, 200.0))
