"""Reading over HTTP from a server that drops connections, refuses, or is not there. Only the loopback device is used."""

from __future__ import annotations

import functools
import http.server
import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from aeris import open_era5
from aeris.data import remote
from aeris.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")


class Unreliable(http.server.SimpleHTTPRequestHandler):
    """Serves files, but fails the next `failures` requests in the way `how`."""

    protocol_version = "HTTP/1.1"
    failures, how, requests, lock = 0, "before", 0, threading.Lock()
    listing, only = 200, ""

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.path = urlsplit(self.path).path
        with self.lock:
            cls = type(self)
            cls.requests += 1
            failing = cls.failures > 0 and self.path.endswith(self.only)
            cls.failures -= failing
        if not failing:
            super().do_GET()
        elif self.how in ("503", "403"):
            self.send_response(int(self.how))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._break_off()

    def list_directory(self, path: object) -> object:
        if self.listing == 200:
            return super().list_directory(path)  # type: ignore[arg-type]
        return self.send_error(self.listing)

    def _break_off(self) -> None:
        """Ends the connection before the answer, or in the middle of it."""
        path = Path(self.translate_path(self.path))
        if self.how == "middle" and path.is_file():
            whole = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[: len(whole) // 2])
            self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    values = 280 + np.random.default_rng(0).normal(size=(4, 16, 32)).astype("float32")
    coords = {
        "time": pd.date_range("2020", periods=4).as_unit("ns"),
        "latitude": np.linspace(84, -84, 16),
        "longitude": np.arange(32) * 11.25,
    }
    attrs = {"units": "K", "long_name": "temperature at 2 m"}
    return xr.Dataset({"2m_temperature": (("time", "latitude", "longitude"), values, attrs)}, coords)


@pytest.fixture
def server(data: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Unreliable]]]:
    """The address of a folder with the data in several formats, and the class that steers its faults."""
    data.chunk(time=1).to_zarr(tmp_path / "v3.zarr", zarr_format=3, consolidated=True)
    data.chunk(time=1).to_zarr(tmp_path / "v2.zarr", zarr_format=2, consolidated=True)
    data.chunk(time=1).to_zarr(tmp_path / "listed.zarr", zarr_format=3, consolidated=False)
    data.to_netcdf(tmp_path / "file.nc", engine="netcdf4")
    monkeypatch.setattr(remote, "PAUSES", (0.01,) * 5)
    handler = type("Handler", (Unreliable,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path))) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", handler
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize("how", ["before", "middle", "503"])
@pytest.mark.parametrize("name", ["v3.zarr", "v2.zarr", "listed.zarr", "file.nc"])
def test_a_dropped_connection_loses_nothing(server: tuple[str, type[Unreliable]], data: xr.Dataset, name: str, how: str) -> None:
    url, handler = server
    handler.how, handler.failures = how, 3
    ds = open_era5(f"{url}/{name}")
    assert handler.failures == 0
    handler.failures = 3
    xr.testing.assert_identical(ds.load(), data)
    assert (handler.failures == 0) == name.endswith(".zarr")


@pytest.mark.parametrize("how", ["before", "middle", "503"])
@pytest.mark.parametrize("name", ["v3.zarr", "file.nc"])
def test_too_many_failures_are_an_error_that_names_the_address(server: tuple[str, type[Unreliable]], name: str, how: str) -> None:
    url, handler = server
    handler.how, handler.failures = how, 10_000
    with pytest.raises(DataError, match=rf"{url}/{name}.* could not be read: .*last of 6 attempts"):
        open_era5(f"{url}/{name}")


def test_failures_while_reading_name_the_chunk(server: tuple[str, type[Unreliable]]) -> None:
    url, handler = server
    ds = open_era5(f"{url}/v3.zarr")
    handler.failures = 10_000
    with pytest.raises(DataError, match=rf"{url}/v3.zarr/2m_temperature/c/\d/0/0 could not be read"):
        ds.load()


