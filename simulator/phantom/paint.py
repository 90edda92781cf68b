"""Field lesions painted into real lungs, on whatever grid these lie: real anatomy and noise, hidden truth.

The lesion is that of the phantoms (`lesion_fields`), which needs only the lungs' shape. A virtual patient's lungs
are brought to a raster in a frame like the phantoms': x to the left of the midline, y to the back of the lungs'
middle, z up from their lowest point, mm. Another image of the same lungs, at another breath, is matched by the
lungs' box. What is truth must be seen: density is relative to the parenchyma of the image at hand, and
`visible_share` tells how much of the truth a reader could have found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, label, map_coordinates

from simulator.phantom.draws import stream
from simulator.phantom.lesion import LesionMap
from simulator.phantom.raster import Raster, random_field
from standard_space.errors import DataError
from standard_space.geometry import Geometry
from standard_space.masks import bounding_box

STEP_MM = (2.5, 2.5, 2.5)
MARGIN_MM = 10.0
AERATED_HU = -500.0
"""Below it lies parenchyma, from which the lung beneath a lesion is estimated; above it vessels and walls."""
DRAWN_FOR_HU = -860.0
"""The phantoms' parenchyma, for which their lesions' densities are drawn."""
LEAST_RISE_HU = 120.0
"""A lesion is denser by this than the parenchyma around it: half is left at its edge, which can still be seen."""
LUMEN_HU, LUMEN_MM, LUMEN_MM3, LUMEN_VOXELS = -950.0, 1.5, 100.0, 4
"""An airway's lumen, or a bulla, is air that a lesion leaves as it is: dark once smoothed by this sigma, and
connected over a volume that noise does not reach (a lumen 3.5 mm wide and 10 mm long)."""
VISIBLE_HU = 50.0
"""A change a reader sees in a lung window (1500 HU wide: a thirtieth of its grey scale)."""
TISSUE_HU = 30.0
"""Of what lies beside the lungs."""
SURROUNDINGS_MM = 4.0
STRUCTURE_SIGMAS = 3.0
"""A voxel this far off its surroundings, in standard deviations of the image's noise, is structure."""

Side = Literal["right", "left"]


class Reach(NamedTuple):
    """See `lesion_fields.Reach`."""

    apex_z: float
    posterior: float


@dataclass(frozen=True)
class LungFrame:
    """Where a frame's origin and extent lie in the world.

    Parameters
    ----------
    low_mm, high_mm : tuple of float
        Corners (x, y, z) of the lungs' box, LPS mm.
    side : "right", "left" or None
        The only lung there is; None: both.
    """

    low_mm: tuple[float, float, float]
    high_mm: tuple[float, float, float]
    side: Side | None

    @classmethod
    def of(cls, lungs: NDArray[np.bool_], geometry: Geometry, side: Side | None = None) -> LungFrame:
        """The frame of lungs (bool array, shape (z, y, x) of `geometry`).

        Raises
        ------
        DataError
            When there are none.
        """
        if not lungs.any():
            raise DataError("there are no lungs to paint a lesion into")
        world = geometry.to_world(np.argwhere(lungs)[:, ::-1].astype(np.float64))
        low, high = world.min(axis=0).tolist(), world.max(axis=0).tolist()
        return cls((low[0], low[1], low[2]), (high[0], high[1], high[2]), side)

    @property
    def extent_mm(self) -> NDArray[np.float64]:
        """Size of the box (x, y, z)."""
        return np.maximum(np.subtract(self.high_mm, self.low_mm), 1.0)

    @property
    def origin_mm(self) -> NDArray[np.float64]:
        """World position of the frame's origin; the midline lies a little beside a single lung."""
        middle = 0.5 * np.add(self.low_mm, self.high_mm)
        beside = {"right": self.high_mm[0] + MARGIN_MM, "left": self.low_mm[0] - MARGIN_MM}
        x = middle[0] if self.side is None else beside[self.side]
        return np.array([x, middle[1], self.low_mm[2]])


@dataclass(frozen=True)
class RealChest:
    """Real lungs as `lesion_fields.FieldLesionSource` takes them; arrays (z, y, x) on the raster."""

    seed: int
    index: int
    shape: Reach
    frame: LungFrame
    raster: Raster
    inner_mm: NDArray[np.float32]
    outer_mm: NDArray[np.float32]
    texture: NDArray[np.float32]


