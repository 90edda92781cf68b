"""Small studies: four made-up patients, two folds, a network of width 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segmentation.methods import THREE_WAY
from segmentation.study.material import Inputs
from segmentation.study.plan import StudyPlan
from segmentation.study.run import StudyOutcome, run_study
from segmentation.training import finish
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.toys import toy_scan

SETTINGS = {"": {"steps": 2, "width": 2, "batch_size": 2, "patch": 16, "validation_slices": 4}}


def plan_of(**given: Any) -> StudyPlan:
    """A plan of four runs, whose synthetic scans need no fits."""
    wanted: dict[str, Any] = {
        "methods": (THREE_WAY,),
        "ratios": (0.0, 100.0),
        "folds": (2,),
        "generators": ("ellipsoids",),
        "settings": SETTINGS,
        **given,
    }
    return StudyPlan(**wanted)


def cohort_in(folder: Path, patients: int = 4) -> Path:
    """Write the cohort."""
    return toy_cohort(folder, *(toy_scan(f"P{k}", "1", seed=k) for k in range(patients))).folder


def study(cohort: Path, out: Path, plan: StudyPlan | None = None, **given: Any) -> StudyOutcome:
    """Do a study in this process."""
    tests = given.pop("tests", {})
    return run_study(Inputs(cohort, tests, out), plan or plan_of(), device="cpu", fresh=False, **given)


def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curves of training: it takes as long as the training itself at this size."""
    monkeypatch.setattr(finish, "training_figure", lambda _: None)
    monkeypatch.setattr(finish, "save_figure", lambda _, path: path.write_bytes(b""))
