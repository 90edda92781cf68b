"""What a source of lesions hands to the scanner, whichever source it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.phantom.raster import Raster

CONSOLIDATION_HU = -200.0
"""The clinical cut between GGO and consolidation (DESIGN 3)."""


@dataclass(frozen=True)
class LesionMap:
    """A lesion in the inner frame, on some raster (arrays (z, y, x), float32).

    `extent_mm` is a signed distance to the lesion's edge, positive within; `hu` its density, defined a little
    beyond the edge as well; `softness_mm` the width over which the edge fades in the image.
    """

    raster: Raster
    extent_mm: NDArray[np.float32]
    hu: NDArray[np.float32]
    softness_mm: float


@dataclass(frozen=True)
class LesionMoment:
    """A lesion on the day of a scan: its map, the clinical stage, and hidden values for truth.json."""

    map: LesionMap
    stage: str
    truth: dict[str, Any]


class LesionSource(Protocol):
    """Where a patient's lesions come from."""

    def truth(self) -> dict[str, Any]:
        """Hidden parameters of the patient's lesion."""
        ...

    def over(self, days: list[float]) -> Iterator[LesionMoment]:
        """The lesion on each day after the first scan, in order."""
        ...
