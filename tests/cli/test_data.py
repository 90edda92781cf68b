"""check, embed and restore as a user runs them, on a manifest with every kind of trouble."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import CliRunner, Result

from cli.main import main
from standard_space.cohort import Cohort
from standard_space.errors import UsageError
from standard_space.files import read_mark, write_mark
from standard_space.geometry import Geometry
from standard_space.grid import StandardGrid
from standard_space.image import read_image, read_mask, write_volume
from standard_space.ingest import EmbedSettings, prepare_cohort
from tests.standard_space.bodies import body, geometry, rotation
from tests.standard_space.dicom.dicom_files import series
from tests.standard_space.dicom.reading import SECRETS


def lungcast(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trouble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good scans of p (one oblique), and a bad one for every column."""
    folder = tmp_path_factory.mktemp("trouble")
    where = geometry(direction=rotation(8.0, 1))
    image, lungs, infection = body(where)
    hu = np.round(image.array).astype(np.int16)
    write_volume(folder / "ct.nii.gz", hu, where)
    write_volume(folder / "ct2.mha", hu, where)
    write_volume(folder / "m.nii.gz", infection, where)
    write_volume(folder / "l.nii.gz", lungs, where)
    write_volume(folder / "lobes.nii.gz", (lungs * 12).astype(np.uint8), where)
    write_volume(folder / "none.nii.gz", np.zeros_like(lungs), where)
    x, y, z = where.origin_mm
    write_volume(
        folder / "moved.nii.gz",
        infection,
        Geometry(where.size, where.spacing_mm, (x + 9, y, z), where.direction),
    )
    whole = (folder / "ct.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "manifest.csv").write_text(
        "patient,scan,day,image,infection,lungs,lobes,window_level,window_width\n"
        "p,a,0,ct.nii.gz,m.nii.gz,l.nii.gz,lobes.nii.gz,-600,1600\n"
        "p,b,3,ct2.mha,m.nii.gz,,,-500,1500\n"
        "q,a,0,cut.nii.gz,,,,,\n"
        "q,b,1,ct.nii.gz,moved.nii.gz,none.nii.gz,,,\n"
        "q,c,2,ct.nii.gz,none.nii.gz,,,,\n"
    )
    return folder


def test_check_finds_every_problem_and_predicts(trouble: Path, tmp_path: Path) -> None:
    result = lungcast("check", trouble / "manifest.csv", "--grid", "32", "--json", tmp_path / "check.json")
    assert result.exit_code == 1, result.output
    for words in (
        "cut.nii.gz: the image cannot be read (the compressed data is damaged or truncated)",
        "another grid than its image",
        "resample the mask onto the image",
        "the lung mask is empty",
        "annotated as free of infection",
        "window -500/1500 manifest, but p/a has -600/1600 manifest",
        "3 of 5 scans can be used; 3 problems",
        "embedding 3 at 32^3 with --jobs 1",
    ):
        assert words in result.output, words
    found = json.loads((tmp_path / "check.json").read_text())
    assert [scan["scan"] for scan in found["scans"]] == ["p/a", "p/b", "q/a", "q/b", "q/c"]
    assert [len(scan["problems"]) for scan in found["scans"]] == [0, 0, 1, 2, 0]
    assert found["scans"][3]["problems"][0]["remedy"].startswith("resample")
    assert found["scans"][0]["geometry"]["size"] == [72, 64, 60]
    cost = found["prediction"]
    assert 0 < cost["trial_seconds"] < 60
    assert cost["seconds"] == pytest.approx(3 * cost["trial_seconds"], rel=0.2)
    assert cost["memory_gb"] > 0.05
    assert cost["disk_mb"] > 0


def test_check_of_headers_only_and_of_rows_that_are_wrong(trouble: Path, tmp_path: Path) -> None:
    header = "patient,scan,day,image,infection\n"
    rows = [
        "p,a,0,ct.nii.gz,m.nii.gz", "p,a,1,ct2.mha,", "p,c,-3,ct.nii.gz,", "q,a,zero,ct.nii.gz,",
        "q,b,0,absent.nii.gz,", "q,c,1,ct.nii.gz,moved.nii.gz",
    ]  # fmt: skip
    path = trouble / "rows.csv"
    path.write_text(header + "\n".join(rows) + "\n")
    result = lungcast("check", path, "--headers-only", "--no-trial", "--json", tmp_path / "c.json")
    assert result.exit_code == 1
    for words in ("occurs twice", "go backwards", "not a number", "no such image file", "another grid"):
        assert words in result.output, words
    assert json.loads((tmp_path / "c.json").read_text())["problem_count"] == 5
    assert "embedding" not in result.output


