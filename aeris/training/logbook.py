"""The logbook of a run: one JSON line a step, flushed at once, so that another process can follow it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from aeris.data.disk import write_whole
from aeris.run import read_logbook


class Logbook:
    """Appends lines to a run's ``logbook.jsonl``.

    Args:
        path: The file.
        step: The step after which training goes on; later lines, from steps that were lost, are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [line for line in read_logbook(path) if line["step"] <= step]
        write_whole(path, [(json.dumps(line) + "\n").encode() for line in kept])
        self._file: IO[str] = path.open("a")

    def write(self, line: dict[str, Any]) -> None:
        """Adds one line."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
