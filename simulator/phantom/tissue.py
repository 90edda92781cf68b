"""Soft tissue, spine, abdomen, table and lung parenchyma evaluated at every voxel, with partial volume."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from simulator.phantom.anatomy import (
    Anatomy,
    cover,
    diaphragm,
    envelope,
    great_vessels,
    heart,
    lung,
    outer_pleura,
    section_radius,
    smooth_max,
    smooth_step,
    spine_axis,
)
from simulator.phantom.raster import Raster, sample
from simulator.phantom.tubes import Frame

AIR, FAT, MUSCLE, BLOOD, SKIN = -1000.0, -102.0, 52.0, 42.0, 20.0
LIVER, SPLEEN, STOMACH = 58.0, 48.0, 28.0
TABLE_SHELL, TABLE_FOAM = -180.0, -945.0


@njit(cache=True, nogil=True)
def body_outline(x: float, y: float, z: float, shape: Anatomy) -> float:
    """Distance to the skin."""
    up = smooth_step(0.66 * shape.apex_z, 1.02 * shape.apex_z, z)
    ax = shape.body_x + shape.shoulder * up
    ay = shape.body_y - 14.0 * up
    dy = y - shape.body_centre_y - 6.0 * up
    rho = section_radius(x / ax, dy / ay)
    size = np.sqrt(x * x + dy * dy)
    distance = size * (1.0 - 1.0 / rho) if rho > 0.05 else -ay
    if shape.has_breasts > 0.5:
        bx, by, bz = abs(x) - 82.0, dy + ay - 14.0, z - 0.47 * shape.apex_z
        r = np.sqrt((bx / 68.0) ** 2 + (by / shape.breast) ** 2 + (bz / 64.0) ** 2)
        bump = np.sqrt(bx * bx + by * by + bz * bz) * (1.0 - 1.0 / r) if r > 0.05 else -20.0
        distance = -smooth_max(-distance, -bump, 24.0)
    return distance


@njit(cache=True, nogil=True)
def _table(x: float, y: float, shape: Anatomy, w: float) -> float:
    top = shape.body_centre_y + shape.body_y + 5.0
    depth = y - (top - 0.0011 * x * x)
    if depth < -4.0 or depth > 40.0 or abs(x) > 212.0:
        return AIR
    hu = AIR + (TABLE_FOAM - AIR) * cover(abs(depth - 14.0) - 14.0, w)
    hu += (-620.0 - hu) * cover(abs(depth) - 0.6, w) * 0.7
    return hu + (TABLE_SHELL - hu) * cover(abs(depth - 27.0) - 1.8, w)


@njit(cache=True, nogil=True)
def _wall(x: float, y: float, z: float, skin: float, wall: float, shape: Anatomy) -> float:
    """HU of the chest wall: skin, fat, muscle, intercostal spaces."""
    if skin > -1.6:
        return SKIN
    if wall < 2.2:
        return FAT + 25.0
    muscle = 11.5
    if y < -20.0:
        muscle += 9.0 * smooth_step(0.52, 0.72, z / shape.apex_z) * smooth_step(16.0, 42.0, abs(x))
    else:
        muscle += 9.0 * smooth_step(0.40, 0.70, z / shape.apex_z) + 6.0 * smooth_step(40.0, 85.0, abs(x))
    back = spine_axis(z, shape) + 37.0
    across = np.sqrt(((abs(x) - 30.0) / 30.0) ** 2 + ((y - back) / 22.0) ** 2)
    inner = wall < muscle or across < 1.0
    # Fat planes between the layers of muscle.
    if inner and skin < -0.55 * shape.fat:
        if 10.0 < wall < 11.8 and across > 1.05:
            return -25.0
        return MUSCLE
    if skin < -shape.fat and wall < muscle + 12.0:
        return MUSCLE - 12.0
    return FAT


@njit(cache=True, nogil=True)
def _spine(x: float, y: float, z: float, shape: Anatomy, w: float, hu: float) -> float:
    """The vertebral column over what was there: bodies, discs, canal, arches and processes."""
    dy = y - spine_axis(z, shape)
    period = 0.094 * shape.apex_z
    level = z / period
    phase = (level - np.floor(level)) * period
    disc = abs(phase - 0.5 * period) - (0.5 * period - 2.4)
    size = 1.0 + 0.14 * smooth_step(shape.apex_z, 0.0, z)
    waist = 1.0 - 0.07 * (1.0 - (2.0 * phase / period - 1.0) ** 2)
    body = (np.sqrt((x / 1.22) ** 2 + min(dy, 4.0) ** 2) - 14.5 * size * waist) if dy < 12.0 else 20.0
    c = cover(body, w)
    if c > 0.0:
        bone = 205.0 + (480.0 - 205.0) * cover(-body - 1.6, w) * (1.0 if disc < 0 else 0.0)
        if disc > 0:
            bone = 95.0
        elif disc > -1.6:
            bone = 380.0
        hu += c * (bone - hu)
    arch_y = dy - 23.5
    ring = np.sqrt(x * x + arch_y * arch_y)
    if ring < 16.0:
        hu += cover(ring - 12.6, w) * cover(-(dy - 13.0), w) * (430.0 - hu)
        hu += cover(ring - 8.6, w) * (25.0 - hu)
    slope = 0.55 * (dy - 34.0)
    phase_p = (z + slope) / period
    phase_p = (phase_p - np.floor(phase_p)) * period
    process = max(abs(x) - 2.9, max(34.0 - dy, dy - 58.0))
    process = max(process, abs(phase_p - 0.4 * period) - 0.30 * period)
    hu += cover(process, w) * (360.0 - hu)
    lateral = max(abs(x) - 34.0, 9.0 - abs(x))
    wing = np.sqrt((dy - 25.0 - 0.12 * abs(x)) ** 2 + (phase - 0.62 * period) ** 2) - 4.0
    return hu + cover(max(wing, lateral), w) * (380.0 - hu)


@njit(cache=True, nogil=True)
def _abdomen(x: float, y: float, z: float, below: float, shape: Anatomy, w: float) -> float:
    """HU under the diaphragm: liver, stomach with its bubble, spleen, fat, the aorta behind."""
    if below < 2.8:
        return MUSCLE
    hu = FAT
    edge = x - 42.0 + 0.35 * (y + 40.0) + 0.5 * max(0.0, y - 10.0)
    liver = max(max(edge, y - 70.0), 2.4 - below)
    if x > -25.0:
        liver = max(liver, y - 26.0)
    hu += cover(liver, w) * (LIVER - hu)
    sx, sy, sz = x - 58.0, y + 24.0, z - (shape.dome_left - 42.0)
    r = np.sqrt((sx / 46.0) ** 2 + (sy / 52.0) ** 2 + (sz / 40.0) ** 2)
    stomach = 38.0 * (r - 1.0)
    hu += cover(stomach, w) * cover(-liver, w) * (MUSCLE - hu)
    content = -960.0 if y < -38.0 else STOMACH
    hu += cover(stomach + 4.0, w) * cover(-liver, w) * (content - hu)
    sx, sy, sz = x - 92.0, y - 46.0, z - (shape.dome_left - 52.0)
    r = np.sqrt((sx / 32.0) ** 2 + (sy / 42.0) ** 2 + (sz / 44.0) ** 2)
    hu += cover(38.0 * (r - 1.0), w) * (SPLEEN - hu)
    return hu + cover(great_vessels(x, y, z, shape), w) * (BLOOD - hu)


@njit(cache=True, nogil=True)
def _centre(x: float, y: float, z: float, shape: Anatomy, w: float) -> float:
    """HU between the lungs: fat, heart, great vessels, oesophagus."""
    hu = FAT + 12.0
    muscle = heart(x, y, z, shape)
    if muscle < 4.0:
        hu += cover(muscle + 3.2 - 2.0 * np.sin(0.11 * x - 0.07 * z), w) * (BLOOD - hu)
        hu += cover(abs(muscle + 1.0) - 0.7, w) * 0.3 * (BLOOD - hu)
    hu += cover(great_vessels(x, y, z, shape), w) * (BLOOD - hu)
    gullet = np.sqrt((x - 5.0) ** 2 + ((y - spine_axis(z, shape) + 25.0) / 0.75) ** 2) - 7.0
    return hu + cover(gullet, w) * (35.0 - hu)


@njit(cache=True, nogil=True)
def fissures(x: float, y: float, z: float, shape: Anatomy, w: float) -> float:
    """Share of a voxel taken by the oblique fissures and the right horizontal one."""
    height = 0.50 * shape.apex_z + 1.02 * y + 0.0016 * y * y + 6.0 * np.sin(0.03 * x)
    d = abs(z - height) / 1.45
    if x < 0.0 and y < 12.0:
        flat = 0.53 * shape.apex_z - 0.10 * y + 4.0 * np.sin(0.04 * x + 0.02 * y)
        if z > height:
            d = min(d, abs(z - flat))
    return max(0.0, 1.0 - d / max(w, 0.8)) * min(1.0, 0.3 / w)


@njit(cache=True, nogil=True, parallel=True)
def _evaluate(
    hu: NDArray[np.float32],
    share: NDArray[np.uint8],
    shape: Anatomy,
    to_mm: NDArray[np.float64],
    breath: NDArray[np.float64],
    density: float,
    texture: NDArray[np.float32],
    placing: NDArray[np.float64],
    w: float,
) -> None:
    n0, n1, n2 = hu.shape
    for k in prange(n0):
        for j in range(n1):
            for i in range(n2):
                x = to_mm[0, 0] * k + to_mm[0, 1] * j + to_mm[0, 2] * i + to_mm[0, 3]
                y = to_mm[1, 0] * k + to_mm[1, 1] * j + to_mm[1, 2] * i + to_mm[1, 3]
                z = to_mm[2, 0] * k + to_mm[2, 1] * j + to_mm[2, 2] * i + to_mm[2, 3]
                share[k, j, i] = 0
                skin = body_outline(x, y, z, shape)
                if skin > 0.5 * w:
                    hu[k, j, i] = _table(x, y, shape, w)
                    continue
                u = (x - breath[3]) / breath[0]
                v = (y - breath[4]) / breath[1]
                t = (z - breath[5]) / breath[2]
                wall = envelope(u, v, t, shape, True)
                value = FAT
                if wall > -0.5 * w - 4.0:
                    value = _wall(x, y, z, skin, wall, shape)
                else:
                    wall = min(wall, -0.5 * w)
                if wall < 0.5 * w:
                    below = diaphragm(u, v, t, shape)
                    inside = _centre(u, v, t, shape, w) if below < 0.5 * w else 0.0
                    if below > -0.5 * w:
                        down = cover(-below, w)
                        inside += down * (_abdomen(u, v, t, below, shape, w) - inside)
                    value += cover(wall, w) * (inside - value)
                if abs(x) < 45.0 and y > shape.spine_y - shape.kyphosis - 30.0:
                    value = _spine(x, y, z, shape, w, value)
                if wall < 6.0 + w:
                    c = cover(lung(u, v, t, shape), w)
                    if c > 0.0:
                        field = sample(texture, placing, u, v, t)
                        air = shape.lung_hu + shape.gravity_hu * v / 90.0 + 16.0 * field
                        if v > 20.0:
                            edge = -outer_pleura(u, v, t, shape)
                            air += (
                                shape.dependent_hu
                                * smooth_step(20.0, 70.0, v)
                                * np.exp(-max(edge, 0.0) / 5.0)
                            )
                        air = AIR + (air - AIR) * density
                        air += fissures(u, v, t, shape, w) * (0.0 - air)
                        value += c * (air - value)
                        share[k, j, i] = np.uint8(255.0 * c + 0.5)
                outside = 1.0 - cover(skin, w)
                if outside > 0.0:
                    value += outside * (_table(x, y, shape, w) - value)
                hu[k, j, i] = value


def evaluate_tissue(
    shape: Anatomy, frame: Frame, raster: Raster, texture: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """HU without bones, trees, lesions and noise, and each voxel's share of lung (0..255).

    Parameters
    ----------
    shape : Anatomy
    frame : Frame
        Where the voxels lie.
    raster, texture : Raster, float32 array (z, y, x)
        Unit-variance field that varies the parenchyma's density.

    Returns
    -------
    (float32 array HU, uint8 array), both of `frame.shape`.
    """
    hu = np.empty(frame.shape, np.float32)
    share = np.empty(frame.shape, np.uint8)
    # The same tissue in a larger lung is thinner.
    density = 1.0 / float(np.prod(frame.breath[:3]))
    _evaluate(hu, share, shape, frame.to_mm, frame.breath, density, texture, raster.placing(), frame.voxel_mm)
    return hu, share
