"""Names of cases, and folds by patient."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from standard_space.cohort import Entry, open_with_sources
from standard_space.errors import UsageError
from standard_space.export.cases import Case, Row, case_names, list_cases
from standard_space.export.folds import (
    fold_count,
    folds_of_patients,
    training_rows,
    validation_rows,
)
from standard_space.export.settings import ExportSettings
from standard_space.geometry import Geometry
from tests.standard_space.export.cohorts import augmented_of, cohort_of, observed, played

WHERE = Geometry((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))


def entry(patient: str, scan: str, kind: str = "observed", infected: float | None = 1.0) -> Entry:
    return Entry(patient, scan, 0.0, None, kind, "x.h5", "0" * 64, 4000.0, infected)


def case(patient: str, scan: str, kind: str = "observed", infected: float | None = 1.0) -> Case:
    made = entry(patient, scan, kind, infected)
    return Case(f"{patient}_{scan}", made, Path("x.h5"), made, Path("x.h5"), WHERE)


def rows_of(cases: list[Case], folds: int) -> list[Row]:
    found = folds_of_patients(cases, folds)
    return [
        Row(c, found.get(c.entry.patient), f"{c.name}.nii.gz", f"{c.name}.nii.gz" if c.labelled else None)
        for c in cases
    ]


def test_plain_names_stay_as_they_are() -> None:
    entries = [entry("p1", "a"), entry("p1", "a-sim1", "synthetic"), entry("Müller", "día.1")]
    assert case_names(entries) == ["p1_a", "p1_a-sim1", "Müller_día.1"]


def test_names_are_unique_safe_and_show_the_kind() -> None:
    entries = [
        entry("a_b", "c"), entry("a", "b_c"), entry("A", "b_C"),
        entry("p q", "x:y*?"), entry("p-q", "x-y-"),
        entry("p", "a-sim1"), entry("p", "a-sim1", "synthetic"), entry("p", "a_sim2", "synthetic"),
        entry("-rf", "x"), entry("长" * 100, "名" * 100), entry("长" * 100, "名" * 99 + "-sim3", "synthetic"),
    ]  # fmt: skip
    names = case_names(entries)
    assert len({name.casefold() for name in names}) == len(entries)
    assert case_names(entries[::-1]) == names[::-1]
    for name, of in zip(names, entries, strict=True):
        assert re.fullmatch(r"\w[\w.-]*", name), name
        assert len(f".tmp-4194304-01234567-{name}_0000.nii.gz".encode()) <= 255
        assert bool(re.search(r"-sim\d+$", name)) == of.synthetic


def test_folds_keep_patients_together_and_balance_cases() -> None:
    sizes = {"a": 5, "b": 3, "c": 2, "d": 2, "e": 1, "f": 1, "g": 1}
    cases = [case(p, f"s{k}") for p, n in sizes.items() for k in range(n)]
    cases += [case(p, f"s0-sim{k}", "synthetic") for p in sizes for k in (1, 2)]
    rows = rows_of(cases, 3)
    assert fold_count(rows) == 3
    held = Counter()
    for fold in range(3):
        train, val = training_rows(rows, fold), validation_rows(rows, fold)
        assert not {r.case.entry.patient for r in train} & {r.case.entry.patient for r in val}
        assert all(r.case.entry.kind == "observed" for r in val)
        assert len(train) == len([r for r in rows if r.fold != fold])
        held.update(r.case.name for r in val)
        assert len(val) == 5
    assert set(held.values()) == {1}
    assert len(held) == 15
    assert rows_of(cases[::-1], 3)[::-1] == rows


def test_fewer_patients_than_folds() -> None:
    assert fold_count(rows_of([case("a", "x"), case("b", "x")], 5)) == 2
    assert folds_of_patients([case("a", "x"), case("a", "y")], 5) == {}


def test_patients_without_an_observed_labelled_case_are_only_trained_on() -> None:
    cases = [
        case("a", "x"), case("b", "x"), case("c", "x", infected=None), case("c", "x-sim1", "synthetic"),
    ]  # fmt: skip
    rows = rows_of(cases, 5)
    assert [row.fold is None for row in rows] == [False, False, True, True]
    for fold in range(2):
        assert "c_x-sim1" in {row.case.name for row in training_rows(rows, fold)}


@pytest.mark.parametrize(
    "bad", [{"consolidation_hu": float("nan")}, {"consolidation_hu": 5000.0}, {"folds": 1}]
)
def test_settings_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        ExportSettings(**bad)


def test_an_observed_scan_named_like_a_synthetic_one_is_exported(tmp_path: Path) -> None:
    plain, like = observed("p", "a"), observed("p", "a-sim1")
    cohort = cohort_of(tmp_path / "c", plain, like)
    folder = augmented_of(tmp_path / "aug", cohort, (played(plain), plain))
    cases = list_cases(open_with_sources(folder, cohort.folder), ExportSettings()).cases
    assert sorted((case.entry.scan, case.entry.synthetic) for case in cases) == [
        ("a", False),
        ("a-sim1", False),
        ("a-sim1", True),
    ]
    assert len({case.name for case in cases}) == 3
