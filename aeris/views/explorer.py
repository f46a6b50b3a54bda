"""The explorer: an ensemble forecast to walk through, in a notebook cell or in a browser."""

from __future__ import annotations

import importlib
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import xarray as xr

from aeris.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    import pandas as pd

    from aeris.views.forecast_panel import ForecastingCluster, ForecastPanel

NEEDED = ("panel", "holoviews", "bokeh", "matplotlib", "cartopy")
HERE = "127.0.0.1"


@dataclass(frozen=True)
class Served:
    """A server of the explorer.

    Attributes:
        server: Bokeh's server: ``start()`` and ``io_loop.start()`` run it.
        address: Where a browser finds it, with the secret without which it serves nothing.
    """

    server: Any
    address: str


def explore(
    forecast: xr.Dataset | str | Path,
    truth: xr.Dataset | str | Path | None = None,
    variable: str | None = None,
    follow: bool = False,
    every: float = 10.0,
    cluster: ForecastingCluster | None = None,
    checkpoint: Any = None,
    initial: xr.Dataset | str | Path | None = None,
    tracks: pd.DataFrame | xr.Dataset | None = None,
) -> Any:
    """Opens a forecast for looking at: a map of any variable, level, initial time, lead and quantity, and what belongs to it.

    A click on the map chooses a place, whose plume is drawn beside it; further tabs hold spectra, the Hovmöller diagram, extremes, and
    spread and error against the truth. Only what is shown is read. Members that are not there yet are left out, and the title says how
    many there are. With a cluster, a panel above it starts forecasts, which are shown while they are computed.

    Args:
        forecast: Archive ``(time, number, prediction_timedelta, [level,] latitude, longitude)`` or its path; NaN where a member is not
            there yet. From a path, members that come later are seen by a refresh. With a cluster nothing need be at the path yet: there
            the first forecast goes.
        truth: Canonical dataset, or anything that `aeris.open_era5` opens.
        variable: The one to begin with; the first of the archive where there is none.
        follow: Refresh by itself. Needs a path.
        every: Seconds between two such refreshes.
        cluster: Where the panel computes forecasts, such as a started `aeris.Cluster`.
        checkpoint: The model of the panel, as `aeris.Cluster.forecast` takes it.
        initial: The initial states that the panel offers, as `truth`; the truth where there are none.
        tracks: Storm tracks as ``huracanpy.load`` gives them, a record for each time of each storm with ``track_id``, ``time``, ``lat`` and
            ``lon``. They are drawn on the map and listed in a tab.

    Returns:
        A Panel object, `aeris.views.dashboard.Explorer` or, with a cluster, `aeris.views.forecast_panel.ForecastPanel`: the last line of a
        notebook cell shows it, ``.servable()`` serves it.

    Raises:
        ConfigurationError: A package of the ``views`` extra is not installed, an archive in memory shall be followed, or a cluster lacks a
            checkpoint or initial states, or these a cluster.
        StoreError: There is no forecast archive at the path.
        DataError: The archive has not the shape of one, or not that variable; or tracks lack a column.
    """
    need_extras()
    import panel

    from aeris.views.dashboard import Explorer

    if follow and isinstance(forecast, xr.Dataset):
        raise ConfigurationError(
            "follow=True with a forecast in memory", "Only an archive on disk gains members", "Give the path of the archive"
        )
    if cluster is None and (checkpoint is not None or initial is not None):
        raise ConfigurationError(
            "checkpoint or initial without a cluster", "They are for forecasts that a cluster computes", "Give cluster=... too"
        )
    panel.extension(inline=True)  # the scripts come from this machine, not from a network
    exploring: dict[str, Any] = {"truth": open_states(truth, "truth"), "variable": variable, "every": every, "tracks": tracks}
    if cluster is None:
        return Explorer(forecast, follow=follow, **exploring)
    return _with_panel(forecast, cluster, checkpoint, initial if initial is not None else truth, {"follow": follow, **exploring})


