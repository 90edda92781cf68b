"""Augmentation of a cohort: fitted dynamics play every scan on, and a ratio says how much is kept (DESIGN 4).

Drawing and applying are apart: `plan_volumes` draws everything at random (how many, which days, which seeds), and
`make_volume` is a pure function of a scan, its fit and one drawn plan. The plan stands in each volume's
provenance, so that every volume can be made again on its own.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simulator.dynamics.engine import Controls, advance
from simulator.fits import CohortFits, StoredFit, fit_cohort
from simulator.progression import DEFAULT_JUMP, start
from simulator.series import TRANSITIONS_PER_DAY
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, LungcastError, UsageError
from standard_space.files import prepare_output_folder, read_mark, write_mark
from standard_space.ingest import Outcome
from standard_space.progress import Progress, silent
from standard_space.scan import Scan
from standard_space.scanfile import read_meta, read_scan, write_synthetic_scan
from standard_space.version import lungcast_version

SIMULATED_TRANSITIONS = 200
"""T(W_i) runs on Y_ti for 200 transitions, two days [paper]."""


@dataclass(frozen=True)
class VolumePlan:
    """Everything random about one synthetic volume, drawn beforehand.

    `number` counts from 1 within a scan; `transitions` is how far it is played on, 1..200; `seed` is the engine's.
    """

    number: int
    transitions: int
    seed: int


@dataclass(frozen=True)
class AugmentationSettings:
    """What was asked for; stored with the result and compared when a run is continued."""

    ratio: float
    seed: int
    jump: int = DEFAULT_JUMP
    controls: Controls = field(default_factory=Controls)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {**asdict(self), "controls": self.controls.to_json()}


def parse_ratio(text: str) -> float:
    """A ratio from "200%", "50 %" or "1.5".

    Raises
    ------
    UsageError
        When it is not a number or negative.
    """
    stripped = text.strip()
    percent = stripped.endswith("%")
    try:
        value = float(stripped.rstrip("%").strip())
    except ValueError:
        raise UsageError("the ratio is not a number", got=repr(text), expected="200%, 50% or 1.5") from None
    value = value / 100.0 if percent else value
    if not math.isfinite(value) or value < 0:
        raise UsageError("the ratio is negative or not finite", got=repr(text), expected="0% or more")
    return value


def seed_of(*parts: object) -> int:
    """A 63-bit seed from names and numbers; the same on every machine."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def plan_volumes(patient: str, scan: str, ratio: float, seed: int) -> list[VolumePlan]:
    """Draw the volumes of one scan.

    Ratio r keeps floor(r) volumes and one more with probability frac(r) (paper IV-C). Their days are drawn
    from the 200 simulated transitions without repetition as long as there are enough.
    """
    rng = np.random.default_rng(seed_of("augment", seed, patient, scan))
    count = math.floor(ratio) + int(rng.random() < ratio - math.floor(ratio))
    drawn: list[int] = []
    while len(drawn) < count:
        wanted = min(SIMULATED_TRANSITIONS, count - len(drawn))
        drawn += sorted(rng.choice(SIMULATED_TRANSITIONS, wanted, replace=False).tolist())
    return [
        VolumePlan(number, transition + 1, seed_of("volume", seed, patient, scan, number))
        for number, transition in enumerate(drawn, start=1)
    ]


def make_volume(
    source: Scan, source_sha256: str, stored: StoredFit, plan: VolumePlan, settings: AugmentationSettings
) -> Scan:
    """One synthetic scan: its source played on by its fitted dynamics (pure; nothing is drawn here)."""
    state = advance(
        start(source),
        stored.fit.parameters,
        plan.transitions,
        jump=settings.jump,
        seed=plan.seed,
        controls=settings.controls,
    )
    report = state.report
    return Scan(
        patient=source.patient,
        scan=f"{source.scan}-sim{plan.number}",
        day=source.day + plan.transitions / TRANSITIONS_PER_DAY,
        stage=source.stage,
        grid=source.grid,
        signal=state.signal_volume(),
        lungs=source.lungs,
        left_lung=source.left_lung,
        lobes=source.lobes,
        airways=source.airways,
        vessels=source.vessels,
        infection=state.mask(),
        window=source.window,
        placement=source.placement,
        provenance={
            "lungcast_version": lungcast_version(),
            "operation": "augment",
            "image_sha256": source.provenance.get("image_sha256", ""),
            "source_sha256": source_sha256,
            "plan": asdict(plan),
            "jump": settings.jump,
            "controls": settings.controls.to_json(),
            "parameters": stored.fit.parameters.to_json(),
            "report": report.to_json(),
        },
    )


