"""Another threshold after the fact: a mask cut anew from the stored probability, without the networks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from segmentation.aggregation import Aggregation
from segmentation.results.dicom_seg import check_series
from segmentation.results.files import QUANTIFICATION, ResultOptions, result_files, write_result
from segmentation.results.native import NativePrediction
from segmentation.results.segment_image import read_lobes
from standard_space.errors import DataError, UsageError
from standard_space.files import read_mark
from standard_space.geometry import Geometry
from standard_space.image import CTImage, read_image, read_labels, require_same_grid
from standard_space.image_file import read_file
from standard_space.window import CONSOLIDATION_HU

ABOUT = (
    "target",
    "image_sha256",
    "model_id",
    "aggregation",
    "grid_size",
    "window",
    "lungs_from",
    "precision",
    "device",
    "versions",
    "notes",
)
"""What a report says of where a result comes from; a new threshold changes the aggregation alone."""


def read_report(result: str | Path) -> dict[str, Any]:
    """What a result folder of one scan says of itself.

    Raises
    ------
    UsageError
        It is no such folder, is not whole, or holds the results of many scans.
    """
    result = Path(result)
    mark = read_mark(result)
    if mark is None or mark["lungcast"] != "segmentation":
        raise UsageError("not a result of `lungcast segment`", where=result)
    if mark["provenance"].get("operation") == "segment a folder":
        raise UsageError(
            "this folder holds the results of many scans", where=result, remedy="name one of its folders"
        )
    if not mark["provenance"].get("complete"):
        raise UsageError("the result is not whole", where=result, remedy="run `lungcast segment` again")
    try:
        report = json.loads((result / QUANTIFICATION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        report = None
    if not isinstance(report, dict) or not report.keys() >= set(ABOUT):
        raise DataError(
            f"the result's {QUANTIFICATION} is damaged", where=result, remedy="run `lungcast segment` again"
        )
    return report


@dataclass
class StoredResult:
    """A result read back with the image it was made from.

    Attributes
    ----------
    stem : str
        Name of the scan in file names.
    report : dict
        What its ``quantification.json`` holds.
    image : CTImage
    probability : float32 native (z, y, x)
    sides : uint8 native (z, y, x)
        The lungs; see `NativePrediction`. None for a result of a model of the lungs.
    lobes : uint8 native (z, y, x), or None
    series : Path or None
        The DICOM folder, when a DICOM-SEG is wanted.
    """

    stem: str
    report: dict[str, Any]
    image: CTImage
    probability: NDArray[np.float32]
    sides: NDArray[np.uint8] | None
    lobes: NDArray[np.uint8] | None
    series: Path | None


def read_result(
    result: str | Path, image_path: str | Path, *, lobes: str | Path | None = None, dicom_seg: bool = False
) -> StoredResult:
    """Read the result of one scan that `lungcast segment` made, with its probability.

    Parameters
    ----------
    image_path : path
        The very image it was made from: its HU are needed, and its hash is compared.
    lobes : path, optional
        The user's lobe labels; needed where the result scores lobes.
    dicom_seg : bool
        Whether a DICOM-SEG is wanted; the image must then be a DICOM folder.

    Raises
    ------
    UsageError
        Not a whole result with its probability, or the lobes are missing.
    DataError
        The image is another one, or a file is damaged.
    """
    result, image_path = Path(result), Path(image_path)
    report, stem = read_report(result), stored_stem(result)
    target = report["target"]
    if report.get("lobes") is not None and lobes is None:
        raise UsageError("the result scores lobes", where=result, remedy="give the same --lobes again")
    if lobes is not None and target == "lungs":
        raise UsageError("a result of lungs has no lobes", where=result)
    if dicom_seg:
        check_series(image_path)
    window = report["window"]
    image = read_image(image_path, level_width_hu=(window["level_hu"], window["width_hu"]))
    if image.image_sha256 != report["image_sha256"]:
        raise DataError("this is not the image that the result was made from", where=image_path)
    files = result_files(stem, target, ResultOptions())
    return StoredResult(
        stem,
        report,
        image,
        _read_probability(result / files["probability"], image.geometry),
        None if target == "lungs" else read_labels(result / files["lungs"], image.geometry),
        None if lobes is None else read_lobes(Path(lobes), image),
        image_path if dicom_seg else None,
    )


def rethreshold(
    stored: StoredResult,
    folder: str | Path,
    *,
    threshold: float | None = None,
    consolidation_hu: float = CONSOLIDATION_HU,
) -> dict[str, Any]:
    """Write a result anew; it is that of `segment_image` with this threshold, to the byte.

    Parameters
    ----------
    folder : path
        Where to write; not the result itself.
    threshold : float, optional
        On the scale of the model's rule, see `Aggregation`; the result's own when absent.
    consolidation_hu : float
        Clinical cut between GGO and consolidation, HU.

    Raises
    ------
    UsageError
        The threshold is out of range.
    DataError
        The results cannot be written.
    """
    aggregation = Aggregation.from_json(stored.report["aggregation"]).at(threshold)
    mask = stored.probability > np.float32(aggregation.cut)
    sides = mask.astype(np.uint8) if stored.sides is None else stored.sides
    lungs = mask if stored.sides is None else sides != 0
    return write_result(
        folder,
        stored.stem,
        stored.image,
        NativePrediction(stored.probability, mask, lungs, sides),
        {
            # Older results do not name their method.
            **{key: value for key, value in stored.report.items() if key in (*ABOUT, "method")},
            "aggregation": aggregation.to_json(),
        },
        target=stored.report["target"],
        lobes=stored.lobes,
        options=ResultOptions(consolidation_hu, True, stored.series),
    )


def stored_stem(result: str | Path) -> str:
    """Name of the scan in the files of a result with its probability.

    Raises
    ------
    UsageError
        It holds no probability.
    """
    suffix = result_files("", "infection", ResultOptions())["probability"]
    found = [path.name.removesuffix(suffix) for path in Path(result).glob(f"*{suffix}")]
    if len(found) != 1:
        raise UsageError(
            "the result holds no probability",
            where=result,
            remedy="run `lungcast segment` again without --no-probability",
        )
    return found[0]


def _read_probability(path: Path, geometry: Geometry) -> NDArray[np.float32]:
    stored = read_file(path)
    require_same_grid(path, Geometry.of(stored), geometry)
    values = sitk.GetArrayFromImage(stored).astype(np.float32, copy=False)
    if not (values.min() >= 0.0 and values.max() <= 1.0):
        raise DataError("the file holds no probability", where=path, got=f"{values.min()} to {values.max()}")
    return values
