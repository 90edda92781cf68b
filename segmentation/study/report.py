"""The report of a study: sentences from the numbers, tables, figures, and how it was run."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segmentation.evaluation.summary import LEVEL, RESAMPLES
from segmentation.study.conclusions import conclusions
from segmentation.study.contrast_table import infected, patients_of
from segmentation.study.figures import study_figures
from segmentation.study.missing import missing_sentences
from segmentation.study.paper_tables import all_tables
from segmentation.study.statistics import few_sentences
from segmentation.study.study_results import StudyResults, cohort_name, read_study
from segmentation.study.table import Table
from simulator.figure_style import save_figure
from standard_space.files import write_text

READING = (
    "the tables have the shape of the paper's; its supplement S1 is not public, and which table holds what (II "
    "methods, III stages, IV quantification, V ratios, VI methods without and with augmentation, VII components) "
    "is this project's assignment",
    "cross-validation in {folds} folds of patients unless a table says otherwise; 0 %: real scans alone, with the "
    "method's own flips, rotations and intensities",
    "differences: the same scan, fold and seed on both sides, averaged within a patient, then over patients, so "
    "that they need not equal the difference of two means over scans",
    "p: two-sided Wilcoxon signed-rank test of patients; Holm: corrected for all comparisons of the table, not "
    "across tables",
    "effect: matched-pairs rank-biserial correlation, -1 to 1; detectable: the smallest difference of Dice that "
    "this many patients with their observed spread show with 80 % power at 5 % (paired t test)",
    "shown: the interval lies on one side of 0, and the corrected p is below 0.05",
    "steps are equal per network, not per method: the three-way method trains three networks; batches are the "
    "methods' own",
    "models of different folds share training patients, and seeds are few: the intervals do not know it",
)
"""How the numbers of a report were made."""

REPORT, TABLES, FIGURES = "report.md", "tables", "figures"
UNPAIRED = "unpaired"

_OWN_TABLE = re.compile(r"(table_[a-z0-9_]+|unpaired)\.csv")
_OWN_FIGURE = re.compile(
    r"(dice_by_ratio_[a-z-]+|methods|ratios|augmentation|components|generators|choices|scanners)\.png"
)


def write_report(folder: str | Path, *, title: str = "Study") -> list[Path]:
    """Write report.md, tables/*.csv and figures/*.png beside a study's results.

    Tables and figures that an earlier report left there and this one does not have are removed. The same CSVs and
    study.json give the same bytes of text and tables.

    Parameters
    ----------
    folder : str or Path
        With results.csv, costs.csv and study.json, see `read_study`.
    title : str
        Heading of the report.

    Returns
    -------
    list of Path
        What was written, the report first.

    Raises
    ------
    LungcastError
        See `read_study`.
    """
    folder = Path(folder)
    study = read_study(folder)
    tables = all_tables(study)
    written = write_tables(tables, folder / TABLES)
    pictures = write_figures(study, tables, folder / FIGURES)
    links = {f"{FIGURES}/{path.name}": caption for path, caption in pictures.items()}
    text = "\n".join([f"# {title}", "", study_markdown(study, tables, links)])
    write_text(folder / REPORT, text)
    return [folder / REPORT, *written, *pictures]


def write_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write the numbers of every table that has some, and the scores without a partner; returns the paths."""
    texts = {f"{table.name}.csv": table.to_csv() for table in tables if table.absent is None}
    lacking = _unpaired_csv(tables)
    if lacking is not None:
        texts[f"{UNPAIRED}.csv"] = lacking
    _remove_others(folder, "*.csv", _OWN_TABLE, texts)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def write_figures(
    study: StudyResults, tables: Sequence[Table], folder: Path, *, prefix: str = ""
) -> dict[Path, str]:
    """Write every figure that has something to show; returns captions by path.

    Parameters
    ----------
    study : StudyResults
    tables : sequence of Table
    folder : Path
    prefix : str
        Of the files' names, for a folder that several studies share.
    """
    drawn = study_figures(study, tables)
    names = {f"{prefix}{name}.png" for name in drawn}
    _remove_others(folder, f"{prefix}*.png", re.compile(re.escape(prefix) + _OWN_FIGURE.pattern), names)
    paths = {}
    for name, (figure, caption) in drawn.items():
        path = folder / f"{prefix}{name}.png"
        save_figure(figure, path)
        paths[path] = caption
    return paths


def study_markdown(
    study: StudyResults, tables: Sequence[Table], pictures: Mapping[str, str], *, depth: int = 2
) -> str:
    """Write a study as Markdown, without its title.

    Parameters
    ----------
    study : StudyResults
    tables : sequence of Table
        Of `all_tables`.
    pictures : dict
        Captions by link.
    depth : int
        Of its headings.
    """
    mark = "#" * depth
    shown = [table for table in tables if table.absent is None]
    lines = [f"{mark} What held and what did not", "", *conclusions(study, shown, depth=depth + 1)]
    lines += ["", f"{mark} How to read it", "", *(f"- {text}" for text in _reading(study, shown))]
    for link, caption in pictures.items():
        lines += ["", f"![{caption}]({link})", "", caption]
    for table in shown:
        lines += ["", f"{mark} {table.title}", "", table.to_markdown()]
    lacking = missing_sentences(study)
    if lacking:
        lines += ["", f"{mark} What is missing", "", *(f"- {text}" for text in lacking)]
    left_out = [table for table in tables if table.absent is not None]
    if left_out:
        lines += [
            "",
            f"{mark} Tables left out",
            "",
            *(f"- {table.title}: {table.absent}" for table in left_out),
        ]
    lines += ["", f"{mark} How it was run", "", *_run_lines(study.about)]
    return "\n".join(lines) + "\n"


def _reading(study: StudyResults, shown: Sequence[Table]) -> list[str]:
    texts = [
        *(text.format(folds=study.folds) for text in READING),
        f"means over scans, with {100 * LEVEL:g} % percentile bootstrap intervals: patients drawn with "
        f"replacement, {RESAMPLES} times, each with all scans, folds and seeds",
    ]
    for cohort in study.cohorts:
        rows = [row for row in study.rows if row.cohort == cohort and row.folds == study.folds]
        ill = infected(rows)
        if ill:
            texts += few_sentences(cohort_name(cohort), len({row.fold for row in ill}), patients_of(ill))
    if any(
        contrast.difference.only_first or contrast.difference.only_second for contrast in _contrasts(shown)
    ):
        texts.append(f"scores without a partner are named below their tables, all in {UNPAIRED}.csv")
    return texts


def _contrasts(tables: Sequence[Table]) -> list[Any]:
    return [contrast for table in tables for contrast in table.contrasts]


def _unpaired_csv(tables: Sequence[Table]) -> str | None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("table", "cohort", "comparison", "only", "patient", "scan", "fold", "seed"))
    found = False
    for table in tables:
        for contrast in table.contrasts:
            sides = {"first": contrast.difference.only_first, "second": contrast.difference.only_second}
            for side, places in sides.items():
                for place in places:
                    found = True
                    fold = "" if place.fold is None else place.fold
                    names = (table.name, contrast.cohort, contrast.subject, side)
                    writer.writerow((*names, place.patient, place.scan, fold, place.seed))
    return text.getvalue() if found else None


def _remove_others(folder: Path, pattern: str, own: re.Pattern[str], names: Any) -> None:
    for old in sorted(folder.glob(pattern)):
        if own.fullmatch(old.name) and old.name not in names:
            old.unlink()


def _run_lines(about: Mapping[str, Any]) -> list[str]:
    if not about:
        return ["There is no study.json: how it was run is not recorded."]
    lines = []
    for name, value in about.items():
        label = name.replace("_", " ")
        if isinstance(value, list) and any(isinstance(part, str) and " " in part for part in value):
            lines += [f"- {label}:", *(f"  - {_words(part)}" for part in value)]
        else:
            lines.append(f"- {label}: {_words(value)}")
    return lines


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        parts = (f"{str(name).replace('_', ' ')} {_inner(part)}" for name, part in value.items())
        return ", ".join(parts) or "none"
    if isinstance(value, list):
        return ", ".join(_inner(part) for part in value) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _inner(value: Any) -> str:
    text = _words(value)
    return f"({text})" if isinstance(value, Mapping | list) and len(value) > 1 else text
