"""Two models on the same held-out scans, patient by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from segmentation.evaluation.scan_scores import METRICS
from segmentation.evaluation.summary import bootstrap_interval, mean
from segmentation.evaluation.tables import aligned, cell

ENUMERATED_PATIENTS = 12
"""Up to here all 2^n signs of the differences are tried, ties or not."""

EXACT_PATIENTS = 50
"""Up to here, without ties, SciPy knows the exact distribution."""

SIGNIFICANCE = 0.05

DECIMALS = 12
"""That a patient's difference is rounded to: what is beyond them is noise of the arithmetic."""

SHARE_ERROR = "share_error"
"""|found - true| infected share of the lungs: the one score of which less is better."""

Values = NDArray[np.float64]


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two results of `evaluate` on the scans that are held out for both.

    The unit is the patient: the difference of a patient is the mean over the patient's scans, since scans of one
    patient are not independent and the test needs differences that are.

    Returns
    -------
    dict
        ``scans``, ``patients``, ``unit`` ("patient"), ``test``, ``knows_its_patients`` (a bool for each of the
        two), and for every metric, and the error of the infected share, what `paired_test` says of first - second;
        ``metrics`` is empty when no scan is held out for both.
    """
    others = {_key(row): row for row in second["scans"] if row["group"] == "held_out"}
    pairs = [
        (row, others[_key(row)])
        for row in first["scans"]
        if row["group"] == "held_out" and _key(row) in others
    ]
    found = {metric: paired_test(_differences(pairs, metric)) for metric in (*METRICS, SHARE_ERROR)}
    return {
        "scans": len(pairs),
        "patients": len({row["patient"] for row, _ in pairs}),
        "unit": "patient",
        "test": "Wilcoxon signed-rank, two-sided, patients without a difference dropped",
        "knows_its_patients": [scores.get("knows_its_patients", True) for scores in (first, second)],
        "metrics": {metric: result for metric, result in found.items() if result["patients"]},
    }


def paired_test(differences: Sequence[Values]) -> dict[str, Any]:
    """Test whether paired differences are centred on zero.

    Parameters
    ----------
    differences : sequence of float array
        Of each patient's scans.

    Returns
    -------
    dict
        ``patients``, ``better`` and ``worse`` (patients above and below zero), ``mean`` and ``median`` of the
        patients' differences, ``mean_interval`` (patients drawn with replacement; None below two),
        ``rank_biserial`` (-1 to 1: the share of rank sums above zero minus that below), ``p``, ``p_method`` and
        ``smallest_p``, the least p that this many patients can give. p is None without patients.
    """
    # Equal differences of scores must be equal, or they would not tie, and 0 must be 0.
    means = np.array([float(values.mean()) for values in differences]).round(DECIMALS)
    moved = means[means != 0.0]
    result: dict[str, Any] = {
        "patients": means.size,
        "better": int(np.count_nonzero(means > 0)),
        "worse": int(np.count_nonzero(means < 0)),
        "mean": float(means.mean()) if means.size else None,
        "median": float(np.median(means)) if means.size else None,
        "mean_interval": bootstrap_interval([means[k : k + 1] for k in range(means.size)], mean),
        "rank_biserial": None,
        "p": 1.0 if means.size else None,
        "p_method": "no patient differs",
        "smallest_p": 1.0,
    }
    if moved.size:
        ranks = stats.rankdata(np.abs(moved))
        result["rank_biserial"] = float((ranks * np.sign(moved)).sum() / ranks.sum())
        result["p"], result["p_method"] = _p_value(moved)
        result["smallest_p"] = min(1.0, 2.0 ** (1 - moved.size))
    return result


def format_comparison(comparison: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Write the result of `compare` as aligned plain text."""
    title = f"{names[0]} minus {names[1]}"
    if not comparison["patients"]:
        return f"{title}: no scan is held out for both, so there is nothing to compare"
    metrics = comparison["metrics"]
    table = [["score", "mean", "95 % from", "to", "median", "better", "worse", "effect", "p", "smallest p"]]
    for metric, found in metrics.items():
        low, high = found["mean_interval"] or (None, None)
        numbers = [found["mean"], low, high, found["median"]]
        table.append(
            [
                metric,
                *("-" if number is None else f"{number:+.4f}" for number in numbers),
                str(found["better"]),
                str(found["worse"]),
                cell(found["rank_biserial"]),
                f"{found['p']:.3g}",
                f"{found['smallest_p']:.3g}",
            ]
        )
    lines = [
        f"{title}, {comparison['scans']} scans of {comparison['patients']} patients held out for both",
        *aligned(table),
        f"{comparison['test']}; a patient's difference is the mean over its scans; effect: matched-pairs rank-"
        f"biserial correlation; better and worse: patients above and below 0 (of {SHARE_ERROR} less is better); "
        "Dice is the primary score, p is not corrected for the others",
    ]
    floor = metrics["dice"]["smallest_p"]
    if floor > SIGNIFICANCE:
        lines.append(
            f"warning: too few patients differ for this test: p for Dice cannot fall below {floor:.3g}, whatever "
            "the models do; no significance can be claimed or denied"
        )
    for name, knows in zip(names, comparison["knows_its_patients"], strict=True):
        if not knows:
            lines.append(
                f"warning: {name} was imported and does not know its training patients: it may have seen those "
                "it is compared on"
            )
    return "\n".join(lines)


def _p_value(moved: Values) -> tuple[float, str]:
    if moved.size == 1:
        return 1.0, "exact"
    if moved.size <= ENUMERATED_PATIENTS:
        every = stats.PermutationMethod(n_resamples=2**moved.size)
        return float(stats.wilcoxon(moved, method=every).pvalue), "exact"
    tied = np.unique(np.abs(moved)).size < moved.size
    if tied or moved.size > EXACT_PATIENTS:
        return float(stats.wilcoxon(moved, method="approx").pvalue), "normal approximation"
    return float(stats.wilcoxon(moved, method="exact").pvalue), "exact"


def _differences(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], metric: str) -> list[Values]:
    groups: dict[str, list[float]] = {}
    for pair in pairs:
        one, other = (_value(row, metric) for row in pair)
        if one is not None and other is not None:
            groups.setdefault(pair[0]["patient"], []).append(one - other)
    return [np.array(groups[patient]) for patient in sorted(groups)]


def _value(row: Mapping[str, Any], metric: str) -> float | None:
    if metric != SHARE_ERROR:
        value: float | None = row[metric]
        return value
    predicted, true = row["predicted_share"], row["true_share"]
    return None if predicted is None or true is None else abs(predicted - true)


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["patient"], row["scan"]
