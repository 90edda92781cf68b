"""Solid lung: what lies inside the rib cage, above the diaphragm, and is no organ, muscle or fat.

A closing of the aerated lung bridges small lesions. Larger ones are looked for only where the costal pleura, which
a healthy lung lines with air down to its lowest recess, is lined by a thick layer of solid tissue: a healthy
lung is left as it is. From there the lung is grown by a balance between evidence and a smooth surface.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.anatomy.morphology import Spacing, box_dilate, box_erode, close, padded_box, reach_of
from standard_space.anatomy.ribcage import depth_inside
from standard_space.lanczos import resample
from standard_space.masks import resample_mask

GRID_MM = 3.0
MARGIN_MM = 45.0
BONE_ABOVE_HU = 180.0
INTERCOSTAL_MM = 13.0
SOLID_HU = (-350.0, 140.0)
ORGAN_HU = (20.0, 160.0)
FAT_HU = -85.0
BELOW_ORGAN_HU = 28.0
"""Consolidation is at least this much less dense than organs and muscle, or geometry alone must tell."""
SMOOTHING_MM = 3.5
EDGE_HU_PER_MM = 8.0
BAND_MM = 20.0
BAND_THICK_MM = 3.5
LATERAL_MM = 75.0
THICK_SLICES_MM = 6.0
SURE_MIN_ML = 28.0
"""Solid lining that makes growth worth its risk: at most 18 ml on healthy phantoms and real CTs, 55 and more on
lungs with lesions that a closing does not bridge."""

BAND_MIN_ML = 8.0
LINED = 0.1
CENTRAL_MM = 25.0
MIDDLE_MM = 18.0
RECESS_MM = 15.0
APEX_MM = 40.0
LOWEST_MM = 40.0
DOME_MARGIN_MM = 8.0
DOME_SEEN_SHARE = 0.2
UNDER_MM = 25.0
DOME_REACH_MM = 25.0
DOME_SPREAD_MM = 15.0
CORE_MM = 3.5
FRONT_MM = 4.5
WEIGHT = 0.3
STEPS = 14
LAST_CLOSING_MM = 10.0


class Surroundings(NamedTuple):
    """What is known before: masks bool (z, y, x) on the image's grid, and the midline's column."""

    aerated: NDArray[np.bool_]
    closed: NDArray[np.bool_]
    left: NDArray[np.bool_]
    airways: NDArray[np.bool_]
    body: NDArray[np.bool_]
    middle_x: float


def add_solid_lung(hu: NDArray[np.float32], known: Surroundings, spacing_mm: Spacing) -> NDArray[np.bool_]:
    """The closed aerated lung with the consolidated lung beside it.

    Parameters
    ----------
    hu : float32 array, shape (z, y, x)
        CT oriented to LPS, HU.
    known : Surroundings
        `closed` holds the aerated lung, closed; `left` the part of it on the left.
    spacing_mm : tuple of float
        Voxel spacing along (z, y, x), mm.

    Returns
    -------
    bool array, shape (z, y, x)
        `closed` and more.
    """
    box = padded_box(known.closed, MARGIN_MM, spacing_mm)
    # In thick slices the diaphragm is smeared into the recess, and looks like solid lung.
    if box is None or spacing_mm[0] > THICK_SLICES_MM:
        return known.closed
    step = [max(GRID_MM, s) / s if s < 0.8 * GRID_MM else 1.0 for s in spacing_mm]
    way = (step[0], step[1], step[2])
    nz, ny, nx = (int((b.stop - b.start - 1) // t) + 1 for b, t in zip(box, step, strict=True))
    start = (0.0, 0.0, 0.0)
    small = resample(hu[box], (nz, ny, nx), start, way, fill=-1000.0, kernel="linear")
    masks = [resample_mask(m[box], (nz, ny, nx), start, way) for m in known[:5]]
    middle_x = (known.middle_x - box[2].start) / step[2]
    around = Surroundings(masks[0], masks[1], masks[2], masks[3], masks[4], middle_x)
    spacing = (spacing_mm[0] * step[0], spacing_mm[1] * step[1], spacing_mm[2] * step[2])
    grown = _grow(small, around, spacing)
    if grown is None:
        return known.closed
    result = known.closed.copy()
    shape = (box[0].stop - box[0].start, box[1].stop - box[1].start, box[2].stop - box[2].start)
    result[box] |= resample_mask(grown, shape, start, (1 / step[0], 1 / step[1], 1 / step[2]))
    return result


def _grow(hu: NDArray[np.float32], known: Surroundings, spacing_mm: Spacing) -> NDArray[np.bool_] | None:
    bone = (hu > BONE_ABOVE_HU) & ~known.closed
    wall = close(bone, INTERCOSTAL_MM, spacing_mm) & ~known.aerated
    solid = (hu > SOLID_HU[0]) & (hu < SOLID_HU[1]) & known.body & ~bone
    density = _density(hu, solid, spacing_mm)
    open_solid = solid & ~known.closed
    evidence = _evidence(density, open_solid)
    central = np.abs(np.arange(hu.shape[2]) - known.middle_x) * spacing_mm[2] < CENTRAL_MM

    allowed = np.zeros(hu.shape, np.bool_)
    band = np.zeros(hu.shape, np.bool_)
    lining = np.zeros(hu.shape, np.bool_)
    for left in (False, True):
        part = known.closed & (known.left if left else ~known.left)
        rows = np.flatnonzero(part.any(axis=(1, 2)))
        if not len(rows):
            continue
        depth = depth_inside(wall, part, known.middle_x, left, spacing_mm)
        floor = _dome(part & ~central, evidence, spacing_mm) - DOME_MARGIN_MM / spacing_mm[0]
        above = np.arange(hu.shape[0])[:, None, None] >= floor
        allowed |= (depth > 0) & above
        lined = (depth > 0) & (depth < BAND_MM) & above & ~central
        # In front, the heart and its fat touch the wall.
        front = int(np.nonzero(part.any(axis=(0, 2)))[0].mean())
        lateral = np.abs(np.arange(hu.shape[2]) - known.middle_x) * spacing_mm[2] > LATERAL_MM
        lined[:, :front] &= lateral
        lined[: rows[0] + round(RECESS_MM / spacing_mm[0])] = False
        # Above the first rib muscle lies where the rays see no bone: there density must tell.
        apex = max(0, int(rows[-1]) - round(APEX_MM / spacing_mm[0]))
        lined[apex:] &= evidence[apex:] > 0.2
        lining |= lined & open_solid
        band |= lined & open_solid & (density > FAT_HU + 10.0)
    lowest = int(np.flatnonzero(known.aerated.any(axis=(1, 2)))[0]) - round(LOWEST_MM / spacing_mm[0])
    allowed[: max(0, lowest)] = False

    thick = _open(band & (evidence > -0.2), BAND_THICK_MM, spacing_mm)
    sure = _parts_of_at_least(thick, BAND_MIN_ML, spacing_mm)
    light = _mean(hu, open_solid, spacing_mm) < _organ_hu(density, open_solid) - BELOW_ORGAN_HU
    ragged = _open(lining & light, BAND_THICK_MM, spacing_mm)
    amount_ml = float(max(sure.sum(), ragged.sum())) * float(np.prod(spacing_mm)) / 1000.0
    if amount_ml < SURE_MIN_ML:
        return None
    evidence[band] = np.maximum(evidence[band], LINED)
    evidence[~open_solid] = -1.0
    middle = np.abs(np.arange(hu.shape[2]) - known.middle_x) * spacing_mm[2] < MIDDLE_MM
    evidence[:, :, middle] = np.minimum(evidence[:, :, middle], -0.5)
    barred = (wall | bone | known.airways | ~(allowed | known.closed)) & ~known.aerated
    evidence[barred] = -3.0
    core = _open(evidence > 0, CORE_MM, spacing_mm) & (evidence > 0)
    evidence[(evidence > 0) & ~core] = 0.0
    lung = _touching(known.closed | core, known.aerated)
    sigma = [FRONT_MM / s for s in spacing_mm]
    for _ in range(STEPS):
        share = ndimage.gaussian_filter(lung.astype(np.float32), sigma, truncate=2.0)
        moved = ((share + WEIGHT * evidence > 0.5) | known.aerated) & ~barred
        if np.array_equal(moved, lung):
            break
        lung = moved
    lung = _touching(lung, known.aerated)
    closed = close(lung, LAST_CLOSING_MM, spacing_mm) & ~barred & (evidence > -0.9)
    return np.asarray(ndimage.binary_fill_holes(lung | closed)) & ~known.airways


def _density(hu: NDArray[np.float32], solid: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.float32]:
    """Local mean HU of solid tissue, away from edges: partial volume looks like any tissue between its two."""
    clipped = np.clip(hu, -400.0, 200.0)
    sigma = [GRID_MM / s for s in spacing_mm]
    slope = np.zeros(hu.shape, np.float32)
    for axis in range(3):
        order = [int(axis == a) for a in range(3)]
        slope += np.square(
            ndimage.gaussian_filter(clipped, sigma, order=order, truncate=2.5) / spacing_mm[axis]
        )
    flat = np.where(solid, np.exp(-slope / EDGE_HU_PER_MM**2), 0.0).astype(np.float32)
    sigma = [SMOOTHING_MM / s for s in spacing_mm]
    weight = ndimage.gaussian_filter(flat, sigma, truncate=2.5)
    total = ndimage.gaussian_filter(flat * hu, sigma, truncate=2.5)
    return np.where(weight > 0.01, total / np.maximum(weight, 0.01), 300.0).astype(np.float32)


def _organ_hu(density: NDArray[np.float32], solid: NDArray[np.bool_]) -> float:
    """Density of organs and muscle: the commonest one."""
    counts, edges = np.histogram(density[solid], bins=np.arange(ORGAN_HU[0], ORGAN_HU[1] + 1, 4.0))
    return float(edges[int(counts.argmax())]) + 2.0


def _mean(hu: NDArray[np.float32], solid: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.float32]:
    """Local mean HU of solid tissue, edges and all: a ragged lesion is nothing but edges."""
    sigma = [GRID_MM / s for s in spacing_mm]
    weight = ndimage.gaussian_filter(solid.astype(np.float32), sigma, truncate=2.5)
    total = ndimage.gaussian_filter(np.where(solid, hu, 0.0).astype(np.float32), sigma, truncate=2.5)
    return np.where(weight > 0.05, total / np.maximum(weight, 0.05), 300.0).astype(np.float32)


def _evidence(density: NDArray[np.float32], solid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """1 for what is as dense as consolidation, -1 for fat, and for organs, whose density is the commonest."""
    organ = _organ_hu(density, solid)
    below_organ = np.clip((organ - BELOW_ORGAN_HU - density) / 10.0, -1.0, 1.0)
    above_fat = np.clip((density - FAT_HU) / 12.0, -1.0, 1.0)
    return np.minimum(below_organ, above_fat).astype(np.float32)


def _dome(lung: NDArray[np.bool_], evidence: NDArray[np.float32], spacing_mm: Spacing) -> NDArray[np.float64]:
    """Row of the diaphragm above each (y, x): a quadratic through the lung's underside where organs lie below."""
    none = np.full(lung.shape[1:], -np.inf)
    low = lung.argmax(axis=0)
    y, x = np.nonzero(lung.any(axis=0))
    if not len(y):
        return none
    z = low[y, x]
    reach = max(3, round(UNDER_MM / spacing_mm[0]))
    under = np.mean([evidence[np.maximum(z - k, 0), y, x] for k in range(2, reach + 1)], axis=0)
    used = (z < np.median(z) + DOME_SPREAD_MM / spacing_mm[0]) & (under < -0.7) & (z > reach)
    if used.sum() < DOME_SEEN_SHARE * len(y):
        return none
    y, x, height = y[used], x[used], z[used].astype(np.float64)
    middle = (y.mean(), x.mean())

    def terms(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        a = (rows - middle[0]) * spacing_mm[1] / 60.0
        b = (columns - middle[1]) * spacing_mm[2] / 60.0
        return np.stack([np.ones_like(a), a, b, a * a, a * b, b * b], axis=-1)

    design = terms(y, x)
    weight = np.ones(len(height))
    ridge = np.diag([1e-6, 1e-6, 1e-6, 0.5, 0.5, 0.5])
    for _ in range(25):
        # Reweighted towards the absolute error, slightly below the middle: lesions lift the underside.
        fit = np.linalg.solve((design.T * weight) @ design + ridge, (design.T * weight) @ height)
        error = height - design @ fit
        weight = np.where(error > 0, 0.2, 0.8) / np.maximum(np.abs(error), 1.0)
    rows, columns = np.mgrid[: lung.shape[1], : lung.shape[2]]
    unseen = np.ones(lung.shape[1:], np.bool_)
    unseen[y, x] = False
    distance = ndimage.distance_transform_edt(unseen, sampling=spacing_mm[1:])
    return np.where(distance < DOME_REACH_MM, terms(rows, columns) @ fit, -np.inf)


def _open(mask: NDArray[np.bool_], radius_mm: float, spacing_mm: Spacing) -> NDArray[np.bool_]:
    reach = reach_of(radius_mm, spacing_mm, least=1)
    return box_dilate(box_erode(mask, reach), reach)


def _parts_of_at_least(mask: NDArray[np.bool_], least_ml: float, spacing_mm: Spacing) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    keep = np.bincount(labels.ravel(), minlength=count + 1) * float(np.prod(spacing_mm)) / 1000.0 >= least_ml
    keep[0] = False
    return np.asarray(keep[labels])


def _touching(mask: NDArray[np.bool_], core: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    keep = np.zeros(count + 1, np.bool_)
    keep[np.unique(labels[core])] = True
    keep[0] = False
    return np.asarray(keep[labels])
