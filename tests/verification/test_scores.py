"""`verify` against closed forms, another library, real data, and itself in pieces."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scores
import xarray as xr

import aeris
from aeris.data.grid import Grid
from aeris.data.planet import Planet
from aeris.data.variables import GRAVITY
from aeris.errors import AerisError, ConfigurationError, DataError, StoreError
from aeris.verification import pairing
from aeris.verification.climatology import ensemble_climatology
from aeris.verification.metrics import METRICS
from aeris.verification.regions import Box
from aeris.verification.scores import write_scores

LEAD = "prediction_timedelta"
CELLS = ("latitude", "longitude")


def area_weights(ds: xr.Dataset) -> xr.DataArray:
    """Areas of latitude bands between the midpoints of rows, written out once more."""
    edges = np.concatenate([[90.0], (ds.latitude.values[1:] + ds.latitude.values[:-1]) / 2, [-90.0]])
    return xr.DataArray(-np.diff(np.sin(np.deg2rad(edges))), {"latitude": ds.latitude}, "latitude")


def truth_at_valid_times(fc: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    return truth.rename(time="valid").sel(valid=fc.time + fc[LEAD]).drop_vars("valid")


# ------------------------------------------------------------------ shape of the answer


def test_names_dimensions_and_attributes(beside):
    fc, truth = beside()
    s = aeris.verify(fc, truth, climatology=truth, baselines=("persistence", "climatology"))
    usual = [name for name, metric in METRICS.items() if not metric.on_request]
    assert set(s.data_vars) == {f"{score}.{name}" for score in usual for name in ("2m_temperature", "geopotential")}
    assert s["rmse.geopotential"].dims == ("system", LEAD, "level")
    assert s["rmse.2m_temperature"].dims == ("system", LEAD)
    assert s.system.values.tolist() == ["forecast", "persistence", "climatology"]
    assert s["rmse.geopotential"].attrs["units"] == "m**2 s**-2"
    assert s["acc.geopotential"].attrs["units"] == "1"
    assert "geopotential" in s["crps.geopotential"].attrs["long_name"]
    assert (s.attrs["initial_times"], s.attrs["members"], s.attrs["missing_members"]) == (3, 4, 0)


def test_without_climatology_there_is_no_anomaly_correlation(beside):
    s = aeris.verify(*beside())
    assert not [name for name in s.data_vars if name.startswith("acc.")]
    assert s.system.values.tolist() == ["forecast", "persistence"]


def test_only_what_the_truth_holds_is_scored(beside):
    fc, truth = beside()
    s = aeris.verify(fc, truth[["geopotential"]].sel(level=[850]), baselines=())
    whole = aeris.verify(fc, truth, baselines=())
    assert all(name.endswith(".geopotential") for name in s.data_vars)
    assert s.level.values.tolist() == [850]
    xr.testing.assert_allclose(s["crps.geopotential"], whole["crps.geopotential"].sel(level=[850]))


def test_hidden_and_static_variables_are_no_scores(beside):
    fc, truth = beside()
    truth["land_sea_mask"] = truth["2m_temperature"].isel(time=0)
    truth["planet_modes"] = ("time", "part"), np.zeros((truth.sizes["time"], 3))
    fc["land_sea_mask"] = truth["land_sea_mask"]
    assert {str(name).partition(".")[2] for name in aeris.verify(fc, truth).data_vars} == {"2m_temperature", "geopotential"}


# ------------------------------------------------------------------ known answers


def test_invariant_8_an_averaged_score_is_computed_from_averaged_statistics(perfect):
    """Errors of 1 and 7 on two dates: the root of the mean square is 5, the mean of the roots would be 4."""
    fc, truth = perfect(dates=2)
    fc["2m_temperature"][{"time": 0}] += 1.0
    fc["2m_temperature"][{"time": 1}] += 7.0
    s = aeris.verify(fc, truth, climatology=truth * 0 + 279.0, baselines=())
    assert s["rmse.2m_temperature"].item() == pytest.approx(5.0)
    assert s["mae.2m_temperature"].item() == pytest.approx(4.0)
    # anomalies 2 and 8 against 1 and 1: (2 + 8) / sqrt((4 + 64) (1 + 1)), where a mean of correlations would be 1
    assert s["acc.2m_temperature"].item() == pytest.approx(10 / np.sqrt(68 * 2))


def test_spread_and_its_ratio_are_roots_of_means(perfect):
    """Members ±1 and ±7 about the truth plus 2: variances 2 and 98, so the spread is √50 and the ratio √(1.5 · 50) / 2."""
    fc, truth = perfect(members=2, dates=2)
    for date, swing in enumerate((1.0, 7.0)):
        fc["2m_temperature"][{"time": date}] += 2.0 + swing * xr.DataArray([-1.0, 1.0], dims="number")
    s = aeris.verify(fc, truth, baselines=())
    assert s["spread.2m_temperature"].item() == pytest.approx(np.sqrt(50))
    assert s["spread_skill.2m_temperature"].item() == pytest.approx(np.sqrt(1.5 * 50) / 2)
    assert s["rmse_member.2m_temperature"].item() == pytest.approx(np.sqrt((1 + 9 + 25 + 81) / 4))


@pytest.mark.parametrize("rows", [8, 9])
def test_an_error_counts_by_the_area_of_its_cells(perfect, rows):
    """An error of 1 in the first row: its mean square is the part of the sphere north of the row's southern edge."""
    fc, truth = perfect(shape=(rows, 16))
    fc["2m_temperature"][{"latitude": 0}] += 1.0
    edge = 90 - 180 / 8 if rows == 8 else 90 - 180 / 8 / 2
    s = aeris.verify(fc, truth, baselines=())
    assert s["rmse.2m_temperature"].item() ** 2 == pytest.approx((1 - np.sin(np.deg2rad(edge))) / 2)


