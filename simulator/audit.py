"""The audit of an augmented folder: every volume measured, held against limits, and set beside what was observed.

An audit measures. Flags are for the user to look at; only what could not be measured is a failure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simulator.audit_checks import REASONS, STATISTICS, Counts, Limits, foretell
from simulator.audit_patches import Patches, share_out
from simulator.audit_record import FROM_FITS, NOT_RECORDED, AuditTask, ObservedRow, VolumeRow
from simulator.audit_volume import audit_source
from simulator.dynamics.bins import BIN_WIDTH
from simulator.fits import CohortFits
from simulator.progression import DEFAULT_DYNAMICS
from simulator.series import T0
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, LungcastError, UsageError
from standard_space.jobs import run_isolated
from standard_space.progress import Progress, silent
from standard_space.scanfile import read_meta
from standard_space.version import lungcast_version

SCHEMA = 1
SPREAD = (5, 50, 95)
"""Percentiles over scans that the summary gives."""


@dataclass
class Audit:
    """What was measured, sorted by name; `failures` and `notes` go by name, too.

    `patches` are what a classifier may be given (`segmentation.realism`).
    """

    limits: Limits
    seed: int
    observed: list[ObservedRow] = field(default_factory=list)
    volumes: list[VolumeRow] = field(default_factory=list)
    patches: list[Patches] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def flagged(self) -> list[VolumeRow]:
        """Volumes with at least one flag."""
        return [row for row in self.volumes if row.flags]

    def summary(self) -> dict[str, Any]:
        """Counts by reason, and the distributions of observed scans and synthetic volumes side by side.

        `signal_distance` is Wasserstein-1 between the mean normalised signal distributions, in units of signal;
        every scan counts the same.
        """
        reasons = Counter(reason for row in self.volumes for reason in {flag.reason for flag in row.flags})
        both = [_mean_shares(rows) for rows in (self.observed, self.volumes)]
        distance = None
        if both[0] is not None and both[1] is not None:
            distance = float(np.abs(np.cumsum(both[0]) - np.cumsum(both[1])).sum() * BIN_WIDTH)
        return {
            "volumes": len(self.volumes),
            "sources": len({row.source for row in self.volumes}),
            "patients": len({row.patient for row in self.volumes}),
            "flagged": len(self.flagged),
            "flagged_by_reason": {reason: reasons[reason] for reason in REASONS},
            "failed": len(self.failures),
            "ranges_from": dict(Counter(row.ranges_from for row in self.volumes)),
            "with_unplaced_births": sum(bool(row.unplaced_births) for row in self.volumes),
            "with_saturated_voxels": sum(bool(row.saturated_voxels) for row in self.volumes),
            "beyond_cohort": sum(bool(row.beyond_cohort) for row in self.volumes),
            "signal_distance": distance,
            "observed": _spread([(row.infected_ml, row.statistics) for row in self.observed]),
            "synthetic": _spread([(row.infected_ml, row.signal) for row in self.volumes]),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {
            "lungcast": "audit",
            "schema": SCHEMA,
            "lungcast_version": lungcast_version(),
            "limits": self.limits.to_json(),
            "seed": self.seed,
            "summary": self.summary(),
            "failures": self.failures,
            "notes": self.notes,
            "volumes": [row.to_json() for row in self.volumes],
            "observed": [row.to_json() for row in self.observed],
        }


def audit_cohort(
    cohort: Cohort,
    *,
    fits: CohortFits | None = None,
    limits: Limits | None = None,
    patches: bool = True,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress = silent,
) -> Audit:
    """Measure every synthetic volume of a cohort, and every annotated observed scan of its sources.

    A volume that is damaged, or whose source is missing or altered, is named in `Audit.failures`; the rest goes
    on.

    Parameters
    ----------
    cohort : Cohort
        Opened with its sources (`open_with_sources`).
    fits : CohortFits, optional
        Of the sources. Where they hold the very W that a volume was made with, its range reaches back to the
        earlier scan of the fitted pair.
    limits : Limits, optional
    patches : bool
        Whether to draw patches.
    seed : int
        Of the patches.
    jobs : int
        Processes.
    progress : Progress
        Told of every source scan.

    Raises
    ------
    UsageError
        When the folder holds no synthetic volume.
    """
    volumes = sorted((entry for entry in cohort.entries if entry.synthetic), key=lambda entry: entry.name)
    if not volumes:
        raise UsageError(
            "the folder holds no synthetic volume",
            where=cohort.folder,
            expected="a folder that `lungcast augment` made",
        )
    audit = Audit(limits if limits is not None else Limits(), seed)
    tasks = _tasks(cohort, volumes, fits, audit, patches)
    # Compiled here, before several processes would write Numba's cache at the same moment (numba#4807).
    foretell(np.ones(130), DEFAULT_DYNAMICS, 1)
    if tasks:
        progress(tasks[0].source.name, 0, len(tasks))
    for done, (index, result) in enumerate(run_isolated(audit_source, tasks, jobs=jobs), start=1):
        task = tasks[index]
        if isinstance(result, LungcastError):
            names = [entry.name for entry in task.volumes] or [task.source.name]
            audit.failures |= {name: str(result) for name in names}
        else:
            audit.failures |= result.failures
            audit.volumes += result.volumes
            audit.patches += result.patches
            audit.observed += [] if result.observed is None else [result.observed]
        progress(task.source.name, done, len(tasks))
    audit.volumes.sort(key=lambda row: row.name)
    audit.observed.sort(key=lambda row: row.name)
    audit.patches.sort(key=lambda item: item.volume)
    audit.failures = dict(sorted(audit.failures.items()))
    _look_beyond(audit)
    _add_notes(audit)
    return audit


def _tasks(
    cohort: Cohort, volumes: Sequence[Entry], fits: CohortFits | None, audit: Audit, patches: bool
) -> list[AuditTask]:
    """One task a source scan, and one for every other annotated scan of the sources."""
    numbers = dict(zip(volumes, share_out(len(volumes)) if patches else [0] * len(volumes), strict=True))
    of_source: dict[str, tuple[Entry, list[Entry]]] = {}
    for entry in volumes:
        try:
            head = read_meta(cohort.path(entry))
            if head["kind"] != "synthetic scan":
                raise DataError("listed as synthetic, but not stored as one", where=entry.name)
            source = cohort.source(**head["source"])
        except LungcastError as error:
            audit.failures[entry.name] = str(error)
            continue
        of_source.setdefault(source.name, (source, []))[1].append(entry)
    sources = cohort.sources if cohort.sources is not None else cohort
    for entry in sources.entries:
        if not entry.synthetic and entry.infected_ml is not None:
            of_source.setdefault(entry.name, (entry, []))
    tasks = []
    for source, made in of_source.values():
        earlier, fitted = None, None
        if fits is not None and made:
            try:
                stored = fits.of(source)
                # Y_t0 is a construction, all of it at the recovery limit: no scan shows such a distribution.
                earlier = None if stored.from_scan == T0 else stored.fit.before
                fitted = stored.fit.parameters
            except DataError as error:
                audit.notes[source.name] = [str(error)]
        task_cohort = Cohort(cohort.folder, made, Cohort(sources.folder, [source]))
        tasks.append(
            AuditTask(
                task_cohort, source, made, [numbers[entry] for entry in made], audit.limits, audit.seed,
                earlier, fitted,
            )
        )  # fmt: skip
    return tasks


def _look_beyond(audit: Audit) -> None:
    """Note the statistics of each volume that no observed scan of the cohort reaches."""
    seen = [row for row in audit.observed if row.statistics is not None]
    if not seen:
        return
    reached = {"infected_ml": [row.infected_ml for row in seen]}
    for name in STATISTICS:
        reached[name] = [row.statistics[name] for row in seen if row.statistics is not None]
    for volume in audit.volumes:
        values = {"infected_ml": volume.infected_ml, **(volume.signal or {})}
        for name, value in values.items():
            if not min(reached[name]) <= value <= max(reached[name]):
                volume.beyond_cohort.append(name)


def _add_notes(audit: Audit) -> None:
    unknown = sum(row.ranges_from == NOT_RECORDED for row in audit.volumes)
    if unknown:
        audit.notes["chain"] = [
            f"{unknown} volumes do not record how they were made, so they are not held against the chain"
        ]
    clipped = sum(bool(row.unplaced_births) for row in audit.volumes)
    if clipped:
        audit.notes["space"] = [
            f"in {clipped} volumes births found no susceptible voxel: a volume below the chain's is not flagged"
        ]


def ranges_line(audit: Audit) -> str:
    """Where the allowed ranges come from, in a sentence."""
    with_fits = sum(row.ranges_from == FROM_FITS for row in audit.volumes)
    unknown = sum(row.ranges_from == NOT_RECORDED for row in audit.volumes)
    return (
        f"ranges of the signal: of {len(audit.volumes)} volumes, {with_fits} from the fitted pair's earlier scan, "
        f"the source and the chain; {len(audit.volumes) - with_fits - unknown} from the source and the chain; "
        f"{unknown} from the source alone"
    )


def _mean_shares(rows: Sequence[ObservedRow] | Sequence[VolumeRow]) -> Counts | None:
    shares = [row.counts / row.counts.sum() for row in rows if row.counts.any()]
    return np.mean(shares, axis=0) if shares else None


def _spread(rows: Sequence[tuple[float, Mapping[str, float] | None]]) -> dict[str, list[float] | None]:
    """5th, 50th and 95th percentile over scans of the infected volume and of every statistic."""
    columns = {"infected_ml": [volume for volume, _ in rows]}
    for name in STATISTICS:
        columns[name] = [found[name] for _, found in rows if found is not None]
    return {
        name: np.percentile(values, SPREAD).tolist() if values else None for name, values in columns.items()
    }
