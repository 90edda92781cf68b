"""What a run trains and validates on, after what cannot be used was left out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from segmentation.training.items import TrainingItem, fingerprint, without_patients
from segmentation.training.mixture import shares_of
from segmentation.training.options import TrainingOptions
from simulator.sampler import ProgressionSampler
from standard_space.errors import DataError, UsageError


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
    """Leave out scans without annotation, and patients that are validated on, and say so.

    Raises
    ------
    DataError
        No scan is left to train or to validate on.
    UsageError
        Options that do not go with the scans, or a sampler that plays on scans of validation patients.
    """
    options.check_validation(bool(validation))
    whose = {item.patient for item in validation}
    kinds: list[list[TrainingItem]] = []
    for kind, items in (("original", originals), ("synthetic", synthetic)):
        apart = without_patients(items, whose)
        if len(apart) < len(items):
            note(
                f"{len(items) - len(apart)} {kind} scans are not trained on: their patients are for validation"
            )
        kinds.append(_annotated(apart, "training", options, note))
    made = Material(kinds[0], kinds[1], _annotated(validation, "validation", options, note), sampler)
    lacking = "has an infection annotation" if options.target == "infection" else "is there"
    if not made.training and sampler is None:
        raise DataError(f"no scan to train on {lacking}", remedy="give annotated scans")
    if validation and not made.validation:
        raise DataError(f"no scan to validate on {lacking}", remedy="give annotated scans")
    if sampler is not None:
        mixed = sorted({entry.patient for entry in sampler.entries} & whose)
        if mixed:
            raise UsageError(
                "progressions on the fly would be made of validation patients", got=", ".join(mixed[:5])
            )
        for name, why in sampler.left_out.items():
            note(f"{name}: left out of progressions on the fly, {why}")
    shares_of(bool(made.originals), bool(made.synthetic), sampler is not None, options)
    return made


def _annotated(
    items: Sequence[TrainingItem], use: str, options: TrainingOptions, note: Callable[[str], None]
) -> list[TrainingItem]:
    if options.target != "infection":
        return list(items)
    for item in items:
        if not item.annotated:
            note(f"{item.name}: left out of {use}, it has no infection annotation")
    return [item for item in items if item.annotated]


def _sampler_fingerprint(sampler: ProgressionSampler) -> str:
    digest = hashlib.sha256(
        repr((sampler.seed, sampler.in_a_row, sampler.margin_mm, sampler.ranges)).encode()
    )
    for entry in sampler.entries:
        parameters = sampler.parameters[entry.name].to_json()
        digest.update(repr((entry.name, entry.content_sha256, parameters)).encode())
    return digest.hexdigest()[:16]
