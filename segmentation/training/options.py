"""How to train: what a user can choose, checked at once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from segmentation.aggregation import LEARNED_RULES, RULES, check_threshold, usual_threshold
from segmentation.methods import THREE_WAY, check_method
from segmentation.segmenter import TARGETS
from segmentation.signal import REFERENCE_WINDOW
from segmentation.unet import MULTIPLE
from standard_space.errors import UsageError
from standard_space.window import Window

DEFAULT_STEPS = 2000
SLICES_PER_SCAN = 64
"""An epoch draws this many slices per original scan, however many synthetic ones there are.

In a long run a scan that waits for its turn is exchanged after as many."""

OPTIMISERS = ("adamw", "adam", "sgd")
LEARNING_RATES = {"adamw": 2e-3, "adam": 1e-3, "sgd": 2e-2}
POSITIVE_WEIGHTS = {"infection": 8.0, "lungs": 2.0}
VALIDATIONS = 20
"""Validations in a run where `validate_every` is not given."""

NEWER = ("method", "slice_offsets_mm", "preprocess", "encoder_weights")
"""Options that older runs have not: theirs are the defaults."""

NOT_OF_THE_RESULT = ("checkpoint_minutes",)
"""Options that may differ between the parts of one run: no weight depends on them."""


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; stored in the model. `segmentation.methods.options_for` fills in a method's own defaults.

    Parameters
    ----------
    method : str
        One of `segmentation.methods.METHODS`.
    steps : int, optional
        Optimiser steps per network (the three-way method has one per view).
    epochs : float, optional
        Instead of steps; an epoch is `SLICES_PER_SCAN` slices per original scan and view.
    target : str
        "infection" or "lungs": what the networks learn to find.
    batch_size : int
        Slices per step, all processes of a distributed run together.
    optimiser : str
        "adamw", "adam", or "sgd" with Nesterov momentum 0.9.
    learning_rate : float, optional
        Peak of the method's schedule; of the three-way method: linear warm-up over the first tenth, then a cosine
        down to zero. By the optimiser when absent, see `LEARNING_RATES`.
    weight_decay : float
    width : int
        Channels of the networks' first level.
    positive_share : float
        Share of slices drawn where there is something to find, 0 to 1. In validation it is a half at least.
    synthetic_share : float
        Share of slices drawn from stored synthetic scans, when there are any, 0 to 1.
    on_the_fly_share : float
        Share of slices drawn from volumes that a `ProgressionSampler` makes meanwhile, when there is one.
    patch : int, optional
        Side of the training patches, voxels; three eighths of the grid when absent, or what the method has.
    positive_weight : float, optional
        Weight of the target's pixels in the cross-entropy. With 1 the best Dice lies at probabilities far below
        2/3. For the infection 8 brings it near the paper's rule (sum > 2); for the lungs, where hardly a pixel
        is in doubt, 2 puts even odds at 2/3.
    own_window : bool
        The networks see each scan at its own window, as in the paper; else at -600/1600, see `input_signal`.
    rule : str
        One of `segmentation.aggregation.RULES`; learned ones need validation scans.
    threshold : float, optional
        Of the finished model, on the rule's scale. Not with validation scans: they tune it.
    validate_every : int, optional
        Steps between validations; a twentieth of the steps when absent.
    validation_slices : int or None
        Drawn once, from the validation scans in turn, at least one of each. None: by what an example holds, see
        `segmentation.training.validation.examples_for`.
    patience : int, optional
        A view stops after so many validations in a row without a better Dice.
    vary : bool
        Flips, rotations, scaling, intensity and noise on the fly.
    compiled : bool
        Run the networks through ``torch.compile``.
    memory_mb : int
        For scans kept in memory, about; more scans than fit are exchanged in turn.
    checkpoint_minutes : float
        Between checkpoints; 0 writes one after every step.
    seed : int
    slice_offsets_mm : tuple of float, optional
        Of the three-way method: distances of a stack's slices from the central one, mm; the paper's when absent.
    preprocess : bool
        Of the method mueller: its clipping, z-score and resampling.
    encoder_weights : str, optional
        Of the method transfer: file with an encoder's weights to start from. A run reads it once, at its start.
    """

    method: str = THREE_WAY
    steps: int | None = None
    epochs: float | None = None
    target: str = "infection"
    batch_size: int = 8
    optimiser: str = "adamw"
    learning_rate: float | None = None
    weight_decay: float = 1e-4
    width: int = 16
    positive_share: float = 0.7
    synthetic_share: float = 0.5
    on_the_fly_share: float = 0.25
    patch: int | None = None
    positive_weight: float | None = None
    own_window: bool = False
    rule: str = "sum>t"
    threshold: float | None = None
    validate_every: int | None = None
    validation_slices: int | None = 64
    patience: int | None = None
    vary: bool = True
    compiled: bool = False
    memory_mb: int = 3000
    checkpoint_minutes: float = 5.0
    seed: int = 0
    slice_offsets_mm: tuple[float, ...] | None = None
    preprocess: bool = True
    encoder_weights: str | None = None

    def __post_init__(self) -> None:
        check_method(self.method)
        if self.steps is not None and self.epochs is not None:
            raise UsageError("give steps or epochs, not both")
        for name in (
            "steps",
            "epochs",
            "batch_size",
            "learning_rate",
            "width",
            "patch",
            "memory_mb",
            "positive_weight",
            "validate_every",
            "validation_slices",
            "patience",
        ):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{_said(name)} must be above zero", got=value)
        for name in ("positive_share", "synthetic_share", "on_the_fly_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"the {_said(name)} must lie in 0..1", got=getattr(self, name))
        for name in ("weight_decay", "checkpoint_minutes"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"the {_said(name)} must not be negative", got=value)
        if self.patch is not None and self.patch % MULTIPLE:
            raise UsageError("the patch must be a multiple of 16", got=self.patch)
        for name, known in (("target", TARGETS), ("optimiser", OPTIMISERS), ("rule", RULES)):
            if getattr(self, name) not in known:
                raise UsageError(f"unknown {name}", got=getattr(self, name), expected=", ".join(known))
        if self.threshold is not None:
            check_threshold(self.threshold, self.rule)
        offsets = self.slice_offsets_mm
        if offsets is not None and not (offsets and all(map(math.isfinite, offsets))):
            raise UsageError("the slice offsets must be numbers, mm", got=offsets)

    @property
    def input_window(self) -> Window | None:
        """The window that the networks see scans at; None is each scan's own."""
        return None if self.own_window else REFERENCE_WINDOW

    @property
    def peak_rate(self) -> float:
        """Peak of the learning rate."""
        return LEARNING_RATES[self.optimiser] if self.learning_rate is None else self.learning_rate

    @property
    def weight_of_positives(self) -> float:
        """Weight of the target's pixels in the cross-entropy."""
        return POSITIVE_WEIGHTS[self.target] if self.positive_weight is None else self.positive_weight

    @property
    def untuned_threshold(self) -> float:
        """Threshold of a model that no validation scan tunes, on the rule's scale."""
        if self.threshold is not None:
            return self.threshold
        return usual_threshold(self.rule)

    def steps_for(self, originals: int) -> int:
        """Return the optimiser steps per view for a number of original scans."""
        if self.epochs is not None:
            return max(1, math.ceil(self.epochs * originals * SLICES_PER_SCAN / self.batch_size))
        return DEFAULT_STEPS if self.steps is None else self.steps

    def validate_every_for(self, steps: int) -> int:
        """Return the steps between validations."""
        return self.validate_every or max(1, steps // VALIDATIONS)

    def patch_for(self, grid_size: int) -> int:
        """Return the side of the training patches on a grid, voxels, a multiple of 16."""
        if self.patch is not None:
            return self.patch
        return max(MULTIPLE, round(0.375 * grid_size / MULTIPLE) * MULTIPLE)

    def check_validation(self, validated: bool) -> None:
        """Refuse what does not go with validation scans, or without them.

        Raises
        ------
        UsageError
        """
        if validated:
            if self.threshold is not None:
                raise UsageError("validation scans tune the threshold: give none", got=self.threshold)
            return
        remedy = "name validation scans (--validation or --validation-share)"
        if self.rule in LEARNED_RULES:
            raise UsageError(f"the rule {self.rule} is learned on validation scans", remedy=remedy)
        for name in ("patience", "validate_every"):
            if getattr(self, name) is not None:
                raise UsageError(f"{_said(name)} needs validation scans", remedy=remedy)

    def without_paths(self) -> dict[str, Any]:
        """Plain values, as a model and a run keep them: no path of the user's computer among them."""
        return {**self.to_json(), "encoder_weights": None}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TrainingOptions:
        """Options of plain values; those of before there were other methods lack `NEWER`.

        Raises
        ------
        UsageError
            Not those of options.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or not known - set(NEWER) <= set(content) <= known:
            raise UsageError("not stored training options", got=content)
        offsets = content.get("slice_offsets_mm")
        return cls(**{**content, "slice_offsets_mm": None if offsets is None else tuple(offsets)})


def _said(name: str) -> str:
    return name.replace("_", " ")
