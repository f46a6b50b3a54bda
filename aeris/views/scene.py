"""What a visitor of the explorer looks at: a slice of the forecast, the truth beside it, and the words for both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from aeris.errors import DataError
from aeris.views.archive_reader import ForecastReader
from aeris.views.ensemble_statistics import Quantity
from aeris.views.slices import Channel, Place, place_text
from aeris.views.style import choose_level, time_text, units_of, variable_text

ALL = Quantity("mean")
"""A quantity of all members: it refuses an ensemble without any."""


@dataclass(frozen=True, eq=False)
class Scene:
    """All that was chosen at one moment.

    Attributes:
        reader: Reads the archive.
        truth: Canonical dataset; None where there is none.
        channel: Variable and level.
        time: Initial time.
        lead: Lead.
        quantity: What the map shows of the ensemble.
        place: Latitude and longitude that were clicked.
        band: Southern and northern edge of a band of latitudes in degrees.
        spectrum: What the power is told by: ``"wavenumber"``, in the band, or ``"degree"``, of the globe.
    """

    reader: ForecastReader
    truth: xr.Dataset | None
    channel: Channel
    time: np.datetime64
    lead: np.timedelta64
    quantity: Quantity
    place: Place
    band: tuple[float, float]
    spectrum: str

    @property
    def units(self) -> str:
        """Unit of the variable."""
        return units_of(self.reader.forecast[self.channel[0]])

    @property
    def happened(self) -> xr.DataArray | None:
        """The truth of the channel ``(time, latitude, longitude)``, lazy; None where there is none."""
        variable, level = self.channel
        if self.truth is None or variable not in self.truth:
            return None
        field = self.truth[variable]
        if level is None:
            return field
        return choose_level(field, level) if "level" in field.dims and level in field.level else None

    @property
    def members(self) -> xr.DataArray:
        """The members that have come as far as the lead, ``(number, latitude, longitude)``.

        Raises:
            DataError: There is none.
        """
        members = self.reader.members(self.channel, self.time, self.lead)
        ALL.of(members)
        return members

    @property
    def series(self) -> xr.DataArray:
        """The members at the place, ``(number, prediction_timedelta)``."""
        return self.reader.series(self.channel, self.time, self.place).assign_attrs(units=self.units)

    def happened_after(self, lead: np.timedelta64) -> xr.DataArray | None:
        """What happened at a lead, ``(latitude, longitude)``; None where it is not known."""
        happened = self.happened
        if happened is None or self.time + lead not in happened.time:
            return None
        return happened.sel(time=self.time + lead).load()

    def need_truth(self) -> xr.DataArray:
        """The truth of the channel, lazy.

        Raises:
            DataError: There is none.
        """
        if self.truth is None:
            raise DataError(
                "There is no truth beside this forecast",
                "Error and ranks are told against what happened",
                "Give it with aeris.explore(forecast, truth=...)",
            )
        happened = self.happened
        if happened is None:
            raise DataError(
                f"The truth has no {variable_text(*self.channel)}",
                f"It has {', '.join(map(str, self.truth.data_vars))}",
                "Choose one of these, or a level that it has",
            )
        return happened

    def title(self, what: str, where: str) -> str:
        """Two lines: the channel and what is shown of it, where and from which initial time."""
        return f"{variable_text(*self.channel)}: {what}\n{where}, from {time_text(self.time)}"

    def cell_text(self, series: xr.DataArray) -> str:
        """The cell of a series in words."""
        return place_text(float(series.latitude), float(series.longitude))
