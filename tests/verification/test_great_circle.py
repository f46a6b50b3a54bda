"""Great circles: against geodesics of pyproj on a sphere, huracanpy, and paths cut into small steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vortices import separation

from aeris.verification.great_circle import EARTH_RADIUS, along_and_across, bearing, distance, distance_to_path

place = st.tuples(st.floats(-70, 70), st.floats(-180, 540))


def test_distances_and_bearings_are_geodesics_of_a_sphere():
    pyproj = pytest.importorskip("pyproj")
    sphere = pyproj.Geod(a=6_371_000, b=6_371_000)
    rng = np.random.default_rng(0)
    phi, to_phi = rng.uniform(-85, 85, (2, 500))
    lam, to_lam = rng.uniform(-180, 540, (2, 500))
    forward, _, way = sphere.inv(lam, phi, to_lam, to_phi)
    np.testing.assert_allclose(distance(phi, lam, to_phi, to_lam), way / 1000, rtol=1e-9)
    turn = (bearing(phi, lam, to_phi, to_lam) - forward + 180) % 360 - 180
    np.testing.assert_allclose(turn, 0, atol=1e-6)
    np.testing.assert_allclose(distance(phi, lam, to_phi, to_lam), EARTH_RADIUS * np.deg2rad([*map(separation, phi, lam, to_phi, to_lam)]))


def test_distances_are_those_of_huracanpy(shared_data):
    huracanpy = pytest.importorskip("huracanpy")
    tracks = huracanpy.load(str(shared_data / "huracanpy" / "ERA5_1996_UZ.csv"))
    theirs = huracanpy.calc.distance(tracks.lon[:-1], tracks.lat[:-1], tracks.lon[1:], tracks.lat[1:], method="haversine")
    theirs = np.asarray(getattr(theirs, "magnitude", theirs)) / 1000
    ours = distance(tracks.lat.values[:-1], tracks.lon.values[:-1], tracks.lat.values[1:], tracks.lon.values[1:])
    np.testing.assert_allclose(ours, theirs, rtol=2e-5)  # the radius that it takes is 6371.009 km


def interpolated(start, end, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of the great circle between two places, by turning the first towards the second."""
    one, two = (
        np.array([np.cos(np.deg2rad(p)) * np.cos(np.deg2rad(m)), np.cos(np.deg2rad(p)) * np.sin(np.deg2rad(m)), np.sin(np.deg2rad(p))])
        for p, m in (start, end)
    )
    angle = np.arctan2(np.linalg.norm(np.cross(one, two)), one @ two)
    part = np.linspace(0, 1, count)[:, None]
    points = one if angle < 1e-9 else (np.sin((1 - part) * angle) * one + np.sin(part * angle) * two) / np.sin(angle)
    points = np.broadcast_to(points, (count, 3))
    return np.rad2deg(np.arcsin(np.clip(points[:, 2], -1, 1))), np.rad2deg(np.arctan2(points[:, 1], points[:, 0]))


@settings(max_examples=60, deadline=None)
@given(place, st.tuples(st.floats(-12, 12), st.floats(-12, 12)), st.tuples(st.floats(-15, 15), st.floats(-15, 15)))
def test_the_way_to_a_path_is_that_to_the_nearest_of_its_points(start, move, aside):
    end = (start[0] + move[0], start[1] + move[1])
    spot = (start[0] + aside[0], start[1] + aside[1])
    latitude, longitude = interpolated(start, end, 4001)
    nearest = distance(latitude, longitude, *spot).min()
    # Half a step of the points is at most 0.3 km; seen from aside it is far less.
    assert float(distance_to_path(*spot, start, end)) == pytest.approx(nearest, abs=0.3)


@pytest.mark.parametrize(
    ("heading", "spot", "along", "across"),
    [
        (0.0, (1.0, 0.0), 1, 0),
        (0.0, (0.0, 1.0), 0, 1),
        (0.0, (0.0, -1.0), 0, -1),
        (90.0, (0.0, 1.0), 1, 0),
        (90.0, (1.0, 0.0), 0, -1),
        (180.0, (0.0, 1.0), 0, -1),
        (270.0, (0.0, 1.0), -1, 0),
    ],
)
def test_signs(heading, spot, along, across):
    degree = EARTH_RADIUS * np.deg2rad(1.0)
    legs = along_and_across(distance(0.0, 0.0, *spot), bearing(0.0, 0.0, *spot) - heading)
    np.testing.assert_allclose(legs, [along * degree, across * degree], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(place, st.floats(0, 360), st.floats(0.5, 3000), st.floats(-180, 180))
def test_legs_lead_back_to_the_place(start, heading, way, angle):
    """Going along and then square to it, by the formulas of pyproj, ends where the hypotenuse ends."""
    pyproj = pytest.importorskip("pyproj")
    sphere = pyproj.Geod(a=6_371_000, b=6_371_000)
    along, across = along_and_across(way, angle)
    straight = sphere.fwd(start[1], start[0], heading + angle, way * 1000)
    corner = sphere.fwd(start[1], start[0], heading, float(along) * 1000)
    ahead = corner[2] + 180.0  # it gives the way back
    bent = sphere.fwd(corner[0], corner[1], ahead + 90.0, float(across) * 1000)
    assert distance(straight[1], straight[0], bent[1], bent[0]) < 1e-3