def test_a_refusal_is_not_repeated(server: tuple[str, type[Unreliable]]) -> None:
    url, handler = server
    handler.how, handler.failures = "403", 10_000
    with pytest.raises(DataError, match=rf"{url}/file.nc could not be read: .*403.*refuses.*rights"):
        open_era5(f"{url}/file.nc")
    assert handler.requests == 1


@pytest.mark.parametrize("name", ["none.zarr", "none.nc"])
def test_what_is_not_there_is_named(server: tuple[str, type[Unreliable]], name: str) -> None:
    url, _ = server
    with pytest.raises(DataError, match=rf"There is no .* at {url}/{name}"):
        open_era5(f"{url}/{name}")


def test_no_server_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.01,))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/era5.zarr"
        with pytest.raises(DataError, match=rf"{url}.* could not be read: .*last of 2 attempts"):
            open_era5(url)


def test_only_what_is_asked_for_is_read(server: tuple[str, type[Unreliable]], data: xr.Dataset) -> None:
    url, handler = server
    ds = open_era5(f"{url}/v3.zarr", time="2020-01-03")
    before = handler.requests
    xr.testing.assert_identical(ds.load(), data.sel(time=["2020-01-03"]))
    assert handler.requests == before + 1


def test_shards_are_read_from_a_server_without_ranges(server: tuple[str, type[Unreliable]], data: xr.Dataset, tmp_path: Path) -> None:
    """The server of Python's standard library answers every range with the whole file."""
    encoding = {"2m_temperature": {"chunks": (1, 8, 8), "shards": (4, 16, 32)}}
    data.to_zarr(tmp_path / "sharded.zarr", zarr_format=3, consolidated=True, encoding=encoding)
    xr.testing.assert_identical(open_era5(f"{server[0]}/sharded.zarr").load(), data)


def test_an_open_store_can_be_sent_to_another_process(server: tuple[str, type[Unreliable]], data: xr.Dataset) -> None:
    url, handler = server
    ds = pickle.loads(pickle.dumps(open_era5(f"{url}/v3.zarr")))
    handler.failures = 3
    xr.testing.assert_identical(ds.load(), data)


def test_a_store_that_the_server_does_not_list_needs_consolidated_metadata(server: tuple[str, type[Unreliable]], data: xr.Dataset) -> None:
    url, handler = server
    handler.listing = 404
    xr.testing.assert_identical(open_era5(f"{url}/v3.zarr").load(), data)
    for refusal in (403, 404):
        handler.listing = refusal
        with pytest.raises(DataError, match=rf"{url}/listed.zarr.* consolidated metadata"):
            open_era5(f"{url}/listed.zarr")


def test_the_proxy_of_the_environment_is_used(
    server: tuple[str, type[Unreliable]], data: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = server
    monkeypatch.setenv("http_proxy", url)
    for name in ("v3.zarr", "file.nc"):
        xr.testing.assert_identical(open_era5(f"http://somewhere.invalid/{name}").load(), data)


@pytest.mark.parametrize("how", ["before", "503"])
def test_every_kind_of_read_is_repeated(server: tuple[str, type[Unreliable]], data: xr.Dataset, how: str) -> None:
    """Listing a store, asking for a key and reading parts of it."""
    url, handler = server
    handler.how, handler.failures, handler.only = how, 2, "/listed.zarr/"
    xr.testing.assert_identical(open_era5(f"{url}/listed.zarr").load(), data)
    assert handler.failures == 0

    async def read() -> tuple[bool, bool, list[bytes]]:
        store = remote.open_store(f"{url}/v3.zarr")
        handler.only, handler.failures = "", 2
        there = await store.exists("zarr.json"), await store.exists("none.json")
        handler.failures = 2
        parts = await store.get_partial_values(default_buffer_prototype(), [("zarr.json", None), ("zarr.json", RangeByteRequest(0, 1))])
        return *there, [part.to_bytes() for part in parts if part]

    there, absent, (whole, part) = sync(read())
    assert there and not absent and part == whole[:1] == b"{"
