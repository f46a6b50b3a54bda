"""Ranks for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ranks import Ranks


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """Up to 40 processes."""
    pool = Ranks(40)
    yield pool
    pool.close()
