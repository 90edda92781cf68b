"""A table of many scans' results, as a CSV file and for the console."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from standard_space.files import write_text

SUMMARY = "summary.csv"

_NUMBERS = {
    "infection": (
        "lungs_ml",
        "infection_ml",
        "infected_share",
        "ggo_ml",
        "consolidation_ml",
        "consolidation_hu",
        "left_lung_share",
        "right_lung_share",
        "severity",
        "mean_lesion_hu",
        "mean_healthy_lung_hu",
    ),
    "lungs": ("lungs_ml", "mean_lung_hu"),
}


def write_summary(
    path: str | Path,
    stems: Sequence[str],
    reports: Mapping[str, dict[str, Any]],
    problems: Mapping[str, str],
    *,
    target: str,
) -> None:
    """Write one row a scan: its numbers, or why there are none.

    Parameters
    ----------
    stems : sequence of str
        All scans, in order.
    reports : mapping
        What ``quantification.json`` of a scan holds.
    problems : mapping
        What went wrong with a scan, without any path.
    """
    columns = _NUMBERS[target]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["scan", *columns, "model_id", "threshold", "image_sha256", "problem"])
    for stem in stems:
        report = reports.get(stem)
        if report is None:
            rows.writerow([stem, *[""] * (len(columns) + 3), problems[stem]])
            continue
        about = [report["model_id"], report["aggregation"]["threshold"], report["image_sha256"], ""]
        numbers = [_number(report, column) for column in columns]
        rows.writerow([stem, *("" if value is None else value for value in numbers), *about])
    write_text(path, text.getvalue())


def summary_table(reports: Mapping[str, dict[str, Any]], target: str) -> list[list[str]]:
    """The rows of the table for the console, the header first."""
    if target == "lungs":
        return [["scan", "lungs, ml"], *([stem, f"{r['lungs_ml']:.0f}"] for stem, r in reports.items())]
    rows = [["scan", "lungs, ml", "infected, ml", "share", "GGO, ml", "consolidation, ml", "severity"]]
    for stem, report in reports.items():
        share, score = report["infected_share"], _number(report, "severity")
        rows.append(
            [
                stem,
                f"{report['lungs_ml']:.0f}",
                f"{report['infection_ml']:.1f}",
                "" if share is None else f"{share:.1%}",
                f"{report['ggo_ml']:.1f}",
                f"{report['consolidation_ml']:.1f}",
                "" if score is None else f"{score:g}",
            ]
        )
    return rows


def _number(report: dict[str, Any], column: str) -> float | None:
    if column == "severity":
        return None if report["severity"] is None else report["severity"]["total"]
    if column.endswith("_lung_share"):
        lung = report[column.removesuffix("_share")]
        return None if lung is None else lung["infected_share"]
    value: float | None = report[column]
    return value
