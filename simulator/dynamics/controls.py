"""Morphology controls: what a user may choose about shape and texture without touching the counts (DESIGN 3)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from simulator.dynamics.errors import ParameterError


@dataclass(frozen=True)
class Controls:
    """User's controls; none of them changes the expected histogram.

    Attributes
    ----------
    gamma : float, 0..8
        Spread: births choose frontier voxels with (weight of GGO neighbours) ** gamma. 0 is ragged and
        widespread, large values fill pockets and keep lesions compact.
    seeded_share : float, 0..1
        Spread: share of births that start away from existing lesions.
    consolidation_clustering : float, 0..1
        How strongly voxels with neighbours above 0 are pushed up in the order of their lesion; 0 or False is
        off, True is 1.
    correlation_mm : float, >= 0
        Scale of the texture of newly infected tissue: distance at which the autocorrelation of the persistent
        random field falls to about one half. Annotated tissue keeps the pattern that was seen, averaged over
        this distance. 0 is off. With both this and clustering off, voxels are independent of each other.

    Raises
    ------
    ParameterError
        If a value is outside its range.

    Notes
    -----
    No control changes the expected histogram, of the scan or of any of its lesions: numbers are drawn before
    and per lesion (`ranking`, `regions`). The defaults are those that come nearest to observed lesions
    (benchmarks/morphology.py).
    """

    gamma: float = 2.0
    seeded_share: float = 0.0
    consolidation_clustering: float = 0.5
    correlation_mm: float = 6.0

    def __post_init__(self) -> None:
        limits = {
            "gamma": 8.0, "seeded_share": 1.0, "consolidation_clustering": 1.0, "correlation_mm": 1000.0,
        }  # fmt: skip
        for name, highest in limits.items():
            value = float(getattr(self, name))
            if not np.isfinite(value) or not 0 <= value <= highest:
                raise ParameterError(f"control {name} is out of range", got=value, expected=f"0 to {highest}")
            object.__setattr__(self, name, value)

    def to_json(self) -> dict[str, float]:
        """Plain dictionary."""
        return asdict(self)
