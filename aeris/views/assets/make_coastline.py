"""Makes ``coastline_110m.geojson`` from Natural Earth's land at 1:110 million.

The source is ``land-110m.json`` of the npm package world-atlas 2.0.2, which holds Natural Earth 4.1.0 as TopoJSON
(https://github.com/topojson/topojson-specification). Its polygons end at the date line; the edges that only close them there
are no coast and are cut out.

    npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz
    python make_coastline.py package/land-110m.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

TARGET = Path(__file__).with_name("coastline_110m.geojson")


def arcs_of(topology: dict) -> list[np.ndarray]:
    """The arcs of a TopoJSON topology in degrees: its points are running sums of whole steps, to be scaled and shifted."""
    scale, shift = (np.array(topology["transform"][key]) for key in ("scale", "translate"))
    return [np.round(np.cumsum(arc, axis=0) * scale + shift, 2) for arc in topology["arcs"]]


def coasts_of(arc: np.ndarray) -> list[np.ndarray]:
    """The pieces of an arc between its edges along the date line, each within -180° to 180°."""
    longitude = np.unwrap(arc[:, 0], period=360.0)
    at_date_line = np.isclose((longitude + 180.0) % 360.0, 0.0)
    cuts = np.flatnonzero(at_date_line[:-1] & at_date_line[1:]) + 1
    pieces = np.split(np.column_stack([longitude, arc[:, 1]]), cuts)
    turns = [np.round(piece[:, 0].mean() / 360.0) * 360.0 for piece in pieces]
    return [piece - [turn, 0.0] for piece, turn in zip(pieces, turns, strict=True) if len(piece) > 1]


def main() -> None:
    """Reads the topology named on the command line and writes the coastline beside this file."""
    topology = json.loads(Path(sys.argv[1]).read_text())
    coasts = [np.round(piece, 2).tolist() for arc in arcs_of(topology) for piece in coasts_of(arc)]
    TARGET.write_text(json.dumps({"type": "MultiLineString", "coordinates": coasts}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
