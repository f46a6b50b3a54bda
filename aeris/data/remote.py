"""Reading over the network without losing anything to a dropped connection.

Zarr's own stores pass a broken connection on as an error (or, worse, their file system takes it for a missing chunk), and the
retries of object-store clients end where a connection breaks in the middle of an answer. Here every read is repeated until it
is whole, with pauses that double, and an answer that never comes is an error that names the address.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import FsspecStore, WrapperStore

from aeris.errors import DataError

PAUSES = (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
"""Seconds between the attempts of one read; after the last attempt it fails."""

Answer = TypeVar("Answer")


async def patiently(read: Callable[[], Awaitable[Answer]], address: str) -> Answer:
    """Awaits `read()` again and again while it fails in a way that may pass.

    Raises:
        DataError: The last attempt failed too, or the server refuses.
    """
    for pause in (*PAUSES, None):
        try:
            return await read()
        except FileNotFoundError:
            raise
        except Exception as error:
            if not _of_the_network(error):
                raise
            passing = _may_pass(error)
            if pause is None or not passing:
                raise DataError(
                    f"{address} could not be read: {type(error).__name__}: {error or 'the connection broke'}",
                    f"This was the last of {len(PAUSES) + 1} attempts"
                    if passing
                    else "The server refuses, and no further attempt would help",
                    "Check the network and run the same call again" if passing else "Check the address and your rights",
                ) from error
            await asyncio.sleep(pause)
    raise AssertionError("unreachable")


def _of_the_network(error: Exception) -> bool:
    """Whether an error comes from the connection or the server, and not from a mistake in the program."""
    return isinstance(error, OSError | TimeoutError) or type(error).__module__.partition(".")[0] in {"aiohttp", "gcsfs", "botocore"}


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed: a broken connection, a busy server; not a refusal."""
    status = error.status if hasattr(error, "status") else getattr(error, "code", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status in (408, 425, 429)
    return not isinstance(error, PermissionError)


class PatientStore(WrapperStore[Store]):
    """A read-only Zarr store whose every read is repeated until it is whole.

    Args:
        store: The store behind it.
        url: Its address, for messages.
    """

    def __init__(self, store: Store, url: str) -> None:
        super().__init__(store)
        self.url = url

    def __str__(self) -> str:
        return self.url

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Reads one key, or None where the server says that there is none."""
        answer = await patiently(lambda: self._store.get(key, prototype, byte_range), f"{self.url}/{key}")
        return answer if answer is None else _within(answer, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Reads several ranges."""
        return await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges))

    async def exists(self, key: str) -> bool:
        """Whether a key is there; fsspec's own answer is no where a connection breaks."""
        return await self.get(key, default_buffer_prototype()) is not None

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:  # type: ignore[override]
        """Lists one folder."""

        async def collect() -> list[str]:
            return [key async for key in self._store.list_dir(prefix)]

        for key in await patiently(collect, f"The list of {self.url}/{prefix}, needed for want of consolidated metadata,"):
            yield key


def _within(answer: Buffer, byte_range: ByteRequest | None) -> Buffer:
    """The part that was asked for, where a simple web server sends the whole file instead."""
    if isinstance(byte_range, RangeByteRequest) and len(answer) > byte_range.end - byte_range.start:
        return answer[byte_range.start : byte_range.end]
    if isinstance(byte_range, SuffixByteRequest) and len(answer) > byte_range.suffix:
        return answer[len(answer) - byte_range.suffix :]
    return answer


def open_store(url: str) -> PatientStore:
    """The Zarr store at a URL (``http``, ``https``, ``gs``, ``s3`` ... as fsspec knows them)."""
    return PatientStore(FsspecStore.from_url(url, _options(url), read_only=True), url.rstrip("/"))


def download(url: str) -> Path:
    """Fetches one file into a temporary folder that is removed when Python ends.

    Raises:
        FileNotFoundError: The server has no such file.
        DataError: The last attempt failed.
    """
    from fsspec.asyn import get_loop, sync
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url, **_options(url))
    target = Path(tempfile.mkdtemp(dir=_folder())) / path.rstrip("/").rpartition("/")[2].partition("?")[0]
    sync(get_loop(), patiently, lambda: asyncio.to_thread(system.get_file, path, str(target)), url)
    return target


def _options(url: str) -> dict[str, Any]:
    """Compute nodes often reach the web through the proxy that their environment names, which aiohttp must be told to heed."""
    return {"client_kwargs": {"trust_env": True}} if url.startswith(("http://", "https://")) else {}


@cache
def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="aeris-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
