"""Makes bundled weights of the simulated planet from a run: the newest checkpoint's average, and nothing to go on training with.

python aeris/forecasting/assets/make_demo_weights.py NAME RUN

The README beside this file says which runs.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from aeris.forecasting.weights import BUNDLED
from aeris.model.presets import Diffusion, SamplingRecipe
from aeris.training.checkpoint import Checkpoint, save


def main(name: str, run: str) -> None:
    """Writes weights of this name beside this file; what stood there is replaced."""
    trained, folder = Checkpoint.open(run), BUNDLED[name]
    sampling = SamplingRecipe() if isinstance(trained.training.objective, Diffusion) else trained.sampling
    save(replace(trained, path=folder, sampling=sampling), {"average": trained.tensors("average")}, trained.geography)
    for file in folder.iterdir():
        file.chmod(0o644)
    print(f"wrote {sum(file.stat().st_size for file in folder.iterdir()):,} bytes to {folder.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
