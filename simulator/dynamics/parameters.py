"""The eight transition parameters W of one patient between two scans (DESIGN 3, paper section III-C)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.bins import BIN_WIDTH, N_BELOW
from simulator.dynamics.errors import ParameterError

PARAMETER_NAMES = (
    "birth_rate",
    "linked_share",
    "entry_signal",
    "absorption_rate",
    "ggo_growth_rate",
    "conversion_probability",
    "consolidation_growth_rate",
    "stiffness",
)
SYMBOLS = ("nu", "phi", "epsilon", "a", "g", "p_c", "c", "kappa")

# The mean of a distribution over bin centres lies strictly between the first and the last centre.
ENTRY_MIN = 0.5 * BIN_WIDTH
ENTRY_MAX = (N_BELOW - 0.5) * BIN_WIDTH


@dataclass(frozen=True)
class TransitionParameters:
    """W, per transition of 1/100 day.

    Attributes
    ----------
    birth_rate : float, > 0
        nu: newly infected voxels per reference GGO voxel.
    linked_share : float, 0..1
        phi: share of births that scales with the current count below 0; the rest is constant.
    entry_signal : float, in (0.0025, 0.1475)
        epsilon: mean height above -0.15 (over bin centres) at which a voxel enters.
    absorption_rate : float, > 0
        a: probability to fall one bin.
    ggo_growth_rate : float, > 0
        g: below 0 the probability to rise one bin is g exp(-(s + 0.15) / kappa), s at the bin centre.
    conversion_probability : float, > 0
        p_c: probability to rise from the last bin below 0.
    consolidation_growth_rate : float, > 0
        c: above 0 the probability to rise one bin is c exp(-s / kappa), s at the bin centre.
    stiffness : float, > 0
        kappa, in units of signal.
    reference_ggo_voxels : float, >= 0
        G_ref: mean of the two observed counts below 0; not a parameter, but births scale with it.

    Raises
    ------
    ParameterError
        If a value is not finite or breaks a constraint: a + g, a + p_c and a + c are at most 1.
    """

    birth_rate: float
    linked_share: float
    entry_signal: float
    absorption_rate: float
    ggo_growth_rate: float
    conversion_probability: float
    consolidation_growth_rate: float
    stiffness: float
    reference_ggo_voxels: float

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, float(getattr(self, field.name)))
        self.validate()

    def validate(self) -> None:
        """Check every constraint; values are never clipped."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not np.isfinite(value):
                raise ParameterError(f"{field.name} is not finite", got=value, expected="a finite number")
        for name in PARAMETER_NAMES:
            if name != "linked_share" and getattr(self, name) <= 0:
                raise ParameterError(
                    f"{name} must be positive",
                    got=getattr(self, name),
                    expected="> 0",
                    remedy="use a tiny value such as 1e-9 to switch it off",
                )
        if not 0 <= self.linked_share <= 1:
            raise ParameterError("linked_share is a share", got=self.linked_share, expected="0 to 1")
        if self.reference_ggo_voxels < 0:
            raise ParameterError(
                "reference_ggo_voxels is a count", got=self.reference_ggo_voxels, expected="0 or more"
            )
        if not ENTRY_MIN < self.entry_signal < ENTRY_MAX:
            raise ParameterError(
                "entry_signal is no attainable mean height over the bins below 0",
                got=self.entry_signal,
                expected=f"more than {ENTRY_MIN} and less than {ENTRY_MAX}",
            )
        for name in ("ggo_growth_rate", "conversion_probability", "consolidation_growth_rate"):
            total = self.absorption_rate + getattr(self, name)
            if total > 1.0 + 1e-12:
                raise ParameterError(
                    f"absorption_rate + {name} exceeds 1, but a voxel falls or rises, never both",
                    got=total,
                    expected="at most 1",
                    remedy="lower one of the two",
                )

    def as_array(self) -> NDArray[np.float64]:
        """The eight values in the order of `PARAMETER_NAMES`, float64, shape (8,)."""
        return np.array([getattr(self, name) for name in PARAMETER_NAMES], dtype=np.float64)

    @classmethod
    def from_array(
        cls, values: Sequence[float] | NDArray[np.float64], reference_ggo_voxels: float
    ) -> TransitionParameters:
        """Parameters from eight values in the order of `PARAMETER_NAMES`, and G_ref."""
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (len(PARAMETER_NAMES),):
            raise ParameterError(
                "W has the wrong number of values", got=array.shape, expected=f"({len(PARAMETER_NAMES)},)"
            )
        named = {name: float(value) for name, value in zip(PARAMETER_NAMES, array, strict=True)}
        return cls(reference_ggo_voxels=float(reference_ggo_voxels), **named)

    def to_json(self) -> dict[str, float]:
        """Plain dictionary of the eight values and G_ref."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TransitionParameters:
        """Inverse of `to_json`; unknown or missing names raise ParameterError."""
        names = {field.name for field in fields(cls)}
        if set(data) != names:
            raise ParameterError(
                "the stored parameters do not have the expected names",
                got=sorted(data),
                expected=sorted(names),
            )
        return cls(**{name: float(data[name]) for name in names})
