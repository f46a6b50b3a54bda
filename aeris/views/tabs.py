"""What the tabs of the explorer show of a scene: plume, spectra, Hovmöller diagram, extremes, skill, storms."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import xarray as xr

from aeris.verification.spectra import power
from aeris.views import interactive_curves as curves
from aeris.views.ensemble_statistics import Quantity, daily_maxima, exceedance_probability, hottest_days, mean, zonal_power
from aeris.views.scene import ALL, Scene
from aeris.views.skill import SkillBook
from aeris.views.slices import LEAD, at_leads, at_place, band_text
from aeris.views.storm_tracks import storm_table
from aeris.views.style import colour_scale, lead_text, time_text, variable_text, with_unit

SPECTRUM_VALUES = 2**23
"""Most values whose spectra are drawn in one picture: eight members at 0.25°."""

SPECTRUM_LEADS = 5
"""Most leads whose spectra are drawn in one picture."""


def plume(scene: Scene, lead: hv.streams.Pipe) -> hv.Overlay:
    """The plume at the place.

    Args:
        scene: What was chosen.
        lead: Sends the lead to mark, in hours.
    """
    members, happened = scene.series, scene.happened
    ALL.of(members.dropna("number", how="all"))
    truth = None if happened is None else at_leads(at_place(happened, scene.place), scene.time, scene.reader.leads)
    count = int(members.notnull().any(LEAD).sum())
    title = scene.title(f"{count} of {len(scene.reader.numbers)} members", scene.cell_text(members))
    return curves.plume(members, truth, title, lead)


def spectra(scene: Scene) -> pn.Column:
    """Spectra at the lead, and how they change with the lead."""
    return pn.Column(spectrum(scene), power_against_lead(scene))


def spectrum(scene: Scene) -> hv.Overlay:
    """Power of the members, of their mean and of the truth at the lead."""
    members, truth = scene.members, scene.happened_after(scene.lead)
    drawn = members.isel(number=slice(_members_drawn(members)))
    count = _count_text(drawn.sizes["number"], members.sizes["number"])
    title = scene.title(f"power of {count}", f"{_where(scene)}, lead {lead_text(scene.lead)}")
    of_truth = None if truth is None else _power(truth, scene)
    return curves.spectra(_power(drawn, scene), _power(mean(members), scene), of_truth, scene.units, title)


def power_against_lead(scene: Scene) -> hv.Overlay:
    """The members' power over the truth's, or over that at the first lead where there is no truth, at leads from the first to the last."""
    leads = [lead for lead in scene.reader.leads if scene.reader.count(scene.time, lead)]
    leads = [leads[i] for i in np.unique(np.linspace(0, len(leads) - 1, SPECTRUM_LEADS).round().astype(int))]
    most = _members_drawn(scene.reader.forecast[scene.channel[0]], len(leads))
    ensembles = {lead: scene.reader.first(scene.channel, scene.time, lead, most) for lead in leads}
    powers = {lead: _power(members, scene).mean("number") for lead, members in ensembles.items() if members.sizes["number"]}
    truths = {lead: _power(truth, scene) for lead in powers if (truth := scene.happened_after(lead)) is not None}
    first = next(iter(powers))
    against = "that of the truth" if truths else f"that at {lead_text(first)}"
    ratios = {lead: powers[lead] / (truths[lead] if truths else powers[first]) for lead in truths or powers}
    drawn = xr.concat(ratios.values(), xr.Variable(LEAD, list(ratios)))
    count = _count_text(max(members.sizes["number"] for members in ensembles.values()), len(scene.reader.numbers))
    return curves.power_ratios(drawn, scene.title(f"power of {count} over {against}", _where(scene)))


def _power(field: xr.DataArray, scene: Scene) -> xr.DataArray:
    """Power ``(..., wavenumber)`` or ``(..., degree)``, as was chosen."""
    return (zonal_power(field, *scene.band) if scene.spectrum == "wavenumber" else power(field)).reset_coords(drop=True)


def _where(scene: Scene) -> str:
    return band_text(*scene.band) if scene.spectrum == "wavenumber" else "the globe"


def _members_drawn(field: xr.DataArray, leads: int = 1) -> int:
    """Members whose spectra are drawn: of a fine grid only some."""
    return max(1, SPECTRUM_VALUES // (field.sizes["latitude"] * field.sizes["longitude"] * leads))


def _count_text(drawn: int, there: int) -> str:
    return f"{there} members" if drawn == there else f"{drawn} of {there} members"


def hovmoller(scene: Scene) -> hv.Image:
    """The Hovmöller diagram of the quantity, of the mean over the band of latitudes."""
    band = scene.reader.band(scene.channel, scene.time, *scene.band).assign_attrs(units=scene.units)
    there = band.isel(number=np.flatnonzero(band.notnull().all((LEAD, "longitude")).values))
    chosen = scene.quantity
    field = chosen.of(there).rename(scene.channel[0])
    count = "" if chosen.kind == "member" else f", {there.sizes['number']} members"
    title = scene.title(f"{chosen.text(scene.units)}{count}", f"mean over {band_text(*scene.band)}")
    return curves.hovmoller(field, colour_scale(field, chosen.scale), quantity_label(scene), title)


def quantity_label(scene: Scene) -> str:
    """What a colour bar says of the quantity."""
    chosen = scene.quantity
    text = variable_text(*scene.channel) if chosen.scale == "value" else chosen.scale
    return with_unit(text, chosen.unit(scene.units))


def extremes(scene: Scene) -> pn.Column:
    """The probability of exceeding the threshold against the lead, and the days with the highest maxima."""
    series, threshold, above = scene.series, scene.quantity.threshold, scene.quantity.above
    members = series.isel(number=np.flatnonzero(series.notnull().all(LEAD).values))
    ALL.of(members)
    where = scene.cell_text(series)
    title = scene.title(Quantity("probability", 0, threshold, above).text(scene.units), where)
    maxima = daily_maxima(members, scene.time)
    table = curves.days_table(hottest_days(maxima, threshold), maxima.leads, scene.units)
    return pn.Column(
        curves.exceedance_curve(exceedance_probability(members, threshold, above), title),
        curves.daily_maxima_diagram(maxima, threshold, scene.title("highest value of each day", where)),
        pn.pane.Markdown("Days by the mean of the members' maxima, with the probability of exceeding the threshold:"),
        pn.pane.DataFrame(table.head(5), float_format="{:.4g}".format),
    )


def skill(scene: Scene, book: SkillBook, lead: hv.streams.Pipe, button: pn.widgets.Button) -> pn.Column:
    """Spread and error against the lead, and the rank histogram at the lead.

    Args:
        scene: What was chosen.
        book: The leads that have been computed.
        lead: Sends the lead to mark, in hours.
        button: Begins or stops the computation of the others.
    """
    missing, known, here = book.missing(scene), book.against_lead(scene), book.at(scene, scene.lead)
    shown = pn.Column()
    if missing:
        size = 4e-9 * scene.reader.values_per_lead * len(missing)
        said = f"{len(missing)} of {len(book.leads(scene))} leads are not computed yet: all their members, {size:.2g} GB, will be read."
        shown.append(pn.Row(button, pn.pane.Markdown(said)))
    if known.sizes[LEAD]:
        counts = [scene.reader.count(scene.time, lead) for lead in known[LEAD].values]
        many = f"{counts[0]}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
        where = "means over the globe by cell area"
        shown.append(curves.skill_curves(known, scene.units, scene.title(f"spread and error of {many} members", where), lead))
        ratio = scene.title("spread over error, corrected for the ensemble size", where)
        shown.append(curves.ratio_curve(known["spread_skill"], ratio, lead))
    if here is not None and len(here.ranks) > 1:
        title = scene.title(f"rank of the truth among {len(here.ranks) - 1} members", f"the globe, lead {lead_text(scene.lead)}")
        shown.append(curves.rank_bars(here.ranks, title))
    return shown


def storms(tracks: pd.DataFrame, scene: Scene) -> pn.Column:
    """The storms of the forecast from the initial time, one row each."""
    table, last = storm_table(tracks), scene.reader.leads.max()
    title = f"**{len(table)} storms** from {time_text(scene.time)} to {time_text(scene.time + last)}"
    return pn.Column(pn.pane.Markdown(title), pn.pane.DataFrame(table, index=False, float_format="{:.5g}".format, max_height=400))
