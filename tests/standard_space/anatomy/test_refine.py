from __future__ import annotations

import numpy as np
import pytest

from standard_space.anatomy.refine import refine_airways, refine_left, refine_lungs
from standard_space.anatomy.vessels import find_vessels

SPACING = (1.0, 1.0, 1.0)


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> np.ndarray:
    k, j, i = np.indices(shape)
    return (k - centre[0]) ** 2 + (j - centre[1]) ** 2 + (i - centre[2]) ** 2 < radius**2


@pytest.mark.parametrize("error_mm", [-2.0, 2.0])
def test_an_aerated_border_follows_the_air(error_mm: float) -> None:
    lung = ball((64, 64, 64), (32, 32, 32), 24)
    hu = np.where(lung, -850.0, 40.0).astype(np.float32)
    coarse = ball(lung.shape, (32, 32, 32), 24 + error_mm)
    fine = refine_lungs(hu, coarse, np.zeros_like(lung), SPACING)
    np.testing.assert_array_equal(fine, lung)


def test_a_solid_border_stays_where_it_was_found() -> None:
    lung = ball((64, 64, 64), (32, 32, 32), 24)
    hu = np.where(lung & (np.arange(64) < 30), -850.0, 40.0).astype(np.float32)
    fine = refine_lungs(hu, lung, np.zeros_like(lung), SPACING)
    solid = lung & (np.arange(64) > 36)
    assert (fine & solid).sum() == solid.sum()
    assert not (fine & ~lung).any()


def test_a_bronchus_outside_the_coarse_lungs_stays_out() -> None:
    lung = ball((64, 64, 64), (32, 32, 28), 22)
    hu = np.where(lung, -850.0, 40.0).astype(np.float32)
    bronchus = np.zeros_like(lung)
    bronchus[:, 29:35, 50:56] = True
    hu[bronchus] = -1000.0
    fine = refine_lungs(hu, lung & ~bronchus, bronchus, SPACING)
    assert not (fine & bronchus).any()


def test_airways_keep_their_lumen_and_wall_within_the_coarse_mask() -> None:
    hu = np.full((40, 40, 40), -850.0, np.float32)
    lumen = np.zeros(hu.shape, bool)
    lumen[:, 17:23, 17:23] = True
    hu[lumen] = -1000.0
    coarse = np.zeros(hu.shape, bool)
    coarse[:, 12:28, 12:28] = True
    fine = refine_airways(hu, coarse, SPACING)
    assert fine[lumen].all()
    assert not (fine & ~coarse).any()
    assert fine.sum() < 0.6 * coarse.sum()
    assert not refine_airways(hu, np.zeros_like(coarse), SPACING).any()


@pytest.mark.parametrize("far_off", [False, True])
def test_what_is_added_goes_to_the_side_beside_it(far_off: bool) -> None:
    right, left = ball((40, 40, 90), (20, 20, 22), 15), ball((40, 40, 90), (20, 20, 66), 15)
    lungs = ball((40, 40, 90), (20, 20, 22), 17) | ball((40, 40, 90), (20, 20, 66), 17)
    if far_off:
        lungs[18:22, 18:22, 88] = True
    found = refine_left(lungs, right | left, left, SPACING, far_off)
    np.testing.assert_array_equal(found, lungs & (np.arange(90) > 44))
    assert not refine_left(lungs, right, np.zeros_like(left), SPACING).any()


@pytest.mark.parametrize("spacing_mm", [0.65, 1.3, 2.6])
def test_vessels_are_thin_and_consolidation_is_not_among_them(spacing_mm: float) -> None:
    n = round(80 / spacing_mm)
    mm = np.arange(n) * spacing_mm
    z, y, x = np.meshgrid(mm, mm, mm, indexing="ij")
    lungs = (z - 40) ** 2 + (y - 40) ** 2 + (x - 40) ** 2 < 36**2
    vessel = (y - 40) ** 2 + (x - 26) ** 2 < max(2.0, 0.8 * spacing_mm) ** 2
    mass = (z - 40) ** 2 + (y - 40) ** 2 + (x - 58) ** 2 < 13**2
    hu = np.full(z.shape, 40.0, np.float32)
    hu[lungs] = -850.0
    rim = lungs & ((z - 40) ** 2 + (y - 40) ** 2 + (x - 40) ** 2 > (36 - spacing_mm) ** 2)
    hu[rim] = -500.0  # partial volume of the pleura
    hu[vessel | mass] = 30.0
    spacing = (spacing_mm, spacing_mm, spacing_mm)
    found = find_vessels(hu, lungs, spacing)
    assert not (found & ~lungs).any()
    inner = lungs & vessel & (np.abs(z - 40) < 30)
    assert found[inner].mean() >= 0.95
    assert found[mass & lungs].mean() <= 0.05
    assert not found[lungs & ~vessel & ~mass].any()
    assert not find_vessels(hu, np.zeros_like(lungs), spacing).any()
