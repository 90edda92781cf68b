"""How every figure looks: colours, sizes, and what is done to a figure before it is written.

Figures are made without pyplot, so nothing global is touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from standard_space.errors import UsageError
from standard_space.files import atomic_path

# Okabe-Ito: told apart by colour-blind readers too.
INFECTION_COLOUR, TRUTH_COLOUR, LUNG_COLOUR = "#D55E00", "#009E73", "#56B4E9"
BEFORE_COLOUR, OBSERVED_COLOUR, FITTED_COLOUR = "#999999", "#0072B2", "#D55E00"
WINDOW_SIGNAL = (-0.5, 0.5)

SMALLEST_PT, LARGEST_PT, TICKS_PT = 8.0, 10.0, 8.0
"""Sizes of letters. A figure 10 inches wide shrinks to two thirds on a page: 8 points are the least that stays
readable there."""

DPI = 150
"""A figure of 10 inches on a column of 17 cm is printed at 220 dots per inch."""


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """A figure with its axes, sizes in inches, laid out without overlap."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def apply_style(figure: Figure) -> Figure:
    """Give a finished figure the sizes and lines that all have; axes of images keep their frame.

    Returns
    -------
    Figure
        The same.
    """
    for axes in figure.axes:
        axes.tick_params(labelsize=TICKS_PT)
        if axes.axison and not axes.images:
            axes.spines[["top", "right"]].set_visible(False)
        legend = axes.get_legend()
        if legend is not None:
            legend.set_frame_on(False)
    for text in figure.findobj(Text):
        text.set_fontsize(min(max(text.get_fontsize(), SMALLEST_PT), LARGEST_PT))
    return figure


def save_figure(figure: Figure, path: str | Path, dpi: int = DPI) -> None:
    """Write a figure in the common style, atomically.

    Parameters
    ----------
    figure : Figure
    path : str or Path
        Its suffix is the format: ``.png``, ``.pdf``, ``.svg`` and what else Matplotlib writes.
    dpi : int
        Of formats of pixels.

    Raises
    ------
    UsageError
        For a suffix that Matplotlib does not write.
    """
    kind = Path(path).suffix.removeprefix(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise UsageError("no such format of a figure", where=path, expected=", ".join(sorted(known)))
    apply_style(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata={"Software": None} if kind == "png" else None)
