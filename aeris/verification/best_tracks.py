"""Best tracks: where tropical cyclones were, by the agencies that watch them.

All readers return a table of tracks (see `aeris.verification.track_table`): pressure in Pa, wind in m s⁻¹, longitudes from 0 to 360, and
``name`` and ``status`` besides. What an agency did not estimate is NaN, and counted in the attributes ``missing_slp`` and
``missing_wind10``; records without a place are left out, and counted in ``left_out``. Winds are those that the agency gives, sustained over
one minute in the United States and over ten minutes elsewhere; they are not converted into each other.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from aeris.errors import DataError
from aeris.verification.track_table import need_netcdf, table

KNOT = 1852.0 / 3600.0
"""m s⁻¹."""

HEADER = re.compile(r"[A-Z]{2}\d{6}$")
CSV_COLUMNS = {
    "key": "track_id",
    "time_utc": "time",
    "record": "record_identifier",
    "wind_kt": "wind10",
    "pressure_hpa": "slp",
}


def read_hurdat2(path: str | Path) -> xr.Dataset:
    """HURDAT2, the best tracks of the Atlantic and the Pacific east of the dateline (Landsea and Franklin 2013,
    https://doi.org/10.1175/MWR-D-12-00254.1).

    Args:
        path: The text that the National Hurricane Center publishes, or the same as CSV with the columns ``key, name, time_utc, record,
            status, lat, lon, wind_kt, pressure_hpa``; either may end in ``.gz``.

    Returns:
        Table of tracks; ``track_id`` is the number such as ``AL142018``, and ``record_identifier`` tells for example landfall, ``L``. Wind
        radii are not kept.

    Raises:
        DataError: There is no such file, or a line is not of that format; the error names it.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"There is no file {path}", "Best tracks are read from a file", "Download HURDAT2 from https://www.nhc.noaa.gov/data"
        )
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        lines = file.read().splitlines()
    frame = _from_csv(path) if lines and lines[0].startswith("key,") else _from_text(lines, path.name)
    frame = frame.assign(wind10=frame.wind10 * KNOT, slp=frame.slp * 100.0)
    return _counted(frame, "HURDAT2")


def _from_csv(path: Path) -> pd.DataFrame:
    frame = pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in ("wind_kt", "pressure_hpa", "lat", "lon")})
    missing = ({*CSV_COLUMNS, "name", "status", "lat", "lon"}) - set(frame)
    if missing:
        raise DataError(f"{path.name} has no column {', '.join(sorted(missing))}", "HURDAT2 as CSV has them", "Use the text of the NHC")
    frame = frame.rename(columns=CSV_COLUMNS)[[*CSV_COLUMNS.values(), "name", "status", "lat", "lon"]]
    time = pd.to_datetime(frame["time"], utc=True).dt.tz_localize(None).astype("datetime64[ns]")
    return frame.assign(time=time, wind10=frame.wind10.astype("float64"), slp=frame.slp.astype("float64"))


def _from_text(lines: list[str], where: str) -> pd.DataFrame:
    """A header of number, name and count of lines for each storm, and a line for each time."""
    records: list[dict[str, Any]] = []
    position = 0
    while position < len(lines):
        parts = [part.strip() for part in lines[position].split(",")]
        if not lines[position].strip():
            position += 1
            continue
        if not HEADER.match(parts[0]) or len(parts) < 3 or not parts[2].isdigit():
            raise _broken(where, position, lines[position], "A storm begins with a line such as 'AL142018, MICHAEL, 46,'")
        first, position = position + 1, position + 1 + int(parts[2])
        if position > len(lines):
            raise _broken(where, first - 1, lines[first - 1], f"{parts[2]} lines must follow; the file ends after {len(lines) - first}")
        storm = {"track_id": parts[0], "name": parts[1]}
        records += [storm | _record(lines[line], where, line) for line in range(first, position)]
    return pd.DataFrame(records, columns=[*CSV_COLUMNS.values(), "name", "status", "lat", "lon"])


