"""A step that is taken to count its bytes."""

from __future__ import annotations

import re

import pytest

from aeris.cli import main
from aeris.errors import ConfigurationError
from aeris.model import presets
from aeris.model.config import ModelConfig
from aeris.swipe import Layout
from aeris.swipe.plan import sent_bytes
from aeris.training.measure import measure, table

MODEL = ModelConfig(grid=(16, 32), channels=("2m_temperature",), dim=16, depth=2, heads=4, mlp=16, window=(4, 4))


def test_one_rank_sends_nothing():
    (ledger,) = measure(MODEL, Layout(), batch=2)
    assert ledger.sent.total() == 0


@pytest.mark.slow
def test_what_is_counted_stands_beside_the_formula():
    layout = Layout(pp=2, sp=2, schedule="gpipe")
    ledgers = measure(MODEL, layout, batch=2)
    for rank, ledger in enumerate(ledgers):
        formula = sent_bytes(MODEL, layout, rank, 2, element=4)
        assert {kind: ledger.sent[kind] for kind in ("pipeline", "heads", "shift")} == {
            kind: formula[kind] for kind in ("pipeline", "heads", "shift")
        }
    line = next(line for line in table(ledgers, MODEL, layout, 2).splitlines() if line.startswith("heads"))
    assert len(set(re.findall(r"[\d,]+", line)[-2:])) == 1


def test_what_this_machine_cannot_hold_is_refused():
    with pytest.raises(ConfigurationError, match=r"All 960 ranks would need .* GB on this machine"):
        measure(presets.aeris_40b(), Layout(pp=20, wp=(2, 2), sp=12, recompute=True), batch=20)


def test_the_command_tells_and_suggests(capsys):
    paper = ["plan", "--preset", "aeris_40b", "--layout.dp", "14", "--layout.pp", "20", "--layout.wp", "6", "6", "--layout.sp", "12"]
    assert main([*paper, "--batch", "980", "--layout.recompute"]) == 0
    told = capsys.readouterr().out
    assert "dp 14 × pp 20 × wp 6×6 × sp 12, 1f1b, recomputed" in told and re.search(r"bubble +21\.3%", told)
    assert main(["plan", "--preset", "tiny", "--ranks", "4", "--memory", "1"]) == 0
    assert re.match(r"dp \d × pp \d × wp", capsys.readouterr().out)
    assert main(["plan", "--preset", "tiny", "--ranks", "4", "--memory", "0.000001"]) == 2
    assert "GB or more" in capsys.readouterr().err
