"""The numbers of all synthetic volumes of one source scan, from sparse files and the box around its lungs.

The source is read once for all its volumes; a volume costs no more than the voxels it changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from simulator.audit_checks import (
    Counts,
    allowed_ranges,
    chain_flags,
    distribution_flags,
    foretell,
    growth_flags,
    growth_per_day,
    place_flags,
    statistics,
    z_score,
)
from simulator.audit_patches import Patches, cut_patches, draw_centres
from simulator.audit_record import (
    FROM_FITS,
    FROM_PROVENANCE,
    NOT_RECORDED,
    AuditTask,
    ObservedRow,
    SourceAudit,
    VolumeRow,
)
from simulator.dynamics.bins import histogram, to_state
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.parameters import TransitionParameters
from simulator.lung_crop import LungCrop, read_lung_crop
from standard_space.cohort import Entry
from standard_space.difference import Difference, read_difference
from standard_space.errors import LungcastError, ScanFileError
from standard_space.scanfile import is_whole, read_meta

Index = NDArray[np.int64]

REMEDY = "run the same `lungcast augment` again: it makes damaged volumes anew"


@dataclass(frozen=True)
class _Lesion:
    """Infected voxels of a scan in its box (flat, ascending), their signal, and its histogram."""

    index: Index
    signal: NDArray[np.float32]
    counts: Counts


def audit_source(task: AuditTask) -> SourceAudit:
    """Measure a source scan and all its volumes; runs in a worker.

    A source that cannot be used is a failure of each of its volumes. Where volumes hang on it, its voxels are held
    against their hash, slab by slab.
    """
    result = SourceAudit()
    sources = task.cohort.sources or task.cohort
    try:
        crop = read_lung_crop(sources, task.source)
        if task.volumes and not is_whole(sources.path(task.source)):
            raise sources.altered(task.source, "other voxels")
        index = np.flatnonzero(crop.infection)
        signal = crop.signal.reshape(-1)[index]
        lesion = _Lesion(index, signal, histogram(to_state(signal)[0]))
    except (LungcastError, DynamicsError) as error:
        names = [entry.name for entry in task.volumes] or [task.source.name]
        result.failures = {name: str(error) for name in names}
        return result
    result.observed = ObservedRow(
        name=task.source.name,
        infected_ml=index.size * crop.grid.voxel_volume_ml,
        statistics=statistics(lesion.counts),
        counts=lesion.counts,
        window=(crop.window.level_hu, crop.window.width_hu),
    )
    for entry, number in zip(task.volumes, task.patches, strict=True):
        try:
            row, patches = _audit_volume(task, crop, lesion, entry, number)
        except (LungcastError, DynamicsError) as error:
            result.failures[entry.name] = str(error)
            continue
        result.volumes.append(row)
        if patches is not None:
            result.patches.append(patches)
    return result


def _audit_volume(
    task: AuditTask, crop: LungCrop, lesion: _Lesion, entry: Entry, number: int
) -> tuple[VolumeRow, Patches | None]:
    path = task.cohort.path(entry)
    head, difference = _read(path, entry, crop)
    inside, place = _in_box(difference.index, crop)
    infected_here, stored = difference.infection[inside], difference.signal[inside].astype(np.float32)
    kept = ~_among(lesion.index, place)
    index = np.concatenate([lesion.index[kept], place[infected_here]])
    beyond = difference.infection[~inside]
    signal = np.concatenate(
        [lesion.signal[kept], stored[infected_here], difference.signal[~inside][beyond].astype(np.float32)]
    )
    lungs, annotated, susceptible = (
        layer.reshape(-1) for layer in (crop.lungs, crop.infection, crop.susceptible)
    )
    n_beyond, voxel_ml = int(beyond.sum()), crop.grid.voxel_volume_ml
    infected_ml, source_ml = signal.size * voxel_ml, lesion.index.size * voxel_ml
    _check_record(path, entry, head, signal.size, infected_ml)
    days = float(head["day"]) - float(crop.head["day"])
    finite = np.isfinite(signal)
    counts = histogram(to_state(signal[finite])[0])
    found = statistics(counts)
    row = VolumeRow(
        name=entry.name,
        patient=entry.patient,
        source=task.source.name,
        content_sha256=entry.content_sha256,
        days=days,
        transitions=None,
        infected_ml=infected_ml,
        source_ml=source_ml,
        change_ml=infected_ml - source_ml,
        growth_per_day=growth_per_day(infected_ml, source_ml, days),
        chain_ml=None,
        chain_sd_ml=None,
        chain_z=None,
        signal=found,
        ranges={},
        ranges_from=NOT_RECORDED,
        changed_voxels=difference.index.size,
        changed_outside_lungs=int(np.count_nonzero(~lungs[place])) + int(np.count_nonzero(~inside)),
        changed_outside_susceptible=int(np.count_nonzero(~susceptible[place]))
        + int(np.count_nonzero(~inside)),
        infected_outside_lungs=int(np.count_nonzero(~lungs[index] & ~annotated[index])) + n_beyond,
        infected_outside_susceptible=int(np.count_nonzero(~susceptible[index])) + n_beyond,
        unplaced_births=None,
        saturated_voxels=None,
        flags=[],
        counts=counts,
    )
    _judge(row, task, lesion, head, signal.size, int((~np.isfinite(difference.signal)).sum()), voxel_ml)
    return row, _patches(task, crop, lesion, entry, index, place, stored, number)


def _judge(
    row: VolumeRow,
    task: AuditTask,
    lesion: _Lesion,
    head: dict[str, Any],
    voxels: int,
    not_finite: int,
    voxel_ml: float,
) -> None:
    """Hold a row against the chain and the limits; fills in what that needs."""
    limits, states = task.limits, [lesion.counts]
    row.flags += place_flags(
        row.infected_outside_lungs,
        row.infected_outside_susceptible,
        row.changed_outside_susceptible,
        not_finite,
    )
    made = head["provenance"]
    if {"plan", "parameters", "report"} <= made.keys():
        try:
            parameters = TransitionParameters.from_json(made["parameters"])
            transitions, report = int(made["plan"]["transitions"]), made["report"]
            row.unplaced_births, row.saturated_voxels = int(report["unplaced"]), int(report["saturated"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ScanFileError(
                f"its record of how it was made is damaged ({error})", where=row.name, remedy=REMEDY
            ) from None
        foretold = foretell(lesion.counts, parameters, transitions)
        row.transitions = transitions
        row.chain_ml = foretold.voxels * voxel_ml
        row.chain_sd_ml = foretold.standard_deviation * voxel_ml
        row.chain_z = z_score(voxels, foretold)
        row.ranges_from = FROM_PROVENANCE
        states.append(foretold.counts)
        if task.earlier is not None and task.fitted == parameters:
            row.ranges_from = FROM_FITS
            states.append(task.earlier)
        row.flags += chain_flags(voxels, foretold, voxel_ml, limits, clipped=row.unplaced_births > 0)
    row.ranges = allowed_ranges(states, limits)
    row.flags += growth_flags(row.infected_ml, row.source_ml, row.days, limits)
    row.flags += distribution_flags(row.signal, row.ranges)


def _read(path: Path, entry: Entry, crop: LungCrop) -> tuple[dict[str, Any], Difference]:
    """Head and difference of a volume, held against its hash.

    Raises
    ------
    ScanFileError
        When the file is damaged, or is not what the manifest says.
    """
    head = read_meta(path)
    try:
        with h5py.File(path, "r") as file:
            difference = read_difference(file)
    except (OSError, KeyError, ValueError) as error:
        raise ScanFileError(
            f"not a readable scan file ({str(error).splitlines()[0]})", where=path, remedy=REMEDY
        ) from None
    digest, index = difference.content_sha256(crop.content_sha256), difference.index
    if digest != head["content_sha256"] or digest != entry.content_sha256:
        raise ScanFileError(
            "the volume was altered",
            where=path,
            got=digest[:12],
            expected=entry.content_sha256[:12],
            remedy=REMEDY,
        )
    ascends = bool((np.diff(index) > 0).all())
    if index.size and not (ascends and index[0] >= 0 and index[-1] < crop.grid.size**3):
        raise ScanFileError("the volume's voxels lie in no order or off its grid", where=path, remedy=REMEDY)
    return head, difference


def _check_record(path: Path, entry: Entry, head: dict[str, Any], voxels: int, infected_ml: float) -> None:
    recorded = int(head["infected_voxels"])
    listed = entry.infected_ml if entry.infected_ml is not None else -1.0
    if recorded != voxels or abs(listed - infected_ml) > 1e-4 + 1e-9 * infected_ml:
        raise ScanFileError(
            "the recorded infected volume is not that of its voxels",
            where=path,
            got=f"{recorded} voxels in the file, {listed:g} ml in the manifest",
            expected=f"{voxels} voxels, {infected_ml:g} ml",
            remedy=REMEDY,
        )


def _in_box(index: Index, crop: LungCrop) -> tuple[NDArray[np.bool_], Index]:
    """Which flat indices of the standard grid lie in a crop's box, and where in it, flat."""
    n = crop.grid.size
    z, rest = np.divmod(index, n * n)
    y, x = np.divmod(rest, n)
    place, inside = np.zeros_like(index), np.ones(index.shape, np.bool_)
    for coordinate, corner, size in zip((z, y, x), crop.corner, crop.signal.shape, strict=True):
        local = coordinate - corner
        inside &= (local >= 0) & (local < size)
        place = place * size + local
    return inside, place[inside]


