"""The documentation site: it is built without a warning, holds every public name, and needs no network."""

from __future__ import annotations

import ast
import os
import pkgutil
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

import aeris

ROOT = Path(__file__).parents[1]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
"""Attributes of what a browser loads by itself; of a link that depends on its kind."""

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; notebooks are shown as they are stored, for other tests run them."""
    for name in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(name, reason="the site is built with the extra 'docs'")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-D", "nb_execution_mode=off", "-c", "docs", ".", str(out)]
    where = {**os.environ, "PYTHONPATH": str(Path(aeris.__file__).parents[1])}
    done = subprocess.run(command, cwd=ROOT, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


class Page(HTMLParser):
    """What a page loads by itself, where its links lead, and which places it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads, self.links, self.places = list[str](), list[str](), set[str]()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.places.add(found.get("id") or found.get("name") or "")
        if tag == "a":
            self.links.append(found.get("href") or "")
        elif tag == "link" and found.get("rel") not in ("author", "canonical", "index", "next", "prev", "search"):
            self.loads.append(found.get("href") or "")
        elif tag in LOADED:
            self.loads.append(found.get(LOADED[tag]) or "")


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


@pytest.fixture(scope="module")
def names(site) -> set[str]:
    """Every name that the reference describes."""
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    return {name for kind, found in inventory.items() if kind.startswith("py:") for name in found}


def public_names(module: Path) -> list[str]:
    """Functions and classes that a module defines and does not hide."""
    defined = [node for node in ast.parse(module.read_text()).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [node.name for node in defined if not node.name.startswith("_")]


def test_the_reference_holds_every_public_name(names):
    described = {f"aeris.{name}" for name in aeris.__all__ if name != "presets"}
    assert described <= names


def test_the_reference_holds_every_room(names):
    package = Path(aeris.__file__).parent
    for module in pkgutil.walk_packages([str(package)], "aeris."):
        if module.name == "aeris.__main__":
            continue
        assert module.name in names
        if not module.ispkg:
            path = package.joinpath(*module.name.split(".")[1:]).with_suffix(".py")
            for name in public_names(path):
                assert {f"{module.name}.{name}", f"aeris.{name}"} & names, f"{module.name}.{name}"


def test_every_guide_and_notebook_is_a_page(site):
    for path in [*ROOT.glob("docs/*.md"), *ROOT.glob("tutorials/*.ipynb"), *ROOT.glob("notebooks/*.ipynb"), ROOT / "CHANGELOG.md"]:
        assert (site / path.relative_to(ROOT)).with_suffix(".html").exists()


def test_pages_load_nothing_from_a_network(site, pages):
    assert len(pages) > 30
    for path, page in pages.items():
        for source in page.loads:
            assert not urlparse(source).netloc, f"{path.name} loads {source}"
    for path in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*['\"]?\s*(?:https?:)?//", path.read_text()) == [], path.name


def test_links_within_the_site_lead_somewhere(pages):
    for path, page in pages.items():
        for link in page.links:
            target = urlparse(link)
            if target.scheme or target.netloc:
                continue
            there = (path.parent / unquote(target.path)).resolve() if target.path else path
            assert there.exists(), f"{path.name} leads to {link}"
            if target.fragment and there in pages:
                assert unquote(target.fragment) in pages[there].places, f"{path.name} leads to {link}"
