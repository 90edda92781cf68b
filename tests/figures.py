"""What holds for every figure."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.text import Text

from simulator.figure_style import apply_style

_SLACK_PX = 3.0


def cut_texts(figure: Figure) -> list[str]:
    """Words of a figure, in its common style, that reach beyond its edge."""
    apply_style(figure)
    figure.draw_without_rendering()
    cut, unseen = [], _labels_out_of_view(figure)
    for text in figure.findobj(Text):
        if text in unseen or not text.get_visible() or not text.get_text().strip():
            continue
        box = text.get_window_extent()
        inside = (
            box.x0 >= figure.bbox.x0 - _SLACK_PX
            and box.x1 <= figure.bbox.x1 + _SLACK_PX
            and box.y0 >= figure.bbox.y0 - _SLACK_PX
            and box.y1 <= figure.bbox.y1 + _SLACK_PX
        )
        if not inside:
            cut.append(text.get_text())
    return cut


def _labels_out_of_view(figure: Figure) -> set[Text]:
    """Labels of ticks beyond the ends of their axis: there, but not drawn."""
    found = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not axes.axison or not low <= tick.get_loc() <= high:
                    found |= {tick.label1, tick.label2}
    return found
