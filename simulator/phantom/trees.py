"""Airways and pulmonary vessels: trees that fill the lungs by splitting clouds of points.

The idea is the volume-filling algorithm of Tawhai et al. (J Appl Physiol 2004): a branch grows part of the way to
the centre of the points it must serve, the points are split in two by a plane that holds the branch, and each
half gets a daughter. Radii follow the number of points served, as in Murray's law.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulator.phantom.anatomy import Anatomy
from simulator.phantom.raster import Raster

BLOOD_HU, AIRWAY_WALL_HU, LUMEN_HU = 42.0, 10.0, -985.0
SMALLEST_LUMEN_MM = 0.9


class Trees(NamedTuple):
    """Tubes (n, 8: p0, p1, r0, r1), inner frame, mm: blood vessels, airway walls and airway lumina."""

    vessels: NDArray[np.float64]
    walls: NDArray[np.float64]
    lumina: NDArray[np.float64]
    trunk: NDArray[np.float64]  # lumina of the trachea and main bronchi, which are no part of a lung mask


@njit(cache=True, nogil=True)
def _split_axis(
    points: NDArray[np.float64],
    first: int,
    last: int,
    centre: NDArray[np.float64],
    heading: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Direction across `heading` in which points[first:last] spread most."""
    spread = np.zeros((3, 3))
    for n in range(first, last):
        d = points[n] - centre
        d = d - heading * (d[0] * heading[0] + d[1] * heading[1] + d[2] * heading[2])
        for a in range(3):
            for b in range(3):
                spread[a, b] += d[a] * d[b]
    axis = np.array([0.577, 0.653, 0.49])
    for _ in range(12):
        turned = np.zeros(3)
        for a in range(3):
            for b in range(3):
                turned[a] += spread[a, b] * axis[b]
        size = np.sqrt(turned[0] ** 2 + turned[1] ** 2 + turned[2] ** 2)
        if size < 1e-9:
            break
        axis = turned / size
    return axis


@njit(cache=True, nogil=True)
def grow(
    points: NDArray[np.float64],
    root: NDArray[np.float64],
    heading0: NDArray[np.float64],
    root_radius: float,
    exponent: float,
    step: float,
) -> NDArray[np.float64]:
    """Grow a tree from `root` through a cloud of points (n, 3); the order of `points` is changed.

    Returns
    -------
    float64 array (m, 9): p0 (3), p1 (3), r0, r1, number of points served.
    """
    total = points.shape[0]
    out = np.empty((4 * total + 8, 9))
    used = 0
    # Work items: first, last point; position and heading of the branch's end; its radius.
    first_of = np.empty(4 * total + 8, np.int64)
    last_of = np.empty(4 * total + 8, np.int64)
    state = np.empty((4 * total + 8, 7))
    first_of[0], last_of[0] = 0, total
    state[0, :3] = root
    state[0, 3:6] = heading0
    state[0, 6] = root_radius
    depth = 1
    while depth > 0:
        depth -= 1
        first, last = first_of[depth], last_of[depth]
        here = state[depth, :3].copy()
        heading = state[depth, 3:6].copy()
        radius = state[depth, 6]
        centre = np.zeros(3)
        for n in range(first, last):
            centre += points[n]
        centre /= last - first
        axis = _split_axis(points, first, last, centre, heading)
        level = centre[0] * axis[0] + centre[1] * axis[1] + centre[2] * axis[2]
        left, right = first, last - 1
        while left <= right:
            p = points[left]
            if p[0] * axis[0] + p[1] * axis[1] + p[2] * axis[2] < level:
                left += 1
            else:
                for a in range(3):
                    swap = points[left, a]
                    points[left, a] = points[right, a]
                    points[right, a] = swap
                right -= 1
        middle = left
        if middle in (first, last):
            middle = (first + last) // 2
        for half in range(2):
            a0 = first if half == 0 else middle
            a1 = middle if half == 0 else last
            count = a1 - a0
            if count == 0:
                continue
            aim = np.zeros(3)
            for n in range(a0, a1):
                aim += points[n]
            aim = aim / count - here
            length = np.sqrt(aim[0] ** 2 + aim[1] ** 2 + aim[2] ** 2)
            if length < 1e-6:
                continue
            share = step if count > 1 else 0.9
            # A daughter keeps something of its mother's heading, so that branches bend rather than zigzag.
            going = aim / length + 0.25 * heading
            going /= np.sqrt(going[0] ** 2 + going[1] ** 2 + going[2] ** 2)
            end = here + going * (share * length)
            own = root_radius * (count / total) ** (1.0 / exponent)
            own = min(own, radius)
            out[used, :3] = here
            out[used, 3:6] = end
            out[used, 6] = min(radius, 1.25 * own)
            out[used, 7] = own
            out[used, 8] = count
            used += 1
            if count > 1:
                first_of[depth], last_of[depth] = a0, a1
                state[depth, :3] = end
                state[depth, 3:6] = going
                state[depth, 6] = own
                depth += 1
    return out[:used].copy()


