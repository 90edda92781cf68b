"""Separable resampling against a slow float64 twin and against what a resampler must reproduce."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from standard_space.lanczos import Kernel, axis_weights, resample


def twin_1d(
    values: np.ndarray, n_out: int, start: float, step: float, fill: float, kernel: str
) -> np.ndarray:
    """Slow, obvious: every output voxel from every input voxel."""
    out = np.full(n_out, fill, np.float64)
    wide = max(1.0, step)
    for j in range(n_out):
        u = start + j * step
        if u < -0.5 - 1e-9 or u > len(values) - 0.5 + 1e-9:
            continue
        total, weighted = 0.0, 0.0
        for i, value in enumerate(values):
            d = (i - u) / wide
            if kernel == "linear":
                w = max(0.0, 1.0 - abs(d))
            else:
                w = np.sinc(d) * np.sinc(d / 3) if abs(d) < 3 else 0.0
            total += w
            weighted += w * value
        out[j] = weighted / total
    return out


def twin(volume: np.ndarray, shape, start, step, fill: float, kernel: str) -> np.ndarray:
    current = volume.astype(np.float64)
    for axis in range(3):
        current = np.apply_along_axis(
            twin_1d, axis, current, shape[axis], start[axis], step[axis], np.nan, kernel
        )
    return np.where(np.isnan(current), fill, current)


@pytest.mark.parametrize("kernel", ["lanczos", "linear"])
@pytest.mark.parametrize(
    ("shape", "start", "step"),
    [
        ((9, 20, 15), (0.0, -0.4, 0.3), (2.3, 0.6, 1.0)),
        ((16, 8, 16), (-3.0, 0.5, -1.2), (1.7, 1.9, 0.77)),
        ((5, 3, 6), (1.0, 1.0, 9.0), (0.5, 0.5, 0.5)),
    ],
)
def test_matches_the_slow_twin(kernel: Kernel, shape, start, step) -> None:
    rng = np.random.default_rng(3)
    volume = rng.normal(-600, 300, (17, 13, 11)).astype(np.float32)
    fast = resample(volume, shape, start, step, fill=-1000.0, kernel=kernel)
    slow = twin(volume, shape, start, step, -1000.0, kernel)
    assert fast.dtype == np.float32
    assert np.abs(fast - slow).max() <= 1e-4 * np.ptp(volume)
    assert (slow == -1000.0).any()


@pytest.mark.parametrize("kernel", ["lanczos", "linear"])
@pytest.mark.parametrize("step", [0.37, 1.0, 1.6, 4.2])
def test_partition_of_unity(kernel: Kernel, step: float) -> None:
    weights = axis_weights(40, 30, -0.5, step, kernel).weights
    position = -0.5 + step * np.arange(30)
    inside = position <= 39.5
    np.testing.assert_allclose(weights.sum(axis=1)[inside], 1.0, atol=1e-6)
    assert not weights[~inside].any()


def test_identity_is_exact() -> None:
    volume = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    same = resample(volume, (6, 7, 8), (0, 0, 0), (1, 1, 1), fill=0.0)
    np.testing.assert_allclose(same, volume, atol=1e-6)


def along_x(values: np.ndarray, start: float, step: float, count: int) -> np.ndarray:
    volume = np.ascontiguousarray(np.broadcast_to(values.astype(np.float32), (4, 4, len(values))))
    return resample(volume, (4, 4, count), (0, 0, start), (1, 1, step), fill=0.0)[2, 2]


@pytest.mark.parametrize("step", [0.25, 0.65, 0.93, 1.0, 1.3, 2.0, 4.2])
def test_a_ramp_stays_a_ramp_inside(step: float) -> None:
    """Bound of docs/embedding.md: 0.02 of an input voxel's rise, anywhere at least 20 voxels inside."""
    count = int(200 / step)
    out = along_x(np.arange(240.0), 20.3, step, count)
    assert np.abs(out - (20.3 + step * np.arange(count))).max() <= 0.0201


# Bounds of docs/embedding.md on the error of a wave of height 1, by its length in voxels (of the coarser grid).
WAVES = {3: 0.082, 4: 0.017, 6: 0.017, 8: 0.007, 16: 0.006, 24: 0.005}


@pytest.mark.parametrize("length", WAVES)
@pytest.mark.parametrize("step", [0.25, 0.37, 0.65, 0.93, 1.0])
def test_a_band_limited_wave_is_reproduced(step: float, length: int) -> None:
    count = int(200 / step)
    out = along_x(np.sin(2 * np.pi * np.arange(240) / length), 20.3, step, count)
    truth = np.sin(2 * np.pi * (20.3 + step * np.arange(count)) / length)
    assert np.abs(out - truth).max() <= WAVES[length]


