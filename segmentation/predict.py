"""Three-way prediction: a scan in, probability and mask out [paper III-D].

The volume crosses to the device once; all else happens there, over slices and crops that meet the lungs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segmentation.aggregation import Aggregation
from segmentation.device import choose_device, choose_precision
from segmentation.model import ThreeWaySegmenter
from segmentation.signal import input_air, input_signal
from segmentation.unet import MULTIPLE, channels_last, fused_copy, pad_to_multiple
from segmentation.views import VIEWS, as_planes, normal_axis, plane_axes, stacks
from standard_space.errors import UsageError
from standard_space.progress import Progress, silent
from standard_space.scan import Scan

CROP_MARGIN = 64
"""Voxels kept around the lungs in the plane; fewer would change probabilities inside them."""

_PIXELS_PER_BATCH = {"cpu": 8 * 128 * 128, "cuda": 32 * 512 * 512}

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Prediction:
    """What the segmenter says about a scan, on the standard grid.

    Attributes
    ----------
    probability : float32 (z, y, x)
        The three views' probabilities combined by the model's rule, 0 to 1; zero outside the region.
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


class Predictor:
    """A segmenter made ready on a device; use it for several scans.

    Parameters
    ----------
    model : ThreeWaySegmenter
    device : str or torch.device
        "auto" takes a GPU when there is one.
    batch : int, optional
        Slices per pass; chosen by the size of the crop when absent.
    precision : str
        "auto", "float32" or "bfloat16"; see `choose_precision`.

    Raises
    ------
    UsageError
        Unknown device or precision, or a batch below one.
    """

    def __init__(
        self,
        model: ThreeWaySegmenter,
        *,
        device: str | torch.device = "auto",
        batch: int | None = None,
        precision: str = "auto",
    ) -> None:
        if batch is not None and batch < 1:
            raise UsageError("a batch needs at least one slice", got=batch)
        self.model = model
        self.batch = batch
        self.device = choose_device(device)
        self.dtype = choose_precision(self.device, precision)
        self._networks = {
            view: channels_last(fused_copy(network).to(self.device, self.dtype))
            for view, network in model.networks.items()
        }

    @torch.inference_mode()
    def views(self, scan: Scan, *, progress: Progress = silent) -> tuple[Tensor, Box]:
        """Return the three views' probabilities in the box around the region, and the box.

        Parameters
        ----------
        scan : Scan
            On the model's grid.
        progress : Progress
            Called with (view, done, total) after each view.

        Returns
        -------
        views : float32 Tensor (3, z, y, x)
            On the device, in the order of ``VIEWS``, 0 to 1, not cut to the region.
        box : tuple of slice
            Where it lies in the standard grid: the region and one voxel around it; empty without a region.

        Raises
        ------
        DataError
            The scan lies on another grid than the model's.
        """
        self.model.check_scan_grid(scan)
        box = _box(region_of(scan, self.model.target))
        shape = [side.stop - side.start for side in box]
        found = torch.zeros((len(VIEWS), *shape), dtype=torch.float32, device=self.device)
        if 0 in shape:
            return found, box
        volume = self._volume(scan)
        air = input_air(scan, self.model.input_window)
        for done, view in enumerate(VIEWS):
            self._fill_view(found[done], volume, box, view, scan.grid.spacing_mm, air)
            progress(view, done + 1, len(VIEWS))
        return found, box

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
            Called with (view, done, total) after each view.

        Raises
        ------
        DataError
            The scan lies on another grid than the model's.
        UsageError
            The threshold is out of range.
        """
        aggregation = self.model.aggregation.at(threshold)
        found, box = self.views(scan, progress=progress)
        region = torch.from_numpy(np.ascontiguousarray(region_of(scan, self.model.target)[box]))
        region = region.to(self.device)
        combined = aggregation.combine(found)
        mask = (combined > aggregation.cut) & region
        probability, unmasked = (np.zeros(scan.grid.shape, np.float32) for _ in range(2))
        whole = np.zeros(scan.grid.shape, np.bool_)
        probability[box] = (combined * region).cpu().numpy()
        unmasked[box] = combined.cpu().numpy()
        whole[box] = mask.cpu().numpy()
        return Prediction(probability, whole, unmasked, aggregation)

    def _volume(self, scan: Scan) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(input_signal(scan, self.model.input_window))).to(
            self.device, self.dtype
        )

    def _fill_view(
        self,
        found: Tensor,
        volume: Tensor,
        box: Box,
        view: str,
        spacing_mm: tuple[float, float, float],
        air: float,
    ) -> None:
        """Write one view's probabilities into a (z, y, x) box."""
        planes = as_planes(found, view)
        first = box[normal_axis(view)].start
        row_axis, column_axis = plane_axes(view)
        rows, columns = (_crop(box[axis], volume.shape[axis]) for axis in (row_axis, column_axis))
        top, left = box[row_axis].start - rows.start, box[column_axis].start - columns.start
        height, width = planes.shape[1:]
        step = self.batch or max(
            1,
            _PIXELS_PER_BATCH[self.device.type]
            // ((rows.stop - rows.start) * (columns.stop - columns.start)),
        )
        network = self._networks[view]
        for start in range(0, planes.shape[0], step):
            stop = min(start + step, planes.shape[0])
            stack = stacks(
                volume,
                view,
                range(first + start, first + stop),
                spacing_mm,
                air,
                offsets_mm=self.model.offsets_mm[view],
                rows=rows,
                columns=columns,
            )
            padded = pad_to_multiple(stack, air).contiguous(memory_format=torch.channels_last)
            logits = network(padded)[:, 0, top : top + height, left : left + width]
            planes[start:stop] = torch.sigmoid(logits.float())


def region_of(scan: Scan, target: str) -> NDArray[np.bool_]:
    """Where a target can be: the lungs for the infection, everywhere for the lungs; bool (z, y, x)."""
    return scan.lungs if target == "infection" else np.ones(scan.grid.shape, np.bool_)


def predict_scan(
    model: ThreeWaySegmenter,
    scan: Scan,
    *,
    device: str | torch.device = "auto",
    batch: int | None = None,
    threshold: float | None = None,
    precision: str = "auto",
    progress: Progress = silent,
) -> Prediction:
    """Segment one embedded scan; see `Predictor` for several.

    Raises
    ------
    DataError
        The scan lies on another grid than the model's.
    UsageError
        A device, batch, precision or threshold that cannot be used.
    """
    predictor = Predictor(model, device=device, batch=batch, precision=precision)
    return predictor.predict(scan, threshold=threshold, progress=progress)


def _box(region: NDArray[np.bool_]) -> Box:
    """Return the region's bounding box and one voxel more at either end, for the way back to a finer grid."""
    sides = []
    for axis, size in enumerate(region.shape):
        met = np.flatnonzero(region.any(axis=tuple(other for other in range(3) if other != axis)))
        sides.append(slice(max(int(met[0]) - 1, 0), min(int(met[-1]) + 2, size)) if met.size else slice(0, 0))
    return sides[0], sides[1], sides[2]


def _crop(side: slice, size: int) -> slice:
    """Return a side with its margin, begun and ended at multiples of 16.

    Pooling then falls on the same voxels as in the whole slice, and probabilities stay the same.
    """
    start = max(side.start - CROP_MARGIN, 0) // MULTIPLE * MULTIPLE
    stop = -(-min(side.stop + CROP_MARGIN, size) // MULTIPLE) * MULTIPLE
    return slice(start, min(stop, size))
