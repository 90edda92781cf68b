"""NIfTI headers: placement as the standard says it, and what ITK would get wrong without a word."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from standard_space.errors import LungcastError, ReadError
from standard_space.image import inspect_image, read_image
from tests.standard_space.nifti import GOOD, IDENTITY, write_nifti


def sheared() -> np.ndarray:
    tilted = GOOD.copy()
    tilted[1, 2] = 0.6
    return tilted


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"sform": None, "qform": (1, *IDENTITY)},
        {"sform": (2, GOOD), "qform": (1, *IDENTITY)},
        {"sform": (1, GOOD * 1000), "pixdim": (1.0, 700.0, 700.0, 2000.0), "units": 3},
    ],
    ids=["sform", "qform", "both", "micrometres"],
)
def test_a_placement_is_read_in_mm(tmp_path: Path, header: dict) -> None:
    image = read_image(write_nifti(tmp_path / "ct.nii", **header))
    # NIfTI is RAS, the world here LPS: x and y change sign.
    assert image.geometry.spacing_mm == pytest.approx((0.7, 0.7, 2.0), rel=1e-6)
    assert image.geometry.origin_mm == pytest.approx((-10, -20, 30), rel=1e-5)
    assert image.geometry.orientation == "LPS"
    assert image.geometry.shape == (8, 7, 6)


@pytest.mark.parametrize(
    ("slope", "inter", "low", "high"), [(1, 0, -1000, 300), (0, 0, -1000, 300), (2, -100, -1024, 500)]
)
def test_slope_and_intercept(tmp_path: Path, slope: float, inter: float, low: float, high: float) -> None:
    image = read_image(write_nifti(tmp_path / "ct.nii", slope=slope, inter=inter))
    assert (image.array.min(), image.array.max()) == (low, high)


SHEARED_STEPS = (1.0, *np.linalg.norm(sheared()[:, :3], axis=0))

BAD = {
    "nothing said": ({"sform": None}, "says nothing of its orientation"),
    "codes of 0": ({"sform": (0, GOOD), "qform": (0, *IDENTITY)}, "says nothing of its orientation"),
    "sheared": ({"sform": (1, sheared()), "pixdim": SHEARED_STEPS}, "sheared"),
    "sheared, with a qform to fall back on": (
        {"sform": (1, sheared()), "qform": (1, *IDENTITY), "pixdim": SHEARED_STEPS},
        "sheared",
    ),
    "disagreeing": ({"qform": (1, (0, 0, 0), (10, 20, 30))}, "place the image differently"),
    "shifted": ({"qform": (1, (0, 0, 1), (10, 20, 34))}, "4.0 mm apart"),
    "other spacing": ({"pixdim": (1.0, 0.9, 0.9, 2.0)}, "different voxel spacings"),
    "no spacing": ({"pixdim": (1.0, 0.0, 0.7, 2.0)}, "no voxel spacing"),
    "NaN spacing": ({"pixdim": (1.0, np.nan, 0.7, 2.0)}, "no voxel spacing"),
    "NaN sform": ({"sform": (1, GOOD * np.nan)}, "not finite"),
    "NaN qform": ({"sform": None, "qform": (1, (np.nan, 0, 0), (0, 0, 0))}, "not finite"),
    "zero sform": ({"sform": (1, GOOD * 0)}, "different voxel spacings"),
    "enormous": ({"dims": (3, 30000, 30000, 30000, 1, 1, 1, 1), "voxels": np.zeros(9)}, "too many voxels"),
    "longer than the file": ({"dims": (3, 600, 700, 800, 1, 1, 1, 1), "voxels": np.zeros(500)}, "truncated"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_itk_would_get_wrong_is_refused(tmp_path: Path, name: str) -> None:
    header, message = BAD[name]
    path = write_nifti(tmp_path / "ct.nii", **header)
    for read in (read_image, inspect_image):
        with pytest.raises(LungcastError, match=message) as caught:
            read(path)
        assert "ct.nii" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_nifti_2_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "two.nii").write_bytes(struct.pack("<i", 540) + b"n+2\0" + bytes(600))
    with pytest.raises(ReadError, match="NIfTI-2"):
        read_image(tmp_path / "two.nii")


def test_a_truncated_file_is_not_filled_with_soft_tissue(tmp_path: Path) -> None:
    whole = write_nifti(tmp_path / "whole.nii").read_bytes()
    (tmp_path / "cut.nii").write_bytes(whole[:-200])
    with pytest.raises(ReadError, match="truncated"):
        read_image(tmp_path / "cut.nii")
    (tmp_path / "cut.nii.gz").write_bytes(gzip.compress(whole)[:-20])
    with pytest.raises(ReadError, match="damaged or truncated"):
        read_image(tmp_path / "cut.nii.gz")
    (tmp_path / "head.nii").write_bytes(whole[:300])
    with pytest.raises(ReadError, match="no whole NIfTI header"):
        read_image(tmp_path / "head.nii")
