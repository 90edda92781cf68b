"""Placement: no lung is lost, lesions and landmarks come back, whatever the acquisition."""

from __future__ import annotations

import numpy as np
import pytest

from standard_space.embedding import embed
from standard_space.geometry import Geometry
from standard_space.grid import StandardGrid
from standard_space.image import CTImage
from standard_space.restore import restore_mask
from tests.standard_space.bodies import body, geometry, rotation

FULL = StandardGrid(512)
LESION_MM = np.array([40.0, -12.0, 260.0])


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * float((a & b).sum()) / float(a.sum() + b.sum())


DIRECTIONS = {
    "axial": np.eye(3),
    "flipped in plane": np.diag([-1.0, -1.0, 1.0]),
    "feet first": np.diag([-1.0, 1.0, -1.0]),
    "prone": np.diag([-1.0, -1.0, 1.0]) @ rotation(3.0, 2),
    "sagittal storage": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "oblique": rotation(11.0, 0) @ rotation(6.0, 2),
    "oblique and flipped": rotation(-8.0, 1) @ np.diag([1.0, -1.0, -1.0]),
}


def small_scan(direction: np.ndarray, slice_mm: float = 1.0, pixel_mm: float = 0.78) -> Geometry:
    """A volume of about 60 mm around the lesion: as fine as a clinical one, small enough for a test."""
    spacing = (pixel_mm, pixel_mm, slice_mm)
    size = (80, 76, round(66 / slice_mm))
    middle = (np.asarray(size) - 1) / 2 * np.asarray(spacing)
    x, y, z = (LESION_MM + np.array([3.3, -2.1, 4.7]) - direction @ middle).tolist()
    return Geometry(size, spacing, (x, y, z), tuple(direction.ravel().tolist()))


def ball(where: Geometry, radius_mm: float) -> np.ndarray:
    k, j, i = np.meshgrid(*(np.arange(n, dtype=float) for n in where.shape), indexing="ij")
    return ((where.to_world(np.stack([i, j, k], axis=-1)) - LESION_MM) ** 2).sum(-1) < radius_mm**2


@pytest.mark.parametrize(
    ("name", "pixel_mm", "slice_mm"),
    [
        ("oblique and flipped", 0.93, 1.0),
        pytest.param("oblique", 0.7, 2.5, marks=pytest.mark.slow),
        *(pytest.param(name, 0.78, 1.0, marks=pytest.mark.slow) for name in DIRECTIONS),
        pytest.param("axial", 0.65, 1.0, marks=pytest.mark.slow),
        pytest.param("axial", 0.93, 1.0, marks=pytest.mark.slow),
    ],
)
def test_a_small_lesion_and_a_landmark_come_back_at_512(name: str, pixel_mm: float, slice_mm: float) -> None:
    """A ball of 1 ml (at 1 mm slices the smallest lesion that is promised) with a small bright ball in it."""
    where = small_scan(DIRECTIONS[name], slice_mm, pixel_mm)
    lesion, mark = ball(where, 6.21), ball(where, 3.0)
    assert 0.95 < lesion.sum() * where.voxel_volume_ml < 1.05
    hu = np.where(mark, 400.0, -850.0).astype(np.float32)
    scan = embed(CTImage(hu, where), FULL, infection=lesion, lungs=ball(where, 24.0))
    assert scan.infection is not None
    assert dice(restore_mask(scan.infection, scan.placement), lesion) >= 0.98
    standard_ml = scan.infection.sum() * FULL.voxel_volume_ml
    assert standard_ml == pytest.approx(lesion.sum() * where.voxel_volume_ml, rel=0.02)

    weight = np.maximum(0.0, scan.window.to_hu(scan.signal) + 700.0) * scan.infection
    sums = (weight.sum(axis=(0, 1)), weight.sum(axis=(0, 2)), weight.sum(axis=(1, 2)))
    found = scan.standard_geometry.to_world(np.array([(w * np.arange(512)).sum() / w.sum() for w in sums]))
    true = where.to_world(np.argwhere(mark).mean(axis=0)[::-1])
    assert np.abs(where.to_index(found) - where.to_index(true)).max() < 0.5
    np.testing.assert_allclose(found, true, atol=0.15)


