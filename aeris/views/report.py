"""The report: one page that shows how good a forecast is and, where it is given, what it forecasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from aeris.data.variables import VARIABLES
from aeris.errors import DataError
from aeris.verification.evaluation import Channel, favourites, main_region, spread_out
from aeris.verification.metrics import METRICS
from aeris.verification.scorecard import as_text
from aeris.views.calibration import rank_figure
from aeris.views.coastline import coast_of
from aeris.views.events import brier_figure, reliability_figure
from aeris.views.maps import map_figure
from aeris.views.page import Picture, facts_table, folded, in_columns, number_table, write_page
from aeris.views.plumes import plume_figure
from aeris.views.scorecard import scorecard_figure
from aeris.views.scores import TITLES, parts_figure, score_figure
from aeris.views.spectra import spectra_figure
from aeris.views.style import choose_level, lead_text, time_text, unit_text, variable_text

LEAD = "prediction_timedelta"
ENSEMBLE, SINGLE = ("crps", "rmse", "spread_skill", "acc"), ("rmse", "mae", "bias", "acc")
"""Scores that are drawn of an ensemble, and of a single forecast, where they are there."""
COLUMNS, BETTER = 8, ("crps", "rmse", "mae")
"""Leads of a table, and scores of which less is better, the most telling first."""


def write_report(
    path: str | Path,
    *,
    scores: xr.Dataset,
    facts: Mapping[str, str],
    spectra: xr.Dataset | None = None,
    ranks: xr.Dataset | None = None,
    events: xr.Dataset | None = None,
    comparisons: pd.DataFrame | None = None,
    left_out: Mapping[str, str] | None = None,
    made: Mapping[str, str] | None = None,
    forecast: xr.Dataset | None = None,
    truth: xr.Dataset | None = None,
    optimum: xr.Dataset | None = None,
    place: tuple[float, float] = (50.0, 10.0),
    title: str = "Forecast report",
) -> Path:
    """Writes the report of a forecast.

    Args:
        path: The HTML file; it is replaced as a whole.
        scores: From `aeris.verify`. Its first system is the one reported on, the others are drawn beside it.
        facts: What was run or compared, label and text, in the order in which it shall stand.
        spectra: From `aeris.verification.spectra.mean_power`.
        ranks: From `aeris.verification.calibration.rank_histogram`.
        events: From `aeris.verification.events.event_table`.
        comparisons: From `aeris.verification.scorecard.scorecard`, of the first system against others.
        left_out: Parts that could not be made, and why.
        made: How the report was made, as `facts`; it stands at the end.
        forecast: Archive ``(time, number, prediction_timedelta, ...)``; its first initial time is shown on maps and plumes.
        truth: Canonical dataset for these. Where it holds ``land_sea_mask`` that is the coast of the maps, else the earth's.
        optimum: The exact forecast of the simulated planet from the same initial time, for the plumes.
        place: Latitude and longitude of the plumes.
        title: Title of the page.

    Returns:
        The path.

    Raises:
        DataError: The forecast has no variable that the scores know, or is given without the truth.
    """
    channels = _channels(scores, forecast)
    sections = [("What was run" if forecast is not None else "What was compared", facts_table(facts))]
    if forecast is not None:
        if truth is None:
            raise DataError("A forecast without the truth", "Maps and plumes show both", "Give truth=..., or leave the forecast out")
        sections += [
            ("Truth, ensemble mean and spread", in_columns(_maps(forecast, truth, channels), "three")),
            ("Every member at one place", in_columns(_plumes(forecast, truth, optimum, channels, place), "two")),
        ]
    sections += [
        ("Score against lead", in_columns(_scores(_main(scores), channels), "two")),
        ("Scores in numbers", _tables(_main(scores))),
        ("Better, worse, or luck", _compared(comparisons)),
        *((f"By {dim}", _parts(scores, channels, dim)) for dim in ("region", "season")),
        ("Spectra against the truth", in_columns(_spectra(spectra or xr.Dataset(), channels), "two")),
        ("Rank histograms", in_columns(_ranks(ranks or xr.Dataset(), channels), "two")),
        ("Events", in_columns(_events(events or xr.Dataset()), "two")),
        ("What was left out", facts_table(exclusions(scores) | _uncounted(ranks, spectra, events) | _capital(left_out or {}))),
        ("How this was made", facts_table(made or {})),
    ]
    write_page(Path(path), title, [*_summary(scores, channels), *_confidence(comparisons)], sections)
    return Path(path)


def _channels(scores: xr.Dataset, forecast: xr.Dataset | None) -> list[Channel]:
    """Channels that are drawn, favourites first: four of the scores, or two that the forecast holds too."""
    scored = list(dict.fromkeys(str(key).partition(".")[2] for key in scores.data_vars))
    held = [channel for name in scored for channel in _levels_of(scores, name) if forecast is None or name in forecast]
    if forecast is not None and not held:
        raise DataError(
            f"The forecast holds {', '.join(map(str, forecast.data_vars))}, the scores {', '.join(sorted(scored))}",
            "A report shows variables that were scored",
            "Give the scores of this forecast: aeris.verify(forecast, truth)",
        )
    held.sort(key=lambda channel: channel[1] is not None)
    return favourites(held, 4 if forecast is None else 2)


def _levels_of(scores: xr.Dataset, name: str) -> list[Channel]:
    field = next(field for key, field in scores.items() if str(key).partition(".")[2] == name)
    return [(name, int(level)) for level in field.level.values] if "level" in field.dims else [(name, None)]


def _main(scores: xr.Dataset) -> xr.Dataset:
    """The scores of all seasons and the first region, which is the globe where it was asked for."""
    scores = scores.sel(season="all", drop=True) if "season" in scores.dims else scores
    if "region" not in scores.dims:
        return scores
    return scores.sel(region=main_region(scores))


def _named(scores: xr.Dataset, wanted: tuple[str, ...] = tuple(METRICS)) -> list[str]:
    """Which of those scores are there."""
    there = {str(key).partition(".")[0] for key in scores.data_vars}
    return [name for name in wanted if name in there]


def _drawn(scores: xr.Dataset) -> list[str]:
    """The scores that are drawn: those of an ensemble where the first system is one."""
    spreads = [field.isel(system=0).notnull().any() for key, field in scores.items() if str(key).startswith(("spread.", "spread_skill."))]
    return _named(scores, ENSEMBLE if any(spreads) else SINGLE) or _named(scores)[:3]


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
    where = f", {scores.region.item()}" if "region" in scores.coords else ""
    for score in _drawn(scores):
        for name, level in channels:
            if f"{score}.{name}" in scores:
                figure = score_figure(scores, score, name, level)
                yield Picture(figure, f"{score} of {variable_text(name, level)} against the lead{where}: {systems}.")


def _spectra(spectra: xr.Dataset, channels: list[Channel]) -> Iterator[Picture]:
    for name, level in _held(spectra, channels):
        figure = spectra_figure(spectra, name, level)
        yield Picture(figure, f"Power of {variable_text(name, level)} by degree, forecast and truth, and their ratio.")


def _ranks(ranks: xr.Dataset, channels: list[Channel]) -> Iterator[Picture]:
    for name, level in _held(ranks, channels):
        yield Picture(rank_figure(ranks, name, level), f"Rank histogram of {variable_text(name, level)} at each lead.")


def _held(ds: xr.Dataset, channels: list[Channel]) -> list[Channel]:
    """The channels that a dataset holds."""
    return [(name, level) for name, level in channels if name in ds and (level is None or level in ds.level.values)]


def _events(events: xr.Dataset) -> Iterator[Picture]:
    for name, table in events.items():
        levels = [int(level) for level in table.level.values] if "level" in table.dims else [None]
        for level in levels:
            text = variable_text(str(name), level)
            yield Picture(brier_figure(events, str(name), level), f"Brier skill of events of {text} against the lead.")
            for limit in table.threshold.values:
                figure = reliability_figure(events, str(name), level, limit)
                yield Picture(figure, f"Reliability of the probability that {text} is {table.attrs['event']} {limit:g}.")


def _tables(scores: xr.Dataset) -> str:
    """A table of each score, the most telling unfolded: a row for each channel and system, a column for each of some leads."""
    leads = scores[LEAD].values[spread_out(scores.sizes[LEAD], COLUMNS)]
    tables = []
    for order, score in enumerate(dict.fromkeys([*_drawn(scores), *_named(scores)])):
        rows = []
        for key in sorted((key for key in map(str, scores.data_vars) if key.startswith(f"{score}.")), key=_rank):
            for name, level in _levels_of(scores, key.partition(".")[2]):
                field = choose_level(scores[key], level).sel({LEAD: leads})
                rows += [
                    [variable_text(name, level), unit_text(field.attrs["units"]), str(system), *_numbers(field.sel(system=system))]
                    for system in field.system.values
                    if field.sel(system=system).notnull().any()
                ]
        table = number_table(["channel", "unit", "system", *map(lead_text, leads)], rows, 3)
        tables.append(folded(f"{score}: {TITLES.get(score, METRICS[score].long_name)}", table, order == 0))
    return "".join(tables)


def _compared(comparisons: pd.DataFrame | None) -> str:
    """A scorecard against each other system, as picture and as table."""
    parts = []
    for (system, reference), card in () if comparisons is None else comparisons.groupby(["system", "reference"], sort=False):
        alt = f"Scorecard of {system} against {reference}: relative differences by channel and lead, and which are beyond chance."
        text = as_text(card)
        words = [name for name in text.index.names if name not in ("system", "reference")]
        index = text.index.to_frame()
        rows = [[*map(str, index[words].iloc[row]), *text.iloc[row].fillna("–")] for row in range(len(text))]
        table = number_table([*words, *(f"{hours:g} h" for hours in text.columns)], rows, len(words))
        parts += [Picture(scorecard_figure(card), alt).html(), folded(f"{system} against {reference} in numbers", table)]
    return "".join(parts)


def _confidence(comparisons: pd.DataFrame | None) -> Iterator[str]:
    """In how many comparisons the difference is more than chance."""
    for (system, reference), card in () if comparisons is None else comparisons.groupby(["system", "reference"], sort=False):
        known = card[card.verdict != "no data"]
        better, worse = ((known.verdict == verdict).sum() for verdict in ("better", "worse"))
        if len(known):
            yield (
                f"Of {len(known)} comparisons with {reference} by score, channel and lead, the {system} is better in {better} and worse in "
                f"{worse} with {100 * known.confidence.iloc[0]:g} % confidence; of so many a few are by chance."
            )


def _rank(key: str) -> int:
    """Place of a score's variable in the registry; those that it does not know stand last."""
    name = key.partition(".")[2]
    return list(VARIABLES).index(name) if name in VARIABLES else len(VARIABLES)


