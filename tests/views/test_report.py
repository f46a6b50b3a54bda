"""The report: one whole file that fetches nothing and says what its pictures show."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from aeris.errors import DataError
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


@pytest.mark.slow
def test_neither_torch_nor_pyplot_is_imported():
    modules = "aeris.views.report, aeris.verification.scores"
    code = f"import sys, {modules}; print([name for name in ('torch', 'matplotlib.pyplot') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
