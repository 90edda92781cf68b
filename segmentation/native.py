"""A prediction back on the grid of the image the scan came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmentation.predict import Prediction
from standard_space.restore import restore_mask, restore_volume
from standard_space.scan import Scan


@dataclass(frozen=True)
class NativePrediction:
    """A prediction on the grid of the image the scan came from.

    Attributes
    ----------
    probability : float32 (z, y, x)
        0 to 1; zero outside the lungs.
    mask, lungs : bool (z, y, x)
    """

    probability: NDArray[np.float32]
    mask: NDArray[np.bool_]
    lungs: NDArray[np.bool_]


def to_native(
    prediction: Prediction, scan: Scan, *, lungs: NDArray[np.bool_] | None = None
) -> NativePrediction:
    """Bring a prediction back to the grid of the scan's image.

    Probability and lungs return separately and are multiplied there, and the mask is made there from the
    probability, so that the border of the lungs is not eroded by interpolation.

    Parameters
    ----------
    lungs : bool native (z, y, x), optional
        The lungs on the native grid; else ``scan.native_lungs``, else the standard grid's lungs brought back.
    """
    if lungs is None:
        lungs = scan.native_lungs
    if lungs is None:
        lungs = restore_mask(scan.lungs, scan.placement)
    probability = restore_volume(prediction.unmasked, scan.placement, fill=0.0)
    probability = np.clip(probability, 0.0, 1.0) * lungs
    mask = (probability > prediction.aggregation.cut) & lungs
    return NativePrediction(probability.astype(np.float32, copy=False), mask, lungs)