def _numbers(values: xr.DataArray) -> list[str]:
    return [f"{value:.4g}" if np.isfinite(value) else "–" for value in values.values]


def _parts(scores: xr.Dataset, channels: list[Channel], dim: str) -> str:
    """Curves and a table by region or season, where there are several."""
    if dim not in scores.dims or scores.sizes[dim] < 2:
        return ""
    other = {"region": "season", "season": "region"}[dim]
    if other in scores.dims:
        keep = scores[dim]
        scores = scores.sel({other: "all" if other == "season" else _main(scores).region.item()}, drop=True).assign_coords({dim: keep})
    score = _drawn(scores)[0]
    drawn = [(name, level) for name, level in channels if f"{score}.{name}" in scores]
    pictures = [
        Picture(parts_figure(scores, score, name, level, dim), f"{score} of {variable_text(name, level)} against the lead by {dim}.")
        for name, level in drawn
    ]
    leads = scores[LEAD].values[spread_out(scores.sizes[LEAD], COLUMNS)]
    rows = []
    for name, level in drawn:
        field = choose_level(scores[f"{score}.{name}"], level).sel({LEAD: leads})
        rows += [
            [variable_text(name, level), unit_text(field.attrs["units"]), str(part), str(system), *_numbers(values)]
            for part in field[dim].values
            for system in field.system.values
            if (values := field.sel({dim: part, "system": system})).notnull().any()
        ]
    table = number_table(["channel", "unit", dim, "system", *map(lead_text, leads)], rows, 4)
    return in_columns(pictures, "two") + folded(f"{score} by {dim} in numbers", table)