def test_bias_has_a_sign(perfect):
    fc, truth = perfect()
    assert aeris.verify(fc - 0.5, truth, baselines=())["bias.2m_temperature"].item() == pytest.approx(-0.5)


@pytest.mark.parametrize("members", [2, 3, 10])
@pytest.mark.parametrize(("deviation", "bias"), [(1.0, 0.0), (0.4, 0.0), (1.7, 1.0)])
def test_fair_crps_of_a_gaussian_ensemble(perfect, members, deviation, bias):
    """E|X - Y| - E|X - X'| / 2 for X ~ N(b, s²), Y ~ N(0, 1), whatever the number of members."""
    rng = np.random.default_rng(members)
    fc, truth = perfect(members=members, dates=20, shape=(32, 64))
    truth = truth + xr.DataArray(rng.standard_normal(truth["2m_temperature"].shape), dims=truth["2m_temperature"].dims)
    fc = fc + bias + deviation * xr.DataArray(rng.standard_normal(fc["2m_temperature"].shape), dims=fc["2m_temperature"].dims)
    total = np.sqrt(1 + deviation**2)
    folded = total * np.sqrt(2 / np.pi) * np.exp(-((bias / total) ** 2) / 2) + bias * (1 - 2 * _normal_cdf(-bias / total))
    s = aeris.verify(fc, truth, baselines=())
    assert s["crps.2m_temperature"].item() == pytest.approx(folded - deviation / np.sqrt(np.pi), rel=0.015)


def _normal_cdf(x: float) -> float:
    from math import erf

    return (1 + erf(x / np.sqrt(2))) / 2


@pytest.mark.parametrize("members", [2, 5])
def test_an_exchangeable_ensemble_has_spread_skill_one(beside, members):
    s = aeris.verify(*beside(members=members, dates=12, shape=(16, 32)), baselines=())
    assert s["spread_skill.2m_temperature"].values == pytest.approx(1.0, abs=0.03)
    assert s["spread_skill.geopotential"].values == pytest.approx(1.0, abs=0.03)
    uncorrected = s["spread.geopotential"] / s["rmse.geopotential"]
    assert uncorrected.values == pytest.approx(np.sqrt(members / (members + 1)), abs=0.03)


# ------------------------------------------------------------------ another library


@pytest.mark.parametrize("name", ["2m_temperature", "geopotential"])
def test_the_scores_library_agrees(beside, name):
    fc, truth = beside(seed=3)
    s = aeris.verify(fc, truth, baselines=()).isel(system=0)
    members, happened = fc[name], truth_at_valid_times(fc, truth)[name]
    mean, how = members.mean("number"), {"reduce_dims": ("time", *CELLS), "weights": area_weights(fc)}
    same = {
        "rmse": scores.continuous.rmse(mean, happened, **how),
        "mae": scores.continuous.mae(mean, happened, **how),
        "bias": scores.continuous.additive_bias(mean, happened, **how),
        "crps": scores.probability.crps_for_ensemble(members, happened, "number", method="fair", **how),
    }
    for score, expected in same.items():
        np.testing.assert_allclose(s[f"{score}.{name}"], expected.transpose(LEAD, ...), rtol=1e-12, err_msg=score)


