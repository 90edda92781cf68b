"""What a study trains: methods x augmentations x seeds x folds, and the variants that take a part away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from segmentation.methods import THREE_WAY, check_method, options_for
from segmentation.study.records import GENERATORS
from segmentation.study.settings import check_settings
from segmentation.training.options import TrainingOptions
from standard_space.errors import UsageError
from standard_space.files import sha256_of

REMOVALS = ("normalise", "combine", "augment", "vary", "preprocess")
"""What `--without` takes away: the standard space and window, the aggregation of views (each view alone), the
synthetic scans (ratio 0), the flips and rotations on the fly, and the preprocessing of the method mueller."""

CHOICES = ("offsets", "rules")
"""What `--choices` tries out of the paper's supplement S1."""

OFFSETS_MM = {"narrow": (-2.0, -1.0, 0.0, 1.0, 2.0), "single": (0.0,)}
"""Slice offsets that are tried beside the paper's -5, -2, 0, 2, 5 mm."""

DEFAULT_STEPS = 2000
USUAL_RATIO = 200.0
MUELLER = "mueller"

RATIO_GENERATORS = tuple(name for name in GENERATORS if name != "none")


@dataclass(frozen=True)
class Arm:
    """A method at one augmentation, in one variant that needs a training of its own.

    Attributes
    ----------
    method, generator : str
    ratio : float
        Synthetic scans per original one, percent.
    variant : str
        Empty, or ``name=value`` parts in alphabetical order joined by ";".
    """

    method: str
    generator: str
    ratio: float
    variant: str = ""

    @property
    def name(self) -> str:
        """For folders and progress bars."""
        parts = [self.method, "0" if self.generator == "none" else f"{self.generator}-{self.ratio:g}"]
        return "_".join([*parts, *filter(None, self.variant.replace("=", "-").split(";"))])

    @property
    def parts(self) -> dict[str, str]:
        """The variant's parts by name."""
        return dict(part.split("=", 1) for part in self.variant.split(";") if part)


@dataclass(frozen=True)
class Run:
    """One training and what is scored with it.

    Attributes
    ----------
    arm : Arm
    folds, fold : int
        Of the cross-validation, and which of them is tested on, from 1.
    seed : int
    """

    arm: Arm
    folds: int
    fold: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm.name}_k{self.folds}_fold{self.fold}_seed{self.seed}"


