"""Air inside the body: lungs, airways, bowel gas; not the room, the couch, or what lies between body and arms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.anatomy.morphology import Spacing, box_dilate, box_erode, largest, reach_of

AIR_BELOW_HU = -400.0
AIR_HU = -1000.0
COUCH_SHELL_MM = 4.0

_IN_PLANE = np.zeros((3, 3, 3), np.bool_)
_IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


class InnerAir(NamedTuple):
    """Air inside the body, bool (z, y, x); the part of it on the image's sides; HU of the room's air."""

    air: NDArray[np.bool_]
    cut: NDArray[np.bool_]
    room_hu: float
    body: NDArray[np.bool_]


def air_inside_body(hu: NDArray[np.float32], spacing_mm: Spacing) -> InnerAir:
    """Find the air that the body encloses.

    Air is enclosed when the body surrounds it in its axial slice. Where the field of view cuts the body, the
    image's side closes what lies between two places where the body meets that side.

    Parameters
    ----------
    hu : float32 array, shape (z, y, x)
        CT oriented to LPS, HU.
    spacing_mm : tuple of float
        Voxel spacing along (z, y, x), mm.
    """
    smooth = ndimage.gaussian_filter(hu, [min(1.0, 1.0 / s) for s in spacing_mm], truncate=3.0)
    tissue = smooth > AIR_BELOW_HU
    body = _body(tissue, spacing_mm)
    labels, count = ndimage.label(~body, structure=_IN_PLANE)
    outside = np.zeros(count + 1, np.bool_)
    closed = np.zeros(body.shape, np.bool_)
    for side in ((slice(None), 0), (slice(None), -1), (..., 0), (..., -1)):
        between = _between(body[side])
        closed[side] |= between
        outside[np.unique(labels[side][~between & ~body[side]])] = True
    outside[0] = False
    exterior = outside[labels]
    air = ~tissue & ~body & ~exterior
    room = smooth[exterior & (smooth < -900.0)]
    return InnerAir(air, closed & air, float(np.median(room)) if room.size else AIR_HU, body)


def _body(tissue: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.bool_]:
    """The body's tissue. The couch's shell may touch it, and would enclose air between: thin sheets are shed."""
    reach = reach_of(COUCH_SHELL_MM / 2, spacing_mm, least=1)
    core = largest(box_erode(tissue, reach))
    near = (2 * reach[0] + 1, 2 * reach[1] + 1, 2 * reach[2] + 1)
    return np.asarray(tissue & box_dilate(core, near))


def _between(side: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of each row of a side (z, n) that lie between the first and the last of the body."""
    after = np.logical_or.accumulate(side, axis=1)
    before = np.logical_or.accumulate(side[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(after & before & ~side)