def augment_cohort(
    cohort: Cohort,
    folder: str | Path,
    fits: CohortFits,
    settings: AugmentationSettings,
    *,
    progress: Progress = silent,
) -> Outcome:
    """Write the synthetic scans of a cohort into a folder made ready by `prepare_folder`.

    Re-running an interrupted run completes it. A scan that fails is named in `Outcome.failures` and the rest
    completes. Scans that were never annotated are left out (named in `Outcome.notes`).
    """
    folder = Path(folder)
    outcome = Outcome(folder)
    observed = [entry for entry in cohort.entries if not entry.synthetic]
    for done, entry in enumerate(observed):
        progress(entry.name, done, len(observed))
        if entry.infected_ml is None:
            outcome.notes[entry.name] = ["no infection mask: not augmented"]
            continue
        plans = plan_volumes(entry.patient, entry.scan, settings.ratio, settings.seed)
        try:
            outcome.entries += _augment_scan(cohort, entry, fits.of(entry), plans, settings, folder)
        except (LungcastError, ValueError) as error:
            outcome.failures[entry.name] = str(error)
    Cohort.write_manifest(folder, outcome.entries)
    progress("done", len(observed), len(observed))
    return outcome


def _augment_scan(
    cohort: Cohort,
    entry: Entry,
    stored: StoredFit,
    plans: list[VolumePlan],
    settings: AugmentationSettings,
    folder: Path,
) -> list[Entry]:
    if not plans:
        return []
    source = cohort.read(entry)
    written = []
    for plan in plans:
        file = f"{entry.patient}_{entry.scan}-sim{plan.number}.h5"
        path = folder / file
        if path.is_file() and _is_done(path, entry, stored, plan, settings):
            digest = str(read_meta(path)["content_sha256"])
            written.append(Entry.of(read_scan(path, lambda *_: source), "synthetic", file, digest))
            continue
        scan = make_volume(source, entry.content_sha256, stored, plan, settings)
        digest = write_synthetic_scan(path, scan, source, entry.content_sha256)
        written.append(Entry.of(scan, "synthetic", file, digest))
    return written


def _is_done(
    path: Path, entry: Entry, stored: StoredFit, plan: VolumePlan, settings: AugmentationSettings
) -> bool:
    """Whether a file from an earlier run is the very volume this plan asks for."""
    provenance = read_meta(path)["provenance"]
    wanted = {
        "source_sha256": entry.content_sha256,
        "plan": asdict(plan),
        "jump": settings.jump,
        "controls": settings.controls.to_json(),
        "parameters": stored.fit.parameters.to_json(),
    }
    return all(provenance.get(key) == value for key, value in wanted.items())


def prepare_folder(
    folder: str | Path, cohort: Cohort, settings: AugmentationSettings, *, force: bool = False
) -> None:
    """Make the output folder, or take up the same augmentation where it was interrupted.

    Raises
    ------
    UsageError
        When the folder holds something else, or another augmentation, and `force` is not given.
    """
    folder = Path(folder)
    asked = {"lungcast_version": lungcast_version(), "operation": "augment", **settings.to_json()}
    asked["sources"] = {entry.name: entry.content_sha256 for entry in cohort.entries if not entry.synthetic}
    mark = read_mark(folder)
    if not force and mark is not None and mark["lungcast"] == "augmented":
        if mark["provenance"] == asked:
            return
        raise UsageError(
            "the output folder holds another augmentation (other scans, ratio, seed or version)",
            where=folder,
            remedy="choose another folder or pass --force to replace it",
        )
    prepare_output_folder(folder, "augmented", force=force)
    write_mark(folder, "augmented", asked)


def fits_for(
    cohort: Cohort, fits_path: str | Path | None, folder: str | Path, *, progress: Progress = silent
) -> CohortFits:
    """The stored fits of `fits_path`, or those of the output folder, made there once when there are none."""
    if fits_path is not None:
        return CohortFits.load(fits_path)
    own = Path(folder) / "fits.json"
    if not own.is_file():
        fit_cohort(cohort, progress=progress).save(own)
    return CohortFits.load(own)


def check_fits_belong(fits: CohortFits, cohort: Cohort) -> None:
    """Refuse fits that belong to no scan of a cohort.

    Raises
    ------
    DataError
        When not a single fit names a scan of the cohort.
    """
    known = {(entry.patient, entry.scan) for entry in cohort.entries}
    if fits.fits and not any((stored.patient, stored.to_scan) in known for stored in fits.fits):
        raise DataError(
            "the fits belong to another cohort",
            where=cohort.folder,
            got=f"fits of {fits.fits[0].patient}",
            remedy="run `lungcast fit` on this cohort",
        )
