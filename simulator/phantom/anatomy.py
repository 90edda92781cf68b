"""A patient's anatomy as numbers, and the lungs as an implicit function of them.

The chest frame is millimetres along (x, y, z) = (left, posterior, superior): x = 0 is the midline, y = 0 the
middle of the lungs front to back, z = 0 the deepest costophrenic recess. Everything that does not breathe (skin,
bones) lives in it directly; everything that does (lungs, diaphragm, mediastinum, vessels, lesions) lives in the
inner frame, which a scan's inspiration maps to the chest frame. All distances are signed, mm, negative inside;
near a surface they are accurate to some per cent, which is what partial volume needs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

FAR_MM = 1e3


class Anatomy(NamedTuple):
    """Shape parameters of one patient, mm unless the name says otherwise; drawn in `draws.draw_anatomy`."""

    apex_z: float
    waist_z: float  # height of the widest section, where the apical dome begins
    axis_x: float  # distance of each lung's axis from the midline
    lateral: float  # half widths and depths of each lung's section about its axis
    medial: float
    anterior: float
    posterior: float
    apex_shift: float  # the apex lies this much behind the section's centre
    dome_right: float  # heights of the diaphragm's domes
    dome_left: float
    body_x: float  # half axes and centre of the body's outline
    body_y: float
    body_centre_y: float
    shoulder: float
    breast: float
    fat: float
    spine_y: float
    kyphosis: float
    heart_scale: float
    carina_z: float
    wobble: NDArray[np.float64]  # (n, 5): amplitude, wave vector (3), phase of the low-frequency irregularity
    vessels: NDArray[np.float64]  # (n, 8): capsules p0, p1, r0, r1 of the great vessels and hila
    chambers: NDArray[np.float64]  # (n, 15): centre, rotation rows (9), half axes of the heart
    lung_hu: float
    gravity_hu: float  # parenchyma is this much denser at the back than at the front
    dependent_hu: float  # extra density of the last millimetres above the posterior pleura
    has_breasts: float


@njit(cache=True, nogil=True, inline="always")
def smooth_max(a: float, b: float, k: float) -> float:
    """Maximum with a rounded edge of size k."""
    h = max(k - abs(a - b), 0.0) / k
    return max(a, b) + h * h * k * 0.25


@njit(cache=True, nogil=True, inline="always")
def smooth_step(edge0: float, edge1: float, value: float) -> float:
    """0 below edge0, 1 above edge1, smooth between."""
    t = min(max((value - edge0) / (edge1 - edge0), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@njit(cache=True, nogil=True, inline="always")
def cover(distance: float, width: float) -> float:
    """Share of a voxel of size `width` on the inner side of a surface at the signed `distance`."""
    return min(max(0.5 - distance / width, 0.0), 1.0)


@njit(cache=True, nogil=True)
def section_radius(u: float, v: float) -> float:
    """Norm of a squarish section: (|u|^2.5 + |v|^2.5)^0.4."""
    a, b = abs(u), abs(v)
    s = a * a * np.sqrt(a) + b * b * np.sqrt(b)
    return s**0.4


@njit(cache=True, nogil=True)
def wobble(x: float, y: float, z: float, shape: Anatomy) -> float:
    """Low-frequency irregularity of the pleural surface, mm."""
    total = 0.0
    for n in range(shape.wobble.shape[0]):
        w = shape.wobble[n]
        total += w[0] * np.sin(w[1] * x + w[2] * y + w[3] * z + w[4])
    return total


@njit(cache=True, nogil=True)
def envelope(x: float, y: float, z: float, shape: Anatomy, whole: bool) -> float:
    """Distance to the chest wall around the lung on the side of x; `whole`: around both, midline included."""
    up = max(0.0, z - shape.waist_z) / (shape.apex_z - shape.waist_z)
    rise = max(0.0, z - shape.waist_z)
    v = y - shape.apex_shift * up * up
    # The front of each lung leans towards the sternum, the apex towards the neck.
    u = abs(x) - shape.axis_x + 0.22 * max(0.0, -v) * (1.0 - 0.5 * up) + 12.0 * up * up
    if whole and u < 0.0:
        u = 0.0
    low = max(0.0, shape.waist_z - z) / shape.waist_z
    lateral = shape.lateral * (1.0 + 0.05 * low)
    radius = section_radius(
        u / (lateral if u > 0 else shape.medial), v / (shape.posterior if v > 0 else shape.anterior)
    )
    rho = np.sqrt(radius * radius + up * up)
    size = np.sqrt(u * u + v * v + rise * rise)
    if rho < 0.05:
        return -0.6 * lateral
    return size * (1.0 - 1.0 / rho)


@njit(cache=True, nogil=True)
def dome_height(x: float, y: float, shape: Anatomy) -> float:
    """Height of the diaphragm above (x, y)."""
    blend = smooth_step(-42.0, 42.0, x)
    height = shape.dome_right * (1.0 - blend) + shape.dome_left * blend
    dx = abs(x) - shape.axis_x - 2.0
    dy = y + 14.0
    ax = shape.lateral * 1.34 if dx > 0 else 108.0
    ay = shape.posterior * 1.22 if dy > 0 else shape.anterior * 1.45
    q = (dx / ax) ** 2 + (dy / ay) ** 2
    return height * (1.0 - q * (0.72 + 0.28 * q))


@njit(cache=True, nogil=True)
def diaphragm(x: float, y: float, z: float, shape: Anatomy) -> float:
    """Distance below the diaphragm's surface: negative above it, where the lung is."""
    h = dome_height(x, y, shape)
    if h - z < -25.0 or h - z > 60.0:
        return 0.6 * (h - z)
    gx = dome_height(x + 1.0, y, shape) - h
    gy = dome_height(x, y + 1.0, shape) - h
    return (h - z) / np.sqrt(1.0 + gx * gx + gy * gy)


