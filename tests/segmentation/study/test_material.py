"""What a run learns from: nothing of a patient it is tuned or tested on, by any generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmentation.methods import THREE_WAY
from segmentation.segmenter import patient_sha256
from segmentation.study.material import AUGMENTED, Inputs, check_inputs, fold_of, material_for, prepare
from segmentation.study.plan import Arm, Run, StudyPlan
from segmentation.training import TrainingItem, train
from simulator.generators import copy_paste
from standard_space.errors import DataError, LungcastError, UsageError
from standard_space.progress import silent
from standard_space.scan import Scan
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.toys import toy_scan

PATIENTS = 4
SETTINGS = {"": {"steps": 2, "width": 2, "batch_size": 2, "patch": 16}}
GENERATORS = ("offline", "on-the-fly", "copy-paste", "ellipsoids")
RATIOS = (0.0, 50.0, 100.0, 200.0)


def plan_of(**given: Any) -> StudyPlan:
    wanted: dict[str, Any] = {"folds": (4,), "generators": GENERATORS, "settings": SETTINGS, **given}
    return StudyPlan((THREE_WAY,), RATIOS, **wanted)


def healthy(patient: str) -> Scan:
    scan = toy_scan(patient, "1", seed=3)
    nothing = np.zeros_like(scan.lungs)
    assert scan.native_infection is not None
    return replace(scan, infection=nothing, native_infection=np.zeros_like(scan.native_infection))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Four patients with infection and one without, and their stored synthetic scans."""
    folder = tmp_path_factory.mktemp("material")
    scans = [toy_scan(f"P{k}", "1", seed=k) for k in range(PATIENTS)]
    toy_cohort(folder / "c", *scans, healthy("H0"), toy_scan("P0", "2", seed=9, annotated=False))
    inputs = Inputs(folder / "c", {}, folder / "out")
    assert prepare(inputs, plan_of(), jobs=1, progress=lambda _: silent) == {}
    return inputs


def run_of(generator: str, ratio: float, fold: int = 1, seed: int = 0, variant: str = "") -> Run:
    return Run(Arm(THREE_WAY, generator, ratio, variant), 4, fold, seed)


def made_for(inputs: Inputs, run: Run) -> dict[str, Any]:
    return material_for(inputs, run, plan_of().options(run.arm, run.seed))


def names(items: Sequence[TrainingItem]) -> set[str]:
    return {item.name for item in items}


def patients(items: Sequence[TrainingItem]) -> set[str]:
    return {item.patient for item in items}


@pytest.mark.parametrize("generator", ["none", *GENERATORS])
def test_nobody_is_on_two_sides_of_a_fold(inputs: Inputs, generator: str) -> None:
    tested: list[str] = []
    for fold in range(1, 5):
        run = run_of(generator, 0.0 if generator == "none" else 200.0, fold)
        made = made_for(inputs, run)
        own = fold_of(inputs.opened(), run)
        tested += own.test
        assert patients(made["originals"]) == set(own.training)
        assert patients(made["validation"]) == set(own.validation)
        assert not set(own.training) & set(own.validation)
        assert not (set(own.training) | set(own.validation)) & set(own.test)
        assert patients(made["synthetic"]) <= set(own.training)
        if made["sampler"] is not None:
            assert {entry.patient for entry in made["sampler"].entries} <= set(own.training) - {"H0"}
        assert (made["sampler"] is not None) == (generator == "on-the-fly")
        assert bool(made["synthetic"]) == (generator in ("offline", "copy-paste", "ellipsoids"))
        assert all(item.synthetic for item in made["synthetic"])
    assert sorted(tested) == sorted({"H0", *(f"P{k}" for k in range(PATIENTS))})


def test_folds_are_the_same_for_every_method_ratio_and_seed(inputs: Inputs) -> None:
    cohort = inputs.opened()
    base = fold_of(cohort, run_of("none", 0.0))
    assert fold_of(cohort, run_of("offline", 200.0, seed=7)) == base
    assert fold_of(cohort, replace(run_of("none", 0.0), arm=Arm("unet2d", "ellipsoids", 50.0))) == base


