"""Scores of a study: those of `evaluate`, of test patients alone, and no rule is tuned on any of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmentation.aggregation import RULES, Aggregation
from segmentation.evaluation.cohort_scores import evaluate
from segmentation.methods import THREE_WAY
from segmentation.model import ThreeWaySegmenter
from segmentation.segmenter import patient_sha256
from segmentation.study import scoring
from segmentation.study.plan import Arm, Run, StudyPlan
from segmentation.study.scoring import METRICS, VIEW_CUT, VOLUMES, RunScores, score_run
from segmentation.tuning import Tuned
from segmentation.views import VIEWS
from standard_space.cohort import Cohort, Entry
from standard_space.scan import Scan
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.images import constant_model, lively_model
from tests.segmentation.toys import toy_scan

RUN = Run(Arm(THREE_WAY, "offline", 200.0), 2, 1, 3)
TRAINED, TUNED, TESTED = ("T0", "T1"), ("V0", "V1"), ("X0", "X1", "X2")


def plan_of(**given: Any) -> StudyPlan:
    return StudyPlan((THREE_WAY,), (0.0, 200.0), folds=(2,), **given)


def from_scanner(scan: Scan, scanner: str) -> Scan:
    return replace(scan, provenance={**scan.provenance, "scanner": scanner})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("scoring")
    scans = [
        from_scanner(toy_scan(name, "1", seed=seed), "AB"[seed % 2])
        for seed, name in enumerate((*TRAINED, *TUNED, *TESTED))
    ]
    return toy_cohort(folder / "c", *scans)


def of(cohort: Cohort, names: Iterable[str]) -> list[Entry]:
    return [entry for entry in cohort.entries if entry.patient in names]


def known(model: ThreeWaySegmenter) -> ThreeWaySegmenter:
    for key, names in (("patients", TRAINED), ("validation_patients", TUNED)):
        model.training[key] = [{"patient_sha256": patient_sha256(name), "image_sha256": []} for name in names]
    return model


def scored(
    cohort: Cohort,
    model: ThreeWaySegmenter | None = None,
    *,
    plan: StudyPlan | None = None,
    run: Run = RUN,
    tested: Sequence[Entry] | None = None,
    tests: dict[str, Cohort] | None = None,
    validation: Iterable[str] = TUNED,
) -> RunScores:
    return score_run(
        known(model or lively_model()),
        plan or plan_of(),
        run,
        (cohort, of(cohort, TESTED) if tested is None else tested),
        of(cohort, validation),
        tests or {},
        device="cpu",
    )


def test_rows_are_what_evaluate_says_of_the_same_model(cohort: Cohort) -> None:
    model = known(lively_model())
    model.aggregation = Aggregation("sum>t", 1.5)
    result = scored(cohort, model)
    assert result.failures == {}
    assert result.predict_s is not None
    assert result.predict_s > 0.0
    expected = evaluate(model, Cohort(cohort.folder, of(cohort, TESTED)), device="cpu")["scans"]
    assert [row.patient for row in result.rows] == list(TESTED)
    for row, scores in zip(result.rows, expected, strict=True):
        assert 0.0 < scores["dice"] < 1.0
        for name in (*METRICS, *VOLUMES, "patient", "scan", "stage"):
            assert getattr(row, name) == scores[name], name
        about = (row.method, row.generator, row.ratio, row.variant, row.folds, row.fold, row.seed, row.cohort)
        assert about == (THREE_WAY, "offline", 200.0, "", 2, 1, 3, "own")
    assert [row.scanner for row in result.rows] == ["A", "B", "A"]


def test_every_other_cohort_is_scored_under_its_name(cohort: Cohort, tmp_path: Path) -> None:
    nothing = toy_scan("N", "1", seed=5)
    assert nothing.native_infection is not None
    nothing = replace(
        nothing,
        infection=np.zeros_like(nothing.lungs),
        native_infection=np.zeros_like(nothing.native_infection),
    )
    tests = {
        "away": toy_cohort(
            tmp_path / "away", toy_scan("Y", "1", seed=6), toy_scan("Z", "1", annotated=False)
        ),
        "well": toy_cohort(tmp_path / "well", nothing),
    }
    result = scored(cohort, constant_model(0.9), tests=tests)
    assert [(row.cohort, row.patient) for row in result.rows] == [
        *(("own", name) for name in TESTED),
        ("away", "Y"),
        ("well", "N"),
    ]
    assert result.failures == {}
    # Nothing to find: overlap says nothing, the volume found does.
    row = result.rows[-1]
    assert not row.infected
    assert [getattr(row, name) for name in METRICS if name != "specificity"] == [None] * 6
    assert row.specificity is not None
    assert (row.true_ml, row.true_share) == (0.0, 0.0)
    assert row.predicted_ml > 100.0
    assert row.scanner is None


def test_a_scan_that_fails_is_named_and_the_others_are_scored(tmp_path: Path) -> None:
    cohort = toy_cohort(tmp_path / "c", *(toy_scan(name, "1") for name in TESTED))
    cohort.path(cohort.find("X1", "1")).write_bytes(b"no scan")
    result = scored(cohort)
    assert [row.patient for row in result.rows] == ["X0", "X2"]
    assert list(result.failures) == ["own: X1/1"]
    (tmp_path / "c" / "X0_1.h5").unlink()
    (tmp_path / "c" / "X2_1.h5").unlink()
    none = scored(cohort)
    assert (none.rows, none.predict_s, len(none.failures)) == ([], None, 3)


@pytest.mark.parametrize("patient", [TRAINED[0], TUNED[0]])
def test_no_scan_of_a_patient_the_model_knows_is_ever_scored(cohort: Cohort, patient: str) -> None:
    result = scored(cohort, tested=of(cohort, (patient, "X0")))
    assert [row.patient for row in result.rows] == ["X0"]
    assert "knows the patient" in result.failures[f"own: {patient}/1"]


def test_an_image_that_was_trained_on_is_not_scored_under_another_name(
    cohort: Cohort, tmp_path: Path
) -> None:
    model = known(lively_model())
    model.training["patients"][0]["image_sha256"] = ["the image"]
    twin = replace(toy_scan("W", "1"), provenance={"image_sha256": "the image"})
    result = score_run(
        model,
        plan_of(),
        RUN,
        (cohort, []),
        [],
        {"away": toy_cohort(tmp_path / "away", twin)},
        device="cpu",
    )
    assert result.rows == []
    assert list(result.failures) == ["away: W/1"]


@pytest.fixture
def tunings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Rules that were tuned, and on whom."""
    found: list[tuple[str, list[str]]] = []
    whole = scoring.tune_with

    def told(predictor: Any, validation: Iterable[Scan], *, rule: str) -> Tuned:
        found.append((rule, [scan.patient for scan in validation]))
        return whole(predictor, validation, rule=rule)

    monkeypatch.setattr(scoring, "tune_with", told)
    return found


