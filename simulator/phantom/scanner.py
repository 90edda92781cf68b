"""Scanners: native geometries, kernels, noise and display windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from simulator.phantom.tubes import Frame
from standard_space.errors import UsageError
from standard_space.geometry import Geometry


@dataclass(frozen=True)
class Scanner:
    """What a scanner and its protocol do to an image.

    Parameters
    ----------
    name : str
    noise_hu : float
        Standard deviation in lung at the reference grid (128).
    noise_correlation : float
        Gaussian sigma of the noise within the slice, voxels.
    blur : float
        Gaussian sigma of the reconstruction kernel within the slice, voxels.
    sharpening : float
        Strength of the kernel's edge enhancement, 0 for none.
    offset_hu : float
        Calibration error.
    level_hu, width_hu : float
        Display window.
    """

    name: str
    noise_hu: float
    noise_correlation: float
    blur: float
    sharpening: float
    offset_hu: float
    level_hu: float
    width_hu: float


SCANNERS = (
    Scanner("aurora-16", 24.0, 0.70, 0.45, 0.0, 3.0, -600.0, 1600.0),
    Scanner("boreas-64", 14.0, 0.85, 0.55, 0.0, -4.0, -500.0, 1500.0),
    Scanner("cirrus-128", 19.0, 0.55, 0.30, 0.35, 0.0, -550.0, 1600.0),
    Scanner("delta-lowdose", 33.0, 0.80, 0.50, 0.0, 6.0, -600.0, 1500.0),
    Scanner("eos-spectral", 11.0, 0.60, 0.35, 0.15, -2.0, -600.0, 1600.0),
)


def scanners_named(names: Sequence[str]) -> tuple[Scanner, ...]:
    """The scanners of these names, in this order; a name may occur twice.

    Raises
    ------
    UsageError
        When there is no name, or no scanner has one of them.
    """
    known = {scanner.name: scanner for scanner in SCANNERS}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UsageError(
            "the phantom has no such scanner",
            got=", ".join(map(repr, unknown)) or "no name",
            expected=", ".join(known),
        )
    return tuple(known[name] for name in names)


ORIENTATIONS = ("LPS", "RAS", "LPS", "RPI", "LAI", "PSR")
"""Axis codes in circulation: supine head first, flipped in plane, feet first, prone, sagittal storage."""

_TOWARDS = {
    "L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)
}  # fmt: skip


@dataclass(frozen=True)
class Protocol:
    """How a patient is scanned: drawn once per patient, apart from the grid."""

    scanner: Scanner
    field_of_view_mm: tuple[float, float]
    matrix_share: tuple[float, float]  # voxels along x and y as shares of the grid
    slice_mm_at_512: float
    orientation: str
    tilt_deg: tuple[float, float, float]
    below_mm: float  # coverage beyond the lungs
    above_mm: float


@dataclass(frozen=True)
class Acquisition:
    """What differs between the scans of a patient."""

    shift_mm: tuple[float, float, float]
    roll_deg: tuple[float, float, float]
    inspiration: float  # relative change of the lungs' height; their volume changes by about 1.4 times it
    start_mm: float  # how much more or less is covered below


def rotation(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """Rotation matrix about x, then y, then z."""
    a, b, c = np.deg2rad(degrees)
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx)


def breath_of(inspiration: float, apex_z: float) -> NDArray[np.float64]:
    """Scale and shift of (x, y, z): the diaphragm moves most, the apex stays."""
    scale = np.array([1.0 + 0.12 * inspiration, 1.0 + 0.28 * inspiration, 1.0 + inspiration])
    return np.concatenate([scale, [0.0, 0.0, apex_z * (1.0 - scale[2])]])


def native_geometry(protocol: Protocol, acquisition: Acquisition, grid: int, apex_z: float) -> Geometry:
    """The image's geometry in world millimetres (LPS).

    Parameters
    ----------
    protocol, acquisition : Protocol, Acquisition
    grid : int
        Coarseness: 128 gives voxels of about 3 mm, 512 clinical ones.
    apex_z : float
        Height of the lungs' apex, mm.
    """
    columns = np.array([_TOWARDS[c] for c in protocol.orientation], float).T
    extent = {
        "x": protocol.field_of_view_mm[0],
        "y": protocol.field_of_view_mm[1],
        "z": apex_z + protocol.below_mm + protocol.above_mm + acquisition.start_mm,
    }
    thickness = protocol.slice_mm_at_512 * (512.0 / grid) ** 0.6
    count = {
        "x": max(16, round(grid * protocol.matrix_share[0])),
        "y": max(16, round(grid * protocol.matrix_share[1])),
        "z": max(16, round(extent["z"] / thickness)),
    }
    spacing = {"x": extent["x"] / count["x"], "y": extent["y"] / count["y"], "z": thickness}
    names = ["xyz"[int(np.argmax(np.abs(columns[:, a])))] for a in range(3)]
    direction = rotation(protocol.tilt_deg) @ columns
    size = tuple(count[n] for n in names)
    steps = tuple(round(spacing[n], 6) for n in names)
    middle = np.array(
        [0.0, 4.0, 0.5 * (apex_z + protocol.above_mm - protocol.below_mm - acquisition.start_mm)]
    )
    middle = middle + np.asarray([0.0, 150.0, -420.0])  # the couch's zero is not the patient's
    origin = middle - direction @ (0.5 * (np.asarray(size) - 1) * np.asarray(steps))
    return Geometry(
        (size[0], size[1], size[2]),
        (steps[0], steps[1], steps[2]),
        (round(float(origin[0]), 3), round(float(origin[1]), 3), round(float(origin[2]), 3)),
        tuple(float(v) for v in direction.ravel()),
    )


def frame_of(geometry: Geometry, acquisition: Acquisition, apex_z: float) -> Frame:
    """Where a native image's voxels lie in the patient's chest frame."""
    turn = rotation(acquisition.roll_deg)
    step = np.asarray(geometry.direction).reshape(3, 3) * np.asarray(geometry.spacing_mm)
    origin = np.asarray(geometry.origin_mm) - [0.0, 150.0, -420.0] - np.asarray(acquisition.shift_mm)
    matrix = np.hstack([(turn.T @ step)[:, ::-1], (turn.T @ origin)[:, None]])
    return Frame(geometry.shape, np.ascontiguousarray(matrix), breath_of(acquisition.inspiration, apex_z))


def _slice_axis(geometry: Geometry) -> int:
    """Array axis that runs closest to head-feet."""
    head = np.abs(np.asarray(geometry.direction).reshape(3, 3)[2])
    return 2 - int(np.argmax(head))


def expose(
    hu: NDArray[np.float32], scanner: Scanner, geometry: Geometry, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Kernel, noise and calibration of a scanner on a clean image, in place; rounded to int16 HU.

    Noise grows where the body is thick side to side, as it does at the shoulders and the liver.
    """
    along = _slice_axis(geometry)
    sigmas = [scanner.blur] * 3
    sigmas[along] = 0.0
    if scanner.sharpening > 0:
        soft = gaussian_filter(hu, [2.0 * s for s in sigmas], truncate=3.0)
        hu += np.float32(scanner.sharpening) * (hu - soft)
        del soft
    gaussian_filter(hu, sigmas, output=hu, truncate=3.0)
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    sigmas[along] = 0.0
    for axis in range(3):
        if axis != along:
            gaussian_filter1d(noise, scanner.noise_correlation, axis=axis, output=noise, truncate=3.0)
    noise *= np.float32(1.0 / noise.std())
    others = tuple(a for a in range(3) if a != along)
    tissue = (hu > -500.0).mean(axis=others)
    level = scanner.noise_hu * (0.75 + 0.9 * tissue)
    shape = [1, 1, 1]
    shape[along] = -1
    noise *= level.reshape(shape).astype(np.float32)
    hu += noise
    hu += np.float32(scanner.offset_hu)
    np.clip(hu, -1024.0, 3071.0, out=hu)
    np.rint(hu, out=hu)
    return hu.astype(np.int16)