def exclusions(scores: xr.Dataset) -> dict[str, str]:
    """What was not scored, by kind and in words."""
    about = scores.attrs
    cases = int(about.get("initial_times", 0)) * scores.sizes[LEAD]
    areas = {str(key).partition(".")[2]: field.attrs.get("scored_area", 1.0) for key, field in scores.items()}
    partly = {name: area for name, area in areas.items() if area < 0.9995}
    told = {
        "Member forecasts missing": f"{about.get('missing_members', 0)} of {cases * int(about.get('members', 1))}",
        "Initial times and leads without truth": str(about.get("missing_truth", 0)),
        "Scored on a part of the globe": "; ".join(f"{variable_text(name)}: {area:.1%}" for name, area in partly.items()),
        "Left out": str(about.get("left_out", "")),
    }
    return {label: text for label, text in told.items() if text}


def _uncounted(ranks: xr.Dataset | None, spectra: xr.Dataset | None, events: xr.Dataset | None) -> dict[str, str]:
    """What ranks, spectra and events were made without."""
    members = max((field.attrs.get("left_out_members", 0) for field in (spectra or {}).values()), default=0)
    counts = {
        "Initial times and leads without ranks": 0 if ranks is None else ranks.attrs.get("left_out_cases", 0),
        "Members without spectra": members,
        "Cases without probabilities of events": 0 if events is None else events.attrs.get("left_out_cases", 0),
    }
    return {label: str(count) for label, count in counts.items() if count}


