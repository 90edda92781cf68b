"""What a study writes down: a row for every scored scan, one for every trained model, and what was trained."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from segmentation.methods import METHODS
from standard_space.errors import DataError

GENERATORS = ("none", "offline", "on-the-fly", "copy-paste", "ellipsoids", "observed")
"""Where added scans come from, in the order they are shown in; "offline" and "on-the-fly" are lungcast's,
"observed" are real scans of the same patients on other days: the most that a perfect simulator could add."""

OWN = "own"
"""The cohort of the test patients of the folds; every other name is an external test cohort."""

SCORES = ("dice", "recall", "precision", "specificity", "iou", "dice_2voxel", "nsd")
SHARES = ("true_share", "predicted_share")
_VOLUMES = ("true_ml", "predicted_ml")
_PART = re.compile(r"[a-z0-9_-]+=[a-z0-9._-]+")


class Configuration(NamedTuple):
    """What was trained: everything but fold and seed.

    Attributes
    ----------
    method : str
    generator : str
        One of `GENERATORS`.
    ratio : float
        Synthetic scans per real one, %.
    variant : str
        Empty, or ``name=value`` parts in alphabetical order joined by ";".
    folds : int
        Of the cross-validation.
    """

    method: str
    generator: str
    ratio: float
    variant: str
    folds: int

    @property
    def parts(self) -> dict[str, str]:
        """The variant's parts by name."""
        return dict(part.split("=", 1) for part in self.variant.split(";") if part)

    @property
    def level(self) -> str:
        """The augmentation in words: "0 %" or "offline 200 %"."""
        return "0 %" if self.ratio == 0 else f"{self.generator} {self.ratio:g} %"

    @property
    def label(self) -> str:
        """The configuration in words."""
        return ", ".join(part for part in (self.method, self.level, self.variant) if part)

    @property
    def order(self) -> tuple[Any, ...]:
        """To sort by: known methods and generators first."""
        return (
            *_place(self.method, METHODS),
            *_place(self.generator, GENERATORS),
            self.ratio,
            self.variant,
            self.folds,
        )


@dataclass(frozen=True)
class Record:
    """What both CSVs begin with: which trained model a row is about.

    Raises
    ------
    DataError
        A value is out of its range, or the generator does not go with the ratio.
    """

    method: str
    generator: str
    ratio: float
    variant: str
    folds: int
    fold: int
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "variant", canonical_variant(self.variant))
        if not self.method:
            raise DataError("a row names no method")
        if self.generator not in GENERATORS:
            raise DataError("no such generator", got=self.generator, expected=" or ".join(GENERATORS))
        _check_least("ratio", self.ratio)
        if (self.generator == "none") != (self.ratio == 0):
            raise DataError(
                "the generator does not go with the ratio",
                got=f"{self.generator} at {self.ratio:g} %",
                expected="none at 0 %, any other above 0 %",
            )
        if not 1 <= self.fold <= self.folds:
            raise DataError("the fold is out of range", got=self.fold, expected=f"1 to {self.folds}")
        _check_least("seed", self.seed)

    @property
    def configuration(self) -> Configuration:
        """What was trained."""
        return Configuration(self.method, self.generator, self.ratio, self.variant, self.folds)

    @property
    def key(self) -> tuple[Any, ...]:
        """What no two rows of a file share; also their order."""
        return (*self.configuration.order, self.fold, self.seed)

    @property
    def name(self) -> str:
        """The row in words, for messages."""
        return f"{self.configuration.label}, fold {self.fold} of {self.folds}, seed {self.seed}"


@dataclass(frozen=True)
class Row(Record):
    """One scan as one trained model, or a variant of it, found it.

    Attributes
    ----------
    cohort : str
        `OWN`, or the name of an external test cohort.
    stage, scanner : str or None
    dice, recall, precision, specificity, iou, dice_2voxel, nsd : float or None
        0 to 1, None where not defined; see `segmentation.evaluation.metrics`.
    true_ml, predicted_ml : float
        Infected volume, ml.
    true_share, predicted_share : float or None
        Infected share of the lungs, 0 to 1.

    Raises
    ------
    DataError
        See `Record`.
    """

    cohort: str
    patient: str
    scan: str
    stage: str | None
    scanner: str | None
    dice: float | None
    recall: float | None
    precision: float | None
    specificity: float | None
    iou: float | None
    dice_2voxel: float | None
    nsd: float | None
    true_ml: float
    predicted_ml: float
    true_share: float | None
    predicted_share: float | None

    def __post_init__(self) -> None:
        super().__post_init__()
        for column in ("cohort", "patient", "scan"):
            if not getattr(self, column):
                raise DataError(f"a row names no {column}")
        for column in (*SCORES, *SHARES):
            _check_least(column, getattr(self, column), most=1.0)
        for column in _VOLUMES:
            _check_least(column, getattr(self, column))

    @property
    def infected(self) -> bool:
        """Whether there is anything to find; overlap with an empty truth says nothing."""
        return self.true_ml > 0

    @property
    def key(self) -> tuple[Any, ...]:
        """What no two rows of a file share; also their order."""
        return (*super().key, *_place(self.cohort, (OWN,)), self.patient, self.scan)

    @property
    def name(self) -> str:
        """The row in words, for messages."""
        return f"{super().name}, cohort {self.cohort}, {self.patient}/{self.scan}"


@dataclass(frozen=True)
class CostRow(Record):
    """What one trained model cost; None where it was not measured.

    Attributes
    ----------
    parameters, steps : int or None
        Weights that are trained, and optimiser's steps.
    train_s : float or None
        Training, s.
    predict_s : float or None
        Prediction, s per scan.
    peak_memory_mb : float or None

    Raises
    ------
    DataError
        See `Record`.
    """

    parameters: int | None
    steps: int | None
    train_s: float | None
    predict_s: float | None
    peak_memory_mb: float | None

    def __post_init__(self) -> None:
        super().__post_init__()
        for column in ("parameters", "steps", "train_s", "predict_s", "peak_memory_mb"):
            _check_least(column, getattr(self, column))


def canonical_variant(variant: str) -> str:
    """Return a variant with its parts in alphabetical order.

    Raises
    ------
    DataError
        A part is not ``name=value``, or a name comes twice.
    """
    parts = sorted(part.strip() for part in variant.split(";")) if variant.strip() else []
    names = [part.partition("=")[0] for part in parts]
    if not all(_PART.fullmatch(part) for part in parts) or len(set(names)) < len(names):
        raise DataError("a variant cannot be read", got=variant, expected="name=value, several joined by ;")
    return ";".join(parts)


def columns(kind: type[Record]) -> tuple[str, ...]:
    """Columns of the CSV of `Row` or `CostRow`, in order."""
    return tuple(field.name for field in dataclasses.fields(kind))


def _check_least(column: str, value: float | None, *, most: float = math.inf) -> None:
    if value is not None and not (math.isfinite(value) and 0 <= value <= most):
        expected = "at least 0" if math.isinf(most) else f"0 to {most:g}"
        raise DataError(f"{column} is out of range", got=value, expected=expected)


def _place(name: str, known: tuple[str, ...]) -> tuple[int, str]:
    return (known.index(name) if name in known else len(known), name)
