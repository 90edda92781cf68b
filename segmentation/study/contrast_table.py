"""Tables whose lines are configurations, each with its Dice and its paired difference to another one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from segmentation.evaluation.metrics import FAILURE_DICE
from segmentation.study.records import Configuration, Row
from segmentation.study.statistics import (
    Difference,
    estimate,
    holm,
    median_of,
    paired,
    score,
    without_partner,
)
from segmentation.study.study_results import StudyResults, cohort_name
from segmentation.study.table import (
    DIFFERENCE_COLUMNS,
    Contrast,
    Number,
    Table,
    difference_cell,
    difference_values,
    estimate_columns,
    estimate_values,
    number,
    p_cell,
    signed,
    with_interval,
)

DICE = score("dice")

_COLUMNS = (
    "scans",
    "patients",
    "Dice [95 %]",
    "median",
    "difference [95 %]",
    "effect",
    "p",
    "p (Holm)",
    "detectable",
)
_VALUES = ("scans", "patients", "scores", *estimate_columns("dice_mean"), *estimate_columns("dice_median"))


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes
    ----------
    labels : tuple of str
        Cells of the label columns.
    arm : Configuration
        What it is about.
    against : Configuration or None
        What it is compared with.
    subject, sentence : str
        See `Contrast`; unused without `against`.
    """

    labels: tuple[str, ...]
    arm: Configuration
    against: Configuration | None = None
    subject: str = ""
    sentence: str = ""


def infected(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows of scans that have an infection to find."""
    return tuple(row for row in rows if row.infected)


def scans_of(rows: Iterable[Row]) -> int:
    """How many different scans the rows are about."""
    return len({(row.cohort, row.patient, row.scan) for row in rows})


def patients_of(rows: Iterable[Row]) -> int:
    """How many different patients the rows are about."""
    return len({(row.cohort, row.patient) for row in rows})


def failures_of(rows: Iterable[Row]) -> int:
    """How many rows have a Dice below `FAILURE_DICE`."""
    return sum(row.dice is not None and row.dice < FAILURE_DICE for row in infected(rows))


def pair_notes(
    study: StudyResults,
    cohort: str,
    arm: Configuration,
    against: Configuration,
    found: Difference,
) -> list[str]:
    """Name the scans that have no partner in a comparison."""
    notes = []
    ones, others = infected(study.rows_of(arm, cohort)), infected(study.rows_of(against, cohort))
    for side, other, places, partners in (
        (arm, against, found.only_first, others),
        (against, arm, found.only_second, ones),
    ):
        if places:
            notes.append(
                f"{cohort_name(cohort)}, not in the difference: {side.label}{_folds(side, other)} alone has "
                f"{without_partner(places, partners)}, which {other.label}{_folds(other, side)} lacks"
            )
    return notes


def contrast_table(
    study: StudyResults,
    name: str,
    title: str,
    label_columns: Sequence[str],
    lines: Sequence[Line],
    *,
    notes: Sequence[str] = (),
    absent: str,
) -> Table:
    """Make a table of lines for every cohort that has an infection to find.

    Parameters
    ----------
    study : StudyResults
    name, title : str
    label_columns : sequence of str
        Headings of `Line.labels`.
    lines : sequence of Line
    notes : sequence of str
        Sentences of the table's own.
    absent : str
        Why there is nothing to show, should it come to that.

    Returns
    -------
    Table
        p values are corrected for all comparisons of the table.
    """
    kept: list[tuple[str, Line, tuple[Row, ...], Difference | None]] = []
    said = list(notes)
    for cohort in study.cohorts:
        for line in lines:
            rows = infected(study.rows_of(line.arm, cohort))
            if not rows:
                continue
            found = None
            if line.against is not None:
                others = infected(study.rows_of(line.against, cohort))
                found = paired(rows, others)
                said += pair_notes(study, cohort, line.arm, line.against, found)
            kept.append((cohort, line, rows, found))
    if not any(found is not None and found.patients for *_, found in kept):
        return Table(name, title, absent=absent)
    corrected = holm([None if found is None else found.p for *_, found in kept])
    cells: list[tuple[str, ...]] = []
    values: list[tuple[Number, ...]] = []
    contrasts = []
    for (cohort, line, rows, found), p_holm in zip(kept, corrected, strict=True):
        dice, middle = estimate(rows, DICE), median_of(rows, DICE)
        counts = scans_of(rows), patients_of(rows)
        compared = found is not None and found.patients > 0
        cells.append(
            (
                cohort_name(cohort),
                *line.labels,
                *(str(count) for count in counts),
                with_interval(dice),
                number(middle.value),
                *_difference_cells(found if compared else None, p_holm),
            )
        )
        values.append(
            (
                cohort,
                *line.labels,
                *identity(line.arm),
                *counts,
                dice.scores,
                *estimate_values(dice),
                *estimate_values(middle),
                None if line.against is None else line.against.label,
                *difference_values(found, p_holm),
            )
        )
        if found is not None and compared:
            contrasts.append(Contrast(cohort, line.subject, line.sentence, found, p_holm))
    return Table(
        name,
        title,
        ("cohort", *label_columns, *_COLUMNS),
        tuple(cells),
        1 + len(label_columns),
        tuple(dict.fromkeys(said)),
        (
            "cohort",
            *(column.replace(" ", "_") for column in label_columns),
            *IDENTITY,
            *_VALUES,
            "against",
            *DIFFERENCE_COLUMNS,
        ),
        tuple(values),
        tuple(contrasts),
    )


IDENTITY = ("arm_method", "arm_generator", "arm_ratio", "arm_variant", "arm_folds")
"""CSV columns of a configuration."""


def identity(arm: Configuration) -> tuple[Number, ...]:
    """CSV cells of a configuration."""
    return arm.method, arm.generator, float(arm.ratio), arm.variant, arm.folds


def _difference_cells(found: Difference | None, p_holm: float | None) -> tuple[str, ...]:
    if found is None:
        return ("-",) * 5
    return (
        difference_cell(found),
        signed(found.effect, 2),
        p_cell(found.p),
        p_cell(p_holm),
        number(found.detectable),
    )


def _folds(arm: Configuration, other: Configuration) -> str:
    """Tell two configurations apart that differ in folds only."""
    return "" if arm.folds == other.folds else f", k = {arm.folds}"
