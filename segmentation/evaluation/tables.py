"""Scores as text for people and as a table for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from segmentation.evaluation.metrics import FAILURE_DICE
from segmentation.evaluation.scan_scores import GROUPS, METRICS
from segmentation.evaluation.summary import FEW_PATIENTS

TITLES = {
    "held_out": "Held-out patients",
    "validation": "Validation patients, which the model was tuned on",
    "training": "Training patients, which the model has seen",
}

_VOLUMES = ("true_ml", "predicted_ml", "true_share", "predicted_share")
_CSV = ("patient", "scan", "stage", "group", "reason", *METRICS, *_VOLUMES)


def format_scores(scores: Mapping[str, Any]) -> str:
    """Write the result of `evaluate` or `score_cohort` as aligned plain text."""
    lines = [f"Scores on the {scores['space']} grid"]
    if "model_id" in scores:
        rule = scores["aggregation"]
        lines[0] += (
            f", model {scores['model_id']} of the {scores['target']}, rule {rule['rule']}, "
            f"threshold {rule['threshold']:g}"
        )
    for group in GROUPS:
        rows = [row for row in scores["scans"] if row["group"] == group]
        if rows or group == "held_out":
            lines += ["", *group_lines(TITLES[group], rows, scores["groups"][group])]
        if rows and group == "held_out" and not scores.get("knows_its_patients", True):
            lines.append(
                "  the model was imported and does not know its training patients: these may be among them"
            )
        if not rows and group == "held_out":
            lines.append("  the model knows every patient scored here: these figures say nothing of new ones")
    lines += ["", *scores["definitions"], *interval_lines(scores)]
    lines += [f"left out: {text}" for text in scores["left_out"]]
    return "\n".join(lines)


def group_lines(title: str, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> list[str]:
    """Title, a row for every scan, and the summary of one group."""
    if not rows:
        return [f"{title}: no scans"]
    lines = [
        f"{title}: {len(rows)} scans of {summary['patients']} patients, "
        f"{summary['failures']['count']} with Dice below {FAILURE_DICE:g}"
    ]
    if summary["without_truth"]:
        lines.append(
            f"  {summary['without_truth']} with an empty annotation: Dice 1 where nothing was found, else 0"
        )
    table = [["scan", *METRICS, "true ml", "found ml"]]
    for row in rows:
        volumes = [f"{row['true_ml']:.1f}", f"{row['predicted_ml']:.1f}"]
        table.append([f"{row['patient']}/{row['scan']}", *(cell(row[m]) for m in METRICS), *volumes])
    return [*lines, *aligned([*table, *summary_rows(summary)]), *agreement_lines(summary)]


def summary_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """The rows below a table: median, mean, sd, worst, intervals and the mean of every stage."""
    metrics, table = summary["metrics"], []
    for name in ("median", "mean", "sd", "worst"):
        table.append([name, *(cell(metrics[m][name]) for m in METRICS), "", ""])
        interval = f"{name}_interval"
        if metrics["dice"].get(interval) is not None:
            for end, label in ((0, "from"), (1, "to")):
                ends = [metrics[m][interval] for m in METRICS]
                table.append(
                    [f"  95 % {label}", *("-" if both is None else cell(both[end]) for both in ends), "", ""]
                )
    for stage, of_stage in summary["per_stage"].items():
        label = f"mean, {stage} ({of_stage['dice']['n']})"
        table.append([label, *(cell(of_stage[m]["mean"]) for m in METRICS), "", ""])
    return table


def agreement_lines(summary: Mapping[str, Any]) -> list[str]:
    """How well volumes and infected shares agree."""
    lines = []
    for name, label in (("infected_share", "infected share of the lungs"), ("volume_ml", "volume, ml")):
        found = summary[name]
        if found["n"]:
            interval = found.get("rmse_interval")
            ends = "" if interval is None else f" ({cell(interval[0])} to {cell(interval[1])})"
            lines.append(
                f"  {label}: RMSE {cell(found['rmse'])}{ends}, Pearson {cell(found['pearson'])}, "
                f"worst error {cell(found['worst_error'])}"
            )
    return lines


def interval_lines(scores: Mapping[str, Any]) -> list[str]:
    """Say how the intervals were made, and when they are not to be relied on."""
    held_out = scores["groups"]["held_out"]
    if held_out["scans"] == 0:
        return []
    if held_out["patients"] < 2:
        return ["no intervals: one held-out patient says nothing of how patients differ"]
    how = scores["intervals"]
    lines = [f"intervals: {how['level']:.0%}, {how['method']}, {how['resamples']} times"]
    if held_out["patients"] < FEW_PATIENTS:
        lines.append(f"with {held_out['patients']} patients these intervals are too narrow")
    return lines


def scores_csv(rows: Sequence[Mapping[str, Any]], *, more: Sequence[str] = ()) -> str:
    """Return one CSV line per scan: names, group, metrics, volumes, shares, then the columns of `more`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = (*_CSV, *more)
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if row[column] is None else row[column] for column in columns])
    return text.getvalue()


def cell(value: float | None) -> str:
    """Three decimals, "-" for None."""
    return "-" if value is None else f"{value:.3f}"


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Columns aligned, the first to the left."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  "
        + "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
