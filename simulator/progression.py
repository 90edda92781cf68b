"""Playing an infection on: a scan and its dynamics in, the scan at later days out (paper III-C)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.bins import N_BELOW
from simulator.dynamics.engine import Controls, LesionState, RunReport, advance, start_state
from simulator.dynamics.parameters import TransitionParameters
from simulator.series import TRANSITIONS_PER_DAY
from standard_space.cohort import Entry
from standard_space.errors import DataError, UsageError
from standard_space.files import write_text
from standard_space.image import write_volume
from standard_space.restore import restore_mask, restore_volume
from standard_space.scan import Scan
from standard_space.window import AIR_HU, CONSOLIDATION_HU

LONGEST_DAYS = 3650.0
MOST_FRAMES = 10_000
DEFAULT_JUMP = 10
"""Transitions drawn at once; counts do not depend on it (DESIGN 3)."""

DEFAULT_DYNAMICS = TransitionParameters(
    birth_rate=0.01246,
    linked_share=1.0,
    entry_signal=0.09452,
    absorption_rate=0.3605,
    ggo_growth_rate=0.5086,
    conversion_probability=0.5395,
    consolidation_growth_rate=0.5364,
    stiffness=2.0,
    reference_ggo_voxels=1.0,
)
"""Dynamics for a scan without a fit: 5 ml of seeds become, in seven days, the median real lesion.

Origin: `benchmarks/default_dynamics.py` fits W to two histograms 700 transitions apart: 5 ml in bin 0, and 66 ml
(the median of 50 annotated CTs) with the signal percentiles of an annotated scan; a fifth of it lies above the
clinical cut. Births follow the current GGO (`linked_share` and `stiffness` are at their bounds), so growth does
not stop by itself: it is meant for about ten days. `reference_ggo_voxels` is set from the state it starts from."""


@dataclass(frozen=True)
class Frame:
    """One moment of a simulated progression.

    Parameters
    ----------
    days : float
        Time since the source scan, days.
    transition : int
        The same in transitions.
    signal : float32 array, shape (z, y, x)
        Standard-space signal.
    infection : bool array, shape (z, y, x)
        Infected voxels.
    counts : float64 array, shape (130,)
        Infected voxels per signal bin.
    report : RunReport
        What the engine did since the start (births, recoveries, saturation).
    """

    days: float
    transition: int
    signal: NDArray[np.float32]
    infection: NDArray[np.bool_]
    counts: NDArray[np.float64]
    report: RunReport


def start(scan: Scan) -> LesionState:
    """Engine state of a scan's annotated infection.

    Raises
    ------
    DataError
        When the scan is not annotated or free of infection.
    """
    if scan.infection is None or not scan.infection.any():
        raise DataError(
            "the scan has no infection to play on",
            where=scan.name,
            remedy="seed one with `lungcast simulate --seeds 12`",
        )
    return start_state(scan.signal, scan.infection, scan.susceptible, scan.grid.spacing_mm)


def with_reference(parameters: TransitionParameters, state: LesionState) -> TransitionParameters:
    """The same rates with G_ref set to the state's own count below 0 (at least one)."""
    below = float(state.counts()[:N_BELOW].sum())
    return replace(parameters, reference_ggo_voxels=max(1.0, below))


def progress(
    scan: Scan,
    parameters: TransitionParameters,
    *,
    days: float,
    every: float,
    seed: int,
    jump: int = DEFAULT_JUMP,
    controls: Controls | None = None,
    state: LesionState | None = None,
) -> Iterator[Frame]:
    """Play a scan's infection on; the first frame is the scan itself.

    Parameters
    ----------
    scan : Scan
        Annotated source scan.
    parameters : TransitionParameters
        W, per transition of 1/100 day.
    days, every : float
        Length of the progression and time between frames, days; both at least one transition.
    seed : int
        Same seed, same bytes.
    jump : int
        Transitions drawn at once.
    controls : Controls, optional
        Morphology controls.
    state : LesionState, optional
        A starting state other than the scan's annotation (for example seeded).

    Raises
    ------
    UsageError
        When `days` or `every` is not positive and finite.
    DataError
        When the scan has no infection.
    """
    wanted = frame_transitions(days, every)
    lesion = start(scan) if state is None else state
    reached = 0
    for transition in wanted:
        if transition > reached:
            lesion = advance(
                lesion, parameters, transition - reached, jump=jump, seed=seed, controls=controls
            )
            reached = transition
        yield Frame(
            days=transition / TRANSITIONS_PER_DAY,
            transition=transition,
            signal=lesion.signal_volume(),
            infection=lesion.mask(),
            counts=lesion.counts(),
            report=replace(lesion.report),
        )


