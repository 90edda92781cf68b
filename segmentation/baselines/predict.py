"""A rival made ready on a device: it sees the lungs' box and a margin, as in training."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from segmentation.baselines.model import BaselineSegmenter
from segmentation.device import out_of_memory
from segmentation.runs import Box, Projections
from segmentation.scan_predictor import ScanPredictor, reach_of, region_of
from segmentation.signal import input_air, input_signal
from segmentation.training.cut import MARGIN_MM
from segmentation.training.recipe import Crop, Forward
from standard_space.progress import Progress, silent
from standard_space.scan import Scan


class BaselinePredictor(ScanPredictor):
    """A rival made ready on a device; use it for several scans.

    Parameters
    ----------
    model : BaselineSegmenter
    device, batch, precision
        See `ScanPredictor`. The method chooses how much it computes at once; a batch divides its passes.
    """

    def __init__(
        self,
        model: BaselineSegmenter,
        *,
        device: str | torch.device = "auto",
        batch: int | None = None,
        precision: str = "auto",
    ) -> None:
        super().__init__(model, device=device, batch=batch, precision=precision)
        self.model: BaselineSegmenter = model
        with out_of_memory(self.device):
            self._networks = {
                part: self._forward(network.eval().to(self.device)) for part, network in model.parts.items()
            }

    def _forward(self, network: nn.Module) -> Forward:
        reduced = self.dtype is torch.bfloat16

        def run(stack: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
                output: Tensor = network(stack)
            return output.float()

        def forward(stack: Tensor) -> Tensor:
            size = self.batch or stack.shape[0]
            self.largest_batch = max(self.largest_batch, min(size, stack.shape[0]))
            return (
                run(stack) if size >= stack.shape[0] else torch.cat([run(part) for part in stack.split(size)])
            )

        return forward

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
            return torch.zeros((1, 0, 0, 0), device=self.device), kept
        # What is kept may reach further than the margin where native slices are thick.
        seen = tuple(
            slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(seen, kept, strict=True)
        )  # type: ignore[assignment]
        signal = np.ascontiguousarray(input_signal(scan, self.model.input_window)[seen])
        with out_of_memory(self.device):
            crop = Crop(
                torch.from_numpy(signal).to(self.device), input_air(scan, self.model.input_window), spacing_mm
            )
            found = recipe.probabilities(self._networks, crop, options, progress)
            inner = tuple(slice(k.start - s.start, k.stop - s.start) for k, s in zip(kept, seen, strict=True))
            return found[(slice(None), *inner)].contiguous(), kept
