"""The exact way back: standard volumes and masks on the scan's own grid (DESIGN 2)."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from standard_space.errors import DataError, UsageError
from standard_space.geometry import Placement, orient_array
from standard_space.grid import StandardGrid
from standard_space.lanczos import resample
from standard_space.masks import resample_labels, resample_mask
from standard_space.scan import Scan
from standard_space.window import AIR_HU

Layer = Literal[
    "hu", "signal", "infection", "lungs", "left_lung", "right_lung", "airways", "vessels", "lobes"
]
LAYERS: tuple[Layer, ...] = get_args(Layer)


def restore_volume(
    volume: NDArray[np.floating], placement: Placement, *, fill: float = 0.0
) -> NDArray[np.float32]:
    """Bring a standard volume back to the native grid by linear interpolation (averaging when shrinking).

    Parameters
    ----------
    volume : float array, shape (size, size, size)
        On the standard grid.
    placement : Placement
        The scan's placement.
    fill : float
        Value of native voxels outside the standard extent.

    Returns
    -------
    float32 array of the native shape (z, y, x).
    """
    start, step = placement.from_standard(StandardGrid(volume.shape[0]))
    oriented = resample(
        np.asarray(volume, np.float32), placement.oriented.shape, start, step, fill=fill, kernel="linear"
    )
    return orient_array(oriented, placement.oriented, placement.native.orientation)[0]


def restore_mask(mask: NDArray[np.bool_], placement: Placement) -> NDArray[np.bool_]:
    """Bring a standard mask back to the native grid; see `resample_mask`."""
    start, step = placement.from_standard(StandardGrid(mask.shape[0]))
    oriented = resample_mask(mask, placement.oriented.shape, start, step)
    return orient_array(oriented, placement.oriented, placement.native.orientation)[0]


def restore_labels(labels: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
    """Bring standard labels back to the native grid by nearest neighbour."""
    start, step = placement.from_standard(StandardGrid(labels.shape[0]))
    oriented = resample_labels(labels, placement.oriented.shape, start, step)
    return orient_array(oriented, placement.oriented, placement.native.orientation)[0]


def restore_layer(scan: Scan, layer: Layer) -> NDArray[Any]:
    """One layer of a scan on its native grid.

    Parameters
    ----------
    scan : Scan
    layer : {"hu", "signal", "infection", "lungs", "left_lung", "right_lung", "airways", "vessels", "lobes"}

    Returns
    -------
    array of the native shape (z, y, x)
        int16 for "hu" (air outside the standard extent), float32 for "signal", uint8 for "lobes", else bool.

    Raises
    ------
    UsageError
        When there is no such layer.
    DataError
        When the scan does not hold it.
    """
    if layer not in LAYERS:
        raise UsageError("no such layer", got=layer, expected=", ".join(LAYERS))
    if layer == "hu":
        hu = restore_volume(scan.window.to_hu(scan.signal), scan.placement, fill=AIR_HU)
        return np.rint(hu).astype(np.int16)
    if layer == "signal":
        return restore_volume(scan.signal, scan.placement, fill=scan.air_signal)
    content = getattr(scan, layer)
    if content is None:
        reason = "was never annotated" if layer == "infection" else f"carries no {layer}"
        raise DataError(f"the scan {reason}", where=scan.name)
    return (
        restore_labels(content, scan.placement) if layer == "lobes" else restore_mask(content, scan.placement)
    )
