"""A run that was begun before an option was there goes on with what it had: the default."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aeris.errors import ConfigurationError
from aeris.model.config import ModelConfig
from aeris.model.presets import SamplingRecipe, TrainingRecipe
from aeris.swipe import Layout
from aeris.training.configuration import configure, start_run


def begun(store, path: Path, **changes) -> None:
    model = ModelConfig(grid=(16, 32), dim=16, depth=2, heads=2, mlp=16, window=(4, 4), **changes)
    configuration = configure(model, store, 2, 2, 2, None, "float32", 0, TrainingRecipe(), SamplingRecipe())
    start_run(path, configuration, store, Layout())


def test_an_option_that_was_not_there_is_taken_at_its_default(small_store, tmp_path):
    begun(small_store, tmp_path / "run")
    written = json.loads((tmp_path / "run" / "run.json").read_text())
    for name in ("norm_eps", "position_rows"):
        del written["model"][name]
    del written["sampling"]["inflation"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(written))
    begun(small_store, tmp_path / "run")
    with pytest.raises(ConfigurationError, match="model="):
        begun(small_store, tmp_path / "run", norm_eps=1e-5)