def _cloud(
    rng: np.random.Generator, raster: Raster, inside: NDArray[np.bool_], count: int
) -> NDArray[np.float64]:
    """Random points (count, 3) as (x, y, z) in the voxels `inside`."""
    flat = np.flatnonzero(inside)
    index = np.stack(np.unravel_index(rng.choice(flat, count, replace=len(flat) < count), raster.shape), -1)
    place = np.asarray(raster.start_mm) + (index + rng.uniform(-0.5, 0.5, index.shape)) * raster.step_mm
    return np.ascontiguousarray(place[:, ::-1])


def _accompany(tubes: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift a tree sideways by a multiple of each end's radius: an artery beside its bronchus."""
    moved = tubes.copy()
    moved[:, 0:3] += offset * tubes[:, 6:7]
    moved[:, 3:6] += offset * tubes[:, 7:8]
    return moved


def build_trees(
    rng: np.random.Generator, shape: Anatomy, raster: Raster, depth_mm: NDArray[np.float32], ends: int = 1900
) -> Trees:
    """Airways, arteries and veins of one patient.

    Parameters
    ----------
    rng : Generator
    shape : Anatomy
    raster : Raster
        With `depth_mm` (z, y, x): depth below the lung's surface, mm.
    ends : int
        Terminal branches of each tree in each lung.
    """
    x = raster.axes()[2]
    carina = np.array([1.0, 14.0, shape.carina_z])
    vessels, walls, lumina = [], [], []
    top = np.array([0.0, 0.0, shape.apex_z + 45.0])
    bend = np.array([1.0, 8.0, 0.5 * (shape.carina_z + shape.apex_z)])
    trunk = [np.hstack([top, bend, 8.5, 8.8]), np.hstack([bend, carina, 8.8, 8.8])]
    for side, name_radius in ((-1.0, 5.6), (1.0, 5.2)):
        hilum = np.array(
            [side * (34.0 if side < 0 else 38.0), 14.0, shape.carina_z - (22.0 if side < 0 else 28.0)]
        )
        trunk.append(np.hstack([carina, hilum, 6.6 if side < 0 else 6.0, name_radius]))
        inside = (depth_mm > 4.0) & (side * x > 0)
        heading = hilum - carina
        heading /= np.linalg.norm(heading)
        bronchi = grow(_cloud(rng, raster, inside, ends), hilum, heading, name_radius, 2.85, 0.42)
        shown = bronchi[:, 7] > SMALLEST_LUMEN_MM
        lumina.append(bronchi[shown, :8])
        wall = bronchi[shown, :8].copy()
        wall[:, 6:] = wall[:, 6:] * 1.16 + 0.45
        walls.append(wall)
        arteries = bronchi[:, :8].copy()
        arteries[:, 6:] = 0.16 + 0.98 * arteries[:, 6:]
        offset = np.array([side * 0.9, -1.35, 1.1])
        vessels.append(_accompany(arteries, offset))
        atrium = np.array([side * 22.0, 12.0, shape.carina_z - 44.0])
        outlet = np.add(atrium, [side * 22.0, -4.0, 2.0])
        veins = grow(_cloud(rng, raster, inside, ends), outlet, np.array([side, 0.0, 0.0]), 6.0, 2.75, 0.42)
        vessels.append(veins[:, :8])
        vessels.append(np.hstack([atrium, outlet, 7.0, 6.0])[None])
    tracheal = np.vstack(trunk)
    outer = tracheal.copy()
    outer[:, 6:] += 1.6
    return Trees(np.vstack(vessels), np.vstack([outer, *walls]), np.vstack([tracheal, *lumina]), tracheal)
