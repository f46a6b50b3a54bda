"""Commands that serve something to a browser on this machine."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import tyro


def explore(
    forecast: Annotated[Path, tyro.conf.Positional],
    truth: str | None = None,
    variable: str | None = None,
    port: int = 0,
    follow: bool = False,
    every: float = 10.0,
    behind: str | None = None,
) -> None:
    """Serves maps, plumes, spectra and extremes of a forecast to a browser on this machine, until it is interrupted.

    The address that is printed holds a secret, without which nothing is served.

    Args:
        forecast: The archive, of aeris or any in WeatherBench 2's shape, finished or not.
        truth: Dataset of what happened: a path or a URL.
        variable: The variable to begin with; left out, the first of the archive.
        port: Port to serve on; 0 takes any that is free.
        follow: Look for new members by itself.
        every: Seconds between two such looks.
        behind: Address, up to /lab, of the Jupyter server through whose jupyter-server-proxy the browser comes.
    """
    from aeris.views.explorer import make_server

    served = make_server(forecast, truth, port, behind, variable=variable, follow=follow, every=every)
    served.server.start()
    print(f"open {served.address} in a browser; Ctrl+C ends it", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        served.server.io_loop.start()


def lab(out: Path = Path("aeris-lab"), port: int = 8888, browser: bool = True) -> None:
    """Opens the tutorials in JupyterLab, on this machine alone and behind a token, until it is interrupted.

    Args:
        out: Folder that tutorials and notebooks are copied into; what is there already stays as it is.
        port: Port to serve on; where it is taken, the next one that is free.
        browser: Open a browser.
    """
    from aeris.lab import open_lab

    open_lab(out, port, browser)
