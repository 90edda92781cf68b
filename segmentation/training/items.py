"""What can be trained on: scans by name, loaded when needed, and which patients are kept for validation."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from segmentation.segmenter import patient_sha256, seed_for
from simulator.sampler import ProgressionSampler
from standard_space.cohort import Cohort
from standard_space.errors import LungcastError, UsageError
from standard_space.scan import Scan

OWN_LUNGS = "user"
"""What a scan's provenance says about lungs that the user gave a mask of."""

TRUTH = {"infection": "an infection annotation", "lungs": "a lung mask of the user's own"}


@dataclass(frozen=True)
class TrainingItem:
    """A scan that can be loaded when needed.

    Parameters
    ----------
    name : str
        Patient and scan, "P1/S1", for messages.
    synthetic : bool
        Made by the simulator, not acquired.
    load : callable
        Returns the `Scan`.
    annotated : bool
        False when it is known beforehand that the scan has no infection annotation.
    own_lungs : bool
        False when it is known beforehand that the user gave no mask of the lungs: a program found them.
    patient : str
        What stands before the slash of the name when absent.
    content_sha256 : str
        Of the scan's content, where it is known: a run is not continued on other scans.
    image_sha256 : str
        Of the image the scan was made from, where it is known, see `segmentation.model.image_sha256`.
    grid_size : int
        Of the scan's grid; 0 where it is not known.
    """

    name: str
    synthetic: bool
    load: Callable[[], Scan]
    annotated: bool = True
    own_lungs: bool = True
    patient: str = ""
    content_sha256: str = ""
    image_sha256: str = ""
    grid_size: int = 0

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", self.name.split("/")[0])


def items_of(cohort: Cohort) -> list[TrainingItem]:
    """Return a cohort's scans as training items, in the cohort's order.

    Scans without annotation are among them; training leaves them out and says so, as it does with a file that
    turns out to be damaged.
    """
    items = []
    sources: dict[str, bool] = {}
    for entry in cohort.entries:
        try:
            head = cohort.head(entry)
        except LungcastError:  # told when it is to be loaded
            head = {}
        items.append(
            TrainingItem(
                entry.name,
                entry.synthetic,
                functools.partial(cohort.read, entry),
                annotated=entry.infected_ml is not None,
                own_lungs=_own_lungs(cohort, head, sources),
                patient=entry.patient,
                content_sha256=entry.content_sha256,
                image_sha256=str(head.get("provenance", {}).get("image_sha256") or ""),
                grid_size=int(head.get("grid", 0)),
            )
        )
    return items


def _own_lungs(cohort: Cohort, head: dict[str, Any], sources: dict[str, bool]) -> bool:
    """Whether the lungs are the user's own; a synthetic scan has those of its source, which are remembered."""
    origin = head.get("source")
    if origin is None:
        return head.get("provenance", {}).get("lungs", OWN_LUNGS) == OWN_LUNGS
    key = origin["content_sha256"]
    if key not in sources:
        try:
            entry = cohort.source(origin["patient"], origin["scan"], key)
            sources[key] = _own_lungs(cohort, (cohort.sources or cohort).head(entry), sources)
        except LungcastError:  # told when the scan is to be loaded
            sources[key] = True
    return sources[key]


def lacking(item: TrainingItem, target: str, scan: Scan | None = None) -> str | None:
    """Say what keeps an item from showing a target, None when nothing does.

    Parameters
    ----------
    target : str
        The infection needs an annotation, the lungs the user's own mask.
    scan : Scan, optional
        The item's, once it is loaded.
    """
    if target == "infection":
        shown = item.annotated and (scan is None or scan.infection is not None)
        return None if shown else "it has no infection annotation"
    # A synthetic scan keeps no native masks: there the item knows.
    shown = item.own_lungs and (scan is None or item.synthetic or scan.native_lungs is not None)
    return None if shown else "its lungs were found by a program, not annotated"


def without_patients(items: Iterable[TrainingItem], patients: set[str]) -> list[TrainingItem]:
    """Return the items of all other patients."""
    return [item for item in items if item.patient not in patients]


def validation_patients(
    items: Sequence[TrainingItem], share: float, seed: int, target: str = "infection"
) -> set[str]:
    """Choose patients to validate on: by a hash of their names, at least one, never all.

    Which are chosen depends on the seed and the patients alone, not on the number of their scans.

    Parameters
    ----------
    items : sequence of TrainingItem
        The original scans.
    share : float
        Of the patients with an acquired scan that shows the target, 0 to 1.

    Raises
    ------
    UsageError
        The share is not between 0 and 1, or there are fewer than two patients.
    """
    if not 0.0 < share < 1.0:
        raise UsageError("the validation share must lie between 0 and 1", got=share)
    usable = [item for item in items if not item.synthetic and lacking(item, target) is None]
    patients = sorted({item.patient for item in usable})
    if len(patients) < 2:
        raise UsageError(
            "one patient cannot both train and validate",
            got=f"{len(patients)} patients with {TRUTH[target]}",
            expected="2 or more",
            remedy="leave --validation-share out, or name another cohort with --validation",
        )
    by_hash = sorted(patients, key=lambda patient: seed_for(seed, "validation", patient))
    return set(by_hash[: min(max(1, math.floor(share * len(patients) + 0.5)), len(patients) - 1)])


def patient_records(
    items: Iterable[TrainingItem], sampler: ProgressionSampler | None = None
) -> list[dict[str, Any]]:
    """Return hashes of patients and of their images, as a model keeps them, drawn from or not."""
    merged: dict[str, set[str]] = {}
    for entry in () if sampler is None else sampler.entries:
        image = sampler.cohort.head(entry)["provenance"].get("image_sha256") if sampler else None
        merged.setdefault(patient_sha256(entry.patient), set()).update(filter(None, [image]))
    for item in items:
        merged.setdefault(patient_sha256(item.patient), set()).update(filter(None, [item.image_sha256]))
    return [{"patient_sha256": key, "image_sha256": sorted(merged[key])} for key in sorted(merged)]


def fingerprint(items: Iterable[TrainingItem]) -> str:
    """Return 16 hexadecimal digits for a list of items: their names and, where known, contents."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr((item.name, item.synthetic, item.annotated, item.content_sha256)).encode())
    return digest.hexdigest()[:16]


def loaded_or_noted(item: TrainingItem, note: Callable[[str], None]) -> Scan | None:
    """Load an item; None, and a note that names it, when it cannot be read."""
    try:
        return item.load()
    except LungcastError as error:
        note(f"{item.name}: left out, it cannot be read ({error.what})")
    except OSError as error:
        note(f"{item.name}: left out, it cannot be read ({error.strerror or error})")
    return None
