"""The demo's numbers are those of its scores, and its directory holds what is promised."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import aeris
from aeris import demo

LEADS = np.array([6, 24], dtype="timedelta64[h]").astype("timedelta64[ns]")


def scores_of(values: dict[str, list[list[float]]]) -> xr.Dataset:
    """Scores of one surface variable and one variable on two levels, by system and lead."""
    systems = ["forecast", "persistence", "climatology", "optimum"]
    coords = {"system": systems, "prediction_timedelta": LEADS, "level": [500, 850]}
    ds = xr.Dataset(coords=coords)
    for score, table in values.items():
        surface = np.array(table)
        ds[f"{score}.2m_temperature"] = (("system", "prediction_timedelta"), surface)
        ds[f"{score}.geopotential"] = (("system", "prediction_timedelta", "level"), np.stack([surface, 2 * surface], -1))
    return ds


def spectra_of(ratio: float) -> xr.Dataset:
    degree = np.arange(32)
    power = np.where(degree <= 23, ratio, 9.0) * np.ones((2, 1))
    power[:, 0] = 50.0
    surface = (("prediction_timedelta", "degree"), power)
    upper = (("prediction_timedelta", "degree", "level"), np.stack([power, 1.2 * power], -1))
    return xr.Dataset(
        {"2m_temperature": surface, "geopotential": upper}, {"prediction_timedelta": LEADS, "degree": degree, "level": [500, 850]}
    )


TABLE = [[1.1, 1.3], [2.0, 3.0], [4.0, 2.0], [1.0, 1.0]]


def test_ratios_are_means_over_channels_of_score_over_optimum():
    scores = scores_of({"crps": TABLE, "rmse": TABLE, "spread_skill": [[0.9, 0.8]] * 4})
    told = demo.summarise(scores, spectra_of(0.9), 70.0, 700, 128)
    assert told["crps_over_optimum"]["6h"]["mean"] == pytest.approx(1.1)
    assert set(told["crps_over_optimum"]["24h"]["by_channel"]) == {"2m_temperature", "geopotential_500", "geopotential_850"}
    assert told["spectrum_ratio"]["6h"] == pytest.approx([0.9 * 3.2 / 3] * 2, abs=1e-3)
    assert told["worst_channel_spectrum_ratio"]["24h"] == pytest.approx([0.9, 1.08])
    assert told["beats_persistence"] and told["beats_climatology"]


def test_one_channel_that_loses_at_one_lead_is_a_loss():
    losing = [TABLE[0], [2.0, 1.2], *TABLE[2:]]
    scores = scores_of({"crps": losing, "rmse": TABLE, "spread_skill": TABLE})
    told = demo.summarise(scores, spectra_of(1.0), 70.0, 700, 128)
    assert not told["beats_persistence"] and told["beats_climatology"]


@pytest.mark.slow
def test_the_demo_leaves_what_it_promises(tmp_path, monkeypatch):
    """A demo of four steps and two initial times; called again, it only reads."""
    for name, value in {"YEARS": 0.15, "STARTS": 2, "MEMBERS": 2, "SHOWN_MEMBERS": 3, "APART_DAYS": 2, "SHOWN_DAYS": 1}.items():
        monkeypatch.setattr(demo, name, value)
    done = demo.demo(tmp_path / "demo", steps=4, say=lambda line: None)
    names = {path.name for path in (tmp_path / "demo").iterdir() if not path.name.startswith(".")}
    assert names == {"planet.zarr", "store.zarr", "run", "forecast.zarr", "scored.zarr", "scores.zarr", "scores.json", "report.html"}
    assert json.loads((tmp_path / "demo" / "scores.json").read_text()) == done.scores
    assert done.scores["steps"] == 4 and done.scores["forecasts"] == 4
    shown = aeris.open_forecast(tmp_path / "demo" / "forecast.zarr")
    assert shown.sizes["number"] == 3 and shown.notnull().all().to_array().all()
    page = done.report.read_text()
    assert page.startswith("<!DOCTYPE html>") and "http://" not in page.replace("http://www.w3.org", "")
    again = demo.demo(tmp_path / "demo", steps=4, say=lambda line: None)
    assert again.scores["crps_over_optimum"] == done.scores["crps_over_optimum"]
