"""The report: one page that shows what was run, what it forecasts, and how good that is.

The page is a single file. Pictures are in it, nothing is fetched, and it can be read on a phone or sent by mail.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import xarray as xr
from matplotlib.figure import Figure

from aeris.data.disk import write_whole
from aeris.errors import DataError
from aeris.views.calibration import rank_figure
from aeris.views.coastline import coast_of
from aeris.views.maps import map_figure
from aeris.views.plumes import plume_figure
from aeris.views.scores import score_figure
from aeris.views.spectra import spectra_figure
from aeris.views.style import choose_level, lead_text, time_text, variable_text

LEAD = "prediction_timedelta"
FAVOURITES = (("geopotential", 500), ("2m_temperature", None), ("temperature", 850), ("mean_sea_level_pressure", None))
"""What a report shows where the forecast has it: the first two."""

Channel = tuple[str, int | None]


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
        figure: Drawn when its turn comes and dropped after.
        alt: What it shows, for those who cannot see it.
        format: ``"png"`` for maps, ``"svg"`` for curves.
    """

    figure: Figure
    alt: str
    format: str = "svg"

    def html(self) -> str:
        """The picture as an element of the page, its bytes within."""
        stream = io.BytesIO()
        self.figure.savefig(stream, format=self.format, dpi=180, metadata={"Date": None} if self.format == "svg" else None)
        kind = {"png": "image/png", "svg": "image/svg+xml"}[self.format]
        return f'<img alt="{escape(self.alt)}" src="data:{kind};base64,{base64.b64encode(stream.getvalue()).decode()}">'


def write_report(
    path: str | Path,
    *,
    forecast: xr.Dataset,
    truth: xr.Dataset,
    scores: xr.Dataset,
    spectra: xr.Dataset,
    facts: Mapping[str, str],
    ranks: xr.Dataset | None = None,
    optimum: xr.Dataset | None = None,
    place: tuple[float, float] = (50.0, 10.0),
) -> Path:
    """Writes the report of a forecast.

    Args:
        path: The HTML file; it is replaced as a whole.
        forecast: Archive ``(time, number, prediction_timedelta, ...)``; its first initial time is shown.
        truth: Canonical dataset. Where it holds ``land_sea_mask`` that is the coast of the maps, else the earth's.
        scores: From `aeris.verify`.
        spectra: From `aeris.verification.spectra.mean_power`.
        facts: What was run and how long it took, label and text, in the order in which it shall stand.
        ranks: From `aeris.verification.calibration.rank_histogram`.
        optimum: The exact forecast of the simulated planet from the same initial time, for the plumes.
        place: Latitude and longitude of the plumes.

    Returns:
        The path.

    Raises:
        DataError: The forecast has no variable that the scores know.
    """
    channels = _channels(forecast, scores)
    sections = [
        ("What was run", _table(facts)),
        ("Truth, ensemble mean and spread", _wrap(_maps(forecast, truth, channels), "three")),
        ("Every member at one place", _wrap(_plumes(forecast, truth, optimum, channels, place), "two")),
        ("Score against lead", _wrap(_scores(scores, channels), "two")),
        ("Spectra against the truth", _wrap(_spectra(spectra, channels), "two")),
        ("Rank histograms", _wrap(_ranks(ranks, channels), "two") if ranks is not None else ""),
    ]
    body = "\n".join(f"<section><h2>{escape(title)}</h2>\n{content}</section>" for title, content in sections if content)
    page = _PAGE.substitute(title="Forecast report", summary=escape(_summary(forecast, scores)), body=body)
    write_whole(Path(path), [page.encode()])
    return Path(path)


def _channels(forecast: xr.Dataset, scores: xr.Dataset) -> list[Channel]:
    """Two channels that the forecast and its scores hold, favourites first."""
    scored = {str(key).partition(".")[2] for key in scores.data_vars}
    held: list[Channel] = [(str(name), None) for name in forecast.data_vars if name in scored and "level" not in forecast[name].dims]
    for name in (str(name) for name in forecast.data_vars if name in scored and "level" in forecast[name].dims):
        held += [(name, int(level)) for level in scores.level.values]
    if not held:
        raise DataError(
            f"The forecast holds {', '.join(map(str, forecast.data_vars))}, the scores {', '.join(sorted(scored))}",
            "A report shows variables that were scored",
            "Give the scores of this forecast: aeris.verify(forecast, truth)",
        )
    return ([channel for channel in FAVOURITES if channel in held] + [channel for channel in held if channel not in FAVOURITES])[:2]