def test_the_energy_score_is_that_of_the_double_loop(beside):
    fc, truth = beside(members=5, dates=2)
    truth["geopotential"] = truth["geopotential"].where(truth.longitude < 200)
    s = aeris.verify(fc, truth, baselines=("persistence",), metrics=["energy_score"])
    happened, weights = truth_at_valid_times(fc, truth), area_weights(fc)
    for name in ("2m_temperature", "geopotential"):
        known = happened[name].notnull()

        def norm(difference, known=known):
            return np.sqrt((difference**2).weighted((weights * known).fillna(0)).mean(CELLS))

        away = norm(fc[name].where(known) - happened[name]).mean("number")
        apart = sum(norm((fc[name].isel(number=i) - fc[name].isel(number=j)).where(known, 0.0)) for i in range(5) for j in range(5))
        expected = (away - apart / (2 * 5 * 4)).mean("time")
        np.testing.assert_allclose(s[f"energy_score.{name}"].sel(system="forecast"), expected.transpose(LEAD, ...), rtol=1e-10)
        np.testing.assert_allclose(
            s[f"energy_score.{name}"].sel(system="persistence"),
            norm(truth[name].sel(time=fc.time) - happened[name]).mean("time").transpose(LEAD, ...),
            rtol=1e-10,
        )


def test_a_missing_member_is_left_out_of_the_energy_score(beside):
    fc, truth = beside(members=4)
    fewer = fc.copy(deep=True)
    fewer["2m_temperature"][{"number": 3}] = np.nan
    expected = aeris.verify(fc.isel(number=slice(3)), truth, metrics="energy_score")["energy_score.2m_temperature"]
    np.testing.assert_allclose(aeris.verify(fewer, truth, metrics="energy_score")["energy_score.2m_temperature"], expected)


@pytest.mark.parametrize("members", [2, 3, 8])
def test_the_debiased_error_does_not_depend_on_the_number_of_members(perfect, members):
    """Members N(0, 1) about a forecast that is off by 2: the squared error of endless members is 4."""
    rng = np.random.default_rng(members)
    fc, truth = perfect(members=members, dates=20, shape=(32, 64))
    fc = fc + 2.0 + xr.DataArray(rng.standard_normal(fc["2m_temperature"].shape), dims=fc["2m_temperature"].dims)
    s = aeris.verify(fc, truth, baselines=())
    assert s["rmse_debiased.2m_temperature"].item() == pytest.approx(2.0, rel=0.01)
    assert s["rmse.2m_temperature"].item() == pytest.approx(np.sqrt(4 + 1 / members), rel=0.01)


# ------------------------------------------------------------------ regions, seasons, choices


def test_a_region_is_scored_as_if_it_were_the_globe(beside):
    """Beside the scores of the same archive with the truth missing elsewhere."""
    fc, truth = beside(shape=(18, 36))
    boxes = {"tropics": abs(truth.latitude) <= 20, "europe": (truth.latitude >= 35) & (truth.latitude <= 75)}
    boxes["europe"] = boxes["europe"] & ((truth.longitude >= 347.5) | (truth.longitude <= 42.5))
    everything = [*METRICS.keys() - {"acc"}]
    s = aeris.verify(fc, truth, metrics=everything, regions=["global", *boxes])
    assert s["rmse.geopotential"].dims == ("system", "region", LEAD, "level")
    xr.testing.assert_allclose(s.sel(region="global", drop=True), aeris.verify(fc, truth, metrics=everything))
    for name, box in boxes.items():
        alone = aeris.verify(fc, truth.where(box), metrics=everything, baselines=())
        xr.testing.assert_allclose(s.sel(region=name, system=["forecast"], drop=True), alone)


def test_land_counts_by_its_share_and_masks_by_their_values(perfect):
    fc, truth = perfect(shape=(18, 36))
    fc["2m_temperature"] += xr.where(fc.longitude < 180, 2.0, 5.0)
    land = xr.where((truth.longitude < 180), 0.75, 0.25) * xr.ones_like(truth.latitude)
    s = aeris.verify(fc, truth.assign(land_sea_mask=land), baselines=(), metrics="mae", regions=["tropics_land"])
    assert s["mae.2m_temperature"].item() == pytest.approx(0.75 * 2 + 0.25 * 5)
    west = {"west": (truth.longitude < 180) * xr.ones_like(truth.latitude)}
    assert aeris.verify(fc, truth, baselines=(), metrics="mae", regions=west)["mae.2m_temperature"].item() == pytest.approx(2.0)


