"""The anatomy's kernels against slow, obvious twins."""

from __future__ import annotations

import numpy as np
import pytest

from standard_space.anatomy.refine import _decide
from standard_space.anatomy.ribcage import _rays
from standard_space.anatomy.vessels import _above, _block_means

SHAPE = (7, 11, 13)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def test_deciding_a_border_voxel(rng: np.random.Generator) -> None:
    hu = rng.uniform(-1000, 100, SHAPE).astype(np.float32)
    coarse, core, near, lumen = (rng.random(SHAPE) < p for p in (0.5, 0.3, 0.6, 0.1))
    around = rng.integers(0, 20, SHAPE).astype(np.uint16)
    result = np.zeros(SHAPE, bool)
    _decide(hu, coarse, core, near, around, lumen, 8, -400.0, -250.0, result)
    soft = core | (coarse & ((around <= 8) | (hu < -250.0)))
    np.testing.assert_array_equal(result, ~lumen & np.where(hu < -400.0, near, soft))


@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 3, 4), (3, 2, 5)])
def test_block_means_and_what_lies_above_them(
    rng: np.random.Generator, factors: tuple[int, int, int]
) -> None:
    hu = rng.uniform(-1000, 100, SHAPE).astype(np.float32)
    lungs = rng.random(SHAPE) < 0.6
    blocks = tuple(-(-n // f) for n, f in zip(SHAPE, factors, strict=True))
    means = np.empty(blocks, np.float32)
    _block_means(hu, lungs, np.float32(-850.0), np.array(factors), means)
    filled = np.where(lungs, hu, np.float32(-850.0))
    places = [np.arange(n) // f for n, f in zip(SHAPE, factors, strict=True)]
    for k, j, i in np.ndindex(blocks):
        block = filled[places[0] == k][:, places[1] == j][:, :, places[2] == i]
        assert means[k, j, i] == pytest.approx(block.mean(), rel=1e-5)
    result = np.zeros(SHAPE, bool)
    _above(hu, lungs, means, np.array(factors), result)
    np.testing.assert_array_equal(result, lungs & (hu > means[np.ix_(*places)]))


def test_rays_stop_at_the_wall_and_remember_the_last_lung() -> None:
    """A round wall and a round lung in it: distances are the radii, to half a pixel's diagonal."""
    y, x = np.meshgrid(np.arange(81) - 40.0, (np.arange(121) - 60.0) * 0.7, indexing="ij")
    radius = np.hypot(y, x)
    wall, lung = (radius > 30.0)[None], (radius < 24.0)[None]
    wall = np.concatenate([wall, np.zeros_like(wall)])
    lung = np.concatenate([lung, lung])
    to_wall, to_lung = _rays(wall, lung, np.array([[40.0, 60.0], [np.nan, np.nan]]), 1.0, 0.7, 24, 100.0)
    assert np.abs(to_wall[0] - 30.0).max() <= 0.9
    assert np.abs(to_lung[0] - 24.0).max() <= 0.9
    assert np.isnan(to_wall[1]).all()
    out, _ = _rays(wall[1:], lung[:1], np.array([[40.0, 60.0]]), 1.0, 0.7, 24, 100.0)
    assert np.isnan(out).all()
