"""What an audit records: one row a scan, one row a volume (docs/audit.md)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from simulator.audit_checks import Counts, Flag, Limits
from simulator.audit_patches import Patches
from simulator.dynamics.parameters import TransitionParameters
from standard_space.cohort import Cohort, Entry

FROM_FITS, FROM_PROVENANCE, NOT_RECORDED = "fits", "provenance", "not recorded"


@dataclass(frozen=True)
class AuditTask:
    """One observed scan with its synthetic volumes.

    Parameters
    ----------
    cohort : Cohort
        Of the volumes, opened with its sources.
    source : Entry
    volumes : list of Entry
    patches : list of int
        Patches of each kind to draw of every volume.
    limits : Limits
    seed : int
        Of the patches.
    earlier : float64 array, shape (130,), or None
        The earlier scan of the pair that W was fitted to, where it was observed.
    fitted : TransitionParameters or None
        W of the fits file.
    """

    cohort: Cohort
    source: Entry
    volumes: list[Entry]
    patches: list[int]
    limits: Limits
    seed: int
    earlier: Counts | None = None
    fitted: TransitionParameters | None = None


@dataclass(frozen=True)
class ObservedRow:
    """An observed scan: infected voxels by signal, and what sums them up."""

    name: str
    infected_ml: float
    statistics: dict[str, float] | None
    counts: Counts
    window: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file, without the histogram."""
        return {"name": self.name, "infected_ml": self.infected_ml, "signal": self.statistics}


@dataclass
class VolumeRow:
    """What was measured of one synthetic volume, and why it is flagged.

    Attributes
    ----------
    name, patient, source : str
        `name` and `source` are "patient/scan".
    content_sha256 : str
        Of the volume that was measured.
    days : float
        Since its source.
    transitions : int or None
        Of its plan.
    infected_ml, source_ml, change_ml : float
    growth_per_day : float
        See `audit_checks.growth_per_day`.
    chain_ml, chain_sd_ml, chain_z : float or None
        The chain's mean and standard deviation for its plan, and how far it lies from it.
    signal : dict or None
        See `audit_checks.statistics`.
    ranges : dict of [low, high]
        What these may be.
    ranges_from : str
        "fits" (earlier scan, source and chain), "provenance" (source and chain) or "not recorded" (source alone).
    changed_voxels, changed_outside_lungs, changed_outside_susceptible : int
        Stored voxels that differ from the source.
    infected_outside_lungs, infected_outside_susceptible : int
        Where the source's annotation reaches beyond the lungs, infection there is not counted.
    unplaced_births, saturated_voxels : int or None
        From the engine's report.
    beyond_cohort : list of str
        Statistics outside the range of all observed scans; told, not flagged.
    flags : list of Flag
    counts : float64 array, shape (130,)
    """

    name: str
    patient: str
    source: str
    content_sha256: str
    days: float
    transitions: int | None
    infected_ml: float
    source_ml: float
    change_ml: float
    growth_per_day: float
    chain_ml: float | None
    chain_sd_ml: float | None
    chain_z: float | None
    signal: dict[str, float] | None
    ranges: dict[str, tuple[float, float]]
    ranges_from: str
    changed_voxels: int
    changed_outside_lungs: int
    changed_outside_susceptible: int
    infected_outside_lungs: int
    infected_outside_susceptible: int
    unplaced_births: int | None
    saturated_voxels: int | None
    flags: list[Flag]
    counts: Counts
    beyond_cohort: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file, without the histogram."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "counts"}
        return {**values, "flags": [asdict(flag) for flag in self.flags]}


@dataclass
class SourceAudit:
    """What became of a `AuditTask`: rows, patches, and what could not be measured, by name."""

    observed: ObservedRow | None = None
    volumes: list[VolumeRow] = field(default_factory=list)
    patches: list[Patches] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