def _capital(texts: Mapping[str, str]) -> dict[str, str]:
    return {f"No {label}": text for label, text in texts.items()}


def _summary(scores: xr.Dataset, channels: list[Channel]) -> list[str]:
    """What was scored, how good it is, and what is missing, in sentences."""
    about, leads = scores.attrs, scores[LEAD].values
    few = ", ".join(map(lead_text, leads)) if len(leads) <= 6 else f"{lead_text(leads[0])} to {lead_text(leads[-1])} ({len(leads)})"
    members, missing = int(about.get("members", 1)), int(about.get("missing_members", 0))
    what = [
        f"{members} member{'s' * (members > 1)} from {about.get('initial_times')} initial times"
        + (f", {about['period']}" if "period" in about else ""),
        f"leads {few}",
        *([f"on {about['grid']} cells"] if "grid" in about else []),
    ]
    first = f"{', '.join(what)}. Averages are over cell areas and initial times. {missing} member forecasts are missing."
    return [first, *_verdict(_main(scores), channels)]


def _verdict(scores: xr.Dataset, channels: list[Channel]) -> Iterator[str]:
    """How the first system stands beside each other one, channel by channel, and how wide its ensemble is."""
    score = next((name for name in (*_drawn(scores), *BETTER) if name in _named(scores, BETTER)), None)
    own, *others = map(str, scores.system.values)
    ends = sorted({0, scores.sizes[LEAD] - 1})
    for other in others if score else []:
        ratios = _every_channel(scores.sel(system=own, drop=True) / scores.sel(system=other, drop=True), str(score))
        told = [
            f"lower in {int((at < 1).sum())} of {int(at.notnull().sum())} channels at {lead_text(scores[LEAD].values[end])}"
            f" (median ratio {float(at.median()):.3g})"
            for end in ends
            if (at := ratios.isel({LEAD: end})).notnull().any()
        ]
        if told:
            yield f"Beside {other}, {TITLES[str(score)][0].lower() + TITLES[str(score)][1:]} of the {own} is {' and '.join(told)}."
    if "spread_skill" in _named(scores):
        widths = _every_channel(scores.sel(system=own, drop=True), "spread_skill")
        if widths.notnull().any():
            ranges = [f"{float(widths.isel({LEAD: end}).median()):.2f} at {lead_text(scores[LEAD].values[end])}" for end in ends]
            yield f"Spread over error, 1 for an ensemble as wide as its error, has a median over the channels of {' and '.join(ranges)}."


def _every_channel(scores: xr.Dataset, score: str) -> xr.DataArray:
    """One score of every channel, ``(channel, prediction_timedelta)``."""
    fields = [field.drop_attrs() for key, field in scores.items() if str(key).startswith(f"{score}.")]
    flat = [field.rename(level="channel") if "level" in field.dims else field.expand_dims("channel") for field in fields]
    return xr.concat([field.drop_vars("channel", errors="ignore") for field in flat], "channel")
