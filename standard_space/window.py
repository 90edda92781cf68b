"""HU to signal and back: signal = (HU - WL) / WW (paper III-B)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from standard_space.errors import DataError, UsageError

DEFAULT_LEVEL_HU = -600.0
DEFAULT_WIDTH_HU = 1600.0
LEVEL_MAX_HU, WIDTH_MIN_HU, WIDTH_MAX_HU = 10_000.0, 10.0, 20_000.0
LUNG_LEVEL_MAX_HU, LUNG_WIDTH_MIN_HU = -300.0, 1000.0
AIR_HU = -1000.0
"""Pad value: what lies outside a scan is air."""
CONSOLIDATION_HU = -200.0
"""Clinical cut between GGO and consolidation (Chaganti et al., Radiology: AI 2020)."""
PARENCHYMA_HU = -850.0
"""Where the default window expects aerated lung; its signal there is -0.156."""
_MODE_STEP_HU = 5


@dataclass(frozen=True)
class Window:
    """A CT window.

    Parameters
    ----------
    level_hu, width_hu : float
        Window level (centre), -10000..10000 HU, and width, 10..20000 HU.
    source : str
        Where the window came from: "manifest", "caller", "auto", "dicom", "8-bit" or "default".

    Raises
    ------
    UsageError
        When a value is out of range.
    """

    level_hu: float = DEFAULT_LEVEL_HU
    width_hu: float = DEFAULT_WIDTH_HU
    source: str = "default"

    def __post_init__(self) -> None:
        # Narrower or farther off, signals leave the range of float16, in which scan files keep them.
        if not (abs(self.level_hu) <= LEVEL_MAX_HU and WIDTH_MIN_HU <= self.width_hu <= WIDTH_MAX_HU):
            raise UsageError(
                "the window cannot be used",
                got=f"level {self.level_hu}, width {self.width_hu}",
                expected=f"a level of at most +-{LEVEL_MAX_HU:g} HU and a width of {WIDTH_MIN_HU:g} to "
                f"{WIDTH_MAX_HU:g} HU",
            )

    def __str__(self) -> str:
        return f"{self.level_hu:g}/{self.width_hu:g} {self.source}"

    def to_signal(
        self, hu: NDArray[np.floating], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Signal of HU values: 0 at the level, -0.5 and 0.5 at the edges of the window; `out` may be `hu`."""
        signal = np.subtract(hu, np.float32(self.level_hu), out=out, dtype=np.float32)
        signal *= np.float32(1.0 / self.width_hu)
        return signal

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


def is_lung_window(level_hu: float, width_hu: float) -> bool:
    """Whether level and width show lung; a mediastinal or bone window would put parenchyma far off scale.

    The recovery limit (-0.15) and the threshold (0) of the dynamics mean something only when aerated lung and
    soft tissue both lie inside the window.
    """
    return -LEVEL_MAX_HU <= level_hu <= LUNG_LEVEL_MAX_HU and LUNG_WIDTH_MIN_HU <= width_hu <= WIDTH_MAX_HU


def auto_window(lung_hu: NDArray[np.floating]) -> Window:
    """The default window moved so that aerated parenchyma lies where the default expects it.

    For scans whose calibration or display window cannot be trusted. It also removes the true difference between
    a deep and a shallow breath.

    Parameters
    ----------
    lung_hu : float array
        HU of voxels inside the lungs, any shape.

    Returns
    -------
    Window
        Width 1600 HU, level 250 HU above the mode of the parenchyma (searched in -1000..-500 HU, smoothed over
        25 HU).

    Raises
    ------
    DataError
        When no voxel lies in that range.
    """
    edges = np.arange(-1000, -500 + _MODE_STEP_HU, _MODE_STEP_HU)
    counts, _ = np.histogram(lung_hu, edges)
    if not counts.any():
        raise DataError(
            "no aerated lung to take a window from",
            expected="lung voxels in -1000..-500 HU",
            remedy="give the window as --window LEVEL,WIDTH",
        )
    # A triangle: a flat kernel would make a plateau of a narrow peak.
    smooth = np.convolve(counts, np.bartlett(11), mode="same")
    mode = float(edges[int(smooth.argmax())] + _MODE_STEP_HU / 2)
    return Window(mode + (DEFAULT_LEVEL_HU - PARENCHYMA_HU), DEFAULT_WIDTH_HU, "auto")
