"""What held and what did not, in sentences made from the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from segmentation.evaluation.comparison import SIGNIFICANCE
from segmentation.study.contrast_table import DICE
from segmentation.study.paper_tables import swept
from segmentation.study.statistics import estimate
from segmentation.study.study_results import NOTHING, Level, StudyResults, cohort_name
from segmentation.study.table import Contrast, Table, difference_cell, number, p_cell, p_words

FEWEST_SEEDS = 3
"""With fewer a report says that a single training's chance is in every difference."""

ONE_BY_ONE = {
    "table_6_augmentation": "Augmentation",
    "table_2_methods": "The three-way method against the others",
    "table_7_components": "Components of the three-way method",
    "table_generators": "Generators of synthetic scans",
}
"""Tables of which every comparison is told, and their headings."""

TOGETHER = {
    "table_s1_choices": "Slice offsets and aggregation rules",
    "table_mueller": "Mueller's method",
}
"""Tables of which comparisons are listed by outcome."""


def conclusions(study: StudyResults, tables: Sequence[Table], *, depth: int = 3) -> list[str]:
    """Return Markdown lines: a heading and sentences for every table that compares something."""
    found = {table.name: table for table in tables if table.contrasts}
    few = _seed_sentence(len({row.seed for row in study.rows}))
    lines: list[str] = [f"**{few}**", ""] if few and found else []
    for name, heading in ONE_BY_ONE.items():
        if name in found:
            sentences = [sentence(contrast) for contrast in found[name].contrasts]
            lines += _part(heading, sentences, depth)
    if "table_5_ratios" in found:
        lines += _part("Ratios", ratio_sentences(study, found["table_5_ratios"]), depth)
    for name, heading in TOGETHER.items():
        if name in found:
            lines += _part(heading, together(found[name].contrasts), depth)
    negatives = [text for table in tables if table.name == "table_negatives" for text in alarms(study, table)]
    if negatives:
        lines += _part("Scans without infection", negatives, depth)
    return lines[:-1] or ["Nothing was compared: there is one configuration only, or no scan that two share."]


def _seed_sentence(seeds: int) -> str | None:
    """Say that trainings were repeated too few times to tell a method from the chance of a training; else None."""
    if seeds >= FEWEST_SEEDS:
        return None
    return (
        f"{seeds} training {'seed' if seeds == 1 else 'seeds'}: a difference holds for these trained models on "
        "other patients. Trained again with another seed, or on another draw of synthetic scans, the same methods "
        "may differ the other way: intervals and p do not know this chance."
    )


def sentence(contrast: Contrast) -> str:
    """Tell one comparison: the difference, its p, and what may be concluded."""
    found = contrast.difference
    patients = f"{found.patients} patient" if found.patients == 1 else f"{found.patients} patients"
    told = (
        f"{contrast.sentence} {difference_cell(found)}, {p_words(found.p)} "
        f"(Holm {p_cell(contrast.p_holm)}), {patients}, {cohort_name(contrast.cohort)}"
    )
    return f"{told}: {verdict(contrast)}."


def verdict(contrast: Contrast) -> str:
    """Say what may be concluded from a comparison."""
    found = contrast.difference
    if found.patients < 2:
        return "one patient says nothing of how patients differ"
    if contrast.shown:
        return "shown, an increase" if (found.mean or 0.0) > 0 else "shown, a decrease"
    if found.excludes_zero:
        text = "not shown: the interval excludes 0, but the corrected p does not confirm it"
        if found.smallest_p > SIGNIFICANCE:
            text += f"; with so few patients p cannot fall below {found.smallest_p:.3g}"
        elif found.p is not None and found.p <= found.smallest_p * (1 + 1e-9):
            text += (
                f"; p is the least that {found.patients} patients can give, all of whom differ this way, and "
                "still too large for so many comparisons"
            )
        return text
    if found.detectable is None:
        return "no difference was shown"
    return f"no difference was shown (one of {number(found.detectable)} would be found with 80 % power)"


def ratio_sentences(study: StudyResults, table: Table) -> list[str]:
    """For each method, generator and cohort: where a difference to 0 % was shown, and the best ratio."""
    sentences = []
    for method, generator, ratios in swept(study):
        for cohort in study.cohorts:
            subjects = {f"{method}, {Level(generator, ratio).label}": f"{ratio:g} %" for ratio in ratios}
            own = [
                (subjects[contrast.subject], contrast)
                for contrast in table.contrasts
                if contrast.cohort == cohort and contrast.subject in subjects
            ]
            if not own:
                continue
            rose = [name for name, contrast in own if contrast.shown and (contrast.difference.mean or 0) > 0]
            fell = [name for name, contrast in own if contrast.shown and name not in rose]
            rest = [name for name, contrast in own if not contrast.shown]
            told = [
                f"{what} at {', '.join(names)}"
                for what, names in (
                    ("a higher Dice was shown", rose),
                    ("a lower Dice was shown", fell),
                    ("no difference was shown", rest),
                )
                if names
            ]
            means = {
                level.label: estimate(study.rows_of(study.whole(method, level), cohort), DICE).value
                for level in (NOTHING, *(Level(generator, ratio) for ratio in ratios))
            }
            known = {label: value for label, value in means.items() if value is not None}
            best = max(known, key=lambda label: known[label])
            sentences.append(
                f"{method}, {generator}, {cohort_name(cohort)}, against 0 %: {'; '.join(told)}. The highest mean "
                f"Dice is {number(known[best])} at {best}, chosen with hindsight."
            )
    return sentences


def together(contrasts: Sequence[Contrast]) -> list[str]:
    """List comparisons by outcome, a sentence for each cohort."""
    sentences = []
    for cohort in dict.fromkeys(contrast.cohort for contrast in contrasts):
        own = [contrast for contrast in contrasts if contrast.cohort == cohort]
        shown = [
            f"{contrast.subject} {difference_cell(contrast.difference)}" for contrast in own if contrast.shown
        ]
        rest = [contrast.subject for contrast in own if not contrast.shown]
        told = [f"shown: {'; '.join(shown)}" if shown else "no difference was shown"]
        if shown and rest:
            told.append(f"no difference was shown: {'; '.join(rest)}")
        sentences.append(f"{cohort_name(cohort)}, {len(own)} compared: {'. '.join(told)}.")
    return sentences


def alarms(study: StudyResults, table: Table) -> list[str]:
    """Tell how much every method finds where there is nothing, at the levels methods are compared at."""
    shown = {level.label for level in study.levels}
    return [
        f"{method}, {level}, finds {mean_ml} ml on average (worst {worst_ml} ml) in {scans} scans without "
        f"infection, {cohort}."
        for cohort, method, level, scans, _, mean_ml, _, worst_ml, _ in table.rows
        if level in shown
    ]


def _part(heading: str, sentences: Sequence[str], depth: int) -> list[str]:
    return ["#" * depth + f" {heading}", "", *(f"- {text}" for text in sentences), ""]
