"""Cross-validation by patient: nobody is trained and validated on, and only observed scans are validated on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from standard_space.cohort import Entry
from standard_space.export.cases import Case, Row


def folds_of_patients(cases: Sequence[Case], folds: int) -> dict[str, int]:
    """The fold of each patient who has an observed, labelled case; see `folds_of_entries`."""
    return folds_of_entries([case.entry for case in cases], folds)


def folds_of_entries(entries: Sequence[Entry], folds: int) -> dict[str, int]:
    """The fold of each patient who has an observed, annotated scan.

    The others cannot be validated on; their scans are trained on in every fold.

    Parameters
    ----------
    entries : sequence of Entry
    folds : int
        At most; there are never more than patients.

    Returns
    -------
    dict
        Patient to fold, 0 ... n - 1, with about as many observed scans in each; the same for the same entries.
        Empty when fewer than two patients could be told apart.
    """
    observed = Counter(
        entry.patient for entry in entries if entry.infected_ml is not None and not entry.synthetic
    )
    every = Counter(entry.patient for entry in entries)
    count = min(folds, len(observed))
    if count < 2:
        return {}
    # The largest first, each to the fold that holds least; a hash stands in for chance.
    order = sorted(observed, key=lambda patient: (-observed[patient], -every[patient], _chance(patient)))
    load = [[0, 0] for _ in range(count)]
    found = {}
    for patient in order:
        fold = min(range(count), key=lambda k: (load[k], k))
        load[fold][0] += observed[patient]
        load[fold][1] += every[patient]
        found[patient] = fold
    return found


def _chance(patient: str) -> str:
    return hashlib.sha256(f"fold\0{patient}".encode()).hexdigest()


def training_rows(rows: Sequence[Row], fold: int) -> list[Row]:
    """What a fold is trained on: all cases, synthetic ones included, of the patients of other folds."""
    return [row for row in rows if row.fold != fold]


def validation_rows(rows: Sequence[Row], fold: int) -> list[Row]:
    """What a fold is validated on: the observed, labelled cases of its patients."""
    return [row for row in rows if row.fold == fold and row.label and not row.case.entry.synthetic]


def fold_count(rows: Sequence[Row]) -> int:
    """How many folds there are; 0 without any."""
    return max((row.fold + 1 for row in rows if row.fold is not None), default=0)
