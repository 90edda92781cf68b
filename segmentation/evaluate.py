"""Scores of a model on a cohort, on the native grid; training scans apart from held-out ones."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segmentation.metrics import FAILURE_DICE, TOLERANCE_VOXELS, overlap, share_errors
from segmentation.model import ThreeWaySegmenter, image_sha256, patient_sha256
from segmentation.native import to_native
from segmentation.predict import Predictor
from standard_space.cohort import Cohort
from standard_space.errors import DataError
from standard_space.progress import Progress, silent
from standard_space.restore import restore_mask
from standard_space.scan import Scan

GROUPS = ("held_out", "training")

METRICS = ("dice", "recall", "precision", "specificity", "iou", "dice_2voxel")

TOLERANCE_FORMULA = (
    f"dice_2voxel = (predicted voxels within {TOLERANCE_VOXELS:g} voxels of the truth + true voxels within "
    f"{TOLERANCE_VOXELS:g} voxels of the prediction) / (predicted + true voxels)"
)


def evaluate(
    model: ThreeWaySegmenter,
    cohort: Cohort,
    *,
    threshold: float | None = None,
    device: str | torch.device = "auto",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Score a model on the annotated scans of a cohort, on their native grids.

    A scan counts as training data when its patient's or its image's hash is in the model's list; such scans
    form a group of their own and never enter the figures of the held-out ones. Synthetic scans have no native
    annotation and are left out.

    Parameters
    ----------
    model : ThreeWaySegmenter
    cohort : Cohort
        On the model's grid.
    threshold : float, optional
        On the sum of the three probabilities; the model's own when absent.
    progress : Progress
        Called with (scan name, done, total).

    Returns
    -------
    dict
        JSON-serialisable: ``space`` ("native"), ``model_id``, ``aggregation``, ``tolerance``, ``scans``
        (one row each), ``groups`` (``held_out`` and ``training``, see `summarise`), ``left_out``.

    Raises
    ------
    DataError
        No scan has an annotation, or a scan lies on another grid.
    UsageError
        The threshold is out of range, or there is no such device.
    """
    predictor = Predictor(model, device=device)
    return {
        "model_id": model.model_id,
        "aggregation": model.aggregation.at(threshold).to_json(),
        **score_cohort(
            model,
            cohort,
            lambda scan: to_native(predictor.predict(scan, threshold=threshold), scan).mask,
            progress=progress,
        ),
    }


