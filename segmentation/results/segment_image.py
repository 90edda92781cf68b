"""An image file or DICOM folder in, its segmentation on its own grid out."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segmentation.aggregation import Aggregation
from segmentation.methods import predictor_for
from segmentation.results.dicom_seg import check_series
from segmentation.results.files import ResultOptions, write_result
from segmentation.results.lung_finder import LungFinder
from segmentation.results.native import box_to_native
from segmentation.scan_predictor import ScanPredictor
from segmentation.segmenter import Segmenter
from standard_space.embedding import embed
from standard_space.errors import DataError, NoLungsError, UsageError
from standard_space.image import CTImage, read_image, read_labels, read_mask
from standard_space.progress import Progress, silent
from standard_space.scan import Scan
from standard_space.version import lungcast_version
from standard_space.window import CONSOLIDATION_HU, Window

_kernels = threading.Lock()
"""Not every threading layer of Numba can run two parallel kernels at once, and a scan is embedded while another
computes."""


@dataclass(frozen=True)
class ScanInput:
    """One scan to segment.

    Parameters
    ----------
    image : Path
        An image file or a DICOM folder.
    lungs : Path or bool native (z, y, x), optional
        The user's lung mask on the image's grid; found in the image when absent.
    lobes : Path, optional
        The user's lobe labels on the image's grid.
    """

    image: Path
    lungs: Path | NDArray[np.bool_] | None = None
    lobes: Path | None = None

    @property
    def stem(self) -> str:
        """Name of the scan in file names."""
        return image_stem(self.image)


@dataclass(frozen=True)
class SegmentOptions:
    """How scans are segmented.

    Parameters
    ----------
    window : Window, optional
        Overrides the image's own, and is the one an 8-bit image was made with.
    threshold : float, optional
        On the scale of the model's rule, see `Aggregation`; the model's own when absent.
    consolidation_hu : float
        Clinical cut between GGO and consolidation, HU.
    probability : bool
        Write the probability as well.
    dicom_seg : bool
        Write a DICOM-SEG as well; the image must be a DICOM folder.
    """

    window: Window | None = None
    threshold: float | None = None
    consolidation_hu: float = CONSOLIDATION_HU
    probability: bool = True
    dicom_seg: bool = False

    def result_options(self, image: Path) -> ResultOptions:
        """What is written for an image."""
        return ResultOptions(self.consolidation_hu, self.probability, image if self.dicom_seg else None)


@dataclass
class PreparedScan:
    """A scan that was read and embedded, ready for the networks."""

    source: ScanInput
    image: CTImage
    scan: Scan
    lungs: NDArray[np.bool_] | None
    lobes: NDArray[np.uint8] | None


def prepare_scan(
    source: ScanInput,
    model: Segmenter,
    options: SegmentOptions,
    *,
    lung_finder: LungFinder | None = None,
) -> PreparedScan:
    """Read a scan and its masks and embed it on the model's grid; the model's networks are not needed.

    Where the scan comes without a lung mask, `lung_finder` finds the lungs, else classical operations do.

    Raises
    ------
    DataError
        The image or a mask cannot be read or does not lie on the image, no lungs are found, or the series cannot
        carry a DICOM-SEG.
    UsageError
        Lungs or lobes are given to a model that finds the lungs, or a DICOM-SEG is wanted of what is no DICOM
        folder.
    """
    if model.target == "lungs" and (source.lungs is not None or source.lobes is not None):
        raise UsageError("this model finds the lungs: it takes no masks of lungs or lobes", where=source.stem)
    if options.dicom_seg:
        check_series(source.image)
    window = options.window
    image = read_image(source.image, level_width_hu=(window.level_hu, window.width_hu) if window else None)
    lungs = source.lungs
    if isinstance(lungs, Path):
        lungs = read_mask(lungs, image.geometry)
    lobes = None if source.lobes is None else read_lobes(source.lobes, image)
    try:
        if lungs is None and lung_finder is not None:
            lungs = lung_finder.find(image, window, kernels=_kernels)
        with _kernels:
            scan = embed(
                image,
                model.grid,
                scan=source.stem,
                lungs=lungs,
                window=window,
                lungs_source="user"
                if source.lungs is not None or lung_finder is None
                else lung_finder.source,
                require_lungs=model.target == "infection",
            )
    except NoLungsError as error:
        raise NoLungsError(
            "no lungs were found", where=source.image, remedy="give a lung mask (--lungs)"
        ) from error
    return PreparedScan(source, image, scan, lungs, lobes)


def segment_prepared(
    predictor: ScanPredictor,
    prepared: PreparedScan,
    out_dir: str | Path,
    options: SegmentOptions,
    *,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run the networks on a prepared scan, which is used up, and write its result; see `segment_image`."""
    model, scan, image = predictor.model, prepared.scan, prepared.image
    aggregation = model.aggregation.at(options.threshold)
    combined, box = predictor.combined(scan, aggregation, progress=progress)
    about = _about(predictor, scan, image, aggregation)
    # The embedded scan takes more memory than the way back: only its lungs are still needed.
    nothing = np.empty((0, 0, 0))
    scan = replace(scan, signal=nothing.astype(np.float32), airways=nothing > 0, vessels=nothing > 0)
    del prepared.scan
    with _kernels:
        found = box_to_native(combined, box, scan, aggregation, lungs=prepared.lungs, target=model.target)
    del scan, combined
    return write_result(
        out_dir,
        prepared.source.stem,
        image,
        found,
        about,
        target=model.target,
        lobes=prepared.lobes,
        options=options.result_options(prepared.source.image),
    )