def impulse(kernel: int | None, at: np.ndarray) -> np.ndarray:
    """What a resampler makes of a single voxel of 1, at distances from it; None is ours."""
    count, start = 64, 32.0
    volume = np.zeros((24, 24, count), np.float32)
    volume[:, :, int(start)] = 1.0
    if kernel is None:
        return np.array(
            [resample(volume, (1, 1, 1), (12, 12, start + d), (1, 1, 1), fill=0.0)[0, 0, 0] for d in at]
        )
    image = sitk.GetImageFromArray(volume)
    sample = [sitk.Resample(image, (1, 1, 1), sitk.Transform(), kernel, (start + d, 12.0, 12.0)) for d in at]
    return np.array([sitk.GetArrayFromImage(one)[0, 0, 0] for one in sample])


def windowed_sinc(at: np.ndarray, lobes: int) -> np.ndarray:
    return np.where(np.abs(at) < lobes, np.sinc(at) * np.sinc(at / lobes), 0.0)


def test_simpleitks_lanczos_has_five_lobes_ours_three() -> None:
    """The whole difference on a grid that does not shrink; ours is also normalised over the voxels that exist."""
    at = np.array([-5.3, -4.5, -3.2, -2.5, -1.4, -0.5, 0.0, 0.3, 1.5, 2.6, 3.5, 4.4])
    np.testing.assert_allclose(impulse(sitk.sitkLanczosWindowedSinc, at), windowed_sinc(at, 5), atol=1e-4)
    total = np.array([windowed_sinc(d - np.arange(-8, 9), 3).sum() for d in at])
    np.testing.assert_allclose(impulse(None, at), windowed_sinc(at, 3) / total, atol=1e-6)


def simpleitk_lanczos(
    volume: np.ndarray, size: tuple[int, int, int], start: float, step: float
) -> np.ndarray:
    resampled = sitk.Resample(
        sitk.GetImageFromArray(volume), size, sitk.Transform(), sitk.sitkLanczosWindowedSinc,
        (start, 12.0, 12.0), (step, 1.0, 1.0),
    )  # fmt: skip
    return sitk.GetArrayFromImage(resampled)[0, 0]


def test_beside_simpleitks_lanczos_on_a_smooth_volume() -> None:
    """Where both apply: five lobes come closer (0.003 against 0.024 of a wave of 5 voxels), and both are close."""
    wave = np.sin(2 * np.pi * np.arange(64) / 5)
    volume = np.ascontiguousarray(np.broadcast_to(wave.astype(np.float32), (24, 24, 64)))
    size, start, step = (120, 1, 1), 12.2, 0.31
    theirs = simpleitk_lanczos(volume, size, start, step)
    ours = resample(volume, size[::-1], (12, 12, start), (1, 1, step), fill=0.0)[0, 0]
    truth = np.sin(2 * np.pi * (start + step * np.arange(120)) / 5)
    assert np.abs(theirs - truth).max() < 0.004
    assert np.abs(ours - truth).max() < 0.025
    assert np.abs(ours - theirs).max() < 0.03


def test_simpleitk_aliases_when_shrinking_and_we_do_not() -> None:
    stripes = np.where(np.arange(64) % 4 < 2, 1.0, -1.0).astype(np.float32)
    volume = np.ascontiguousarray(np.broadcast_to(stripes, (24, 24, 64)))
    size, start, step = (9, 1, 1), 12.0, 4.05
    theirs = simpleitk_lanczos(volume, size, start, step)
    ours = resample(volume, size[::-1], (12, 12, start), (1, 1, step), fill=0.0)[0, 0]
    assert np.abs(theirs).max() > 0.8
    assert np.abs(ours).max() < 0.1


def test_borders_are_normalised() -> None:
    """A constant stays that constant up to the edge, and beyond half a voxel outside it is fill."""
    out = along_x(np.full(12, 7.0), -1.0, 0.25, 60)
    at = -1.0 + 0.25 * np.arange(60)
    inside = (at >= -0.5) & (at <= 11.5)
    np.testing.assert_allclose(out[inside], 7.0, atol=1e-5)
    assert (out[~inside] == 0.0).all()


def test_shrinking_does_not_alias() -> None:
    stripes = np.where(np.arange(64) % 2, 1.0, -1.0).astype(np.float32)
    volume = np.ascontiguousarray(np.broadcast_to(stripes, (8, 8, 64)))
    out = resample(volume, (8, 8, 13), (0, 0, 6.2), (1, 1, 4.0), fill=0.0)
    assert np.abs(out).max() < 0.05


def test_lanczos_is_not_linear() -> None:
    """The original code asked for Lanczos and silently got bilinear."""
    wave = np.sin(np.arange(64) * 2 * np.pi / 5).astype(np.float32)
    volume = np.ascontiguousarray(np.broadcast_to(wave, (8, 8, 64)))
    truth = np.sin((10 + 0.5 * np.arange(80)) * 2 * np.pi / 5)
    errors = {}
    for kernel in ("lanczos", "linear"):
        out = resample(volume, (8, 8, 80), (0, 0, 10.0), (1, 1, 0.5), fill=0.0, kernel=kernel)
        errors[kernel] = np.abs(out[4, 4] - truth).max()
    assert errors["lanczos"] < 0.06 < 0.15 < errors["linear"]
