"""Ribs, sternum, clavicles and shoulder blades as tubes laid along the chest wall."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulator.phantom.anatomy import Anatomy, envelope, spine_axis

MARROW_HU, CORTEX_HU, CARTILAGE_HU = 210.0, 620.0, 105.0
N_RIBS = 12


class Skeleton(NamedTuple):
    """Tubes (n, 8: p0, p1, r0, r1) in the chest frame: outer bone, the marrow inside, costal cartilage."""

    bone: NDArray[np.float64]
    marrow: NDArray[np.float64]
    cartilage: NDArray[np.float64]


@njit(cache=True, nogil=True)
def wall_point(shape: Anatomy, side: float, angle: float, z: float, offset: float) -> NDArray[np.float64]:
    """The point at `offset` mm outside the chest wall, seen from the lung's axis.

    The angle runs from straight back (0) over the side (pi / 2) to straight ahead (pi).
    """
    z_in = min(max(z, 0.0), shape.apex_z - 10.0)
    centre_x = 0.75 * shape.axis_x
    dx, dy = np.sin(angle), np.cos(angle)
    low, high = 0.0, 260.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        if envelope(side * (centre_x + dx * middle), dy * middle, z_in, shape, True) < offset:
            low = middle
        else:
            high = middle
    return np.array([side * max(centre_x + dx * low, 0.0), dy * low, z])


def _chain(points: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    radii = np.full((len(points) - 1, 1), radius)
    return np.hstack([points[:-1], points[1:], radii, radii])


def build_skeleton(shape: Anatomy) -> Skeleton:
    """The ribcage of one patient, without the spine (which `tissue` draws)."""
    bone, cartilage = [], []
    spacing = 0.088 * shape.apex_z
    breast_bone: float = wall_point(shape, 1.0, np.pi, 0.62 * shape.apex_z, 7.0)[1]
    for side in (-1.0, 1.0):
        for rib in range(N_RIBS):
            top = shape.apex_z + 4.0 - rib * spacing
            drop = 34.0 + 78.0 * np.sin(np.pi * min(rib + 1.5, 9.0) / 11.0)
            reach = (0.80, 0.86, 0.90, 0.90, 0.89, 0.87, 0.82, 0.76, 0.70, 0.62, 0.48, 0.36)[rib]
            fraction = np.linspace(0.0, 1.0, 26)
            angles = -0.12 + fraction * (reach * np.pi + 0.12)
            heights = top - drop * (0.45 * fraction + 0.55 * fraction**1.4) * reach
            # Near the apex the wall slopes, so that more distance is needed to stay clear of the lung.
            offsets = 7.6 + 6.4 * np.clip((heights / shape.apex_z - 0.62) / 0.3, 0.0, 1.0)
            course = zip(angles, heights, offsets, strict=True)
            points = np.array([wall_point(shape, side, a, h, d) for a, h, d in course])
            spine = spine_axis(top, shape)
            head = np.array([[side * 17.0, spine + 6.0, top + 2.0], [side * 23.0, spine + 28.0, top + 1.0]])
            for lift in (-2.3, 0.0, 2.3):
                # Three parallel strands make a rib taller than it is thick.
                bone.append(_chain(np.add(np.vstack([head, points]), [0.0, 0.0, lift]), 3.6))
            if rib < 9:
                # Cartilage follows the wall to the breastbone; that of the lower ribs climbs to it.
                low, high = heights[-1], min(heights[-1] + 6.0 + 6.0 * max(0, rib - 2), 0.80 * shape.apex_z)
                high = max(high, 0.42 * shape.apex_z)
                bend = np.linspace(0.0, 1.0, 8)
                turn = angles[-1] + bend * (np.pi - 0.17 - angles[-1])
                along = [
                    wall_point(shape, side, a, low + t * t * (high - low), 8.0)
                    for a, t in zip(turn, bend, strict=True)
                ]
                cartilage.append(_chain(np.array(along), 4.8))
        medial = np.array([side * 14.0, breast_bone + 2.0, 0.86 * shape.apex_z])
        clavicle = [medial, [side * 60.0, breast_bone + 14.0, 0.93 * shape.apex_z]]
        clavicle.append([side * 118.0, breast_bone + 52.0, 0.98 * shape.apex_z])
        bone.append(_chain(np.array(clavicle), 5.6))
        for strand in np.linspace(0.0, 1.0, 12):
            upper = wall_point(shape, side, 0.42 + 0.62 * strand, 0.88 * shape.apex_z, 23.0)
            lower = wall_point(shape, side, 0.55 + 0.28 * strand, (0.50 + 0.06 * strand) * shape.apex_z, 17.0)
            bone.append(_chain(np.array([upper, lower]), 2.4))
        spine_of_scapula = [
            wall_point(shape, side, a, 0.87 * shape.apex_z, 28.0 + 9.0 * a) for a in (0.5, 0.8, 1.1)
        ]
        bone.append(_chain(np.array(spine_of_scapula), 5.0))
    heights = np.linspace(0.44, 0.84, 10) * shape.apex_z
    for across in np.linspace(-13.0, 13.0, 7):
        front = [[across, wall_point(shape, 1.0, np.pi, h, 7.5)[1] + 0.012 * across**2, h] for h in heights]
        bone.append(_chain(np.array(front), 4.6))
    outer = np.vstack(bone)
    inner = outer.copy()
    inner[:, 6:] -= 1.5
    return Skeleton(outer, inner, np.vstack(cartilage))
