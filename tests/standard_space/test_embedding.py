"""Geometry is sacred: every acquisition comes back onto itself."""

from __future__ import annotations

import numpy as np
import pytest

from standard_space.embedding import embed
from standard_space.errors import DataError, GeometryError, NoLungsError
from standard_space.geometry import Geometry
from standard_space.grid import StandardGrid
from standard_space.image import CTImage
from standard_space.restore import restore_mask, restore_volume
from standard_space.window import Window
from tests.standard_space.bodies import LESION_CENTRE_MM, body, geometry, rotation

GRID = StandardGrid(128)

ACQUISITIONS = {
    "axial": geometry(),
    "anisotropic": geometry(size=(120, 110, 40), spacing=(3.0, 3.2, 9.0)),
    "flipped (RAS)": geometry(direction=np.diag([-1.0, -1.0, 1.0])),
    "feet first": geometry(direction=np.diag([-1.0, 1.0, -1.0])),
    "coronal storage": geometry(
        size=(72, 60, 64), spacing=(5.0, 6.0, 5.0), direction=np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    ),
    "oblique": geometry(direction=rotation(9.0, 0) @ rotation(5.0, 2)),
    "oblique and flipped": geometry(direction=rotation(-7.0, 1) @ np.diag([-1.0, 1.0, -1.0])),
}


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_there_and_back(name: str) -> None:
    image, lungs, infection = body(ACQUISITIONS[name])
    scan = embed(image, GRID, infection=infection, lungs=lungs)
    assert scan.signal.shape == GRID.shape
    assert scan.signal.dtype == np.float32
    back = restore_mask(scan.infection, scan.placement)
    assert back.shape == image.array.shape
    assert dice(back, infection) >= 0.95
    assert dice(restore_mask(scan.lungs, scan.placement), lungs) >= 0.97


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_a_landmark_keeps_its_place_in_the_world(name: str) -> None:
    image, lungs, infection = body(ACQUISITIONS[name])
    scan = embed(image, GRID, infection=infection, lungs=lungs)
    centre_zyx = np.argwhere(scan.infection).mean(axis=0)
    world = scan.standard_geometry.to_world(centre_zyx[::-1])
    native_zyx = np.argwhere(infection).mean(axis=0)
    np.testing.assert_allclose(world, image.geometry.to_world(native_zyx[::-1]), atol=1.0)
    np.testing.assert_allclose(world, LESION_CENTRE_MM, atol=6.0)


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_standard_axes_are_lps(name: str) -> None:
    """The lesion lies in the right lung (x low), behind the middle (y high) and below the middle (z low)."""
    image, lungs, infection = body(ACQUISITIONS[name])
    scan = embed(image, GRID, infection=infection, lungs=lungs)
    lesion, middle = np.argwhere(scan.infection).mean(axis=0), np.argwhere(scan.lungs).mean(axis=0)
    assert lesion[0] < middle[0]
    assert lesion[1] > middle[1]
    assert lesion[2] < middle[2]


def test_lungs_are_found_and_centred_without_a_mask() -> None:
    image, lungs, _ = body(ACQUISITIONS["oblique"])
    scan = embed(image, GRID)
    assert scan.provenance["lungs"] == "classical"
    assert dice(restore_mask(scan.lungs, scan.placement), lungs) >= 0.93
    ends = np.argwhere(scan.lungs)
    np.testing.assert_allclose((ends.min(0) + ends.max(0)) / 2, [63.5] * 3, atol=2.0)
    assert not (scan.lungs & scan.airways).all()
    assert scan.airways.any()


def test_signal_returns_as_hu() -> None:
    image, lungs, _ = body(ACQUISITIONS["axial"], noise_hu=0.0)
    scan = embed(image, GRID, lungs=lungs)
    back = restore_volume(scan.window.to_hu(scan.signal), scan.placement, fill=-1000.0)
    eroded = (
        lungs & np.roll(lungs, 2, 0) & np.roll(lungs, -2, 0) & np.roll(lungs, 2, 2) & np.roll(lungs, -2, 2)
    )
    eroded &= np.roll(lungs, 2, 1) & np.roll(lungs, -2, 1)
    quiet = eroded & (image.array == -850.0)
    assert np.median(np.abs(back[quiet] + 850.0)) < 1.0