def _record(line: str, where: str, position: int) -> dict[str, Any]:
    parts = [part.strip() for part in line.split(",")]
    try:
        wind, pressure = float(parts[6]), float(parts[7])
        return {
            "time": pd.to_datetime(parts[0] + parts[1], format="%Y%m%d%H%M"),
            "record_identifier": parts[2],
            "status": parts[3],
            "lat": _degrees(parts[4], "N", "S"),
            "lon": _degrees(parts[5], "E", "W"),
            "wind10": wind if wind >= 0 else np.nan,
            "slp": pressure if pressure >= 0 else np.nan,
        }
    except (ValueError, IndexError):
        raise _broken(where, position, line, "A time is a line such as '20181010, 1800,  , HU, 30.2N,  85.4W, 135,  920, ...'") from None


def _degrees(text: str, positive: str, negative: str) -> float:
    if text[-1:] not in (positive, negative):
        raise ValueError(text)
    return float(text[:-1]) * (1 if text[-1] == positive else -1)


def _broken(where: str, position: int, line: str, rule: str) -> DataError:
    return DataError(f"Line {position + 1} of {where} is {line[:60]!r}", rule, "Correct the line, or download the file again")


def read_ibtracs(path: str | Path, *, agency: str = "wmo") -> xr.Dataset:
    """IBTrACS, the best tracks of the world (Knapp et al. 2010, https://doi.org/10.1175/2009BAMS2755.1), version 4 as NetCDF.

    Args:
        path: The file as NOAA publishes it.
        agency: Whose pressure and wind are taken: ``"wmo"``, the agency that is responsible for the place, or for example ``"usa"``. The
            places are those on which IBTrACS itself decides, three-hourly; most agencies estimate every six hours.

    Returns:
        Table of tracks; ``track_id`` is the number such as ``2021001S14136``, ``status`` the nature of the system. The attribute ``spurs``
        counts the tracks that IBTrACS marks as spurs of another one; they are left out.

    Raises:
        DataError: There is no such file, or it lacks what is read.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"There is no file {path}", "Best tracks are read from a file", "Download it from https://www.ncei.noaa.gov")
    need_netcdf()
    with xr.open_dataset(path, engine="netcdf4") as ds:
        values = {"wind10": f"{agency}_wind", "slp": f"{agency}_pres"}
        missing = [name for name in ("sid", "name", "time", "lat", "lon", "nature", "track_type", *values.values()) if name not in ds]
        if missing:
            raise DataError(
                f"{path.name} has no {', '.join(missing)}",
                "IBTrACS has the winds and pressures of each agency as for example usa_wind and usa_pres",
                f"Name another agency; there are {', '.join(sorted(str(n)[:-5] for n in ds if str(n).endswith('_wind'))) or 'none'}",
            )
        storms = ds[["sid", "name", "time", "lat", "lon", "nature", "track_type", *values.values()]].load()
    spurs = np.char.lower(_text(storms.track_type)) == "spur"
    frame = _observed(storms.isel(storm=~spurs), values)
    frame = frame.assign(wind10=frame.wind10 * KNOT, slp=frame.slp * 100.0)
    return _counted(frame, f"IBTrACS, {agency}", spurs=int(spurs.sum()))


def _observed(storms: xr.Dataset, values: dict[str, str]) -> pd.DataFrame:
    """One row for each time of each storm."""
    there = storms.lat.notnull().values & storms.lon.notnull().values & storms.time.notnull().values
    storm, _ = np.nonzero(there)
    # The times of the file are days in single precision, off by less than a second.
    columns = {
        "track_id": _text(storms.sid)[storm],
        "time": pd.DatetimeIndex(storms.time.values[there]).round("min").astype("datetime64[ns]"),
        "lat": storms.lat.values[there].astype("float64"),
        "lon": storms.lon.values[there].astype("float64"),
        "name": _text(storms["name"])[storm],
        "status": _text(storms.nature)[there],
    }
    return pd.DataFrame(columns | {name: storms[source].values[there].astype("float64") for name, source in values.items()})


def _text(field: xr.DataArray) -> np.ndarray:
    return np.char.strip(np.char.decode(field.values, "utf-8") if field.dtype.kind == "S" else field.values.astype(str))


def _counted(frame: pd.DataFrame, source: str, **counts: int) -> xr.Dataset:
    placed = frame[frame.lat.notna() & frame.lon.notna()]
    unknown = {f"missing_{name}": int(placed[name].isna().sum()) for name in ("slp", "wind10")}
    return table(placed, {"source": source, "left_out": len(frame) - len(placed)} | unknown | counts)
