"""The widgets of the explorer: one for each of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import panel as pn
import param

from aeris.views.style import with_unit

WIDTH = 230
"""Width of a widget on the screen."""

ORDER = (
    *("variable", "level", "time", "lead", "quantity", "member", "above", "threshold", "projection", "centre"),
    *("latitude", "longitude", "spectrum", "band", "keep_colours"),
)
SPECTRA, HOVMOLLER, EXTREMES = 1, 2, 3
"""Numbers of the tabs that have widgets of their own."""


class Sidebar:
    """The widgets of an explorer.

    Args:
        explorer: Its parameters become widgets.
        refresh: What the button does; None where there is nothing to look for.

    Attributes:
        widgets: By the name of their parameter.
        box: The Panel object.
    """

    def __init__(self, explorer: Any, refresh: Callable[[], None] | None) -> None:
        numbers = ("latitude", "longitude", "threshold")
        choices = ("variable", "level", "time", "quantity", "member", "above", "projection", "spectrum")
        self.widgets: dict[str, Any] = {name: pn.widgets.FloatInput.from_param(explorer.param[name], width=WIDTH) for name in numbers}
        self.widgets["lead"] = _slider(explorer, "lead", pn.widgets.DiscreteSlider, options=explorer.param.lead.get_range())
        self.widgets["band"] = _slider(explorer, "band", pn.widgets.RangeSlider, start=-90.0, end=90.0, step=1.0)
        self.widgets["centre"] = _slider(explorer, "centre", pn.widgets.FloatSlider, start=-180.0, end=180.0, step=10.0)
        self.widgets |= {name: pn.widgets.Select.from_param(explorer.param[name], width=WIDTH) for name in choices}
        self.widgets |= {name: pn.widgets.Checkbox.from_param(explorer.param[name]) for name in ("keep_colours", "follow")}
        button = pn.widgets.Button(label="refresh", on_click=lambda *_: refresh and refresh(), disabled=refresh is None)
        self.widgets["follow"].disabled = refresh is None
        rest = pn.Row(button, self.widgets["follow"], width=WIDTH + 20)
        # As wide as what the pictures leave: one column of widgets beside them, or several above them on a narrow page.
        self.box = pn.FlexBox(*(self.widgets[name] for name in ORDER), rest, styles={"flex": f"1 1 {WIDTH + 20}px"})

    def hide_useless(self, explorer: Any) -> None:
        """Shows only widgets that change something."""
        needs_threshold = explorer.quantity == "probability" or explorer.tab == EXTREMES
        shown = {
            "level": explorer.level is not None,
            "member": explorer.quantity == "member",
            "above": needs_threshold,
            "threshold": needs_threshold,
            "spectrum": explorer.tab == SPECTRA,
            "band": explorer.tab == HOVMOLLER or (explorer.tab == SPECTRA and explorer.spectrum == "wavenumber"),
        }
        for name, visible in shown.items():
            self.widgets[name].visible = visible
        self.widgets["threshold"].label = with_unit("threshold", explorer.scene.units)


def _slider(explorer: param.Parameterized, name: str, kind: type[pn.widgets.Widget], **options: Any) -> pn.widgets.Widget:
    """A slider that changes its parameter when it is let go: what it passes on its way would be read and drawn for nothing."""
    slider = kind(label=explorer.param[name].label, value=getattr(explorer, name), width=WIDTH, **options)
    slider.param.watch(lambda event: explorer.param.update(**{name: event.new}), "value_throttled")
    explorer.param.watch(lambda event: slider.param.update(value=event.new), name)
    return slider
