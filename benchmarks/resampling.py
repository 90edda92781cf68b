"""One 512 x 512 x 300 volume to 512^3: lungcast beside SimpleITK, SciPy and OpenCV, with their errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.grid import StandardGrid
from standard_space.jobs import peak_memory_gb
from standard_space.lanczos import resample

SIZE = (512, 512, 300)
SPACING_MM = (0.7, 0.7, 1.7)
"""The volume covers the standard extent: every one of the 512^3 output voxels is computed."""

SLAB = 8
"""Slices that SimpleITK's Lanczos is timed on; it is scaled to the whole."""


@dataclass
class Method:
    """One way to resample: its time, memory beyond the input (output included), and errors inside."""

    name: str
    seconds: float
    extra_gb: float
    max_error: float
    rms_error: float
    note: str = ""


def wave_volume() -> tuple[NDArray[np.float32], Callable[[NDArray, NDArray, NDArray], NDArray]]:
    """A volume (z, y, x) of waves no shorter than 4 voxels, and the function behind it, in mm."""

    def axis(position: NDArray, step: float) -> NDArray:
        return np.cos(2 * np.pi * position / (23.0 * step)) + 0.7 * np.sin(
            2 * np.pi * position / (4.0 * step)
        )

    def truth(z: NDArray, y: NDArray, x: NDArray) -> NDArray:
        sx, sy, sz = SPACING_MM
        a, b, c = axis(z, sz), axis(y, sy), axis(x, sx)
        return -500.0 + 100.0 * (a[:, None, None] * b[None, :, None] * c[None, None, :])

    x, y, z = (np.arange(n) * s for n, s in zip(SIZE, SPACING_MM, strict=True))
    return truth(z, y, x).astype(np.float32), truth


def placement() -> tuple[tuple[float, float, float], tuple[float, float, float], NDArray]:
    """Start and step (z, y, x) of the centred standard grid in input voxels, and the offset (z, y, x) in mm."""
    grid = StandardGrid(512)
    spacing = np.array(SPACING_MM[::-1])
    middle = (np.array(SIZE[::-1]) - 1) / 2 * spacing
    offset = middle - (np.array(grid.shape) - 1) / 2 * np.array(grid.spacing_mm)
    start, step = offset / spacing, np.array(grid.spacing_mm) / spacing
    return tuple(start.tolist()), tuple(step.tolist()), offset  # type: ignore[return-value]


