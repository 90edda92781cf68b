"""An image file or DICOM folder in, its segmentation on its own grid out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segmentation.model import ThreeWaySegmenter
from segmentation.native import to_native
from segmentation.predict import Predictor
from segmentation.quantification import quantify
from standard_space.embedding import embed
from standard_space.errors import DataError, NoLungsError
from standard_space.files import write_json
from standard_space.image import read_image, read_mask, write_volume
from standard_space.progress import Progress, silent
from standard_space.window import CONSOLIDATION_HU, Window


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
        "aggregation": prediction.aggregation.to_json(),
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
