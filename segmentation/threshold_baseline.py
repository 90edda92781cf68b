"""The segmenter's plainest rival: the best band of HU inside the lungs, tuned on the training scans.

It is given every fair chance: the band has two sides, the airways and vessels may be left out, and the image
may be smoothed first; whatever scores best on the training scans is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.errors import DataError
from standard_space.restore import restore_mask
from standard_space.scan import Scan

SMOOTHING_MM = (0.0, 2.0, 4.0)
"""Standard deviations of the Gaussian smoothing that are tried."""

_EDGES_HU = np.arange(-1000.0, 201.0, 20.0)


@dataclass(frozen=True)
class ThresholdBaseline:
    """A band of HU inside the lungs.

    Attributes
    ----------
    low_hu, high_hu : float
        Infected where low <= HU < high; the highest band has no upper end (infinity).
    without_tubes : bool
        Airways and vessels are left out.
    smoothing_mm : float
        Standard deviation of the Gaussian applied first.
    training_dice : float
        Median Dice on the training scans, standard grid.
    """

    low_hu: float
    high_hu: float
    without_tubes: bool
    smoothing_mm: float
    training_dice: float

    def mask(self, scan: Scan) -> NDArray[np.bool_]:
        """Segment a scan on the standard grid; bool (z, y, x)."""
        hu = _smoothed_hu(scan, self.smoothing_mm)
        return (hu >= self.low_hu) & (hu < self.high_hu) & _region(scan, self.without_tubes)

    def native_mask(self, scan: Scan) -> NDArray[np.bool_]:
        """Segment a scan on the native grid by the segmenter's own way back; bool (z, y, x)."""
        lungs = scan.native_lungs
        if lungs is None:
            lungs = restore_mask(scan.lungs, scan.placement)
        return restore_mask(self.mask(scan), scan.placement) & lungs


def tune_threshold_baseline(scans: Iterable[Scan]) -> ThresholdBaseline:
    """Find the band of HU with the best median Dice on annotated scans.

    Every pair of edges 20 HU apart between -1000 and 200 HU (the last band open above) is tried, for each
    smoothing and with and without airways and vessels, on the standard grid.

    Raises
    ------
    DataError
        No scan has an infection annotation with infected voxels.
    """
    scores: dict[tuple[float, bool], list[NDArray[np.float64]]] = {}
    for scan in scans:
        if scan.infection is None or not scan.infection.any():
            continue
        for smoothing_mm in SMOOTHING_MM:
            hu = _smoothed_hu(scan, smoothing_mm)
            for without_tubes in (False, True):
                dice = _dice_of_bands(hu, scan.infection, _region(scan, without_tubes))
                scores.setdefault((smoothing_mm, without_tubes), []).append(dice)
    if not scores:
        raise DataError("no scan to tune the threshold on has infected voxels")
    ends = np.append(_EDGES_HU[1:], np.inf)
    candidates = []
    for (smoothing_mm, without_tubes), per_scan in scores.items():
        median = np.median(per_scan, axis=0)
        low, high = np.unravel_index(int(np.argmax(median)), median.shape)
        candidates.append(
            ThresholdBaseline(
                low_hu=float(_EDGES_HU[low]),
                high_hu=float(ends[high]),
                without_tubes=without_tubes,
                smoothing_mm=smoothing_mm,
                training_dice=float(median[low, high]),
            )
        )
    return max(candidates, key=lambda candidate: candidate.training_dice)


def _dice_of_bands(
    hu: NDArray[np.float32], infection: NDArray[np.bool_], region: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the Dice of every band, (first bin, last bin); bands that end before they begin score 0."""
    inside, truth = hu[region], infection[region]
    bins = np.searchsorted(_EDGES_HU, inside, side="right") - 1
    keep = bins >= 0  # the last bin is open above; below the first edge lies no band
    total = np.bincount(bins[keep], minlength=_EDGES_HU.size).astype(np.float64)
    hits = np.bincount(bins[keep & truth], minlength=_EDGES_HU.size).astype(np.float64)
    predicted_in, hits_in = (np.concatenate([[0.0], np.cumsum(counts)]) for counts in (total, hits))
    predicted = predicted_in[None, 1:] - predicted_in[:-1, None]
    right = hits_in[None, 1:] - hits_in[:-1, None]
    size = predicted + float(np.count_nonzero(infection))
    # A band that ends before it begins has no size; it scores 0.
    return np.divide(2.0 * right, size, out=np.zeros_like(size), where=np.triu(size) > 0)


def _smoothed_hu(scan: Scan, smoothing_mm: float) -> NDArray[np.float32]:
    hu = scan.window.to_hu(scan.signal)
    if smoothing_mm == 0.0:
        return hu
    return ndimage.gaussian_filter(hu, [smoothing_mm / spacing for spacing in scan.grid.spacing_mm])


def _region(scan: Scan, without_tubes: bool) -> NDArray[np.bool_]:
    return scan.lungs & ~scan.airways & ~scan.vessels if without_tubes else scan.lungs
