"""What one scan scores: the truth it is held against, on which grid, and every metric of DESIGN 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation.evaluation.metrics import TOLERANCE_VOXELS, overlap
from segmentation.evaluation.surface_dice import NSD_TOLERANCE_MM, check_nsd_tolerance, surface_dice
from segmentation.segmenter import Segmenter, image_sha256, patient_sha256
from standard_space.errors import DataError, UsageError
from standard_space.restore import restore_mask
from standard_space.scan import Scan

SPACES = ("native", "standard")

METRICS = ("dice", "recall", "precision", "specificity", "iou", "dice_2voxel", "nsd")

GROUPS = ("held_out", "validation", "training")
"""Scans whose patients the model never saw, was tuned on, and was trained on; never mixed."""

TOLERANCE_FORMULA = (
    f"dice_2voxel = (predicted voxels within {TOLERANCE_VOXELS:g} voxels of the truth + true voxels within "
    f"{TOLERANCE_VOXELS:g} voxels of the prediction) / (predicted + true voxels)"
)


def nsd_formula(tolerance_mm: float) -> str:
    """Say which surface Dice this is."""
    return (
        f"nsd = area of both surfaces within {tolerance_mm:g} mm of the other / area of both "
        "(DeepMind's surface-distance)"
    )


@dataclass(frozen=True)
class ScoringOptions:
    """How scans are scored.

    Parameters
    ----------
    space : str
        "native", the grid of the scan's image, or "standard".
    nsd_tolerance_mm : float
        Of the normalised surface Dice, mm.

    Raises
    ------
    UsageError
        Another space, or a tolerance that is not positive.
    """

    space: str = "native"
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise UsageError("no such grid to score on", got=self.space, expected=" or ".join(SPACES))
        check_nsd_tolerance(self.nsd_tolerance_mm)


@dataclass(frozen=True)
class Truth:
    """What a prediction is held against.

    Attributes
    ----------
    mask : bool (z, y, x)
    lungs : bool (z, y, x) or None
        Over which specificity and the infected share count; None for a target that is the lungs themselves.
    spacing_mm : tuple of float
        (z, y, x).
    """

    mask: NDArray[np.bool_]
    lungs: NDArray[np.bool_] | None
    spacing_mm: Sequence[float]

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing_mm)) / 1000.0


def no_truth(scan: Scan, target: str, space: str = "native") -> str | None:
    """Say why a scan cannot be scored, None when it can."""
    if target == "lungs":
        # The standard grid always has lungs; only the user's own are an annotation.
        finder = "lungcast" if scan.native_lungs is None else scan.provenance.get("lungs", "user")
        return None if finder == "user" else f"its lungs were found by {finder}, not annotated"
    if scan.infection is None:
        return "no infection annotation"
    if space == "native" and scan.native_infection is None:
        return "no annotation on the native grid"
    return None


def truth_of(scan: Scan, target: str, space: str = "native") -> Truth:
    """Return the annotation of a scan on a grid.

    Raises
    ------
    DataError
        The scan has none, see `no_truth`.
    """
    reason = no_truth(scan, target, space)
    if reason is not None:
        raise DataError(f"the scan cannot be scored: {reason}", where=scan.name)
    if space == "standard":
        lungs, infection, spacing_mm = scan.lungs, scan.infection, scan.grid.spacing_mm
    else:
        own = scan.native_lungs
        lungs = restore_mask(scan.lungs, scan.placement) if own is None else own
        # A geometry counts x first.
        infection, spacing_mm = scan.native_infection, scan.placement.native.spacing_mm[::-1]
    if target == "lungs":
        return Truth(lungs, None, spacing_mm)
    return Truth(np.asarray(infection), lungs, spacing_mm)


def score_scan(
    model: Segmenter,
    scan: Scan,
    predicted: NDArray[np.bool_],
    options: ScoringOptions | None = None,
) -> dict[str, Any]:
    """Score one predicted mask.

    Parameters
    ----------
    predicted : bool (z, y, x)
        On the grid of ``options.space``.

    Returns
    -------
    dict
        ``patient``, ``scan``, ``stage``, ``group`` (one of `GROUPS`) and ``reason`` for it, every metric of
        `METRICS`, volumes in ml, and the infected shares of the lungs (0 to 1; None for a model of the lungs).

    Raises
    ------
    DataError
        The scan has no annotation.
    UsageError
        The predicted mask lies on another grid.
    """
    options = options or ScoringOptions()
    truth = truth_of(scan, model.target, options.space)
    group, reason = group_of(model, scan.patient, image_sha256(scan))
    scores: dict[str, float | None] = dict(overlap(predicted, truth.mask, region=truth.lungs).to_dict())
    scores["nsd"] = surface_dice(
        predicted, truth.mask, truth.spacing_mm, tolerance_mm=options.nsd_tolerance_mm
    )
    return {
        "patient": scan.patient,
        "scan": scan.scan,
        "stage": scan.stage,
        "group": group,
        "reason": reason,
        **scores,
        "true_ml": int(np.count_nonzero(truth.mask)) * truth.voxel_volume_ml,
        "predicted_ml": int(np.count_nonzero(predicted)) * truth.voxel_volume_ml,
        "true_share": _share(truth.mask, truth.lungs),
        "predicted_share": _share(predicted, truth.lungs),
    }


def group_of(model: Segmenter, patient: str, image: str | None) -> tuple[str, str | None]:
    """Return the group of a scan, one of `GROUPS`, and a sentence why when it is not held out.

    Parameters
    ----------
    patient : str
        Name.
    image : str or None
        Hash of the image the scan was made from, see `image_sha256`.
    """
    known = model.trained_on(patient_sha256(patient), image)
    if known is None:
        return "held_out", None
    use, _, what = known.rpartition(" ")
    if use == "validation":
        return "validation", f"the {what} was in the model's validation set"
    return "training", f"the {known} was in the model's training set"


def _share(mask: NDArray[np.bool_], lungs: NDArray[np.bool_] | None) -> float | None:
    if lungs is None or not lungs.any():
        return None
    return int(np.count_nonzero(mask & lungs)) / int(np.count_nonzero(lungs))
