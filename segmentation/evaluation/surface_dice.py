"""Normalised surface Dice by DeepMind's `surface-distance` package [Nikolov et al., arXiv:1809.04430].

Two definitions are in use. This one weighs every surface element by its area and finds the surface between the
voxels; MONAI's default counts border voxels and is another number.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from standard_space.errors import UsageError

NSD_TOLERANCE_MM = 2.0


def surface_dice(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    *,
    tolerance_mm: float = NSD_TOLERANCE_MM,
) -> float:
    """Return the share of both surfaces, by area, that lies within a tolerance of the other surface.

    Parameters
    ----------
    prediction, truth : bool (z, y, x)
    spacing_mm : sequence of three float
        Of the voxels, (z, y, x), mm.
    tolerance_mm : float
        Largest distance that still agrees, mm.

    Returns
    -------
    float
        0 to 1; 1 when both masks are empty, 0 when only one is.

    Raises
    ------
    UsageError
        The masks differ in shape or are not boolean, the tolerance is not a positive number, or the package is
        missing.
    """
    if prediction.dtype != np.bool_ or truth.dtype != np.bool_:
        raise UsageError("scores need boolean masks", got=f"{prediction.dtype} and {truth.dtype}")
    if prediction.shape != truth.shape:
        raise UsageError("the masks differ in shape", got=prediction.shape, expected=truth.shape)
    check_nsd_tolerance(tolerance_mm)
    filled = bool(prediction.any()), bool(truth.any())
    if not all(filled):
        return 0.0 if any(filled) else 1.0
    try:
        package = importlib.import_module("surface_distance")
    except ModuleNotFoundError:
        raise UsageError(
            "normalised surface Dice needs the package surface-distance",
            remedy="pip install surface-distance",
        ) from None
    # The package crops to the box of both masks itself.
    with warnings.catch_warnings():
        # It imports scipy.ndimage by a name that SciPy will drop; nothing of ours is hidden here.
        warnings.filterwarnings("ignore", message="Please import", category=DeprecationWarning)
        distances = package.compute_surface_distances(truth, prediction, tuple(map(float, spacing_mm)))
    return float(package.compute_surface_dice_at_tolerance(distances, tolerance_mm))


def check_nsd_tolerance(tolerance_mm: float) -> None:
    """Refuse a tolerance that is not a positive number of mm.

    Raises
    ------
    UsageError
    """
    if not (math.isfinite(tolerance_mm) and tolerance_mm > 0):
        raise UsageError(
            "the tolerance of the surface Dice must be above zero", got=tolerance_mm, expected="mm"
        )
