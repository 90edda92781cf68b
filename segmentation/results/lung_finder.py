"""Lungs found by a model of the lungs, for a model of the infection to look in."""

from __future__ import annotations

from contextlib import nullcontext
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmentation.results.native import box_to_native
from segmentation.scan_predictor import ScanPredictor
from standard_space.embedding import embed
from standard_space.errors import NoLungsError, UsageError
from standard_space.image import CTImage
from standard_space.window import Window

SMALLEST_PART = 0.05
"""Of the largest: smaller parts of what was found are no lung."""


class LungFinder:
    """Find the lungs of images.

    Parameters
    ----------
    predictor : ScanPredictor
        Of a model with target "lungs"; its grid may be another than that of the model of the infection.

    Raises
    ------
    UsageError
        The model finds something else.
    """

    def __init__(self, predictor: ScanPredictor) -> None:
        if predictor.model.target != "lungs":
            raise UsageError(
                "this model does not find the lungs",
                got=f"target {predictor.model.target}",
                remedy="name a lung mask, or a model trained with --target lungs",
            )
        self._predictor = predictor
        self._model_id = predictor.model.model_id

    @property
    def source(self) -> str:
        """Who found the lungs, for the provenance."""
        rule = self._predictor.model.aggregation
        return f"model {self._model_id}, {rule.rule}, {rule.threshold:g}"

    def to_json(self) -> dict[str, Any]:
        """What the lungs depend on: the networks, and the rule and threshold, which `lungcast tune` changes."""
        return {"model_id": self._model_id, "aggregation": self._predictor.model.aggregation.to_json()}

    def find(
        self, image: CTImage, window: Window | None = None, *, kernels: Lock | None = None
    ) -> NDArray[np.bool_]:
        """Return the lungs of an image, bool native (z, y, x).

        `kernels` is held while Numba computes, where other threads do so too; see `prepare_scan`.

        Raises
        ------
        NoLungsError
            None were found.
        """
        model = self._predictor.model
        held = nullcontext() if kernels is None else kernels
        with held:
            scan = embed(image, model.grid, window=window, require_lungs=False)
        combined, box = self._predictor.combined(scan, model.aggregation)
        with held:
            lungs = box_to_native(combined, box, scan, model.aggregation, target="lungs").mask
        parts, count = ndimage.label(lungs)
        if count == 0:
            raise NoLungsError("the model of the lungs found none", remedy="give a lung mask (--lungs)")
        voxels = np.bincount(parts.ravel())
        voxels[0] = 0
        return (voxels >= SMALLEST_PART * voxels.max())[parts]
