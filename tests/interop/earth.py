"""A small invented planet with every channel of the paper, and the files that others keep beside their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml
from torch import Tensor

from aeris.data.variables import LEVELS, PRESSURE, RADIATION, SEA, STATIC, SURFACE, VARIABLES

TIMES = np.array(["2020-08-21T00", "2020-08-22T00"], "datetime64[ns]")


def dataset(latitude: np.ndarray, columns: int, seed: int = 0) -> xr.Dataset:
    """Canonical dataset of random weather between the bounds of each variable; sea temperature is missing over a continent."""
    rng = np.random.default_rng(seed)
    coords = {"time": TIMES, "level": list(LEVELS), "latitude": latitude, "longitude": np.arange(columns) * 360 / columns}
    horizontal = (len(latitude), columns)

    def field(name: str, *shape: int) -> np.ndarray:
        low, high = VARIABLES[name].bounds
        return (low + (high - low) * rng.uniform(0.4, 0.6, (*shape, *horizontal))).astype(np.float32)

    fields: dict[str, Any] = {name: (("time", "latitude", "longitude"), field(name, 2)) for name in (*SURFACE, SEA)}
    fields[SEA][1][:, 3:9, 5:12] = np.nan
    fields |= {name: (("time", "level", "latitude", "longitude"), field(name, 2, len(LEVELS))) for name in PRESSURE}
    fields |= {name: (("latitude", "longitude"), field(name)) for name in STATIC}
    ds = xr.Dataset(fields, coords=coords)
    for name in ds.data_vars:
        ds[name].attrs["units"] = VARIABLES[str(name)].units
    return ds


def write_statistics(folder: Path, channels: tuple[str, ...], hours: int, seed: int = 0) -> None:
    """One number a channel, by name, in four files; each array has one entry."""
    rng = np.random.default_rng(seed)
    middle = {
        name: sum(VARIABLES[name if name in VARIABLES else name.rpartition("_")[0]].bounds) / 2 for name in (*channels, RADIATION, *STATIC)
    }
    width = {name: abs(value) / 5 + 1e-3 for name, value in middle.items()}
    np.savez(folder / "normalize_mean.npz", **{name: np.array([value]) for name, value in middle.items()})
    np.savez(folder / "normalize_std.npz", **{name: np.array([value]) for name, value in width.items()})
    np.savez(folder / f"normalize_diff_std_{hours}.npz", **{name: np.array([width[name] * rng.uniform(0.01, 0.03)]) for name in channels})
    np.savez(folder / f"normalize_diff_mean_{hours}.npz", **{name: np.array([width[name] * rng.normal() * 1e-3]) for name in channels})


def write_configuration(folder: Path, content: Mapping[str, Any]) -> None:
    """The configuration where Hydra leaves it."""
    (folder / ".hydra").mkdir(exist_ok=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(dict(content)))


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal in float32: as a whole to 1e-5, and nowhere further off than 2e-5 of the largest value."""
    difference = found - expected
    assert difference.norm() < 1e-5 * expected.norm() and difference.abs().max() < 2e-5 * expected.abs().max()
