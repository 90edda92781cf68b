"""Ratios, plans, and augmented cohorts: reproducible, resumable, isolated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.augmentation import (
    AugmentationSettings,
    augment_cohort,
    fits_for,
    make_volume,
    parse_ratio,
    plan_volumes,
    prepare_folder,
)
from simulator.fits import fit_cohort
from standard_space.cohort import Cohort
from standard_space.errors import UsageError
from tests.simulator.scans import cohort_of, small_scan


@pytest.mark.parametrize(("text", "ratio"), [("200%", 2.0), ("50 %", 0.5), ("1.5", 1.5), ("0%", 0.0)])
def test_ratios(text: str, ratio: float) -> None:
    assert parse_ratio(text) == ratio


@pytest.mark.parametrize("text", ["-50%", "nan", "inf", "many", ""])
def test_bad_ratios(text: str) -> None:
    with pytest.raises(UsageError, match="ratio"):
        parse_ratio(text)


def test_a_ratio_keeps_its_floor_and_one_more_by_chance() -> None:
    counts = [len(plan_volumes("p", f"s{k}", 1.5, seed=0)) for k in range(400)]
    assert set(counts) == {1, 2}
    assert 160 < counts.count(2) < 240
    assert plan_volumes("p", "s", 0.0, seed=0) == []


def test_plans_are_drawn_within_200_transitions_without_repetition() -> None:
    plans = plan_volumes("p", "s", 200.0, seed=3)
    assert sorted(plan.transitions for plan in plans) == list(range(1, 201))
    assert len({plan.seed for plan in plans}) == 200
    assert [plan.number for plan in plans] == list(range(1, 201))
    assert plan_volumes("p", "s", 2.0, seed=3) == plan_volumes("p", "s", 2.0, seed=3)
    assert plan_volumes("p", "s", 2.0, seed=3) != plan_volumes("p", "s", 2.0, seed=4)
    assert len(plan_volumes("p", "s", 201.0, seed=3)) == 201


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    healthy = small_scan(patient="q")
    return cohort_of(
        tmp_path_factory.mktemp("cohort") / "c",
        small_scan(scan="a"),
        small_scan(scan="b", day=3.0, shift=0.04),
        replace(healthy, infection=np.zeros_like(healthy.infection)),
    )


def run(cohort: Cohort, folder: Path, ratio: float = 2.0):
    settings = AugmentationSettings(ratio, seed=5)
    prepare_folder(folder, cohort, settings)
    return augment_cohort(cohort, folder, fits_for(cohort, None, folder), settings)


def test_an_augmented_cohort_holds_what_was_asked_for(cohort: Cohort, tmp_path: Path) -> None:
    outcome = run(cohort, tmp_path / "a")
    assert list(outcome.failures) == ["q/a"]
    assert (tmp_path / "a" / "fits.json").is_file()
    augmented = Cohort.open(tmp_path / "a", sources=cohort)
    assert [entry.scan for entry in augmented.entries if entry.synthetic] == [
        "a-sim1",
        "a-sim2",
        "b-sim1",
        "b-sim2",
    ]
    for entry in augmented.entries:
        scan, source = augmented.read(entry), cohort.read(cohort.find("p", entry.scan[0]))
        assert source.day < scan.day <= source.day + 2.0
        assert not (scan.infection & ~source.susceptible).any()
        changed = (scan.infection != source.infection) | (scan.signal != source.signal)
        assert changed.any()
        assert not (changed & ~source.susceptible).any()
        assert entry.infected_ml == pytest.approx(scan.infection.sum() * scan.grid.voxel_volume_ml, abs=1e-3)
        assert str(tmp_path) not in str(scan.provenance)


def test_a_volume_is_made_again_from_its_provenance(cohort: Cohort, tmp_path: Path) -> None:
    run(cohort, tmp_path / "a")
    augmented = Cohort.open(tmp_path / "a", sources=cohort)
    entry = augmented.entries[-1]
    kept = augmented.read(entry)
    source_entry = cohort.find("p", "b")
    (plan,) = [p for p in plan_volumes("p", "b", 2.0, 5) if p.number == kept.provenance["plan"]["number"]]
    stored = fit_cohort(cohort).of(source_entry)
    again = make_volume(
        cohort.read(source_entry), source_entry.content_sha256, stored, plan, AugmentationSettings(2.0, 5)
    )
    np.testing.assert_array_equal(again.infection, kept.infection)
    np.testing.assert_array_equal(again.signal.astype(np.float16), kept.signal.astype(np.float16))


def test_an_interrupted_run_is_completed_to_the_same_bytes(cohort: Cohort, tmp_path: Path) -> None:
    run(cohort, tmp_path / "whole")
    run(cohort, tmp_path / "cut")
    removed = tmp_path / "cut" / "p_b-sim1.h5"
    removed.unlink()
    (tmp_path / "cut" / "manifest.csv").unlink()
    untouched = (tmp_path / "cut" / "p_a-sim1.h5").stat().st_mtime_ns
    run(cohort, tmp_path / "cut")
    assert (tmp_path / "cut" / "p_a-sim1.h5").stat().st_mtime_ns == untouched
    for file in sorted(path.name for path in (tmp_path / "whole").iterdir()):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "cut" / file).read_bytes(), file


def test_another_augmentation_in_the_folder_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    run(cohort, tmp_path / "a")
    with pytest.raises(UsageError, match="another augmentation"):
        prepare_folder(tmp_path / "a", cohort, AugmentationSettings(3.0, 5))
    prepare_folder(tmp_path / "a", cohort, AugmentationSettings(3.0, 5), force=True)
    assert not (tmp_path / "a" / "p_a-sim1.h5").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="not empty"):
        prepare_folder(tmp_path / "other", cohort, AugmentationSettings(3.0, 5))
    with pytest.raises(UsageError, match="only empties folders that lungcast made"):
        prepare_folder(tmp_path / "other", cohort, AugmentationSettings(3.0, 5), force=True)