@pytest.mark.parametrize("generator", ["offline", "copy-paste", "ellipsoids"])
def test_smaller_ratios_lie_in_larger_ones(inputs: Inputs, generator: str) -> None:
    found = [made_for(inputs, run_of(generator, ratio))["synthetic"] for ratio in RATIOS[2:]]
    assert names(found[0]) < names(found[1])
    annotated = [item for item in made_for(inputs, run_of("none", 0.0))["originals"] if item.annotated]
    infected = [item for item in annotated if item.patient != "H0"]
    assert [len(items) for items in found] == [len(infected), 2 * len(infected)]
    # Half a scan of each: it is the same scans' coin for every generator.
    try:
        half = made_for(inputs, run_of(generator, 50.0))["synthetic"]
    except DataError:
        half = []
    assert names(half) <= names(found[0])


def test_every_generator_makes_as_many_of_the_same_scans(inputs: Inputs) -> None:
    for ratio in RATIOS[2:]:
        counts = []
        for generator in ("offline", "copy-paste", "ellipsoids"):
            made = made_for(inputs, run_of(generator, ratio))["synthetic"]
            counts.append(sorted(item.patient for item in made))
        assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("generator", ["offline", "copy-paste", "ellipsoids"])
def test_a_synthetic_scan_is_the_same_every_time(inputs: Inputs, generator: str) -> None:
    one, other = (made_for(inputs, run_of(generator, 200.0, seed=seed))["synthetic"] for seed in (0, 5))
    assert [item.name for item in one] == [item.name for item in other]
    assert [item.content_sha256 for item in one] == [item.content_sha256 for item in other]
    assert len({item.name for item in one}) == len({item.content_sha256 for item in one}) == len(one)
    first, again = one[0].load(), other[0].load()
    assert np.array_equal(first.signal, again.signal)
    assert np.array_equal(np.asarray(first.infection), np.asarray(again.infection))
    assert first.patient == one[0].patient
    if generator != "copy-paste":  # the same donor's lesion, cut a little wider: on a coarse grid the same
        assert not np.array_equal(first.signal, one[1].load().signal)


def test_a_smaller_ratio_does_not_get_the_shorter_progressions(inputs: Inputs) -> None:
    # By number they are in the order of their days.
    numbers = {
        item.name.rpartition("-sim")[2]
        for fold in range(1, 5)
        for item in made_for(inputs, run_of("offline", 100.0, fold))["synthetic"]
    }
    assert numbers == {"1", "2"}


def test_lesions_are_lent_by_training_patients_only(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    lenders: list[str] = []
    whole = copy_paste.apply

    def told(scan: Scan, donor: Scan, *rest: Any) -> Scan:
        lenders.append(donor.patient)
        assert donor.patient != scan.patient
        return whole(scan, donor, *rest)

    monkeypatch.setattr(copy_paste, "apply", told)
    for fold in range(1, 5):
        run = run_of("copy-paste", 200.0, fold)
        lenders.clear()
        for item in made_for(inputs, run)["synthetic"]:
            item.load()
        assert lenders
        assert set(lenders) <= set(fold_of(inputs.opened(), run).training) - {"H0"}


def test_a_training_knows_its_own_patients_alone(inputs: Inputs) -> None:
    run = run_of("copy-paste", 100.0)
    own = fold_of(inputs.opened(), run)
    model = train(**made_for(inputs, run), options=plan_of().options(run.arm, 0), device="cpu")
    assert {entry["patient_sha256"] for entry in model.training["patients"]} == {
        patient_sha256(name) for name in own.training
    }
    assert model.training["synthetic"] > 0
    for name in own.test:
        assert model.trained_on(patient_sha256(name), None) is None


def test_without_normalisation_everything_is_seen_so(inputs: Inputs) -> None:
    run = run_of("offline", 100.0, variant="normalise=off")
    plan = StudyPlan((THREE_WAY,), RATIOS, folds=(4,), without=("normalise",), settings=SETTINGS)
    made = material_for(inputs, run, plan.options(run.arm, 0))
    plain = made_for(inputs, run_of("offline", 100.0))
    for kind in ("originals", "validation", "synthetic"):
        assert names(made[kind]) == names(plain[kind])
        for item, other in zip(made[kind], plain[kind], strict=True):
            assert item.content_sha256 != other.content_sha256
        seen = made[kind][0].load()
        assert -0.5 - 1e-6 <= seen.signal.min() <= seen.signal.max() <= 0.5 + 1e-6
        assert seen.window.source == "image"


def test_what_is_made_already_is_kept(inputs: Inputs) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (inputs.out / AUGMENTED).glob("*.h5")}
    assert before
    prepare(inputs, plan_of(), jobs=1, progress=lambda _: silent)
    after = {path.name: path.stat().st_mtime_ns for path in (inputs.out / AUGMENTED).glob("*.h5")}
    assert after == before
    assert (
        len(before) == 2 * PATIENTS
    )  # of the scan without infection, and of the unannotated one, there are none


