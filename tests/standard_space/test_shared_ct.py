"""Real CTs that may lie beside the checkout; skipped where they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from standard_space.embedding import embed
from standard_space.grid import StandardGrid
from standard_space.image import read_image, read_mask
from standard_space.restore import restore_mask

DATA = Path(__file__).parents[3] / "shared" / "data"
GRID = StandardGrid(128)

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the optional real CTs are not beside the checkout")


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * float((a & b).sum()) / float(a.sum() + b.sum())


def test_a_full_size_thorax_against_its_lobes() -> None:
    image = read_image(DATA / "lidc_0001" / "cxr.nii.gz")
    lobes = sitk.GetArrayFromImage(sitk.ReadImage(str(DATA / "lidc_0001" / "mask.nii.gz")))
    scan = embed(image, GRID)
    assert dice(restore_mask(scan.lungs, scan.placement), (lobes >= 10) & (lobes <= 14)) >= 0.95
    assert scan.airways.any()


def test_a_dicom_series_is_spaced_by_its_positions_and_its_lung_window_is_used() -> None:
    image = read_image(DATA / "dicom_lung_pet_ct_dx_a0002")
    assert image.geometry.shape == (30, 512, 512)
    assert image.geometry.spacing_mm[2] == pytest.approx(8.0, abs=0.05)
    scan = embed(image, GRID)
    # Its tags hold a soft-tissue window first and a lung window second.
    assert (scan.window.level_hu, scan.window.width_hu, scan.window.source) == (-600, 1200, "dicom")
    assert -0.3 < float(np.median(scan.signal[scan.lungs])) < -0.05


@pytest.mark.parametrize("time", ["baseline", "followup"])
def test_a_cropped_lung_with_the_users_mask(time: str) -> None:
    folder = DATA / "elastix_lung_pair"
    image = read_image(folder / f"3DCT_lung_{time}.mha")
    lungs = read_mask(folder / f"3DCT_lung_{time}_mask.mha", image.geometry)
    scan = embed(image, GRID, lungs=lungs)
    assert dice(restore_mask(scan.lungs, scan.placement), lungs) >= 0.95