def clock(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median seconds of several runs, and the last result."""
    seconds, _, result = weigh(work, repeats)
    return seconds, result


def weigh(work: Callable[[], Any], repeats: int) -> tuple[float, float, Any]:
    """Median seconds of several runs; extra memory (GB, NaN where not known) and result of the last."""
    seconds, extra, result = [], float("nan"), None
    for _ in range(repeats):
        result = None  # the one before must not stand in the way of the allocator
        before = _reset_peak()
        begun = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - begun)
        extra = peak_memory_gb() - before
    return float(np.median(seconds)), extra, result


def _reset_peak() -> float:
    """Start the peak anew at what is resident now (Linux); returns that, GB."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    return peak_memory_gb()


def compare_resampling() -> tuple[list[Method], float]:
    """All methods on the test volume, and the time of lungcast's first call (compiled or read from the cache)."""
    volume, truth = wave_volume()
    start, step, offset = placement()
    grid = StandardGrid(512)
    places = [o + g * np.arange(512) for o, g in zip(offset, grid.spacing_mm, strict=True)]
    inner = slice(16, -16)
    methods = []

    def judge(
        name: str, cost: tuple[float, float], result: NDArray, at: list[NDArray] = places, note: str = ""
    ) -> None:
        box = (inner if len(at[0]) == 512 else slice(None), inner, inner)
        sampled = [p[b] for p, b in zip(at, box, strict=True)]
        worst, total, count = 0.0, 0.0, 0
        part = result[box]
        for k in range(len(part)):  # by slices, to keep the memory of the comparison small
            error = np.abs(part[k] - truth(sampled[0][k : k + 1], sampled[1], sampled[2])[0])
            worst = max(worst, float(error.max()))
            total, count = total + float((error.astype(np.float64) ** 2).sum()), count + error.size
        methods.append(Method(name, *cost, worst, float(np.sqrt(total / count)), note))

    def ours(kernel: str) -> NDArray:
        return resample(volume, grid.shape, start, step, fill=-1000.0, kernel=kernel)  # type: ignore[arg-type]

    cold, _ = clock(lambda: ours("lanczos"), 1)
    for kernel in ("lanczos", "linear"):
        ours(kernel)
        seconds, extra, result = weigh(lambda kernel=kernel: ours(kernel), 5)
        judge(f"lungcast {kernel}", (seconds, extra), result)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(SPACING_MM)

    def theirs(kernel: int, slices: int, first: int) -> sitk.Image:
        begin = offset + np.array([first, 0, 0]) * np.array(grid.spacing_mm)
        return sitk.Resample(
            image, (512, 512, slices), sitk.Transform(), kernel, begin[::-1].tolist(), grid.spacing_mm[::-1],
            (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0), -1000.0,
        )  # fmt: skip

    for name, kernel in (("linear", sitk.sitkLinear), ("B-spline", sitk.sitkBSpline)):
        seconds, extra, result = weigh(lambda kernel=kernel: theirs(kernel, 512, 0), 1)
        judge(f"SimpleITK {name}", (seconds, extra), sitk.GetArrayFromImage(result))
    seconds, _, result = weigh(lambda: theirs(sitk.sitkLanczosWindowedSinc, SLAB, 250), 1)
    note = f"{SLAB} of 512 slices timed, scaled"
    judge(
        "SimpleITK LanczosWindowedSinc",
        (seconds * 512 / SLAB, float("nan")),
        sitk.GetArrayFromImage(result),
        [places[0][250 : 250 + SLAB], *places[1:]],
        note,
    )
    methods += zooms(volume, truth)
    return methods, cold


def zooms(volume: NDArray[np.float32], truth: Callable[[NDArray, NDArray, NDArray], NDArray]) -> list[Method]:
    """Peers that know no offset: they zoom the part of the volume that the standard extent covers."""
    sx, sy, sz = SPACING_MM
    low = [(n - round(mm / s)) // 2 for n, s, mm in ((SIZE[1], sy, 334.0), (SIZE[0], sx, 334.0))]
    count = [round(mm / s) for s, mm in ((sy, 334.0), (sx, 334.0))]
    part = np.ascontiguousarray(volume[:, low[0] : low[0] + count[0], low[1] : low[1] + count[1]])
    methods = []

    def judge(name: str, cost: tuple[float, float], result: NDArray, corners: bool, note: str) -> None:
        # Samples at voxel centres, or from corner voxel to corner voxel.
        axes = []
        for n, first, s in zip(part.shape, (0, *low), (sz, sy, sx), strict=True):
            j = np.arange(512)
            at = j * (n - 1) / 511 if corners else (j + 0.5) * n / 512 - 0.5
            axes.append((first + at) * s)
        inner, worst, total, count = slice(16, -16), 0.0, 0.0, 0
        for k in range(16, 496):
            expected = truth(axes[0][k : k + 1], axes[1][inner], axes[2][inner])[0]
            error = np.abs(result[k, inner, inner] - expected)
            worst = max(worst, float(error.max()))
            total, count = total + float((error.astype(np.float64) ** 2).sum()), count + error.size
        methods.append(Method(name, *cost, worst, float(np.sqrt(total / count)), note))

    factors = [512 / n for n in part.shape]
    for order in (1, 3):
        seconds, extra, result = weigh(lambda order=order: ndimage.zoom(part, factors, order=order), 1)
        judge(f"scipy.ndimage.zoom order {order}", (seconds, extra), result, True, "no anti-aliasing")
    try:
        import cv2
    except ImportError:
        methods.append(Method("OpenCV INTER_LANCZOS4", *[float("nan")] * 4, "not installed"))
        return methods

    def opencv() -> NDArray:
        plane = np.empty((part.shape[0], 512, 512), np.float32)
        for z in range(len(part)):
            plane[z] = cv2.resize(part[z], (512, 512), interpolation=cv2.INTER_LANCZOS4)
        out = np.empty((512, 512, 512), np.float32)
        for y in range(512):
            out[:, y] = cv2.resize(plane[:, y], (512, 512), interpolation=cv2.INTER_LANCZOS4)
        return out

    seconds, extra, result = weigh(opencv, 1)
    judge("OpenCV INTER_LANCZOS4", (seconds, extra), result, False, "in planes, 4 lobes, no anti-aliasing")
    return methods