@njit(cache=True, nogil=True)
def capsule(x: float, y: float, z: float, c: NDArray[np.float64]) -> float:
    """Distance to a tapered capsule (p0, p1, r0, r1)."""
    dx, dy, dz = c[3] - c[0], c[4] - c[1], c[5] - c[2]
    px, py, pz = x - c[0], y - c[1], z - c[2]
    t = min(max((px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz), 0.0), 1.0)
    qx, qy, qz = px - t * dx, py - t * dy, pz - t * dz
    return np.sqrt(qx * qx + qy * qy + qz * qz) - (c[6] + t * (c[7] - c[6]))


@njit(cache=True, nogil=True)
def great_vessels(x: float, y: float, z: float, shape: Anatomy) -> float:
    """Distance to the aorta, the caval veins, the pulmonary trunk and its branches to the hila."""
    best = FAR_MM
    for n in range(shape.vessels.shape[0]):
        best = min(best, capsule(x, y, z, shape.vessels[n]))
    return best


@njit(cache=True, nogil=True)
def heart(x: float, y: float, z: float, shape: Anatomy) -> float:
    """Distance to the pericardium: a union of rotated ellipsoids."""
    best = FAR_MM
    for n in range(shape.chambers.shape[0]):
        c = shape.chambers[n]
        px, py, pz = x - c[0], y - c[1], z - c[2]
        a = (c[3] * px + c[4] * py + c[5] * pz) / c[12]
        b = (c[6] * px + c[7] * py + c[8] * pz) / c[13]
        d = (c[9] * px + c[10] * py + c[11] * pz) / c[14]
        r = np.sqrt(a * a + b * b + d * d)
        size = np.sqrt(px * px + py * py + pz * pz)
        distance = size * (1.0 - 1.0 / r) if r > 0.05 else -30.0
        h = max(8.0 - abs(best - distance), 0.0) / 8.0
        best = min(best, distance) - h * h * 2.0
    return best


@njit(cache=True, nogil=True)
def spine_axis(z: float, shape: Anatomy) -> float:
    """y of the vertebral column's axis at height z."""
    t = (z - 0.5 * shape.apex_z) / (0.5 * shape.apex_z)
    return shape.spine_y - shape.kyphosis * t * t


@njit(cache=True, nogil=True)
def mediastinum(x: float, y: float, z: float, shape: Anatomy) -> float:
    """Distance to everything between the lungs: heart, vessels with their fat, spine, the central column."""
    best = heart(x, y, z, shape)
    h_vessels = great_vessels(x, y, z, shape) - 3.0
    best = -smooth_max(-best, -h_vessels, 7.0)
    # Central column of fat, oesophagus and trachea; narrow behind the sternum (the anterior junction).
    narrow = smooth_step(-20.0, -62.0, y)
    column = 19.0 - 13.5 * narrow + 9.0 * smooth_step(0.72 * shape.apex_z, shape.apex_z, z) * (1.0 - narrow)
    best = -smooth_max(-best, -(abs(x) - column), 9.0)
    spine = spine_axis(z, shape)
    behind = y - spine
    if behind > -30.0:
        rib_heads = 15.0 + 0.32 * max(0.0, behind) + 4.0 * smooth_step(90.0, 20.0, z)
        body = np.sqrt(x * x + min(behind, 0.0) ** 2) - rib_heads - 6.0
        best = -smooth_max(-best, -body, 6.0)
    return best


@njit(cache=True, nogil=True)
def outer_pleura(x: float, y: float, z: float, shape: Anatomy) -> float:
    """Distance to the costal and diaphragmatic pleura of the lung on the side of x (no mediastinum)."""
    wall = envelope(x, y, z, shape, False)
    if wall > 15.0:
        return wall
    if wall > -12.0:
        wall += wobble(x, y, z, shape)
    return smooth_max(wall, diaphragm(x, y, z, shape), 3.0)


@njit(cache=True, nogil=True)
def lung_within(outer: float, x: float, y: float, z: float, shape: Anatomy) -> float:
    """`lung`, where the distance to the outer pleura is known already."""
    if outer > 12.0:
        return outer
    return smooth_max(outer, -mediastinum(x, y, z, shape), 5.0)


@njit(cache=True, nogil=True)
def lung(x: float, y: float, z: float, shape: Anatomy) -> float:
    """Distance to the surface of the lung on the side of x; negative within the lung."""
    return lung_within(outer_pleura(x, y, z, shape), x, y, z, shape)
