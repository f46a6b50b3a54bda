"""Engines on this machine: what they train and forecast is what one process would, and what is lost is told and mended."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from IPython.core.interactiveshell import InteractiveShell

import aeris
from aeris.cluster import addresses, spmd
from aeris.cluster.jobs import TrainSpecification
from aeris.errors import ClusterError, ConfigurationError, EngineLost, StoreError
from aeris.model.config import ModelConfig
from aeris.model.presets import SamplingRecipe, TrainingRecipe
from aeris.run import Run
from aeris.swipe import Layout
from aeris.training.checkpoint import Checkpoint

MODEL = ModelConfig(grid=(16, 32), dim=32, depth=4, heads=8, mlp=24, window=(4, 4))
SAMPLING = SamplingRecipe(steps=3)
SEEN_WITHIN = 15.0
"""Seconds in which the loss of an engine is told."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ipython")


@pytest.fixture(scope="module")
def cluster(folder):
    with aeris.Cluster.local(engines=2, directory=folder) as started:
        yield started


def arguments(store, out: Path, steps: int = 6, **others) -> dict:
    """Of a short training, with a checkpoint every other step."""
    how = {"batch": 4, "micro_batch": 1, "precision": "float32", "recipe": TrainingRecipe(warmup_images=8), "sampling": SAMPLING}
    return {"model": MODEL, "data": store.path, "out": out, "steps": steps, "checkpoint_every": 2, **how, **others}


def await_step(run: Run, step: int, seconds: float = 60) -> None:
    """Waits until a run has written so many steps."""
    end = time.monotonic() + seconds
    while run.logbook.sizes["step"] < step:
        assert time.monotonic() < end, f"no step {step} within {seconds} s: {run.state}"
        time.sleep(0.1)


def weights(run: Run, step: int | None = None) -> dict:
    """Of a run's newest checkpoint, or of that of a step."""
    path = run.newest if step is None else next(path for path in run.checkpoints if path.name == f"step-{step:08d}")
    return Checkpoint.open(path).tensors("weights")


def test_a_run_on_engines_is_the_run_of_one_process(cluster, small_store, tmp_path):
    run = cluster.train(**arguments(small_store, tmp_path / "many", layout=Layout(pp=2)))
    assert run.state["state"] in ("started", "running")
    assert run.wait(timeout=120)
    alone = aeris.train(**arguments(small_store, tmp_path / "alone"), progress=False)
    np.testing.assert_allclose(run.logbook.loss, alone.logbook.loss, rtol=1e-5)
    assert run.state["state"] == alone.state["state"] == "finished"
    assert "rank 1 of dp 1 × pp 2" in (run.path / "engines" / "rank-1.log").read_text()


def test_a_forecast_on_engines_is_the_forecast_of_one_process(cluster, small_store, small_world, tmp_path):
    run = aeris.train(**arguments(small_store, tmp_path / "run"), progress=False)
    how = {"times": small_world.time.values[[3, 9]], "members": 3, "lead": "18h", "batch": 2, "precision": "float32"}
    filled = cluster.forecast(run, small_world, out=tmp_path / "many.zarr", **how)
    assert filled.wait(timeout=120)
    alone = aeris.forecast(run, small_world, out=tmp_path / "alone.zarr", progress=False, **how)
    many = filled.open()
    for name in alone.data_vars:
        np.testing.assert_array_equal(many[name].values, alone[name].values, err_msg=str(name))


