"""What is done again and again, in a notebook as in a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import panel as pn


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
            self._callback = pn.state.add_periodic_callback(self._work, period=round(1000 * self._every))
        else:
            self._callback.stop()
            self._callback = None