def segment_image(
    model: Segmenter | ScanPredictor,
    path: str | Path,
    out_dir: str | Path,
    *,
    lungs: str | Path | NDArray[np.bool_] | None = None,
    lobes: str | Path | None = None,
    window: Window | None = None,
    threshold: float | None = None,
    consolidation_hu: float = CONSOLIDATION_HU,
    probability: bool = True,
    dicom_seg: bool = False,
    device: str | torch.device = "auto",
    batch: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Segment an image file or a DICOM folder and write the results on the image's own grid.

    Writes into `out_dir`, for a model of the infection, ``<stem>_infection.nii.gz`` (uint8 0 and 1),
    ``<stem>_probability.nii.gz`` (float32), ``<stem>_ggo_consolidation.nii.gz`` (uint8: 1 GGO, 2 consolidation),
    ``<stem>_lungs.nii.gz`` (uint8: 1 lung, or 2 right and 3 left lung where told apart), ``<stem>_overlay.png``
    and ``quantification.json``; for a model of the lungs ``<stem>_lungs.nii.gz`` (uint8 0 and 1), probability,
    overlay and ``quantification.json``.

    Parameters
    ----------
    lungs : path or bool native (z, y, x), optional
        The user's lung mask on the image's grid; found in the image when absent.
    lobes : path, optional
        The user's lobe labels on the image's grid, for shares and severity scores of lobes.
    window, threshold, consolidation_hu, probability, dicom_seg
        See `SegmentOptions`.

    Returns
    -------
    dict
        What ``quantification.json`` holds.

    Raises
    ------
    DataError
        The image or a mask cannot be read, no lungs are found, or the results cannot be written.
    UsageError
        See `prepare_scan`.
    """
    predictor = (
        model if isinstance(model, ScanPredictor) else predictor_for(model, device=device, batch=batch)
    )
    options = SegmentOptions(window, threshold, consolidation_hu, probability, dicom_seg)
    source = ScanInput(
        Path(path),
        Path(lungs) if isinstance(lungs, str) else lungs,
        None if lobes is None else Path(lobes),
    )
    predictor.model.aggregation.at(threshold)
    prepared = prepare_scan(source, predictor.model, options)
    try:
        Path(out_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError("the results cannot be written", where=out_dir, got=error.strerror) from error
    return segment_prepared(predictor, prepared, out_dir, options, progress=progress)


def read_lobes(path: Path, image: CTImage) -> NDArray[np.uint8]:
    """Read lobe labels that lie on an image; see `read_labels`.

    Raises
    ------
    DataError
        Also when they are empty.
    """
    lobes = read_labels(path, image.geometry)
    if not lobes.any():
        raise DataError("the lobes are empty", where=path)
    return lobes


def image_stem(path: str | Path) -> str:
    """Return an image's file name without its image suffixes; a DICOM folder's own name."""
    # Not resolved: a link may name by pseudonym what its target names by patient.
    path = Path(os.path.abspath(path))
    if path.is_dir():
        return path.name
    name = path.name
    return name[: -len(".nii.gz")] if name.lower().endswith(".nii.gz") else path.stem


def _about(predictor: ScanPredictor, scan: Scan, image: CTImage, aggregation: Aggregation) -> dict[str, Any]:
    """Where a result comes from; no path, and nothing of a DICOM header."""
    window = scan.window
    return {
        "target": predictor.model.target,
        "image_sha256": image.image_sha256,
        "method": predictor.model.method,
        "model_id": predictor.model.model_id,
        "aggregation": aggregation.to_json(),
        "grid_size": predictor.model.grid_size,
        "window": {"level_hu": window.level_hu, "width_hu": window.width_hu, "source": window.source},
        "lungs_from": scan.provenance["lungs"],
        "precision": str(predictor.dtype).removeprefix("torch."),
        "device": predictor.device.type,
        "versions": {
            "lungcast": lungcast_version(),
            **{n: version(n) for n in ("torch", "numpy", "SimpleITK")},
        },
        "notes": list(scan.provenance["notes"]),
    }
