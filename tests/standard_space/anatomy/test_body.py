from __future__ import annotations

import numpy as np

from standard_space.anatomy import find_anatomy
from standard_space.anatomy.body import air_inside_body

SPACING = (5.0, 3.0, 3.0)


def chest() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A body with two lungs, arms that touch it and enclose room air, and a hollow couch that touches it."""
    z, y, x = np.meshgrid(
        (np.arange(40) - 20) * 5.0, (np.arange(110) - 55) * 3.0, (np.arange(150) - 75) * 3.0, indexing="ij"
    )
    hu = np.full(z.shape, -1000.0)
    couch = (np.abs(x) < 180) & (np.abs(y - 117) < 20)
    hu[couch] = 0.0
    foam = (np.abs(x) < 176) & (np.abs(y - 117) < 16)
    hu[foam] = -930.0
    torso = (x / 130) ** 2 + (y / 100) ** 2 < 1
    hu[torso] = 40.0
    for side in (-1, 1):
        arm = ((x - side * 160) / 32) ** 2 + ((y - 0) / 60) ** 2 < 1
        hu[arm & (hu < -500)] = 40.0
        gap = (np.abs(x - side * 131) < 7) & (np.abs(y) < 25)  # air between arm and body
        hu[gap] = -1000.0
    lungs = np.zeros(z.shape, bool)
    for side in (-1, 1):
        lungs |= ((x - side * 62) / 45) ** 2 + (y / 70) ** 2 + (z / 85) ** 2 < 1
    hu[lungs] = -850.0
    hu += np.random.default_rng(1).normal(0, 15, hu.shape)
    return hu.astype(np.float32), lungs, foam


def test_couch_and_arms_hold_no_lung() -> None:
    hu, lungs, foam = chest()
    found = find_anatomy(hu, SPACING)
    assert found is not None
    assert 2 * (found.lungs & lungs).sum() / (found.lungs.sum() + lungs.sum()) >= 0.97
    assert not (found.lungs & foam).any()
    assert not found.notes


def test_room_air_and_what_the_image_cuts() -> None:
    hu, lungs, _ = chest()
    inner = air_inside_body(hu, SPACING)
    assert abs(inner.room_hu + 1000.0) < 10.0
    assert not inner.cut.any()
    columns = slice(int(np.flatnonzero(lungs.any(axis=(0, 1)))[0]) + 6, None)
    inner = air_inside_body(np.ascontiguousarray(hu[:, :, columns]), SPACING)
    assert inner.cut.any()
    assert (inner.air & lungs[:, :, columns]).sum() >= 0.95 * lungs[:, :, columns].sum()


def test_gas_in_the_stomach_is_no_lung() -> None:
    hu, lungs, _ = chest()
    z, y, x = np.meshgrid(
        (np.arange(40) - 20) * 5.0, (np.arange(110) - 55) * 3.0, (np.arange(150) - 75) * 3.0, indexing="ij"
    )
    bubble = ((x - 60) / 40) ** 2 + (y / 45) ** 2 + ((z + 100) / 10) ** 2 < 1
    lungs &= z > -75
    hu[(z < -70) & ~bubble & ((x / 130) ** 2 + (y / 100) ** 2 < 1)] = 50.0
    hu[bubble] = -1000.0
    found = find_anatomy(hu, SPACING)
    assert found is not None
    assert not (found.lungs & bubble & ~lungs).any()