def test_seasons_are_scores_of_their_own_initial_times(beside):
    fc, truth = beside(dates=30, leads=(6,), shape=(2, 4), levels=(500,))
    s = aeris.verify(fc, truth, seasons=True)
    assert s.season.values.tolist() == ["all", "DJF", "MAM"]
    winter = fc.isel(time=fc.time.dt.month == 2)
    xr.testing.assert_allclose(s.sel(season="DJF", drop=True), aeris.verify(winter, truth))
    xr.testing.assert_allclose(s.sel(season="all", drop=True), aeris.verify(fc, truth))


def test_scores_come_back_from_disk(beside, tmp_path):
    s = aeris.verify(*beside(), regions=["global", "tropics"], seasons=True)
    write_scores(s, tmp_path / "scores.zarr")
    back = xr.open_zarr(tmp_path / "scores.zarr", consolidated=False, decode_timedelta=True)
    xr.testing.assert_allclose(back.load(), s)
    assert back.region.values.tolist() == ["global", "tropics"]


def test_unknown_choices_are_refused(beside):
    fc, truth = beside()
    with refused(ConfigurationError, "skill", "rmse"):
        aeris.verify(fc, truth, metrics=["skill"])
    with refused(ConfigurationError, "'acc' without a climatology"):
        aeris.verify(fc, truth, metrics="acc")
    with refused(ConfigurationError, "'atlantis'", "tropics"):
        aeris.verify(fc, truth, regions=["atlantis"])
    with refused(DataError, "land_sea_mask", "africa"):
        aeris.verify(fc, truth, regions=["africa"])
    with refused(DataError, "'nowhere' run from 0 to 0"):
        aeris.verify(fc, truth, regions={"nowhere": xr.zeros_like(truth["2m_temperature"].isel(time=0, drop=True))})
    with refused(ConfigurationError, "South lies below north"):
        Box(20, -20)


# ------------------------------------------------------------------ missing values


def test_missing_truth_is_left_out_with_its_area(beside):
    fc, truth = beside()
    land = xr.DataArray(np.random.default_rng(1).random(truth["2m_temperature"].shape[1:]) < 0.4, dims=CELLS)
    sea = truth[["2m_temperature"]].rename({"2m_temperature": "sea_surface_temperature"}).where(~land)
    forecast = fc[["2m_temperature"]].rename({"2m_temperature": "sea_surface_temperature"})
    how = {"reduce_dims": ("time", *CELLS), "weights": area_weights(fc) * ~land}
    happened = truth_at_valid_times(fc, truth)["2m_temperature"]
    expected = scores.continuous.rmse(fc["2m_temperature"].mean("number"), happened, **how)
    for archive in (forecast, forecast.where(~land)):
        s = aeris.verify(archive, sea, baselines=())
        np.testing.assert_allclose(s["rmse.sea_surface_temperature"][0], expected)
        assert s.attrs["missing_members"] == 0


def test_a_mask_that_changes_weighs_the_dates_by_their_area(perfect):
    """Error 1 everywhere on the first date; error 3 on the second, of which only the northern hemisphere is known."""
    fc, truth = perfect(dates=2)
    fc["2m_temperature"] += xr.DataArray([1.0, 3.0], dims="time")
    known = (truth.latitude > 0) | (truth.time < np.datetime64("2020-02-02"))
    s = aeris.verify(fc, truth.where(known), baselines=())
    assert s["mae.2m_temperature"].item() == pytest.approx((1.0 * 1 + 3.0 * 0.5) / 1.5)


def test_missing_members_are_left_out_and_counted(beside):
    fc, truth = beside(members=5)
    fewer = fc.copy(deep=True)
    for field in fewer.data_vars.values():
        field[{"number": 4}] = np.nan
        field[{"time": 1, "number": 2, LEAD: 1, "latitude": 3}] = np.nan
    s = aeris.verify(fewer, truth)
    xr.testing.assert_allclose(s.isel({LEAD: 0}), aeris.verify(fc.isel(number=slice(4)), truth).isel({LEAD: 0}))
    assert s.attrs["missing_members"] == 3 * 2 + 1
    by_hand = fewer.isel({LEAD: 1}).where(~((fewer.time == fewer.time[1]) & (fewer.number == 2)))["2m_temperature"].mean("number")
    happened = truth_at_valid_times(fc, truth)["2m_temperature"].isel({LEAD: 1})
    expected = scores.continuous.rmse(by_hand, happened, weights=area_weights(fc))
    assert s["rmse.2m_temperature"][0, 1].item() == pytest.approx(float(expected))


