"""How much of the lungs, of each lung and of each lobe is infected, and of what kind [paper III-E]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation.results.native import LEFT_LUNG, LUNG, RIGHT_LUNG
from segmentation.results.severity import severity
from standard_space.errors import UsageError
from standard_space.masks import bounding_box
from standard_space.window import CONSOLIDATION_HU

GGO, CONSOLIDATION = 1, 2
"""Labels of the two kinds of infection."""


def quantify(
    infection: NDArray[np.bool_],
    lungs: NDArray[np.bool_],
    hu: NDArray[np.floating],
    voxel_volume_ml: float,
    *,
    consolidation_hu: float = CONSOLIDATION_HU,
    sides: NDArray[np.uint8] | None = None,
    lobes: NDArray[np.uint8] | None = None,
) -> dict[str, Any]:
    """Quantify an infection on the native grid, with the image's own HU.

    Parameters
    ----------
    infection, lungs : bool (z, y, x)
        Infected voxels outside the lungs are not counted.
    hu : floating (z, y, x)
        The image, HU.
    voxel_volume_ml : float
        Volume of one voxel, ml.
    consolidation_hu : float
        Clinical cut between GGO (below) and consolidation (at or above), HU.
    sides : uint8 (z, y, x), optional
        The lungs with their sides told apart; see `NativePrediction`.
    lobes : uint8 (z, y, x), optional
        The user's lobes, 0 outside.

    Returns
    -------
    dict
        ``space`` ("native"), ``lungs_ml``, ``infection_ml``, ``infected_share`` (0 to 1; None without
        lungs), ``ggo_ml``, ``consolidation_ml``, ``consolidation_hu``, ``mean_lesion_hu`` and
        ``mean_healthy_lung_hu`` (None where there is none); ``left_lung`` and ``right_lung``, each with
        ``lung_ml``, ``infection_ml`` and ``infected_share``, or None when they were not told apart; ``lobes`` by
        label, each with ``lobe_ml``, ``infection_ml`` and ``infected_share``, and ``severity`` (see `severity`),
        or None without lobes.

    Raises
    ------
    UsageError
        The arrays differ in shape.
    """
    shapes = {array.shape for array in (infection, lungs, hu, sides, lobes) if array is not None}
    if len(shapes) != 1:
        raise UsageError("masks and image differ in shape", got=sorted(shapes))
    found = None if lobes is None else _lobes(infection & lungs, lobes, voxel_volume_ml)
    # The rest of the chest need not be touched again.
    inner = bounding_box(lungs) or (slice(0, 0),) * 3
    infection, lungs, hu = infection[inner], lungs[inner], hu[inner]
    inside = infection & lungs
    lesion_hu = hu[inside]
    dense = int(np.count_nonzero(lesion_hu >= consolidation_hu))
    whole = _part(inside, lungs, voxel_volume_ml)
    return {
        "space": "native",
        "lungs_ml": whole["lung_ml"],
        "infection_ml": whole["infection_ml"],
        "infected_share": whole["infected_share"],
        "ggo_ml": (lesion_hu.size - dense) * voxel_volume_ml,
        "consolidation_ml": dense * voxel_volume_ml,
        "consolidation_hu": float(consolidation_hu),
        "mean_lesion_hu": _mean(lesion_hu),
        "mean_healthy_lung_hu": _mean(hu[lungs & ~infection]),
        **_each_lung(inside, None if sides is None else sides[inner], voxel_volume_ml),
        "lobes": found,
        "severity": None
        if found is None
        else severity({label: lobe["infected_share"] for label, lobe in found.items()}),
    }


def quantify_lungs(
    lungs: NDArray[np.bool_], hu: NDArray[np.floating], voxel_volume_ml: float
) -> dict[str, Any]:
    """Quantify lungs on the native grid, for a model that finds the lungs.

    Returns
    -------
    dict
        ``space`` ("native"), ``lungs_ml`` and ``mean_lung_hu`` (None without lungs).
    """
    return {
        "space": "native",
        "lungs_ml": int(np.count_nonzero(lungs)) * voxel_volume_ml,
        "mean_lung_hu": _mean(hu[lungs]),
    }


def kinds(
    infection: NDArray[np.bool_], hu: NDArray[np.number[Any]], consolidation_hu: float
) -> NDArray[np.uint8]:
    """Label the infection (z, y, x) `GGO` below the clinical cut and `CONSOLIDATION` at or above it."""
    labels = infection.astype(np.uint8)
    labels[infection & (hu >= consolidation_hu)] = CONSOLIDATION
    return labels


def _each_lung(
    inside: NDArray[np.bool_], sides: NDArray[np.uint8] | None, voxel_volume_ml: float
) -> dict[str, Any]:
    named = {"left_lung": LEFT_LUNG, "right_lung": RIGHT_LUNG}
    if sides is None or not (sides > LUNG).any():
        return dict.fromkeys(named)
    return {name: _part(inside, sides == label, voxel_volume_ml) for name, label in named.items()}


def _lobes(
    inside: NDArray[np.bool_], lobes: NDArray[np.uint8], voxel_volume_ml: float
) -> dict[str, dict[str, Any]]:
    """Every lobe by its label. All of a lobe counts, also what no lung mask holds."""
    voxels = np.bincount(lobes.ravel(), minlength=256)
    infected = np.bincount(lobes[inside], minlength=256)
    return {
        str(label): {
            "lobe_ml": int(voxels[label]) * voxel_volume_ml,
            "infection_ml": int(infected[label]) * voxel_volume_ml,
            "infected_share": int(infected[label]) / int(voxels[label]),
        }
        for label in range(1, 256)
        if voxels[label]
    }


def _part(
    inside: NDArray[np.bool_], part: NDArray[np.bool_], voxel_volume_ml: float
) -> dict[str, float | None]:
    voxels, infected = int(np.count_nonzero(part)), int(np.count_nonzero(inside & part))
    return {
        "lung_ml": voxels * voxel_volume_ml,
        "infection_ml": infected * voxel_volume_ml,
        "infected_share": infected / voxels if voxels else None,
    }


def _mean(values: NDArray[np.floating]) -> float | None:
    return float(values.mean(dtype=np.float64)) if values.size else None
