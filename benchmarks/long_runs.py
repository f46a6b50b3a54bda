"""Ninety days and a year on the simulated planet: does a model stay weather of its climate?

Each model goes ahead from one initial time, every step from its own last state; beside it the planet's exact forecast. All are held
against the planet's climate by `aeris.verification.stability`: the largest departure of a global mean, a variance and a power, in
standard errors, the limit above which a forecast is called unstable, and the day on which it was passed first. Then the power of the
last ten days over that of the climate at that season, by octaves of degrees.

    python benchmarks/long_runs.py OUT one=RUN two=RUN diffusion=RUN --days 365 --members 4
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import xarray as xr

import aeris
from aeris.verification.stability import departures, stability

LEAD = "prediction_timedelta"
START = "2005-01-01"
PAST_YEARS = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="+", help="NAME=RUN; the exact forecast comes by itself")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--members", type=int, default=4)
    given = parser.parse_args()
    world = aeris.Planet(grid=(32, 64), seed=0)
    initial = world.simulate(years=0.01, start=START, seed=1).isel(time=[0])
    past = climate(world, given.out / "climate.zarr")
    leads = np.arange(1, given.days + 1) * np.timedelta64(24, "h").astype("timedelta64[ns]")
    tell("exact", judge(world.forecast(initial, lead=list(leads), members=given.members), past))
    for name, path in (pair.split("=", 1) for pair in given.models):
        out = given.out / f"{name}-{given.days}d.zarr"
        forecast = aeris.forecast(path, initial, initial.time.values, given.members, f"{given.days}d", out, compile=True, progress=False)
        tell(name, judge(once_a_day(forecast, LEAD).load(), past))


def climate(world: aeris.Planet, kept: Path) -> xr.Dataset:
    """Eight years of the planet, once a day; kept for the next models."""
    if not kept.exists():
        once_a_day(world.simulate(years=PAST_YEARS, start="1990-01-01"), "time").to_zarr(kept, consolidated=False)
    return xr.open_zarr(kept, consolidated=False).load()


def once_a_day(ds: xr.Dataset, dim: str) -> xr.Dataset:
    """One time a day: at 00 UTC for dates, whole days for leads."""
    return ds.isel({dim: slice(0, None, 4)}) if dim == "time" else ds.isel({dim: slice(3, None, 4)})


def judge(forecast: xr.Dataset, past: xr.Dataset) -> dict:
    """The verdict on a long forecast, in figures."""
    verdict = stability(forecast, past)
    table = departures(verdict)
    limit = float(verdict.limit)
    table["kind"] = table.statistic.where(~table.statistic.str.startswith("power"), "power")
    worst = table.departure.abs().groupby(table.kind).max()
    beyond = table[table.departure.abs() > limit]
    last = table[(table.day == table.day.max()) & (table.kind == "power")]
    power = np.exp(last.groupby("statistic", sort=False).value.mean())
    return {
        "stable": bool(verdict.stable),
        "limit": round(limit, 2),
        "largest_departure": {kind: round(float(value), 1) for kind, value in worst.items()},
        "first_day_beyond": None if beyond.empty else int(beyond.day.min()),
        "power_at_the_end": {name: round(float(value), 3) for name, value in power.items()},
        "worst_power_at_the_end": [round(float(np.exp(end)), 3) for end in (last.value.min(), last.value.max())],
    }


def tell(name: str, found: dict) -> None:
    print(json.dumps({name: found}), flush=True)


if __name__ == "__main__":
    main()
