"""A picture of a segmentation on its image: three planes through what was found."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from segmentation.results.native import NativePrediction
from segmentation.results.orientation import lps_spacing_mm, lps_view
from simulator.figure_style import INFECTION_COLOUR, LUNG_COLOUR, new_figure
from simulator.figures import plane
from standard_space.image import CTImage
from standard_space.masks import bounding_box
from standard_space.window import DEFAULT_LEVEL_HU, DEFAULT_WIDTH_HU

CONSOLIDATION_COLOUR = "#F0E442"
_PLANES = ("axial", "coronal", "sagittal")
_MARGIN_MM = 15.0
_TINT_OPACITY = 0.45


def overlay_figure(
    image: CTImage, found: NativePrediction, *, target: str, title: str, consolidation_hu: float
) -> Figure:
    """Draw the slices that show most of what was found: plain above, with it below.

    Parameters
    ----------
    image : CTImage
    found : NativePrediction
        On the image's grid.
    target : str
        "infection": lungs as a blue outline, infection as an orange tint, consolidation outlined in yellow.
        "lungs": what was found as a blue outline.
    title : str
        First line.
    consolidation_hu : float
        Clinical cut between GGO and consolidation, HU.
    """
    hu = lps_view(image.array, image.geometry)
    lungs, mask = (lps_view(array, image.geometry) for array in (found.lungs, found.mask))
    spacing_mm = lps_spacing_mm(image.geometry)
    places = _best_slices(mask if mask.any() else lungs)
    box = _shown(lungs, spacing_mm)
    figure, axes = new_figure(10, 7, 2, 3)
    for column, name in enumerate(_PLANES):
        index = places[name]
        picture, outline, tint = (_slice(volume, name, index, box) for volume in (hu, lungs, mask))
        aspect = _aspect(spacing_mm, name)
        for row in axes[:, column]:
            _show(row, picture, aspect)
        axes[0, column].set_title(name)
        below = axes[1, column]
        if target == "infection":
            _fill(below, tint, aspect)
            _outline(below, tint & (picture >= consolidation_hu), CONSOLIDATION_COLOUR, 0.6)
        _outline(below, outline, LUNG_COLOUR, 0.9)
    legend = (
        f"infection: orange; of it at or above {consolidation_hu:g} HU: yellow outline; lungs: blue outline"
        if target == "infection"
        else "lungs: blue outline"
    )
    window = f"window {DEFAULT_LEVEL_HU:g}/{DEFAULT_WIDTH_HU:g} HU"
    figure.suptitle(
        f"{title}\n{legend}; {window}; made by lungcast for research, not for diagnosis",
        fontsize=9,
        parse_math=False,
    )
    return figure


def _best_slices(mask: NDArray[np.bool_]) -> dict[str, int]:
    """The slice of each plane that shows most of a mask; the middle one where there is nothing."""
    if not mask.any():
        return {name: size // 2 for name, size in zip(_PLANES, mask.shape, strict=True)}
    along = zip(_PLANES, ((1, 2), (0, 2), (0, 1)), strict=True)
    return {name: int(np.argmax(np.count_nonzero(mask, axis=others))) for name, others in along}


def _shown(lungs: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> tuple[slice, ...]:
    """The lungs' box and some body around it; everything where there are no lungs."""
    box = bounding_box(lungs)
    if box is None:
        return tuple(slice(0, size) for size in lungs.shape)
    sides = []
    for side, size, mm in zip(box, lungs.shape, spacing_mm, strict=True):
        margin = round(_MARGIN_MM / mm)
        sides.append(slice(max(0, side.start - margin), min(size, side.stop + margin)))
    return tuple(sides)


def _slice(volume: NDArray, name: str, index: int, box: tuple[slice, ...]) -> NDArray:
    """One slice of a plane, cut to the box, as a radiologist looks at it."""
    kept = list(box)
    normal = _PLANES.index(name)
    kept[normal] = slice(index, index + 1)
    return plane(volume[tuple(kept)], name, 0)


def _aspect(spacing_mm: tuple[float, float, float], name: str) -> float:
    """Height of a pixel over its width."""
    z, y, x = spacing_mm
    return {"axial": y / x, "coronal": z / x, "sagittal": z / y}[name]


def _show(axes: Axes, picture: NDArray[np.float32], aspect: float) -> None:
    low, high = DEFAULT_LEVEL_HU - DEFAULT_WIDTH_HU / 2, DEFAULT_LEVEL_HU + DEFAULT_WIDTH_HU / 2
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="bilinear")
    axes.set_xticks([])
    axes.set_yticks([])


def _fill(axes: Axes, mask: NDArray[np.bool_], aspect: float) -> None:
    tint = np.zeros((*mask.shape, 4))
    tint[mask] = [*(int(INFECTION_COLOUR[k : k + 2], 16) / 255 for k in (1, 3, 5)), _TINT_OPACITY]
    axes.imshow(tint, aspect=aspect, interpolation="nearest")


def _outline(axes: Axes, mask: NDArray[np.bool_], colour: str, width: float) -> None:
    # A contour needs both sides; a mask that fills the picture, or is one pixel wide, has none to draw.
    if min(mask.shape) > 1 and mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=[colour], linewidths=width)
