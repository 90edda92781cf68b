"""Pictures of `benchmarks/morphology.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simulator.figure_style import (
    BEFORE_COLOUR,
    FITTED_COLOUR,
    INFECTION_COLOUR,
    OBSERVED_COLOUR,
    WINDOW_SIGNAL,
    new_figure,
)
from simulator.texture import Spectrum


def spectra_figure(spectra: Sequence[tuple[Spectrum, Spectrum, Spectrum]]) -> Figure:
    """Power spectra of all pairs: observed, simulated, and the observed voxels shuffled."""
    figure, axes = new_figure(6.4, 4.2)
    curve = axes[0, 0]
    names = ("observed", "simulated", "independent noise")
    for number, (name, colour) in enumerate(
        zip(names, (OBSERVED_COLOUR, FITTED_COLOUR, BEFORE_COLOUR), strict=True)
    ):
        for row, pair in enumerate(spectra):
            curve.loglog(
                pair[number].frequency_per_mm, pair[number].power, color=colour, linewidth=1.0, alpha=0.8,
                label=name if row == 0 else None,
            )  # fmt: skip
    curve.set_xlabel("spatial frequency, 1/mm")
    curve.set_ylabel("power, independent noise = 1")
    curve.set_title(f"signal inside the lesions of {len(spectra)} pairs of scans", fontsize=10)
    curve.legend(frameon=False)
    return figure


def controls_figure(
    pictures: Mapping[str, tuple[NDArray[np.float32], NDArray[np.bool_]]], cut: float
) -> Figure:
    """The same lesion under every setting: axial slice, its outline, and consolidation at the clinical cut."""
    columns = 3
    rows = -(-len(pictures) // columns)
    figure, axes = new_figure(3.0 * columns, 3.1 * rows, rows, columns)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, (signal, mask)) in zip(axes.flat, pictures.items(), strict=False):
        low, high = WINDOW_SIGNAL
        axis.imshow(signal, cmap="gray", vmin=low, vmax=high)
        axis.contour(mask, levels=[0.5], colors=[OBSERVED_COLOUR], linewidths=0.6)
        dense = mask & (signal >= cut)
        if dense.any():
            axis.contour(dense, levels=[0.5], colors=[INFECTION_COLOUR], linewidths=0.8)
        axis.set_title(name, fontsize=9)
    figure.suptitle("blue: infected, orange: at or above -200 HU", fontsize=9)
    return figure