def real_chest(
    lungs: NDArray[np.bool_], geometry: Geometry, *, seed: int, index: int, side: Side | None = None
) -> RealChest:
    """Real lungs as a virtual patient.

    Parameters
    ----------
    lungs : bool array, shape (z, y, x)
        On `geometry`: a native grid, or a scan's `standard_geometry`.
    geometry : Geometry
    seed, index : int
        Name the patient, whose lesion is drawn from them.
    side : "right" or "left", optional
        When there is one lung only.

    Raises
    ------
    DataError
        When there are no lungs.
    """
    frame = LungFrame.of(lungs, geometry, side)
    raster = _raster(frame)
    z, y, x = raster.axes()
    points = np.stack([np.broadcast_to(axis, raster.shape) for axis in (x, y, z)], axis=-1)
    index_xyz = geometry.to_index(points.reshape(-1, 3) + frame.origin_mm)
    soft = map_coordinates(lungs.astype(np.float32), index_xyz.T[::-1], order=1, mode="nearest")
    inside = soft.reshape(raster.shape) >= 0.5
    for axis in range(3):  # the raster ends beyond the lungs
        inside[(slice(None),) * axis + ([0, -1],)] = False
    if not inside.any():
        raise DataError("the lungs are too small to paint a lesion into")
    between = _mediastinum(inside, x) if side is None else np.zeros_like(inside)
    rng = stream(seed, index, 0, "texture")
    texture = 0.8 * random_field(rng, raster, 12.0) + 0.6 * random_field(rng, raster, 3.5)
    return RealChest(
        seed=seed,
        index=index,
        shape=Reach(float(frame.extent_mm[2]), 0.5 * float(frame.extent_mm[1])),
        frame=frame,
        raster=raster,
        inner_mm=_signed_mm(inside),
        outer_mm=_signed_mm(inside | between),
        texture=texture.astype(np.float32),
    )