def test_with_one_of_several_members_left_crps_is_its_error(perfect):
    fc, truth = perfect(members=2, dates=2, leads=(6, 12))
    fc["2m_temperature"][{"time": 0, "number": 1, LEAD: 1}] = np.nan
    fc["2m_temperature"][{"time": 0, "number": 0, LEAD: 1}] += 3.0
    s = aeris.verify(fc, truth, baselines=())
    assert s["crps.2m_temperature"].values[0] == pytest.approx([0.0, (3.0 + 0.0) / 2])


def test_a_ratio_is_of_the_dates_that_have_both_its_parts(perfect):
    """On the second date one member is left, which has an error but no spread."""
    fc, truth = perfect(members=2, dates=2)
    fc["2m_temperature"][{"time": 0}] += 2.0 + xr.DataArray([-1.0, 1.0], dims="number")
    fc["2m_temperature"][{"time": 1, "number": 0}] += 50.0
    fc["2m_temperature"][{"time": 1, "number": 1}] = np.nan
    assert aeris.verify(fc, truth, baselines=())["spread_skill.2m_temperature"].item() == pytest.approx(np.sqrt(1.5 * 2) / 2)


def test_baselines_are_scored_where_the_forecast_is(beside):
    fc, truth = beside()
    for field in fc.data_vars.values():
        field[{"time": 2}] = np.nan
    xr.testing.assert_allclose(aeris.verify(fc, truth), aeris.verify(fc.isel(time=slice(2)), truth))


def test_one_member_has_no_spread(beside):
    fc, truth = beside(members=1)
    s = aeris.verify(fc, truth, baselines=("persistence", {"several": beside(members=3)[0]}))
    np.testing.assert_allclose(s["crps.geopotential"][0], s["mae.geopotential"][0])
    assert np.isnan(s["spread.geopotential"]).all(["prediction_timedelta", "level"]).values.tolist() == [True, True, False]
    assert s.attrs["left_out"] == "rmse_debiased, spread, spread_skill of forecast, persistence: one member has no spread"


def test_where_no_system_has_members_ensemble_scores_are_left_out_by_name(beside):
    s = aeris.verify(*beside(members=1))
    assert not [name for name in s.data_vars if name.startswith(("spread", "rmse_debiased"))]
    assert {"rmse.geopotential", "crps.geopotential"} <= set(s.data_vars)
    assert s.attrs["left_out"].startswith("rmse_debiased, spread, spread_skill of forecast")


def test_a_forecast_without_number_is_one_member(beside):
    fc, truth = beside(members=1)
    xr.testing.assert_allclose(aeris.verify(fc.isel(number=0, drop=True), truth), aeris.verify(fc, truth))


# ------------------------------------------------------------------ baselines


def test_persistence_holds_the_initial_state(beside):
    fc, truth = beside()
    start = truth["geopotential"].sel(time=fc.time)
    expected = scores.continuous.rmse(
        truth_at_valid_times(fc, truth)["geopotential"], start, reduce_dims=("time", *CELLS), weights=area_weights(fc)
    )
    s = aeris.verify(fc, truth)
    np.testing.assert_allclose(s["rmse.geopotential"].sel(system="persistence"), expected.transpose(LEAD, "level"))


def test_forecasts_of_others_are_laid_beside(beside):
    fc, truth = beside()
    other, _ = beside(seed=9, members=7)
    other = other.assign_coords(latitude=other.latitude + 1e-6).isel({LEAD: slice(None, None, -1)})
    s = aeris.verify(fc, truth, baselines=("persistence", {"other": other}))
    assert s.system.values.tolist() == ["forecast", "persistence", "other"]
    np.testing.assert_allclose(s.sel(system="other")["crps.geopotential"], aeris.verify(other, truth)["crps.geopotential"][0, ::-1])


@pytest.fixture(scope="module")
def planet() -> tuple[Planet, xr.Dataset, xr.Dataset]:
    world = Planet(grid=(16, 32))
    ds = world.simulate(years=1 / 6, seed=1)
    times = ds.time.values[8:200:20]
    return world, ds, world.forecast(ds.sel(time=times), lead=["6h", "3D"], members=6, seed=7)


