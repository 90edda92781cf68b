"""Augmented cohorts: what was asked for, resumable, isolated, in any number of processes, parts and pieces."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from simulator.augmentation import AugmentationSettings
from simulator.augmentation_plan import Ratios
from simulator.augmentation_run import (
    AugmentationOutcome,
    augment_cohort,
    check_folder,
    fits_for,
    parse_shard,
    prepare_folder,
    stored_fits,
)
from simulator.cohort_fit import fit_cohort
from simulator.fits import CohortFits
from simulator.merge import merge_shards
from simulator.trajectory import open_trajectory
from standard_space.cohort import Cohort
from standard_space.errors import DataError, ScanFileError, UsageError
from standard_space.files import LOCK, read_mark, write_mark
from standard_space.folders import folder_lock
from standard_space.jobs import run_isolated
from tests.simulator.scans import cohort_of, small_scan

SETTINGS = AugmentationSettings(Ratios(2.0), seed=5)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    healthy = small_scan(patient="q")
    return cohort_of(
        tmp_path_factory.mktemp("cohort") / "c",
        small_scan(scan="a"),
        small_scan(scan="b", day=3.0, shift=0.04),
        replace(healthy, infection=np.zeros_like(healthy.infection)),
        replace(small_scan(patient="r"), infection=None, native_infection=None),
    )


@pytest.fixture(scope="module")
def fits(cohort: Cohort) -> CohortFits:
    return fit_cohort(cohort)


def run(
    cohort: Cohort, folder: Path, fits: CohortFits, settings=SETTINGS, shard=None, **options
) -> AugmentationOutcome:
    prepare_folder(folder, cohort, settings, shard=shard)
    return augment_cohort(cohort, folder, fits, settings, shard=shard, **options)


@pytest.fixture(scope="module")
def whole(cohort: Cohort, fits: CohortFits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "a"
    run(cohort, folder, fits)
    return folder


def assert_same(folder: Path, other: Path) -> None:
    names = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
    assert names == sorted(path.name for path in other.iterdir() if path.name != LOCK)
    for name in names:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_an_augmented_cohort_holds_what_was_asked_for(
    cohort: Cohort, fits: CohortFits, tmp_path: Path
) -> None:
    outcome = run(cohort, tmp_path / "a", fits)
    assert list(outcome.failures) == ["q/a"]
    assert outcome.notes == {"r/a": ["no infection mask: not augmented"]}
    assert outcome.kept == 0
    assert set(outcome.seconds) == {"check", "read and verify", "play", "write"}
    augmented = Cohort.open(tmp_path / "a", sources=cohort)
    assert [entry.scan for entry in augmented.entries] == ["a-sim1", "a-sim2", "b-sim1", "b-sim2"]
    for entry in augmented.entries:
        scan, source = augmented.read(entry), cohort.read(cohort.find("p", entry.scan[0]))
        assert source.day < scan.day <= source.day + 2.0
        assert entry.day == scan.day
        assert not (scan.infection & ~source.susceptible).any()
        changed = (scan.infection != source.infection) | (scan.signal != source.signal)
        assert changed.any()
        assert not (changed & ~source.susceptible).any()
        assert entry.infected_ml == pytest.approx(scan.infection.sum() * scan.grid.voxel_volume_ml, abs=1e-3)
        assert entry.lungs_ml == cohort.find("p", entry.scan[0]).lungs_ml
    mark = read_mark(tmp_path / "a")["provenance"]
    assert mark["failed"] == ["q/a"]
    assert mark["planned"] == {"p/a": 2, "p/b": 2, "q/a": 2}
    for path in (tmp_path / "a").glob("*"):
        assert str(tmp_path).encode() not in path.read_bytes()
        assert str(cohort.folder).encode() not in path.read_bytes()


def test_a_run_takes_up_an_earlier_one(cohort: Cohort, fits: CohortFits, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "a")
    missing, damaged, foreign, kept = (
        tmp_path / "a" / f"p_{name}.h5" for name in ("a-sim1", "a-sim2", "b-sim1", "b-sim2")
    )
    missing.unlink()
    with h5py.File(damaged, "r+") as file:
        file["changed_signal"][3] = 0.25
    shutil.copy(kept, foreign)
    before = kept.stat().st_mtime_ns
    outcome = run(cohort, tmp_path / "a", fits)
    assert outcome.kept == 1
    assert kept.stat().st_mtime_ns == before
    assert_same(whole, tmp_path / "a")
    torn = tmp_path / "a" / "p_a-sim2.h5"
    torn.write_bytes(torn.read_bytes()[:-100])
    assert run(cohort, tmp_path / "a", fits).kept == 3
    assert_same(whole, tmp_path / "a")


def test_processes_write_the_same_bytes(
    cohort: Cohort, fits: CohortFits, whole: Path, tmp_path: Path
) -> None:
    run(cohort, tmp_path / "a", fits, runner=functools.partial(run_isolated, jobs=2))
    assert_same(whole, tmp_path / "a")


def test_fits_do_not_depend_on_the_number_of_processes(
    cohort: Cohort, fits: CohortFits, tmp_path: Path
) -> None:
    fits.save(tmp_path / "one.json")
    fit_cohort(cohort, jobs=2).save(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def shards_of(cohort: Cohort, fits: CohortFits, folder: Path, parts: int = 2) -> list[Path]:
    folders = [folder / f"s{part}" for part in range(1, parts + 1)]
    for part, shard in enumerate(folders, start=1):
        run(cohort, shard, fits, shard=(part, parts))
    return folders


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_merged_shards_are_the_undivided_run(
    cohort: Cohort, fits: CohortFits, whole: Path, tmp_path: Path, parts: int
) -> None:
    shards = shards_of(cohort, fits, tmp_path, parts)
    assert merge_shards(shards[::-1], tmp_path / "m") == ["q/a"]
    assert_same(whole, tmp_path / "m")
    # a merge that was killed is made again
    mark = read_mark(tmp_path / "m")["provenance"]
    write_mark(tmp_path / "m", "augmented", {**mark, "complete": False})
    (tmp_path / "m" / "manifest.csv").unlink()
    (tmp_path / "m" / "p_a-sim1.h5").unlink()
    merge_shards(shards, tmp_path / "m")
    assert_same(whole, tmp_path / "m")


def test_shards_with_fits_of_their_own_merge(cohort: Cohort, tmp_path: Path) -> None:
    for name, shard in (("s1", (1, 2)), ("s2", (2, 2)), ("a", None)):
        prepare_folder(tmp_path / name, cohort, SETTINGS, shard=shard)
        own = fits_for(cohort, None, tmp_path / name)
        augment_cohort(cohort, tmp_path / name, own, SETTINGS, shard=shard)
    merge_shards([tmp_path / "s1", tmp_path / "s2"], tmp_path / "m")
    assert_same(tmp_path / "a", tmp_path / "m")


def test_what_cannot_be_merged_is_told(cohort: Cohort, fits: CohortFits, whole: Path, tmp_path: Path) -> None:
    one, two = shards_of(cohort, fits, tmp_path)
    into = tmp_path / "m"
    with pytest.raises(DataError, match=r"not all shards.*also 2/2"):
        merge_shards([one], into)
    with pytest.raises(UsageError, match="given twice"):
        merge_shards([one, one], into)
    with pytest.raises(UsageError, match="not a shard"):
        merge_shards([one, whole], into)
    with pytest.raises(UsageError, match="what is read"):
        merge_shards([one, two], one)
    run(cohort, tmp_path / "other", fits, replace(SETTINGS, seed=6), shard=(2, 2))
    with pytest.raises(UsageError, match=r"different augmentations.*other seed"):
        merge_shards([one, tmp_path / "other"], into)
    run(cohort, tmp_path / "third", fits, shard=(2, 3))
    with pytest.raises(UsageError, match="different divisions"):
        merge_shards([one, tmp_path / "third"], into)
    with folder_lock(two), pytest.raises(UsageError, match="another run"):
        merge_shards([one, two], into)
    volume = next(two.glob("*.h5"))
    content = volume.read_bytes()
    for damage in (content[:-50], content.replace(b"meta", b"mota", 1)):
        volume.write_bytes(damage)
        with pytest.raises(ScanFileError, match="missing or damaged"):
            merge_shards([one, two], into)
    volume.unlink()
    with pytest.raises(ScanFileError, match="missing or damaged"):
        merge_shards([one, two], into)
    volume.write_bytes(content)
    entries = Cohort.open(two).entries
    Cohort.write_manifest(two, entries[1:])
    with pytest.raises(DataError, match="in no shard"):
        merge_shards([one, two], into)
    altered = [replace(f, fit=replace(f.fit, loss_value=f.fit.loss_value + 1.0)) for f in fits.fits]
    CohortFits(fits.grid, fits.loss, fits=altered).save(two / "fits.json")
    fits.save(one / "fits.json")
    Cohort.write_manifest(two, entries)
    with pytest.raises(DataError, match="different fits"):
        merge_shards([one, two], into)
    prepare_folder(two, cohort, SETTINGS, shard=(2, 2))
    with pytest.raises(DataError, match="shard 2/2 is not finished"):
        merge_shards([one, two], into)
    assert not into.exists() or not any(into.glob("*.h5"))


@pytest.mark.parametrize("text", ["1", "0/2", "3/2", "a/b", "1/0", "-1/2", "1/2/3"])
def test_bad_shards(text: str) -> None:
    with pytest.raises(UsageError, match="shard"):
        parse_shard(text)


def test_a_corrupt_source_is_named_and_the_rest_completes(
    cohort: Cohort, fits: CohortFits, whole: Path, tmp_path: Path
) -> None:
    copied = Cohort.open(shutil.copytree(cohort.folder, tmp_path / "c"))
    source = copied.path(copied.find("p", "a"))
    content = source.read_bytes()
    middle = len(content) // 2
    source.write_bytes(content[:middle] + bytes(2000) + content[middle + 2000 :])
    outcome = run(copied, tmp_path / "a", fits)
    assert list(outcome.failures) == ["p/a", "q/a"]
    assert str(source) in outcome.failures["p/a"]
    assert [entry.scan for entry in outcome.entries] == ["b-sim1", "b-sim2"]
    source.write_bytes(content)
    run(copied, tmp_path / "a", fits)
    assert_same(whole, tmp_path / "a")


def test_what_a_failed_source_left_before_does_not_stay(
    cohort: Cohort, fits: CohortFits, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "a")
    without = CohortFits(fits.grid, fits.loss, fits=[fit for fit in fits.fits if fit.to_scan == "b"])
    outcome = run(cohort, tmp_path / "a", without)
    assert "no fit for this scan" in outcome.failures["p/a"]
    assert sorted(path.name for path in (tmp_path / "a").glob("*.h5")) == ["p_b-sim1.h5", "p_b-sim2.h5"]


def test_dropped_volumes_do_not_come_back(
    cohort: Cohort, fits: CohortFits, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "a")
    mark = read_mark(tmp_path / "a")["provenance"]
    mark["dropped"] = {"p/a-sim2": ["volume jump"]}
    write_mark(tmp_path / "a", "augmented", mark)
    (tmp_path / "a" / "p_a-sim2.h5").unlink()
    outcome = run(cohort, tmp_path / "a", fits)
    assert [entry.scan for entry in outcome.entries] == ["a-sim1", "b-sim1", "b-sim2"]
    assert read_mark(tmp_path / "a")["provenance"]["dropped"] == {"p/a-sim2": ["volume jump"]}


def test_another_augmentation_in_the_folder_is_refused(
    cohort: Cohort, fits: CohortFits, tmp_path: Path
) -> None:
    run(cohort, tmp_path / "a", fits)
    for other, what in (
        (replace(SETTINGS, ratios=Ratios(3.0)), "planned, ratio"),
        (replace(SETTINGS, jump=5), "jump"),
    ):
        with pytest.raises(UsageError, match=f"another augmentation.*other {what}"):
            prepare_folder(tmp_path / "a", cohort, other)
    with pytest.raises(UsageError, match="other shard"):
        prepare_folder(tmp_path / "a", cohort, SETTINGS, shard=(1, 2))
    prepare_folder(tmp_path / "a", cohort, replace(SETTINGS, seed=6), force=True)
    assert not (tmp_path / "a" / "p_a-sim1.h5").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="not empty"):
        prepare_folder(tmp_path / "other", cohort, SETTINGS)
    with pytest.raises(UsageError, match="only empties folders that lungcast made"):
        prepare_folder(tmp_path / "other", cohort, SETTINGS, force=True)
    with pytest.raises(UsageError, match="what is read"):
        check_folder(cohort.folder, cohort, SETTINGS, force=True)


def test_trajectories_are_stored_beside_volumes_and_merge(
    cohort: Cohort, fits: CohortFits, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, ratios=Ratios(1.0), trajectories=True)
    names = ["p_a-trajectory.h5", "p_b-trajectory.h5"]
    run(cohort, tmp_path / "a", fits, settings)
    assert sorted(path.name for path in (tmp_path / "a").glob("*trajectory.h5")) == names
    drawn = open_trajectory(tmp_path / "a" / names[1], cohort).at(0.8)
    assert drawn.infection.any()
    for part in (1, 2):
        run(cohort, tmp_path / f"s{part}", fits, settings, shard=(part, 2))
    merge_shards([tmp_path / "s1", tmp_path / "s2"], tmp_path / "m")
    assert_same(tmp_path / "a", tmp_path / "m")
    damaged = tmp_path / "a" / names[0]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-200])
    (tmp_path / "a" / names[1]).unlink()
    run(cohort, tmp_path / "a", fits, settings)
    assert_same(tmp_path / "a", tmp_path / "m")
    (tmp_path / "s2" / names[1]).unlink()
    with pytest.raises(ScanFileError, match="no such trajectory"):
        merge_shards([tmp_path / "s1", tmp_path / "s2"], tmp_path / "n")


def test_a_ratio_of_nothing_is_a_set_of_nothing(cohort: Cohort, fits: CohortFits, tmp_path: Path) -> None:
    outcome = run(cohort, tmp_path / "a", fits, AugmentationSettings(Ratios(0.0), 5))
    assert outcome.entries == []
    assert Cohort.open(tmp_path / "a").entries == []


def test_fits_of_another_cohort_are_refused(cohort: Cohort, fits: CohortFits, tmp_path: Path) -> None:
    fits.save(tmp_path / "fits.json")
    other = cohort_of(tmp_path / "c", small_scan(patient="z"))
    with pytest.raises(DataError, match="belong to another cohort"):
        stored_fits(other, tmp_path / "fits.json")


def test_fits_of_other_days_are_refused(cohort: Cohort, fits: CohortFits, tmp_path: Path) -> None:
    fits.save(tmp_path / "fits.json")
    later = Cohort(
        cohort.folder, [replace(entry, day=5.0) if entry.scan == "b" else entry for entry in cohort.entries]
    )
    with pytest.raises(DataError, match=r"p a>b: the fit was made with other days"):
        stored_fits(later, tmp_path / "fits.json")


def test_corrected_days_and_places_of_a_source_reach_its_volumes(
    cohort: Cohort, fits: CohortFits, tmp_path: Path
) -> None:
    copied = Cohort.open(shutil.copytree(cohort.folder, tmp_path / "c"))
    run(copied, tmp_path / "a", fits)
    entry = copied.find("p", "b")
    with h5py.File(copied.path(entry), "r+") as file:
        meta = json.loads(file.attrs["meta"])
        meta["placement"]["native"]["origin_mm"][2] += 40.0
        file.attrs["meta"] = json.dumps(meta)
    assert run(copied, tmp_path / "a", fits).kept == 2
    made = Cohort.open(tmp_path / "a", copied)
    for volume in made.entries[2:]:
        with made.open_scan(volume) as reader:
            assert reader.head["placement"] == meta["placement"]
    Cohort.write_manifest(
        copied.folder, [replace(e, day=5.0) if e.scan == "b" else e for e in copied.entries]
    )
    with pytest.raises(UsageError, match="other days"):
        run(Cohort.open(copied.folder), tmp_path / "a", fits)


def test_voxels_changed_behind_their_hash_are_found(cohort: Cohort, fits: CohortFits, tmp_path: Path) -> None:
    copied = Cohort.open(shutil.copytree(cohort.folder, tmp_path / "c"))
    with h5py.File(copied.path(copied.find("p", "a")), "r+") as file:
        file["signal"][0, 0, 0] = 0.1
    outcome = run(copied, tmp_path / "a", fits)
    assert "altered" in outcome.failures["p/a"]
    assert [entry.scan for entry in outcome.entries] == ["b-sim1", "b-sim2"]


def test_a_scan_file_in_another_s_place_is_found(cohort: Cohort, tmp_path: Path) -> None:
    copied = Cohort.open(shutil.copytree(cohort.folder, tmp_path / "c"))
    shutil.copy(copied.path(copied.find("p", "b")), copied.path(copied.find("p", "a")))
    assert "altered" in fit_cohort(copied).failures["p/a"]


def test_fits_of_a_damaged_source_do_not_stay(cohort: Cohort, tmp_path: Path) -> None:
    copied = Cohort.open(shutil.copytree(cohort.folder, tmp_path / "c"))

    def run_with_own_fits(folder: Path) -> AugmentationOutcome:
        prepare_folder(folder, copied, SETTINGS)
        return augment_cohort(copied, folder, fits_for(copied, None, folder), SETTINGS)

    run_with_own_fits(tmp_path / "clean")
    source = copied.path(copied.find("p", "a"))
    content = source.read_bytes()
    source.write_bytes(content[:3000])
    assert "p/a" in run_with_own_fits(tmp_path / "a").failures
    assert str(tmp_path) not in (tmp_path / "a" / "fits.json").read_text()
    source.write_bytes(content)
    run_with_own_fits(tmp_path / "a")
    assert_same(tmp_path / "clean", tmp_path / "a")


def test_what_is_not_asked_for_needs_no_fit(cohort: Cohort, fits: CohortFits, tmp_path: Path) -> None:
    only_b = CohortFits(fits.grid, fits.loss, fits=[fit for fit in fits.fits if fit.to_scan == "b"])
    later = Ratios.parse("0%", ["late=100%"])
    staged = Cohort(
        cohort.folder, [replace(e, stage="late") if e.name == "p/b" else e for e in cohort.entries]
    )
    outcome = run(staged, tmp_path / "a", only_b, replace(SETTINGS, ratios=later))
    assert outcome.failures == {}
    assert [entry.scan for entry in outcome.entries] == ["b-sim1"]


def test_output_and_input_lie_apart(cohort: Cohort, tmp_path: Path) -> None:
    inside = Cohort.open(shutil.copytree(cohort.folder, tmp_path / "big" / "c"))
    write_mark(tmp_path / "big", "augmented", {})
    for folder in (tmp_path / "big", inside.folder, inside.folder / "sub"):
        with pytest.raises(UsageError, match="what is read"):
            prepare_folder(folder, inside, SETTINGS, force=True)
    write_mark(tmp_path / "big" / "s1", "augmented", {"shard": [1, 1]})
    with pytest.raises(UsageError, match="what is read"):
        merge_shards([tmp_path / "big" / "s1"], tmp_path / "big", force=True)
    assert len(list(inside.folder.glob("*.h5"))) == len(cohort.entries)


def test_an_emptied_folder_is_no_whole_one_at_any_moment(
    whole: Path, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = Path.unlink
    for left in range(1, 6):
        folder = tmp_path / str(left)
        shutil.copytree(whole, folder)
        countdown = [left]

        def stop(path: Path, missing_ok: bool = False, countdown: list[int] = countdown) -> None:
            if path.parent.name == str(left):  # noqa: B023
                countdown[0] -= 1
                if countdown[0] == 0:
                    raise KeyboardInterrupt
            remove(path, missing_ok=missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", stop)
            with pytest.raises(KeyboardInterrupt):
                prepare_folder(folder, cohort, replace(SETTINGS, seed=9), force=True)
        assert read_mark(folder)["provenance"]["complete"] is False
        volumes = len(list(folder.glob("*.h5")))
        assert volumes == 4 or not (folder / "manifest.csv").exists()
        prepare_folder(folder, cohort, replace(SETTINGS, seed=9), force=True)


def test_a_cohort_without_observed_scans_is_told(whole: Path, cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no observed scans"):
        prepare_folder(tmp_path / "a", Cohort.open(whole, cohort), SETTINGS)


def test_a_mark_without_provenance_is_no_mark(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "lungcast.json").write_text('{"lungcast": "augmented"}')
    with pytest.raises(UsageError, match="not empty"):
        prepare_folder(tmp_path / "a", cohort, SETTINGS)
