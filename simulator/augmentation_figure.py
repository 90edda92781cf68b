"""The sheet of an augmentation: synthetic scans beside the scans that they were made from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from simulator.figure_style import INFECTION_COLOUR, new_figure
from simulator.figures import show_plane
from standard_space.cohort import Cohort, Entry
from standard_space.progress import Progress, silent

SHEET_ROWS = 6


def chosen_for_sheet(entries: Sequence[Entry], count: int = SHEET_ROWS) -> list[Entry]:
    """Synthetic scans for a sheet: spread evenly over all, ordered by infected volume, the largest first.

    Parameters
    ----------
    entries : sequence of Entry
    count : int
        At most so many.

    Returns
    -------
    list of Entry
    """
    ordered = sorted(entries, key=lambda entry: (-(entry.infected_ml or 0.0), entry.name))
    if len(ordered) <= count:
        return ordered
    return [ordered[round(place * (len(ordered) - 1) / max(count - 1, 1))] for place in range(count)]


def sheet_figure(
    cohort: Cohort, augmented: Cohort, entries: Sequence[Entry], *, progress: Progress = silent
) -> Figure:
    """Draw synthetic scans, one a row: the source, the synthetic scan, and its annotation, in the axial slice that
    shows most of it.

    No more is read of a scan than its infection and a slice, so that a sheet of large scans takes little memory.

    Parameters
    ----------
    cohort, augmented : Cohort
        Sources, and what was made of them.
    entries : sequence of Entry
        Of `augmented`, at least one; see `chosen_for_sheet`.
    progress : Progress
        Told of every scan.

    Raises
    ------
    ScanFileError
        A scan cannot be read.
    """
    figure, axes = new_figure(9.6, 3.2 * len(entries), len(entries), 3)
    for row, entry in enumerate(entries):
        progress(entry.name, row, len(entries))
        origin = cohort.find(entry.patient, entry.scan.rsplit("-sim", 1)[0])
        with cohort.open_scan(origin) as source, augmented.open_scan(entry) as synthetic:
            everywhere = (slice(0, source.grid.size),) * 3
            shown = synthetic.mask("infection", everywhere)
            if not shown.any():  # healed
                shown = source.mask("lungs", everywhere)
            index = int(np.argmax(np.count_nonzero(shown, axis=(1, 2))))
            box = (slice(index, index + 1), *everywhere[1:])
            lungs, infection = source.mask("lungs", box)[0], synthetic.mask("infection", box)[0]
            _, y, x = source.grid.spacing_mm
            before, after = source.signal(box)[0], synthetic.signal(box)[0]
        show_plane(axes[row, 0], before, lungs, y / x)
        show_plane(axes[row, 1], after, lungs, y / x)
        show_plane(axes[row, 2], after, lungs, y / x, filled=(infection, INFECTION_COLOUR))
        axes[row, 0].set_title(f"{origin.name}, day {origin.day:g}: {origin.infected_ml or 0.0:.1f} ml")
        axes[row, 1].set_title(f"synthetic, day {entry.day:.2f}: {entry.infected_ml or 0.0:.1f} ml")
        axes[row, 2].set_title("its annotation")
    progress("done", len(entries), len(entries))
    return figure
