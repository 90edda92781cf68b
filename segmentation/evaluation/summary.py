"""The scores of many scans in few numbers, with intervals that respect that a patient's scans belong together."""

from __future__ import annotations

import functools
import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from segmentation.evaluation.metrics import FAILURE_DICE, share_errors
from segmentation.evaluation.scan_scores import METRICS

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
INTERVALS = {
    "level": LEVEL,
    "method": "percentile bootstrap; patients, each with all its scans, are drawn with replacement",
    "resamples": RESAMPLES,
    "seed": SEED,
}
"""How the intervals of a summary were made."""

FEW_PATIENTS = 10
"""With fewer, a bootstrap interval is too narrow to be relied on, and the table says so."""

Row = Mapping[str, Any]
Values = NDArray[np.float64]
Statistic = Callable[[Values], Values]
_BATCH = 200


def summarise(rows: Sequence[Row], *, intervals: bool = False) -> dict[str, Any]:
    """Summarise the rows of one group.

    Parameters
    ----------
    rows : sequence of dict
        As `score_scan` makes them.
    intervals : bool
        Add bootstrap intervals, see `INTERVALS`; None where there are fewer than two patients.

    Returns
    -------
    dict
        ``scans``, ``patients``, ``without_truth`` (scans whose annotation is empty), ``metrics`` (see
        `describe`), ``failures`` (Dice below 0.2), ``per_stage``, and agreement of ``infected_share`` (0 to 1)
        and ``volume_ml`` (n, rmse, pearson, worst_error).
    """
    failed = [f"{row['patient']}/{row['scan']}" for row in rows if row["dice"] < FAILURE_DICE]
    stages = sorted({row["stage"] for row in rows if row["stage"] is not None})
    summary: dict[str, Any] = {
        "scans": len(rows),
        "patients": len({row["patient"] for row in rows}),
        "without_truth": sum(row["true_ml"] == 0 for row in rows),
        "metrics": {metric: describe(_values(rows, metric)) for metric in METRICS},
        "failures": {"below_dice": FAILURE_DICE, "count": len(failed), "scans": failed},
        "per_stage": {
            stage: {metric: describe(_values(_of_stage(rows, stage), metric)) for metric in METRICS}
            for stage in stages
        },
        "infected_share": agreement(rows, "share"),
        "volume_ml": agreement(rows, "ml"),
    }
    if intervals:
        for metric, numbers in summary["metrics"].items():
            per_patient = by_patient(rows, operator.itemgetter(metric))
            numbers["mean_interval"] = bootstrap_interval(per_patient, mean)
            numbers["median_interval"] = bootstrap_interval(per_patient, median)
        for name, unit in (("infected_share", "share"), ("volume_ml", "ml")):
            errors = by_patient(rows, functools.partial(_error, unit))
            summary[name]["rmse_interval"] = bootstrap_interval(errors, root_mean_square)
    return summary


def describe(values: Sequence[float]) -> dict[str, Any]:
    """Return n, median, mean, sd and worst (the smallest) of some scores; None where there are none.

    The standard deviation is the sample's, None for a single value.
    """
    if not values:
        return {"n": 0, "median": None, "mean": None, "sd": None, "worst": None}
    return {
        "n": len(values),
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "worst": min(values),
    }


def agreement(rows: Sequence[Row], unit: str) -> dict[str, Any]:
    """Compare ``predicted_`` with ``true_`` "share" or "ml" over the scans that have both [paper III-E]."""
    pairs = [(row[f"predicted_{unit}"], row[f"true_{unit}"]) for row in rows]
    pairs = [pair for pair in pairs if None not in pair]
    errors = share_errors([predicted for predicted, _ in pairs], [true for _, true in pairs])
    return {
        "n": len(pairs),
        "rmse": errors.rmse,
        "pearson": errors.pearson,
        "worst_error": errors.worst,
    }


def by_patient(rows: Sequence[Row], value: Callable[[Row], float | None]) -> list[Values]:
    """Gather a value of every scan by patient, in the order of their names; None is left out."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        found = value(row)
        if found is not None:
            groups.setdefault(row["patient"], []).append(found)
    return [np.array(groups[patient]) for patient in sorted(groups)]


def bootstrap_interval(per_patient: Sequence[Values], statistic: Statistic) -> list[float] | None:
    """Return the percentile bootstrap interval of a statistic of all scans, patients drawn as a whole.

    Parameters
    ----------
    per_patient : sequence of float array
        The values of each patient's scans, at least one.
    statistic : callable
        Of the values along the last axis, NaN left out; for example `mean` or `median`.

    Returns
    -------
    list of two float, or None
        None with fewer than two patients: nothing is known about how patients differ.
    """
    if len(per_patient) < 2:
        return None
    table = np.full((len(per_patient), max(values.size for values in per_patient)), np.nan)
    for place, values in enumerate(per_patient):
        table[place, : values.size] = values

    def of_drawn(drawn: NDArray[np.intp], axis: int) -> Values:
        scans = table[np.moveaxis(drawn, axis, -1)]
        return statistic(scans.reshape(*scans.shape[:-2], -1))

    found = stats.bootstrap(
        (np.arange(len(per_patient)),),
        of_drawn,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(SEED),
    ).confidence_interval
    return [float(found.low), float(found.high)]


def mean(values: Values) -> Values:
    """Mean along the last axis, NaN left out."""
    return np.asarray(np.nanmean(values, axis=-1))


def median(values: Values) -> Values:
    """Median along the last axis, NaN left out."""
    return np.asarray(np.nanmedian(values, axis=-1))


def root_mean_square(values: Values) -> Values:
    """Root of the mean square along the last axis, NaN left out."""
    return np.sqrt(mean(values**2))


def _values(rows: Sequence[Row], metric: str) -> list[float]:
    return [row[metric] for row in rows if row[metric] is not None]


def _of_stage(rows: Sequence[Row], stage: str) -> list[Row]:
    return [row for row in rows if row["stage"] == stage]


def _error(unit: str, row: Row) -> float | None:
    predicted, true = row[f"predicted_{unit}"], row[f"true_{unit}"]
    return None if predicted is None or true is None else predicted - true
