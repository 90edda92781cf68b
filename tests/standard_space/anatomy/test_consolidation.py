from __future__ import annotations

import numpy as np
import pytest

from tests.standard_space.anatomy.chests import consolidated, dice, find, phantom, swapped


# Air alone gives at most 0.82 here: 30 % of the lungs are as dense as the wall they touch.
@pytest.mark.parametrize(("index", "seed"), [(0, 100), (3, 103), (5, 105)])
def test_lungs_that_are_solid_by_a_third(index: int, seed: int) -> None:
    chest, solid = consolidated(phantom(0, index, 96), seed)
    found = find(chest)
    assert found is not None
    assert dice(found.lungs, chest.lungs) >= 0.915
    assert (found.lungs & solid).sum() >= 0.6 * solid.sum()
    assert any("solid up to the pleura" in note for note in found.notes)
    assert (found.vessels & solid).sum() <= 0.2 * solid.sum()
    assert swapped(found, chest) <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("sigma_mm", [14.0, 22.0])
def test_many_solid_lungs(sigma_mm: float) -> None:
    scores = []
    for index in range(6):
        chest, _ = consolidated(phantom(1, index, 128), 200 + index, sigma_mm=sigma_mm)
        found = find(chest)
        assert found is not None
        scores.append(dice(found.lungs, chest.lungs))
    assert min(scores) >= 0.91
    assert np.mean(scores) >= 0.935


@pytest.mark.parametrize("side", ["left", "right"])
def test_patches_in_one_lung_leave_the_other(side: str) -> None:
    chest = phantom(0, 2, 96)
    sick = chest.left if side == "left" else chest.right
    ill, _ = consolidated(chest, 300, 0.4, sick)
    found = find(ill)
    assert found is not None
    assert dice(found.lungs, chest.lungs) >= 0.94
    well = found.lungs & (~found.left if side == "left" else found.left)
    assert dice(well, chest.lungs & ~sick) >= 0.95


def test_a_healthy_lung_is_not_grown() -> None:
    chest = phantom(0, 1, 96)
    found = find(chest)
    assert found is not None
    assert (found.lungs & ~chest.lungs).sum() <= 0.05 * chest.lungs.sum()
