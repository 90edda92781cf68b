"""Three-way prediction: a scan in, probability and mask out [paper III-D].

The volume crosses to the device once; all else happens there, over slices and crops that meet the lungs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segmentation.aggregation import Aggregation
from segmentation.device import choose_device, choose_precision, out_of_memory, slices_at_once
from segmentation.fast_unet import FastUNet
from segmentation.model import ThreeWaySegmenter
from segmentation.runs import Box, Projections, Run, Triple, plan_runs
from segmentation.signal import input_scale
from segmentation.unet import pad_to_multiple
from segmentation.views import VIEWS, as_planes, normal_axis, plane_axes, slab_of, stacks_of_slab
from segmentation.workers import each
from standard_space.errors import UsageError
from standard_space.progress import Progress, silent
from standard_space.scan import Scan


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
        Slices per pass; chosen by the size of the crop and the free memory when absent. A GPU that runs out of
        memory is given half as many, down to one.
    precision : str
        "auto", "float32" or "bfloat16"; see `choose_precision`.
    compiled : bool
        Compile the networks by `torch.compile` (needs a C++ compiler on a CPU): the first scan takes a minute or
        two longer, the others are faster.

    Attributes
    ----------
    largest_batch : int
        Slices of the largest pass so far.

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
        compiled: bool = False,
    ) -> None:
        if batch is not None and batch < 1:
            raise UsageError("a batch needs at least one slice", got=batch)
        self.model = model
        self.batch = batch
        self.compiled = compiled
        self.largest_batch = 0
        self.device = choose_device(device)
        self.dtype = choose_precision(self.device, precision)
        with out_of_memory(self.device):
            self._networks: dict[str, Callable[[Tensor], Tensor]] = {
                view: FastUNet(network, self.device, self.dtype) for view, network in model.networks.items()
            }
        # One pass at a time on a GPU; compiled networks divide their work themselves.
        self._threads = 1 if self.device.type == "cuda" or compiled else torch.get_num_threads()
        if compiled:
            self._networks = {view: torch.compile(network) for view, network in self._networks.items()}

    @torch.inference_mode()
    def views(self, scan: Scan, *, progress: Progress = silent) -> tuple[Tensor, Box]:
        """Return the three views' probabilities in a box around the region, and the box.

        Parameters
        ----------
        scan : Scan
            On the model's grid.
        progress : Progress
            Called with (view, done, total) as the slices are done.

        Returns
        -------
        views : float32 Tensor (3, z, y, x)
            On the device, in the order of ``VIEWS``, 0 to 1, not cut to the region; 0 where nothing was computed.
        box : tuple of slice
            Where it lies in the standard grid: the region and what the way back to the native grid looks at around
            it; empty without a region.

        Raises
        ------
        DataError
            The scan lies on another grid than the model's, or the memory does not suffice for one slice.
        """
        self.model.check_scan_grid(scan)
        where = Projections.of(region_of(scan, self.model.target))
        reach = _reach(scan)
        box = where.bounding_box(reach)
        shape = [side.stop - side.start for side in box]
        with out_of_memory(self.device):
            found = torch.zeros((len(VIEWS), *shape), dtype=torch.float32, device=self.device)
            volume = torch.from_numpy(np.ascontiguousarray(scan.signal)).to(self.device)
            plans = {view: plan_runs(where, view, reach, **self._run_length(scan)) for view in VIEWS}
            tasks = [(place, view, run) for place, view in enumerate(VIEWS) for run in plans[view]]
            total = sum(run.stop - run.start for _, _, run in tasks)
            done = 0

            def fill(task: tuple[int, str, Run]) -> tuple[str, int]:
                place, view, run = task
                self._fill(found[place], box, volume, view, run, scan)
                return view, run.stop - run.start

            for view, count in each(fill, tasks, self._threads):
                done += count
                progress(f"view {view}", done, total)
        return found, box

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
            Called with (view, done, total) as the slices are done.

        Raises
        ------
        DataError
            The scan lies on another grid than the model's, or the memory does not suffice for one slice.
        UsageError
            The threshold is out of range.
        """
        aggregation = self.model.aggregation.at(threshold)
        combined, box = self.combined(scan, aggregation, progress=progress)
        inside = region_of(scan, self.model.target)[box]
        probability, unmasked = (np.zeros(scan.grid.shape, np.float32) for _ in range(2))
        whole = np.zeros(scan.grid.shape, np.bool_)
        unmasked[box] = combined
        np.multiply(combined, inside, out=probability[box])
        whole[box] = (combined > np.float32(aggregation.cut)) & inside
        return Prediction(probability, whole, unmasked, aggregation)

    def _run_length(self, scan: Scan) -> dict[str, int]:
        # Compiled networks are made for one shape of image, so each view gets one crop; and a pass of a GPU is a
        # run at most.
        if self.compiled:
            return {"slices_per_run": scan.grid.size}
        return {} if self.device.type == "cpu" else {"slices_per_run": 64}

    def _fill(self, found: Tensor, box: Box, volume: Tensor, view: str, run: Run, scan: Scan) -> None:
        """Write the probabilities of a run of slices into a (z, y, x) box."""
        spacing_mm = scan.grid.spacing_mm[normal_axis(view)]
        offsets_mm = self.model.offsets_mm[view]
        # A copy of the slices that the run needs, in the order of the plane: strided reads of single slices would
        # fetch a cache line for each pixel.
        furthest = math.ceil(max(map(abs, offsets_mm)) / spacing_mm) + 1
        planes = as_planes(volume, view)[:, run.rows, run.columns]
        slab = slab_of(planes, run.start, run.stop, furthest, scan.air_signal)
        scale, shift = input_scale(scan, self.model.input_window)
        slab.mul_(scale).add_(shift)
        height, width = slab.shape[1:]
        kept = _moved(run.kept_rows, run.rows.start), _moved(run.kept_columns, run.columns.start)
        axes = as_planes(found, view)
        offset = [side.start for side in as_sides(box, view)]
        target = axes[
            run.start - offset[0] : run.stop - offset[0],
            _moved(run.kept_rows, offset[1]),
            _moved(run.kept_columns, offset[2]),
        ]
        start = run.start
        while start < run.stop:
            step = self.batch or slices_at_once(self.device, height * width, self.model.width)
            stop = min(start + step, run.stop)
            stack = stacks_of_slab(
                slab,
                start - run.start + furthest,
                stop - run.start + furthest,
                spacing_mm,
                offsets_mm=offsets_mm,
                dtype=self.dtype,
            )
            stack = pad_to_multiple(stack, scan.air_signal * scale + shift).contiguous(
                memory_format=torch.channels_last
            )
            logits = self._forward(view, stack)[:, 0, *kept]
            self.largest_batch = max(self.largest_batch, stop - start)
            target[start - run.start : stop - run.start] = torch.sigmoid(logits.float())
            start = stop

    def _forward(self, view: str, stack: Tensor) -> Tensor:
        """Logits of a stack; where a GPU's memory does not suffice, of half as many slices at once."""
        try:
            return self._networks[view](stack)
        except torch.OutOfMemoryError:
            if stack.shape[0] == 1:
                raise
        torch.cuda.empty_cache()
        self.batch = stack.shape[0] // 2
        return torch.cat([self._forward(view, part) for part in stack.split(self.batch)])


def region_of(scan: Scan, target: str) -> NDArray[np.bool_]:
    """Where a target can be: the lungs for the infection, everywhere for the lungs; bool (z, y, x)."""
    return scan.lungs if target == "infection" else np.ones(scan.grid.shape, np.bool_)


def as_sides(box: Box, view: str) -> tuple[slice, slice, slice]:
    """A box's sides in the order of a view's planes: slices, rows, columns."""
    rows, columns = plane_axes(view)
    return box[normal_axis(view)], box[rows], box[columns]


def _reach(scan: Scan) -> Triple:
    """How far from the lungs the way back to the native grid looks, standard voxels (z, y, x).

    A native voxel of the lungs lies up to half its own side from a standard one, and the interpolation looks a
    voxel further, or one native voxel where those are larger.
    """
    _, step = scan.placement.from_standard(scan.grid)
    z, y, x = (math.ceil(max(side, 1.0) + side / 2) for side in step)
    return z, y, x


def _moved(side: slice, by: int) -> slice:
    return slice(side.start - by, side.stop - by)


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
