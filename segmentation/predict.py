"""Three-way prediction: a scan in, probability and mask out [paper III-D].

The volume crosses to the device once; all else happens there, over slices and crops that meet the lungs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segmentation.device import choose_device, choose_precision
from segmentation.model import ThreeWaySegmenter, check_threshold
from segmentation.quantification import quantify
from segmentation.signal import input_air, input_signal
from segmentation.unet import MULTIPLE, channels_last, fused_copy, pad_to_multiple
from segmentation.views import VIEWS, as_planes, normal_axis, plane_axes, stacks
from standard_space.embedding import embed
from standard_space.errors import DataError, NoLungsError, UsageError
from standard_space.files import write_json
from standard_space.image import read_image, read_mask, write_volume
from standard_space.progress import Progress, silent
from standard_space.restore import restore_mask, restore_volume
from standard_space.scan import Scan
from standard_space.window import CONSOLIDATION_HU, Window

CROP_MARGIN = 64
"""Voxels kept around the lungs in the plane; fewer would change probabilities inside them."""

_PIXELS_PER_BATCH = {"cpu": 8 * 128 * 128, "cuda": 32 * 512 * 512}


@dataclass(frozen=True)
class Prediction:
    """What the segmenter says about a scan, on the standard grid.

    Attributes
    ----------
    probability : float32 (z, y, x)
        Mean of the three views' probabilities, 0 to 1; zero outside the lungs.
    mask : bool (z, y, x)
        Sum of the three probabilities above the threshold, inside the lungs.
    unmasked : float32 (z, y, x)
        The probability before the lungs were cut out (zero where no slice was computed); it is what returns
        to the native grid, so that interpolation does not erode lesions at the pleura.
    threshold : float
        On the sum, 0 to 3.
    """

    probability: NDArray[np.float32]
    mask: NDArray[np.bool_]
    unmasked: NDArray[np.float32]
    threshold: float


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
    def view_probabilities(self, scan: Scan, view: str, *, volume: Tensor | None = None) -> Tensor:
        """Return one view's probabilities, float32 (z, y, x) on the device, not cut to the lungs.

        Slices and crops that do not meet the lungs are zero.
        """
        total = torch.zeros(scan.grid.shape, dtype=torch.float32, device=self.device)
        self._add_view(total, self._volume(scan) if volume is None else volume, scan, view)
        return total

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
            On the sum of the three probabilities, 0 to 3; the model's own when absent.
        progress : Progress
            Called with (view, done, total) after each view.

        Raises
        ------
        DataError
            The scan lies on another grid than the model's.
        UsageError
            The threshold is out of range.
        """
        threshold = self.model.threshold if threshold is None else threshold
        check_threshold(threshold)
        self.model.check_scan_grid(scan)
        total = torch.zeros(scan.grid.shape, dtype=torch.float32, device=self.device)
        volume = self._volume(scan)
        for done, view in enumerate(VIEWS, 1):
            self._add_view(total, volume, scan, view)
            progress(view, done, len(VIEWS))
        lungs = torch.from_numpy(scan.lungs).to(self.device)
        mask = (total > threshold) & lungs
        total /= len(VIEWS)
        unmasked = total.cpu().numpy()
        probability = total.mul_(lungs) if self.device.type == "cuda" else total * lungs
        return Prediction(probability.cpu().numpy(), mask.cpu().numpy(), unmasked, threshold)

    def _volume(self, scan: Scan) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(input_signal(scan, self.model.input_window))).to(
            self.device, self.dtype
        )

    def _add_view(self, total: Tensor, volume: Tensor, scan: Scan, view: str) -> None:
        """Add one view's probabilities to a (z, y, x) volume."""
        if not scan.lungs.any():
            return
        planes = as_planes(total, view)
        air = input_air(scan, self.model.input_window)
        extents = [_extent(scan.lungs, axis) for axis in range(3)]
        first, last = extents[normal_axis(view)]
        # One slice more at either end, for the way back to a finer native grid.
        first, last = max(first - 1, 0), min(last + 1, planes.shape[0])
        rows, columns = (_crop(extents[axis], scan.grid.size) for axis in plane_axes(view))
        height, width = rows.stop - rows.start, columns.stop - columns.start
        step = self.batch or max(1, _PIXELS_PER_BATCH[self.device.type] // (height * width))
        network = self._networks[view]
        for start in range(first, last, step):
            stop = min(start + step, last)
            stack = stacks(
                volume,
                view,
                range(start, stop),
                scan.grid.spacing_mm,
                air,
                offsets_mm=self.model.offsets_mm,
                rows=rows,
                columns=columns,
            )
            padded = pad_to_multiple(stack, air).contiguous(memory_format=torch.channels_last)
            logits = network(padded)[:, 0, :height, :width]
            planes[start:stop, rows, columns] += torch.sigmoid(logits.float())


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
    mask = (probability > prediction.threshold / len(VIEWS)) & lungs
    return NativePrediction(probability.astype(np.float32, copy=False), mask, lungs)


def segment_image(
    model: ThreeWaySegmenter | Predictor,
    path: str | Path,
    out_dir: str | Path,
    *,
    lungs: str | Path | NDArray[np.bool_] | None = None,
    window: Window | None = None,
    threshold: float | None = None,
    consolidation_hu: float = CONSOLIDATION_HU,
    probability: bool = True,
    device: str | torch.device = "auto",
    batch: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Segment an image file or a DICOM folder and write the results on the image's own grid.

    Writes ``<stem>_infection.nii.gz`` (uint8), ``<stem>_probability.nii.gz`` (float32) and
    ``quantification.json`` into `out_dir`.

    Parameters
    ----------
    lungs : path or bool native (z, y, x), optional
        The user's lung mask on the image's grid; found in the image when absent.
    window : Window, optional
        Overrides the image's own, and is the one an 8-bit image was made with.
    threshold : float, optional
        On the sum of the three probabilities; the model's own when absent.
    consolidation_hu : float
        Clinical cut between GGO and consolidation, HU.
    probability : bool
        Write the probability as well.

    Returns
    -------
    dict
        What ``quantification.json`` holds.

    Raises
    ------
    DataError
        The image or mask cannot be read, or no lungs are found.
    """
    predictor = model if isinstance(model, Predictor) else Predictor(model, device=device, batch=batch)
    image = read_image(path, level_width_hu=(window.level_hu, window.width_hu) if window else None)
    if isinstance(lungs, str | Path):
        lungs = read_mask(lungs, image.geometry)
    stem = image_stem(path)
    try:
        scan = embed(image, predictor.model.grid, scan=stem, lungs=lungs, window=window)
    except NoLungsError as error:
        raise NoLungsError("no lungs were found", where=path, remedy="give a lung mask (--lungs)") from error
    prediction = predictor.predict(scan, threshold=threshold, progress=progress)
    native = to_native(prediction, scan, lungs=lungs)
    report = {
        "image_sha256": image.image_sha256,
        "model_id": predictor.model.model_id,
        "threshold_on_sum": prediction.threshold,
        "grid_size": predictor.model.grid_size,
        "window": {
            "level_hu": scan.window.level_hu,
            "width_hu": scan.window.width_hu,
            "source": scan.window.source,
        },
        "notes": list(scan.provenance["notes"]),
        **quantify(
            native.mask,
            native.lungs,
            image.array,
            image.geometry.voxel_volume_ml,
            consolidation_hu=consolidation_hu,
        ),
    }
    out_dir = Path(out_dir)
    try:
        write_volume(out_dir / f"{stem}_infection.nii.gz", native.mask.astype(np.uint8), image.geometry)
        if probability:
            write_volume(out_dir / f"{stem}_probability.nii.gz", native.probability, image.geometry)
        write_json(out_dir / "quantification.json", report)
    except OSError as error:
        raise DataError("the results cannot be written", where=out_dir, got=error.strerror) from error
    return report


def image_stem(path: str | Path) -> str:
    """Return an image's file name without its image suffixes; a DICOM folder's own name."""
    path = Path(path).resolve()
    if path.is_dir():
        return path.name
    name = path.name
    return name[: -len(".nii.gz")] if name.lower().endswith(".nii.gz") else path.stem


def _extent(lungs: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """Return first and one past the last index along an axis where the lungs are."""
    others = tuple(other for other in range(3) if other != axis)
    met = np.flatnonzero(lungs.any(axis=others))
    return int(met[0]), int(met[-1]) + 1


def _crop(extent: tuple[int, int], size: int) -> slice:
    """Return the extent with its margin, begun and ended at multiples of 16.

    Pooling then falls on the same voxels as in the whole slice, and probabilities stay the same.
    """
    start = max(extent[0] - CROP_MARGIN, 0) // MULTIPLE * MULTIPLE
    stop = -(-min(extent[1] + CROP_MARGIN, size) // MULTIPLE) * MULTIPLE
    return slice(start, min(stop, size))
