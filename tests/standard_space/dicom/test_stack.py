"""Where slices lie: orientation, gantry tilt, gaps, duplicates, frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from standard_space.errors import DataError, GeometryError
from standard_space.image import read_image
from tests.standard_space.dicom.dicom_files import enhanced, save, series
from tests.standard_space.dicom.reading import (
    compressed,
    noise,
    read,
    refusal,
)


@pytest.mark.parametrize(
    ("orientation", "code"),
    [
        ((1, 0, 0, 0, 1, 0), "LPS"),  # head first, supine
        ((-1, 0, 0, 0, 1, 0), "RPI"),  # feet first, supine
        ((-1, 0, 0, 0, -1, 0), "RAS"),  # head first, prone
        ((0, 1, 0, -1, 0, 0), "PRS"),  # decubitus
    ],
)
def test_every_patient_position_keeps_the_world(
    tmp_path: Path, orientation: tuple[float, ...], code: str
) -> None:
    volume = np.full((10, 24, 20), -1000, np.int16)
    volume[7, 5, 15] = 500
    series(tmp_path, volume, orientation=orientation, spacing=(1.5, 2.0, 2.5))
    array, where, _ = read(tmp_path)
    assert where.orientation == code
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    expected = np.array([-20, -24, 10]) + row * 15 * 1.5 + column * 5 * 2.0 + np.cross(row, column) * 7 * 2.5
    (k, j, i) = np.argwhere(array > 0)[0]
    np.testing.assert_allclose(where.to_world(np.array([i, j, k])), expected, atol=1e-6)


def ball(where: np.ndarray, centre: np.ndarray, radius_mm: float) -> np.ndarray:
    """A smooth ball of 40 HU in air, at world positions (..., 3)."""
    distance = np.linalg.norm(where - centre, axis=-1)
    return -1000 + 1040 / (1 + np.exp((distance - radius_mm) / 0.7))


@pytest.mark.parametrize("degrees", [20.0, -20.0, 7.3])
def test_a_gantry_tilt_is_corrected_in_the_world(tmp_path: Path, degrees: float) -> None:
    angle = np.deg2rad(degrees)
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))
    shape, pixel, table = (40, 64, 56), 1.5, 2.0
    positions = np.array([[-40.0, -50.0, 100.0 + table * k] for k in range(shape[0])])
    j, i = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    in_plane = i[..., None] * pixel * np.array(orientation[:3])
    in_plane = in_plane + j[..., None] * pixel * np.array(orientation[3:])
    world = positions[:, None, None, :] + in_plane
    centre = np.array([3.3, -4.1, 141.7])
    series(
        tmp_path,
        np.round(ball(world, centre, 14.0)).astype(np.int16),
        positions=positions,
        orientation=orientation,
        spacing=(pixel, pixel, 0.0),
    )
    array, where, notes = read(tmp_path)
    assert notes == [
        f"gantry tilt of {abs(degrees):.1f} degrees corrected: slices shifted in plane, the rest padded with air"
    ]
    turn = np.array(where.direction).reshape(3, 3)
    np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=1e-9)
    assert where.spacing_mm[2] == pytest.approx(table * np.cos(angle))
    k, j3, i3 = np.meshgrid(*(np.arange(n, dtype=float) for n in where.shape), indexing="ij")
    grid = where.to_world(np.stack([i3, j3, k], axis=-1))
    weight = np.clip(array + 1000.0, 0, None) * (np.linalg.norm(grid - centre, axis=-1) < 25)
    found = (grid * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum()
    np.testing.assert_allclose(found, centre, atol=0.1)
    # Sharp as well as in place: a linear shift blurs this edge by some hundred HU.
    expected = ball(grid, centre, 14.0)
    assert np.abs(array - expected).max() < 60
    # Nothing is cut: every voxel of every slice lies on the grid.
    corners = where.to_index(world.reshape(-1, 3))
    assert (corners >= -1e-4).all()
    assert (corners <= np.array(where.size) - 1 + 1e-4).all()


def test_a_shear_no_gantry_makes_is_refused(tmp_path: Path) -> None:
    bent = np.array([[-20.0, -24 + 30 * np.sin(k / 3), 10 + 2.0 * k] for k in range(12)])
    series(tmp_path / "bent", noise((12, 24, 20)), positions=bent)
    assert isinstance(refusal(tmp_path / "bent"), GeometryError)
    steep = np.array([[-20.0, -24 + 5.0 * k, 10 + 2.0 * k] for k in range(12)])
    series(tmp_path / "steep", noise((12, 24, 20)), positions=steep)
    assert "68.2 degrees" in str(refusal(tmp_path / "steep"))


@pytest.mark.parametrize(
    ("heights", "parts"),
    [
        ([0, 2, 4, 6, 10, 12, 18, 20], ["3 slices are missing", "between 6.0 and 10.0", "12.0 and 18.0 mm"]),
        ([0, 2, 4, 6, 7, 9, 11], ["unevenly spaced", "1.00 to 2.00 mm"]),
        ([0, 1, 2, 3, 5, 7, 9, 11, 13], ["unevenly spaced"]),
        (
            [k * 0.97 if k < 100 else 97 + (k - 100) * 1.05 for k in range(200)],
            ["unevenly spaced", "even grid"],
        ),
        ([0, 2], ["too few slices"]),
    ],
)
def test_uneven_series_are_refused(tmp_path: Path, heights: list[float], parts: list[str]) -> None:
    positions = np.array([[-20.0, -24.0, h] for h in heights])
    series(tmp_path, noise((len(heights), 4, 4)), positions=positions)
    error = refusal(tmp_path)
    assert isinstance(error, DataError)
    assert all(part in str(error) for part in parts)


def test_rounded_positions_are_accepted(tmp_path: Path) -> None:
    positions = np.array([[-20.0, -24.0, round(0.625 * k, 1)] for k in range(41)])
    series(tmp_path, noise((41, 4, 4)), positions=positions)
    assert read(tmp_path)[1].spacing_mm[2] == pytest.approx(0.625)


def test_exact_copies_are_dropped_with_a_note(tmp_path: Path) -> None:
    volume = noise()
    series(tmp_path / "a", volume)
    series(tmp_path / "b", volume[2:5], positions=np.array([[-20, -24, 10 + 2.5 * k] for k in range(2, 5)]))
    array, _, notes = read(tmp_path)
    np.testing.assert_array_equal(array, volume)
    assert notes == ["3 slices that repeat another exactly were left out"]


def test_acquisitions_at_the_same_positions_are_told_apart(tmp_path: Path) -> None:
    volume = noise(seed=1)
    series(tmp_path / "a", volume, AcquisitionNumber=2)
    series(tmp_path / "b", noise(seed=2)[1:], AcquisitionNumber=3, positions=heights(1, 8), first_number=53)
    array, _, notes = read(tmp_path)
    np.testing.assert_array_equal(array, volume)
    assert notes == ["the series holds 2 acquisitions at the same positions; taken: one of 8 slices"]


def heights(start: int, stop: int) -> np.ndarray:
    return np.array([[-20.0, -24.0, 10 + 2.5 * k] for k in range(start, stop)])


def test_different_slices_at_one_position_are_refused(tmp_path: Path) -> None:
    series(tmp_path / "a", noise(seed=1))
    series(tmp_path / "a", noise(seed=2), first_number=53)
    assert "8 of 8 positions" in str(refusal(tmp_path / "a"))
    # Acquisitions that overlap in part are two parts of one chest: neither alone will do.
    series(tmp_path / "b", noise(seed=1), AcquisitionNumber=1)
    series(tmp_path / "b", noise(seed=2), AcquisitionNumber=2, positions=heights(6, 14), first_number=53)
    assert "2 of 14 positions" in str(refusal(tmp_path / "b"))


def test_an_enhanced_ct_is_read_frame_by_frame(tmp_path: Path) -> None:
    volume = noise((9, 24, 20))
    order = np.random.default_rng(1).permutation(9)
    slopes = [1.0 + 0.25 * k for k in range(9)]
    intercepts = [-100.0 - k for k in range(9)]
    positions = heights(0, 9)
    enhanced(
        tmp_path / "big",
        volume[order],
        positions=positions[order],
        slopes=[slopes[k] for k in order],
        intercepts=[intercepts[k] for k in order],
    )
    enhanced(tmp_path / "small", noise((5, 24, 20), 3), positions=heights(0, 5), uid="1.2.9.8")
    array, where, notes = read(tmp_path)
    exact = volume * np.array(slopes)[:, None, None] + np.array(intercepts)[:, None, None]
    np.testing.assert_array_equal(array, exact.astype(np.float32))
    assert where.spacing_mm == pytest.approx((2.0, 2.0, 2.5))
    assert where.origin_mm == pytest.approx((-20, -24, 10))
    assert notes == ["2 series found; taken: series 3, 9 slices of 2.5 mm; left out: 1 series of 5 slices"]
    window = read_image(tmp_path).window
    assert window is not None
    assert window.level_hu == -600


def test_a_compressed_enhanced_ct(tmp_path: Path) -> None:
    volume = noise((6, 24, 20))
    enhanced(tmp_path / "raw", volume, positions=heights(0, 6))
    (tmp_path / "out").mkdir()
    compressed(tmp_path / "raw", tmp_path / "out" / "rle", "RLE")
    np.testing.assert_array_equal(read(tmp_path / "out")[0], volume)


def test_a_concatenation_is_put_together_and_refused_in_part(tmp_path: Path) -> None:
    volume = noise((10, 24, 20))
    for part, (start, stop) in enumerate([(0, 4), (4, 10)]):
        enhanced(
            tmp_path / f"part{part}",
            volume[start:stop],
            positions=heights(start, stop),
            ConcatenationUID="1.2.9.55",
            InConcatenationTotalNumber=2,
            InConcatenationNumber=part + 1,
        )
    np.testing.assert_array_equal(read(tmp_path)[0], volume)
    (tmp_path / "part0").unlink()
    assert "concatenation are missing" in str(refusal(tmp_path))


def test_a_multi_frame_file_that_does_not_say_where_its_frames_lie_is_refused(tmp_path: Path) -> None:
    dataset = enhanced(tmp_path / "a", noise((6, 24, 20)), positions=heights(0, 6))
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:4]
    save(dataset, tmp_path / "a")
    assert "where its frames lie" in str(refusal(tmp_path))
    dataset.NumberOfFrames = 2_000_000_000
    save(dataset, tmp_path / "a")
    refusal(tmp_path)