def test_the_optimum_is_as_good_as_another_draw_of_itself(planet):
    _world, ds, fc = planet
    s = aeris.verify(fc, ds, baselines=("persistence", "optimum"))
    for name in ("geopotential", "2m_temperature", "sea_surface_temperature"):
        crps = s[f"crps.{name}"]
        ratio = crps.sel(system="forecast") / crps.sel(system="optimum")
        np.testing.assert_allclose(ratio, 1.0, atol=0.1, err_msg=name)
        assert (crps.sel(system="optimum") < 0.8 * crps.sel(system="persistence")).all()
        np.testing.assert_allclose(s[f"spread_skill.{name}"].sel(system="optimum"), 1.0, atol=0.2)


def test_probabilistic_climatology_beside_the_optimum(planet):
    world, ds, fc = planet
    past = world.simulate(years=1 / 4, start="2000-01-01", seed=2)
    s = aeris.verify(fc[["geopotential"]], ds, climatology=ensemble_climatology(past), baselines=("climatology", "optimum"))
    crps, acc = s["crps.geopotential"].sel(level=500), s["acc.geopotential"].sel(level=500)
    assert (crps.sel(system="optimum") < crps.sel(system="climatology")).all()
    assert (abs(acc.sel(system="climatology")) < 0.1).all()
    assert (acc.sel(system="optimum") > 0.7).all()


# ------------------------------------------------------------------ archives larger than memory


def test_pieces_do_not_change_the_scores(beside, monkeypatch):
    fc, truth = beside(leads=(6, 12, 24))
    whole = aeris.verify(fc, truth)
    monkeypatch.setattr(pairing, "PIECE_VALUES", 1)
    xr.testing.assert_allclose(aeris.verify(fc, truth), whole)


def test_an_archive_on_disk_is_read_piece_by_piece(beside, monkeypatch, tmp_path):
    fc, truth = (ds[["2m_temperature"]] for ds in beside(members=16, dates=6, leads=(6, 12, 18, 24, 30, 36), shape=(64, 128)))
    fc, path = fc.astype("float32"), tmp_path / "forecast.zarr"
    fc.to_zarr(path, zarr_format=3, consolidated=False, encoding={"2m_temperature": {"chunks": (1, 1, 1, 64, 128)}})
    size, in_memory = fc.nbytes, aeris.verify(fc, truth)
    del fc
    monkeypatch.setattr(pairing, "PIECE_VALUES", 16 * 64 * 128)
    tracemalloc.start()
    s = aeris.verify(path, truth)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 2
    xr.testing.assert_allclose(s, in_memory)


def test_bands_of_rows_do_not_change_the_scores(beside, monkeypatch):
    fc, truth = beside(shape=(9, 16))
    fc["2m_temperature"][{"number": 2, "time": 1}] = np.nan
    truth["2m_temperature"] = truth["2m_temperature"].where(truth.latitude < 50)
    how = {"regions": ["global", "tropics"], "climatology": truth}
    whole = aeris.verify(fc, truth, **how)
    monkeypatch.setattr(pairing, "BAND_VALUES", 1)
    xr.testing.assert_allclose(aeris.verify(fc, truth, **how), whole)


