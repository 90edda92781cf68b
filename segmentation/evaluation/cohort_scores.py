"""Scores of a model on a cohort; patients it was trained or tuned on apart from held-out ones (DESIGN 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segmentation.evaluation.scan_scores import (
    GROUPS,
    TOLERANCE_FORMULA,
    ScoringOptions,
    no_truth,
    nsd_formula,
    score_scan,
)
from segmentation.evaluation.summary import INTERVALS, summarise
from segmentation.methods import predictor_for
from segmentation.results.native import to_native
from segmentation.segmenter import Segmenter
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, LungcastError
from standard_space.jobs import told
from standard_space.progress import Progress, silent
from standard_space.scan import Scan

FoundMask = Callable[[Scan], NDArray[np.bool_]]
"""Gives a scan's predicted mask, on the grid it is scored on."""


def evaluate(
    model: Segmenter,
    cohort: Cohort,
    *,
    threshold: float | None = None,
    device: str | torch.device = "auto",
    options: ScoringOptions | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Score a model on the annotated scans of a cohort.

    A scan counts as training data when its patient's or its image's hash is in the model's list of training
    patients, and as validation data when it is in the list of those the model was tuned on; such scans form
    groups of their own and never enter the figures of the held-out ones. Synthetic scans are left out. One scan
    is in memory at a time, and one that fails does not stop the others.

    Parameters
    ----------
    model : Segmenter
    cohort : Cohort
        On the model's grid.
    threshold : float, optional
        On the scale of the model's rule; the model's own when absent.
    device : str or torch.device
    options : ScoringOptions, optional
        Native grid and a tolerance of 2 mm when absent.
    progress : Progress
        Called with (scan name, done, total).

    Returns
    -------
    dict
        JSON-serialisable: ``model_id``, ``target``, ``knows_its_patients``, ``aggregation``,
        and what `score_cohort` returns.

    Raises
    ------
    DataError
        No scan could be scored.
    UsageError
        The threshold is out of range, or there is no such device.
    """
    options = options or ScoringOptions()
    return {
        "model_id": model.model_id,
        "target": model.target,
        "knows_its_patients": model.knows_its_patients,
        "aggregation": model.aggregation.at(threshold).to_json(),
        **score_cohort(
            model,
            cohort,
            masks_of(model, threshold=threshold, device=device, space=options.space),
            options=options,
            progress=progress,
        ),
    }


def masks_of(
    model: Segmenter,
    *,
    threshold: float | None = None,
    device: str | torch.device = "auto",
    space: str = "native",
) -> FoundMask:
    """Return what gives a scan's mask as the model finds it, on the grid named.

    Raises
    ------
    UsageError
        The threshold is out of range, or there is no such device.
    """
    model.aggregation.at(threshold)
    predictor = predictor_for(model, device=device)

    def mask(scan: Scan) -> NDArray[np.bool_]:
        prediction = predictor.predict(scan, threshold=threshold)
        return (
            prediction.mask if space == "standard" else to_native(prediction, scan, target=model.target).mask
        )

    return mask


def score_cohort(
    model: Segmenter,
    cohort: Cohort,
    found: FoundMask,
    *,
    options: ScoringOptions | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Score any method on a cohort by the same route as `evaluate`, grouped by the model's patients.

    Parameters
    ----------
    model : Segmenter
        Says which patients are held out, and what the target is.
    found : callable
        See `FoundMask`; for example ``ThresholdBaseline.native_mask``.

    Returns
    -------
    dict
        ``space``, ``definitions``, ``intervals``, ``scans`` (one row each, see `score_scan`), ``groups``
        (`summarise` of each of `GROUPS`; intervals for the held-out one), ``left_out`` (sentences) and
        ``failures`` (sentence by scan name).

    Raises
    ------
    DataError
        No scan could be scored.
    """
    options = options or ScoringOptions()
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    failures: dict[str, str] = {}

    def score(entry: Entry) -> dict[str, Any] | str:
        scan = cohort.read(entry)
        reason = no_truth(scan, model.target, options.space)
        return score_scan(model, scan, found(scan), options) if reason is None else reason

    for done, entry in enumerate(cohort.entries, 1):
        reason = skipped(entry, model.target)
        outcome = reason if reason is not None else told(score, entry)
        if isinstance(outcome, LungcastError):
            failures[entry.name] = without_place(outcome)
        elif isinstance(outcome, str):
            left_out.append(f"{entry.name}: {outcome}")
        else:
            rows.append(outcome)
        progress(entry.name, done, len(cohort.entries))
    if not rows:
        raise _nothing_scored(cohort, left_out, failures)
    return {
        "space": options.space,
        "nsd_tolerance_mm": options.nsd_tolerance_mm,
        "definitions": [TOLERANCE_FORMULA, nsd_formula(options.nsd_tolerance_mm)],
        "intervals": INTERVALS,
        "scans": rows,
        "groups": groups_of(rows),
        "left_out": left_out,
        "failures": failures,
    }


def groups_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise each of `GROUPS`, never two together; intervals only for the held-out group."""
    return {
        group: summarise([row for row in rows if row["group"] == group], intervals=group == "held_out")
        for group in GROUPS
    }


def skipped(entry: Entry, target: str) -> str | None:
    """Say why an entry is not scored, as far as the manifest knows; None when it may be."""
    if entry.synthetic:
        return "synthetic"
    if target == "infection" and entry.infected_ml is None:
        return "no infection annotation"
    return None


def without_place(error: LungcastError) -> str:
    """Tell an error of a scan that is named beside it; its path does not belong into a file of scores."""
    return str(LungcastError(error.what, got=error.got, expected=error.expected, remedy=error.remedy))


def _nothing_scored(cohort: Cohort, left_out: list[str], failures: dict[str, str]) -> DataError:
    if failures:
        first = next(iter(failures.values()))
        return DataError(f"no scan could be scored; the first: {first}", where=cohort.folder)
    return DataError(
        "no scan of the cohort has an annotation to score against",
        where=cohort.folder,
        got="; ".join(left_out[:3]) or "no scans",
        remedy="name annotation masks in the manifest and embed again",
    )
