"""What is kept of a verification: an interrupted one goes on with the same bits, and with nothing else than it began with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr

import aeris
from aeris.cli import main
from aeris.errors import StoreError
from aeris.verification import scores as room
from aeris.verification.calibration import rank_histogram
from aeris.verification.climatology import ensemble_climatology
from aeris.verification.events import brier_score, event_table
from aeris.verification.kept import Kept
from aeris.verification.spectra import mean_power

HOW = {"regions": ["global", "tropics"], "seasons": True}


class Counted:
    """Counts the initial times that are computed, and fails at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> None:
        self.count, whole = 0, room.means_from

        def means_from(*arguments):
            self.count += 1
            if self.count == fail_at:
                raise KeyboardInterrupt
            return whole(*arguments)

        monkeypatch.setattr(room, "means_from", means_from)


def test_an_interrupted_verification_goes_on_with_the_same_bits(beside, tmp_path, monkeypatch):
    fc, truth = beside(dates=5)
    whole = aeris.verify(fc, truth, **HOW)
    with monkeypatch.context() as patch:
        Counted(patch, fail_at=4)
        with pytest.raises(KeyboardInterrupt):
            aeris.verify(fc, truth, **HOW, keep=tmp_path / "kept")
    counted = Counted(monkeypatch)
    xr.testing.assert_identical(aeris.verify(fc, truth, **HOW, keep=tmp_path / "kept"), whole)
    assert counted.count == 2
    aeris.verify(fc, truth, **HOW, keep=tmp_path / "kept")
    assert counted.count == 2


def test_ranks_spectra_and_events_are_kept_too(beside, tmp_path):
    fc, truth = beside(dates=3)
    calls = {
        "ranks": lambda **how: rank_histogram(fc, truth, **how),
        "spectra": lambda **how: mean_power(fc, truth, **how),
        "events": lambda **how: event_table(fc, truth, {"2m_temperature": [0.0, 2.0]}, **how),
    }
    for name, call in calls.items():
        first, again = call(keep=tmp_path / name), call(keep=tmp_path / name)
        xr.testing.assert_identical(first, again)
        xr.testing.assert_identical(first, call())
    assert brier_score(call())["2m_temperature"].notnull().all()


def test_a_damaged_file_is_computed_anew(beside, tmp_path, monkeypatch):
    fc, truth = beside(dates=3)
    whole = aeris.verify(fc, truth, keep=tmp_path / "kept")
    damaged = sorted((tmp_path / "kept").glob("*.npz"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    counted = Counted(monkeypatch)
    xr.testing.assert_identical(aeris.verify(fc, truth, keep=tmp_path / "kept"), whole)
    assert counted.count == 1


def test_a_result_without_its_line_in_the_ledger_is_computed_anew(beside, tmp_path, monkeypatch):
    fc, truth = beside(dates=3)
    aeris.verify(fc, truth, keep=tmp_path / "kept")
    ledger = tmp_path / "kept" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-10])
    counted = Counted(monkeypatch)
    aeris.verify(fc, truth, keep=tmp_path / "kept")
    assert counted.count == 1


@pytest.mark.parametrize("what", ["metrics", "regions", "baselines", "climatology", "gaps", "forecast", "truth", "time", "lead"])
def test_other_arguments_and_data_are_refused(beside, tmp_path, what):
    fc, truth = beside(dates=3)
    past = ensemble_climatology(truth.assign_coords(time=truth.time - np.timedelta64(365, "D")))
    how = {"climatology": past, "baselines": ("persistence",), "metrics": ["rmse"]}
    aeris.verify(fc, truth, **how, keep=tmp_path / "kept")
    named = "forecast" if what in ("time", "lead") else what
    changed = {
        "metrics": {"metrics": ["rmse", "mae"]},
        "regions": {"regions": ["tropics"]},
        "baselines": {"baselines": ("persistence", {"other": fc + 1})},
        "climatology": {"climatology": ensemble_climatology(past.fields, days=1)},
    }
    other_fc = {"forecast": fc + 1e-9, "time": fc.isel(time=slice(2)), "lead": fc.isel(prediction_timedelta=[0])}.get(what, fc)
    other_truth = {"truth": truth + 1e-9, "gaps": truth.isel(time=slice(None, -1))}.get(what, truth)
    again = how | changed.get(what, {}) | ({"gaps": "skip"} if what == "gaps" else {})
    with pytest.raises(StoreError, match=f"kept.*{'truth' if what == 'gaps' else named}.*remove"):
        aeris.verify(other_fc, other_truth, **again, keep=tmp_path / "kept")


def test_a_store_that_has_changed_since_is_refused(beside, tmp_path):
    fc, truth = beside(dates=3)
    fc.to_zarr(tmp_path / "fc.zarr", zarr_format=3, consolidated=False)
    aeris.verify(tmp_path / "fc.zarr", truth, keep=tmp_path / "kept")
    aeris.verify(tmp_path / "fc.zarr", truth, keep=tmp_path / "kept")
    chunk = next(path for path in sorted((tmp_path / "fc.zarr" / "geopotential").rglob("*")) if path.is_file())
    os.utime(chunk, ns=(1, 1))
    with pytest.raises(StoreError, match=r"fc\.zarr has changed since"):
        aeris.verify(tmp_path / "fc.zarr", truth, keep=tmp_path / "kept")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").touch()
    with pytest.raises(StoreError, match="photos exists"):
        Kept(tmp_path / "photos", {})
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["one.png"]


@pytest.mark.slow
def test_a_killed_command_goes_on_with_the_same_bits(beside, tmp_path, monkeypatch, capsys):
    """SIGKILL as soon as the second initial time is whole; what was kept is used, and is gone at the end."""
    fc, truth = beside(dates=12, shape=(32, 64))
    for name, ds in (("fc", fc), ("truth", truth)):
        (ds[["2m_temperature"]] + 280).to_zarr(tmp_path / f"{name}.zarr", zarr_format=3, consolidated=False)
    words = ["verify", "--forecast", "fc.zarr", "--truth", "truth.zarr", "--out", "scores.zarr"]
    command = [sys.executable, "-m", "aeris", *words]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / ".scores.zarr.kept" / "scores"
    while len(list(kept.glob("2*.npz"))) < 2 and running.poll() is None:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "scores.zarr").exists() and not (tmp_path / "scores.html").exists()
    before = {path: path.stat().st_mtime_ns for path in kept.glob("2*.npz")}
    assert len(before) >= 2 and json.loads((kept / "made_of.json").read_text())["what"] == "scores"
    assert main([*words, "--metrics", "mae"]) == 2 and "metrics" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert main(words) == 0
    one = xr.open_zarr(tmp_path / "scores.zarr", consolidated=False, decode_timedelta=True).load()
    two = aeris.verify(tmp_path / "fc.zarr", aeris.open_era5(tmp_path / "truth.zarr"))
    for name, field in two.items():
        np.testing.assert_array_equal(one[name], field)
    assert (tmp_path / "scores.html").exists() and not kept.parent.exists()
