"""Latitude/longitude grids: their rows, cell areas, the pole row, and conservative coarsening.

Rows run from north to south and columns from 0° eastward, in degrees. A grid is named by its shape: an odd number of rows holds
both poles (721 at 0.25°), an even number either the centres of equal latitude bands (``regular``) or, when the row of one pole of
an odd grid was dropped, the rows that are left (``pole_dropped``, the 720 rows on which AERIS works; here without the south pole).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from scipy import sparse

from aeris.data.variables import WIND_PAIRS
from aeris.errors import DataError


@dataclass(frozen=True, eq=False)
class Grid:
    """A latitude/longitude grid.

    Attributes:
        latitude: Row centres in degrees north, strictly falling, shape ``(rows,)``.
        longitude: Column centres in degrees east, equally spaced over the whole circle, shape ``(columns,)``.
    """

    latitude: np.ndarray
    longitude: np.ndarray

    def __post_init__(self) -> None:
        for name in ("latitude", "longitude"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        _check_rows(self.latitude)
        _check_columns(self.longitude)

    @classmethod
    def regular(cls, rows: int, columns: int) -> Grid:
        """The global grid of this shape: with both poles when `rows` is odd, else centres of equal latitude bands."""
        latitude = np.linspace(90.0, -90.0, rows) if rows % 2 else 90.0 - (np.arange(rows) + 0.5) * 180.0 / rows
        return cls(latitude, np.arange(columns) * 360.0 / columns)

    @classmethod
    def of(cls, ds: xr.Dataset | xr.DataArray) -> Grid:
        """The grid on which a canonical dataset stands.

        Raises:
            DataError: It has no such coordinates, or they are no grid around the globe.
        """
        missing = [name for name in ("latitude", "longitude") if name not in ds.coords]
        if missing:
            raise DataError(
                f"No coordinate {' and '.join(missing)} among {', '.join(map(str, ds.coords)) or 'none'}",
                "A canonical dataset has latitude and longitude",
                "Open the data with aeris.open_era5",
            )
        return cls(ds.latitude.values, ds.longitude.values)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.latitude), len(self.longitude)

    @property
    def dropped_pole(self) -> float | None:
        """Latitude of the pole whose row was dropped from an equally spaced grid with both; None where none was."""
        step = 180.0 / len(self.latitude)
        for pole, first in ((-90.0, 90.0), (90.0, 90.0 - step)):
            if np.allclose(self.latitude, first - np.arange(len(self.latitude)) * step, atol=1e-4):
                return pole
        return None

    @property
    def pole_dropped(self) -> bool:
        """Whether this is an equally spaced grid with one pole, from which the row of the other was dropped."""
        return self.dropped_pole is not None

    @property
    def whole(self) -> Grid:
        """This grid with the dropped pole row put back; itself where none was dropped."""
        if self.dropped_pole is None:
            return self
        return Grid(np.insert(self.latitude, 0 if self.dropped_pole > 0 else len(self.latitude), self.dropped_pole), self.longitude)

    @cached_property
    def area(self) -> np.ndarray:
        """Area of a cell of each row over the mean cell area, shape ``(rows,)``, mean one."""
        edges = np.sin(np.deg2rad(row_edges(self.latitude)))
        height = edges[:-1] - edges[1:]
        return height / height.mean()

    @cached_property
    def loss_weight(self) -> np.ndarray:
        """Weight of each row in the training loss, (cos φ + 0.01) over its mean as in AERIS, shape ``(rows,)``."""
        weight = np.cos(np.deg2rad(self.latitude)) + 0.01
        return weight / weight.mean()

    def check_global(self) -> None:
        """Refuses a band that leaves out more than a row's height at a pole.

        Raises:
            DataError: The first or the last row stands too far from its pole.
        """
        step = np.abs(np.diff(self.latitude)).max()
        if max(90.0 - self.latitude[0], 90.0 + self.latitude[-1]) > 1.01 * step:
            raise DataError(
                f"Latitudes from {self.latitude[0]:.4g} to {self.latitude[-1]:.4g}, {step:.4g} apart",
                "A global grid reaches from pole to pole",
                "Use a global field; regional data can be opened but not trained on",
            )

    def same_as(self, other: Grid) -> bool:
        """Whether both grids hold the same points to 1e-4 degrees."""
        return self.shape == other.shape and all(
            np.allclose(getattr(self, name), getattr(other, name), atol=1e-4) for name in ("latitude", "longitude")
        )

    def __str__(self) -> str:
        rows, columns = self.shape
        return f"{rows}×{columns} from {self.latitude[0]:.4g}° to {self.latitude[-1]:.4g}° north and from {self.longitude[0]:.4g}° east"


def _check_rows(latitude: np.ndarray) -> None:
    if latitude.ndim != 1 or len(latitude) < 2 or not np.all(np.diff(latitude) < 0) or np.abs(latitude).max() > 90.0001:
        raise DataError(
            f"Latitudes {np.array2string(latitude, threshold=6, edgeitems=2)}",
            "A grid needs at least two rows from north to south between 90 and -90 degrees",
            "Sort the rows, for example with ds.sortby('latitude', ascending=False), or open the data with aeris.open_era5",
        )


def _check_columns(longitude: np.ndarray) -> None:
    count = len(longitude)
    if longitude.ndim != 1 or count < 2 or not np.allclose(np.diff(longitude), 360.0 / count, atol=1e-3):
        raise DataError(
            f"Longitudes {np.array2string(longitude, threshold=6, edgeitems=2)}",
            "A global grid needs equally spaced columns over the whole circle, rising eastward",
            "Use a global field with longitudes such as 0, 0.25 ... 359.75; regional data can be opened but not trained on",
        )


def row_edges(latitude: np.ndarray) -> np.ndarray:
    """Edges of the rows in degrees: halfway between centres, and the poles at both ends, shape ``(rows + 1,)``."""
    return np.concatenate([[90.0], (latitude[:-1] + latitude[1:]) / 2, [-90.0]])


def coarsen(ds: xr.Dataset, shape: tuple[int, int]) -> xr.Dataset:
    """Averages a global dataset conservatively onto the regular grid of `shape`; see `regrid`.

    Args:
        ds: Canonical dataset with dimensions ``latitude`` and ``longitude`` (any others are kept).
        shape: Rows and columns of the target, not more than those of the source.

    Returns:
        The dataset on ``Grid.regular(*shape)``, lazy where the input is.

    Raises:
        DataError: The target is finer than the source.
    """
    source = Grid.of(ds)
    if shape[0] > source.shape[0] or shape[1] > source.shape[1]:
        raise DataError(
            f"Cannot coarsen a {source.shape[0]}×{source.shape[1]} grid to {shape[0]}×{shape[1]}",
            "The target may have no more rows and columns than the source",
            f"Choose a shape up to {source.shape}",
        )
    return regrid(ds, Grid.regular(*shape))


def regrid(ds: xr.Dataset, target: Grid) -> xr.Dataset:
    """Averages a global dataset conservatively onto another grid; neither need divide the other.

    A target cell (i, j) gets the mean of the source cells (k, l) that it overlaps, weighted by the area that they share,
    ``Σ_kl R_ik C_jl F_kl / Σ_kl R_ik C_jl``: R is the overlap of rows in the sine of latitude, C that of columns in longitude. Missing
    values are left out of both sums; a cell whose area is missing by more than half stays missing. Onto a finer grid nothing is
    added: its cells repeat the values of the coarser one.

    Args:
        ds: Canonical dataset with dimensions ``latitude`` and ``longitude`` (any others are kept; variables without these too).
        target: The grid to average onto.

    Returns:
        The dataset on `target`, lazy where the input is.

    Raises:
        DataError: The dataset does not reach from pole to pole.
    """
    source = Grid.of(ds)
    source.check_global()
    rows = _shares(_overlap(-np.sin(np.deg2rad(row_edges(source.latitude))), -np.sin(np.deg2rad(row_edges(target.latitude)))))
    columns = _shares(_periodic_overlap(source.longitude, target.longitude))
    return ds.map(_average, rows=rows, columns=columns, target=target, keep_attrs=True)


def _overlap(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Length that each target interval shares with each source interval, from their rising edges: ``(target, source)``."""
    low = np.maximum(target[:-1, None], source[None, :-1])
    high = np.minimum(target[1:, None], source[None, 1:])
    return np.clip(high - low, 0.0, None)


