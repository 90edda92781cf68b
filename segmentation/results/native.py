"""A prediction back on the grid of the image the scan came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from segmentation.aggregation import Aggregation
from segmentation.results.orientation import lps_spacing_mm, lps_view
from segmentation.scan_predictor import Prediction
from standard_space.errors import DataError
from standard_space.lanczos import resample
from standard_space.masks import bounding_box
from standard_space.restore import restore_mask
from standard_space.scan import Scan

PROBABILITY_LEVELS = 1024
"""Native probabilities are whole multiples of 1 / 1024, and the mask is cut from these: a probability read from
its file gives the very same mask. As binary fractions they are exact, and their files are much smaller."""

LUNG, RIGHT_LUNG, LEFT_LUNG = 1, 2, 3
"""Labels of lungs: of a side, or of lung whose side is not known."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class NativePrediction:
    """A prediction on the grid of the image the scan came from.

    Attributes
    ----------
    probability : float32 (z, y, x)
        0 to 1 in steps of 1 / `PROBABILITY_LEVELS`; zero outside the lungs for a model of the infection.
    mask, lungs : bool (z, y, x)
        The mask is where the probability exceeds the rule's cut. For a model of the lungs both are the same.
    sides : uint8 (z, y, x)
        The lungs with `RIGHT_LUNG` and `LEFT_LUNG` told apart, or `LUNG` where they are not; zero elsewhere.
    """

    probability: NDArray[np.float32]
    mask: NDArray[np.bool_]
    lungs: NDArray[np.bool_]
    sides: NDArray[np.uint8]


def to_native(
    prediction: Prediction,
    scan: Scan,
    *,
    lungs: NDArray[np.bool_] | None = None,
    target: str = "infection",
) -> NativePrediction:
    """Bring a prediction back to the grid of the scan's image.

    Probability and lungs return separately and are multiplied there, and the mask is made there from the
    probability, so that the border of the lungs is not eroded by interpolation.

    Parameters
    ----------
    lungs : bool native (z, y, x), optional
        The lungs on the native grid; else ``scan.native_lungs``, else the standard grid's lungs brought back. Not
        used for a model of the lungs.
    target : str
        What the model finds: "infection" or "lungs".

    Raises
    ------
    DataError
        The probability holds NaN.
    """
    # Where no slice was computed the probability is zero, which is no prediction and must not be mixed in.
    box = bounding_box(prediction.unmasked != 0) or (slice(0, 0),) * 3
    return box_to_native(
        prediction.unmasked[box], box, scan, prediction.aggregation, lungs=lungs, target=target
    )


def box_to_native(
    probability: NDArray[np.float32],
    box: Box,
    scan: Scan,
    aggregation: Aggregation,
    *,
    lungs: NDArray[np.bool_] | None = None,
    target: str = "infection",
) -> NativePrediction:
    """Do what `to_native` does from the box that holds all that was computed; the whole grid is never needed.

    Parameters
    ----------
    probability : float32 (z, y, x) of the box
        Combined, not cut to the lungs.
    box : tuple of slice
        Where it lies in the standard grid.

    Raises
    ------
    DataError
        The probability holds NaN.
    """
    if not np.isfinite(probability.sum(dtype=np.float64)):
        raise DataError(
            "the network's probabilities hold NaN", where=scan.name, remedy="try --device cpu, or train again"
        )
    placement, geometry = scan.placement, scan.placement.native
    found = np.zeros(geometry.shape, np.float32)
    mask = np.zeros(geometry.shape, np.bool_)
    if target == "lungs":
        whole = (slice(0, None),) * 3
        _restore(probability, box, scan, lps_view(found, geometry), whole)
        np.greater(found, np.float32(aggregation.cut), out=mask)
        return NativePrediction(found, mask, mask, mask.astype(np.uint8))
    if lungs is None:
        lungs = scan.native_lungs
    if lungs is None:
        lungs = restore_mask(scan.lungs, placement)
    inside = lps_view(lungs, geometry)
    where = bounding_box(inside)
    if where is not None:
        values = lps_view(found, geometry)
        _restore(probability, box, scan, values, where)
        values[where] *= inside[where]
        lps_view(mask, geometry)[where] = values[where] > np.float32(aggregation.cut)
    return NativePrediction(found, mask, lungs, _sides(lungs, where, scan))


def _restore(
    probability: NDArray[np.float32], box: Box, scan: Scan, target: NDArray[np.float32], where: Box
) -> None:
    """Fill a box of an LPS view with the probability, rounded."""
    if 0 in probability.shape:
        return
    soft = _sampled(probability, box, scan, target.shape, where)
    soft *= np.float32(PROBABILITY_LEVELS)
    np.rint(soft, out=soft)
    np.clip(soft, 0.0, PROBABILITY_LEVELS, out=soft)
    soft *= np.float32(1.0 / PROBABILITY_LEVELS)
    target[where] = soft


def _sampled(
    values: NDArray[np.float32], box: Box, scan: Scan, shape: tuple[int, ...], where: Box
) -> NDArray[np.float32]:
    """A box of the standard grid sampled linearly at a box of the oriented image; zero beyond it."""
    start, step = scan.placement.from_standard(scan.grid)
    first = [side.indices(size)[0] for side, size in zip(where, shape, strict=True)]
    z, y, x = (len(range(*side.indices(size))) for side, size in zip(where, shape, strict=True))
    begin = [start[axis] + first[axis] * step[axis] - box[axis].start for axis in range(3)]
    return resample(values, (z, y, x), (begin[0], begin[1], begin[2]), step, fill=0.0, kernel="linear")


def _sides(lungs: NDArray[np.bool_], where: Box | None, scan: Scan) -> NDArray[np.uint8]:
    """Label the native lungs by the side that the standard grid knows.

    What decides is which side weighs more at a voxel; where neither does, beyond the standard lungs' border, the
    nearer side.
    """
    sides = lungs.astype(np.uint8)
    box = bounding_box(scan.lungs)
    if scan.left_lung is None or where is None or box is None:
        return sides
    left = scan.left_lung[box]
    balance = left.astype(np.float32)
    balance -= scan.lungs[box] & ~left
    view = lps_view(sides, scan.placement.native)
    weight = _sampled(balance, box, scan, view.shape, where)
    part = view[where]
    # Products of whole arrays: several times faster than picking voxels, and the same labels.
    part *= LUNG + np.uint8(RIGHT_LUNG - LUNG) * (weight < 0) + np.uint8(LEFT_LUNG - LUNG) * (weight > 0)
    rest = np.argwhere(part == LUNG)
    every = 4 if min(part.shape) > 64 else 1
    known = np.argwhere(part[::every, ::every, ::every] > LUNG) * every
    if len(rest) and len(known):
        mm = lps_spacing_mm(scan.placement.native)
        _, nearest = cKDTree(known * mm).query(rest * mm)
        part[tuple(rest.T)] = part[tuple(known[nearest].T)]
    return sides
