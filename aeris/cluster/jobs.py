"""Jobs of a cluster: plain specifications that travel as JSON, and their outcome.

A job is a function of the package that is called on every engine with the same arguments; all that it leaves stands in files, so that
whoever opens the run or the archive later, from whichever kernel, sees the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from aeris.errors import EngineLost
from aeris.forecasting.perturbations import Perturbation, perturbation_of_json
from aeris.model.config import ModelConfig
from aeris.model.presets import SamplingRecipe, TrainingRecipe, tuples_of
from aeris.swipe import Layout
from aeris.swipe.plan import legal_layouts


@dataclass(frozen=True)
class Specification:
    """What a job is asked to do; its fields are JSON but for the dataclasses among them, which become dictionaries."""

    layout: Layout

    kind = ""

    @property
    def together(self) -> bool:
        """Whether no rank can do anything without the others."""
        return True

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`."""
        homes: dict[str, Callable[..., Any]] = {"layout": Layout, "model": ModelConfig, "recipe": TrainingRecipe}
        homes |= {"sampling": SamplingRecipe, "perturb": perturbation_of_json}
        values = tuples_of({field.name: content[field.name] for field in fields(cls) if field.name in content})
        made = {name: home(**tuples_of(values[name])) for name, home in homes.items() if values.get(name) is not None}
        return cls(**{**values, **made})

    def carry_out(self) -> str:
        """Does this process's part."""
        raise NotImplementedError

    def on(self, engines: int) -> Self:
        """The same on fewer engines.

        Raises:
            EngineLost: No layout of so many can do it; it names one that can.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class TrainSpecification(Specification):
    """The arguments of `aeris.train`."""

    model: ModelConfig
    data: str
    out: str
    steps: int
    batch: int
    micro_batch: int | None
    period: tuple[str | None, str | None] | None
    precision: str
    seed: int
    recipe: TrainingRecipe | None
    sampling: SamplingRecipe | None
    checkpoint_every: int
    start: str | None = None

    kind = "train"

    def carry_out(self) -> str:
        """Trains this rank's part."""
        from aeris.training.trainer import train

        arguments: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        arguments["period"] = None if self.period is None else slice(*self.period)
        return str(train(**arguments, progress=False).path)

    def on(self, engines: int) -> Self:
        """The same on fewer engines, as the layout that takes the least work."""
        passes = self.batch // (self.micro_batch or 1)  # a run keeps its micro-batch, so replicas share out whole ones
        legal = next(count for count in range(engines, 0, -1) if any(legal_layouts(self.model, count, passes)))
        layout = Layout.suggest(self.model, legal, float("inf"), passes)
        if legal < engines:
            raise EngineLost(
                f"{engines} engines are left, and no layout of {engines} ranks can train this",
                f"A layout of {legal} can",
                f"Train again with the same arguments and layout=aeris.{layout!r}: it goes on from the last checkpoint",
            )
        return replace(self, layout=layout)


@dataclass(frozen=True)
class ForecastSpecification(Specification):
    """The arguments of `aeris.forecast`."""

    checkpoint: str
    initial: str
    times: tuple[str, ...]
    members: int
    lead: str
    out: str
    seed: int
    batch: int
    sampling: SamplingRecipe | None
    precision: str
    compile: bool
    step: str | None = None
    perturb: Perturbation | None = None

    kind = "forecast"

    @property
    def together(self) -> bool:
        """Not where each rank draws members of its own."""
        return self.layout.world > self.layout.dp

    def carry_out(self) -> str:
        """Draws this rank's part."""
        from aeris.forecasting.ensemble import forecast

        forecast(**{field.name: getattr(self, field.name) for field in fields(self)}, progress=False)
        return self.out

    def on(self, engines: int) -> Self:
        """The same on fewer engines, each drawing whole members."""
        return replace(self, layout=Layout(dp=engines))
