"""Files that are whole or not there: the atomic replacement of a file, and a ledger of what is done."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Writes a file under a passing name and renames it, so that nobody ever sees a part of it.

    Args:
        path: Where the file shall stand; its directory is made where it is missing.
        parts: Its bytes, in pieces.

    Raises:
        OSError: The file could not be written; what stood at `path` before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    passing = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with passing.open("wb") as file:
            file.writelines(parts)
        os.replace(passing, path)
    finally:
        passing.unlink(missing_ok=True)


class Ledger:
    """Records that are appended one by one, each after the thing that it records.

    A record is one line of JSON between two line breaks: a line that a fault cut short spoils no other and is not read back.

    Args:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        """Adds one record.

        Raises:
            OSError: It could not be written.
        """
        with self.path.open("ab") as file:
            file.write(b"\n" + json.dumps(record, separators=(",", ":")).encode() + b"\n")

    def read(self) -> list[dict[str, Any]]:
        """All whole records, oldest first; none where the file is missing."""
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        return [record for line in lines if (record := _whole(line)) is not None]


def _whole(line: bytes) -> dict[str, Any] | None:
    """The record that a line holds, or None if it is empty or was cut short."""
    try:
        return json.loads(line)
    except ValueError:
        return None
