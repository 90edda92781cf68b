"""Tables in the shape of the paper's III to VII; II is in `methods_table`.

III Dice per stage, IV quantification, V ratios, VI methods without and with augmentation, VII components. The
paper's supplement S1 is not public: which table holds what is this project's assignment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from segmentation.methods import THREE_WAY
from segmentation.study.contrast_table import (
    DICE,
    IDENTITY,
    Line,
    contrast_table,
    identity,
    infected,
    patients_of,
    scans_of,
)
from segmentation.study.further_tables import FURTHER_TABLES
from segmentation.study.methods_table import arms, table_methods
from segmentation.study.records import Configuration
from segmentation.study.statistics import (
    agreement_of,
    estimate,
    rmse_of,
)
from segmentation.study.study_results import NOTHING, Level, StudyResults
from segmentation.study.table import (
    DASH,
    Number,
    Table,
    estimate_columns,
    estimate_values,
    number,
    with_interval,
)

STAGES = ("early", "progressive", "severe")
"""The paper's stages in their order; others follow by name."""

VIEWS = ("xy", "yz", "xz")


def table_stages(study: StudyResults) -> Table:
    """III: Dice per stage of the disease."""
    title = "Table III: Dice per stage [95 %]"
    found = {row.stage for row in study.rows if row.stage is not None and row.infected}
    stages = [*(stage for stage in STAGES if stage in found), *sorted(found - set(STAGES))]
    if not stages:
        return Table("table_3_stages", title, absent="no scan has a stage")
    cells: list[tuple[str, ...]] = []
    values: list[tuple[Number, ...]] = []
    for arm in arms(study):
        of_stage = {
            stage: [row for row in arm.rows if row.stage == stage and row.infected] for stage in stages
        }
        if not any(of_stage.values()):
            continue
        dice = {stage: estimate(rows, DICE) for stage, rows in of_stage.items()}
        cells.append(
            (
                *arm.cells,
                *(
                    f"{with_interval(dice[stage])} ({scans_of(rows)})" if rows else DASH
                    for stage, rows in of_stage.items()
                ),
            )
        )
        values += [
            (
                *(arm.cohort, *identity(arm.configuration), stage, scans_of(rows), patients_of(rows)),
                *(dice[stage].scores, *estimate_values(dice[stage])),
            )
            for stage, rows in of_stage.items()
            if rows
        ]
    return Table(
        "table_3_stages",
        title,
        ("cohort", "method", "augmentation", *stages),
        tuple(cells),
        3,
        ("in parentheses: scans",),
        ("cohort", *IDENTITY, "stage", "scans", "patients", "scores", *estimate_columns("dice_mean")),
        tuple(values),
    )


def table_quantification(study: StudyResults) -> Table:
    """IV: agreement of the infected share of the lungs, and of the infected volume."""
    title = "Table IV: quantification"
    cells: list[tuple[str, ...]] = []
    values: list[tuple[Number, ...]] = []
    for arm in arms(study):
        if not infected(arm.rows):
            continue
        line: list[str] = []
        numbers: list[Number] = []
        for unit, scale, decimals in (("share", 100.0, 2), ("ml", 1.0, 1)):
            rmse, found = rmse_of(arm.rows, unit), agreement_of(arm.rows, unit)
            worst = None if found.worst is None else found.worst * scale
            line += [
                with_interval(rmse, decimals, scale),
                number(found.pearson),
                number(worst, decimals),
            ]
            numbers += [rmse.scores, *estimate_values(rmse), found.pearson, found.worst]
        cells.append((*arm.cells, str(scans_of(arm.rows)), str(patients_of(arm.rows)), *line))
        values.append(
            (arm.cohort, *identity(arm.configuration), scans_of(arm.rows), patients_of(arm.rows), *numbers)
        )
    if not cells:
        return Table("table_4_quantification", title, absent="no scan with an infection was scored")
    columns: list[str] = []
    for unit in ("share", "ml"):
        columns += [
            f"{unit}_scores",
            *estimate_columns(f"{unit}_rmse"),
            f"{unit}_pearson",
            f"{unit}_worst_error",
        ]
    return Table(
        "table_4_quantification",
        title,
        (
            *("cohort", "method", "augmentation", "scans", "patients"),
            *("share: RMSE, % points [95 %]", "Pearson", "worst, % points"),
            *("volume: RMSE, ml [95 %]", "Pearson", "worst, ml"),
        ),
        tuple(cells),
        3,
        ("share: infected share of the lungs; scans without infection count where others have some",),
        ("cohort", *IDENTITY, "scans", "patients", *columns),
        tuple(values),
    )


def table_ratios(study: StudyResults) -> Table:
    """V: synthetic scans per real one, each ratio against none."""
    lines = []
    notes = []
    for method, generator, ratios in swept(study):
        base = study.whole(method, NOTHING)
        if base is None:
            notes.append(f"{method} was not run at 0 %, so its ratios are compared with nothing")
        else:
            lines.append(Line((method, generator, "0 %"), base))
        for ratio in ratios:
            whole = study.whole(method, Level(generator, ratio))
            if whole is not None:
                change = f"{generator} scans at {ratio:g} % changed the Dice of {method} by"
                lines.append(
                    Line((method, generator, f"{ratio:g} %"), whole, base, f"{method}, {whole.level}", change)
                )
    return contrast_table(
        study,
        "table_5_ratios",
        "Table V: ratio of synthetic to real scans",
        ("method", "generator", "ratio"),
        lines,
        notes=[*notes, "difference: to 0 %"],
        absent="no method was trained both without and with synthetic scans",
    )


