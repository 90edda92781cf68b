"""What a synthetic volume is held against: its source, the chain for its plan, and limits (docs/audit.md).

Nothing here reads a file. Histograms are those of the dynamics: 130 signal bins, voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.bins import BIN_WIDTH, N_BELOW, SIGNAL_MIN, bin_centres
from simulator.dynamics.chain import propagate_covariance
from simulator.dynamics.parameters import TransitionParameters
from standard_space.errors import UsageError

OUTSIDE_LUNGS = "infection outside the lungs"
OUTSIDE_SUSCEPTIBLE = "infection outside susceptible tissue"
CHANGED_OUTSIDE = "signal changed outside susceptible tissue"
NOT_FINITE = "signal not finite"
NOT_THE_CHAINS = "volume is not what the chain foretells"
GROWTH = "volume jump"
DISTRIBUTION = "distribution outside the source-to-target range"
REASONS = (
    OUTSIDE_LUNGS, OUTSIDE_SUSCEPTIBLE, CHANGED_OUTSIDE, NOT_FINITE, NOT_THE_CHAINS, GROWTH, DISTRIBUTION,
)  # fmt: skip

QUANTILES = (5, 25, 50, 75, 95)
STATISTICS = ("mean", "share_above", *(f"p{level:02d}" for level in QUANTILES))

SMALLEST_ML = 0.1
"""Volumes below this count as this in growth: among a few voxels chance alone is a multiple."""

SHORTEST_DAYS = 1.0
"""Growth over less is held against the limit of a whole day: chance does not shrink with time as growth does."""

Counts = NDArray[np.float64]
Range = tuple[float, float]


@dataclass(frozen=True)
class Limits:
    """What a volume may do before it is flagged.

    Parameters
    ----------
    z : float
        Standard deviations (of the chain's V) between a volume and the chain's mean. 5 is passed by chance once in
        1.7 million volumes.
    growth_per_day : float
        The infected volume may grow, or shrink, that many times a day, whatever the model says.
    signal : float
        How far mean and percentiles of the signal may lie beyond the range, units of signal; 0.01 is 16 HU at the
        usual window.
    share : float
        How far the share of infected voxels above 0 may lie beyond the range, 0..1.

    Raises
    ------
    UsageError
        When a limit is not positive, or growth is not above 1.
    """

    z: float = 5.0
    growth_per_day: float = 3.0
    signal: float = 0.01
    share: float = 0.03

    def __post_init__(self) -> None:
        for name, least in (("z", 0.0), ("growth_per_day", 1.0), ("signal", 0.0), ("share", 0.0)):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > least):
                raise UsageError(
                    f"the limit of {name} cannot be used", got=value, expected=f"more than {least:g}"
                )

    def to_json(self) -> dict[str, float]:
        """Plain values for a file."""
        return {**asdict(self), "smallest_ml": SMALLEST_ML, "shortest_days": SHORTEST_DAYS}


@dataclass(frozen=True)
class Flag:
    """Why a volume is implausible: `what` was measured, its value, and the range it may have (ends included)."""

    reason: str
    what: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.reason}: {self.what} {self.value:.4g}, allowed {self.low:.4g} to {self.high:.4g}"

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return asdict(self)


@dataclass(frozen=True)
class Foretold:
    """The chain's forecast for one plan: expected voxels per bin, and the standard deviation of their total."""

    counts: Counts
    standard_deviation: float

    @property
    def voxels(self) -> float:
        """Expected infected voxels."""
        return float(self.counts.sum())


def foretell(counts: Counts, parameters: TransitionParameters, transitions: int) -> Foretold:
    """What the chain says of a histogram `transitions` later, given that W is known."""
    mean, covariance = propagate_covariance(counts, parameters, transitions)
    return Foretold(mean, float(np.sqrt(max(float(covariance.sum()), 0.0))))


def quantile(counts: Counts, level: float) -> float:
    """Signal below which a share `level` (0..1, cut to that) of a histogram lies, linear within bins."""
    filled = np.flatnonzero(counts > 0)
    edges = SIGNAL_MIN + BIN_WIDTH * np.r_[filled[0], filled + 1.0]
    reached = np.r_[0.0, np.cumsum(counts[filled])]
    return float(np.interp(np.clip(level, 0.0, 1.0) * reached[-1], reached, edges))


def statistics(counts: Counts) -> dict[str, float] | None:
    """Mean, share above 0 and percentiles of the signal of infected voxels; None where nothing is infected."""
    found = _banded(counts, 0.0)
    return None if found is None else {name: low for name, (low, _) in found.items()}


def _banded(counts: Counts, z: float) -> dict[str, Range] | None:
    """Each statistic's range over samples as large as the histogram, `z` standard deviations either way."""
    n = float(counts.sum())
    if n <= 0.0:
        return None
    share, centres = counts / n, bin_centres()
    mean = float(share @ centres)
    above = float(share[N_BELOW:].sum())
    wide = z * float(np.sqrt(share @ (centres - mean) ** 2 / n))
    found = {"mean": (mean - wide, mean + wide)}
    wide = z * float(np.sqrt(above * (1.0 - above) / n))
    found["share_above"] = (above - wide, above + wide)
    for percent in QUANTILES:
        level = percent / 100.0
        wide = z * float(np.sqrt(level * (1.0 - level) / n))
        found[f"p{percent:02d}"] = (quantile(counts, level - wide), quantile(counts, level + wide))
    return found


def allowed_ranges(states: Sequence[Counts], limits: Limits) -> dict[str, Range]:
    """Range of every statistic between the states that a volume moves among, widened by chance and tolerance.

    Parameters
    ----------
    states : sequence of float64 array, shape (130,)
        The earlier scan of the fitted pair where it is known, the source, and the chain's forecast. Those without
        any voxel are left out.
    limits : Limits

    Returns
    -------
    dict of (low, high)
        By the names of `STATISTICS`; empty when all states are empty.
    """
    bands = [band for state in states if (band := _banded(state, limits.z)) is not None]
    if not bands:
        return {}
    ranges = {}
    for name in STATISTICS:
        tolerance = limits.share if name == "share_above" else limits.signal
        ranges[name] = (
            min(band[name][0] for band in bands) - tolerance,
            max(band[name][1] for band in bands) + tolerance,
        )
    return ranges


def place_flags(
    outside_lungs: int, outside_susceptible: int, changed_outside: int, not_finite: int
) -> list[Flag]:
    """Flags for voxels where nothing may be; each counts any voxel."""
    found = (
        (OUTSIDE_LUNGS, "infected voxels", outside_lungs),
        (OUTSIDE_SUSCEPTIBLE, "infected voxels", outside_susceptible),
        (CHANGED_OUTSIDE, "changed voxels", changed_outside),
        (NOT_FINITE, "changed voxels", not_finite),
    )
    return [Flag(reason, what, float(value), 0.0, 0.0) for reason, what, value in found if value]


def z_score(voxels: int, foretold: Foretold) -> float:
    """How many standard deviations of the chain a count lies from its mean; a voxel of rounding is forgiven."""
    return (voxels - foretold.voxels) / float(np.hypot(foretold.standard_deviation, 1.0))


def chain_flags(
    voxels: int, foretold: Foretold, voxel_volume_ml: float, limits: Limits, *, clipped: bool
) -> list[Flag]:
    """Flag a volume that the chain does not expect.

    Parameters
    ----------
    voxels : int
        Infected in the volume.
    foretold : Foretold
    voxel_volume_ml : float
    limits : Limits
    clipped : bool
        Whether births found no place. The chain knows no lack of space, so the volume may then lie anywhere below.
    """
    z = z_score(voxels, foretold)
    if -limits.z <= z <= limits.z or (clipped and z < 0):
        return []
    wide = limits.z * float(np.hypot(foretold.standard_deviation, 1.0))
    low = 0.0 if clipped else max(0.0, foretold.voxels - wide)
    return [
        Flag(
            NOT_THE_CHAINS,
            "infected ml",
            voxels * voxel_volume_ml,
            low * voxel_volume_ml,
            (foretold.voxels + wide) * voxel_volume_ml,
        )
    ]


def growth_per_day(infected_ml: float, source_ml: float, days: float) -> float:
    """How many times the infected volume becomes itself in a day; below 1 it shrinks."""
    ratio = max(infected_ml, SMALLEST_ML) / max(source_ml, SMALLEST_ML)
    return float(ratio ** (1.0 / max(days, SHORTEST_DAYS)))


def growth_flags(infected_ml: float, source_ml: float, days: float, limits: Limits) -> list[Flag]:
    """Flag a volume that grew or shrank faster than infections do, whatever the model says."""
    growth = growth_per_day(infected_ml, source_ml, days)
    if 1.0 / limits.growth_per_day <= growth <= limits.growth_per_day:
        return []
    return [Flag(GROWTH, "times a day", growth, 1.0 / limits.growth_per_day, limits.growth_per_day)]


def distribution_flags(found: Mapping[str, float] | None, allowed: Mapping[str, Range]) -> list[Flag]:
    """Flag every statistic that lies outside its allowed range."""
    if found is None:
        return []
    return [
        Flag(DISTRIBUTION, name, found[name], low, high)
        for name, (low, high) in allowed.items()
        if not low <= found[name] <= high
    ]
