"""What a run trains and validates on, after what cannot be used was left out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from segmentation.training.items import TRUTH, TrainingItem, fingerprint, lacking, without_patients
from segmentation.training.mixture import Mixture, shares_of
from segmentation.training.options import TrainingOptions
from simulator.sampler import ProgressionSampler
from standard_space.errors import DataError, UsageError

REMEDIES = {
    "infection": "give annotated scans",
    "lungs": "name your lung masks in the manifest (column `lungs`) and embed the cohort again",
}


@dataclass
class Notes:
    """What a user should know, each said once.

    Parameters
    ----------
    say : callable or None
        Told as they come.
    """

    say: Callable[[str], None] | None = None
    texts: list[str] = field(default_factory=list)

    def __call__(self, text: str) -> None:
        if text not in self.texts:
            self.texts.append(text)
            if self.say is not None:
                self.say(text)


@dataclass(frozen=True)
class Material:
    """Scans by their use; `material_of` makes it.

    Attributes
    ----------
    originals, synthetic, validation : list of TrainingItem
    sampler : ProgressionSampler or None
    """

    originals: list[TrainingItem]
    synthetic: list[TrainingItem]
    validation: list[TrainingItem]
    sampler: ProgressionSampler | None = None

    @property
    def training(self) -> list[TrainingItem]:
        """Stored scans that are trained on."""
        return [*self.originals, *self.synthetic]

    def mixture(
        self, options: TrainingOptions, steps: int, note: Callable[[str], None], *, ahead: bool = False
    ) -> Mixture:
        """Return what the run that was begun with so many steps draws from; see `Mixture`."""
        return Mixture(self.originals, self.synthetic, self.sampler, options, note, steps=steps, ahead=ahead)

    @property
    def data(self) -> dict[str, str]:
        """Fingerprints by kind: a run is not continued with other data."""
        kinds = {name: fingerprint(getattr(self, name)) for name in ("originals", "synthetic", "validation")}
        if self.sampler is not None:
            kinds["on_the_fly"] = _sampler_fingerprint(self.sampler)
        return kinds


def material_of(
    originals: Sequence[TrainingItem],
    synthetic: Sequence[TrainingItem],
    validation: Sequence[TrainingItem],
    sampler: ProgressionSampler | None,
    options: TrainingOptions,
    note: Callable[[str], None],
) -> Material:
    """Leave out scans without annotation, and patients and images that are validated on, and say so.

    Synthetic scans are not validated on.

    Raises
    ------
    DataError
        No scan is left to train or to validate on.
    UsageError
        Options that do not go with the scans, or a sampler that plays on validation patients.
    """
    options.check_validation(bool(validation))
    observed = [item for item in validation if not item.synthetic]
    if len(observed) < len(validation):
        note(f"{len(validation) - len(observed)} synthetic scans are not validated on: they are not acquired")
    kept = _showing(observed, "validation", options, note)
    whose = {item.patient for item in observed}
    images = {item.image_sha256 for item in observed} - {""}
    kinds: list[list[TrainingItem]] = []
    for kind, items in (("original", originals), ("synthetic", synthetic)):
        apart = without_patients(items, whose)
        if len(apart) < len(items):
            note(
                f"{len(items) - len(apart)} {kind} scans are not trained on: their patients are for validation"
            )
        other = [item for item in apart if item.image_sha256 not in images]
        if len(other) < len(apart):
            note(
                f"{len(apart) - len(other)} {kind} scans are not trained on: their images are for validation, "
                "under another patient's name"
            )
        kinds.append(_showing(other, "training", options, note))
    made = Material(kinds[0], kinds[1], kept, sampler)
    for given, used, left in (
        ("train", made.training or sampler is not None, True),
        ("validate", made.validation, bool(validation)),
    ):
        if left and not used:
            raise DataError(
                f"no scan to {given} on is left that has {TRUTH[options.target]}",
                remedy=REMEDIES[options.target],
            )
    if sampler is not None:
        mixed = {entry.patient for entry in sampler.entries if entry.patient in whose}
        for entry in sampler.entries if images else ():
            if sampler.cohort.head(entry)["provenance"].get("image_sha256") in images:
                mixed.add(entry.patient)
        if mixed:
            raise UsageError(
                "progressions on the fly would be made of validation patients",
                got=", ".join(sorted(mixed)[:5]),
            )
        for name, why in sampler.left_out.items():
            note(f"{name}: left out of progressions on the fly, {why}")
    shares_of(bool(made.originals), bool(made.synthetic), sampler is not None, options)
    return made


def _showing(
    items: Sequence[TrainingItem], use: str, options: TrainingOptions, note: Callable[[str], None]
) -> list[TrainingItem]:
    """Return the items that show the target; of lungs that a program found, often all, only the number is said."""
    reasons = [lacking(item, options.target) for item in items]
    if options.target == "lungs" and any(reasons):
        count = len(items) - reasons.count(None)
        note(f"{count} scans are left out of {use}: their lungs were found by a program, not annotated")
    else:
        for item, reason in zip(items, reasons, strict=True):
            if reason is not None:
                note(f"{item.name}: left out of {use}, {reason}")
    return [item for item, reason in zip(items, reasons, strict=True) if reason is None]


def _sampler_fingerprint(sampler: ProgressionSampler) -> str:
    digest = hashlib.sha256(
        repr((sampler.seed, sampler.in_a_row, sampler.margin_mm, sampler.ranges)).encode()
    )
    for entry in sampler.entries:
        parameters = sampler.parameters[entry.name].to_json()
        digest.update(repr((entry.name, entry.content_sha256, parameters)).encode())
    return digest.hexdigest()[:16]
