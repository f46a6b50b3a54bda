"""Messages of a notebook's page: one at a time, and only what a visitor did."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

pytest.importorskip("panel", reason="the extra 'views' is not installed")

from aeris.views.page_messages import ColumnPage, FlexPage, FromPage, Repeated

CLICK = {"kind": "MessageSent", "msg_type": "bokeh_event"}
SLIDER = {"kind": "ModelChanged", "attr": "value", "new": 3}
PLOT_SENT_BACK = {"kind": "ModelChanged", "attr": "children", "new": [{"type": "object", "name": "Line"}]}
NUMBERS_SENT_BACK = {"kind": "ModelChanged", "attr": "data", "new": {"type": "map", "entries": []}}


class Layout:
    """Stands for a layout of Panel: it notes what it is given, and how many give it something at once."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.busy, self.most = 0, 0

    def _on_msg(self, ref: str, manager: Any, msg: dict[str, Any]) -> None:
        self.draw()
        self.given.append(msg)

    def draw(self) -> None:
        self.busy += 1
        self.most = max(self.most, self.busy)
        time.sleep(0.01)
        self.busy -= 1


class Page(FromPage, Layout):
    pass


def message(*events: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"events": list(events)}}


def test_a_click_is_not_lost_with_plots_that_the_page_sends_back():
    page = Page()
    page._on_msg("root", None, message(PLOT_SENT_BACK, CLICK, NUMBERS_SENT_BACK, SLIDER))
    assert page.given == [message(CLICK), message(SLIDER)]


def test_a_slider_is_not_lost_with_the_size_of_a_plot_that_has_gone():
    """Bokeh drops the whole of a message that names such a plot, with nothing but a line for its debuggers."""
    import panel
    from panel.models.comm_manager import CommManager
    from pyviz_comms import Comm

    slider, plot = panel.widgets.IntSlider(start=0, end=9), panel.pane.Markdown("a plot")
    page = FlexPage(slider, panel.Column(plot))
    root = page._render_model(comm=Comm())
    ref = root.ref["id"]
    moved, gone = (widget._models[ref][0].ref for widget in (slider, plot))
    page[1].clear()
    events = [{"kind": "ModelChanged", "model": model, "attr": attr, "new": 3} for model, attr in ((gone, "width"), (moved, "value"))]
    manager = CommManager(comm_id="a", plot_id=ref, client_comm_id="b")
    page._on_msg(ref, manager, {"header": {"msgtype": "PATCH-DOC"}, "metadata": {}, "content": {"events": events}, "_buffers": {}})
    assert slider.value == 3


def test_a_message_without_events_passes():
    page = Page()
    page._on_msg("root", None, {"content": {}})
    assert page.given == [{"content": {}}]


def test_a_click_and_a_refresh_on_two_threads_wait_for_each_other():
    page = Page()
    refresh = Repeated(page.draw, every=1.0)
    threads = [threading.Thread(target=page._on_msg, args=("root", None, message(CLICK))) for _ in range(4)]
    threads += [threading.Thread(target=refresh._once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert page.most == 1 and len(page.given) == 4


@pytest.mark.parametrize("page", [FlexPage, ColumnPage])
def test_panel_still_calls_what_is_overridden(page):
    """Panel documents no hook for these messages: a version that renamed this one must be seen."""
    (base,) = (kind for kind in page.__mro__[2:] if "_on_msg" in vars(kind))
    assert list(base._on_msg.__annotations__)[:1] == ["ref"] and FromPage in page.__mro__[: page.__mro__.index(base)]
