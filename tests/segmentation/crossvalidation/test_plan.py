from __future__ import annotations

from itertools import chain

import pytest

from segmentation.crossvalidation.plan import plan_folds
from standard_space.cohort import Entry
from standard_space.errors import UsageError
from standard_space.export.folds import folds_of_entries


def entry(patient: str, scan: str = "1", *, infected_ml: float | None = 5.0, kind: str = "observed") -> Entry:
    return Entry(patient, scan, 0.0, None, kind, f"{patient}_{scan}.h5", "0", 3000.0, infected_ml)


def entries_of(patients: int) -> list[Entry]:
    return [entry(f"P{number:02}") for number in range(patients)]


@pytest.mark.parametrize(("patients", "folds"), [(2, 2), (3, 2), (7, 3), (10, 5), (5, 5)])
def test_everybody_is_tested_once_and_never_known_to_that_model(patients: int, folds: int) -> None:
    entries = entries_of(patients)
    plans = plan_folds(entries, folds, seed=0)
    assert [plan.number for plan in plans] == list(range(1, folds + 1))
    everybody = sorted(e.patient for e in entries)
    assert sorted(chain.from_iterable(plan.test for plan in plans)) == everybody
    for plan in plans:
        parts = (plan.test, plan.validation, plan.training)
        assert sorted(chain.from_iterable(parts)) == everybody
        assert plan.training
    if folds > 2:
        assert sorted(chain.from_iterable(plan.validation for plan in plans)) == everybody
        following = [*plans[1:], plans[0]]
        assert [plan.validation for plan in plans] == [plan.test for plan in following]


def test_two_folds_keep_a_quarter_to_validate_on_and_one_patient_keeps_none() -> None:
    assert [len(plan.validation) for plan in plan_folds(entries_of(16), 2, seed=0)] == [2, 2]
    assert [len(plan.validation) for plan in plan_folds(entries_of(4), 2, seed=0)] == [1, 1]
    assert [plan.validation for plan in plan_folds(entries_of(2), 2, seed=0)] == [(), ()]
    chosen = {plan_folds(entries_of(16), 2, seed=seed)[0].validation for seed in range(6)}
    assert len(chosen) > 1
    assert len({plan_folds(entries_of(16), 2, seed=seed)[0].test for seed in range(6)}) == 1


def test_folds_are_those_of_the_export_whatever_the_order() -> None:
    entries = [*entries_of(7), entry("P03", "2"), entry("P05", "2")]
    exported = folds_of_entries(entries, 3)
    for given in (entries, entries[::-1]):
        for plan in plan_folds(given, 3, seed=4):
            assert {exported[patient] for patient in plan.test} == {plan.number - 1}


def test_synthetic_and_unannotated_scans_do_not_make_a_patient() -> None:
    entries = [*entries_of(3), entry("X", infected_ml=None), entry("Y", kind="synthetic")]
    everybody = set(chain.from_iterable(plan.test for plan in plan_folds(entries, 3, seed=0)))
    assert everybody == {"P00", "P01", "P02"}


def test_validation_patients_without_infection_are_trained_on() -> None:
    entries = [entry("A"), *(entry(name, infected_ml=0.0) for name in ("B", "C", "D"))]
    plans = plan_folds(entries, 4, seed=0)
    assert sorted(chain.from_iterable(plan.validation for plan in plans)) == ["A"]
    assert all(len(plan.training) == (2 if plan.validation else 3) for plan in plans)


def test_what_cannot_be_shared_out() -> None:
    with pytest.raises(UsageError, match="at least two folds"):
        plan_folds(entries_of(4), 1, seed=0)
    with pytest.raises(
        UsageError, match=r"fewer patients.*got 3 patients, expected 4 or more.*fewer --folds"
    ):
        plan_folds(entries_of(3), 4, seed=0)
    with pytest.raises(UsageError, match="more patients"):
        plan_folds(entries_of(1), 2, seed=0)
