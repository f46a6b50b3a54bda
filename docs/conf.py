"""The documentation site: guides, tutorials and the reference, built by ``make docs`` and complete without a network.

The repository is the source, so that pages refer to each other, to tutorials and to the change log by the paths that they have there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from docutils.nodes import Element
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import aeris  # noqa: E402

project, author, copyright, release = "aeris", "aeris contributors", "aeris contributors, MIT licence", aeris.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/api/*.md",
    "tutorials/*.ipynb",
    "notebooks/*.ipynb",
    "benchmarks/RESULTS.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = ["docs/_build", ".*"]

# Every name in single backticks that begins with aeris must be one of the reference; other packages have no inventory here.
default_role = "py:obj"
nitpicky = True
# Of its own, only classes that are made by code and type variables have no page.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!aeris\.).*"),
    (r"py:class", r"aeris\..*Changes|aeris\.data\.remote\.Answer|aeris\.interop\.files\.Value"),
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "no-value": True}
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_ivar = True
viewcode_line_numbers = True
viewcode_follow_imported_members = False  # else pages of the source lead back to names that no page has

myst_heading_anchors = 3
# A notebook is run once and again when it changes. It may write only into folders of its own.
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_excludepatterns = ["notebooks/watch_training.ipynb"]  # its cells live on engines, and no page can follow them
nb_output_stderr = "remove"  # progress bars
suppress_warnings = ["mystnb.unknown_mime_type"]  # HoloViews sends what it shows in kinds of its own, too
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # they would come from a network

html_theme = "furo"
html_title = "aeris"
html_additional_pages = {"index": "to_root_doc.html"}
templates_path = ["_templates"]
linkcheck_timeout = 20


def _homes(name: str) -> list[str]:
    """The names under which the reference may hold what a name leads to: its own, and its place in the public face."""
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return []
    last = name.rpartition(".")[2]
    return [f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', last)}", f"aeris.{last}"]


def resolve_other_names(app: Sphinx, env: BuildEnvironment, node: Any, content: Element) -> Element | None:
    """Resolves a name under which a package hands on what stands elsewhere, such as ``aeris.swipe.Layout``."""
    if node.get("refdomain") != "py":
        return None
    for name in _homes(node["reftarget"]):
        found = env.domains.python_domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)
        if found is not None:
            return found
    return None


def leave_out(app: Sphinx, kind: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out of a room what is described among the public names, and of a class what another package has put there."""
    home = getattr(thing, "__module__", None) or "aeris"
    public = kind == "module" and aeris._HOME.get(name) == home
    foreign = kind == "class" and callable(thing) and not home.startswith("aeris")
    return True if public or foreign else None


def setup(app: Sphinx) -> None:
    """Connects what stands above."""
    app.connect("missing-reference", resolve_other_names)
    app.connect("autodoc-skip-member", leave_out)
