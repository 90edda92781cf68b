"""A patient's series Y_t0 ... Y_tN: what each scan shows, and the pairs that are fitted (paper III-C, IV-C)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.bins import N_BELOW, N_BINS, clamped_counts, histogram, to_state
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError
from standard_space.grid import StandardGrid
from standard_space.masks import bounding_box
from standard_space.scan import Scan
from standard_space.scanfile import unpack
from standard_space.window import Window

TRANSITIONS_PER_DAY = 100
"""One transition is 1/100 day [paper]."""

T0_DAYS = 3.0
T0_SHARE = 0.10
T0 = "t0"
"""Y_t0 lies three days before the first scan and holds a tenth of its infected voxels, at -0.15 [paper]."""


@dataclass(frozen=True)
class Observation:
    """What one annotated scan shows of its infection.

    Parameters
    ----------
    patient, scan : str
        Names.
    day : float
        Day of acquisition, days.
    content_sha256 : str
        Hash of the scan it was taken from.
    counts : float64 array, shape (130,)
        Infected standard voxels per signal bin. Voxels at or above 0.5 stand in the last bin, which reflects in
        the model too. Voxels below -0.15 are left out: by the model they are not infected, and in bin 0 they
        would form a spike that no dynamics makes but that an L2 fit must chase.
    clamped_low, clamped_high : int
        Infected voxels below -0.15, and at or above 0.5.
    voxel_volume_ml, lungs_ml : float
        Volume of one voxel and of the lungs, ml.
    """

    patient: str
    scan: str
    day: float
    content_sha256: str
    counts: NDArray[np.float64]
    clamped_low: int
    clamped_high: int
    voxel_volume_ml: float
    lungs_ml: float

    @property
    def below(self) -> float:
        """Infected voxels with a signal below 0."""
        return float(self.counts[:N_BELOW].sum())

    @property
    def above(self) -> float:
        """Infected voxels with a signal of 0 or more."""
        return float(self.counts[N_BELOW:].sum())

    @property
    def infected_ml(self) -> float:
        """Annotated volume, ml."""
        return (float(self.counts.sum()) + self.clamped_low) * self.voxel_volume_ml


@dataclass(frozen=True)
class Pair:
    """Two states of one patient between which the dynamics are fitted.

    `from_scan` is "t0" when the earlier state is the constructed Y_t0. The fitted W then runs on from `to_scan`.
    """

    patient: str
    from_scan: str
    to_scan: str
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    transitions: int
    lung_volume_ratio: float | None


def observe(scan: Scan, content_sha256: str = "") -> Observation:
    """Signal distribution of a scan's annotated infection.

    Raises
    ------
    DataError
        When the scan is not annotated, its infection mask is empty, a signal in it is not finite, or all of
        them lie below the model's range.
    """
    if scan.infection is None:
        raise DataError(
            "the scan has no infection mask", where=scan.name, remedy="fill the manifest's infection column"
        )
    return observation_of(
        scan.signal[scan.infection],
        patient=scan.patient,
        scan=scan.scan,
        day=scan.day,
        content_sha256=content_sha256,
        window=scan.window,
        grid=scan.grid,
        lung_voxels=int(scan.lungs.sum()),
    )


def observe_entry(cohort: Cohort, entry: Entry) -> Observation:
    """`observe` of a cohort's scan, reading no more of its file than the box around the infection.

    Raises
    ------
    DataError
        See `observe`.
    ScanFileError
        When the file is missing or damaged.
    """
    with cohort.open_scan(entry) as reader:
        if not reader.annotated:
            raise DataError(
                "the scan has no infection mask",
                where=entry.name,
                remedy="fill the manifest's infection column",
            )
        packed = reader.packed_masks()
        infection = unpack(packed, "infection")
        box = bounding_box(infection)
        signal = np.zeros(0, np.float32) if box is None else reader.signal(box)[infection[box]]
        return observation_of(
            signal,
            patient=entry.patient,
            scan=entry.scan,
            day=entry.day,
            content_sha256=entry.content_sha256,
            window=reader.window,
            grid=reader.grid,
            lung_voxels=int(unpack(packed, "lungs").sum()),
        )


def observation_of(
    signal: NDArray[np.float32],
    *,
    patient: str,
    scan: str,
    day: float,
    content_sha256: str,
    window: Window,
    grid: StandardGrid,
    lung_voxels: int,
) -> Observation:
    """An observation from the signal of all annotated voxels, float32, shape (n,); see `observe`."""
    name = f"{patient}/{scan}"
    if signal.size == 0:
        raise DataError(
            "the infection mask is empty, so there are no dynamics to fit",
            where=name,
            remedy="leave the scan out, or seed a progression with `lungcast simulate --seeds`",
        )
    if not np.isfinite(signal).all():
        raise DataError("the signal inside the infection is not finite", where=name)
    low, high = clamped_counts(signal)
    bins, _ = to_state(signal)
    counts = histogram(bins)
    counts[0] -= low
    if not counts.any():
        raise DataError(
            "all annotated voxels lie below the recovery limit, a signal of -0.15",
            where=name,
            got=f"{low} voxels at the window {window.level_hu:g}/{window.width_hu:g} HU",
            remedy="check the window and whether the mask lies on the lesion",
        )
    return Observation(
        patient=patient,
        scan=scan,
        day=day,
        content_sha256=content_sha256,
        counts=counts,
        clamped_low=low,
        clamped_high=high,
        voxel_volume_ml=grid.voxel_volume_ml,
        lungs_ml=float(lung_voxels) * grid.voxel_volume_ml,
    )


def t0_counts(first: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distribution of Y_t0: a tenth of the first scan's infected voxels (at least one), all in bin 0.

    Parameters
    ----------
    first : float64 array, shape (130,)
        Distribution of the first annotated scan.
    """
    counts = np.zeros(N_BINS)
    counts[0] = max(1.0, round(T0_SHARE * float(first.sum())))
    return counts


def t0_mask(infection: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Mask of Y_t0: a tenth of the first scan's infected voxels, drawn at random (paper III-C)."""
    index = np.flatnonzero(infection)
    kept = max(1, round(T0_SHARE * index.size)) if index.size else 0
    chosen = np.random.default_rng([seed, 0x79_30]).choice(index, kept, replace=False)
    mask = np.zeros_like(infection)
    mask.ravel()[chosen] = True
    return mask


def transitions_between(first_day: float, last_day: float) -> int:
    """Whole transitions between two days, at least one.

    Raises
    ------
    DataError
        When time does not run forward.
    """
    if not last_day > first_day:
        raise DataError(
            "time does not run forward between two scans", got=f"day {first_day:g} to {last_day:g}"
        )
    return max(1, round((last_day - first_day) * TRANSITIONS_PER_DAY))


def pairs(observations: list[Observation]) -> list[Pair]:
    """Adjacent pairs of one patient's observations, the first one from Y_t0.

    Parameters
    ----------
    observations : list of Observation
        One patient's annotated scans in the order of their days; one is enough.
    """
    found = []
    for number, after in enumerate(observations):
        before = observations[number - 1] if number else None
        found.append(
            Pair(
                patient=after.patient,
                from_scan=before.scan if before else T0,
                to_scan=after.scan,
                before=before.counts if before else t0_counts(after.counts),
                after=after.counts,
                transitions=(
                    transitions_between(before.day, after.day)
                    if before
                    else round(T0_DAYS * TRANSITIONS_PER_DAY)
                ),
                lung_volume_ratio=after.lungs_ml / before.lungs_ml if before and before.lungs_ml else None,
            )
        )
    return found
