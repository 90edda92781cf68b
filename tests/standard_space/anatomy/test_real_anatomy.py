"""Lungs on real CTs: one that a test dependency ships, and those that may lie beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.standard_space.anatomy.chests import chest_of, dice, find, shipped_ct, swapped

DATA = Path(__file__).parents[4] / "shared" / "data"
beside = pytest.mark.skipif(not DATA.is_dir(), reason="the optional real CTs are not beside the checkout")


def test_the_ct_that_slicerio_ships() -> None:
    pytest.importorskip("slicerio", reason="the test dependency slicerio ships a real CT")
    chest = shipped_ct()
    found = find(chest)
    assert found is not None
    assert dice(found.lungs, chest.lungs) >= 0.984
    assert dice(found.left, chest.left) >= 0.975
    assert swapped(found, chest) <= 0.01
    assert not found.notes


@beside
def test_a_full_size_thorax_with_contrast_against_its_lobes() -> None:
    folder = DATA / "lidc_0001"
    chest = chest_of(folder / "cxr.nii.gz", folder / "mask.nii.gz", [10, 11, 12, 13, 14], [10, 11])
    found = find(chest)
    assert found is not None
    assert dice(found.lungs, chest.lungs) >= 0.979
    assert swapped(found, chest) <= 0.01


@beside
@pytest.mark.parametrize("time", ["baseline", "followup"])
def test_one_lung_cut_by_the_field_of_view(time: str) -> None:
    folder = DATA / "elastix_lung_pair"
    chest = chest_of(folder / f"3DCT_lung_{time}.mha", folder / f"3DCT_lung_{time}_mask.mha", [1], [9])
    found = find(chest)
    assert found is not None
    assert dice(found.lungs, chest.lungs) >= 0.975
    assert not found.left.any()
    assert any("one lung" in note and "right" in note for note in found.notes)
    assert any("field of view" in note for note in found.notes)
