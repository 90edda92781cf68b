"""A cross-validation as text: a line per fold, then all held-out scans together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segmentation.evaluation.scan_scores import METRICS
from segmentation.evaluation.tables import aligned, cell, group_lines, interval_lines


def format_crossvalidation(scores: Mapping[str, Any], folds: int) -> str:
    """Write the pooled scores of `crossvalidate` as aligned plain text.

    Parameters
    ----------
    scores : dict
        ``Crossvalidation.scores``.
    folds : int
        How many there should be; missing ones are said.
    """
    lines = [
        f"Cross-validation in {folds} folds of patients, scores on the {scores['space']} grid, of the "
        f"{scores['target']}"
    ]
    table = [["fold, mean over scans", "patients", "scans", "tuned on", "threshold", *METRICS, "failures"]]
    for fold in scores["folds"]:
        held_out = fold["held_out"]
        table.append(
            [
                f"fold {fold['fold']}",
                str(held_out["patients"]),
                str(held_out["scans"]),
                str(len(fold["validation_patients"])),
                f"{fold['aggregation']['threshold']:.4g}",
                *(cell(held_out["metrics"][metric]["mean"]) for metric in METRICS),
                str(held_out["failures"]["count"]),
            ]
        )
    lines += ["", *aligned(table)]
    rules = sorted({fold["aggregation"]["rule"] for fold in scores["folds"]})
    lines.append(f"rule {', '.join(rules)}; tuned on: patients")
    lines += ["", *group_lines("All folds together", scores["scans"], scores["groups"]["held_out"])]
    if len(scores["folds"]) < folds:
        done = ", ".join(str(fold["fold"]) for fold in scores["folds"])
        lines.append(f"  incomplete: only fold {done} of {folds}; these are not the figures of the cohort")
    lines += ["", *scores["definitions"], *interval_lines(scores)]
    lines.append("models of different folds share training patients: the intervals do not know it")
    lines += [f"left out: {text}" for text in scores["left_out"]]
    return "\n".join(lines)
