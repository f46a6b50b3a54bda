"""Coherence by degree of fields whose common part is known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from test_spectra import random_coefficients, synthesis

from aeris.data.grid import Grid
from aeris.data.harmonics import Sphere
from aeris.data.spherical import degree_order
from aeris.verification import pairing
from aeris.verification.coherence import coherence

LEAD = "prediction_timedelta"
GRID = Grid.regular(16, 32)
NAME = "2m_temperature"


def parts(seed: int) -> list[xr.DataArray]:
    """Fields of power 1 at each degree from 2 on that share no order: their products vanish at every degree."""
    degree, order = degree_order(15)
    fields = []
    for third in range(3):
        coefficients = random_coefficients(15, seed) * (order % 3 == third) * (degree > 1)
        square = np.where(order > 0, 2, 1) * np.abs(coefficients) ** 2 / (4 * np.pi)
        norm = np.array([square[degree == one].sum() for one in range(16)])
        fields.append(synthesis(coefficients / np.sqrt(np.where(norm > 0, norm, 1))[degree], GRID, 15))
    return fields


def archive(members: list[xr.DataArray]) -> xr.Dataset:
    fields = xr.concat(members, "number").expand_dims(
        {"time": [np.datetime64("2020-01-01", "ns")], LEAD: [np.timedelta64(6 * 3600 * 10**9, "ns")]}
    )
    return fields.transpose("time", "number", LEAD, "latitude", "longitude").to_dataset(name=NAME)


def happened(field: xr.DataArray) -> xr.Dataset:
    return field.expand_dims(time=[np.datetime64("2020-01-01T06", "ns")]).to_dataset(name=NAME)


def test_it_is_the_share_of_the_common_part():
    """Members s + n₁ and s − n₁, truth s + n₂, of powers 1, 9 and 4: r = 1/√(10·5) of a member, 1/√5 of their mean."""
    signal, first, second = parts(0)
    found = coherence(archive([signal + 3 * first, signal - 3 * first]), happened(signal + 2 * second))[NAME].isel({LEAD: 0})
    assert found.dims == ("system", "degree")
    np.testing.assert_allclose(found.sel(system="members")[3:], 1 / np.sqrt(50))
    np.testing.assert_allclose(found.sel(system="mean")[3:], 1 / np.sqrt(5))
    assert found[:, :2].isnull().all()  # no power there


def test_sums_come_before_the_quotient(beside, monkeypatch):
    """Against plain numpy sums over members and times; missing members are left out, whatever the pieces."""
    fc, truth = beside(members=3, dates=3, shape=(16, 32))
    fc["geopotential"][{"time": 0, "number": 1}] = np.nan
    monkeypatch.setattr(pairing, "PIECE_VALUES", 1)
    found = coherence(fc, truth)["geopotential"]
    assert found.dims == ("system", LEAD, "level", "degree")
    sphere = Sphere.of(fc)
    product, of_fc, of_truth = np.zeros((3, 16))
    of_mean = np.zeros((3, 16))
    for time in range(3):
        kept = [member for member in range(3) if (time, member) != (0, 1)]
        observed = truth["geopotential"].sel(time=fc.time[time] + fc[LEAD][1], level=850).values
        mean, b = (sphere.analysis(one) for one in (fc["geopotential"][time, kept, 1].sel(level=850).mean("number").values, observed))
        of_mean += [sphere.by_degree(one) for one in ((mean * b.conj()).real, abs(mean) ** 2, abs(b) ** 2)]
        for member in kept:
            a, b = (sphere.analysis(one) for one in (fc["geopotential"][time, member, 1].sel(level=850).values, observed))
            product += sphere.by_degree((a * b.conj()).real)
            of_fc += sphere.by_degree(abs(a) ** 2)
            of_truth += sphere.by_degree(abs(b) ** 2)
    expected = product / np.sqrt(of_fc * of_truth)
    np.testing.assert_allclose(found.sel(system="members", level=850).isel({LEAD: 1}), expected)
    np.testing.assert_allclose(found.sel(system="mean", level=850).isel({LEAD: 1}), of_mean[0] / np.sqrt(of_mean[1] * of_mean[2]))


def test_the_truth_itself_is_coherent_and_its_opposite_is_not():
    signal, _, _ = parts(1)
    np.testing.assert_allclose(coherence(archive([signal, signal]), happened(signal))[NAME][..., 3:], 1.0)
    np.testing.assert_allclose(coherence(archive([-signal, -signal]), happened(signal))[NAME][..., 3:], -1.0)


def test_a_climatology_is_taken_off(beside):
    """A common mean state makes any forecast coherent, and its anomalies are not."""
    signal, first, second = parts(2)
    fc, truth = archive([first + 10 * signal, first + 10 * signal]), happened(second + 10 * signal)
    climate = (10 * signal).expand_dims(dayofyear=np.arange(1, 367)).to_dataset(name=NAME)
    assert (coherence(fc, truth)[NAME][..., 3:] > 0.98).all()
    np.testing.assert_allclose(coherence(fc, truth, climate)[NAME][..., 3:], 0.0, atol=1e-9)


def test_a_calibrated_ensemble_and_its_mean():
    """Members and truth from one distribution with common variance ρ: r = ρ of a member, and of a mean of M ρ / √(ρ + (1 − ρ)/M)."""
    rng = np.random.default_rng(0)
    size, rho, count = (60, 8, 16, 32), 0.6, 8
    signal = rng.standard_normal((60, 1, 16, 32))
    members = np.sqrt(rho) * signal + np.sqrt(1 - rho) * rng.standard_normal(size)
    observed = np.sqrt(rho) * signal[:, 0] + np.sqrt(1 - rho) * rng.standard_normal((60, 16, 32))
    times = np.datetime64("2020-01-01", "ns") + np.arange(60) * np.timedelta64(1, "D")
    lead = np.timedelta64(24 * 3600 * 10**9, "ns")
    place = {"latitude": GRID.latitude, "longitude": GRID.longitude}
    fc = xr.DataArray(members[:, :, None], {"time": times, LEAD: [lead]} | place, ["time", "number", LEAD, *place]).to_dataset(name=NAME)
    truth = xr.DataArray(observed, {"time": times + lead} | place, ["time", *place]).to_dataset(name=NAME)
    found = coherence(fc, truth)[NAME].isel({LEAD: 0}).sel(degree=slice(5, None)).mean("degree")
    assert found.sel(system="members").item() == pytest.approx(rho, abs=0.01)
    assert found.sel(system="mean").item() == pytest.approx(rho / np.sqrt(rho + (1 - rho) / count), abs=0.01)