def table_augmentation(study: StudyResults) -> Table:
    """VI: every method without and with the main augmentation."""
    level = study.main_level
    name, title = "table_6_augmentation", "Table VI: methods without and with augmentation"
    absent = "no method was trained both without and with the same augmentation"
    if level is None:
        return Table(name, title, absent=absent)
    lines, notes = [], []
    for method in study.methods:
        base, whole = study.whole(method, NOTHING), study.whole(method, level)
        if base is None or whole is None:
            notes.append(
                f"{method} was not run at {NOTHING.label if base is None else level.label}: left out"
            )
            continue
        change = f"Augmentation at {level.ratio:g} % ({level.generator}) changed the Dice of {method} by"
        lines.append(Line((method, base.level), base))
        lines.append(Line((method, whole.level), whole, base, f"{method}: augmentation", change))
    return contrast_table(
        study,
        name,
        f"{title} ({level.label})",
        ("method", "augmentation"),
        lines,
        notes=[*notes, "difference: to 0 %"],
        absent=absent,
    )


def table_components(study: StudyResults) -> Table:
    """VII: components of the three-way method removed: normalise, combine, vary, augment."""
    name, title = "table_7_components", "Table VII: components removed"
    absent = "no component of the three-way method was removed"
    variants = study.variants(THREE_WAY, ("normalise", "view", "vary"))
    usable = {level: found for level, found in variants.items() if study.whole(THREE_WAY, level) is not None}
    level = study.best_level(usable) or study.main_level
    whole = None if level is None else study.whole(THREE_WAY, level)
    if level is None or whole is None:
        return Table(name, title, absent=absent)
    lines = [Line(("none: the whole method",), whole)]
    base = study.whole(THREE_WAY, NOTHING)
    notes = ["difference: to the whole; below 0, the component helps"]
    found = [(_removed(arm), arm) for arm in usable.get(level, ())]
    if base is not None and base != whole:
        found.append(("augment", base))
    views = [arm for arm in usable.get(level, ()) if set(arm.parts) == {"view"}]
    best = _best(study, views)
    for what, arm in sorted(found, key=lambda pair: _component_order(pair[1])):
        mark = ", the best view" if arm == best and len(views) > 1 else ""
        sentence = f"Removing {what}{mark} changed the Dice of {whole.label} by"
        lines.append(Line((f"{what}{mark}",), arm, whole, f"without {what}", sentence))
    if best is not None and len(views) > 1:
        notes.append("the best view has the highest mean Dice on these very scans: chosen with hindsight")
    elsewhere = [other.label for other in variants if other != level]
    if elsewhere:
        notes.append(f"components were also removed at {', '.join(elsewhere)}, not shown")
    return contrast_table(
        study,
        name,
        f"{title} ({whole.label})",
        ("removed",),
        lines,
        notes=notes,
        absent=absent,
    )


TABLES: tuple[Callable[[StudyResults], Table], ...] = (
    table_methods,
    table_stages,
    table_quantification,
    table_ratios,
    table_augmentation,
    table_components,
    *FURTHER_TABLES,
)
"""All tables of a study, in the order they are shown in."""


def all_tables(study: StudyResults) -> list[Table]:
    """Make every table; one with nothing to show says why in `Table.absent`."""
    return [make(study) for make in TABLES]


def swept(study: StudyResults) -> list[tuple[str, str, list[float]]]:
    """Method, generator and ratios above 0 %, for generators that some method has at two ratios or more.

    Where no generator was varied, those of the main level.
    """
    ratios: dict[tuple[str, str], list[float]] = {}
    for found in study.configurations:
        if not found.variant and found.folds == study.folds and found.ratio > 0:
            ratios.setdefault((found.method, found.generator), []).append(found.ratio)
    varied = {generator for (_, generator), several in ratios.items() if len(several) > 1}
    if not varied and study.main_level is not None:
        varied = {study.main_level.generator}
    return [(*key, sorted(several)) for key, several in ratios.items() if key[1] in varied]


def _best(study: StudyResults, views: Sequence[Configuration]) -> Configuration | None:
    """The view of the highest mean Dice on the first cohort that has one."""
    for cohort in study.cohorts:
        found = {arm: estimate(study.rows_of(arm, cohort), DICE).value for arm in views}
        known = {arm: value for arm, value in found.items() if value is not None}
        if known:
            return max(known, key=lambda arm: known[arm])
    return None


def _removed(arm: Configuration) -> str:
    parts = arm.parts
    words = []
    if "normalise" in parts:
        words.append("normalise")
    if "view" in parts:
        view = parts["view"]
        words.append(f"combine (view {view[0]}-{view[1]} alone)" if view in VIEWS else f"combine ({view})")
    if "vary" in parts:
        words.append("vary (flips, rotations, intensities)")
    return " and ".join(words)


def _component_order(arm: Configuration) -> tuple[int, int, str]:
    order = ("normalise=off", *(f"view={view}" for view in VIEWS), "vary=off", "")
    place = order.index(arm.variant) if arm.variant in order else len(order)
    return max(1, len(arm.parts)), place, arm.variant