def test_phantom_scanners_by_name_reach_the_manifest_and_the_check(tmp_path: Path) -> None:
    small = ("--patients", "2", "--scans", "1", "--grid", "32", "--lesions", "fields")
    data = tmp_path / "data"
    result = lungcast("phantom", data, *small, "--scanners", "eos-spectral, aurora-16")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((data / "manifest.csv").read_text().splitlines()))
    assert [row["scanner"] for row in rows] == ["eos-spectral", "aurora-16"]
    mark = read_mark(data)
    assert mark is not None
    assert mark["provenance"]["scanners"] == ["eos-spectral", "aurora-16"]
    lungcast("check", data / "manifest.csv", "--headers-only", "--no-trial", "--json", tmp_path / "c.json")
    told = [scan["scanner"] for scan in json.loads((tmp_path / "c.json").read_text())["scans"]]
    assert told == ["eos-spectral", "aurora-16"]


def test_an_unknown_phantom_scanner_is_refused_before_the_folder_is_emptied(tmp_path: Path) -> None:
    small = ("--patients", "1", "--scans", "1", "--grid", "32", "--lesions", "fields")
    assert lungcast("phantom", tmp_path / "data", *small).exit_code == 0
    result = lungcast("phantom", tmp_path / "data", *small, "--scanners", "aurora-16,mri", "--force")
    assert result.exit_code == 2
    assert "'mri'" in result.output
    assert "boreas-64" in result.output, "the known ones are named"
    assert (tmp_path / "data" / "manifest.csv").is_file()


def test_a_clean_manifest_passes(trouble: Path) -> None:
    (trouble / "clean.csv").write_text("patient,scan,day,image\np,a,0,ct.nii.gz\n")
    result = lungcast("check", trouble / "clean.csv", "--no-trial")
    assert result.exit_code == 0, result.output
    assert "ok" in result.output


