"""The command of verification, which leaves scores and a page."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aeris.cli.arguments import refuse_existing
from aeris.errors import ConfigurationError

if TYPE_CHECKING:
    from aeris.verification.evaluation import Evaluation


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
    refuse_existing(out)
    if not kept.exists():
        refuse_existing(page)
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
    about = {"Climatology": climatology, "Events": "above " + ", ".join(thresholds) if thresholds else None}
    facts = {"Forecast": forecast, "Truth": truth, "Systems": ", ".join(map(str, found.scores.system.values)), **about}
    _write_page(page, found, facts, _made(began), f"Verification of {Path(forecast).name}")
    write_scores(found.scores, out)
    shutil.rmtree(kept)
    print(f"wrote {out}")


def _write_page(page: Path, found: Evaluation, facts: dict[str, str | None], made: dict[str, str], title: str) -> None:
    """Writes the page beside the scores, where there is something to draw with; facts that are None are left out."""
    if find_spec("matplotlib") is None:
        print("no page was written: pictures come with pip install 'aeris[views]'")
        return
    from aeris.views.report import write_report

    write_report(
        page,
        scores=found.scores,
        facts={name: fact for name, fact in facts.items() if fact},
        ranks=found.ranks,
        spectra=found.spectra,
        events=found.events,
        comparisons=found.comparisons,
        left_out=found.left_out,
        made=made,
        title=title,
    )
    print(f"wrote {page}")


def _made(began: float) -> dict[str, str]:
    """When, where and with which versions something was made that began at a time in seconds."""
    names = ("aeris", "numpy", "xarray", "zarr", "scores", "ducc0")
    versions = [f"python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in names)]
    return {
        "Made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, in {time.time() - began:.0f} s since it was last started",
        "Machine": f"{platform.machine()}, {platform.system()}",
        "Versions": ", ".join(versions),
    }


def _named_paths(references: Sequence[str]) -> dict[str, str]:
    """Paths or URLs by the names that stand before them."""
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
