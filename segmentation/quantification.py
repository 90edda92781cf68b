"""How much of the lungs is infected, and of what kind [paper III-E]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from standard_space.errors import UsageError
from standard_space.window import CONSOLIDATION_HU


def quantify(
    infection: NDArray[np.bool_],
    lungs: NDArray[np.bool_],
    hu: NDArray[np.floating],
    voxel_volume_ml: float,
    *,
    consolidation_hu: float = CONSOLIDATION_HU,
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

    Returns
    -------
    dict
        ``space`` ("native"), ``lungs_ml``, ``infection_ml``, ``infected_share`` (0 to 1; None without
        lungs), ``ggo_ml``, ``consolidation_ml``, ``consolidation_hu``, ``mean_lesion_hu`` and
        ``mean_healthy_lung_hu`` (None where there is none).

    Raises
    ------
    UsageError
        The arrays differ in shape.
    """
    if not infection.shape == lungs.shape == hu.shape:
        raise UsageError("masks and image differ in shape", got=(infection.shape, lungs.shape, hu.shape))
    inside = infection & lungs
    lesion_hu = hu[inside]
    lung_voxels, lesion_voxels = int(np.count_nonzero(lungs)), lesion_hu.size
    dense = int(np.count_nonzero(lesion_hu >= consolidation_hu))
    return {
        "space": "native",
        "lungs_ml": lung_voxels * voxel_volume_ml,
        "infection_ml": lesion_voxels * voxel_volume_ml,
        "infected_share": lesion_voxels / lung_voxels if lung_voxels else None,
        "ggo_ml": (lesion_voxels - dense) * voxel_volume_ml,
        "consolidation_ml": dense * voxel_volume_ml,
        "consolidation_hu": float(consolidation_hu),
        "mean_lesion_hu": _mean(lesion_hu),
        "mean_healthy_lung_hu": _mean(hu[lungs & ~infection]),
    }


def _mean(values: NDArray[np.floating]) -> float | None:
    return float(values.mean(dtype=np.float64)) if values.size else None