GRID = StandardGrid(96)


def lung_share_kept(where: Geometry) -> tuple[float, list[str]]:
    image, lungs, _ = body(where)
    scan = embed(image, GRID, lungs=lungs)
    kept = scan.lungs.sum() * GRID.voxel_volume_ml / (lungs.sum() * where.voxel_volume_ml)
    return float(kept), scan.provenance["notes"]


@pytest.mark.parametrize(
    ("size", "spacing", "centre"),
    [
        ((72, 64, 120), (5.0, 5.0, 6.0), (12.0, -30.0, 250.0)),  # taller than the extent
        ((140, 64, 60), (5.0, 5.0, 6.0), (12.0, -30.0, 250.0)),  # wider
        ((60, 50, 46), (5.0, 5.0, 6.0), (12.0, -30.0, 250.0)),  # smaller
        ((110, 64, 100), (5.0, 5.0, 6.0), (-80.0, -10.0, 120.0)),  # off-centre, head and abdomen on it
        ((72, 64, 110), (5.0, 5.0, 6.0), (12.0, -30.0, 420.0)),  # lungs at the lower end
    ],
)
def test_no_lung_is_lost(size, spacing, centre) -> None:
    kept, notes = lung_share_kept(geometry(size=size, spacing=spacing, centre=centre))
    assert kept == pytest.approx(1.0, abs=0.01)
    assert not any("cut" in note for note in notes)


@pytest.mark.parametrize("name", ["taller", "feet first", "oblique"])
def test_no_lung_is_lost_when_the_lungs_are_found(name: str) -> None:
    where = {
        "taller": geometry(size=(72, 64, 110), centre=(12.0, -30.0, 250.0)),
        "feet first": geometry(direction=DIRECTIONS["feet first"]),
        "oblique": geometry(direction=DIRECTIONS["oblique"]),
    }[name]
    image, lungs, _ = body(where)
    scan = embed(image, GRID)
    assert dice(restore_mask(scan.lungs, scan.placement), lungs) >= 0.93
    ends = np.argwhere(scan.lungs)
    assert (ends.min(axis=0) > 0).all()
    assert (ends.max(axis=0) < GRID.size - 1).all()


def test_lungs_that_exceed_the_extent_are_cut_and_that_is_said() -> None:
    where = geometry(size=(110, 64, 60))
    image, _, _ = body(where)
    lungs = np.zeros(where.shape, bool)
    lungs[5:50, 5:55, 10:95] = True  # 425 mm wide, 334 fit
    infection = np.zeros_like(lungs)
    infection[20:30, 20:30, 10:95] = True
    notes = embed(image, GRID, lungs=lungs, infection=infection).provenance["notes"]
    assert any("425 mm along x, 334 mm fit" in note for note in notes), notes
    share = next(note for note in notes if "infection lies outside the standard extent" in note)
    assert float(share.split("%")[0]) == pytest.approx(100 * (1 - 334 / 425), abs=2.0)


def test_one_lung_keeps_the_white_other_in_the_picture() -> None:
    """The mask holds the right lung only; the extent is centred so that the whole body fits."""
    where = geometry()
    image, lungs, _ = body(where)
    index = np.argwhere(lungs)
    right = lungs & (
        where.to_world(np.indices(where.shape)[::-1].transpose(1, 2, 3, 0).astype(float))[..., 0] < 12.0
    )
    assert 0 < right.sum() < len(index)
    scan = embed(image, GRID, lungs=right)
    both = embed(image, GRID, lungs=lungs)
    assert abs(scan.placement.offset_mm[2] - both.placement.offset_mm[2]) < 15.0
    kept = scan.lungs.sum() * GRID.voxel_volume_ml
    assert kept == pytest.approx(right.sum() * where.voxel_volume_ml, rel=0.01)
