"""What the networks see: the scan's signal at one reference window, or at the scan's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from standard_space.scan import Scan
from standard_space.window import Window

REFERENCE_WINDOW = Window(-600.0, 1600.0, "reference")
"""The usual lung window. HU are calibrated between scanners, while the window in a file is somebody's taste:
at its own window, one tissue would look different to the networks from file to file."""


def input_signal(scan: Scan, window: Window | None) -> NDArray[np.float32]:
    """Return a scan's signal as the networks see it.

    Parameters
    ----------
    window : Window or None
        The window to express the signal at; None keeps the scan's own [paper III-B].

    Returns
    -------
    float32 (z, y, x)
        (HU - level) / width of that window.
    """
    scale, shift = input_scale(scan, window)
    if scale == 1.0 and shift == 0.0:
        return scan.signal
    return scan.signal * np.float32(scale) + np.float32(shift)


def input_scale(scan: Scan, window: Window | None) -> tuple[float, float]:
    """Return (scale, shift): signal as the networks see it = signal x scale + shift. See `input_signal`."""
    own = scan.window
    if window is None or (own.level_hu, own.width_hu) == (window.level_hu, window.width_hu):
        return 1.0, 0.0
    return own.width_hu / window.width_hu, (own.level_hu - window.level_hu) / window.width_hu


def input_air(scan: Scan, window: Window | None) -> float:
    """Return the signal of air as the networks see it."""
    return scan.air_signal if window is None else window.air_signal
