"""Jobs without engines: what travels is plain JSON that says all that was asked for, and what ends a job, or the waiting for it."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import replace
from pathlib import Path

import ipyparallel as ipp
import numpy as np
import pytest

import aeris
from aeris.cluster.handles import ClusterForecast, Job
from aeris.cluster.jobs import ForecastSpecification, TrainSpecification
from aeris.errors import ClusterError
from aeris.model.config import ModelConfig
from aeris.model.presets import Consistency, Crps, SamplingRecipe, TrainingRecipe, sampling_consistency
from aeris.run import Run
from aeris.swipe import Layout
from aeris.training.checkpoint import Checkpoint

MODEL = ModelConfig(grid=(16, 32), dim=16, depth=2, heads=2, mlp=24, window=(4, 4))
TRAINING = TrainSpecification(
    Layout(), MODEL, "store.zarr", "run", 4, 4, 2, ("2001", None), "float32", 0, TrainingRecipe(), SamplingRecipe(), 500
)


class Answer:
    """What engines answer, once they are let."""

    _targets = (0, 1)

    def __init__(self, *failures: str, there: bool = True) -> None:
        self.failures, self.there = failures, threading.Event()
        if there:
            self.there.set()

    def ready(self) -> bool:
        return self.there.is_set()

    def wait(self, seconds: float) -> bool:
        return self.there.wait(seconds)

    def get(self) -> None:
        if self.failures:
            told = [(kind, f"{kind} was raised", "", {"engine_id": engine}) for engine, kind in enumerate(self.failures)]
            raise ipp.CompositeError("both", told)


class Engines:
    """Two engines that answer as they are told, and note whether they were interrupted."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.interrupted = answer, list[int]()

    def begin(self, specification) -> Answer:
        return self.answer

    def controller_lives(self) -> bool:
        return True

    def release(self, ranks, together) -> list[int]:
        return []

    def hosts(self) -> dict[int, str]:
        return {0: "node", 1: "node"}

    def interrupt(self, ranks) -> None:
        self.interrupted += ranks
        self.answer.there.set()


@pytest.fixture
def sent(monkeypatch, tmp_path):
    """A cluster whose engines do nothing, and the JSON of what they were asked."""
    found: list[str] = []
    cluster = aeris.Cluster.local(engines=1, directory=tmp_path / "ipython")
    monkeypatch.setattr(cluster, "_check_free", lambda layout: None)
    monkeypatch.setattr(cluster, "begin", lambda specification: found.append(json.dumps(specification.to_json())) or Answer())
    return cluster, found


@pytest.mark.parametrize(
    "specification",
    [
        replace(TRAINING, start="teacher", recipe=TrainingRecipe(objective=Crps(curriculum=(4, 0, 4)))),
        replace(TRAINING, layout=Layout(pp=2, wp=(1, 2)), recipe=TrainingRecipe(objective=Consistency(path="straight")), period=None),
        replace(TRAINING, recipe=None, sampling=None, micro_batch=None),
        ForecastSpecification(
            Layout(dp=2), "run", "initial.zarr", ("2001-01-01T00",), 4, "24h", "f.zarr", 0, 2, sampling_consistency(2), "float32", False
        ),
    ],
)
def test_a_specification_comes_back_from_json_as_it_was(specification):
    assert type(specification).of_json(json.loads(json.dumps(specification.to_json()))) == specification


def test_what_engines_are_told_of_a_training_is_all_of_it(sent, small_store, tmp_path):
    """Carried out here from its JSON alone, it leaves the weights of a training in this notebook; the start is one of its arguments."""
    cluster, found = sent
    how = {"batch": 4, "micro_batch": 2, "precision": "float32", "checkpoint_every": 2, "seed": 3}
    teacher = aeris.train(MODEL, small_store, tmp_path / "teacher", steps=2, progress=False, **how)
    how |= {"recipe": TrainingRecipe(objective=Crps(curriculum=(4, 4))), "sampling": aeris.presets.two_calls(), "start": teacher}
    how |= {"period": slice("2001-01-01", "2001-01-08")}
    cluster.train(MODEL, small_store.path, tmp_path / "run", steps=2, layout=Layout(), **how).wait()
    TrainSpecification.of_json(json.loads(found[0])).carry_out()
    alone = aeris.train(MODEL, small_store, tmp_path / "alone", steps=2, progress=False, **how)
    assert Run.open(tmp_path / "run").configuration == alone.configuration
    one, two = (Checkpoint.open(path).tensors("weights") for path in (tmp_path / "run", alone.path))
    assert one.keys() == two.keys() and all(bool((one[name] == two[name]).all()) for name in two)


def test_what_engines_are_told_of_a_forecast_is_all_of_it(sent, intervals_store, small_world, tmp_path):
    cluster, found = sent
    run = aeris.train(replace(MODEL, intervals=(6, 12)), intervals_store, tmp_path / "run", steps=2, precision="float32", progress=False)
    how = {"times": small_world.time.values[[3, 9]], "members": 3, "lead": "12h", "batch": 2, "precision": "float32", "seed": 3}
    how |= {"sampling": SamplingRecipe(steps=2), "step": "fewest"}
    filled = cluster.forecast(run, small_world, out=tmp_path / "many.zarr", layout=Layout(), **how)
    assert filled.wait()
    ForecastSpecification.of_json(json.loads(found[0])).carry_out()
    alone = aeris.forecast(run, small_world, out=tmp_path / "alone.zarr", progress=False, **how)
    for name in alone.data_vars:
        np.testing.assert_array_equal(filled.open()[name].values, alone[name].values, err_msg=str(name))


@pytest.mark.parametrize("said", [("KeyboardInterrupt", "KeyboardInterrupt"), ("KeyboardInterrupt", "RankLost")], ids=" ".join)
def test_a_forecast_that_was_stopped_has_ended_and_not_failed(said):
    """Ranks that wait for each other may be interrupted, or lose the one they wait for; by itself either is a failure."""
    filled = ClusterForecast(Path("f.zarr"), Job("forecasting f", TRAINING, Engines(Answer(*said, there=False)), restarts=3))
    assert not filled.wait(timeout=0.0)
    filled.stop()
    assert filled.wait(timeout=10) and filled.job.restarted == 0 and filled.job._engines.interrupted == [0, 1]
    with pytest.raises(ClusterError, match=r"Rank 0 .*KeyboardInterrupt"):
        Job("forecasting f", TRAINING, Engines(Answer(*said))).wait(timeout=10)


def test_another_failure_of_a_forecast_that_was_stopped_is_told():
    job = Job("forecasting f", TRAINING, Engines(Answer("KeyboardInterrupt", "StoreError", there=False)))
    job.interrupt()
    with pytest.raises(ClusterError, match="failed while forecasting f"):
        job.wait(timeout=10)


def test_interrupting_the_waiting_leaves_the_job_alone(interruptible):
    engines = Engines(Answer(there=False))
    job = Job("training tiny", TRAINING, engines)
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        job.wait(timeout=30)
    assert not engines.interrupted and not job.done and not job.wait(timeout=0.3)
    engines.answer.there.set()
    assert job.wait(timeout=10)