@pytest.mark.parametrize("layout", [Layout(dp=2), pytest.param(Layout(pp=2), marks=pytest.mark.full)], ids=str)
def test_a_forecast_that_is_stopped_keeps_what_is_there_and_goes_on(cluster, small_store, small_world, tmp_path, layout):
    """Engines that share the members, and engines that wait for each other: neither is a failure."""
    run = aeris.train(**arguments(small_store, tmp_path / "run"), progress=False)
    how = {"times": small_world.time.values[[3, 9]], "members": 4, "lead": "60h", "batch": 2, "precision": "float32", "layout": layout}
    filled = cluster.forecast(run, small_world, out=tmp_path / "many.zarr", **how | {"lead": "400d"})
    await_states(filled)
    filled.stop()
    assert filled.wait(timeout=60) and not filled.job.losses
    assert 0 < filled.open().attrs["complete"] < 0.5
    again = cluster.forecast(run, small_world, out=tmp_path / "short.zarr", **how)
    await_states(again)
    again.stop()
    assert again.wait(timeout=60)
    went_on = cluster.forecast(run, small_world, out=tmp_path / "short.zarr", **how)
    assert went_on.wait(timeout=120) and went_on.open().attrs["complete"] == 1
    alone = aeris.forecast(run, small_world, out=tmp_path / "alone.zarr", progress=False, **how | {"layout": None})
    for name in alone.data_vars:
        np.testing.assert_allclose(went_on.open()[name].values, alone[name].values, rtol=1e-4, err_msg=str(name))


def test_interrupting_the_waiting_interrupts_nothing_else(cluster, small_store, tmp_path, interruptible):
    """Ctrl+C in a terminal reaches all processes of its group: engines are in another."""
    ours = [cluster._cluster.controller.pid, *(engine["process"] for engine in cluster.check_versions())]
    assert os.getpgrp() not in map(os.getpgid, ours)
    run = cluster.train(**arguments(small_store, tmp_path / "run", steps=900, layout=Layout(dp=2)))
    await_step(run, 3)
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        run.wait(timeout=60)
    await_step(run, run.logbook.sizes["step"] + 3)
    assert run.state["state"] == "running" and not run.wait(timeout=0.1)
    run.stop()
    assert run.wait(timeout=60) and run.state["state"] == "stopped"


def test_what_cannot_work_is_refused_before_an_engine_starts(cluster, small_store, tmp_path):
    with pytest.raises(ConfigurationError, match="needs 8 engines and there are 2"):
        cluster.train(**arguments(small_store, tmp_path / "run", layout=Layout(pp=4, wp=(1, 2))))
    with pytest.raises(ConfigurationError, match="multiple of 2"):
        cluster.train(**arguments(small_store, tmp_path / "run", batch=5, layout=Layout(dp=2)))
    with pytest.raises(StoreError):
        cluster.train(**arguments(small_store, tmp_path / "run") | {"data": tmp_path / "none"})
    assert not (tmp_path / "run").exists()


def test_one_job_at_a_time_and_a_stop_leaves_a_checkpoint(cluster, folder, small_store, tmp_path):
    run = cluster.train(**arguments(small_store, tmp_path / "long", steps=900, layout=Layout(dp=2)))
    await_step(run, 3)
    with pytest.raises(ClusterError, match=r"is training long.*one job at a time"):
        cluster.train(**arguments(small_store, tmp_path / "other", layout=Layout(dp=2)))
    attached = aeris.Cluster.attach(directory=folder)  # as in another notebook, which did not ask for the job
    with pytest.raises(ClusterError, match=r"Engines 0, 1 are busy .* another notebook.*one job at a time"):
        attached.train(**arguments(small_store, tmp_path / "other", layout=Layout(dp=2)))
    attached.client.close()
    assert not (tmp_path / "other").exists()
    assert not run.wait(timeout=0.1)
    Run.open(run.path).stop()  # as from any other notebook
    assert run.wait(timeout=60)
    assert run.state["state"] == "stopped"
    assert 3 <= run.step == run.logbook.sizes["step"] < 900