def _periodic_overlap(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`_overlap` of two sets of equal cells around the circle."""
    edges = [np.append(centre, centre[0] + 360.0) - 180.0 / len(centre) for centre in (source, target)]
    return np.sum([_overlap(edges[0] + turn, edges[1]) for turn in (-360.0, 0.0, 360.0)], axis=0)


def _shares(overlap: np.ndarray) -> sparse.csr_array:
    """Overlaps over the length of the target's interval, ``(target, source)``; what is rounding alone is left out."""
    shares = overlap / overlap.sum(1, keepdims=True)
    return sparse.csr_array(np.where(shares > 1e-9, shares, 0.0))


def _average(field: xr.DataArray, rows: sparse.csr_array, columns: sparse.csr_array, target: Grid) -> xr.DataArray:
    """Area-weighted mean of one field, skipping missing values."""
    cells = ["latitude", "longitude"]
    if not set(cells) <= set(field.dims):
        return field
    whole = field.chunk(dict.fromkeys(cells, -1)) if field.chunks else field
    mean = xr.apply_ufunc(
        _average_planes,
        whole,
        kwargs={"rows": rows, "columns": columns},
        input_core_dims=[cells],
        output_core_dims=[cells],
        exclude_dims=set(cells),
        dask="parallelized",
        output_dtypes=[_floating(field.dtype)],
        dask_gufunc_kwargs={"output_sizes": dict(zip(cells, target.shape, strict=True))},
        keep_attrs=True,
    )
    return mean.assign_coords(latitude=target.latitude, longitude=target.longitude).transpose(*field.dims)


def _floating(dtype: np.dtype) -> np.dtype:
    return dtype if dtype.kind == "f" else np.dtype("float64")


def _average_planes(values: np.ndarray, rows: sparse.csr_array, columns: sparse.csr_array) -> np.ndarray:
    """Means of fields ``(..., latitude, longitude)``, one after the other, so that no more than one is held in float64."""
    planes = values.reshape(-1, *values.shape[-2:])
    means = np.empty((len(planes), rows.shape[0], columns.shape[0]), _floating(values.dtype))
    for mean, plane in zip(means, planes, strict=True):
        mean[:] = _average_plane(plane.astype("float64"), rows, columns)
    return means.reshape(*values.shape[:-2], *means.shape[-2:])


def _average_plane(plane: np.ndarray, rows: sparse.csr_array, columns: sparse.csr_array) -> np.ndarray:
    known = ~np.isnan(plane)
    total = (columns @ (rows @ np.where(known, plane, 0.0)).T).T
    if known.all():
        return total
    covered = (columns @ (rows @ known.astype("float64")).T).T
    return total / np.where(covered > 0.5 - 1e-9, covered, np.nan)


def drop_pole_row(ds: xr.Dataset, pole: float = -90.0) -> xr.Dataset:
    """Drops the row of one pole of a grid with both (721 rows become 720), so that windows divide the rows.

    Args:
        ds: Dataset; on a grid without that pole it is left as it is.
        pole: Latitude of the row, -90 or 90; weights of others may stand on a grid without the north pole.
    """
    latitude = Grid.of(ds).latitude
    row = 0 if pole > 0 else -1
    if len(latitude) % 2 == 0 or not np.isclose(latitude[row], pole, atol=1e-4):
        return ds
    return ds.isel(latitude=slice(1, None) if pole > 0 else slice(None, -1))


def restore_pole_row(ds: xr.Dataset) -> xr.Dataset:
    """Puts the dropped pole row back.

    A scalar takes the zonal mean of its neighbour row. At the pole a smooth horizontal wind is one vector, whose eastward and
    northward components turn with longitude: each takes the zonal wavenumber 1 of the neighbour row.

    Args:
        ds: Dataset on a grid that is `Grid.pole_dropped`.

    Returns:
        The dataset with one more row, at the pole.

    Raises:
        DataError: No pole row was dropped from this grid.
    """
    grid = Grid.of(ds)
    pole = grid.dropped_pole
    if pole is None:
        raise DataError(f"The grid {grid}", "A pole row is put back where it was dropped", "Leave this dataset as it is")
    components = {name for pair in WIND_PAIRS for name in pair}
    last = ds.isel(latitude=[0 if pole > 0 else -1]).assign_coords(latitude=[pole])
    winds = [name for name in ds.data_vars if name in components]
    spatial = [name for name in ds.data_vars if "longitude" in ds[name].dims]
    row = last.assign({name: last[name].mean("longitude").broadcast_like(last[name]) for name in spatial if name not in winds})
    row = row.assign({name: _wavenumber_one(last[name]) for name in winds})
    whole = xr.concat([ds, row.transpose(*ds.dims)], dim="latitude", data_vars="minimal")
    return whole.sortby("latitude", ascending=False) if pole > 0 else whole


def _wavenumber_one(field: xr.DataArray) -> xr.DataArray:
    """The part of a field that has one wave around the circle."""
    angle = np.deg2rad(field.longitude)
    cosine, sine = np.cos(angle), np.sin(angle)
    wave = 2 * (field * cosine).mean("longitude") * cosine + 2 * (field * sine).mean("longitude") * sine
    return wave.transpose(*field.dims).astype(field.dtype)