def _maps(forecast: xr.Dataset, truth: xr.Dataset, channels: list[Channel]) -> Iterator[Picture]:
    """Truth, ensemble mean and spread at the last lead of the first initial time."""
    time, lead = forecast.time.values[0], forecast[LEAD].values[-1]
    coast = coast_of(truth)
    when = f"{time_text(time + lead)}, {lead_text(lead)} ahead"
    for name, level in channels:
        members = choose_level(forecast[name], level).sel({"time": time, LEAD: lead}).load()
        happened = choose_level(truth[name], level).sel(time=time + lead).load()
        mean, spread = members.mean("number", keep_attrs=True), members.std("number", ddof=1, keep_attrs=True)
        both = xr.concat([mean, happened], "which", coords="minimal", compat="override")
        limits = (float(both.min()), float(both.max()))
        text = variable_text(name, level)
        for what, field, kind in (("Truth", happened, "value"), ("Ensemble mean", mean, "value"), ("Ensemble spread", spread, "spread")):
            figure = map_figure(field.rename(name), f"{what}: {text}\n{when}", coast, kind, limits if kind == "value" else None)
            yield Picture(figure, f"Map. {what} of {text}, {when}.", "png")


def _plumes(
    forecast: xr.Dataset, truth: xr.Dataset, optimum: xr.Dataset | None, channels: list[Channel], place: tuple[float, float]
) -> Iterator[Picture]:
    for name, level in channels:
        figure = plume_figure(forecast, truth, name, place, level, optimum=optimum)
        yield Picture(figure, f"Members, their mean and the truth of {variable_text(name, level)} at one place, against the lead.")


def _scores(scores: xr.Dataset, channels: list[Channel]) -> Iterator[Picture]:
    systems = ", ".join(map(str, scores.system.values))
    for score in ("crps", "rmse", "spread_skill"):
        for name, level in channels:
            yield Picture(score_figure(scores, score, name, level), f"{score} of {variable_text(name, level)} against the lead: {systems}.")


def _spectra(spectra: xr.Dataset, channels: list[Channel]) -> Iterator[Picture]:
    for name, level in channels:
        figure = spectra_figure(spectra, name, level)
        yield Picture(figure, f"Power of {variable_text(name, level)} by degree, forecast and truth, and their ratio.")


def _ranks(ranks: xr.Dataset, channels: list[Channel]) -> Iterator[Picture]:
    for name, level in channels:
        yield Picture(rank_figure(ranks, name, level), f"Rank histogram of {variable_text(name, level)} at each lead.")


def _wrap(pictures: Iterator[Picture], columns: str) -> str:
    """Pictures in a grid of columns that becomes one column on a narrow screen."""
    return f'<div class="{columns}">\n' + "\n".join(picture.html() for picture in pictures) + "\n</div>\n"


def _table(facts: Mapping[str, str]) -> str:
    rows = "\n".join(f'<tr><th scope="row">{escape(str(label))}</th><td>{escape(str(text))}</td></tr>' for label, text in facts.items())
    return f"<table>\n{rows}\n</table>\n"


def _summary(forecast: xr.Dataset, scores: xr.Dataset) -> str:
    """One sentence on the forecast that was scored."""
    times, leads = forecast.time.values, forecast[LEAD].values
    return (
        f"{forecast.sizes['number']} members from {len(times)} initial times, {time_text(times[0])} to {time_text(times[-1])}, "
        f"leads {', '.join(lead_text(lead) for lead in leads)}, "
        f"on {forecast.sizes['latitude']}×{forecast.sizes['longitude']} cells. "
        f"Averages are over cell areas and initial times. {int(scores.attrs.get('missing_members', 0))} member forecasts are missing."
    )


_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem; background: #fff; color: #1a1a1a; font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: .5rem 0 0; font-size: 1.7rem; }
h2 { margin: 2rem 0 .5rem; font-size: 1.25rem; border-bottom: 2px solid #0072b2; }
p { max-width: 50rem; }
table { border-collapse: collapse; }
th, td { padding: .25rem 1rem .25rem 0; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
th { font-weight: 600; }
td { overflow-wrap: anywhere; }
img { display: block; width: 100%; height: auto; }
.two, .three { display: grid; gap: 1rem; }
@media (min-width: 45rem) {
  .two { grid-template-columns: repeat(2, 1fr); }
  .three { grid-template-columns: repeat(3, 1fr); }
}
</style>
</head>
<body>
<h1>$title</h1>
<p>$summary</p>
$body
</body>
</html>
""")
