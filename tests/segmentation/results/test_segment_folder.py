from __future__ import annotations

import csv
import errno
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segmentation.results.segment_folder as module
from segmentation.predict import Predictor
from segmentation.results.scan_folder import scans_in
from segmentation.results.segment_folder import (
    FolderOutcome,
    check_writable,
    prepare_folder,
    run_request,
    segment_folder,
)
from segmentation.results.segment_image import SegmentOptions, segment_image
from standard_space.errors import OutOfSpaceError, UsageError
from standard_space.files import read_mark
from standard_space.image import write_volume
from tests.segmentation.images import lively_model, write_chest, write_chest_series
from tests.standard_space.bodies import body, geometry

OPTIONS = SegmentOptions(threshold=1.5)


pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(lively_model(), device="cpu")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chests and a DICOM series."""
    folder = tmp_path_factory.mktemp("scans")
    write_chest(folder / "a.nii.gz")
    write_chest(folder / "c.nii.gz", noise_hu=20.0)
    write_chest_series(folder / "d")
    return folder


@pytest.fixture
def scans(originals: Path, tmp_path: Path) -> Path:
    """Those with a damaged one between them."""
    shutil.copytree(originals, tmp_path / "scans")
    (tmp_path / "scans" / "b.nii.gz").write_bytes(b"junk")
    return tmp_path / "scans"


def run(predictor: Predictor, scans: Path, out: Path, **options: Any) -> FolderOutcome:
    asked = run_request(predictor.model, OPTIONS)
    prepare_folder(out, asked, force=options.pop("force", False))
    found = scans_in(scans)
    assert found is not None
    return segment_folder(predictor, found, out, asked, OPTIONS, **options)


def times(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/lungcast.json")}


def test_one_bad_scan_never_sinks_the_rest(predictor: Predictor, scans: Path, tmp_path: Path) -> None:
    seen = []
    outcome = run(
        predictor,
        scans,
        tmp_path / "out",
        progress=lambda item, done, total: seen.append((item, done, total)),
    )
    assert list(outcome.reports) == ["a", "c", "d"]
    assert list(outcome.failures) == ["b"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a",
        "c",
        "d",
        "lungcast.json",
        "summary.csv",
    ]
    assert seen[0] == ("a", 0, 4)
    assert seen[-1] == ("d", 4, 4)
    alone = segment_image(predictor, scans / "c.nii.gz", tmp_path / "alone", threshold=1.5)
    assert outcome.reports["c"] == alone
    for path in (tmp_path / "alone").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / "c" / path.name).read_bytes(), path.name
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").read_text().splitlines()))
    assert [row["scan"] for row in rows] == ["a", "b", "c", "d"]
    assert float(rows[2]["infected_share"]) == alone["infected_share"]
    assert float(rows[2]["left_lung_share"]) == alone["left_lung"]["infected_share"]
    assert rows[1]["lungs_ml"] == ""
    assert "cannot be read" in rows[1]["problem"]
    for path in (tmp_path / "out").rglob("*.*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path
            assert b"SECRET" not in path.read_bytes(), path


def test_a_run_is_taken_up_where_it_stopped(predictor: Predictor, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(predictor, scans, out)
    before = times(out)
    (out / "a" / "a_lungs.nii.gz").unlink()
    mark = json.loads((out / "d" / "lungcast.json").read_text())
    mark["provenance"]["complete"] = False
    (out / "d" / "lungcast.json").write_text(json.dumps(mark))
    shutil.copy(scans / "a.nii.gz", scans / "b.nii.gz")
    outcome = run(predictor, scans, out)
    assert outcome.kept == ["c"]
    assert not outcome.failures
    after = times(out)
    assert after["c"] == before["c"]
    assert after["a"] > before["a"]
    assert after["d"] > before["d"]
    assert run(predictor, scans, out).kept == ["a", "b", "c", "d"]
    # Another image under the same name is another scan, and a damaged one leaves no old result.
    shutil.copy(scans / "c.nii.gz", scans / "a.nii.gz")
    (scans / "b.nii.gz").write_bytes(b"junk")
    outcome = run(predictor, scans, out)
    assert outcome.kept == ["c", "d"]
    assert list(outcome.failures) == ["b"]
    assert not (out / "b").exists()
    assert not run(predictor, scans, out, force=True).kept


def test_scans_that_are_gone_and_links_that_lead_nowhere_are_named(
    predictor: Predictor, scans: Path, tmp_path: Path
) -> None:
    (scans / "b.nii.gz").unlink()
    assert run(predictor, scans, tmp_path / "out").leftovers == []
    (scans / "c.nii.gz").unlink()
    (scans / "e.nii.gz").symlink_to(tmp_path / "nowhere.nii.gz")
    outcome = run(predictor, scans, tmp_path / "out")
    assert outcome.leftovers == ["c"]
    assert list(outcome.failures) == ["e"]
    assert "defect" not in outcome.failures["e"]


def test_a_disk_that_is_full_for_the_overlay_stops_the_run(
    predictor: Predictor, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(figure: Any, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("segmentation.results.files.save_figure", full)
    with pytest.raises(OutOfSpaceError, match="disk is full"):
        run(predictor, scans, tmp_path / "out")


def test_another_request_is_refused(predictor: Predictor, scans: Path, tmp_path: Path) -> None:
    run(predictor, scans, tmp_path / "out")
    other = run_request(predictor.model, SegmentOptions(threshold=1.4))
    with pytest.raises(UsageError, match="other aggregation"):
        prepare_folder(tmp_path / "out", other)
    prepare_folder(tmp_path / "out", other, force=True)
    assert not (tmp_path / "out" / "a").exists()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="only empties folders that lungcast made"):
        prepare_folder(tmp_path / "own", other, force=True)
    with pytest.raises(UsageError, match="threshold"):
        run_request(predictor.model, SegmentOptions(threshold=3.5))


def test_killed_in_the_middle_a_scan_is_not_taken_for_whole(
    predictor: Predictor, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = module.segment_prepared

    def killed(predictor: Predictor, prepared: Any, folder: Path, *rest: Any, **more: Any) -> Any:
        report = whole(predictor, prepared, folder, *rest, **more)
        if prepared.source.stem == "c":
            raise KeyboardInterrupt
        return report

    monkeypatch.setattr(module, "segment_prepared", killed)
    with pytest.raises(KeyboardInterrupt):
        run(predictor, scans, tmp_path / "out")
    mark = read_mark(tmp_path / "out")
    assert mark is not None
    assert mark["provenance"]["complete"] is False
    monkeypatch.undo()
    assert run(predictor, scans, tmp_path / "out").kept == ["a"]


def test_the_next_scan_is_read_while_one_computes_and_only_that(
    predictor: Predictor, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scans / "b.nii.gz").unlink()
    read: list[str] = []
    second = threading.Event()
    prepare = module.prepare_scan

    def reading(source: Any, *rest: Any, **more: Any) -> Any:
        read.append(source.stem)
        if source.stem == "c":
            second.set()
        return prepare(source, *rest, **more)

    views = predictor.views
    computing: list[list[str]] = []

    def slow(*arguments: Any, **more: Any) -> Any:
        if not computing:
            assert second.wait(30), "the second scan was not read while the first computed"
            time.sleep(0.3)
        computing.append(list(read))
        return views(*arguments, **more)

    monkeypatch.setattr(module, "prepare_scan", reading)
    monkeypatch.setattr(predictor, "views", slow)
    run(predictor, scans, tmp_path / "out")
    assert computing[0] == ["a", "c"]
    assert read == ["a", "c", "d"]


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(
    predictor: Predictor, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scans / "b.nii.gz").unlink()
    calls: list[int] = []
    enough = module.require_space

    def full(folder: Path, wanted: float) -> None:
        calls.append(1)
        enough(folder, 1e18 if len(calls) == 2 else wanted)

    monkeypatch.setattr(module, "require_space", full)
    with pytest.raises(OutOfSpaceError, match="1 of 3 scans done"):
        run(predictor, scans, tmp_path / "out")
    monkeypatch.undo()
    assert run(predictor, scans, tmp_path / "out").kept == ["a"]


def test_masks_of_a_folder_go_by_the_scans_names(predictor: Predictor, scans: Path, tmp_path: Path) -> None:
    where = geometry()
    _, lungs, _ = body(where)
    lungs[:, :, :36] = False
    write_volume(tmp_path / "lungs" / "a.nii.gz", lungs, where)
    write_volume(tmp_path / "lungs" / "d.mha", np.zeros_like(lungs), where)
    outcome = run(predictor, scans, tmp_path / "out", lungs=tmp_path / "lungs")
    assert outcome.reports["a"]["lungs_ml"] == pytest.approx(lungs.sum() * where.voxel_volume_ml)
    assert "no mask for this scan" in outcome.failures["c"]
    assert "lung mask is empty" in outcome.failures["d"]


def test_networks_that_answer_nan_fail_by_name(
    predictor: Predictor, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = predictor.views

    def nan(*arguments: Any, **more: Any) -> Any:
        found, box = views(*arguments, **more)
        return found * float("nan"), box

    monkeypatch.setattr(predictor, "views", nan)
    outcome = run(predictor, scans, tmp_path / "out")
    assert all("NaN" in outcome.failures[stem] for stem in "acd")
    assert not (tmp_path / "out" / "a").exists()


def test_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "new" / "deeper")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written to"):
        check_writable(tmp_path / "file" / "out")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UsageError, match="cannot be written to"):
        check_writable(tmp_path)


def test_a_folder_with_a_stranger_s_files_is_left_alone(
    predictor: Predictor, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prepare_folder(out, run_request(predictor.model, OPTIONS))
    (out / "a").mkdir()
    (out / "a" / "thesis.txt").write_text("x")
    outcome = run(predictor, scans, out)
    assert "only empties folders that lungcast made" in outcome.failures["a"]
    assert (out / "a" / "thesis.txt").exists()
    assert list(outcome.reports) == ["c", "d"]


def test_a_damaged_report_is_made_anew(predictor: Predictor, scans: Path, tmp_path: Path) -> None:
    run(predictor, scans, tmp_path / "out")
    (tmp_path / "out" / "a" / "quantification.json").write_text("{")
    assert run(predictor, scans, tmp_path / "out").kept == ["c", "d"]
