"""A page that is one file: pictures and tables are in it, nothing is fetched, and it can be read on a phone or sent by mail."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from aeris.data.disk import write_whole


@dataclass(frozen=True)
class Picture:
    """A figure of a page.

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


def in_columns(pictures: Iterable[Picture], columns: str) -> str:
    """Pictures in a grid of ``"two"`` or ``"three"`` columns, which becomes one column on a narrow screen; nothing without pictures."""
    elements = [picture.html() for picture in pictures]
    return f'<div class="{columns}">\n' + "\n".join(elements) + "\n</div>\n" if elements else ""


def facts_table(facts: Mapping[str, str]) -> str:
    """Labels and texts; nothing without facts."""
    rows = "\n".join(f'<tr><th scope="row">{escape(str(label))}</th><td>{escape(str(text))}</td></tr>' for label, text in facts.items())
    return f"<table>\n{rows}\n</table>\n" if rows else ""


def number_table(head: Sequence[str], rows: Iterable[Sequence[str]], labels: int) -> str:
    """A table of numbers whose first `labels` columns are words, which stand once where they repeat."""
    lines, before = [], [""] * labels
    for row in rows:
        same = [list(row[: column + 1]) == before[: column + 1] for column in range(labels)]
        words = ["" if again else escape(word) for again, word in zip(same, row, strict=False)]
        before = list(row[:labels])
        cells = "".join(f"<td>{word}</td>" for word in words) + "".join(f'<td class="n">{escape(one)}</td>' for one in row[labels:])
        lines.append(f"<tr>{cells}</tr>")
    heads = "".join(f'<th scope="col"{"" if column < labels else " class=n"}>{escape(one)}</th>' for column, one in enumerate(head))
    return f'<div class="wide"><table>\n<tr>{heads}</tr>\n' + "\n".join(lines) + "\n</table></div>\n"


def folded(title: str, content: str, opened: bool = False) -> str:
    """Content that a reader unfolds."""
    return f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>\n{content}</details>\n"


def write_page(path: Path, title: str, summary: Sequence[str], sections: Iterable[tuple[str, str]]) -> None:
    """Writes a page as a whole.

    Args:
        path: The HTML file; it is replaced.
        title: Its title.
        summary: Paragraphs at its head.
        sections: Titles and contents, in HTML; those without content are left out.
    """
    body = "\n".join(f"<section><h2>{escape(title)}</h2>\n{content}</section>" for title, content in sections if content)
    words = "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in summary)
    write_whole(path, [_PAGE.substitute(title=escape(title), summary=words, body=body).encode()])


_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem; background: #fff; color: #1a1a1a; font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: .5rem 0 0; font-size: 1.7rem; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .5rem; font-size: 1.25rem; border-bottom: 2px solid #0072b2; }
p { max-width: 50rem; }
table { border-collapse: collapse; }
th, td { padding: .25rem 1rem .25rem 0; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
th { font-weight: 600; }
td { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.wide td { white-space: nowrap; padding: .1rem 1rem .1rem 0; }
.n { text-align: right !important; font-variant-numeric: tabular-nums; }
summary { cursor: pointer; margin: .5rem 0; }
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
$summary
$body
</body>
</html>
""")
