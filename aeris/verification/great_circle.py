"""Distances and directions on a spherical earth, in kilometres and degrees.

All functions take numbers, arrays or xarray fields that broadcast, latitudes in degrees north and longitudes in degrees east counted
from anywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

EARTH_RADIUS = 6371.0
"""Mean radius of the earth in km."""


def unit_vector(latitude: Any, longitude: Any) -> np.ndarray:
    """Points on the unit sphere, ``(..., 3)``."""
    phi, lam = np.broadcast_arrays(np.deg2rad(latitude), np.deg2rad(longitude))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def arc(latitude: Any, longitude: Any, to_latitude: Any, to_longitude: Any) -> Any:
    """Great-circle distance in degrees, by the haversine formula, which keeps small distances exact."""
    phi, to_phi = np.deg2rad(latitude), np.deg2rad(to_latitude)
    half_turn = np.deg2rad(np.subtract(to_longitude, longitude)) / 2
    chord = np.sin((to_phi - phi) / 2) ** 2 + np.cos(phi) * np.cos(to_phi) * np.sin(half_turn) ** 2
    return np.rad2deg(2 * np.arcsin(np.sqrt(np.clip(chord, 0.0, 1.0))))


def distance(latitude: Any, longitude: Any, to_latitude: Any, to_longitude: Any) -> Any:
    """Great-circle distance in km."""
    return EARTH_RADIUS * np.deg2rad(arc(latitude, longitude, to_latitude, to_longitude))


def bearing(latitude: Any, longitude: Any, to_latitude: Any, to_longitude: Any) -> Any:
    """Direction in which a great circle leaves the first point for the second, degrees clockwise from north, 0 to 360."""
    phi, to_phi = np.deg2rad(latitude), np.deg2rad(to_latitude)
    turn = np.deg2rad(np.subtract(to_longitude, longitude))
    east = np.sin(turn) * np.cos(to_phi)
    north = np.cos(phi) * np.sin(to_phi) - np.sin(phi) * np.cos(to_phi) * np.cos(turn)
    return np.rad2deg(np.arctan2(east, north)) % 360.0


def along_and_across(distance_km: Any, angle: Any) -> tuple[Any, Any]:
    """The two legs of the right-angled spherical triangle over a great circle.

    Args:
        distance_km: Length of the hypotenuse, from a point of the great circle to another place.
        angle: Its direction, degrees clockwise from that of the great circle.

    Returns:
        The way along the great circle to the foot of the perpendicular, positive ahead, ``tan a = tan d cos θ``; and the perpendicular,
        positive to the right, ``sin x = sin d sin θ``; in km.
    """
    d, theta = np.asarray(distance_km) / EARTH_RADIUS, np.deg2rad(angle)
    along = np.arctan2(np.sin(d) * np.cos(theta), np.cos(d))
    across = np.arcsin(np.clip(np.sin(d) * np.sin(theta), -1.0, 1.0))
    return EARTH_RADIUS * along, EARTH_RADIUS * across


def distance_to_path(latitude: Any, longitude: Any, start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
    """Shortest distance in km from places to the great-circle path between two points.

    Args:
        latitude: Of the places.
        longitude: Of the places.
        start: Latitude and longitude of the first point.
        end: Those of the last; the same point is allowed, the opposite one is not.
    """
    nearer_end = np.minimum(distance(latitude, longitude, *start), distance(latitude, longitude, *end))
    places, first, last = unit_vector(latitude, longitude), unit_vector(*start), unit_vector(*end)
    normal = np.cross(first, last)
    length = np.linalg.norm(normal)
    if length < 1e-12:
        return nearer_end
    beside = (places @ np.cross(normal, first) >= 0) & (places @ np.cross(last, normal) >= 0)
    across = EARTH_RADIUS * np.abs(np.arcsin(np.clip(places @ normal / length, -1.0, 1.0)))
    return np.where(beside, across, nearer_end)