def test_nothing_is_made_that_no_arm_needs(tmp_path: Path) -> None:
    cohort = toy_cohort(tmp_path / "c", *(toy_scan(f"P{k}", seed=k) for k in range(4)))
    plan = StudyPlan((THREE_WAY,), (0.0, 100.0), folds=(4,), generators=("ellipsoids",), settings=SETTINGS)
    assert prepare(Inputs(cohort.folder, {}, tmp_path / "o"), plan, jobs=1, progress=lambda _: silent) == {}
    assert not (tmp_path / "o").exists()


def fits(tmp_path: Path, own: Sequence[Scan], other: Sequence[Scan], folds: int = 2) -> None:
    cohort = toy_cohort(tmp_path / "own", *own)
    tests = {"other": toy_cohort(tmp_path / "other", *other)}
    check_inputs(cohort, tests, plan_of(folds=(folds,)))


def test_inputs_whose_results_could_not_be_trusted(tmp_path: Path) -> None:
    own = [toy_scan(f"P{k}", "1", seed=k) for k in range(2)]
    fits(tmp_path / "a", own, [toy_scan("Q", "1", seed=7)])
    refused: list[tuple[str, Sequence[Scan], Sequence[Scan], type[LungcastError]]] = [
        ("patients or images that are trained on.*P1/9", own, [toy_scan("P1", "9", seed=7)], UsageError),
        (
            "patients or images that are trained on.*Q/1",
            own,
            [replace(toy_scan("Q", "1"), provenance=own[1].provenance)],
            UsageError,
        ),
        ("other lies on another grid", own, [toy_scan("Q", "1", size=16)], UsageError),
        (
            "one image stands under several patients",
            [own[0], own[1], replace(toy_scan("P2", "1", seed=2), provenance=own[1].provenance)],
            [toy_scan("Q", "1", seed=7)],
            DataError,
        ),
    ]
    for number, (said, held, tested, kind) in enumerate(refused):
        with pytest.raises(kind, match=said):
            fits(tmp_path / str(number), held, tested)
    with pytest.raises(UsageError, match="fewer patients"):
        fits(tmp_path / "few", own, [], folds=3)


def test_a_ratio_that_gives_no_scan_is_told(inputs: Inputs) -> None:
    with pytest.raises(DataError, match="no synthetic scan to train on at this ratio"):
        made_for(inputs, run_of("ellipsoids", 1e-9))


def test_a_test_cohort_needs_an_observed_scan(tmp_path: Path) -> None:
    cohort = toy_cohort(tmp_path / "c", *(toy_scan(f"P{k}", "1", seed=k) for k in range(4)))
    empty = toy_cohort(tmp_path / "empty")
    with pytest.raises(UsageError, match="no observed scan"):
        check_inputs(cohort, {"empty": empty}, StudyPlan((THREE_WAY,), (0.0,), folds=(2,)))
