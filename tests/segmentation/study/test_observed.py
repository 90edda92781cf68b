"""Real scans of the same patients on other days: what a perfect simulator would add."""

from pathlib import Path

import pytest

from segmentation.methods import THREE_WAY
from segmentation.study.material import Inputs, check_inputs, fold_of, material_for
from segmentation.study.plan import Run, StudyPlan
from standard_space.errors import UsageError
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.study.studies import SETTINGS
from tests.segmentation.toys import toy_scan

PLAN = StudyPlan((THREE_WAY,), (0.0, 200.0), folds=(2,), generators=("observed",), settings=SETTINGS)


def inputs(folder: Path) -> Inputs:
    """Four patients with one scan each, and three scans of each patient of which one is the same."""
    cohort = toy_cohort(folder / "cohort", *(toy_scan(f"P{k}", "1", seed=k) for k in range(4)))
    more = toy_cohort(
        folder / "more",
        *(toy_scan(f"P{k}", str(day), seed=k + 10 * (day - 1)) for k in range(4) for day in (1, 2, 3, 4)),
    )
    return Inputs(cohort.folder, {}, folder / "out", more.folder)


def test_training_patients_get_their_own_other_scans_as_many_as_the_ratio_says(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    arms = {arm.ratio: arm for arm in PLAN.arms}
    for fold in (1, 2):
        run = Run(arms[200.0], 2, fold, 0)
        plan = fold_of(given.opened(), run)
        added = material_for(given, run, PLAN.options(run.arm, 0))["synthetic"]
        assert {item.patient for item in added} == set(plan.training)
        assert len(added) == 2 * len(plan.training)
        assert all(item.synthetic for item in added)
        # Scan 1 is trained on already.
        assert not {item.name for item in added} & {f"P{k}/1-observed" for k in range(4)}
        again = material_for(given, run, PLAN.options(run.arm, 0))["synthetic"]
        assert [item.name for item in again] == [item.name for item in added]


def test_smaller_ratios_are_among_larger_ones(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    plan = StudyPlan((THREE_WAY,), (100.0, 300.0), folds=(2,), generators=("observed",), settings=SETTINGS)
    names = [
        {item.name for item in material_for(given, Run(arm, 2, 1, 0), plan.options(arm, 0))["synthetic"]}
        for arm in plan.arms
    ]
    assert names[0] < names[1]


def test_where_the_scans_come_from_must_be_said_and_only_then(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    cohort, more = given.opened(), given.more_scans()
    check_inputs(cohort, {}, PLAN, more)
    with pytest.raises(UsageError, match="go together"):
        check_inputs(cohort, {}, PLAN, None)
    with pytest.raises(UsageError, match="go together"):
        check_inputs(cohort, {}, StudyPlan((THREE_WAY,), (0.0,), folds=(2,)), more)


def test_nobody_is_tested_on_who_is_among_the_other_scans(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    other = toy_cohort(tmp_path / "other", toy_scan("P0", "8", seed=77))
    with pytest.raises(UsageError, match="patients or images that are trained on"):
        check_inputs(given.opened(), {"other": other}, PLAN, given.more_scans())