@dataclass(frozen=True)
class StudyPlan:
    """What is asked for; stored with the study and compared when it is continued.

    Parameters
    ----------
    methods : tuple of str
        Of `segmentation.methods.METHODS`.
    ratios : tuple of float
        Percent; 0 is no augmentation.
    folds : tuple of int
        Numbers of folds; several make the table of k.
    seeds : tuple of int
    generators : tuple of str
        Of `RATIO_GENERATORS`; the first one makes the ratios' synthetic scans, the others are compared at
        `generator_ratio` with the first method.
    generator_ratio : float
        Percent.
    without : tuple of str
        Of `REMOVALS`, for the first method that has the part, at the largest ratio up to 200 %.
    choices : tuple of str
        Of `CHOICES`, for the three-way method, at the same ratio.
    fold_subset : tuple of int
        Folds to run; empty runs all.
    settings : dict of str to dict
        Training options by method, over its own defaults; under "" for all methods.
    synthetic_share : float, optional
        Of training slices; as if all scans were pooled [paper] when absent.

    Raises
    ------
    UsageError
        An unknown name, or nothing to train.
    """

    methods: tuple[str, ...]
    ratios: tuple[float, ...]
    folds: tuple[int, ...] = (5,)
    seeds: tuple[int, ...] = (0,)
    generators: tuple[str, ...] = ("offline",)
    generator_ratio: float = USUAL_RATIO
    without: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    fold_subset: tuple[int, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    synthetic_share: float | None = None

    def __post_init__(self) -> None:
        for name, given in (
            ("methods", self.methods),
            ("ratios", self.ratios),
            ("folds", self.folds),
            ("seeds", self.seeds),
            ("generators", self.generators),
        ):
            if not given or len(set(given)) < len(given):
                raise UsageError(f"the {name} of a study must be named, each once", got=list(given))
        for method in (*self.methods, *filter(None, self.settings)):
            check_method(method)
        for what, given, known in (
            ("generator", self.generators, RATIO_GENERATORS),
            ("removal", self.without, REMOVALS),
            ("choice", self.choices, CHOICES),
        ):
            for name in given:
                if name not in known:
                    raise UsageError(f"there is no such {what}", got=name, expected=", ".join(known))
        if any(not 0 <= ratio < float("inf") for ratio in self.ratios):
            raise UsageError("a ratio is negative or not finite", got=list(self.ratios))
        if not 0 < self.generator_ratio < float("inf"):
            raise UsageError("generators are compared at a ratio above zero", got=self.generator_ratio)
        if any(seed < 0 for seed in self.seeds):
            raise UsageError("a seed is negative", got=list(self.seeds))
        check_settings(self.settings)
        if any(fold < 1 or fold > max(self.folds) for fold in self.fold_subset):
            raise UsageError(
                "there is no such fold", got=list(self.fold_subset), expected=f"1 to {max(self.folds)}"
            )
        if self.choices and THREE_WAY not in self.methods:
            raise UsageError(
                "slice offsets and rules are choices of the three-way method", got=list(self.methods)
            )
        if "normalise" in self.without and self.generators[0] == "on-the-fly":
            raise UsageError("progressions made on the fly are normalised: compare normalise at stored scans")
        for arm in self.arms:
            self.options(arm, 0)

    @property
    def main_ratio(self) -> float:
        """The largest ratio up to 200 %: where removals and choices are compared."""
        usual = [ratio for ratio in self.ratios if ratio <= USUAL_RATIO]
        return max(usual, default=min(self.ratios))

    @property
    def arms(self) -> list[Arm]:
        """All that is trained, each once."""
        found = [self._arm(method, ratio) for method in self.methods for ratio in self.ratios]
        first = self.methods[0]
        if len(self.generators) > 1:
            found += [Arm(first, "none", 0.0)]
            found += [Arm(first, generator, self.generator_ratio) for generator in self.generators]
            if "vary" in self.without:
                found += [Arm(first, "none", 0.0, "vary=off")]
        for removal in self.without:
            found += self._without(removal)
        if "offsets" in self.choices:
            main = self._arm(THREE_WAY, self.main_ratio)
            found += [main, *(replace(main, variant=f"offsets={name}") for name in OFFSETS_MM)]
        return list(dict.fromkeys(found))

    def runs(self) -> list[Run]:
        """Every training, folds first, so that a study that is cut short has whole comparisons.

        Of several numbers of folds the largest is that of the variants and of the other generators.
        """
        whole = {self._arm(method, ratio) for method in self.methods for ratio in self.ratios}
        return [
            Run(arm, folds, fold, seed)
            for seed in self.seeds
            for folds in self.folds
            for fold in range(1, folds + 1)
            for arm in self.arms
            if (folds == max(self.folds) or arm in whole)
            and (not self.fold_subset or fold in self.fold_subset)
        ]

    def options(self, arm: Arm, seed: int) -> TrainingOptions:
        """Return how an arm is trained.

        Raises
        ------
        UsageError
            A setting that the method has not.
        """
        given: dict[str, Any] = {
            "steps": DEFAULT_STEPS,
            **self.settings.get("", {}),
            **self.settings.get(arm.method, {}),
        }
        share = self.synthetic_share
        if share is None:
            # Every scan as often as any other, as if originals and synthetic scans lay in one pool.
            share = arm.ratio / (100.0 + arm.ratio)
        parts = arm.parts
        changes: dict[str, Any] = {"seed": seed, "synthetic_share": share, "on_the_fly_share": share}
        for name, option, value in (
            ("vary", "vary", False),
            ("preprocess", "preprocess", False),
            ("normalise", "own_window", True),
            ("offsets", "slice_offsets_mm", OFFSETS_MM.get(parts.get("offsets", ""))),
        ):
            if name in parts:
                changes[option] = value
        return options_for(arm.method, **{**given, **changes})

    def scored_views(self, arm: Arm) -> bool:
        """Whether each view alone is scored as well."""
        return "combine" in self.without and arm == self._arm(THREE_WAY, self.main_ratio)

    def scored_rules(self, arm: Arm) -> bool:
        """Whether all aggregation rules are scored as well."""
        return "rules" in self.choices and arm == self._arm(THREE_WAY, self.main_ratio)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "methods": list(self.methods),
            "ratios": list(self.ratios),
            "folds": list(self.folds),
            "seeds": list(self.seeds),
            "generators": list(self.generators),
            "generator_ratio": self.generator_ratio,
            "without": list(self.without),
            "choices": list(self.choices),
            "fold_subset": list(self.fold_subset),
            "synthetic_share": self.synthetic_share,
            "options": {method: self._told(method) for method in self.methods},
        }

    def _told(self, method: str) -> dict[str, Any]:
        """A method's options without a path: a file is known by its content."""
        content = self.options(Arm(method, "none", 0.0), 0).to_json()
        weights = content["encoder_weights"]
        return {**content, "encoder_weights": None if weights is None else sha256_of(weights)}

    def _arm(self, method: str, ratio: float, variant: str = "") -> Arm:
        return Arm(method, "none" if ratio == 0 else self.generators[0], float(ratio), variant)

    def _without(self, removal: str) -> list[Arm]:
        first = [
            method
            for method in self.methods
            if method == (self.methods[0] if removal == "vary" else THREE_WAY)
        ]
        found = []
        if removal == "augment":
            for method in self.methods:
                found += [self._arm(method, self.main_ratio), self._arm(method, 0.0)]
        elif removal in ("normalise", "combine", "vary"):
            for method in first:
                main = self._arm(method, self.main_ratio)
                found += [main] if removal == "combine" else [main, replace(main, variant=f"{removal}=off")]
        # The table of Mueller et al.: preprocessing and augmentation on and off, without synthetic scans.
        if MUELLER in self.methods and removal in ("vary", "preprocess"):
            found += [self._arm(MUELLER, 0.0), self._arm(MUELLER, 0.0, f"{removal}=off")]
            if {"vary", "preprocess"} <= set(self.without):
                found.append(self._arm(MUELLER, 0.0, "preprocess=off;vary=off"))
        if not found:
            raise UsageError("no method of the study has this part to take away", got=removal)
        return found
