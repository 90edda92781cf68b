"""The ablation's scan: another picture of the same patient, whose predictions come back to the same voxels."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from segmentation.aggregation import Aggregation
from segmentation.results.native import box_to_native
from segmentation.study.unnormalised import unnormalised
from standard_space.embedding import embed
from standard_space.grid import StandardGrid
from standard_space.restore import restore_mask
from standard_space.scan import Scan
from tests.standard_space.bodies import body, geometry, rotation

WHOLE = (slice(0, None),) * 3
FLIPPED = np.diag([-1.0, 1.0, -1.0])
SAGITTAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""Columns: where the stored axes point to."""

GEOMETRIES = {
    "plain": {},
    "anisotropic": {"size": (90, 70, 32), "spacing": (4.0, 4.5, 12.0)},
    "flipped": {"direction": FLIPPED, "spacing": (5.0, 5.5, 6.0)},
    "oblique": {
        "direction": rotation(12.0, 0) @ rotation(7.0, 2),
        "size": (80, 72, 50),
        "spacing": (5, 5, 7),
    },
    "sagittal": {"direction": SAGITTAL, "size": (62, 70, 60), "spacing": (5.0, 5.0, 5.5)},
    "oblique and flipped": {"direction": rotation(10.0, 1) @ FLIPPED, "spacing": (5.0, 5.5, 6.0)},
}


@functools.cache
def scan_of(name: str, *, own_lungs: bool = True) -> Scan:
    image, lungs, infection = body(geometry(**GEOMETRIES[name]))  # type: ignore[arg-type]
    return embed(
        image,
        StandardGrid(48),
        patient="p",
        scan="s",
        day=0.0,
        infection=infection,
        lungs=lungs if own_lungs else None,
    )


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2.0 * float((one & other).sum()) / float(one.sum() + other.sum())


@pytest.mark.parametrize("name", GEOMETRIES)
def test_what_is_found_comes_back_to_the_voxels_it_was_found_in(name: str) -> None:
    scan = scan_of(name)
    seen = unnormalised(scan)
    assert seen.infection is not None
    assert scan.native_infection is not None
    found = box_to_native(seen.infection.astype(np.float32), WHOLE, seen, Aggregation("mean", 0.5))
    assert found.mask.shape == scan.native_infection.shape
    assert dice(found.mask, scan.native_infection) > 0.9
    assert dice(restore_mask(seen.lungs, seen.placement), np.asarray(scan.native_lungs)) > 0.9
    assert np.array_equal(found.lungs, np.asarray(scan.native_lungs))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_image_fills_the_grid_whatever_its_millimetres(name: str) -> None:
    scan = scan_of(name)
    seen = unnormalised(scan)
    assert seen.grid == scan.grid
    assert seen.signal.dtype == np.float32
    assert seen.signal.min() >= -0.5 - 1e-6
    assert seen.signal.max() <= 0.5 + 1e-6
    # Its darkest and brightest voxel, not HU: interpolation may lose the very ends.
    assert seen.signal.min() < -0.4
    assert seen.signal.max() > 0.35
    size = scan.grid.size
    # Column by column of the oriented image: all of it, once, from edge to edge of the grid.
    start, step = seen.placement.to_standard(seen.grid)
    for first, every, count in zip(start, step, seen.placement.oriented.shape, strict=True):
        assert first - every / 2 == pytest.approx(-0.5, abs=1e-6)
        assert first + (size - 0.5) * every == pytest.approx(count - 0.5, abs=1e-6)


def test_millimetres_are_lost_and_the_order_of_the_axes_kept() -> None:
    wide, narrow, flipped = (unnormalised(scan_of(name)) for name in ("plain", "anisotropic", "flipped"))
    # The same body in other fields of view.
    assert not np.array_equal(wide.lungs, narrow.lungs)
    # The lesion lies on the patient's right, behind, and below: it stays there.
    for seen in (wide, narrow, flipped):
        assert seen.infection is not None
        z, y, x = (np.nonzero(seen.infection)[axis].mean() / seen.grid.size for axis in range(3))
        assert x < 0.45
        assert y > 0.55
        assert z < 0.5


def test_what_is_known_of_the_patient_stays_and_the_anatomy_goes() -> None:
    scan = scan_of("plain")
    seen = unnormalised(scan)
    assert (seen.patient, seen.scan, seen.day, seen.stage) == (scan.patient, scan.scan, scan.day, scan.stage)
    assert seen.provenance == scan.provenance
    assert (seen.left_lung, seen.lobes) == (None, None)
    assert not seen.airways.any()
    assert not seen.vessels.any()
    assert np.array_equal(np.asarray(seen.native_infection), np.asarray(scan.native_infection))
    again = unnormalised(scan)
    assert np.array_equal(seen.signal, again.signal)
    assert scan.signal.min() < -0.2  # the scan itself is as it was


def test_lungs_that_were_found_are_taken_back_to_the_image_first() -> None:
    scan = scan_of("oblique", own_lungs=False)
    seen = unnormalised(scan)
    assert seen.native_lungs is not None
    native = restore_mask(scan.lungs, scan.placement)
    assert dice(np.asarray(seen.native_lungs), native) > 0.99
    assert dice(restore_mask(seen.lungs, seen.placement), native) > 0.9


def test_a_scan_without_annotation_has_none_afterwards() -> None:
    seen = unnormalised(replace(scan_of("plain"), infection=None, native_infection=None))
    assert seen.infection is None
    assert seen.native_infection is None