def _with_panel(
    forecast: xr.Dataset | str | Path,
    cluster: ForecastingCluster,
    checkpoint: Any,
    initial: xr.Dataset | str | Path | None,
    exploring: dict[str, Any],
) -> ForecastPanel:
    """The panel, above an explorer of the forecast where it is there already."""
    from aeris.views.dashboard import Explorer
    from aeris.views.forecast_panel import ForecastPanel, times_of

    if checkpoint is None or initial is None:
        raise ConfigurationError(
            f"A cluster without {'a checkpoint' if checkpoint is None else 'initial states'}",
            "A forecast needs a model and states to begin from",
            "Give checkpoint=... and initial=... too; initial may be left out where there is a truth",
        )
    states = open_states(initial, "initial dataset")
    assert states is not None
    there = isinstance(forecast, xr.Dataset) or Path(forecast).exists()
    archive = Path("forecast.zarr") if isinstance(forecast, xr.Dataset) else Path(forecast)
    explorer = Explorer(forecast, **exploring) if there else None
    return ForecastPanel(cluster, checkpoint, initial, times_of(states), archive, explorer, exploring)


def open_states(states: xr.Dataset | str | Path | None, name: str) -> xr.Dataset | None:
    """States as a canonical dataset; None where there are none.

    Args:
        states: Canonical dataset, or anything that `aeris.open_era5` opens.
        name: What to call them in an error.

    Raises:
        DataError: They have no ``time``, ``latitude`` or ``longitude``.
    """
    if states is None:
        return None
    if not isinstance(states, xr.Dataset):
        from aeris.data.sources import open_era5

        states = open_era5(states)
    missing = {"time", "latitude", "longitude"} - set(states.coords)
    if missing:
        raise DataError(
            f"The {name} has no coordinate {', '.join(sorted(missing))}",
            f"The {name} is a canonical dataset (time, [level,] latitude, longitude)",
            "Open it with aeris.open_era5",
        )
    return states


def make_server(forecast: str | Path, truth: str | None = None, port: int = 0, behind: str | None = None, **options: Any) -> Served:
    """A server of the explorer that only this machine can reach, and there only who knows its address. It does not run yet.

    Args:
        forecast: Path of the archive.
        truth: Anything that `aeris.open_era5` opens.
        port: 0 for any that is free.
        behind: Address of the Jupyter server through whose jupyter-server-proxy the browser comes; None where it comes straight.
        options: Further arguments of `explore`.

    Raises:
        AerisError: As `explore`, before anything is served; ConfigurationError too where the port is taken or `behind` is no address.
    """
    proxy = check_behind(behind)
    known = open_states(truth, "truth")
    explore(forecast, known, **options)
    from bokeh.util.token import generate_session_id
    from panel.io.server import get_server

    port, key = port or free_port(), secrets.token_bytes(32)
    try:
        server = get_server(
            lambda: explore(forecast, known, **options).layout,
            port=port,
            address=HERE,
            websocket_origin=[f"{HERE}:{port}", f"localhost:{port}", *([urlsplit(proxy).netloc.lower()] if proxy else [])],
            title=f"aeris: {Path(forecast).name}",
            show=False,
            start=False,
            # Other users of this machine reach the port too: only sessions that are signed with this key are served.
            secret_key=key,
            sign_sessions=True,
            generate_session_ids=False,
        )
    except OSError as error:
        raise ConfigurationError(f"Port {port} cannot be used: {error}", "A server needs a port of its own", "Take --port 0") from error
    root = f"{proxy}/proxy/{port}" if proxy else f"http://{HERE}:{port}"
    return Served(server, f"{root}/?bokeh-session-id={generate_session_id(key, signed=True)}")


def check_behind(address: str | None) -> str | None:
    """The address of a Jupyter server without the slash at its end.

    Raises:
        ConfigurationError: It is none.
    """
    parts = urlsplit(address or "http://none")
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[\w.-]+(:\d+)?", parts.netloc, re.ASCII) or parts.query:
        raise ConfigurationError(
            f"behind={address!r}", "It is the address of a Jupyter server up to /lab", "Use for example https://hub.example.org/user/me"
        )
    return address.rstrip("/") if address else None


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return int(probe.getsockname()[1])


def need_extras() -> None:
    """Imports what the explorer draws with.

    Raises:
        ConfigurationError: One of them is not installed.
    """
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"The package {error.name} is not installed", "The explorer is drawn with the extra 'views'", "pip install 'aeris[views]'"
            ) from error
