"""HU to signal and back: signal = (HU - WL) / WW (paper III-B)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from standard_space.errors import UsageError

DEFAULT_LEVEL_HU = -600.0
DEFAULT_WIDTH_HU = 1600.0
AIR_HU = -1000.0
"""Pad value: what lies outside a scan is air."""


@dataclass(frozen=True)
class Window:
    """A CT window.

    Parameters
    ----------
    level_hu, width_hu : float
        Window level (centre) and width, HU; the width is positive.
    source : str
        Where the window came from: "dicom", "manifest", "caller", "default" or "8-bit".

    Raises
    ------
    UsageError
        When a value is not finite or the width is not positive.
    """

    level_hu: float = DEFAULT_LEVEL_HU
    width_hu: float = DEFAULT_WIDTH_HU
    source: str = "default"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.level_hu) and math.isfinite(self.width_hu) and self.width_hu > 0):
            raise UsageError(
                "the window cannot be used",
                got=f"level {self.level_hu}, width {self.width_hu}",
                expected="finite HU and a positive width",
            )

    def to_signal(self, hu: NDArray[np.floating]) -> NDArray[np.float32]:
        """Signal of HU values: 0 at the level, -0.5 and 0.5 at the edges of the window."""
        scale = np.float32(1.0 / self.width_hu)
        return np.multiply(np.asarray(hu, np.float32) - np.float32(self.level_hu), scale, dtype=np.float32)

    def to_hu(self, signal: NDArray[np.floating]) -> NDArray[np.float32]:
        """HU of signal values."""
        scaled = np.multiply(np.asarray(signal, np.float32), np.float32(self.width_hu))
        return np.add(scaled, np.float32(self.level_hu), dtype=np.float32)

    def signal_of(self, hu: float) -> float:
        """Signal of one HU value."""
        return (hu - self.level_hu) / self.width_hu

    @property
    def air_signal(self) -> float:
        """Signal of air, the pad value."""
        return self.signal_of(AIR_HU)
