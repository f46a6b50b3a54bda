"""aeris: interactive, probabilistic global weather forecasting.

Every public name of the package stands here. Each is imported when it is first used, so that ``import aeris`` costs next to
nothing and a forecast can be looked at on a machine without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    # data
    "open_era5": "aeris.data.sources",
    "Planet": "aeris.data.planet",
    "simulate_planet": "aeris.data.planet",
    "prepare": "aeris.data.store",
    "Store": "aeris.data.store",
    "Grid": "aeris.data.grid",
    "coarsen": "aeris.data.grid",
    "regrid": "aeris.data.grid",
    # model, training, forecasting
    "ModelConfig": "aeris.model.config",
    "presets": "aeris.model.presets",
    "train": "aeris.training.trainer",
    "Run": "aeris.run",
    "forecast": "aeris.forecasting.ensemble",
    "load": "aeris.forecasting.weights",
    "open_forecast": "aeris.forecasting.archive",
    # parallelism
    "Layout": "aeris.swipe.layout",
    # engines
    "Cluster": "aeris.cluster.cluster",
    # verification
    "verify": "aeris.verification.scores",
    # calibration
    "tune": "aeris.tuning",
    # views
    "explore": "aeris.views.explorer",
    # errors
    "AerisError": "aeris.errors",
    "ClusterError": "aeris.errors",
    "EngineLost": "aeris.errors",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from aeris.cluster.cluster import Cluster
    from aeris.data.grid import Grid, coarsen, regrid
    from aeris.data.planet import Planet, simulate_planet
    from aeris.data.sources import open_era5
    from aeris.data.store import Store, prepare
    from aeris.errors import AerisError, ClusterError, EngineLost
    from aeris.forecasting.archive import open_forecast
    from aeris.forecasting.ensemble import forecast
    from aeris.forecasting.weights import load
    from aeris.model import presets
    from aeris.model.config import ModelConfig
    from aeris.run import Run
    from aeris.swipe.layout import Layout
    from aeris.training.trainer import train
    from aeris.tuning import tune
    from aeris.verification.scores import verify
    from aeris.views.explorer import explore


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'aeris' has no attribute {name!r}; it has {', '.join(__all__)}")
    home = importlib.import_module(_HOME[name])
    value = home if _HOME[name].endswith(f".{name}") else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
