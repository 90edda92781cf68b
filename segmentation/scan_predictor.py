"""A segmenter made ready on a device, whatever its method: a scan in, probability and mask out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segmentation.aggregation import Aggregation
from segmentation.device import choose_device, choose_precision, out_of_memory
from segmentation.runs import Box, Triple
from segmentation.segmenter import Segmenter
from standard_space.errors import UsageError
from standard_space.progress import Progress, silent
from standard_space.scan import Scan


@dataclass(frozen=True)
class Prediction:
    """What the segmenter says about a scan, on the standard grid.

    Attributes
    ----------
    probability : float32 (z, y, x)
        The views' probabilities combined by the model's rule, 0 to 1; zero outside the region.
    mask : bool (z, y, x)
        Combined probability above the rule's cut, inside the region.
    unmasked : float32 (z, y, x)
        The probability before the region was cut out (zero where no slice was computed); it is what returns
        to the native grid, so that interpolation does not erode lesions at the pleura.
    aggregation : Aggregation
        The rule and threshold that made the mask.

    The region is the lungs for a model of the infection, and the whole grid for a model of the lungs.
    """

    probability: NDArray[np.float32]
    mask: NDArray[np.bool_]
    unmasked: NDArray[np.float32]
    aggregation: Aggregation


class ScanPredictor(ABC):
    """A segmenter made ready on a device; use it for several scans.

    Parameters
    ----------
    model : Segmenter
    device : str or torch.device
        "auto" takes a GPU when there is one.
    batch : int, optional
        Slices or patches per pass; the method's own choice when absent.
    precision : str
        "auto", "float32" or "bfloat16"; see `choose_precision`.

    Attributes
    ----------
    largest_batch : int
        Slices or patches of the largest pass so far.

    Raises
    ------
    UsageError
        Unknown device or precision, or a batch below one.
    """

    def __init__(
        self,
        model: Segmenter,
        *,
        device: str | torch.device = "auto",
        batch: int | None = None,
        precision: str = "auto",
    ) -> None:
        if batch is not None and batch < 1:
            raise UsageError("a batch needs at least one slice", got=batch)
        self.model = model
        self.batch = batch
        self.largest_batch = 0
        self.device = choose_device(device)
        self.dtype = choose_precision(self.device, precision)

    @abstractmethod
    def views(self, scan: Scan, *, progress: Progress = silent) -> tuple[Tensor, Box]:
        """Return the probabilities of the method's views in a box around the region, and the box.

        Parameters
        ----------
        scan : Scan
            On the model's grid.
        progress : Progress
            Called with (what, done, total).

        Returns
        -------
        views : float32 Tensor (views, z, y, x)
            On the device, 0 to 1, not cut to the region; 0 where nothing was computed.
        box : tuple of slice
            Where it lies in the standard grid: the region and what the way back to the native grid looks at around
            it; empty without a region.

        Raises
        ------
        DataError
            The scan lies on another grid than the model's, or the memory does not suffice.
        """

    @torch.inference_mode()
    def combined(
        self, scan: Scan, aggregation: Aggregation, *, progress: Progress = silent
    ) -> tuple[NDArray[np.float32], Box]:
        """Return the views' probabilities combined by a rule, float32 (z, y, x) of a box, and the box.

        See `views`, whose box it is, for parameters and errors.
        """
        found, box = self.views(scan, progress=progress)
        with out_of_memory(self.device):
            return aggregation.combine(found).cpu().numpy(), box

    @torch.inference_mode()
    def predict(
        self, scan: Scan, *, threshold: float | None = None, progress: Progress = silent
    ) -> Prediction:
        """Segment a scan.

        Parameters
        ----------
        scan : Scan
            On the model's grid.
        threshold : float, optional
            On the scale of the model's rule, see `Aggregation`; the model's own when absent.
        progress : Progress
            Called with (what, done, total).

        Raises
        ------
        DataError
            The scan lies on another grid than the model's, or the memory does not suffice.
        UsageError
            The threshold is out of range.
        """
        aggregation = self.model.aggregation.at(threshold)
        combined, box = self.combined(scan, aggregation, progress=progress)
        return prediction_of(combined, box, scan, self.model.target, aggregation)


def prediction_of(
    combined: NDArray[np.float32], box: Box, scan: Scan, target: str, aggregation: Aggregation
) -> Prediction:
    """Cut a combined probability in a box to a prediction on the whole grid."""
    inside = region_of(scan, target)[box]
    probability, unmasked = (np.zeros(scan.grid.shape, np.float32) for _ in range(2))
    whole = np.zeros(scan.grid.shape, np.bool_)
    unmasked[box] = combined
    np.multiply(combined, inside, out=probability[box])
    whole[box] = (combined > np.float32(aggregation.cut)) & inside
    return Prediction(probability, whole, unmasked, aggregation)


def region_of(scan: Scan, target: str) -> NDArray[np.bool_]:
    """Where a target can be: the lungs for the infection, everywhere for the lungs; bool (z, y, x)."""
    return scan.lungs if target == "infection" else np.ones(scan.grid.shape, np.bool_)


def reach_of(scan: Scan) -> Triple:
    """How far from the lungs the way back to the native grid looks, standard voxels (z, y, x).

    A native voxel of the lungs lies up to half its own side from a standard one, and the interpolation looks a
    voxel further, or one native voxel where those are larger.
    """
    _, step = scan.placement.from_standard(scan.grid)
    z, y, x = (int(np.ceil(max(side, 1.0) + side / 2)) for side in step)
    return z, y, x
