from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from segmentation.results.scan_folder import check_masks, scan_input, scans_in
from segmentation.results.segment_image import image_stem
from standard_space.errors import DataError, UsageError
from tests.standard_space.dicom.dicom_files import series


def stack(folder: Path) -> None:
    series(folder, np.full((4, 4, 4), -900, np.int16))


def names(folder: Path) -> list[str]:
    found = scans_in(folder)
    assert found is not None
    return [path.name for path in found]


def test_a_file_and_a_folder_with_dicom_files_are_one_scan(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").touch()
    assert scans_in(tmp_path / "scan.nii.gz") is None
    stack(tmp_path / "ct")
    (tmp_path / "ct" / "notes.txt").write_text("x")
    assert scans_in(tmp_path / "ct") is None
    (tmp_path / "ct" / "inner").mkdir()
    shutil.copy(next((tmp_path / "ct").glob("JANE*")), tmp_path / "ct" / "inner")
    assert scans_in(tmp_path / "ct") is None


def test_a_folder_of_scans_holds_image_files_and_series(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.NRRD", "c.mha", ".hidden.nii.gz", "table.csv"):
        (tmp_path / name).touch()
    stack(tmp_path / "d" / "study" / "series")
    stack(tmp_path / ".cache")
    (tmp_path / "empty").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "b.nii.gz").touch()
    assert names(tmp_path) == ["a.NRRD", "b.nii.gz", "c.mha", "d"]


def test_a_link_is_named_by_itself_and_a_broken_one_is_not_passed_over(tmp_path: Path) -> None:
    for patient in ("jane", "john"):
        (tmp_path / patient).mkdir()
        (tmp_path / patient / "ct.nii.gz").touch()
    (tmp_path / "scans").mkdir()
    for k, patient in enumerate(("jane", "john", "gone")):
        (tmp_path / "scans" / f"p{k}.nii.gz").symlink_to(tmp_path / patient / "ct.nii.gz")
    found = scans_in(tmp_path / "scans")
    assert found is not None
    assert [image_stem(path) for path in found] == ["p0", "p1", "p2"]


def test_what_is_unclear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such image"):
        scans_in(tmp_path / "absent")
    with pytest.raises(UsageError, match="holds no scan"):
        scans_in(tmp_path)
    stack(tmp_path / "mixed")
    (tmp_path / "mixed" / "a.nii.gz").touch()
    with pytest.raises(UsageError, match="side by side"):
        scans_in(tmp_path / "mixed")
    (tmp_path / "twice").mkdir()
    (tmp_path / "twice" / "a.nii.gz").touch()
    (tmp_path / "twice" / "a.mha").touch()
    with pytest.raises(UsageError, match="same name"):
        scans_in(tmp_path / "twice")


def test_masks_go_by_the_scan_s_name(tmp_path: Path) -> None:
    masks = tmp_path / "lungs"
    masks.mkdir()
    (masks / "a.nrrd").touch()
    assert scan_input(tmp_path / "a.nii.gz", masks, None).lungs == masks / "a.nrrd"
    with pytest.raises(DataError, match="no mask for this scan"):
        scan_input(tmp_path / "b.nii.gz", None, masks)
    (masks / "a.nii").touch()
    with pytest.raises(DataError, match="several masks"):
        scan_input(tmp_path / "a.nii.gz", masks, None)
    check_masks(masks, "--lungs", folder=True)
    check_masks(None, "--lungs", folder=False)
    for given, folder in ((masks, False), (masks / "a.nii", True)):
        with pytest.raises(UsageError, match="--lungs does not fit"):
            check_masks(given, "--lungs", folder=folder)
    with pytest.raises(UsageError, match="no such path for --lobes"):
        check_masks(tmp_path / "absent", "--lobes", folder=True)
