import numpy as np
import pytest

from simulator.dynamics.neighbours import ANNOTATED, FREE, INFECTED
from simulator.dynamics.residual import (
    LARGEST,
    fine_structure,
    last_record_only,
    zero_mean_per_bin,
)


def deviation_twin(
    source: np.ndarray, status: np.ndarray, voxel: int, spacing: tuple[float, float, float], stride: int
) -> float:
    """Normalised Gaussian mean over like tissue within 3 mm, one voxel at a time."""
    sigma = max(1.5, 0.75 * max(spacing))
    here = np.array(np.unravel_index(voxel, source.shape))
    total = weight = 0.0
    for q in np.ndindex(source.shape):
        step = np.array(q) - here
        reach = [max(1, int(3.0 / s)) for s in spacing]
        if any(abs(d) > r or (r >= 4 and d % stride) for d, r in zip(step, reach, strict=True)):
            continue
        if status[q] == 0 or (status[q] & ANNOTATED) != (status[tuple(here)] & ANNOTATED):
            continue
        w = np.exp(-((step * spacing) ** 2).sum() / (2 * sigma**2))
        total, weight = total + w * source[q], weight + w
    return float(source[tuple(here)] - total / weight)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.5), (4.0, 2.6, 2.6), (1.0, 0.65, 0.65)])
def test_fine_structure_equals_the_twin(spacing: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    shape = (9, 10, 11)
    source = rng.normal(-0.2, 0.03, shape).astype(np.float32)
    status = rng.choice([0, FREE, INFECTED, INFECTED | ANNOTATED, FREE | ANNOTATED], shape).astype(np.uint8)
    voxels = np.flatnonzero(status)[::29].astype(np.int64)
    got = fine_structure(source.reshape(-1), status.reshape(-1), voxels, shape, spacing)
    expected = [deviation_twin(source, status, int(v), spacing, 2) for v in voxels]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_large_deviations_are_clipped() -> None:
    source = np.full((5, 5, 5), -0.2, np.float32)
    source[2, 2, 2] = 3.0
    status = np.full(125, FREE, np.uint8)
    got = fine_structure(source.reshape(-1), status, np.array([62]), (5, 5, 5), (1, 1, 1))
    assert got == [np.float32(LARGEST)]


def test_zero_mean_per_bin() -> None:
    fine = np.array([1.0, 3.0, 5.0, 7.0, 100.0], np.float32)
    bins = np.array([4, 4, -1, -1, 4], np.int16)
    wants = np.array([True, True, True, True, False])
    assert zero_mean_per_bin(fine, bins, wants).tolist() == [-1, 1, -1, 1, 100]


def test_only_the_latest_record_of_a_normal_voxel_counts() -> None:
    status = np.full(10, FREE, np.uint8)
    status[3] = INFECTED
    records = np.array([5, 3, 5, 7], np.int32)
    assert last_record_only(records, status).tolist() == [False, False, True, True]
    assert last_record_only(records[:0], status).size == 0