def frame_transitions(days: float, every: float) -> list[int]:
    """Transitions at which a progression is shown: 0, then every `every` days up to `days`.

    Raises
    ------
    UsageError
        When `days` or `every` is less than one transition (0.01 days) or not finite, when `days` is more than ten
        years, or when there would be more than 10,000 frames.
    """
    for name, value in (("days", days), ("every", every)):
        if not (math.isfinite(value) and value * TRANSITIONS_PER_DAY >= 1):
            raise UsageError(f"the option {name} is too small", got=value, expected="at least 0.01 days")
    if days > LONGEST_DAYS or days / every > MOST_FRAMES:
        raise UsageError(
            "the progression is too long",
            got=f"{days:g} days, every {every:g}",
            expected=f"at most {LONGEST_DAYS:g} days and {MOST_FRAMES} scans",
        )
    last = round(days * TRANSITIONS_PER_DAY)
    steps = range(math.ceil(days / every - 1e-9) + 1)
    return sorted({min(round(k * every * TRANSITIONS_PER_DAY), last) for k in steps})


def frame_volumes(frame: Frame, scan: Scan, consolidation_hu: float = CONSOLIDATION_HU) -> dict[str, float]:
    """Volumes of a frame in ml: infected, below and above 0 (the model), GGO and consolidation (clinical cut)."""
    voxel_ml = scan.grid.voxel_volume_ml
    inside = frame.signal[frame.infection]
    dense = float((inside >= scan.window.signal_of(consolidation_hu)).sum())
    return {
        "day": scan.day + frame.days,
        "days_since_scan": frame.days,
        "infected_ml": float(inside.size) * voxel_ml,
        "below_0_ml": float(frame.counts[:N_BELOW].sum()) * voxel_ml,
        "above_0_ml": float(frame.counts[N_BELOW:].sum()) * voxel_ml,
        "ggo_ml": (inside.size - dense) * voxel_ml,
        "consolidation_ml": dense * voxel_ml,
        "consolidation_cut_hu": consolidation_hu,
    }


def write_frame(frame: Frame, scan: Scan, folder: str | Path) -> float:
    """Write a frame's image (HU, int16) and infection mask as NIfTI on the scan's native grid.

    The image is what the standard space holds, brought back: smoother than the original everywhere, not only where
    the infection moved. What lies outside the standard extent is air.

    Returns
    -------
    float
        Volume of the written mask, ml.
    """
    hu = np.round(restore_volume(scan.window.to_hu(frame.signal), scan.placement, fill=AIR_HU))
    name = f"day{frame.days:06.2f}"
    native = scan.placement.native
    write_volume(Path(folder) / f"{name}_image.nii.gz", hu.astype(np.int16), native)
    mask = restore_mask(frame.infection, scan.placement)
    write_volume(Path(folder) / f"{name}_infection.nii.gz", mask, native)
    return float(np.count_nonzero(mask)) * native.voxel_volume_ml


def write_lungs(scan: Scan, path: str | Path) -> None:
    """Write a scan's lungs as NIfTI on its native grid: the user's own mask, else those that were found."""
    lungs = restore_mask(scan.lungs, scan.placement) if scan.native_lungs is None else scan.native_lungs
    write_volume(path, lungs, scan.placement.native)


def write_volumes(rows: Sequence[Mapping[str, float]], path: str | Path) -> None:
    """Write the rows of `frame_volumes` as CSV."""
    _write_table([{key: round(value, 4) for key, value in row.items()} for row in rows], path)


def write_observed(entries: Iterable[Entry], path: str | Path) -> None:
    """Write scan, day and infected volume (ml) of observed scans as CSV, to be laid over a simulation."""
    rows = [
        {"scan": entry.scan, "day": round(entry.day, 4), "infected_ml": round(entry.infected_ml, 4)}
        for entry in entries
        if entry.infected_ml is not None and not entry.synthetic
    ]
    _write_table(rows, path)


def _write_table(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