@pytest.fixture(scope="module")
def embedded(trouble: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedded") / "c"
    result = lungcast("embed", trouble / "manifest.csv", folder, "--grid", "96", "--jobs", "2")
    assert result.exit_code == 1, result.output
    assert "problem: q/a" in result.output
    assert "problem: q/b" in result.output
    assert "2 failed; the rest was completed" in result.output
    return folder


def test_jobs_change_nothing(trouble: Path, embedded: Path, tmp_path: Path) -> None:
    lungcast("embed", trouble / "manifest.csv", tmp_path / "one", "--grid", "96")
    for name in ("manifest.csv", "lungcast.json", "p_a.h5", "p_b.h5", "q_c.h5"):
        assert (tmp_path / "one" / name).read_bytes() == (embedded / name).read_bytes(), name


def test_an_interrupted_run_is_completed_to_the_same_bytes(
    trouble: Path, embedded: Path, tmp_path: Path
) -> None:
    args = ("embed", trouble / "manifest.csv", tmp_path / "c", "--grid", "96")
    lungcast(*args)
    (tmp_path / "c" / "p_a.h5").unlink()
    (tmp_path / "c" / "manifest.csv").unlink()
    (tmp_path / "c" / "p_b.h5").write_bytes((embedded / "p_b.h5").read_bytes()[:9000])
    (tmp_path / "c" / ".tmp-1-0123abcd-p_a.h5").write_bytes(b"left by a killed writer")
    kept = (tmp_path / "c" / "q_c.h5").stat().st_mtime_ns
    result = lungcast(*args)
    assert result.exit_code == 1
    assert "3 scans on the 96^3 standard grid, 1 of them by an earlier run" in result.output
    assert (tmp_path / "c" / "q_c.h5").stat().st_mtime_ns == kept
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert names == sorted(path.name for path in embedded.iterdir())
    for name in names:
        assert (tmp_path / "c" / name).read_bytes() == (embedded / name).read_bytes(), name


def test_a_killed_run_is_completed_to_the_same_bytes(trouble: Path, embedded: Path, tmp_path: Path) -> None:
    """SIGKILL to the command and its workers as soon as the first scan is there."""
    args = ["embed", str(trouble / "manifest.csv"), str(tmp_path / "c"), "--grid", "96"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *args, "--jobs", "2"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60.0
    while not list(tmp_path.glob("c/p_*.h5")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert lungcast(*args).exit_code == 1
    for name in sorted(path.name for path in embedded.iterdir()):
        assert (tmp_path / "c" / name).read_bytes() == (embedded / name).read_bytes(), name
    assert not list(tmp_path.glob("c/.tmp-*"))


def test_a_changed_input_is_embedded_again(trouble: Path, tmp_path: Path) -> None:
    (tmp_path / "ct.nii.gz").write_bytes((trouble / "ct.nii.gz").read_bytes())
    (tmp_path / "manifest.csv").write_text("patient,scan,day,image\np,a,0,ct.nii.gz\np,b,2,ct.nii.gz\n")
    args = ("embed", tmp_path / "manifest.csv", tmp_path / "c", "--grid", "32")
    assert lungcast(*args).exit_code == 0
    (tmp_path / "manifest.csv").write_text("patient,scan,day,image\np,a,0,ct.nii.gz\np,b,4,ct.nii.gz\n")
    result = lungcast(*args)
    assert "1 of them by an earlier run" in result.output
    assert [entry.day for entry in Cohort.open(tmp_path / "c").entries] == [0, 4]
    (tmp_path / "manifest.csv").write_text("patient,scan,day,image\np,a,0,ct.nii.gz\n")
    result = lungcast(*args)
    assert result.exit_code == 2
    assert "that the manifest does not list" in result.output
    assert lungcast(*args, "--force").exit_code == 0


@pytest.mark.parametrize("what", ["infection", "lungs", "left_lung", "right_lung", "lobes", "hu", "signal"])
def test_a_layer_comes_back_onto_its_original(
    trouble: Path, embedded: Path, tmp_path: Path, what: str
) -> None:
    out = tmp_path / "back.nii.gz"
    result = lungcast("restore", embedded / "p_a.h5", "--what", what, out)
    assert result.exit_code == 0, result.output
    original = read_image(trouble / "ct.nii.gz")
    back = sitk.ReadImage(str(out))
    assert Geometry.of(back).same_as(original.geometry)
    array, hu = sitk.GetArrayFromImage(back), original.array
    lungs = read_mask(trouble / "l.nii.gz", original.geometry)
    middle = 0.5 * (lungs.shape[2] - 1)  # the body stands in the middle of x, its left at high x
    if what == "hu":
        assert np.median(np.abs(array[lungs] - hu[lungs])) < 8.0
        assert np.abs(array[~lungs] - hu[~lungs]).mean() < 60.0
    elif what == "signal":
        assert np.median(np.abs(array[lungs] * 1600 - 600 - hu[lungs])) < 8.0
    elif what in ("left_lung", "right_lung"):
        side = np.indices(lungs.shape)[2] > middle
        side = lungs & (side if what == "left_lung" else ~side)
        assert 2.0 * ((array != 0) & side).sum() / ((array != 0).sum() + side.sum()) > 0.95
    assert lungcast("restore", embedded / "p_a.h5", "--what", what, out).exit_code == 2
    assert lungcast("restore", embedded / "p_a.h5", "--what", what, out, "--force").exit_code == 0


def test_inputs_are_never_emptied(trouble: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("ct.nii.gz", "m.nii.gz"):
        (tmp_path / "in" / name).write_bytes((trouble / name).read_bytes())
    manifest = tmp_path / "in" / "manifest.csv"
    manifest.write_text("patient,scan,day,image\np,a,0,ct.nii.gz\n")
    for folder in (tmp_path / "in", tmp_path):
        result = lungcast("embed", manifest, folder, "--grid", "32", "--force")
        assert result.exit_code == 2
        assert "holds its own inputs" in result.output
    write_mark(tmp_path / "other", "model", {})
    result = lungcast("embed", manifest, tmp_path / "other", "--grid", "32", "--force")
    assert result.exit_code == 2
    assert "of the kind model, not cohort" in result.output
    assert (tmp_path / "in" / "ct.nii.gz").exists()


def test_an_interrupted_second_run_is_no_cohort(trouble: Path, tmp_path: Path) -> None:
    """What an old manifest says of files that are being written anew must not be read."""
    settings = EmbedSettings(StandardGrid(32))
    (trouble / "one.csv").write_text("patient,scan,day,image\np,a,0,ct.nii.gz\n")
    assert lungcast("embed", trouble / "one.csv", tmp_path / "c", "--grid", "32").exit_code == 0
    Cohort.open(tmp_path / "c")
    prepare_cohort(trouble / "one.csv", tmp_path / "c", settings)
    with pytest.raises(UsageError, match="not a lungcast cohort"):
        Cohort.open(tmp_path / "c")
    mark = read_mark(tmp_path / "c")
    assert mark is not None
    assert mark["provenance"]["complete"] is False


def test_lungs_are_looked_for_when_asked(trouble: Path, tmp_path: Path) -> None:
    """The abdomen of the body: no lungs, and not the largest scan, so the trial does not meet it."""
    image = read_image(trouble / "ct.nii.gz")
    x, y, _ = image.geometry.size
    where = Geometry((x, y, 10), *list(image.geometry.__dict__.values())[1:])
    hu = np.round(image.array[:10]).astype(np.int16)
    hu[hu < -500] = np.where(np.arange(x) < 6, -1000, 40)[np.nonzero(hu < -500)[2]]
    write_volume(trouble / "abdomen.nii.gz", hu, where)
    (trouble / "two.csv").write_text("patient,scan,day,image\np,a,0,ct.nii.gz\nq,a,0,abdomen.nii.gz\n")
    assert lungcast("check", trouble / "two.csv", "--no-trial").exit_code == 0
    result = lungcast("check", trouble / "two.csv", "--no-trial", "--find-lungs")
    assert result.exit_code == 1
    assert result.output.count("no lungs were found") == 1
    assert lungcast("check", trouble / "two.csv", "--json", tmp_path).exit_code == 2


def test_restored_masks_overlap_the_users(trouble: Path, embedded: Path, tmp_path: Path) -> None:
    where = read_image(trouble / "ct.nii.gz").geometry
    for what, name in (("infection", "m.nii.gz"), ("lungs", "l.nii.gz"), ("lobes", "lobes.nii.gz")):
        lungcast("restore", embedded / "p_a.h5", "--what", what, tmp_path / name)
        back, truth = read_mask(tmp_path / name, where), read_mask(trouble / name, where)
        assert 2.0 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.95, what


def test_a_window_for_all_scans_that_give_none(trouble: Path, tmp_path: Path) -> None:
    (trouble / "some.csv").write_text(
        "patient,scan,day,image,window_level,window_width\np,a,0,ct.nii.gz,-500,1500\np,b,1,ct2.mha,,\n"
    )
    for option, sources in (("-550,1400", ["manifest", "caller"]), ("auto", ["manifest", "auto"])):
        folder = tmp_path / option
        result = lungcast("embed", trouble / "some.csv", folder, "--grid", "32", "--window", option)
        assert result.exit_code == 0, result.output
        cohort = Cohort.open(folder)
        windows = [cohort.read(entry).window for entry in cohort.entries]
        assert [window.source for window in windows] == sources
    assert windows[1].level_hu == pytest.approx(-600.0, abs=8.0)  # the body's lungs are at -850 HU


def test_a_dicom_folder_goes_there_and_back_and_leaves_no_identifier(tmp_path: Path) -> None:
    """Feet first; the annotation lies on the series, and comes back onto it."""
    where = geometry(direction=np.diag([-1.0, 1.0, -1.0]))
    image, _, infection = body(where)
    turn = np.array(where.direction).reshape(3, 3)
    places = where.to_world(np.array([(0.0, 0.0, float(k)) for k in range(where.size[2])]))
    folder = tmp_path / "data" / "JANE_DOE_4711"
    series(
        folder,
        np.round(image.array).astype(np.int16),
        positions=places,
        orientation=(*turn[:, 0].tolist(), *turn[:, 1].tolist()),
        spacing=where.spacing_mm,
        WindowCenter="-550",
        WindowWidth="1500",
    )
    write_volume(tmp_path / "data" / "m.nii.gz", infection, where)
    manifest = tmp_path / "data" / "manifest.csv"
    manifest.write_text("patient,scan,day,image,infection\np,a,0,JANE_DOE_4711,m.nii.gz\n")
    checked = lungcast(
        "check", manifest, "--grid", "64", "--no-trial", "--json", tmp_path / "out" / "check.json"
    )
    assert checked.exit_code == 0, checked.output
    assert "-550/1500 dicom" in checked.output
    assert lungcast("embed", manifest, tmp_path / "out" / "c", "--grid", "96").exit_code == 0
    back = tmp_path / "out" / "back.nii.gz"
    assert lungcast("restore", tmp_path / "out/c/p_a.h5", back).exit_code == 0
    again = read_mask(back, read_image(folder).geometry)
    assert again.shape == infection.shape
    assert 2.0 * (again & infection).sum() / (again.sum() + infection.sum()) > 0.95
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in SECRETS), path
