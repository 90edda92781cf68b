"""The files of one scan's segmentation: what they are called, what they hold, how they are written."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation.results.dicom_seg import write_dicom_seg
from segmentation.results.native import NativePrediction
from segmentation.results.overlay import overlay_figure
from segmentation.results.quantification import kinds, quantify, quantify_lungs
from simulator.figure_style import save_figure
from standard_space.errors import DataError, OutOfSpaceError
from standard_space.files import NO_SPACE, write_json
from standard_space.image import CTImage, write_volume
from standard_space.window import CONSOLIDATION_HU

QUANTIFICATION = "quantification.json"

OUTSIDE_LUNGS_NOTED = 0.05

PLAUSIBLE_LUNGS_ML = (1000, 12000)
"""Of an adult, from breathing out with severe disease to breathing in."""


@dataclass(frozen=True)
class ResultOptions:
    """Which files are written, and where GGO ends.

    Parameters
    ----------
    consolidation_hu : float
        Clinical cut between GGO (below) and consolidation (at or above), HU.
    probability : bool
        Write the probability, from which `lungcast threshold` cuts another mask.
    dicom_seg : Path or None
        The DICOM folder that a DICOM-SEG refers to; None writes none.
    """

    consolidation_hu: float = CONSOLIDATION_HU
    probability: bool = True
    dicom_seg: Path | None = None


def result_files(stem: str, target: str, options: ResultOptions) -> dict[str, str]:
    """Names of the files of a scan's result, by what they hold."""
    files = {"mask": f"{stem}_{target}.nii.gz"}
    if target == "infection":
        files["kinds"] = f"{stem}_ggo_consolidation.nii.gz"
        files["lungs"] = f"{stem}_lungs.nii.gz"
    if options.probability:
        files["probability"] = f"{stem}_probability.nii.gz"
    if options.dicom_seg is not None:
        files["dicom_seg"] = f"{stem}_{target}.dcm"
    return {**files, "overlay": f"{stem}_overlay.png", "quantification": QUANTIFICATION}


def write_result(
    folder: str | Path,
    stem: str,
    image: CTImage,
    found: NativePrediction,
    about: dict[str, Any],
    *,
    target: str,
    lobes: NDArray[np.uint8] | None,
    options: ResultOptions,
) -> dict[str, Any]:
    """Write a scan's result; ``quantification.json`` goes last.

    Parameters
    ----------
    about : dict
        Where the result comes from, for ``quantification.json``.
    target : str
        "infection" or "lungs".
    lobes : uint8 native (z, y, x), optional
        The user's lobes.

    Returns
    -------
    dict
        What ``quantification.json`` holds.

    Raises
    ------
    DataError
        A file cannot be written, or the series cannot carry a DICOM-SEG.
    """
    folder = Path(folder)
    voxel_ml, cut_hu = image.geometry.voxel_volume_ml, options.consolidation_hu
    if target == "lungs":
        numbers = quantify_lungs(found.mask, image.array, voxel_ml)
        numbers["quantification_notes"] = _implausible_lungs(numbers["lungs_ml"])
    else:
        numbers = quantify(
            found.mask,
            found.lungs,
            image.array,
            voxel_ml,
            consolidation_hu=cut_hu,
            sides=found.sides,
            lobes=lobes,
        )
        numbers["quantification_notes"] = _notes(found, lobes, numbers, about["lungs_from"])
    report = {**about, **numbers}
    files = {what: folder / name for what, name in result_files(stem, target, options).items()}
    tasks: list[Callable[[], None]] = [
        lambda: write_volume(files["mask"], found.mask, image.geometry),
    ]
    if options.probability:
        tasks.insert(0, lambda: write_volume(files["probability"], found.probability, image.geometry))
    if target == "infection":
        tasks += [
            lambda: write_volume(files["kinds"], kinds(found.mask, image.array, cut_hu), image.geometry),
            lambda: write_volume(files["lungs"], found.sides, image.geometry),
        ]
    try:
        # Compressing a file and drawing do not wait for each other.
        with ThreadPoolExecutor(2) as pool:
            written = [pool.submit(task) for task in tasks]
            figure = overlay_figure(
                image, found, target=target, title=_title(stem, numbers, target), consolidation_hu=cut_hu
            )
            save_figure(figure, files["overlay"])
            for one in written:
                one.result()
        if options.dicom_seg is not None:
            write_dicom_seg(
                files["dicom_seg"], found.mask, image, options.dicom_seg, target=target, about=about
            )
        write_json(files["quantification"], report)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise OutOfSpaceError(
                "the disk is full", where=folder, remedy="free some space and run the command again"
            ) from error
        raise DataError("the results cannot be written", where=folder, got=error.strerror) from error
    return report


def notes_of(report: dict[str, Any]) -> list[str]:
    """What a user should know of a result: how its image was read and embedded, and what its numbers mean."""
    return [*report["notes"], *report.get("quantification_notes", [])]


def _title(stem: str, numbers: dict[str, Any], target: str) -> str:
    if target == "lungs":
        return f"{stem}: lungs {numbers['lungs_ml']:.0f} ml"
    share = numbers["infected_share"]
    part = "" if share is None else f", {share:.1%} of the lungs"
    return f"{stem}: infected {numbers['infection_ml']:.1f} ml{part}"


def _notes(
    found: NativePrediction, lobes: NDArray[np.uint8] | None, numbers: dict[str, Any], lungs_from: str
) -> list[str]:
    notes = _implausible_lungs(numbers["lungs_ml"])
    if lungs_from == "classical":
        notes.append(
            "the lungs were found by classical operations: dense consolidation at the pleura may lie outside "
            "them and is not counted then; look at the overlay, or give --lungs"
        )
    if numbers["left_lung"] is None and numbers["lungs_ml"] > 0:
        notes.append("left and right lung were not told apart: there are no shares of each lung")
    if lobes is None:
        return notes
    outside = _share((lobes != 0) & ~found.lungs, lobes != 0)
    if outside > OUTSIDE_LUNGS_NOTED:
        notes.append(f"{outside:.0%} of the lobes lie outside the lungs, where no infection is looked for")
    if len(numbers["lobes"]) != 5:
        notes.append(f"{len(numbers['lobes'])} lobes given, not five: there is no total severity score")
    return notes


def _implausible_lungs(lungs_ml: float) -> list[str]:
    low, high = PLAUSIBLE_LUNGS_ML
    if low <= lungs_ml <= high:
        return []
    return [
        f"lungs of {lungs_ml:.0f} ml are no whole lungs of an adult ({low} to {high} ml): see the overlay"
    ]


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(part)) / max(1.0, float(np.count_nonzero(whole)))