def test_a_quick_ensemble_while_training_goes_on(cluster, small_store, small_world, tmp_path):
    run = cluster.train(**arguments(small_store, tmp_path / "run", steps=900, layout=Layout(dp=2)))
    await_step(run, 5)
    drawn = run.sample(small_world, small_world.time.values[[3]], members=2, lead="12h")
    before = run.logbook.sizes["step"]
    assert drawn.sizes["number"] == 2 and bool(drawn["2m_temperature"].notnull().all())
    await_step(run, before + 1)
    run.stop()
    assert run.wait(timeout=60)


def test_a_failure_is_told_once_with_its_rank(cluster, small_store, tmp_path):
    asked = arguments(small_store, tmp_path / "run", layout=Layout(dp=2)) | {"data": str(tmp_path / "gone"), "out": str(tmp_path / "run")}
    job = cluster._submit("training what is not there", TrainSpecification(**asked, period=None, seed=0), restarts=3)
    with pytest.raises(
        ClusterError, match=r"^Rank 0 \(engine \d on \S+\) failed while training what is not there: StoreError: .*gone"
    ) as error:
        job.wait(timeout=60)
    assert str(error.value).count("StoreError") == 1
    assert job.restarted == 0  # what is refused would be refused again


def test_connections_are_encrypted_and_their_files_the_owner_s_alone(cluster, folder):
    client = next((folder / "security").glob("*-client.json"))
    assert '"curve_serverkey": "' in client.read_text()
    for path in (folder / "security").iterdir():
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077 or not stat.S_IMODE((folder / "security").stat().st_mode) & 0o077


def test_nothing_on_this_machine_listens_to_another(cluster):
    cluster._ranks(2)
    ours = [cluster._cluster.controller.pid, *(engine["process"] for engine in cluster.check_versions())]
    family = [member for one in map(psutil.Process, ours) for member in (one, *one.children(recursive=True))]
    listening = [socket.laddr.ip for member in family for socket in member.net_connections("inet") if socket.status == "LISTEN"]
    assert set(listening) == {"127.0.0.1"}


@pytest.mark.parametrize("package", ["aeris", "torch"])
def test_an_engine_of_another_version_is_named(cluster, package):
    """The second engine finds another version than this notebook in its environment."""
    engine = cluster._described()[1]
    there = cluster.client[engine["engine"]]
    there.execute("from importlib import metadata; version = metadata.version", block=True)
    there.execute(f"metadata.version = lambda name: '1.0' if name == {package!r} else version(name)", block=True)
    try:
        with pytest.raises(ClusterError, match=rf"Engine {engine['engine']} on {engine['host']} has {package} 1.0, this notebook"):
            cluster.check_versions()
    finally:
        there.execute("metadata.version = version", block=True)
    assert len(cluster.check_versions()) == 2


