"""Commands of data: a simulated planet, training stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from aeris.cli.arguments import refuse_existing


def simulate(out: Path, years: float = 1.0, grid: tuple[int, int] = (32, 64), seed: int = 0, start: str = "2001-01-01") -> None:
    """Simulates weather on an invented planet, whose exact forecast is known, and writes it as Zarr.

    Args:
        out: The Zarr store to write.
        years: Length of the simulation.
        grid: Rows and columns.
        seed: Seed of the planet and of its weather.
        start: First time.
    """
    import aeris

    refuse_existing(out)
    partial = out.with_name(f".{out.name}.partial")
    aeris.simulate_planet(years=years, start=start, grid=grid, seed=seed).to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
    partial.rename(out)
    print(f"wrote {out}")


def prepare(
    source: Annotated[str, tyro.conf.Positional],
    out: Path,
    interval: str = "6h",
    chunk: int | None = None,
    gaps: Literal["refuse", "skip"] = "refuse",
    intervals: tuple[str, ...] = (),
) -> None:
    """Turns a dataset into a training store with its statistics; resumable.

    Args:
        source: Anything aeris opens: Zarr, NetCDF or GRIB, a path or a URL.
        out: The training store.
        interval: Step of the model that will be trained.
        chunk: Rows and columns of a chunk; left out, the largest divisor of both axes up to 30.
        gaps: What to do where times are further apart than the interval.
        intervals: Further steps of the model, multiples of the first, such as 12h 24h.
    """
    import aeris

    print(aeris.prepare(source, out, interval=interval, chunk=chunk, gaps=gaps, intervals=intervals))


def check(store: Annotated[Path, tyro.conf.Positional]) -> None:
    """Reads a whole training store and says what is in it.

    Args:
        store: The training store.
    """
    import aeris

    print(aeris.Store.open(store).check())
