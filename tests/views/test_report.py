"""The report: one whole file that fetches nothing and says what its pictures show."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from html.parser import HTMLParser

import pandas as pd
import pytest

from aeris.errors import DataError
from aeris.verification.evaluation import evaluate
from aeris.views.report import write_report


class Page(HTMLParser):
    """Collects the tags, their attributes and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data.strip())


def write(path, example, **change):
    facts = {"machine": "2 cores <fast>", "training": "700 steps, 71 s"}
    return write_report(path, **({**example._asdict(), "facts": facts} | change))


@pytest.fixture(scope="module")
def page(forecast, network_refused, tmp_path_factory) -> Page:
    with network_refused():
        path = write(tmp_path_factory.mktemp("report") / "report.html", forecast)
    return Page(path.read_text(encoding="utf-8"))


def test_every_picture_is_within_and_has_words(page):
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 6 + 2 + 6 + 2 + 2
    for picture in pictures:
        head, data = picture["src"].split(",")
        assert head in ("data:image/png;base64", "data:image/svg+xml;base64")
        assert base64.b64decode(data).startswith((b"\x89PNG", b"<?xml"))
        assert len(picture["alt"]) > 20
    assert len({picture["alt"] for picture in pictures}) == len(pictures)


def test_nothing_is_fetched(page):
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert not [value for value in attrs.values() if value and ("//" in value[:10] or value.startswith("http"))]


def test_it_says_what_was_run(page):
    text = " ".join(page.text)
    for words in ("machine", "2 cores <fast>", "700 steps, 71 s", "3 members from 2 initial times", "6 h, 24 h", "16×32"):
        assert words in text
    alt = " ".join(attrs["alt"] for tag, attrs in page.tags if tag == "img")
    for words in ("Truth of geopotential at 500 hPa", "Ensemble spread of temperature at 2 m", "optimum", "Rank histogram"):
        assert words in alt


def test_it_fits_a_phone(page):
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [attrs for tag, attrs in page.tags if tag == "meta"]


def test_optional_parts_may_be_missing(forecast, tmp_path):
    one = ["2m_temperature"]
    path = write(tmp_path / "r.html", forecast, forecast=forecast.forecast[one], ranks=None, optimum=None)
    text = " ".join(Page(path.read_text(encoding="utf-8")).text)
    assert "Rank histograms" not in text and "Spectra" in text


def test_a_fault_leaves_the_old_report(forecast, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_, **__):
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        write(path, forecast, forecast=forecast.forecast[["2m_temperature"]], ranks=None)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_scores_of_something_else_are_refused(forecast, tmp_path):
    with pytest.raises(DataError, match=r"geopotential.*aeris\.verify"):
        write(
            tmp_path / "report.html",
            forecast,
            forecast=forecast.forecast[["geopotential"]],
            scores=forecast.scores[["crps.2m_temperature"]],
        )
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ of a verification, without the forecast


@pytest.fixture(scope="module")
def verified(forecast, network_refused, tmp_path_factory) -> Page:
    fc, truth = forecast.forecast, forecast.truth
    lacking = fc.copy(deep=True)
    lacking["2m_temperature"][{"number": 1, "time": 1}] = float("nan")
    how = {"regions": ["tropics", "global"], "seasons": True, "thresholds": {"2m_temperature": [290.0, 1000.0]}}
    found = evaluate(lacking, truth, baselines=("persistence", "optimum"), **how)
    parts = {name: getattr(found, name) for name in ("scores", "ranks", "spectra", "events", "left_out")}
    with network_refused():
        path = write_report(tmp_path_factory.mktemp("verified") / "scores.html", facts={"Truth": "<b>"}, made={"Versions": "0.1"}, **parts)
    return Page(path.read_text(encoding="utf-8"))


def test_a_verification_has_words_curves_tables_parts_and_what_is_missing(verified):
    text = " ".join(verified.text)
    for words in ("3 members from 2 initial times", "Beside persistence", "Beside optimum", "Spread over error"):
        assert words in text
    for title in ("Score against lead", "Scores in numbers", "By region", "Spectra", "Rank histograms", "Events", "What was left out"):
        assert title in text
    assert "Member forecasts missing 2 of 12" in text and "sea surface temperature: " in text
    for words in ("Initial times and leads without ranks 2", "Members without spectra 2", "Cases without probabilities of events 2"):
        assert words in text
    assert "Truth, ensemble mean" not in text and "By season" in text
    alt = [attrs["alt"] for tag, attrs in verified.tags if tag == "img"]
    assert len(set(alt)) == len(alt)
    assert [words for words in alt if words.startswith("Brier skill")] and [words for words in alt if "global" in words]


def test_systems_are_compared_in_a_picture_a_table_and_a_sentence(forecast, tmp_path):
    rows = {"score": "crps", "variable": "geopotential", "level": 500, "channel": "geopotential_500", "confidence": 0.95}
    card = pd.DataFrame([rows | {"system": "forecast", "reference": "persistence", "lead": pd.Timedelta(lead)} for lead in ("6h", "24h")])
    numbers = {"difference": [-9.0, 4.0], "relative": [-0.2, 0.1], "low": [-0.3, -0.1], "high": [-0.1, 0.3], "dates": 12}
    card = card.assign(**numbers, verdict=["better", "undecided"])
    alone = {"scores": forecast.scores[["crps.geopotential"]]} | dict.fromkeys(("forecast", "truth", "optimum", "spectra", "ranks"))
    page = Page(write(tmp_path / "r.html", forecast, comparisons=card, **alone).read_text(encoding="utf-8"))
    text = " ".join(page.text)
    assert "Of 2 comparisons with persistence" in text and "is better in 1 and worse in 0 with 95 % confidence" in text
    assert "Better, worse, or luck" in text and "-20.0 % [-30.0, -10.0] n=12" in text
    assert any(attrs["alt"].startswith("Scorecard of forecast against persistence") for tag, attrs in page.tags if tag == "img")


def test_numbers_of_the_tables_are_those_of_the_scores(verified, forecast):
    shown = forecast.scores["crps.geopotential"].sel(system="optimum", level=500)
    assert {f"{value:.4g}" for value in shown.values} <= set(verified.text)


def test_a_verification_fetches_nothing(verified):
    test_nothing_is_fetched(verified)


def test_of_a_single_forecast_ensemble_scores_are_named_as_left_out(forecast, tmp_path):
    found = evaluate(forecast.forecast.isel(number=0, drop=True), forecast.truth)
    path = write_report(tmp_path / "r.html", scores=found.scores, facts={}, ranks=found.ranks, left_out=found.left_out)
    page = Page(path.read_text(encoding="utf-8"))
    text = " ".join(page.text)
    assert "1 member from 2" in text and "one member has no spread" in text and "No ranks" in text
    alt = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert any(words.startswith("mae") for words in alt) and not any(words.startswith(("crps", "spread")) for words in alt)


def test_a_forecast_without_its_truth_is_refused(forecast, tmp_path):
    with pytest.raises(DataError, match="without the truth"):
        write(tmp_path / "r.html", forecast, truth=None)


@pytest.mark.slow
def test_neither_torch_nor_pyplot_is_imported():
    modules = "aeris.views.report, aeris.verification.scores"
    code = f"import sys, {modules}; print([name for name in ('torch', 'matplotlib.pyplot') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