def _among(values: Index, others: Index) -> NDArray[np.bool_]:
    """Which of the ascending values are among other ascending ones."""
    if others.size == 0:
        return np.zeros(values.shape, np.bool_)
    near = np.minimum(np.searchsorted(others, values), others.size - 1)
    found: NDArray[np.bool_] = others[near] == values
    return found


def _patches(
    task: AuditTask,
    crop: LungCrop,
    lesion: _Lesion,
    entry: Entry,
    infected: Index,
    place: Index,
    stored: NDArray[np.float32],
    number: int,
) -> Patches | None:
    """Patches of a volume and as many of its source; none where there is no infection or a signal is NaN."""
    number = min(number, infected.size, lesion.index.size)
    if number == 0:
        return None
    air = crop.window.air_signal
    real, synthetic = (
        draw_centres(index, number, task.seed, kind, entry.name)
        for kind, index in (("real", lesion.index), ("synthetic", np.sort(infected)))
    )
    cut_real = cut_patches(crop.signal, real, crop.grid, air)
    # The changes are laid over the source for a moment: a copy of the box would cost more than all else.
    flat = crop.signal.reshape(-1)
    before = flat[place]
    flat[place] = stored
    try:
        cut_synthetic = cut_patches(crop.signal, synthetic, crop.grid, air)
    finally:
        flat[place] = before
    if not (np.isfinite(cut_real).all() and np.isfinite(cut_synthetic).all()):
        return None
    return Patches(entry.patient, entry.name, cut_real, cut_synthetic)
