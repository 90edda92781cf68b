"""A cohort's export: complete, continued, isolated, refused."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from standard_space.cohort import Cohort
from standard_space.errors import LungcastError, OutOfSpaceError, UsageError
from standard_space.export import run
from standard_space.export.run import export_cohort
from standard_space.export.settings import ExportSettings
from standard_space.folders import folder_lock
from tests.standard_space.export.cohorts import augmented_of, cohort_of, observed, played, small_study

NNUNET = ExportSettings(format="nnunet", folds=2)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_study(tmp_path_factory.mktemp("study"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "cases.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("format_", ["nifti", "nnunet", "monai"])
def test_every_format_lists_every_case_with_its_kind_source_and_fold(
    study: Path, tmp_path: Path, format_: str
) -> None:
    outcome = export_cohort(study, tmp_path / "out", ExportSettings(format=format_, folds=3))
    rows = table(tmp_path / "out")
    assert [row["case"] for row in rows] == [f"p{k}_a{e}" for k in range(3) for e in ("", "-sim1", "-sim2")]
    for row in rows:
        synthetic = "-sim" in row["case"]
        assert row["kind"] == ("synthetic" if synthetic else "observed")
        assert row["source_scan"] == ("a" if synthetic else "")
        assert (tmp_path / "out" / row["image"]).is_file()
        assert (tmp_path / "out" / row["label"]).is_file()
        assert row["fold"] == next(other["fold"] for other in rows if other["patient"] == row["patient"])
    assert {row["fold"] for row in rows} == {"0", "1", "2"}
    assert outcome.failures == {}
    files = contents(tmp_path / "out")
    assert sum(name.endswith(".nii.gz") for name in files) == 18
    assert not any(b"/tmp" in files[name] for name in files if not name.endswith(".nii.gz"))


def test_same_input_same_bytes_in_one_process_or_two(study: Path, tmp_path: Path) -> None:
    export_cohort(study, tmp_path / "one", NNUNET)
    export_cohort(study, tmp_path / "two", NNUNET, jobs=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_an_interrupted_export_is_continued_to_the_same_bytes(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_cohort(study, tmp_path / "whole", NNUNET)
    out = tmp_path / "out"
    real, writes = run.write_volume, []
    for stop in (1, 4, 7):  # after an image without its labels, and between cases

        def stopped(path: Path, *rest: object, stop: int = stop) -> None:
            if len(writes) == stop:
                raise KeyboardInterrupt
            writes.append(path)
            real(path, *rest)

        monkeypatch.setattr(run, "write_volume", stopped)
        with pytest.raises(KeyboardInterrupt):
            export_cohort(study, out, NNUNET)
        assert not (out / "cases.csv").exists()
        assert not (out / "dataset.json").exists()
        (out / "imagesTr" / ".tmp-12-0123abcd-p0_a_0000.nii.gz").write_bytes(b"torn")
    monkeypatch.setattr(run, "write_volume", real)
    before = {path: os.stat(path).st_mtime_ns for path in writes}
    outcome = export_cohort(study, out, NNUNET)
    assert outcome.kept == 2
    kept = [path for path, time in before.items() if os.stat(path).st_mtime_ns == time]
    assert len(kept) == 4
    assert contents(out) == contents(tmp_path / "whole")
    assert export_cohort(study, out, NNUNET).kept == 9
    assert contents(out) == contents(tmp_path / "whole")


def test_one_bad_scan_does_not_sink_the_others(tmp_path: Path) -> None:
    folder = small_study(tmp_path, patients=3, synthetic=1)
    out = tmp_path / "out"
    export_cohort(folder, out, NNUNET)
    whole = contents(out)
    sources, made = Cohort.open(tmp_path / "c"), Cohort.open(folder)
    bad_source = sources.path(sources.find("p1", "a"))
    bad_synthetic = made.path(made.find("p2", "a-sim1"))
    good = bad_source.read_bytes(), bad_synthetic.read_bytes()
    bad_source.write_bytes(good[0][: len(good[0]) // 2])
    bad_synthetic.write_bytes(b"torn")

    outcome = export_cohort(folder, out, NNUNET)
    assert set(outcome.failures) == {"p1/a", "p1/a-sim1", "p2/a-sim1"}
    assert [row["case"] for row in table(out)] == ["p0_a", "p0_a-sim1", "p2_a"]
    assert json.loads((out / "dataset.json").read_text())["numTraining"] == 3
    assert sorted(path.name for path in (out / "labelsTr").iterdir()) == [
        "p0_a-sim1.nii.gz", "p0_a.nii.gz", "p2_a.nii.gz",
    ]  # fmt: skip
    assert len(list((out / "imagesTr").iterdir())) == 3
    assert json.loads((out / "lungcast.json").read_text())["provenance"]["failed"] == sorted(outcome.failures)

    bad_source.write_bytes(good[0])
    bad_synthetic.write_bytes(good[1])
    again = export_cohort(folder, out, NNUNET)
    assert again.kept == 3
    assert again.failures == {}
    assert contents(out) == whole


def test_a_scan_that_fails_while_it_is_read_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    """Its head is whole, its voxels are not."""
    folder = small_study(tmp_path, patients=2, synthetic=1)
    cohort = Cohort.open(tmp_path / "c")
    path = cohort.path(cohort.find("p0", "a"))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    outcome = export_cohort(folder, tmp_path / "out", NNUNET)
    assert set(outcome.failures) == {"p0/a", "p0/a-sim1"}
    assert [row["case"] for row in table(tmp_path / "out")] == ["p1_a", "p1_a-sim1"]
    assert not list((tmp_path / "out").rglob("*p0*"))


def test_a_full_disk_is_told_of_each_case(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run.write_volume

    def full(path: Path, *rest: object) -> None:
        if path.parent.name == "labelsTr" and path.name.startswith("p1"):
            raise OutOfSpaceError("the disk is full")
        real(path, *rest)

    monkeypatch.setattr(run, "write_volume", full)
    outcome = export_cohort(study, tmp_path / "out", NNUNET)
    assert set(outcome.failures) == {"p1/a", "p1/a-sim1", "p1/a-sim2"}
    assert not list((tmp_path / "out").rglob("p1*"))
    monkeypatch.setattr(run, "BYTES_PER_VOXEL", 1e12)
    with pytest.raises(OutOfSpaceError, match="not enough free disk"):
        export_cohort(study, tmp_path / "vast", NNUNET)
    assert not (tmp_path / "vast").exists()


def test_scans_without_annotation(tmp_path: Path) -> None:
    cohort_of(tmp_path / "c", observed("p"), observed("q", annotated=False), observed("r"))
    outcome = export_cohort(tmp_path / "c", tmp_path / "nn", NNUNET)
    assert list(outcome.notes) == ["q/a"]
    assert "never annotated" in outcome.notes["q/a"][0]
    assert [row.case.name for row in outcome.rows] == ["p_a", "r_a"]
    plain = export_cohort(tmp_path / "c", tmp_path / "ni", ExportSettings())
    rows = {row["case"]: row for row in table(tmp_path / "ni")}
    assert (rows["q_a"]["label"], rows["q_a"]["fold"]) == ("", "")
    assert (tmp_path / "ni" / rows["q_a"]["image"]).is_file()
    assert any("1 cases are in no fold" in line for line in plain.remarks)
    assert export_cohort(tmp_path / "c", tmp_path / "ni", ExportSettings()).kept == 3


def test_an_unannotated_source_has_labelled_synthetic_scans(tmp_path: Path) -> None:
    sick = observed("p")
    bare = observed("p", annotated=False)
    cohort = cohort_of(tmp_path / "c", bare)
    folder = augmented_of(tmp_path / "aug", cohort, (played(sick), bare))
    outcome = export_cohort(folder, tmp_path / "out", NNUNET)
    assert [row.case.name for row in outcome.rows] == ["p_a-sim1"]
    assert not (tmp_path / "out" / "splits_final.json").exists()


def test_without_originals(study: Path, tmp_path: Path) -> None:
    outcome = export_cohort(study, tmp_path / "out", ExportSettings(format="monai", originals=False))
    assert len(outcome.rows) == 6
    assert all(row.case.entry.synthetic for row in outcome.rows)
    assert outcome.folds == 0
    assert outcome.remarks == [
        "no folds: cross-validation needs observed, annotated scans of two patients or more"
    ]
    with pytest.raises(UsageError, match="nothing to export"):
        export_cohort(study.parent / "c", tmp_path / "none", ExportSettings(originals=False))


def test_fewer_patients_than_folds_are_told(study: Path, tmp_path: Path) -> None:
    outcome = export_cohort(study, tmp_path / "out", ExportSettings())
    assert outcome.folds == 3
    assert "3 folds instead of 5: one a patient" in outcome.remarks


def test_other_content_is_refused_and_force_replaces_an_export_only(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_cohort(study, out, ExportSettings())
    before = contents(out)
    other = ExportSettings(labels="ggo-consolidation")
    for settings, told in ((other, "other consolidation_hu, labels"), (NNUNET, "other folds, format")):
        with pytest.raises(UsageError, match=told):
            export_cohort(study, out, settings)
    with pytest.raises(UsageError, match="another export"):
        export_cohort(study.parent / "c", out, ExportSettings())
    assert contents(out) == before
    export_cohort(study, out, NNUNET, force=True)
    assert not (out / "images").exists()
    assert len(list((out / "imagesTr").iterdir())) == 9

    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("x")
    for folder, force in ((tmp_path / "theirs", False), (tmp_path / "theirs", True), (study, True)):
        with pytest.raises(UsageError):
            export_cohort(study.parent / "c", folder, NNUNET, force=force)
    with pytest.raises(UsageError, match="holds what is read"):
        export_cohort(study, study.parent, NNUNET, force=True)
    assert (tmp_path / "theirs" / "thesis.txt").read_text() == "x"


def test_two_runs_into_one_folder_are_refused(study: Path, tmp_path: Path) -> None:
    with folder_lock(tmp_path / "out"), pytest.raises(LungcastError, match="another run is writing"):
        export_cohort(study, tmp_path / "out", NNUNET)


def test_sources_that_lie_elsewhere_are_named(tmp_path: Path) -> None:
    folder = small_study(tmp_path / "here", patients=1, synthetic=1)
    (tmp_path / "there").mkdir()
    moved = folder.rename(tmp_path / "there" / "aug")
    with pytest.raises(UsageError, match="--sources"):
        export_cohort(moved, tmp_path / "out", ExportSettings())
    own = tmp_path / "here" / "c"
    assert len(export_cohort(moved, tmp_path / "out", ExportSettings(), sources=own).rows) == 2
    assert len(export_cohort(own, tmp_path / "plain", ExportSettings(), sources=own).rows) == 1


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(study: Path, tmp_path: Path) -> None:
    export_cohort(study, tmp_path / "whole", NNUNET)
    out = tmp_path / "out"
    rng = np.random.default_rng(0)
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", _EXPORT, str(study), str(out)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()  # imports are done
        time.sleep(rng.uniform(0.0, 0.6))
        process.kill()
        process.wait()
        process.stdout.close()
        for listed in out.glob("cases.csv"):
            assert listed.read_bytes() == (tmp_path / "whole" / "cases.csv").read_bytes()
        for path in out.rglob("[!.]*.nii.gz"):
            assert path.read_bytes() == (tmp_path / "whole" / path.relative_to(out)).read_bytes()
    export_cohort(study, out, NNUNET)
    assert contents(out) == contents(tmp_path / "whole")


_EXPORT = """
import sys
from standard_space.export.run import export_cohort
from standard_space.export.settings import ExportSettings
print("begun", flush=True)
export_cohort(sys.argv[1], sys.argv[2], ExportSettings(format="nnunet", folds=2))
"""
