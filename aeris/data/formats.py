"""Opens one file or store of any known format as it is: Zarr, NetCDF and GRIB, lazily.

The format is told by the content and not by the name. Times are left undecoded for `aeris.data.coordinates`, which can say
what is wrong with them.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xarray as xr

from aeris.errors import AerisError, DataError

CHUNK_BYTES = 64 * 2**20
"""About how much one chunk of a file without chunks of its own holds."""

FILE_ENDINGS = (".nc", ".nc4", ".cdf", ".netcdf", ".h5", ".hdf5", ".grib", ".grib1", ".grib2", ".grb", ".grb1", ".grb2")
"""Endings by which single files are told from Zarr stores at a URL, and from other things in a folder."""

ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata")

PRESSURE_KINDS = ("isobaricInhPa", "isobaricInPa")

GRIB_CHOICES = (
    *((names, PRESSURE_KINDS) for names in (("z", "gh"), ("u",), ("v",), ("t",), ("q",))),
    *((names, ()) for names in (("2t",), ("10u",), ("10v",), ("msl", "prmsl", "mslet"), ("sst",), ("lsm",), ("tisr",), ("orog",))),
    (("z",), ("surface",)),
)
"""For each variable of the registry its ecCodes short names and types of level (any where none is named), the best first."""


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / mark).is_file() for mark in ZARR_MARKS)


def open_path(path: Path, where: str = "", dask: bool = True) -> list[xr.Dataset]:
    """Opens a Zarr store, a NetCDF or a GRIB file.

    Args:
        path: The file or store.
        where: What messages call it, if not by its path.
        dask: Whether the arrays of a Zarr store are dask's, cut as they are stored; else they are read when they are used, which suits
            stores of so many chunks that dask takes long to find one.

    Returns:
        One dataset; of a GRIB file one for each variable and type of level.

    Raises:
        DataError: The format is unknown, damaged, or needs a package that is not installed.
    """
    where = where or str(path)
    with _explained(where, "a file"):
        kind = _kind(path, where)
    with _explained(where, kind):
        if kind == "Zarr":
            return [_open_zarr(path, dask)]
        return [_in_chunks(raw) for raw in (_open_grib(path, where) if kind == "GRIB" else [_open_netcdf(path)])]


def open_url(url: str, dask: bool = True) -> list[xr.Dataset]:
    """Opens a Zarr store at a URL, or fetches a single file and opens it; `dask` is that of `open_path`.

    Raises:
        DataError: It cannot be read after several attempts, or needs a package that is not installed.
    """
    with _explained(url, "Zarr store or file"):
        from aeris.data.remote import download, open_store

        if url.partition("?")[0].lower().endswith(FILE_ENDINGS):
            return open_path(download(url), url)
        raw = _open_zarr(open_store(url), dask)
    if not raw.variables:
        raise DataError(
            f"{url} lists no variables",
            "A web server cannot list a Zarr store, which therefore needs consolidated metadata",
            "Run zarr.consolidate_metadata(...) where the store lies, or check the address",
        )
    return [raw]


def _kind(path: Path, where: str) -> str:
    if path.is_dir():
        return "Zarr"
    with path.open("rb") as file:
        head = file.read(1024)
    if head.startswith(b"\x89HDF\r\n\x1a\n") or head[:4] in (b"CDF\x01", b"CDF\x02", b"CDF\x05"):
        return "NetCDF"
    if b"GRIB" in head:
        return "GRIB"
    raise DataError(
        f"{where} begins with {head[:8]!r}",
        "A source is a Zarr store, a NetCDF file or a GRIB file",
        "Convert it, or open it with xarray and pass the Dataset",
    )


@contextlib.contextmanager
def _explained(where: str, kind: str) -> Iterator[None]:
    """Turns the errors of the libraries below into one that names the file."""
    try:
        yield
    except AerisError:
        raise
    except FileNotFoundError as error:
        raise DataError(
            f"There is no {kind} at {where}",
            "A Zarr store has a file zarr.json or .zgroup; single files at a URL are known by endings such as .nc and .grib2",
            "Check the address",
        ) from error
    except ImportError as error:
        raise DataError(
            f"{where} is {kind}, and {error.name or error} is not installed",
            "Formats and addresses other than local Zarr need optional packages",
            "Run pip install 'aeris[sources]'",
        ) from error
    except Exception as error:
        raise DataError(
            f"{where} could not be opened as {kind}: {type(error).__name__}: {error}",
            "The file must be whole and readable",
            "Check the address or fetch the file again",
        ) from error


def _open_zarr(store: Any, dask: bool) -> xr.Dataset:
    with warnings.catch_warnings():
        # Without consolidated metadata xarray lists the store, which is what we want, and says so.
        warnings.filterwarnings("ignore", category=RuntimeWarning, message=".*consolidated.*")
        return xr.open_zarr(store, chunks={} if dask else None, decode_times=False)


def _open_netcdf(path: Path) -> xr.Dataset:
    """The engine is named because xarray would otherwise import every plugin that is installed to ask it."""
    import netCDF4  # noqa: F401

    return xr.open_dataset(path, engine="netcdf4", decode_times=False)


def _open_grib(path: Path, where: str) -> list[xr.Dataset]:
    """Opens one variable on one type of level at a time; the index lives in a temporary folder and never beside the file."""
    with contextlib.suppress(ImportError):
        # ecCodes and pyproj wheels each bring a PROJ library, and the process crashes where pyproj's is loaded second.
        import pyproj  # noqa: F401
    from cfgrib import FileStream, compute_index_keys
    from cfgrib.dataset import open_fileindex
    from cfgrib.xarray_plugin import CfGribBackend

    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"indexpath": f"{folder}/index", "time_dims": ("valid_time",), "errors": "raise"}
        keys = [*compute_index_keys(options["time_dims"]), "shortName", "typeOfLevel"]
        with _silent("cfgrib.messages"):
            index = open_fileindex(FileStream(str(path), errors="raise"), options["indexpath"], keys)
        known = _known_in(index)
        for one in known:
            _check_single(index.subindex(one), one["shortName"], where)
        if known:
            return [xr.open_dataset(str(path), engine=CfGribBackend, filter_by_keys=one, decode_times=False, **options) for one in known]
    raise DataError(
        f"No variable of {where} is known: it holds {', '.join(index['shortName'])}",
        f"At least one must be among {', '.join(dict.fromkeys(name for names, _ in GRIB_CHOICES for name in names))}",
        "Fetch one of these, or open the file with cfgrib, rename what you mean and pass the Dataset",
    )


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keeps a logger from printing the traceback of an error that is raised as well."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _check_single(index: Any, name: str, where: str) -> None:
    """Refuses several messages for one time, member and level, of which cfgrib would take the last and say nothing."""
    axes = [index.index_keys.index(key) for key in ("valid_time", "number", "level:float")]
    places = Counter(tuple(header[axis] for axis in axes) for header, messages in index.iter_index() for _ in messages)
    count = max(places.values())
    if count > 1:
        raise DataError(
            f"{where} holds {count} messages of {name!r} for one time and level",
            "A field may be given once for every time at which it is valid",
            "Keep one forecast, for example with grib_copy -w dataDate=20181010,dataTime=0 in.grib out.grib",
        )


def _known_in(index: Any) -> list[dict[str, str]]:
    """Short names and types of level in a GRIB index that belong to variables of the registry."""
    there = {name: index.subindex(shortName=name)["typeOfLevel"] for name in index["shortName"]}
    found = []
    for names, kinds in GRIB_CHOICES:
        matches = [(name, kind) for name in names if name in there for kind in kinds or there[name] if kind in there[name]]
        found += [{"shortName": name, "typeOfLevel": kind} for name, kind in matches[:1]]
    return found


def _in_chunks(raw: xr.Dataset) -> xr.Dataset:
    """Makes arrays lazy in slabs along their first dimension, which is how a file lays them out."""
    largest = max(raw.data_vars.values(), key=lambda array: array.nbytes, default=None)
    if largest is None or not largest.dims:
        return raw.chunk()
    lead = largest.dims[0]
    count = max(1, int(CHUNK_BYTES * largest.sizes[lead] // max(1, largest.nbytes)))
    stored = dict(largest.encoding.get("preferred_chunks", {})).get(lead, 1)
    return raw.chunk({lead: max(stored, count - count % stored)})
