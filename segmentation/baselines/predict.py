"""A rival made ready on a device: it sees the lungs' box and a margin, as in training."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from segmentation.baselines.model import BaselineSegmenter
from segmentation.device import channels_last, choose_device, out_of_memory, weights_channels_last
from segmentation.runs import Box, Projections
from segmentation.scan_predictor import ScanPredictor, reach_of, region_of
from segmentation.signal import input_air, input_scale
from segmentation.training.cut import MARGIN_MM
from segmentation.training.recipe import Crop, Forward
from standard_space.errors import DataError
from standard_space.progress import Progress, silent
from standard_space.scan import Scan


class BaselinePredictor(ScanPredictor):
    """A rival made ready on a device; use it for several scans. The model itself is not changed.

    Parameters
    ----------
    model : BaselineSegmenter
    device, batch
        See `ScanPredictor`. The method chooses how much it computes at once; a batch divides its passes. A GPU
        that runs out of memory is given half as many, down to one.
    precision : str
        "auto", "float32" or "bfloat16". On a CPU "auto" is float32, whatever the processor has: PyTorch's bfloat16
        convolutions of volumes a slice thick are wrong there (oneDNN, PyTorch 2.13), as H-DenseUNet has them.
    """

    def __init__(
        self,
        model: BaselineSegmenter,
        *,
        device: str | torch.device = "auto",
        batch: int | None = None,
        precision: str = "auto",
    ) -> None:
        if precision == "auto" and choose_device(device).type == "cpu":
            precision = "float32"
        super().__init__(model, device=device, batch=batch, precision=precision)
        self.model: BaselineSegmenter = model
        with out_of_memory(self.device):
            self._networks = {
                part: self._forward(self._laid_out(copy.deepcopy(network).eval().to(self.device)))
                for part, network in model.parts.items()
            }

    def _laid_out(self, network: nn.Module) -> nn.Module:
        return weights_channels_last(network) if self.device.type == "cpu" else network

    def _forward(self, network: nn.Module) -> Forward:
        reduced = self.dtype is torch.bfloat16

        def run(stack: Tensor) -> Tensor:
            if self.device.type == "cpu":
                stack = channels_last(stack)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
                output: Tensor = network(stack)
            return output.float()

        def forward(stack: Tensor) -> Tensor:
            size = min(self.batch or stack.shape[0], stack.shape[0])
            if size == stack.shape[0]:
                return self._halved(run, stack)
            return torch.cat([self._halved(run, part) for part in stack.split(size)])

        return forward

    def _halved(self, run: Forward, stack: Tensor) -> Tensor:
        """Run a pass; where a GPU's memory does not suffice, of half as many at once, now and from now on."""
        count = stack.shape[0]
        try:
            found = run(stack)
        except torch.OutOfMemoryError as error:
            if count == 1:
                raise DataError(
                    "the memory does not suffice for a batch of one (--batch 1)",
                    where=str(self.device),
                    remedy="close what else runs there, or use --device cpu",
                ) from error
        else:
            self.largest_batch = max(self.largest_batch, count)
            return found
        torch.cuda.empty_cache()
        self.batch = count // 2
        return torch.cat([self._halved(run, part) for part in stack.split(self.batch)])

    @torch.inference_mode()
    def views(self, scan: Scan, *, progress: Progress = silent) -> tuple[Tensor, Box]:
        """Return the probabilities of the method's views; see `ScanPredictor.views`."""
        self.model.check_scan_grid(scan)
        where = Projections.of(region_of(scan, self.model.target))
        kept = where.bounding_box(reach_of(scan))
        spacing_mm = scan.grid.spacing_mm
        z, y, x = (math.ceil(MARGIN_MM / side) for side in spacing_mm)
        seen = where.bounding_box((z, y, x))
        recipe, options = self.model.recipe, self.model.options
        if not all(side.stop > side.start for side in kept):
            return torch.zeros((recipe.view_count, 0, 0, 0), device=self.device), kept
        # What is kept may reach further than the margin where native slices are thick.
        seen = tuple(
            slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(seen, kept, strict=True)
        )  # type: ignore[assignment]
        scale, shift = input_scale(scan, self.model.input_window)
        signal = scan.signal[seen] * np.float32(scale) + np.float32(shift)
        with out_of_memory(self.device):
            crop = Crop(
                torch.from_numpy(signal).to(self.device), input_air(scan, self.model.input_window), spacing_mm
            )
            found = recipe.probabilities(self._networks, crop, options, progress)
            inner = tuple(slice(k.start - s.start, k.stop - s.start) for k, s in zip(kept, seen, strict=True))
            found = found[(slice(None), *inner)].contiguous()
            finite = bool(torch.isfinite(found).all())
        if not finite:
            raise DataError(
                "the networks' answer is not finite",
                where=scan.name,
                got=f"{self.model.method} in {str(self.dtype).removeprefix('torch.')} on {self.device.type}",
                remedy="use --precision float32" if self.dtype is torch.bfloat16 else "train the model again",
            )
        return found, kept
