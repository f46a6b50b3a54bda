"""Results of single initial times, kept as they are computed, so that a verification that was stopped goes on where it was.

::

    folder/
      made_of.json          what the results are made of
      ledger.jsonl          one line for each file that is whole: its name and checksum
      2020-02-01T00.npz     what one initial time gave

A folder goes on only with what it began with: the same arguments, and data that look the same. Of a local file or store that is every
file's size and time of change; of the fields themselves the coordinates, and the values, of large fields the first and the last.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import xarray as xr

from aeris import __version__
from aeris.data.disk import Ledger, write_whole
from aeris.errors import StoreError
from aeris.progress import tqdm
from aeris.verification.pairing import CELLS, Pairing

MADE_OF, LEDGER = "made_of.json", "ledger.jsonl"
WHOLE_BYTES = 2**26
"""Fields up to this size are looked at whole."""


def by_initial_time(
    compute: Callable[[Pairing], xr.Dataset],
    pairing: Pairing,
    keep: str | Path | None,
    made_of: Mapping[str, Any],
    *,
    progress: bool = False,
) -> Iterator[xr.Dataset]:
    """Computes something for each initial time by itself.

    Args:
        compute: Receives the pairing cut to one initial time.
        pairing: What is compared.
        keep: Folder in which the results are kept and found again; None keeps nothing.
        made_of: Whatever else decides the results, by name: numbers, text, datasets, and collections of these.
        progress: Whether to show a progress bar.

    Yields:
        The results, in the order of the initial times.

    Raises:
        StoreError: The folder holds something else, or cannot be written.
    """
    kept = None if keep is None else Kept(keep, {"forecast": pairing.forecast, "truth": pairing.truth, **made_of})
    for time in tqdm(pairing.times, desc=str(made_of.get("what", "verifying")), unit="start", disable=not progress):
        alone = partial(compute, pairing.at(time))
        yield alone() if kept is None else kept.get(np.datetime_as_string(time, "auto"), alone)


class Kept:
    """Datasets in a folder, each whole or not there.

    Args:
        path: The folder; it is made where it is missing.
        made_of: What decides the datasets.

    Raises:
        StoreError: Other things decided those that are there, or something else is there.
    """

    def __init__(self, path: str | Path, made_of: Mapping[str, Any]) -> None:
        self.path = Path(path)
        asked = {"aeris": __version__, **{name: described(value) for name, value in made_of.items()}}
        _lay_out(self.path, json.loads(json.dumps(asked)))
        self._ledger = Ledger(self.path / LEDGER)
        self._checksums = {record["file"]: record["crc32c"] for record in self._ledger.read()}

    def get(self, name: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
        """The dataset of that name: from disk where it is whole there, else computed and kept."""
        file = self.path / f"{name.replace(':', '')}.npz"
        if not file.exists() or google_crc32c.value(file.read_bytes()) != self._checksums.get(file.name):
            self._put(file, _packed(compute()))
        return _unpacked(file)

    def _put(self, file: Path, content: bytes) -> None:
        try:
            write_whole(file, [content])
            self._ledger.append({"file": file.name, "crc32c": google_crc32c.value(content)})
        except OSError as error:
            raise StoreError(
                f"{file} could not be written: {error}", "What the ledger names is whole", "Free space and call the same again: it goes on"
            ) from error


def _lay_out(path: Path, asked: dict[str, Any]) -> None:
    """Writes down what the folder is made of, or compares with what is written there."""
    file = path / MADE_OF
    if not path.exists():
        write_whole(file, [json.dumps(asked, indent=1).encode()])
        return
    if not file.exists():
        raise StoreError(f"{path} exists and keeps no results of a verification", "Nothing is written into it", "Name another folder")
    found = json.loads(file.read_bytes())
    other = [name for name in {**asked, **found} if asked.get(name) != found.get(name)]
    if other:
        raise StoreError(
            f"{path} keeps what was computed with {_difference(other[0], found.get(other[0]), asked.get(other[0]))}",
            "A verification goes on only with the data and arguments that it began with",
            f"Use the same, or remove {path} to begin anew",
        )


def _difference(name: str, found: Any, asked: Any) -> str:
    """In words, how one thing that results are made of was another."""
    if isinstance(found, dict) and isinstance(asked, dict):
        parts = [part for part in {*found, *asked} if found.get(part) != asked.get(part)]
        if "source" in found and "source" not in parts and found["source"]:
            return f"another {name}: {found['source']} has changed since"
        return f"another {name}, from {found['source']}" if found.get("source") else f"another {name}: other {', '.join(sorted(parts))}"
    return f"{name}={found}, not {asked}"


def described(value: Any) -> Any:
    """Something that decides results, as JSON holds it: text and numbers as they are, data by what they look like."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, xr.Dataset):
        return {"source": value.encoding.get("source"), "files": _files(value.encoding.get("source")), "fields": _digest(value)}
    if isinstance(value, xr.DataArray):
        return {"fields": _digest(value.to_dataset(name="field"))}
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, Mapping):
        return {str(name): described(one) for name, one in value.items()}
    return [described(one) for one in value]


def _files(source: str | None) -> str | None:
    """Names, sizes and times of change of the files of a local source."""
    path = Path(source) if source else None
    if path is None or not path.exists():
        return None
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        state = file.stat()
        if file.is_file():
            found.update(f"{file.relative_to(path)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return found.hexdigest()


def _digest(ds: xr.Dataset) -> str:
    """Of coordinates, attributes and values; of large fields the first and the last are looked at."""
    found = hashlib.sha256(json.dumps(ds.attrs, sort_keys=True, default=str).encode())
    for name, field in sorted(ds.variables.items(), key=lambda item: str(item[0])):
        found.update(f"{name} {field.dims} {field.shape} {field.dtype} {field.attrs.get('units')}".encode())
        leading = [dim for dim in field.dims if dim not in CELLS]
        parts = [field] if field.nbytes <= WHOLE_BYTES else [field.isel(dict.fromkeys(leading, place)) for place in (0, -1)]
        for part in parts:
            values = part.values.astype(str) if part.dtype == object else part.values
            found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def _packed(ds: xr.Dataset) -> bytes:
    """A dataset as the bytes of a file: its arrays, and beside them in JSON what else it holds."""
    about = {
        "dims": {str(name): list(field.dims) for name, field in ds.variables.items()},
        "attrs": {str(name): field.attrs for name, field in ds.variables.items()},
        "coords": [str(name) for name in ds.coords],
        "whole": ds.attrs,
    }
    arrays = {str(name): field.values for name, field in ds.variables.items()}
    text = {name: values.astype(str) if values.dtype == object else values for name, values in arrays.items()}
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, about=np.array(json.dumps(about)), **text)
    return stream.getvalue()


def _unpacked(file: Path) -> xr.Dataset:
    with np.load(file) as arrays:
        about = json.loads(str(arrays["about"]))
        fields = {name: (dims, arrays[name], about["attrs"][name]) for name, dims in about["dims"].items()}
    coords = {name: fields.pop(name) for name in about["coords"]}
    return xr.Dataset(fields, coords, about["whole"])
