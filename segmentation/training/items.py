"""What can be trained on: scans by name, loaded when needed, and which patients are kept for validation."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from segmentation.model import patient_sha256, seed_for
from simulator.sampler import ProgressionSampler
from standard_space.cohort import Cohort
from standard_space.errors import LungcastError, UsageError
from standard_space.scan import Scan


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
                patient=entry.patient,
                content_sha256=entry.content_sha256,
                image_sha256=str(head.get("provenance", {}).get("image_sha256") or ""),
                grid_size=int(head.get("grid", 0)),
            )
        )
    return items


def without_patients(items: Iterable[TrainingItem], patients: set[str]) -> list[TrainingItem]:
    """Return the items of all other patients."""
    return [item for item in items if item.patient not in patients]


def validation_patients(items: Sequence[TrainingItem], share: float, seed: int) -> set[str]:
    """Choose patients to validate on: by a hash of their names, at least one, never all.

    Which are chosen depends on the seed and the patients alone, not on the number of their scans.

    Parameters
    ----------
    items : sequence of TrainingItem
        The original scans.
    share : float
        Of the patients with an annotated scan, 0 to 1.

    Raises
    ------
    UsageError
        The share is not between 0 and 1, or there are fewer than two patients.
    """
    if not 0.0 < share < 1.0:
        raise UsageError("the validation share must lie between 0 and 1", got=share)
    patients = sorted({item.patient for item in items if item.annotated})
    if len(patients) < 2:
        raise UsageError(
            "one patient cannot both train and validate",
            got=f"{len(patients)} annotated patients",
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


def readable(items: Iterable[TrainingItem], note: Callable[[str], None]) -> Iterable[Scan]:
    """Load one item after the other; one that cannot be read is left out with a note."""
    for item in items:
        scan = loaded_or_noted(item, note)
        if scan is not None:
            yield scan


def loaded_or_noted(item: TrainingItem, note: Callable[[str], None]) -> Scan | None:
    """Load an item; None, and a note that names it, when it cannot be read."""
    try:
        return item.load()
    except LungcastError as error:
        note(f"{item.name}: left out, it cannot be read ({error.what})")
    except OSError as error:
        note(f"{item.name}: left out, it cannot be read ({error.strerror or error})")
    return None
