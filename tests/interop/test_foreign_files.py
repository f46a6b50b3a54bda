"""Files of others are read as data: what would run something, or is no file of weights, is refused."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from earth import write_configuration
from safetensors.torch import save_file

from aeris.errors import CheckpointError
from aeris.interop.files import Settings, check_tensors, read_file, state_of
from aeris.interop.surroundings import read_statistics


class Malicious:
    """Runs a command where it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self):
        return os.system, (f"touch {self.touched}",)


def refused(match: str, path: Path) -> None:
    with pytest.raises(CheckpointError, match=match):
        read_file(path)


class TestNothingIsRun:
    def test_by_torchs_own_format(self, tmp_path):
        path, touched = tmp_path / "checkpoint_PP0.pth", tmp_path / "touched"
        torch.save({"ema_state_dict": {"proj.weight": torch.zeros(2)}, "hook": Malicious(touched)}, path)
        refused("asks for more than tensors and plain containers: .*system", path)
        assert not touched.exists()
        torch.load(path, weights_only=False)  # it would have
        assert touched.exists()

    def test_by_a_bare_pickle(self, tmp_path):
        path, touched = tmp_path / "checkpoint.pt", tmp_path / "touched"
        path.write_bytes(pickle.dumps(Malicious(touched)))
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
            read_file(path)
        assert not touched.exists()

    def test_by_statistics(self, tmp_path):
        touched = tmp_path / "touched"
        np.savez(tmp_path / "normalize_mean.npz", **{"2m_temperature": np.array([Malicious(touched)], object)})
        with pytest.raises(CheckpointError, match=r"normalize_mean\.npz cannot be read"):
            read_statistics(tmp_path, ["2m_temperature"], [], 6, residual_mean=False)
        assert not touched.exists()

    def test_by_a_configuration(self, tmp_path):
        touched = tmp_path / "touched"
        write_configuration(tmp_path, {})
        (tmp_path / ".hydra" / "config.yaml").write_text(f"model: !!python/object/apply:os.system ['touch {touched}']")
        with pytest.raises(CheckpointError, match="no YAML of plain values"):
            Settings.read(tmp_path)
        assert not touched.exists()

    def test_objects_that_torch_was_told_to_trust_are_refused_all_the_same(self, tmp_path):
        path = tmp_path / "model.pt"
        torch.save({"net": torch.nn.Linear(2, 2)}, path)
        trusted = [torch.nn.Linear, torch.nn.Parameter, set, torch._utils._rebuild_parameter]
        with torch.serialization.safe_globals(trusted):
            refused("holds a Linear|asks for more", path)


class TestFiles:
    def test_tensors_of_both_formats(self, tmp_path):
        tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
        torch.save({"ema": tensors, "scaler": {}, "step": 3, "shape": (1, None, "x")}, tmp_path / "a.pt")
        save_file(tensors, tmp_path / "a.safetensors")
        for found in (read_file(tmp_path / "a.pt")["ema"], read_file(tmp_path / "a.safetensors")):
            assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())

    @pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors", "text.pt", "zip.pt", "empty.pt", "old.pt", "not-there.pt", "list.pt"])
    def test_what_is_no_file_of_weights_is_refused(self, tmp_path, name):
        torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pt")
        save_file({"a": torch.zeros(1000)}, tmp_path / "whole.safetensors")
        for ending in ("pt", "safetensors"):
            (tmp_path / f"cut.{ending}").write_bytes((tmp_path / f"whole.{ending}").read_bytes()[:900])
        (tmp_path / "text.pt").write_text("version https://git-lfs.github.com/spec/v1")
        (tmp_path / "empty.pt").touch()
        zipfile.ZipFile(tmp_path / "zip.pt", "w").writestr("other", "nothing")
        torch.save({"a": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        torch.save([torch.zeros(2)], tmp_path / "list.pt")
        refused(name, tmp_path / name)


class TestTensors:
    def test_kinds_are_found_by_name_and_a_bare_state_is_taken_whole(self):
        state = {"a": torch.zeros(1)}
        assert state_of({"net": state, "step": 3}, ("ema", "net"), Path("x")) == state_of(state, ("ema",), Path("x")) == state
        with pytest.raises(CheckpointError, match=r"x holds 'net', 'step'.*kept as 'ema'.*weights='net'"):
            state_of({"net": state, "step": 3}, ("ema",), Path("x"))

    def test_missing_other_and_left_over_ones_are_named(self):
        expected = {f"layer.{number}": (2, 3) for number in range(6)}
        whole = {name: torch.zeros(shape) for name, shape in expected.items()}
        check_tensors({**whole, "ape.inv_freq": torch.zeros(1)}, expected, ("inv_freq",), "x")
        for found, match in (
            ({}, "x lacks layer.0, layer.1, layer.2, layer.3 and 2 more"),
            ({**whole, "layer.4": torch.zeros(3, 2)}, r"layer\.4 with the shape \(3, 2\).*it is \(2, 3\)"),
            ({**whole, "bias": torch.zeros(1)}, "bias, for which there is no place"),
        ):
            with pytest.raises(CheckpointError, match=match):
                check_tensors(found, expected, (), "x")


class TestSettings:
    def test_values_are_of_their_type(self, tmp_path):
        write_configuration(tmp_path, {"model": {"dim": 4, "sigma": 500, "load": True, "window": [4, 8], "side": 3}})
        settings = Settings.read(tmp_path)
        assert (settings.get("model.dim", int), settings.get("model.sigma", float)) == (4, 500.0)
        assert settings.get("model.gone", float, 1.5) == 1.5
        assert settings.pair("model.window") == (4, 8) and settings.pair("model.side") == (3, 3)
        for name, kind, match in (("model.gone", int, "lacks model.gone"), ("model.load", int, "load=True"), ("model.dim", str, "dim=4")):
            with pytest.raises(CheckpointError, match=match):
                settings.get(name, kind)
        with pytest.raises(CheckpointError, match="rows and columns"):
            settings.pair("model.load")

    def test_a_folder_without_one_is_refused(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"lacks \.hydra/config\.yaml"):
            Settings.read(tmp_path)
        (tmp_path / "config.yaml").write_text("- 1")
        with pytest.raises(CheckpointError, match="holds no sections"):
            Settings.read(tmp_path)
