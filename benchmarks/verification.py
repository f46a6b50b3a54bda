"""Memory and time of verifying a large archive, beside a plain xarray script and another library that give the same scores.

Makes an archive at 0.25° (721×1440 cells) with 50 members, two variables on five levels and one lead: 2.1 GB for each initial time,
20.8 GB with ten. Its chunks are links to a few files of noise, so that it takes little disk; every one of them is opened, read and
computed with. Each measurement is a process of its own, which tells its greatest resident memory, its time and its processor time; the
whole archive is one measurement, which tells them after each initial time.

    python benchmarks/verification.py [--times 10] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

MEMBERS, LEVELS, GRID = 50, (200, 300, 500, 700, 850), (721, 1440)
LEADS = np.array([24], "timedelta64[h]").astype("timedelta64[ns]")
START = np.datetime64("2020-01-01", "ns")
DAY = np.timedelta64(24, "h").astype("timedelta64[ns]")
VARIABLES = {"temperature": (270.0, 10.0), "geopotential": (60_000.0, 900.0)}
DISTINCT = 16
"""Different files of noise for each variable."""
SMALL = {"time": [0], "prediction_timedelta": [0], "level": [2, 4]}
"""What the plain script and the other library are given too: two fields of 50 members."""


def lay_out(path: Path, dims: dict[str, np.ndarray]) -> None:
    """A store without a single field."""
    xr.Dataset(coords=dims).to_zarr(path, zarr_format=3, consolidated=False)
    root = zarr.open_group(path, mode="r+")
    shape = tuple(len(values) for values in dims.values())
    for name in VARIABLES:
        chunks = (*(1,) * (len(shape) - 2), *GRID)
        names = tuple(dims)
        root.create_array(name, shape=shape, chunks=chunks, dtype="float32", compressors=None, fill_value=np.nan, dimension_names=names)


def fill(path: Path, seed: int) -> None:
    """Links every chunk to one of a few files of noise."""
    rng = np.random.default_rng(seed)
    for name, (mean, deviation) in VARIABLES.items():
        array = zarr.open_group(path, mode="r")[name]
        files = []
        for number in range(DISTINCT):
            files.append(path.parent / f"{path.name}-{name}-{number}")
            files[-1].write_bytes((mean + deviation * rng.standard_normal(GRID, dtype=np.float32)).astype("<f4").tobytes())
        for place in np.ndindex(*array.cdata_shape):
            chunk = path / name / "c" / "/".join(map(str, place))
            chunk.parent.mkdir(parents=True, exist_ok=True)
            os.link(files[rng.integers(DISTINCT)], chunk)


def make(folder: Path, times: int) -> None:
    """Archive and truth."""
    cells = {"level": np.array(LEVELS), "latitude": np.linspace(90, -90, GRID[0]), "longitude": np.arange(GRID[1]) * 360 / GRID[1]}
    starts = START + DAY * np.arange(times)
    lay_out(folder / "fc.zarr", {"time": starts, "number": np.arange(MEMBERS), "prediction_timedelta": LEADS, **cells})
    lay_out(folder / "truth.zarr", {"time": START + DAY * np.arange(times + 2), **cells})
    fill(folder / "fc.zarr", 0)
    fill(folder / "truth.zarr", 1)


def opened(folder: Path, chunks: dict | None) -> tuple[xr.Dataset, xr.Dataset]:
    """Archive and truth, lazy."""
    how = {"chunks": chunks, "consolidated": False, "decode_timedelta": True}
    return xr.open_zarr(folder / "fc.zarr", **how), xr.open_zarr(folder / "truth.zarr", **how)


def part(fc: xr.Dataset, truth: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """What all programs are given, each field of the truth beside its forecast."""
    fc = fc[["temperature"]].isel(SMALL)
    return fc, truth[["temperature"]].isel(level=SMALL["level"]).sel(time=fc.time + fc.prediction_timedelta)


def of_aeris(folder: Path) -> dict[str, list[float]]:
    """All usual scores of the small part."""
    import aeris

    fc, truth = opened(folder, None)
    scores = aeris.verify(fc[["temperature"]].isel(SMALL), truth, baselines=())
    return {
        name: scores[f"{name}.temperature"].values.ravel().tolist() for name in ("rmse", "mae", "bias", "spread", "crps", "rmse_member")
    }


def of_all(folder: Path) -> dict[str, list[float]]:
    """All usual scores of the whole archive beside persistence; what they cost after each initial time."""
    from aeris.verification import scores

    costs: list[dict[str, float]] = []
    begin, cpu, means_from = time.perf_counter(), _cpu(), scores.means_from

    def watched(*asked: Any) -> xr.Dataset:
        means = means_from(*asked)
        costs.append({"seconds": time.perf_counter() - begin, "cpu": _cpu() - cpu, "peak_gb": _peak_gb()})
        return means

    scores.means_from = watched
    scores.verify(*opened(folder, None))
    return {name: [cost[name] for cost in costs] for name in costs[0]}


def of_xarray(folder: Path) -> dict[str, list[float]]:
    """The same six scores as one writes them down."""
    from aeris.data.grid import Grid

    fc, truth = part(*opened(folder, {}))
    members, happened = fc["temperature"].astype("float64"), truth["temperature"].astype("float64")
    weights = xr.DataArray(Grid.of(fc).area, {"latitude": fc.latitude})

    def mean(field: xr.DataArray) -> xr.DataArray:
        return field.weighted(weights).mean(("latitude", "longitude")).mean("time")

    error = members.mean("number") - happened
    ranked = xr.apply_ufunc(
        np.sort,
        members.chunk(number=-1),
        input_core_dims=[["number"]],
        output_core_dims=[["number"]],
        dask="parallelized",
        output_dtypes=[float],
    )
    order = xr.DataArray(2 * np.arange(MEMBERS) - MEMBERS + 1, dims="number")
    crps = abs(members - happened).mean("number") - (ranked.drop_vars("number") * order).sum("number") / (MEMBERS * (MEMBERS - 1))
    scores = xr.Dataset(
        {
            "rmse": mean(error**2) ** 0.5,
            "mae": mean(abs(error)),
            "bias": mean(error),
            "spread": mean(members.var("number", ddof=1)) ** 0.5,
            "crps": mean(crps),
            "rmse_member": mean(((members - happened) ** 2).mean("number")) ** 0.5,
        }
    ).compute()
    return {str(name): values.values.ravel().tolist() for name, values in scores.items()}


def of_scores(folder: Path) -> dict[str, list[float]]:
    """Those of them that the library scores has."""
    import scores

    from aeris.data.grid import Grid

    fc, truth = part(*opened(folder, {}))
    members, happened = fc["temperature"].astype("float64"), truth["temperature"].astype("float64")
    weights = xr.DataArray(Grid.of(fc).area, {"latitude": fc.latitude})
    how = {"reduce_dims": ("time", "latitude", "longitude"), "weights": weights}
    mean, members = members.mean("number"), members.chunk(number=-1)
    found = xr.Dataset(
        {
            "rmse": scores.continuous.rmse(mean, happened, **how),
            "mae": scores.continuous.mae(mean, happened, **how),
            "bias": scores.continuous.additive_bias(mean, happened, **how),
            "crps": scores.probability.crps_for_ensemble(members, happened, "number", method="fair", **how),
        }
    ).compute()
    return {str(name): values.values.ravel().tolist() for name, values in found.items()}


def _cpu() -> float:
    """Processor seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_gb() -> float:
    """Greatest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measured(work: Callable[[], dict[str, list[float]]]) -> None:
    """Prints what a piece of work gave and what it cost."""
    begin, before = time.perf_counter(), _cpu()
    found = work()
    print(json.dumps({"seconds": time.perf_counter() - begin, "cpu": _cpu() - before, "peak_gb": _peak_gb(), "scores": found}))


def in_a_process(folder: Path, name: str) -> dict:
    """The same, in a process of its own."""
    asked = [sys.executable, __file__, "--folder", str(folder), "--run", name]
    return json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def tell(what: str, cost: dict[str, Any], more: str = "") -> None:
    """Prints a line of costs."""
    print(f"{what:34} {cost['seconds']:7.1f} s {cost['cpu']:7.1f} s of processor  {cost['peak_gb']:5.2f} GB  {more}", flush=True)


def compare(folder: Path) -> None:
    """Prints what the small part costs here and elsewhere."""
    own = in_a_process(folder, "part")
    tell("aeris, two fields of 50 members", own)
    for name in ("xarray", "scores"):
        other = in_a_process(folder, name)
        worst = max(np.max(np.abs(np.subtract(other["scores"][key], own["scores"][key]))) for key in other["scores"])
        tell(f"{name}, the same", other, f"{other['cpu'] / own['cpu']:.2f} times the processor time; scores differ by {worst:.1e}")


def grow(folder: Path) -> None:
    """Prints what the whole archive has cost after each initial time."""
    size = MEMBERS * len(LEVELS) * len(VARIABLES) * len(LEADS) * GRID[0] * GRID[1] * 4 / 1e9
    costs = in_a_process(folder, "all")["scores"]
    for count, parts in enumerate(zip(*costs.values(), strict=True), 1):
        cost = dict(zip(costs, parts, strict=True))
        tell(f"aeris, {count} initial times, {count * size:.1f} GB", cost, f"{cost['cpu'] / count:.1f} s of processor each")


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--times", type=int, default=10)
    asked.add_argument("--folder", type=Path)
    asked.add_argument("--run")
    given = asked.parse_args()
    works = {"xarray": of_xarray, "scores": of_scores, "part": of_aeris, "all": of_all}
    if given.run:
        measured(lambda: works[given.run](given.folder))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        make(Path(folder), given.times)
        compare(Path(folder))
        grow(Path(folder))


if __name__ == "__main__":
    main()