def score_cohort(
    model: ThreeWaySegmenter,
    cohort: Cohort,
    native_mask: Callable[[Scan], NDArray[np.bool_]],
    *,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Score any method on a cohort by the same route as `evaluate`, grouped by the model's training list.

    Parameters
    ----------
    native_mask : callable
        Gives a scan's predicted mask on its native grid, for example ``ThresholdBaseline.native_mask``.

    Raises
    ------
    DataError
        No scan has an annotation.
    """
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for done, entry in enumerate(cohort.entries, 1):
        if entry.synthetic or entry.infected_ml is None:
            left_out.append(f"{entry.name}: {'synthetic' if entry.synthetic else 'no infection annotation'}")
        else:
            scan = cohort.read(entry)
            if scan.native_infection is None:
                left_out.append(f"{entry.name}: no annotation on the native grid")
            else:
                rows.append(score_scan(model, scan, native_mask(scan)))
        progress(entry.name, done, len(cohort.entries))
    if not rows:
        raise DataError(
            "no scan of the cohort has an infection annotation to score against", where=cohort.folder
        )
    groups = {group: summarise([row for row in rows if row["group"] == group]) for group in GROUPS}
    return {
        "space": "native",
        "tolerance": TOLERANCE_FORMULA,
        "scans": rows,
        "groups": groups,
        "left_out": left_out,
    }


def score_scan(model: ThreeWaySegmenter, scan: Scan, predicted: NDArray[np.bool_]) -> dict[str, Any]:
    """Score one predicted native mask: a row with names, group, reason, metrics, shares and volumes (ml).

    Raises
    ------
    DataError
        The scan has no native annotation.
    """
    if scan.native_infection is None:
        raise DataError("the scan has no annotation on the native grid", where=scan.name)
    truth = scan.native_infection
    lungs = scan.native_lungs
    if lungs is None:
        lungs = restore_mask(scan.lungs, scan.placement)
    reason = model.trained_on(patient_sha256(scan.patient), image_sha256(scan))
    lung_voxels = int(np.count_nonzero(lungs))
    voxel_ml = scan.placement.native.voxel_volume_ml
    return {
        "patient": scan.patient,
        "scan": scan.scan,
        "stage": scan.stage,
        "group": "held_out" if reason is None else "training",
        "reason": None if reason is None else f"the {reason} was in the model's training set",
        **overlap(predicted, truth, region=lungs).to_dict(),
        "true_ml": int(np.count_nonzero(truth)) * voxel_ml,
        "predicted_ml": int(np.count_nonzero(predicted)) * voxel_ml,
        "true_share": _share(truth & lungs, lung_voxels),
        "predicted_share": _share(predicted & lungs, lung_voxels),
    }


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the rows of one group: every metric, failures, stages, infected share of the lungs.

    Each metric has n (scans where it is defined), median, mean, sd (sample; 0 for a single scan) and worst.
    """
    summary: dict[str, Any] = {"scans": len(rows)}
    summary["metrics"] = {
        metric: describe([row[metric] for row in rows if row[metric] is not None]) for metric in METRICS
    }
    failed = [f"{row['patient']}/{row['scan']}" for row in rows if row["dice"] < FAILURE_DICE]
    summary["failures"] = {"below_dice": FAILURE_DICE, "count": len(failed), "scans": failed}
    stages = sorted({row["stage"] for row in rows if row["stage"] is not None})
    summary["dice_per_stage"] = {
        stage: describe([row["dice"] for row in rows if row["stage"] == stage]) for stage in stages
    }
    pairs = [
        (row["predicted_share"], row["true_share"]) for row in rows if row["predicted_share"] is not None
    ]
    errors = share_errors([predicted for predicted, _ in pairs], [true for _, true in pairs])
    summary["infected_share"] = {
        "rmse": errors.rmse,
        "pearson": errors.pearson,
        "worst_error": errors.worst,
    }
    return summary


def describe(values: Sequence[float]) -> dict[str, float | int | None]:
    """Return n, median, mean, sd and worst (the smallest) of some scores; None where there are none."""
    if not values:
        return {"n": 0, "median": None, "mean": None, "sd": None, "worst": None}
    return {
        "n": len(values),
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "worst": min(values),
    }


def format_scores(scores: Mapping[str, Any]) -> str:
    """Write the result of `evaluate` as aligned plain text."""
    lines = [f"Scores on the {scores['space']} grid"]
    if "model_id" in scores:
        rule = scores["aggregation"]
        lines[0] += f", model {scores['model_id']}, rule {rule['rule']}, threshold {rule['threshold']:g}"
    for group, title in (("held_out", "Held-out"), ("training", "Training")):
        rows = [row for row in scores["scans"] if row["group"] == group]
        if not rows:
            lines += ["", f"{title}: no scans"]
            continue
        summary = scores["groups"][group]
        lines += [
            "",
            f"{title}: {len(rows)} scans, {summary['failures']['count']} with Dice below {FAILURE_DICE:g}",
        ]
        table = [["scan", *METRICS, "true ml", "found ml"]]
        for row in rows:
            volumes = [f"{row['true_ml']:.1f}", f"{row['predicted_ml']:.1f}"]
            table.append([f"{row['patient']}/{row['scan']}", *(_cell(row[m]) for m in METRICS), *volumes])
        for name in ("median", "mean", "sd", "worst"):
            table.append([name, *(_cell(summary["metrics"][m][name]) for m in METRICS), "", ""])
        lines += _aligned(table)
        for stage, values in summary["dice_per_stage"].items():
            lines.append(f"  stage {stage}: median Dice {_cell(values['median'])} of {values['n']} scans")
        share = summary["infected_share"]
        lines.append(
            f"  infected share of the lungs: RMSE {_cell(share['rmse'])}, Pearson {_cell(share['pearson'])}, "
            f"worst error {_cell(share['worst_error'])}"
        )
    lines += ["", scores["tolerance"]]
    lines += [f"left out: {text}" for text in scores["left_out"]]
    return "\n".join(lines)


def _share(mask: NDArray[np.bool_], lung_voxels: int) -> float | None:
    return int(np.count_nonzero(mask)) / lung_voxels if lung_voxels else None


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