def test_what_lies_outside_the_scan_is_air_not_zero() -> None:
    image, lungs, _ = body(ACQUISITIONS["axial"])
    scan = embed(image, GRID, lungs=lungs, window=Window(-500.0, 1500.0, "caller"))
    assert scan.signal[0, 0, 0] == pytest.approx((-1000 + 500) / 1500, abs=1e-5)
    assert scan.air_signal == pytest.approx(-1 / 3)


def test_padding_such_as_minus_3024_does_not_ring() -> None:
    image, lungs, _ = body(ACQUISITIONS["axial"], noise_hu=0.0)
    assert embed(image, GRID, lungs=lungs).signal.min() >= (-1024 + 600) / 1600 - 1e-6


def test_the_annotation_is_susceptible_but_never_widens_the_lungs() -> None:
    """Lungs that knew the annotation would leak the truth into every score restricted to them."""
    image, lungs, infection = body(ACQUISITIONS["axial"])
    scan = embed(image, GRID, infection=infection, lungs=lungs & ~infection)
    bare = embed(image, GRID, lungs=lungs & ~infection)
    np.testing.assert_array_equal(scan.lungs, bare.lungs)
    assert not (scan.infection & scan.vessels).any()
    assert not (scan.infection & ~scan.susceptible).any()
    assert any("outside the lungs" in note for note in scan.provenance["notes"])


def test_a_mask_of_another_shape_is_refused() -> None:
    image, _, infection = body(ACQUISITIONS["axial"])
    with pytest.raises(GeometryError, match="differ in shape"):
        embed(image, GRID, infection=infection[1:])


def test_no_lungs_is_said() -> None:
    where = geometry()
    image = CTImage(np.full(where.shape, -1000.0, np.float32), where, "0" * 64)
    with pytest.raises(NoLungsError, match="no lungs were found"):
        embed(image, GRID, patient="p", scan="s")
    scan = embed(image, GRID, require_lungs=False)
    assert not scan.lungs.any()
    assert any("centred on the image" in note for note in scan.provenance["notes"])


def test_an_empty_lung_mask_is_refused() -> None:
    image, lungs, _ = body(ACQUISITIONS["axial"])
    with pytest.raises(DataError, match="lung mask is empty"):
        embed(image, GRID, lungs=np.zeros_like(lungs))


def test_lungs_larger_than_the_extent_are_said() -> None:
    where = geometry(size=(72, 64, 120), spacing=(7.0, 7.0, 6.0))
    image, _, _ = body(where)
    lungs = np.zeros(where.shape, bool)
    lungs[:, 3:60, 3:68] = True
    scan = embed(image, StandardGrid(32), lungs=lungs)
    assert any("larger than the standard extent" in note for note in scan.provenance["notes"])


@pytest.mark.parametrize("size", [48, 96])
def test_the_grid_only_changes_coarseness(size: int) -> None:
    image, lungs, infection = body(ACQUISITIONS["axial"])
    scan = embed(image, StandardGrid(size), infection=infection, lungs=lungs)
    volume = scan.infection.sum() * scan.grid.voxel_volume_mm3
    truth = infection.sum() * np.prod(image.geometry.spacing_mm)
    assert volume == pytest.approx(truth, rel=0.06)


def test_lungs_that_the_field_of_view_cuts_end_with_it() -> None:
    """Beyond the image lies air of our own; the border of a cut lung must not be refined into it."""
    where = geometry()
    image, _, _ = body(where)
    cut = Geometry((32, *where.size[1:]), where.spacing_mm, where.origin_mm, where.direction)
    scan = embed(CTImage(np.ascontiguousarray(image.array[:, :, :32]), cut, "0" * 64), StandardGrid(192))
    z, y, x = np.nonzero(scan.lungs)
    index = cut.to_index(scan.standard_geometry.to_world(np.stack([x, y, z], axis=1).astype(float)))
    assert index[:, 0].max() > 30.0
    assert index[:, 0].max() <= 31.5 + 1e-6
