"""Alignments: placements, masks brought over, and registration of known and of real motions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simulator import registration
from simulator.alignment import (
    Alignment,
    PlacedMask,
    lungs_dice,
    map_mask,
    share_outside,
    standard_alignment,
    world_alignment,
)
from simulator.registration import align, register
from standard_space.embedding import embed
from standard_space.errors import DataError
from standard_space.grid import StandardGrid
from standard_space.image import read_image, read_mask
from tests.standard_space.bodies import body, geometry

PAIR = Path(__file__).parents[3] / "shared" / "data" / "elastix_lung_pair"
SPACING = (8.0, 5.0, 5.0)
CENTRE_MM = np.array([150.0, 130.0, 140.0])


def lungs_at(alignment: Alignment | None = None, shape: tuple[int, int, int] = (40, 56, 60)) -> PlacedMask:
    """Two unequal ellipsoids; with an alignment, where they lie in the other scan."""
    position = np.stack(
        np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, SPACING, strict=True)), indexing="ij"), -1
    )
    if alignment is not None:
        position = (position - alignment.offset_mm) @ np.linalg.inv(alignment.matrix).T
    z, y, x = np.moveaxis(position - CENTRE_MM, -1, 0)
    right = (z / 95) ** 2 + (y / 70) ** 2 + ((x - 62) / 48) ** 2 < 1
    left = ((z - 8) / 80) ** 2 + ((y + 6) / 60) ** 2 + ((x + 60) / 40) ** 2 < 1
    return PlacedMask(right | left, (0.0, 0.0, 0.0), SPACING)


def motion(
    degrees: float, scale: tuple[float, float, float], shift_mm: tuple[float, float, float]
) -> Alignment:
    """A turn about z and a scaling about the centre, then a shift."""
    angle = np.deg2rad(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag(scale)
    return Alignment("registered", matrix, CENTRE_MM - matrix @ CENTRE_MM + np.array(shift_mm))


def test_a_known_motion_is_found_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "REGISTRATION_STEP_MM", 9.0)  # about the voxels' own size, and quicker
    truth = motion(6.0, (1.10, 1.04, 1.02), (12.0, -9.0, 7.0))
    first, other = lungs_at(), lungs_at(truth)
    found = register(first, other, standard_alignment())
    inside = np.argwhere(first.mask) * np.array(SPACING)
    error_mm = np.linalg.norm(
        inside @ (found.matrix - truth.matrix).T + found.offset_mm - truth.offset_mm, axis=1
    )
    assert np.median(error_mm) < 1.5  # voxels are 5 to 8 mm
    assert error_mm.max() < 4.0
    assert lungs_dice(first, other, found) > max(0.96, lungs_dice(first, other, standard_alignment()))
    again = register(first, other, standard_alignment())
    np.testing.assert_array_equal(again.matrix, found.matrix)
    np.testing.assert_array_equal(again.offset_mm, found.offset_mm)


def test_masks_are_brought_over() -> None:
    truth = motion(0.0, (1.0, 1.0, 1.0), (16.0, -10.0, 5.0))  # whole voxels: exact
    first, other = lungs_at(), lungs_at(truth)
    np.testing.assert_array_equal(map_mask(other, truth, first), first.mask)
    cut = PlacedMask(other.mask[5:, 3:, 2:], (5 * 8.0, 3 * 5.0, 2 * 5.0), SPACING)
    expected = other.mask.copy()
    expected[:5], expected[:, :3], expected[:, :, :2] = False, False, False
    back = map_mask(PlacedMask(expected, (0.0, 0.0, 0.0), SPACING), truth, first)
    np.testing.assert_array_equal(map_mask(cut, truth, first), back)
    turned = motion(9.0, (1.08, 0.97, 1.0), (3.0, 4.0, -6.0))
    mapped = map_mask(lungs_at(turned), turned, first)
    assert 2 * (mapped & first.mask).sum() / (mapped.sum() + first.mask.sum()) > 0.97


def test_what_falls_outside_is_counted() -> None:
    first = lungs_at()
    assert share_outside(first, standard_alignment(), first) == 0.0
    half = PlacedMask(first.mask[:20], (0.0, 0.0, 0.0), SPACING)
    assert share_outside(first, standard_alignment(), half) == pytest.approx(
        first.mask[20:].sum() / first.mask.sum()
    )
    assert share_outside(PlacedMask(np.zeros((2, 2, 2), bool), (0.0, 0.0, 0.0), SPACING),
                         standard_alignment(), first) == 0.0  # fmt: skip


def scans_on_two_tables() -> list:
    """One body, scanned twice in the same world, the second time in another orientation and further down."""
    made = []
    for where in (geometry(), geometry(centre=(12.0, -30.0, 230.0), direction=np.diag([-1.0, -1.0, 1.0]))):
        image, lungs, infection = body(where)
        made.append(embed(image, StandardGrid(48), infection=infection, lungs=lungs))
    return made


def placed(scan, mask=None) -> PlacedMask:  # type: ignore[no-untyped-def]
    return PlacedMask(scan.lungs if mask is None else mask, (0.0, 0.0, 0.0), scan.grid.spacing_mm)


def test_the_world_leads_from_one_placement_to_the_other() -> None:
    first, other = scans_on_two_tables()
    world = world_alignment(first.placement, other.placement, first.grid)
    index = np.array([[10.0, 20.0, 30.0], [40.0, 5.0, 12.0]])
    here_mm = index * first.grid.spacing_mm
    there = (here_mm @ world.matrix.T + world.offset_mm) / other.grid.spacing_mm
    np.testing.assert_allclose(
        first.standard_geometry.to_world(index[:, ::-1]),
        other.standard_geometry.to_world(there[:, ::-1]),
        atol=1e-6,
    )
    assert lungs_dice(placed(first), placed(other), world) > 0.95
    same = world_alignment(first.placement, first.placement, first.grid)
    np.testing.assert_allclose(same.matrix, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(same.offset_mm, 0.0, atol=1e-6)


def test_the_better_placement_is_taken_and_a_bad_registration_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, other = scans_on_two_tables()
    placements = (first.placement, other.placement)
    report = align(placed(first), placed(other), placements, first.grid)
    assert report.lungs_dice == max(report.lungs_dice_standard, report.lungs_dice_world)
    assert report.lungs_dice_registered is None
    assert report.notes == []

    def away(*_: object) -> Alignment:
        return motion(0.0, (1.0, 1.0, 1.0), (60.0, 0.0, 0.0))

    monkeypatch.setattr(registration, "register", away)
    refused = align(placed(first), placed(other), placements, first.grid, register_lungs=True)
    assert refused.alignment.kind == report.alignment.kind
    assert refused.lungs_dice == report.lungs_dice
    assert "registration refused" in refused.notes[0]

    def failing(*_: object) -> Alignment:
        raise RuntimeError("ITK ERROR: all samples map outside")

    monkeypatch.setattr(registration, "register", failing)
    failed = align(placed(first), placed(other), placements, first.grid, register_lungs=True)
    assert "registration failed" in failed.notes[0]
    assert "all samples map outside" in failed.notes[0]
    empty = np.zeros_like(other.lungs)
    with pytest.raises(DataError, match="the later scan has no lungs"):
        align(placed(first), placed(other, empty), placements, first.grid)


@pytest.mark.slow
@pytest.mark.skipif(not PAIR.is_dir(), reason="the optional real CTs are not beside the checkout")
def test_a_real_pair_at_two_breaths() -> None:
    scans = []
    for time in ("baseline", "followup"):
        image = read_image(PAIR / f"3DCT_lung_{time}.mha")
        lungs = read_mask(PAIR / f"3DCT_lung_{time}_mask.mha", image.geometry)
        scans.append(embed(image, StandardGrid(128), lungs=lungs))
    first, other = scans
    assert other.lungs.sum() / first.lungs.sum() == pytest.approx(1.18, abs=0.01)
    report = align(
        placed(first), placed(other), (first.placement, other.placement), first.grid, register_lungs=True
    )
    assert report.alignment.kind == "registered"
    assert report.lungs_dice > 0.94 > report.lungs_dice_standard
    assert abs(np.linalg.det(report.alignment.matrix)) == pytest.approx(1.16, abs=0.05)
