"""The command line: the functions of the notebook, one to one, so that a batch job and a notebook say the same thing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from tyro.extras import SubcommandApp

from aeris.cli.browser import explore, lab
from aeris.cli.data import check, prepare, simulate
from aeris.cli.demonstration import demo
from aeris.cli.forecasting import borrow, forecast
from aeris.cli.machine import doctor, plan
from aeris.cli.training import train
from aeris.cli.tuning import tune
from aeris.cli.verification import verify
from aeris.errors import AerisError

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "data simulate": simulate,
    "data prepare": prepare,
    "data check": check,
    "train": train,
    "forecast": forecast,
    "import": borrow,
    "verify": verify,
    "tune": tune,
    "plan": plan,
    "explore": explore,
    "lab": lab,
    "doctor": doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Words of the command line; None takes the process's own.

    Returns:
        0, or 2 where an `AerisError` was raised, whose message is then the last line printed.
    """
    app, data = SubcommandApp(), SubcommandApp()
    for name, command in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        (data if group else app).command(name=last)(command)
    app.command(data, name="data", help="Simulates a planet, prepares training stores and checks them.")
    try:
        app.cli(prog="aeris", description="Interactive, probabilistic global weather forecasting.", args=arguments)
    except AerisError as error:
        print(f"aeris: {error}", file=sys.stderr)
        return 2
    return 0
