"""Initial states that members begin apart by: their size, their spectrum, their limits, and that nothing else decides them."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import xarray as xr
from test_ensemble import asking, same, trained

import aeris
from aeris.cli import main
from aeris.cluster.jobs import ForecastSpecification
from aeris.data.statistics import Statistics
from aeris.data.variables import SEA_ICE_POINT
from aeris.errors import ConfigurationError, DataError, StoreError
from aeris.forecasting.archive import Archive
from aeris.forecasting.ensemble import check_forecast
from aeris.forecasting.perturbations import InitialStates, PastDifferences, SphericalNoise, check_reach, perturbation_of_json
from aeris.model.fields import Geography
from aeris.swipe import Layout
from aeris.training.checkpoint import Checkpoint
from aeris.verification.spectra import power

PAST = PastDifferences(0.1, apart="2D")
NOISE = SphericalNoise(0.5, length=2000.0)


@pytest.fixture(scope="module")
def run(small_store, tmp_path_factory):
    return trained(small_store, tmp_path_factory.mktemp("runs") / "run", steps=2)


@pytest.fixture(scope="module")
def begins(run, small_world):
    """Initial states of members from two times, as a forecast takes them."""

    def of(perturb, members: int = 4) -> InitialStates:
        return check_forecast(
            Checkpoint.open(run.path), small_world, small_world.time.values[[30, 33]], members, "6h", 2, Layout(), perturb=perturb
        )[2]

    return of


class Planetary:
    """As much of a checkpoint as initial states ask for: a grid of any kind, two channels, no sea."""

    def __init__(self, grid: aeris.Grid, channels: tuple[str, ...] = ("geopotential_500", "temperature_850")) -> None:
        self.geography = Geography(grid, {}, None)
        deviations = np.arange(1, len(channels) + 1) * 100.0
        nothing = np.zeros(len(channels))
        self.statistics = Statistics(channels, nothing, nothing + 1, nothing, deviations, (), np.zeros(0), np.zeros(0))


def drawn(grid: aeris.Grid, perturb: SphericalNoise, members: int) -> np.ndarray:
    """Perturbations of every second member, over the deviation of a residual, ``(M, C, H, W)``."""
    middle = np.array([5e4, 270.0], np.float32)[:, None, None] * np.ones(grid.shape, np.float32)
    there = InitialStates(middle[None], np.array(["2001-01-01"], "datetime64[ns]"), Planetary(grid), perturb)
    return (there.of(0, range(0, 2 * members, 2), 0) - middle).astype(np.float64) / np.array([100.0, 200.0])[:, None, None]


GRIDS = {
    "bands": aeris.Grid.regular(16, 32),
    "both poles": aeris.Grid.regular(17, 32),
    "pole dropped": aeris.Grid(aeris.Grid.regular(17, 32).latitude[:-1], np.arange(32) * 360 / 32),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_noise_has_the_deviation_that_is_asked_for_everywhere(grid):
    """Also at the poles, and over the globe; channels and members are independent."""
    fields = drawn(grid, SphericalNoise(0.01, length=1500.0), 300) / 0.01
    assert np.sqrt((fields**2).mean((0, 3))) == pytest.approx(np.ones((2, grid.shape[0])), rel=0.25)
    assert np.sqrt((fields**2).mean()) == pytest.approx(1.0, rel=0.02)
    channels = fields.reshape(len(fields), 2, -1)
    assert abs(np.mean([np.corrcoef(*one)[0, 1] for one in channels])) < 0.05
    assert abs(np.corrcoef(fields[:-1].ravel(), fields[1:].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("perturb", "law"),
    [
        (SphericalNoise(0.01, length=1500.0), lambda l: (2 * l + 1) * np.exp(-l * (l + 1) * (1.5e6 / 6.371e6) ** 2 / 2)),  # noqa: E741
        (SphericalNoise(0.01, spectrum=(0.0, 4.0, 0.0, 3.0, 2.0, 1.0)), lambda l: np.array([0, 4, 0, 3, 2, 1, *[0] * 10])[l] * 1.0),  # noqa: E741
    ],
    ids=["length", "spectrum"],
)
def test_noise_has_the_spectrum_that_is_asked_for(perturb, law):
    """Against the analysis of ducc0, which knows nothing of how the noise is made."""
    grid, members = GRIDS["bands"], 200
    fields = xr.DataArray(drawn(grid, perturb, members), dims=("number", "channel", "latitude", "longitude"))
    found = power(fields.assign_coords(latitude=grid.latitude, longitude=grid.longitude)).mean(("number", "channel")).values / 0.01**2
    degree = np.arange(16)
    wanted = law(degree) / law(degree).sum()
    # Each degree is the mean of squares of (2 l + 1) · members · channels normal numbers.
    error = wanted * np.sqrt(2 / ((2 * degree + 1) * members * 2))
    assert (abs(found - wanted) < 4 * error + 1e-5).all()


def test_neighbours_correlate_over_the_length_that_is_asked_for():
    grid = aeris.Grid.regular(32, 64)
    fields = drawn(grid, SphericalNoise(0.01, length=1500.0), 300)[:, 0, 15]
    apart = np.arange(5)
    distance = 6371 * np.deg2rad(360 / 64) * np.cos(np.deg2rad(grid.latitude[15])) * apart
    found = [np.mean(fields * np.roll(fields, -shift, -1)) / np.mean(fields**2) for shift in apart]
    assert found == pytest.approx(np.exp(-(distance**2) / (2 * 1500**2)), abs=0.05)


def test_differences_are_those_of_two_past_states_of_the_season(begins, small_world):
    """Found again among all pairs that there are."""
    there = begins(PAST)
    for index, start in ((0, 30), (1, 33)):
        added = there.of(index, [0], 5)[0] - there.states[index]
        hours = [number for number in range(start) if (start - number) % 4 == 0]
        pairs = [(one, other) for one, other in itertools.combinations(hours, 2) if other - one >= 8]
        heights = small_world.geopotential.sel(level=500).values
        wanted = {pair: 0.1 * (heights[pair[0]] - heights[pair[1]]) / np.sqrt(2) for pair in pairs}
        channel = list(there.checkpoint.statistics.channels).index("geopotential_500")
        assert sum(np.allclose(added[channel], field, atol=0.02) for field in wanted.values()) == 1
    members = there.of(0, range(0, 60, 2), 5)
    assert 5 < len({field.tobytes() for field in members}) <= len(pairs) + 1


@pytest.mark.parametrize("perturb", [PAST, NOISE], ids=lambda perturb: perturb.kind)
def test_pairs_of_members_mirror_each_other(begins, perturb):
    there = begins(perturb)
    members, analysis = there.of(0, range(6), 1), there.states[0]
    for even in range(0, 6, 2):
        np.testing.assert_allclose((members[even] + members[even + 1]) / 2, analysis, rtol=3e-7, atol=1e-3)
    assert len({member.tobytes() for member in members}) == 6


@pytest.mark.parametrize("perturb", [PAST, NOISE], ids=lambda perturb: perturb.kind)
def test_a_perturbation_is_a_function_of_seed_time_and_member_alone(begins, perturb):
    there = begins(perturb)
    many = there.of(1, range(6), 3)
    for member in range(6):
        np.testing.assert_array_equal(there.of(1, [member], 3)[0], many[member])
    np.testing.assert_array_equal(begins(perturb, members=2).of(1, [4, 1], 3), many[[4, 1]])
    assert not np.array_equal(there.of(1, [0], 4)[0], many[0])
    assert not np.array_equal(there.of(0, [0], 3)[0] - there.states[0], many[0] - there.states[1])


def test_physical_limits_hold():
    """Humidity that was small does not become negative; over land sea surface temperature is one constant."""
    grid, sea = aeris.Grid.regular(16, 32), np.zeros((16, 32), bool)
    sea[:, 10:20] = True
    checkpoint = Planetary(grid, ("specific_humidity_500", "sea_surface_temperature"))
    checkpoint.geography = Geography(grid, {}, sea)
    checkpoint.statistics = replace(checkpoint.statistics, residual_std=np.array([1e-3, 1.0]))
    state = np.stack([np.full((16, 32), 1e-4), np.where(sea, 290.0, SEA_ICE_POINT)]).astype(np.float32)
    times = np.array(["2001-01-01"], "datetime64[ns]")
    members = InitialStates(state[None], times, checkpoint, SphericalNoise(1.0)).of(0, range(8), 0)
    humidity, temperature = members[:, 0], members[:, 1]
    assert humidity.min() == 0.0 and 0.2 < (humidity == 0).mean() < 0.6 and humidity.max() > 1e-3
    assert (temperature[:, ~sea] == np.float32(SEA_ICE_POINT)).all() and temperature[:, sea].std() > 0.5


@pytest.fixture
def ask(run, small_world, tmp_path):
    return asking(run, small_world, tmp_path, "12h", (30, 33))


def test_without_one_a_forecast_and_what_it_says_of_itself_are_as_before(ask, begins):
    fc = ask(perturb=None)
    assert "perturb" not in fc.attrs["forecast"]
    there = begins(None)
    for member in there.of(0, range(3), 1):
        np.testing.assert_array_equal(member, there.states[0])


@pytest.mark.parametrize("perturb", [PAST, NOISE], ids=lambda perturb: perturb.kind)
def test_invariant_4_neither_batch_nor_interruption_changes_a_perturbed_member(ask, perturb, monkeypatch):
    whole = ask("whole.zarr", perturb=perturb)
    assert not same(whole, ask("plain.zarr"))
    assert same(ask("more.zarr", perturb=perturb, members=6).isel(number=slice(3)), whole)
    write, calls = Archive.write, []

    def fail(self, *where):
        calls.append(where)
        if len(calls) > 1:
            raise KeyboardInterrupt
        write(self, *where)

    monkeypatch.setattr(Archive, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        ask("broken.zarr", perturb=perturb)
    monkeypatch.undo()
    assert same(ask("broken.zarr", perturb=perturb), whole)
    for other in (None, replace(perturb, scale=0.2)):
        with pytest.raises(StoreError, match="perturb="):
            ask("whole.zarr", perturb=other)


def test_a_forecast_begins_where_it_is_told(ask, begins, monkeypatch):
    """The states that the first step is given."""
    from aeris.forecasting import rollout

    seen, transition = [], rollout.transition
    monkeypatch.setattr(rollout, "transition", lambda fields, states, *rest: (seen.append(states), transition(fields, states, *rest))[1])
    ask(perturb=NOISE, lead="6h", members=2)
    there = begins(NOISE)
    fields = rollout.Forecaster(there.checkpoint, precision="float32").fields
    for index, states in enumerate(seen):
        wanted = fields.whole_tokens(aeris.forecasting.ensemble.torch.from_numpy(there.of(index, [0, 1], 1)))
        np.testing.assert_array_equal(states.numpy(), wanted.numpy())


@pytest.mark.parametrize("perturb", [PAST, replace(NOISE, spectrum=(0.0, 1.0))], ids=lambda perturb: perturb.kind)
def test_jobs_carry_it_and_older_ones_have_none(perturb):
    job = ForecastSpecification(Layout(), "run", "i.zarr", ("2001-01-01T00",), 4, "24h", "f.zarr", 0, 2, None, "float32", False)
    job = replace(job, perturb=perturb)
    content = json.loads(json.dumps(job.to_json()))
    assert ForecastSpecification.of_json(content) == job
    assert ForecastSpecification.of_json({name: value for name, value in content.items() if name != "perturb"}) == replace(
        job, perturb=None
    )
    assert perturbation_of_json(**json.loads(json.dumps(asdict(perturb)))) == perturb


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: PastDifferences(0.0), "scale=0.0"),
        (lambda: SphericalNoise(float("nan")), "scale=nan"),
        (lambda: PastDifferences(0.1, apart="soon"), "apart='soon'"),
        (lambda: PastDifferences(0.1, season="-3D"), "season='-3D'"),
        (lambda: SphericalNoise(0.1, length=0.0), "length=0.0"),
        (lambda: SphericalNoise(0.1, spectrum=(0.0, -1.0)), "spectrum="),
        (lambda: SphericalNoise(0.1, spectrum=()), "spectrum="),
        (lambda: perturbation_of_json(kind="weather", scale=1.0), "weather"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(make, found):
    with pytest.raises(ConfigurationError, match=found):
        make()


def test_what_cannot_be_drawn_is_refused_before_anything_is_written(ask, small_world, tmp_path):
    with pytest.raises(DataError, match="there are 0 pairs of past states"):
        ask(perturb=PAST, times=small_world.time.values[[2]])
    with pytest.raises(DataError, match="40 members need 20 pairs"):
        ask(perturb=replace(PAST, apart="5D"), members=40)
    with pytest.raises(ConfigurationError, match="degrees 0 to 39"):
        ask(perturb=replace(NOISE, spectrum=(1.0,) * 40))
    with pytest.raises(ConfigurationError, match="memory"):
        check_reach(PAST, small_world)
    assert not (tmp_path / "forecast.zarr").exists()
    check_reach(PAST, "somewhere.zarr")
    check_reach(replace(PAST, past="somewhere.zarr"), small_world)


def test_past_states_may_stand_elsewhere(ask, small_world, tmp_path):
    small_world.to_zarr(tmp_path / "past.zarr", zarr_format=3, consolidated=False)
    alone = small_world.isel(time=[30, 33])
    assert same(ask("one.zarr", perturb=PAST), ask("two.zarr", initial=alone, perturb=replace(PAST, past=str(tmp_path / "past.zarr"))))


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--past-differences.scale", "0.1", "--past-differences.apart", "2D"], PAST),
        (["--spherical-noise.scale", "0.5", "--spherical-noise.length", "2000"], NOISE),
        ([], None),
        (["--spherical-noise.length", "2000"], "no scale"),
        (["--spherical-noise.scale", "0.5", "--past-differences.scale", "0.1"], "together"),
    ],
)
def test_the_command_takes_one_of_them(run, monkeypatch, capsys, words, asked):
    told = []
    monkeypatch.setattr(aeris, "forecast", lambda *given, perturb, **how: told.append(perturb))
    code = main(["forecast", "--checkpoint", str(run.path), "--initial", "x.zarr", "--times", "2001-01-01", *words])
    if isinstance(asked, str):
        assert code == 2 and asked in capsys.readouterr().err
    else:
        assert code == 0 and told == [asked]
