"""Table II: every method's scores with the paper's marks *, # and @, and the three-way method's lead.

Methods are shown at 0 % and at `StudyResults.main_level`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from segmentation.evaluation.metrics import FAILURE_DICE
from segmentation.methods import THREE_WAY
from segmentation.study.contrast_table import (
    DICE,
    IDENTITY,
    failures_of,
    identity,
    infected,
    pair_notes,
    patients_of,
    scans_of,
)
from segmentation.study.records import Configuration, Row
from segmentation.study.statistics import (
    Difference,
    Value,
    by_patient,
    estimate,
    holm,
    median_of,
    paired,
    score,
)
from segmentation.study.study_results import StudyResults, cohort_name
from segmentation.study.table import (
    DASH,
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
    with_interval,
)


class Arm(NamedTuple):
    """A configuration's rows on a cohort."""

    cohort: str
    configuration: Configuration
    rows: tuple[Row, ...]

    @property
    def cells(self) -> tuple[str, str, str]:
        """Cohort, method and augmentation."""
        return cohort_name(self.cohort), self.configuration.method, self.configuration.level


def arms(study: StudyResults) -> list[Arm]:
    """Every method as it is at 0 % and at the main level, on every cohort; empty ones left out."""
    found = []
    for cohort in study.cohorts:
        for method in study.methods:
            for level in study.levels:
                whole = study.whole(method, level)
                rows = study.rows_of(whole, cohort)
                if whole is not None and rows:
                    found.append(Arm(cohort, whole, rows))
    return found


def table_methods(study: StudyResults) -> Table:
    """II: every method's Dice, recall, worst case and failures, and the three-way method's lead over it."""
    shown = [Arm(arm.cohort, arm.configuration, infected(arm.rows)) for arm in arms(study)]
    shown = [arm for arm in shown if arm.rows]
    title = "Table II: methods"
    if not shown:
        return Table("table_2_methods", title, absent="no scan with an infection was scored")
    leads = [_lead(study, arm) for arm in shown]
    corrected = holm([None if lead is None else lead.p for lead in leads])
    cells: list[tuple[str, ...]] = []
    values: list[tuple[Number, ...]] = []
    contrasts: list[Contrast] = []
    notes = [
        f"*: without failures (Dice below {FAILURE_DICE:g}), each method's own; @: with a tolerance of 2 voxels",
        "worst Dice: the smallest; failures: scores that fail, of all",
        "three-way minus it: paired Dice, both at the same augmentation",
    ]
    for cohort in dict.fromkeys(arm.cohort for arm in shown):
        scanner = commonest_scanner([row for arm in shown if arm.cohort == cohort for row in arm.rows])
        said = (
            "no scanner is known, so there is no row #" if scanner is None else f"#: scanner {scanner} alone"
        )
        notes.append(f"{cohort_name(cohort)}: {said}")
        for arm, lead, p_holm in zip(shown, leads, corrected, strict=True):
            if arm.cohort != cohort:
                continue
            for mark, rows, dice, recall in _selections(arm.rows, scanner):
                compared = lead if mark == "" else None
                line, numbers = _method_line(rows, dice, recall)
                cells.append(
                    (
                        *_marked(arm, mark),
                        *line,
                        DASH if compared is None else difference_cell(compared),
                        p_cell(None if compared is None else compared.p),
                        p_cell(None if compared is None else p_holm),
                    )
                )
                values.append(
                    (
                        cohort,
                        *identity(arm.configuration),
                        mark,
                        *numbers,
                        *difference_values(compared, p_holm if compared else None),
                    )
                )
            if lead is not None:
                one, other = _three_way(arm.configuration), arm.configuration
                notes += pair_notes(study, cohort, one, other, lead)
                if lead.patients:
                    sentence = f"At {other.level}, the three-way method's Dice minus {other.method}'s was"
                    contrasts.append(
                        Contrast(cohort, f"three-way - {other.method}, {other.level}", sentence, lead, p_holm)
                    )
    return Table(
        "table_2_methods",
        title,
        (
            *(
                "cohort",
                "method",
                "augmentation",
                "scans",
                "patients",
                "Dice [95 %]",
                "recall [95 %]",
                "worst Dice",
            ),
            *("failures", "three-way minus it [95 %]", "p", "p (Holm)"),
        ),
        tuple(cells),
        3,
        tuple(notes),
        (
            *("cohort", *IDENTITY, "row", "scans", "patients", "scores"),
            *(
                *estimate_columns("dice_mean"),
                *estimate_columns("dice_median"),
                *estimate_columns("recall_mean"),
            ),
            *("dice_worst", "failures", *DIFFERENCE_COLUMNS),
        ),
        tuple(values),
        tuple(contrasts),
    )


def commonest_scanner(rows: Sequence[Row]) -> str | None:
    """The scanner with most scans, the first by name of equals; None where none is known."""
    scans: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        if row.scanner is not None:
            scans.setdefault(row.scanner, set()).add((row.patient, row.scan))
    return min(scans, key=lambda scanner: (-len(scans[scanner]), scanner)) if scans else None


def _three_way(arm: Configuration) -> Configuration:
    return arm._replace(method=THREE_WAY)


def _lead(study: StudyResults, arm: Arm) -> Difference | None:
    """The three-way method minus another one at the same level."""
    ours = infected(study.rows_of(_three_way(arm.configuration), arm.cohort))
    return paired(ours, arm.rows) if ours and arm.configuration.method != THREE_WAY else None


def _selections(
    rows: Sequence[Row], scanner: str | None
) -> list[tuple[str, Sequence[Row], Value, Value | None]]:
    kept = [row for row in rows if row.dice is not None and row.dice >= FAILURE_DICE]
    found: list[tuple[str, Sequence[Row], Value, Value | None]] = [
        ("", rows, DICE, score("recall")),
        ("*", kept, DICE, score("recall")),
    ]
    if scanner is not None:
        found.append(("#", [row for row in rows if row.scanner == scanner], DICE, score("recall")))
    return [*found, ("@", rows, score("dice_2voxel"), None)]


def _method_line(
    rows: Sequence[Row], dice: Value, recall: Value | None
) -> tuple[tuple[str, ...], tuple[Number, ...]]:
    mean_dice, middle = estimate(rows, dice), median_of(rows, dice)
    mean_recall = estimate(rows if recall is not None else (), recall or dice)
    worst = min((float(values.min()) for values in by_patient(rows, dice)), default=None)
    failed = None if recall is None else failures_of(rows)
    counts = scans_of(rows), patients_of(rows)
    cells = (
        *(str(count) for count in counts),
        with_interval(mean_dice),
        with_interval(mean_recall),
        number(worst),
        DASH if failed is None else f"{failed} of {mean_dice.scores}",
    )
    estimates = (*estimate_values(mean_dice), *estimate_values(middle), *estimate_values(mean_recall))
    return cells, (*counts, mean_dice.scores, *estimates, worst, failed)


def _marked(arm: Arm, mark: str) -> tuple[str, str, str]:
    cohort, method, level = arm.cells
    return cohort, f"{method} {mark}".strip(), level
