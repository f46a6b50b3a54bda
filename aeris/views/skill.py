"""Spread, error and ranks of an ensemble against the truth, lead by lead, so that a large archive can be scored while one looks on."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import xarray as xr

from aeris.errors import AerisError
from aeris.verification.calibration import rank_histogram
from aeris.verification.scores import verify
from aeris.views.scene import Scene
from aeris.views.slices import LEAD, Channel

SCORES = ("rmse", "spread", "spread_skill")

Case = tuple[Channel, np.datetime64, np.timedelta64, int]
"""Channel, initial time, lead and number of members."""


@dataclass(frozen=True)
class LeadSkill:
    """What one lead of one forecast says.

    Attributes:
        scores: Those of `SCORES`, means over the globe by cell area.
        ranks: Relative frequency of each rank of the truth, shape ``(members + 1,)``.
    """

    scores: dict[str, float]
    ranks: np.ndarray


def skill_of(members: xr.DataArray, truth: xr.DataArray) -> LeadSkill:
    """Spread, error and ranks of one ensemble.

    Args:
        members: ``(number, latitude, longitude)``, at least two.
        truth: ``(latitude, longitude)``; missing cells are left out.

    Returns:
        The scores of `aeris.verify` and the ranks of `aeris.verification.calibration.rank_histogram`, of this one case.

    Raises:
        DataError: The grids differ.
    """
    name, start, lead = str(members.name), np.datetime64(0, "ns"), np.timedelta64(0, "ns")  # a case of its own needs no calendar
    forecast = members.reset_coords(drop=True).expand_dims({"time": [start], LEAD: [lead]}).to_dataset(name=name)
    happened = truth.reset_coords(drop=True).expand_dims(time=[start]).to_dataset(name=name)
    scores = verify(forecast, happened, baselines=(), metrics=SCORES)
    return LeadSkill({score: scores[f"{score}.{name}"].item() for score in SCORES}, rank_histogram(forecast, happened)[name].values[0])


class SkillBook:
    """The skill that has been computed, kept until a lead gains members."""

    def __init__(self) -> None:
        self._kept: dict[Case, LeadSkill] = {}

    def leads(self, scene: Scene) -> list[np.timedelta64]:
        """Leads with two members and a known truth."""
        known = scene.need_truth().get_index("time")
        return [lead for lead in scene.reader.leads if scene.time + lead in known and scene.reader.count(scene.time, lead) > 1]

    def missing(self, scene: Scene) -> list[np.timedelta64]:
        """Those of `leads` that have not been computed."""
        return [lead for lead in self.leads(scene) if self._case(scene, lead) not in self._kept]

    def compute(self, scene: Scene, lead: np.timedelta64) -> None:
        """Reads and computes one lead."""
        members, truth = scene.reader.members(scene.channel, scene.time, lead), scene.happened_after(lead)
        assert truth is not None
        enough = members.sizes["number"] > 1  # without a ledger only the values tell who is there
        nothing = LeadSkill(dict.fromkeys(SCORES, np.nan), np.full(1, np.nan))
        self._kept[self._case(scene, lead)] = skill_of(members.rename(scene.channel[0]), truth) if enough else nothing

    def at(self, scene: Scene, lead: np.timedelta64) -> LeadSkill | None:
        """The skill at a lead; None where it has not been computed."""
        return self._kept.get(self._case(scene, lead))

    def against_lead(self, scene: Scene) -> xr.Dataset:
        """The scores that have been computed, each ``(prediction_timedelta,)``."""
        known = [(lead, skill) for lead in self.leads(scene) if (skill := self.at(scene, lead)) is not None]
        leads = np.array([lead for lead, _ in known], "timedelta64[ns]")
        return xr.Dataset({score: (LEAD, [skill.scores[score] for _, skill in known]) for score in SCORES}, {LEAD: leads})

    def _case(self, scene: Scene, lead: np.timedelta64) -> Case:
        return scene.channel, scene.time, lead, scene.reader.count(scene.time, lead)


class SkillWorker:
    """Computes the missing leads of a scene in a thread, so that the rest of the explorer goes on.

    Args:
        book: Where the results are kept.
        scene: What to compute.

    Attributes:
        refusal: Why it ended early; None where it did not.
    """

    def __init__(self, book: SkillBook, scene: Scene) -> None:
        self.refusal: AerisError | None = None
        self._book, self._scene, self._stopped = book, scene, threading.Event()
        self._seen = len(book.missing(scene))
        self._thread = threading.Thread(target=self._work, name="aeris skill", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether it is still computing."""
        return self._thread.is_alive()

    def grown(self) -> bool:
        """Whether leads have been computed since it was last asked."""
        before, self._seen = self._seen, len(self._book.missing(self._scene))
        return self._seen < before

    def stop(self) -> None:
        """Ends it after the lead that it is at."""
        self._stopped.set()

    def _work(self) -> None:
        try:
            for lead in self._book.missing(self._scene):
                if self._stopped.is_set():
                    return
                self._book.compute(self._scene, lead)
        except AerisError as refusal:
            self.refusal = refusal
