"""A table of a study: text for readers, numbers for programs, and the comparisons behind it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from segmentation.evaluation.comparison import SIGNIFICANCE
from segmentation.study.statistics import Difference, Estimate

DASH = "-"

Number = str | int | float | None


@dataclass(frozen=True)
class Contrast:
    """One comparison of two configurations on a cohort, as a report tells it.

    Attributes
    ----------
    cohort : str
    subject : str
        What changes, in few words; for figures.
    sentence : str
        The beginning of a sentence that goes on with the difference: "Removing x changed the Dice of y by".
    difference : Difference
    p_holm : float or None
        Corrected for all comparisons of the table.
    """

    cohort: str
    subject: str
    sentence: str
    difference: Difference
    p_holm: float | None

    @property
    def shown(self) -> bool:
        """Whether interval and corrected p agree that there is a difference."""
        return self.difference.excludes_zero and self.p_holm is not None and self.p_holm < SIGNIFICANCE


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes
    ----------
    name : str
        Of its file.
    title : str
    columns : tuple of str
    rows : tuple of tuple of str
        Formatted cells.
    labels : int
        Leading columns that hold names.
    notes : tuple of str
        Sentences below it.
    value_columns : tuple of str
        Columns of the CSV, units in their names.
    values : tuple of tuple
        Rows of the CSV; None where there is nothing.
    contrasts : tuple of Contrast
        The comparisons in it.
    absent : str or None
        Why there is nothing to show.
    """

    name: str
    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    labels: int = 1
    notes: tuple[str, ...] = ()
    value_columns: tuple[str, ...] = ()
    values: tuple[tuple[Number, ...], ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    absent: str | None = None

    def to_markdown(self) -> str:
        """Return the table and its notes; names to the left, numbers to the right."""
        marks = ["---" if place < self.labels else "---:" for place in range(len(self.columns))]
        lines = ["| " + " | ".join(_escaped(cells)) + " |" for cells in (self.columns, *self.rows)]
        lines.insert(1, "|" + "|".join(marks) + "|")
        return "\n".join([*lines, *(["", *(f"- {note}" for note in self.notes)] if self.notes else [])])

    def to_csv(self) -> str:
        """Return the numbers, one line per row."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.value_columns)
        writer.writerows(["" if value is None else value for value in row] for row in self.values)
        return text.getvalue()


def number(value: float | None, decimals: int = 3) -> str:
    """Write a number with fixed decimals, "-" for None."""
    return DASH if value is None else f"{value:.{decimals}f}"


def signed(value: float | None, decimals: int = 3) -> str:
    """Write a difference with its sign; one that rounds to zero has none."""
    if value is None:
        return DASH
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text


def with_interval(found: Estimate, decimals: int = 3, scale: float = 1.0) -> str:
    """Write an estimate as "0.712 [0.650, 0.770]", without brackets where there is no interval."""
    scaled = [None if end is None else end * scale for end in (found.value, found.low, found.high)]
    text = number(scaled[0], decimals)
    return (
        text if None in scaled else f"{text} [{number(scaled[1], decimals)}, {number(scaled[2], decimals)}]"
    )


def difference_cell(found: Difference, decimals: int = 3) -> str:
    """Write a paired difference as "+0.031 [0.010, 0.052]"; interval ends carry signs too."""
    text = signed(found.mean, decimals)
    if found.low is None or found.high is None:
        return text
    return f"{text} [{signed(found.low, decimals)}, {signed(found.high, decimals)}]"


def p_cell(p: float | None) -> str:
    """Write a p value: "<0.001", three decimals, "-" for None."""
    if p is None:
        return DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def p_words(p: float | None) -> str:
    """Write a p value for a sentence."""
    text = p_cell(p)
    return f"p {text[0]} {text[1:]}" if text.startswith("<") else f"p = {text}"


def estimate_columns(name: str) -> tuple[str, str, str]:
    """CSV columns of an estimate."""
    return name, f"{name}_low", f"{name}_high"


def estimate_values(found: Estimate) -> tuple[Number, Number, Number]:
    """CSV cells of an estimate."""
    return found.value, found.low, found.high


DIFFERENCE_COLUMNS = (
    "pairs",
    "paired_patients",
    "difference",
    "difference_low",
    "difference_high",
    "difference_median",
    "difference_sd",
    "better",
    "worse",
    "rank_biserial",
    "p",
    "p_holm",
    "p_method",
    "smallest_p",
    "detectable",
    "unpaired_first",
    "unpaired_second",
)


def difference_values(found: Difference | None, p_holm: float | None) -> tuple[Number, ...]:
    """CSV cells of a paired difference, in the order of `DIFFERENCE_COLUMNS`."""
    if found is None:
        return (None,) * len(DIFFERENCE_COLUMNS)
    return (
        found.scores,
        found.patients,
        found.mean,
        found.low,
        found.high,
        found.median,
        found.sd,
        found.better,
        found.worse,
        found.effect,
        found.p,
        p_holm,
        found.p_method,
        found.smallest_p,
        found.detectable,
        len(found.only_first),
        len(found.only_second),
    )


def _escaped(cells: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]