def test_a_cluster_does_not_start_with_an_engine_of_another_version(tmp_path):
    """The engine's own path holds another torch, as far as its package's record goes."""
    (tmp_path / "torch-1.0.dist-info").mkdir()
    (tmp_path / "torch-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
    cluster = aeris.Cluster.local(engines=1, directory=tmp_path / "ipython")
    cluster._options["environment"]["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with pytest.raises(ClusterError, match=r"Engine 0 on .* has torch 1\.0, this notebook"):
        cluster.start(progress=False)
    assert not list((tmp_path / "ipython" / "security").glob("cluster-*.json"))


def test_another_kernel_attaches(cluster, folder):
    attached = aeris.Cluster.attach(directory=folder)
    assert attached.name == cluster.name
    assert attached.check_versions() == cluster.check_versions()
    with pytest.raises(ClusterError, match=f"no cluster 'aeris-none'.*{cluster.name}"):
        aeris.Cluster.attach("aeris-none", folder)


def test_px_beside_a_cluster_uses_the_process_group_and_leaves_it_whole(cluster, small_store, tmp_path):
    layout = Layout(dp=2)
    assert cluster.train(**arguments(small_store, tmp_path / "before", layout=layout)).wait(timeout=120)
    ranks = cluster._joined
    shell = InteractiveShell.instance()
    try:
        cluster.client[:].activate()
        cell = """
            import torch
            total = torch.tensor(1.0 + torch.distributed.get_rank())
            torch.distributed.all_reduce(total)
            total = float(total)
        """
        shell.run_cell_magic("px", "", textwrap.dedent(cell))
    finally:
        InteractiveShell.clear_instance()
    assert cluster.client[:]["total"] == [3.0, 3.0]
    assert cluster.train(**arguments(small_store, tmp_path / "after", layout=layout)).wait(timeout=120)
    assert cluster._joined == ranks


def test_an_engine_that_ends_as_it_starts_is_told_at_once_with_its_last_lines(tmp_path):
    """The first of two engines to come finds that something is missing."""
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, sys\n"
        "try:\n    pathlib.Path(__file__).with_name('first').touch(exist_ok=False)\n"
        "except FileExistsError:\n    pass\n"
        "else:\n    sys.exit('looked for a driver\\nlibdriver is missing')\n"
    )
    cluster = aeris.Cluster.local(engines=2, directory=tmp_path / "ipython", timeout=600)
    cluster._options["environment"]["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"of 2 engines did not start(?s:.)*looked for a driver\nlibdriver is missing"):
        cluster.start(progress=False)
    assert time.monotonic() - began < 90


def test_engines_meet_where_the_controller_would_listen(monkeypatch):
    monkeypatch.setattr(addresses, "_addresses", lambda: {"lo": "127.0.0.1", "eth0": "10.0.0.7", "hsn0": "10.1.0.7"})
    assert spmd.describe()["address"] == "10.1.0.7"


def test_no_engine_is_a_refusal():
    with pytest.raises(ConfigurationError, match=r"engines=0.*Use for example engines=4"):
        aeris.Cluster.local(engines=0)


@pytest.mark.full
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_engine_is_told_and_replaced(small_store, tmp_path, rank):
    """First without restarts; then with: the weights are bit for bit those of an undisturbed run on the same layout."""
    with aeris.Cluster.local(engines=2, directory=tmp_path / "ipython") as cluster:
        layout = Layout(pp=2)
        undisturbed = cluster.train(**arguments(small_store, tmp_path / "undisturbed", steps=40, layout=layout))
        assert undisturbed.wait(timeout=120)

        process = pid_of(cluster, rank)
        run = cluster.train(**arguments(small_store, tmp_path / "lost", steps=900, layout=layout))
        await_step(run, 5)
        os.kill(process, signal.SIGKILL)
        killed = time.monotonic()
        with pytest.raises(EngineLost, match=rf"rank {rank} \(engine \d on \S+\) has gone while training lost"):
            run.wait(timeout=60)
        assert time.monotonic() - killed < SEEN_WITHIN
        assert Run.open(run.path).state["state"] == "failed"

        cluster.restore()
        process = pid_of(cluster, rank)
        again = cluster.train(**arguments(small_store, tmp_path / "again", steps=40, layout=layout), restarts=1)
        await_step(again, 5)
        os.kill(process, signal.SIGKILL)
        assert again.wait(timeout=120)
        assert again.job.restarted == 1 and len(again.job.losses) == 1
        for name, tensor in weights(undisturbed).items():
            assert bool((tensor == weights(again)[name]).all()), name


def test_who_waits_in_vain_for_a_lost_engine_is_ended_and_replaced(tmp_path, monkeypatch):
    """The job ends, and names the engine that was lost and no other."""
    with aeris.Cluster.local(engines=2, directory=tmp_path / "ipython") as cluster:
        process = pid_of(cluster, 0)
        monkeypatch.setattr(cluster, "begin", lambda specification: cluster.client[sorted(cluster.client.ids)].apply_async(time.sleep, 600))
        job = cluster._submit("sleeping", SimpleNamespace(together=True), restarts=0)
        time.sleep(1)
        os.kill(process, signal.SIGKILL)
        killed = time.monotonic()
        with pytest.raises(EngineLost, match=r"^rank 0 \(engine \d on \S+\) has gone while sleeping\."):
            job.wait(timeout=60)
        assert time.monotonic() - killed < SEEN_WITHIN
        cluster.restore()
        assert len(cluster.check_versions()) == 2


@pytest.mark.slow
def test_a_job_whose_controller_goes_does_not_wait_for_ever(tmp_path, monkeypatch):
    with aeris.Cluster.local(engines=1, directory=tmp_path / "ipython") as cluster:
        monkeypatch.setattr(cluster, "begin", lambda specification: cluster.client[:].apply_async(time.sleep, 600))
        job = cluster._submit("sleeping", SimpleNamespace(together=True), restarts=3)
        os.kill(cluster._cluster.controller.pid, signal.SIGKILL)
        with pytest.raises(ClusterError, match="The controller has gone while sleeping"):
            job.wait(timeout=SEEN_WITHIN)


@pytest.mark.full
def test_all_who_are_left_of_four_let_go_of_a_killed_engine(small_store, tmp_path):
    """One that waits for a rank which waits for the killed one hears of it too: else the job would not end."""
    with aeris.Cluster.local(engines=4, directory=tmp_path / "ipython") as cluster:
        process = pid_of(cluster, 1)
        run = cluster.train(**arguments(small_store, tmp_path / "lost", steps=900, layout=Layout(pp=2, wp=(1, 2))))
        await_step(run, 5, seconds=120)
        os.kill(process, signal.SIGKILL)
        killed = time.monotonic()
        with pytest.raises(EngineLost, match=r"rank 1 \(engine \d on \S+\) has gone while training lost"):
            run.wait(timeout=60)
        assert time.monotonic() - killed < SEEN_WITHIN
        cluster.restore()
        assert len(cluster.client.ids) == 4


def pid_of(cluster, rank: int) -> int:
    engine = cluster._ranks(cluster.engines)[rank]
    return next(described["process"] for described in cluster.check_versions() if described["engine"] == engine)


@pytest.mark.full
def test_where_no_engine_can_be_replaced_a_smaller_layout_goes_on(small_store, tmp_path, monkeypatch, capfd):
    """As in a batch job: from the checkpoint on, the numbers are those of an undisturbed run to the tolerance of float32."""
    monkeypatch.setattr(aeris.Cluster, "_replaceable", False)
    with aeris.Cluster.local(engines=2, directory=tmp_path / "ipython") as cluster:
        layout = Layout(pp=2)
        undisturbed = cluster.train(**arguments(small_store, tmp_path / "undisturbed", steps=40, layout=layout))
        assert undisturbed.wait(timeout=120)
        process = pid_of(cluster, 1)
        run = cluster.train(**arguments(small_store, tmp_path / "shrunk", steps=40, layout=layout), restarts=1)
        await_step(run, 5)
        os.kill(process, signal.SIGKILL)
        while not run.job.losses:
            time.sleep(0.05)
        begin = run.step
        assert run.wait(timeout=120)
    assert run.job.specification.layout.world == 1 and begin < 36
    said = capfd.readouterr().err
    assert said.count("has gone while training shrunk") == 1 and "goes on with fewer engines, as dp 1 × pp 1 ×" in said
    later = slice(begin, begin + 4)
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(run.logbook[name][later], undisturbed.logbook[name][later], rtol=1e-5)
    ours, theirs = (weights(other, begin + 4) for other in (run, undisturbed))
    for name, tensor in theirs.items():
        assert float((tensor - ours[name]).norm() / tensor.norm()) < 1e-5, name


def test_a_number_that_allows_no_layout_is_told_with_one_that_does(small_store, tmp_path):
    asked = {name: value for name, value in arguments(small_store, tmp_path).items() if name != "recipe"}
    whole = TrainSpecification(**asked, layout=Layout(pp=4), period=None, seed=0, recipe=None)
    assert whole.on(3).layout == Layout(pp=3)
    with pytest.raises(
        EngineLost, match=r"5 engines are left, and no layout of 5 .*A layout of 4 can\..*layout=aeris\.Layout\("
    ) as refusal:
        whole.on(5)
    named = eval(refusal.value.remedy.partition("layout=")[2].partition(":")[0], {"aeris": aeris})
    named.check(MODEL, world=4, batch=4, micro_batch=1)
    halves = replace(whole, micro_batch=2)  # of which three stages would have too few
    with pytest.raises(EngineLost, match="A layout of 2 can"):
        halves.on(3)
    halves.on(2).layout.check(MODEL, world=2, batch=4, micro_batch=2)


@pytest.mark.full
def test_a_forecast_goes_on_after_an_engine_was_killed(small_store, small_world, tmp_path, capfd):
    """First without restarts: it is told at once, though the other engine has work for minutes; then with."""
    run = aeris.train(**arguments(small_store, tmp_path / "run"), progress=False)
    how = {"times": small_world.time.values[[3, 9, 12, 15]], "members": 6, "batch": 2, "precision": "float32"}
    with aeris.Cluster.local(engines=2, directory=tmp_path / "ipython") as cluster:
        process = pid_of(cluster, 1)
        filled = cluster.forecast(run, small_world, out=tmp_path / "long.zarr", lead="400d", **how)
        await_states(filled)
        os.kill(process, signal.SIGKILL)
        killed = time.monotonic()
        with pytest.raises(EngineLost, match=r"^rank 1 \(engine \d on \S+\) has gone while forecasting long.zarr"):
            filled.wait(timeout=60)
        assert time.monotonic() - killed < SEEN_WITHIN
        assert cluster._busy() == [] and filled.open().attrs["complete"] < 0.5

        cluster.restore()
        process = pid_of(cluster, 1)
        filled = cluster.forecast(run, small_world, out=tmp_path / "lost.zarr", restarts=1, lead="96h", **how)
        await_states(filled)
        os.kill(process, signal.SIGKILL)
        assert filled.wait(timeout=120)
        assert filled.job.restarted == 1
        assert "has gone while forecasting lost.zarr" in capfd.readouterr().err
        many = filled.open()
    alone = aeris.forecast(run, small_world, out=tmp_path / "alone.zarr", progress=False, lead="96h", **how)
    for name in alone.data_vars:
        np.testing.assert_array_equal(many[name].values, alone[name].values, err_msg=str(name))


def await_states(filled) -> None:
    """Waits for the first states of a forecast."""
    end = time.monotonic() + 60
    while not filled.path.exists() or not filled.open().attrs["complete"]:
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.full
def test_a_kernel_that_goes_leaves_its_training_running(small_store, tmp_path):
    script = f"""
        import os, time, aeris
        from aeris.model.config import ModelConfig
        from aeris.swipe import Layout
        if __name__ == "__main__":
            cluster = aeris.Cluster.local(engines=2, directory={str(tmp_path / "ipython")!r}).start(progress=False)
            model = ModelConfig(grid=(16, 32), dim=32, depth=4, heads=8, mlp=24, window=(4, 4))
            data, out = {str(small_store.path)!r}, {str(tmp_path / "run")!r}
            run = cluster.train(model, data, out, steps=60, layout=Layout(pp=2), precision="float32")
            while not run.logbook.sizes["step"]:
                time.sleep(0.1)
            os.kill(os.getpid(), 9)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]
    cluster = aeris.Cluster.attach(directory=tmp_path / "ipython")
    try:
        run = Run.open(tmp_path / "run")
        seen = run.logbook.sizes["step"]
        assert seen < 60
        assert run.wait(timeout=120)
        assert run.logbook.sizes["step"] == 60
        np.testing.assert_array_equal(run.logbook.step, np.arange(1, 61))
    finally:
        cluster.stop()
