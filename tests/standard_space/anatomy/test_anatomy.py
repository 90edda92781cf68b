from __future__ import annotations

import numpy as np
import pytest

from standard_space.anatomy import find_anatomy, refine_anatomy
from tests.standard_space.anatomy.chests import Chest, dice, find, phantom, swapped


# One patient of every orientation, both sources of lesions. Patient 2 has a consolidated apex, the hardest place.
@pytest.mark.parametrize(
    ("index", "lesions", "least"),
    [
        (0, "fields", 0.97),
        (1, "dynamics", 0.97),
        (2, "fields", 0.955),
        (3, "dynamics", 0.97),
        (4, "fields", 0.97),
        (5, "dynamics", 0.97),
    ],
)
def test_phantom_lungs_and_their_sides(index: int, lesions: str, least: float) -> None:
    chest = phantom(0, index, 96, lesions)
    found = find(chest)
    assert found is not None
    assert dice(found.lungs, chest.lungs) >= least
    assert swapped(found, chest) <= 0.01
    assert not found.notes
    assert found.airways.any()
    assert 0.01 < found.vessels.sum() / found.lungs.sum() < 0.25
    assert not (found.left & ~found.lungs).any()
    assert not (found.vessels & ~found.lungs).any()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("lesions", ["fields", "dynamics"])
def test_many_phantoms(seed: int, index: int, lesions: str) -> None:
    chest = phantom(seed, index, 160, lesions)
    found = find(chest)
    assert found is not None
    assert dice(found.lungs, chest.lungs) >= 0.955
    assert swapped(found, chest) <= 0.01


def test_the_same_twice() -> None:
    chest = phantom(0, 0, 96, "fields")
    once, again = find(chest), find(chest)
    assert once is not None
    assert again is not None
    for a, b in zip(once[:4], again[:4], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_white_lung_leaves_the_other_one_and_says_so() -> None:
    chest = phantom(0, 0, 96)
    rng = np.random.default_rng(0)
    hu = np.where(chest.left, rng.normal(35.0, 15.0, chest.hu.shape), chest.hu).astype(np.float32)
    found = find(chest._replace(hu=hu))
    assert found is not None
    assert dice(found.lungs & ~found.left, chest.right) >= 0.965
    assert any("one lung" in note and "right" in note for note in found.notes)


def test_the_other_lung_missing_from_the_picture_is_noted() -> None:
    chest = phantom(0, 1, 96)
    found = find(chest, user=chest.left)
    assert found is not None
    assert any("one lung" in note and "left" in note for note in found.notes)
    np.testing.assert_array_equal(found.left, chest.left)


def test_a_cropped_field_of_view_keeps_the_lung_that_it_cuts() -> None:
    chest = phantom(0, 3, 96)
    columns = np.flatnonzero(chest.right.any(axis=(0, 1)))
    cut = slice(int(columns[0]) + 4, int(columns[-1]) + 2)
    cropped = Chest(
        np.ascontiguousarray(chest.hu[:, :, cut]),
        chest.spacing_mm,
        np.ascontiguousarray(chest.lungs[:, :, cut]),
        np.ascontiguousarray(chest.left[:, :, cut]),
    )
    found = find(cropped)
    assert found is not None
    assert dice(found.lungs & ~found.left, cropped.right) >= 0.95
    assert any("field of view" in note for note in found.notes)


def test_a_scan_that_ends_within_the_lungs_is_noted() -> None:
    chest = phantom(0, 0, 96)
    rows = np.flatnonzero(chest.lungs.any(axis=(1, 2)))
    upper = slice(int(rows.mean()), None)
    found = find(Chest(chest.hu[upper].copy(), chest.spacing_mm, chest.lungs[upper], chest.left[upper]))
    assert found is not None
    assert any("first or last slice" in note for note in found.notes)


def test_the_users_lungs_are_kept_and_get_sides() -> None:
    chest = phantom(0, 2, 96, "fields")
    found = find(chest, user=chest.lungs)
    assert found is not None
    np.testing.assert_array_equal(found.lungs, chest.lungs)
    assert swapped(found, chest) <= 0.01


@pytest.mark.parametrize("factor", [1, 2])
def test_small_grids_run_the_same_code(factor: int) -> None:
    chest = phantom(0, 0, 96)
    hu = np.ascontiguousarray(chest.hu[::factor, :: 2 * factor, :: 2 * factor])
    z, y, x = chest.spacing_mm
    spacing = (factor * z, 2 * factor * y, 2 * factor * x)
    coarse = find_anatomy(hu, spacing)
    assert coarse is not None
    fine = refine_anatomy(hu, spacing, coarse, None)
    assert dice(fine.lungs, chest.lungs[::factor, :: 2 * factor, :: 2 * factor]) >= 0.9


def test_no_lungs_in_an_abdomen_or_in_air() -> None:
    assert find_anatomy(np.full((30, 40, 40), -1000.0, np.float32), (5.0, 5.0, 5.0)) is None
    y, x = np.mgrid[-20:20, -20:20]
    slab = np.where(x**2 + y**2 < 15**2, 40.0, -1000.0).astype(np.float32)
    slab[(x - 4) ** 2 + y**2 < 3**2] = -1000.0  # bowel gas
    assert find_anatomy(np.repeat(slab[None], 40, axis=0), (5.0, 8.0, 8.0)) is None
