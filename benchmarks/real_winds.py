"""The whole line on real analyses: open, coarsen, store, train, forecast as an ensemble, verify against persistence.

Takes any file of 6-hourly global analyses of wind at 10 m (other state variables are used too where it has them). The last days are
held back: the model never sees them in training, and is started from each of their analyses. Gaps in the series are skipped.

    python benchmarks/real_winds.py gfs_1deg_u10v10_6h_20181006-20181016_michael.nc --out /tmp/winds --steps 600
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import aeris
from aeris.device import choose
from aeris.model.presets import TrainingRecipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="a path or URL that aeris.open_era5 opens")
    parser.add_argument("--out", type=Path, required=True, help="directory of everything it leaves")
    parser.add_argument("--grid", type=int, nargs=2, default=(32, 64), help="rows and columns to coarsen to")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--held-back-days", type=float, default=3)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--lead", default="24h")
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="less than the default, at which few states diverge")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    ds = aeris.coarsen(aeris.open_era5(options.file), tuple(options.grid)).load()
    times = pd.DatetimeIndex(ds.time.values)
    split = times[-1] - pd.Timedelta(days=options.held_back_days)
    store = aeris.prepare(ds, options.out / "store.zarr", interval="6h", gaps="skip")
    run = aeris.train(
        aeris.presets.tiny(grid=tuple(options.grid)),
        store,
        options.out / "run",
        steps=options.steps,
        period=slice(None, str(split)),
        precision=choose().fastest_precision(),
        seed=options.seed,
        recipe=TrainingRecipe(learning_rate=options.learning_rate),
    )
    starts = [time for time in times if split <= time <= times[-1] - pd.Timedelta(options.lead)]
    fc = aeris.forecast(run, ds, starts, options.members, options.lead, options.out / "forecast.zarr", options.seed, compile=True)
    scores = aeris.verify(fc, ds, baselines=("persistence",))
    print(f"{store}\n{len(store.pairs(slice(None, str(split))))} pairs to train on, {len(starts)} forecasts of {options.members} members")
    for score in ("rmse", "crps", "spread_skill"):
        for name in store.channels:
            table = scores[f"{score}.{name}"].to_pandas()
            table.columns = [f"{lead / pd.Timedelta('1h'):.0f} h" for lead in table.columns]
            print(f"\n{score} of {name}\n{table.round(3)}")


if __name__ == "__main__":
    main()