@pytest.mark.slow
def test_a_case_at_quarter_degree_takes_little_more_than_its_members():
    """Fifty members of one field in float32 are 208 MB; what is computed from them was once three gigabytes."""
    code = """
        import resource
        import numpy as np
        import xarray as xr
        import aeris

        cells = {"latitude": np.linspace(90, -90, 721), "longitude": np.arange(1440) / 4}
        lead = np.array([6], "timedelta64[h]").astype("timedelta64[ns]")
        time = np.array(["2020-01-01"], "datetime64[ns]")
        dims = ("time", "number", "prediction_timedelta", "latitude", "longitude")
        values = np.random.default_rng(0).standard_normal((1, 50, 1, 721, 1440), dtype=np.float32)
        fc = xr.Dataset({"x": (dims, values)}, {"time": time, "number": np.arange(50), "prediction_timedelta": lead, **cells})
        truth = fc.isel(prediction_timedelta=0, number=0, drop=True).assign_coords(time=time + lead)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        aeris.verify(fc, truth, baselines=(), metrics=["rmse", "spread"])
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 0.5


# ------------------------------------------------------------------ gaps


def test_gaps_of_the_truth_are_skipped_where_that_is_asked_for_and_counted(beside):
    """Without 2 February 06: the 6 h forecast of that day cannot be scored, and no other."""
    fc, truth = beside(dates=3)
    gappy = truth.drop_sel(time=np.datetime64("2020-02-02T06"))
    with refused(DataError, "lacks 1 of the times", "gaps='skip'"):
        aeris.verify(fc, gappy)
    s = aeris.verify(fc, gappy, gaps="skip")
    assert (s.attrs["missing_truth"], s.attrs["missing_members"], s.attrs["initial_times"]) == (1, 0, 3)
    whole = aeris.verify(fc, truth)
    xr.testing.assert_allclose(s.isel({LEAD: 1}), whole.isel({LEAD: 1}))
    xr.testing.assert_allclose(s.isel({LEAD: 0}), aeris.verify(fc.isel(time=[0, 2]), truth).isel({LEAD: 0}))


def test_an_initial_time_without_truth_is_left_out_of_all_systems(beside):
    fc, truth = beside(dates=3)
    late = truth.isel(time=slice(1, None))
    s = aeris.verify(fc, late, gaps="skip")
    xr.testing.assert_allclose(s, aeris.verify(fc.isel(time=slice(1, None)), truth))
    assert s.attrs["missing_truth"] == 2
    assert aeris.verify(fc, late, baselines=(), gaps="skip").attrs["initial_times"] == 3


def test_a_truth_of_another_year_is_refused(beside):
    fc, truth = beside()
    other = truth.assign_coords(time=truth.time + np.timedelta64(366, "D"))
    with refused(DataError, "lacks 6 of the times"):
        aeris.verify(fc, other)
    with refused(DataError, "valid from 2020-02-01T06:00 to 2020-02-04T00:00", "2021-02-01", "in common"):
        aeris.verify(fc, other, gaps="skip")
    with refused(ConfigurationError, "gaps='fill'"):
        aeris.verify(fc, truth, gaps="fill")


def test_a_truth_that_is_missing_everywhere_counts_as_a_gap(beside):
    fc, truth = beside(dates=3)
    truth["2m_temperature"][{"time": truth.get_index("time").get_loc("2020-02-02T06")}] = np.nan
    s = aeris.verify(fc, truth)
    assert s.attrs["missing_truth"] == 1
    assert s["rmse.2m_temperature"].notnull().all()


def test_islands_without_truth_are_told_by_their_area(beside):
    fc, truth = beside(shape=(18, 36))
    s = aeris.verify(fc, truth.assign({"2m_temperature": truth["2m_temperature"].where(truth.latitude > 0)}))
    assert s["rmse.2m_temperature"].attrs["scored_area"] == pytest.approx(0.5)
    assert s["rmse.geopotential"].attrs["scored_area"] == 1.0


def test_an_island_without_forecast_makes_the_member_missing(beside):
    fc, truth = beside(members=3)
    fc["2m_temperature"][{"number": 1, "latitude": 2, "longitude": 3}] = np.nan
    assert aeris.verify(fc, truth).attrs["missing_members"] == 3 * 2


def test_a_variable_that_no_member_has_is_left_out_by_name(beside):
    fc, truth = beside()
    fc["geopotential"][{"latitude": 0}] = np.nan
    s = aeris.verify(fc, truth)
    assert not [name for name in s.data_vars if "geopotential" in str(name)]
    assert "geopotential: no member" in s.attrs["left_out"]


def test_what_a_baseline_lacks_is_counted(beside):
    fc, truth = beside()
    other, _ = beside(seed=9)
    other["2m_temperature"][{"time": 1}] = np.nan
    s = aeris.verify(fc, truth, baselines={"other": other})
    assert s.attrs["left_out"] == "other: missing at 2 initial times and leads of the forecast"
    assert "left_out" not in aeris.verify(fc, truth, baselines={"other": fc}).attrs


# ------------------------------------------------------------------ refusals


def refused(error: type[AerisError], *words: str):
    return pytest.raises(error, match=".*".join(words))


def test_another_grid_is_refused(beside):
    fc, _ = beside()
    with refused(DataError, "The truth", "16×32", "8×16", "coarsen"):
        aeris.verify(fc, beside(shape=(16, 32))[1])


def test_upside_down_rows_are_refused(beside):
    fc, truth = beside()
    with refused(DataError, "In the truth", "north to south"):
        aeris.verify(fc, truth.isel(latitude=slice(None, None, -1)))


def test_nothing_in_common_is_refused(beside):
    fc, truth = beside()
    with refused(DataError, "2m_temperature", "geopotential"):
        aeris.verify(fc[["2m_temperature"]], truth[["geopotential"]])
    with refused(DataError, r"\[500, 850\]", r"\[100\]"):
        aeris.verify(fc, truth.isel(level=[0]).assign_coords(level=[100]))
    with refused(DataError, "level", r"ds\.sel\(level=\[500\]\)"):
        aeris.verify(fc, truth.sel(level=500))


def test_a_truth_that_ends_too_early_is_refused_with_the_time(beside):
    fc, truth = beside()
    with refused(DataError, "The truth lacks 1 of the times", "2020-02-04T00:00", "holds 2020-02-01T00:00 to 2020-02-03T18:00"):
        aeris.verify(fc, truth.sel(time=slice(None, "2020-02-03T18")))
    late = truth.isel(time=slice(1, None))
    assert aeris.verify(fc, late, baselines=()).attrs["initial_times"] == 3
    with refused(DataError, "lacks 1 of the times", "2020-02-01T00:00"):
        aeris.verify(fc, late, baselines=("persistence",))


def test_a_forecast_without_members_is_refused(beside):
    fc, truth = beside()
    with refused(DataError, "No member"):
        aeris.verify(fc * np.nan, truth)


def test_what_is_no_archive_is_refused(beside, tmp_path):
    fc, truth = beside()
    with refused(DataError, "prediction_timedelta"):
        aeris.verify(truth, truth)
    with refused(DataError, "time difference"):
        aeris.verify(fc.assign_coords({LEAD: [6, 24]}), truth)
    with refused(StoreError, "no forecast at", "nowhere"):
        aeris.verify(tmp_path / "nowhere.zarr", truth)


def test_unfit_baselines_are_refused(beside):
    fc, truth = beside()
    with refused(ConfigurationError, "climatology"):
        aeris.verify(fc, truth, baselines=("climatology",))
    with refused(ConfigurationError, "guess", "persistence"):
        aeris.verify(fc, truth, baselines=("guess",))
    with refused(ConfigurationError, "forecast", "twice"):
        aeris.verify(fc, truth, baselines={"forecast": fc})
    with refused(DataError, "planet"):
        aeris.verify(fc, truth, baselines=("optimum",))


# ------------------------------------------------------------------ real data


@pytest.fixture(scope="module")
def ncep(shared_data: Path) -> tuple[xr.Dataset, xr.Dataset]:
    """NCEP/NCAR reanalysis of 1 to 5 January 2022, and its daily climatology by day of the year, as geopotential."""
    folder = shared_data / "easyclimate-data"

    def geopotential(file: str) -> xr.Dataset:
        heights = xr.open_dataset(folder / file, decode_times=False).hgt.rename(lat="latitude", lon="longitude").sortby("level")
        return (heights * GRAVITY).to_dataset(name="geopotential").assign_coords(level=heights.level.astype(int))

    days = np.arange(5) * np.timedelta64(1, "D") + np.datetime64("2022-01-01", "ns")
    analysis = geopotential("hgt_2022_day5.nc").assign_coords(time=days)
    # The climatology's file counts its rows from the south, but the fields in it begin in the north as those of the analysis do.
    normal = geopotential("hgt_day_ltm_1991_2020_0to6day.nc").rename(time="dayofyear")
    return analysis, normal.assign_coords(dayofyear=np.arange(1, 7), latitude=analysis.latitude)


def test_persistence_and_anomaly_correlation_of_real_weather(ncep):
    analysis, normal = ncep
    leads = np.arange(1, 5) * np.timedelta64(1, "D").astype("timedelta64[ns]")
    held = analysis.isel(time=[0]).expand_dims({LEAD: leads})
    s = aeris.verify(held, analysis, climatology=normal, baselines=("persistence", "climatology")).sel(level=500)
    for system in ("forecast", "persistence"):
        rmse = s["rmse.geopotential"].sel(system=system) / GRAVITY
        np.testing.assert_allclose(rmse, [52.5, 82.3, 97.9, 110.3], atol=0.1)
        np.testing.assert_allclose(s["acc.geopotential"].sel(system=system), [0.915, 0.798, 0.717, 0.655], atol=1e-3)
    assert Grid.of(analysis).shape == (73, 144)
