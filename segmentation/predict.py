"""Three-way prediction: a scan in, probability and mask out [paper III-D].

The volume crosses to the device once; all else happens there, over slices and crops that meet the lungs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segmentation.device import out_of_memory, slices_at_once
from segmentation.fast_unet import FastUNet
from segmentation.model import ThreeWaySegmenter
from segmentation.runs import Box, Projections, Run, plan_runs
from segmentation.scan_predictor import Prediction, ScanPredictor, reach_of, region_of
from segmentation.signal import input_scale
from segmentation.unet import pad_to_multiple
from segmentation.views import VIEWS, as_planes, normal_axis, plane_axes, slab_of, stacks_of_slab
from segmentation.workers import each
from standard_space.progress import Progress, silent
from standard_space.scan import Scan


class Predictor(ScanPredictor):
    """The three-way segmenter made ready on a device; use it for several scans.

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
        super().__init__(model, device=device, batch=batch, precision=precision)
        self.model: ThreeWaySegmenter = model
        self.compiled = compiled
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
        """Return the three views' probabilities, in the order of ``VIEWS``; see `ScanPredictor.views`."""
        self.model.check_scan_grid(scan)
        where = Projections.of(region_of(scan, self.model.target))
        reach = reach_of(scan)
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


def as_sides(box: Box, view: str) -> tuple[slice, slice, slice]:
    """A box's sides in the order of a view's planes: slices, rows, columns."""
    rows, columns = plane_axes(view)
    return box[normal_axis(view)], box[rows], box[columns]


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