def test_single_views_are_tuned_on_validation_patients_and_scored_apart(
    cohort: Cohort, tunings: list[tuple[str, list[str]]]
) -> None:
    result = scored(cohort, plan=plan_of(without=("combine",)))
    assert tunings == [("mean", list(TUNED))] * 3
    variants = ["", *(f"view={view}" for view in VIEWS)]
    assert [row.variant for row in result.rows] == variants * len(TESTED)
    for name in TESTED:
        volumes = [row.predicted_ml for row in result.rows if row.patient == name]
        assert len(set(volumes)) > 1
    other = replace(RUN, arm=Arm(THREE_WAY, "none", 0.0))
    assert {row.variant for row in scored(cohort, plan=plan_of(without=("combine",)), run=other).rows} == {""}


def test_rules_are_tuned_on_validation_patients_and_scored_apart(
    cohort: Cohort, tunings: list[tuple[str, list[str]]]
) -> None:
    result = scored(cohort, plan=plan_of(choices=("rules",)))
    tried = [rule for rule in RULES if rule not in ("sum>t", "mean")]
    assert tunings == [(rule, list(TUNED)) for rule in tried]
    assert [row.variant for row in result.rows] == ["", *(f"rule={rule}" for rule in tried)] * len(TESTED)


def test_a_model_of_another_rule_is_compared_with_the_papers(cohort: Cohort) -> None:
    model = lively_model()
    model.aggregation = Aggregation("majority", 0.5)
    result = scored(cohort, model, plan=plan_of(choices=("rules",)), validation=())
    assert result.failures == {}
    assert {row.variant for row in result.rows} == {"", "rule=sum", "rule=product"}


def test_without_validation_patients_rules_stay_as_published(
    cohort: Cohort, tunings: list[tuple[str, list[str]]]
) -> None:
    plan = plan_of(without=("combine",), choices=("rules",))
    # Above the cut of every rule there is everything, below it nothing.
    for value, everything in ((0.7, True), (0.6, False)):
        assert (value > VIEW_CUT) == everything
        result = scored(cohort, constant_model(value), plan=plan, validation=())
        variants = {"", *(f"view={view}" for view in VIEWS), "rule=product", "rule=majority"}
        assert {row.variant for row in result.rows} == variants
        assert all((row.predicted_ml > 0.0) == everything for row in result.rows)
    assert tunings == []


def test_without_normalisation_the_same_voxels_are_scored(cohort: Cohort) -> None:
    run = replace(RUN, arm=replace(RUN.arm, variant="normalise=off"))
    plain = scored(cohort, constant_model(0.9))
    other = scored(cohort, constant_model(0.9), run=run)
    assert {row.variant for row in other.rows} == {"normalise=off"}
    for row, same in zip(other.rows, plain.rows, strict=True):
        # All of the lungs, of the image's own: their volume is that in true millimetres.
        assert row.true_ml == same.true_ml
        assert row.predicted_ml == pytest.approx(same.predicted_ml, rel=0.05)
        assert row.dice == pytest.approx(same.dice, abs=0.05)
    model = lively_model()
    model.aggregation = Aggregation("sum>t", 1.5)
    lively = [scored(cohort, model, run=one).rows for one in (RUN, run)]
    assert [row.predicted_ml for row in lively[0]] != [row.predicted_ml for row in lively[1]]


def test_a_validation_scan_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    scans = [toy_scan(name, "1", seed=seed) for seed, name in enumerate((*TUNED, *TESTED))]
    cohort = toy_cohort(tmp_path / "c", *scans)
    cohort.path(cohort.entries[0]).write_bytes(b"damaged")
    found = scored(cohort, plan=plan_of(without=("combine",)))
    assert {row.variant for row in found.rows} == {"", *(f"view={view}" for view in VIEWS)}
    assert not found.failures
