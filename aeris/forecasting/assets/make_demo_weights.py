"""Makes the bundled weights of the simulated planet from a run: the newest checkpoint's average, and nothing to go on training with.

aeris demo --out long --steps 7000
python aeris/forecasting/assets/make_demo_weights.py long/run
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from aeris.forecasting.weights import BUNDLED
from aeris.model.presets import SamplingRecipe
from aeris.training.checkpoint import Checkpoint, save


def main(run: str) -> None:
    """Writes ``demo`` beside this file; what stood there is replaced."""
    trained = Checkpoint.open(run)
    bundled = replace(trained, path=BUNDLED["demo"], sampling=SamplingRecipe())
    save(bundled, {"average": trained.tensors("average")}, trained.geography)
    for file in BUNDLED["demo"].iterdir():
        file.chmod(0o644)
    print(f"wrote {sum(file.stat().st_size for file in BUNDLED['demo'].iterdir()):,} bytes to {Path(BUNDLED['demo']).name}")


if __name__ == "__main__":
    main(sys.argv[1])
