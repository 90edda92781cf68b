"""What an augmentation draws: how many volumes of each scan, on which days, with which seeds (DESIGN 4)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from standard_space.cohort import Entry
from standard_space.errors import UsageError

SIMULATED_TRANSITIONS = 200
"""T(W_i) runs on Y_ti for 200 transitions, two days [paper]."""
LARGEST_RATIO = 1000.0
MOST_WITHOUT_PERCENT = 10.0
"""A larger number without a percent sign is one whose sign was forgotten: 200 would be 20000 %."""


@dataclass(frozen=True)
class VolumePlan:
    """Everything random about one synthetic volume, drawn beforehand.

    `number` counts from 1 within a scan; `transitions` is how far it is played on, 1..200; `seed` is the engine's.
    """

    number: int
    transitions: int
    seed: int


@dataclass(frozen=True)
class Ratios:
    """Synthetic volumes per scan: of the cohort, of a stage, of a patient; the most particular one counts.

    Parameters
    ----------
    cohort : float
        2.0 is 200 %.
    stages, patients : mapping of str to float
        By the manifest's stage and patient.
    """

    cohort: float
    stages: Mapping[str, float] = field(default_factory=dict)
    patients: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, cohort: str, stages: Sequence[str] = (), patients: Sequence[str] = ()) -> Ratios:
        """Ratios from text: "200%", and "early=50%" or "p1=3" for stages and patients.

        Raises
        ------
        UsageError
            When one is not a ratio or not NAME=RATIO, or a name is given twice.
        """
        named: list[dict[str, float]] = [{}, {}]
        for found, texts in zip(named, (stages, patients), strict=True):
            for text in texts:
                name, equals, ratio = text.rpartition("=")
                if not equals or not name.strip():
                    raise UsageError("not NAME=RATIO", got=repr(text), expected="early=50%")
                if name.strip() in found:
                    raise UsageError("two ratios for one name", got=name.strip())
                found[name.strip()] = parse_ratio(ratio)
        return cls(parse_ratio(cohort), *named)

    def of(self, entry: Entry) -> float:
        """The ratio of one scan."""
        if entry.patient in self.patients:
            return self.patients[entry.patient]
        return self.stages.get(entry.stage or "", self.cohort)

    def check_names(self, entries: Sequence[Entry]) -> None:
        """Refuse a stage or patient that no scan has.

        Raises
        ------
        UsageError
        """
        for kind, asked, known in (
            ("stage", self.stages, {entry.stage for entry in entries if entry.stage}),
            ("patient", self.patients, {entry.patient for entry in entries}),
        ):
            for name in asked:
                if name not in known:
                    there = f"one of {', '.join(sorted(known))}" if known else f"no {kind} is in the manifest"
                    raise UsageError(f"no scan has this {kind}", got=name, expected=there)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {
            "ratio": self.cohort,
            "stage_ratios": dict(sorted(self.stages.items())),
            "patient_ratios": dict(sorted(self.patients.items())),
        }


def parse_ratio(text: str) -> float:
    """A ratio from "200%", "50 %" or "1.5".

    Raises
    ------
    UsageError
        When it is not a number or negative, or a number so large that its percent sign was forgotten.
    """
    stripped = text.strip()
    percent = stripped.endswith("%")
    try:
        value = float(stripped.removesuffix("%").strip())
    except ValueError:
        raise UsageError("the ratio is not a number", got=repr(text), expected="200%, 50% or 1.5") from None
    if not percent and MOST_WITHOUT_PERCENT < value <= 100.0 * LARGEST_RATIO:
        meant = f" (or {100 * value:.0f}% if {stripped} scans per scan are meant)"
        raise UsageError(
            "the ratio looks like a percentage without its sign",
            got=repr(text),
            expected=f"{stripped}%, or a number of synthetic scans per scan up to {MOST_WITHOUT_PERCENT:g}",
            remedy=f"write {stripped}%{meant if value <= LARGEST_RATIO else ''}",
        )
    value = value / 100.0 if percent else value
    if not 0 <= value <= LARGEST_RATIO:  # NaN is neither
        raise UsageError(
            "the ratio is negative, not finite or too large",
            got=repr(text),
            expected=f"0% to {LARGEST_RATIO:.0%}",
            remedy="for more, draw on the fly (`simulator.sampler`)",
        )
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
