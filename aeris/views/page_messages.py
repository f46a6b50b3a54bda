"""What a page of a notebook sends to the views, in order and without what was only sent to it.

JupyterLab hands clicks to a thread of their own (a subshell of the kernel), while refreshes run on the main one; Panel sends a change
in parts, which mix if two threads send at once. And in a notebook Panel's page sends back whatever it was sent: whole plots, of which
Bokeh cannot read the lines again, and sizes of plots that have gone from the layout meanwhile. Bokeh drops a message of which it cannot
read a part, and with it would be lost what the visitor did at that moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import panel as pn

ONE_AT_A_TIME = threading.RLock()
"""Held while what pages show is changed."""

DRAWN = frozenset({"children", "data", "renderers"})
"""What only the views change, never a visitor: parts of a layout, numbers behind a plot, its layers."""


class FromPage:
    """Of an outermost layout: takes messages one at a time, each event for itself, and only what a visitor did."""

    def _on_msg(self, ref: str, manager: Any, msg: dict[str, Any]) -> None:
        content = msg.get("content", {})
        contents = [{**content, "events": [event]} for event in content.get("events", ()) if event.get("attr") not in DRAWN]
        with ONE_AT_A_TIME:
            for one in contents if "events" in content else [content]:
                super()._on_msg(ref, manager, {**msg, "content": one})  # type: ignore[misc]


class FlexPage(FromPage, pn.FlexBox):
    """A box as wide as its page, whose parts stand side by side or below each other."""


class ColumnPage(FromPage, pn.Column):
    """Parts below each other."""


class Repeated:
    """Something that is done again and again while it runs.

    Args:
        work: What is done.
        every: Seconds between two times.
    """

    def __init__(self, work: Callable[[], None], every: float) -> None:
        self._work, self._every = work, every
        self._callback: Any = None

    def run(self, on: bool) -> None:
        """Begins or ends it."""
        if on == (self._callback is not None):
            return
        if on:
            self._callback = pn.state.add_periodic_callback(self._once, period=round(1000 * self._every))
        else:
            self._callback.stop()
            self._callback = None

    def _once(self) -> None:
        with ONE_AT_A_TIME:
            self._work()