def paint_lesion(
    hu: NDArray[np.floating],
    lungs: NDArray[np.bool_],
    geometry: Geometry,
    lesion: LesionMap,
    chest: RealChest,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Paint a lesion into an image, within its lungs.

    The lesion takes the place of the parenchyma's air, as much as it would in a phantom's: in denser lungs it is
    denser, and `LEAST_RISE_HU` above its surroundings at least. It fades in over its edge; the image's own noise
    stays, dark spots of noise are painted. Vessels keep what they have and are infection, as annotators take
    them; the lumina of airways keep what they have and are not. The voxels beside the lungs, which are partly
    lung, take their part of the lesion, so that no dark seam lies between it and the pleura; they are not
    infected.

    Parameters
    ----------
    hu : float array, shape (z, y, x)
    lungs : bool array, shape (z, y, x)
        Of this image; those of another breath than the chest's are matched by their boxes.
    geometry : Geometry
        Of the image.
    lesion : LesionMap
        Of a `FieldLesionSource` of `chest`.
    chest : RealChest

    Returns
    -------
    (float32 array HU, bool array infection), of the image's shape; infection lies within the lungs.

    Raises
    ------
    DataError
        When there are no lungs.
    """
    frame = LungFrame.of(lungs, geometry, chest.frame.side)
    painted, infection = np.array(hu, np.float32), np.zeros(lungs.shape, np.bool_)
    box = _around(lungs)
    inside, part = lungs[box], painted[box]
    region = binary_dilation(inside)
    at = np.nonzero(region)
    corner = [side.start for side in box]
    index_xyz = np.stack([at[axis] + float(corner[axis]) for axis in (2, 1, 0)], axis=-1)
    share = (geometry.to_world(index_xyz) - frame.origin_mm) / frame.extent_mm * chest.frame.extent_mm
    places = [
        (share[:, 2 - axis] - lesion.raster.start_mm[axis]) / lesion.raster.step_mm[axis] for axis in range(3)
    ]
    edge = map_coordinates(lesion.extent_mm, places, order=1, mode="nearest")
    density = map_coordinates(lesion.hu, places, order=1, mode="nearest")
    width = max(lesion.softness_mm, 10.0 * geometry.voxel_volume_ml ** (1.0 / 3.0))
    weight = np.clip(0.5 + edge / width, 0.0, 1.0)
    before = part[at]
    beneath = _parenchyma(part, inside, region, geometry)
    after = _painted(before, density, inside[at], beneath)
    part[at] = before + weight * (after - before)
    infection[box][at] = (edge > 0.0) & inside[at] & ~beneath.lumen
    return painted, infection


def visible_share(
    before: NDArray[np.floating], after: NDArray[np.floating], infection: NDArray[np.bool_]
) -> tuple[float, float]:
    """How much of a painted lesion can be seen.

    Parameters
    ----------
    before, after : float array HU, shape (z, y, x)
        The image without and with the lesion.
    infection : bool array, shape (z, y, x)

    Returns
    -------
    (visible, vessels) : tuple of float
        Shares of the infection, 0..1: voxels that rose by `VISIBLE_HU` or were vessels (not aerated), and the
        vessels among them that did not rise.

    Raises
    ------
    DataError
        When there is no infection.
    """
    if not infection.any():
        raise DataError("no infection was painted", remedy="paint a larger lesion")
    was = np.asarray(before[infection], np.float32)
    rose = np.asarray(after[infection], np.float32) - was >= VISIBLE_HU
    vessels = ~rose & (was >= AERATED_HU)
    return float(np.mean(rose | vessels)), float(np.mean(vessels))


class _Beneath(NamedTuple):
    """What a lesion finds, per voxel of a region; `median` and `sigma` (of the noise) hold for the image, HU."""

    around: NDArray[np.float32]
    lumen: NDArray[np.bool_]
    median: float
    sigma: float


def _painted(
    before: NDArray[np.float32],
    density: NDArray[np.float32],
    inside: NDArray[np.bool_],
    beneath: _Beneath,
) -> NDArray[np.float32]:
    """HU of voxels in and beside the lungs when a lesion fills them."""
    around = beneath.around
    # The same share of the air gives way as in the phantoms' lungs: ground glass shifts, consolidation does not.
    air = np.clip((TISSUE_HU - density) / (TISSUE_HU - DRAWN_FOR_HU), 0.0, 1.0)
    density = density + air * (beneath.median - DRAWN_FOR_HU)
    density = np.maximum(density, np.minimum(around + LEAST_RISE_HU, TISSUE_HU))
    off, most = before - around, STRUCTURE_SIGMAS * beneath.sigma
    aerated = np.clip((TISSUE_HU - before) / np.maximum(TISSUE_HU - around, 1.0), 0.0, 1.0)
    # A vessel or a wall that fills a voxel in part leaves the rest to the lesion.
    structure = np.maximum(before, before + aerated * (density - around))
    within = np.where(off > most, structure, np.maximum(before, density + np.maximum(off, -most)))
    return np.asarray(np.where(beneath.lumen, before, np.where(inside, within, structure)), np.float32)


def _parenchyma(
    hu: NDArray[np.float32], lungs: NDArray[np.bool_], region: NDArray[np.bool_], geometry: Geometry
) -> _Beneath:
    """The parenchyma around every voxel of a region, the lumina in it, and the image's noise."""
    sigma = [SURROUNDINGS_MM / s for s in geometry.spacing_mm[::-1]]
    aerated = lungs & (hu < AERATED_HU)
    weight = gaussian_filter(aerated.astype(np.float32), sigma, truncate=2.0)[region]
    total = gaussian_filter(np.where(aerated, hu, np.float32(0.0)), sigma, truncate=2.0)[region]
    own = hu[region]
    around = np.where(weight > 0.01, total / np.maximum(weight, np.float32(0.01)), own).astype(np.float32)
    inside = lungs[region]
    noise = _noise_hu((own - around)[inside])
    smooth = gaussian_filter(hu, [LUMEN_MM / s for s in geometry.spacing_mm[::-1]], truncate=2.0)[region]
    limit = np.minimum(around - STRUCTURE_SIGMAS * _noise_hu((smooth - around)[inside]), LUMEN_HU)
    dark = np.zeros(lungs.shape, np.bool_)
    dark[region] = inside & (smooth < limit)
    parts, _ = label(dark)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    large = sizes >= max(LUMEN_VOXELS, LUMEN_MM3 / (1000.0 * geometry.voxel_volume_ml))
    median = float(np.median(hu[aerated])) if aerated.any() else DRAWN_FOR_HU
    return _Beneath(around, large[parts[region]], median, noise)


def _noise_hu(off: NDArray[np.float32]) -> float:
    """Standard deviation of noise about the parenchyma: vessels are in the upper tail, the lower half tells."""
    lower = off[off < 0.0]
    return 1.4826 * float(np.median(-lower)) if len(lower) else 0.0


def _around(lungs: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The lungs' box with a voxel around it."""
    found = bounding_box(lungs)
    if found is None:
        raise DataError("there are no lungs to paint a lesion into")
    z, y, x = (
        slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(found, lungs.shape, strict=True)
    )
    return z, y, x


def _raster(frame: LungFrame) -> Raster:
    low = np.subtract(frame.low_mm, frame.origin_mm)[::-1] - MARGIN_MM
    size = frame.extent_mm[::-1] + 2.0 * MARGIN_MM
    nz, ny, nx = (int(np.ceil(e / s)) + 1 for e, s in zip(size, STEP_MM, strict=True))
    return Raster((nz, ny, nx), (float(low[0]), float(low[1]), float(low[2])), STEP_MM)


def _signed_mm(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance to the edge of a region on the raster, mm, negative inside."""
    within = distance_transform_edt(inside, sampling=STEP_MM)
    beyond = distance_transform_edt(~inside, sampling=STEP_MM)
    return np.asarray(beyond - within, np.float32)


def _mediastinum(lungs: NDArray[np.bool_], x: NDArray[np.float32]) -> NDArray[np.bool_]:
    """What lies between the right and the left lung in the same row: the pleura beside it is no costal one."""
    right, left = lungs & (x < 0.0), lungs & (x > 0.0)
    after_right = np.maximum.accumulate(right, axis=2)
    before_left = np.maximum.accumulate(left[:, :, ::-1], axis=2)[:, :, ::-1]
    return np.asarray(after_right & before_left & ~lungs)
