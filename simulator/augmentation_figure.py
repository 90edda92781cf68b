"""The sheet of an augmentation: synthetic scans beside the scans that they were made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from simulator.figure_style import INFECTION_COLOUR, new_figure, save_figure
from simulator.figures import best_slices, show_slice
from standard_space.cohort import Cohort, Entry
from standard_space.progress import Progress, silent
from standard_space.scan import Scan

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


def draw_sheet(
    path: str | Path,
    cohort: Cohort,
    augmented: Cohort,
    entries: Sequence[Entry],
    *,
    progress: Progress = silent,
) -> None:
    """Write a sheet of synthetic scans.

    Parameters
    ----------
    path : str or Path
        The format goes by the suffix.
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

    def examples() -> Iterator[tuple[Scan, Scan]]:
        for number, entry in enumerate(entries):
            progress(entry.name, number, len(entries))
            origin = cohort.find(entry.patient, entry.scan.rsplit("-sim", 1)[0])
            yield cohort.read(origin), augmented.read(entry)

    save_figure(sheet_figure(examples(), len(entries)), path)
    progress("done", len(entries), len(entries))


def sheet_figure(examples: Iterable[tuple[Scan, Scan]], rows: int) -> Figure:
    """Draw pairs of a source and a synthetic scan, one a row: both plain, then the synthetic one's infection.

    Parameters
    ----------
    examples : iterable of (Scan, Scan)
        Taken one at a time; the figure keeps their slices only.
    rows : int
        How many there are.
    """
    figure, axes = new_figure(9.6, 3.2 * rows, rows, 3)
    for row, (source, synthetic) in enumerate(examples):
        index = best_slices(synthetic)["axial"]
        infection = None if synthetic.infection is None else (synthetic.infection, INFECTION_COLOUR)
        show_slice(axes[row, 0], source, "axial", index)
        show_slice(axes[row, 1], synthetic, "axial", index)
        show_slice(axes[row, 2], synthetic, "axial", index, filled=infection)
        infected_ml = [
            0.0 if scan.infection is None else float(scan.infection.sum()) * scan.grid.voxel_volume_ml
            for scan in (source, synthetic)
        ]
        axes[row, 0].set_title(f"{source.name}, day {source.day:g}: {infected_ml[0]:.1f} ml")
        axes[row, 1].set_title(f"synthetic, day {synthetic.day:.2f}: {infected_ml[1]:.1f} ml")
        axes[row, 2].set_title("its annotation")
    return figure
