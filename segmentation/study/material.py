"""What the runs of a study learn from: synthetic scans by every generator, of training patients alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segmentation.crossvalidation.plan import FoldPlan, check_images, entries_for, plan_folds
from segmentation.study.plan import Arm, Run, StudyPlan
from segmentation.study.unnormalised import unnormalised
from segmentation.training.items import TrainingItem, items_of
from segmentation.training.options import TrainingOptions
from segmentation.training.request import sampler_of
from simulator.augmentation import AugmentationSettings
from simulator.augmentation_plan import Ratios, plan_volumes, seed_of
from simulator.augmentation_run import augment_cohort, fits_for, prepare_folder, request
from simulator.fits import CohortFits
from simulator.generators.items import KINDS, generated
from standard_space.cohort import Cohort, Entry, open_with_sources
from standard_space.errors import DataError, UsageError
from standard_space.files import read_mark
from standard_space.folders import RUN_STATE
from standard_space.jobs import run_isolated
from standard_space.progress import Progress
from standard_space.scan import Scan

AUGMENTED = "augmented"
SEED = 0
"""Of folds and synthetic scans: they are the same for every training seed."""

OBSERVED = "observed"

FITTED = ("offline", "on-the-fly")
"""Generators that need fits."""


@dataclass(frozen=True)
class Inputs:
    """Where a study's scans lie; can be pickled.

    Attributes
    ----------
    cohort : Path
    tests : dict of str to Path
        External test cohorts by name.
    out : Path
        The study's folder.
    more : Path, optional
        A cohort with other scans of the same patients, for the generator "observed".
    """

    cohort: Path
    tests: Mapping[str, Path]
    out: Path
    more: Path | None = None

    def opened(self) -> Cohort:
        """The cohort of the folds."""
        return Cohort.open(self.cohort)

    def test_cohorts(self) -> dict[str, Cohort]:
        """The external ones."""
        return {name: open_with_sources(path) for name, path in self.tests.items()}

    def more_scans(self) -> Cohort | None:
        """The other scans of the same patients."""
        return None if self.more is None else Cohort.open(self.more)


def check_inputs(
    cohort: Cohort, tests: Mapping[str, Cohort], plan: StudyPlan, more: Cohort | None = None
) -> None:
    """Refuse inputs whose results could not be trusted, before anything is computed.

    Raises
    ------
    UsageError
        Fewer patients than folds, a cohort on another grid, or a patient or an image in two cohorts.
    DataError
        One image stands under several patients.
    """
    for folds in plan.folds:
        plan_folds(entries_for(cohort, "infection"), folds, SEED)
    items = [item for item in items_of(cohort) if not item.synthetic]
    check_images(items)
    own = {item.patient for item in items}, {item.image_sha256 for item in items} - {""}
    grids = {item.grid_size for item in items} - {0}
    if (OBSERVED in plan.generators) != (more is not None):
        raise UsageError("the generator observed and --more COHORT, where its scans come from, go together")
    if more is not None:
        added = [item for item in items_of(more) if not item.synthetic]
        check_images([*items, *added])
        if {item.grid_size for item in added} - {0} != grids:
            raise UsageError("the cohort of more scans lies on another grid", where=more.folder)
        own = own[0] | {item.patient for item in added}, own[1] | {item.image_sha256 for item in added} - {""}
    for name, held in tests.items():
        theirs = [item for item in items_of(held) if not item.synthetic]
        if not theirs:
            raise UsageError(f"the test cohort {name} has no observed scan", where=held.folder)
        mixed = [item.name for item in theirs if item.patient in own[0] or item.image_sha256 in own[1]]
        if mixed:
            raise UsageError(
                "a test cohort holds patients or images that are trained on",
                where=held.folder,
                got=", ".join(mixed[:5]),
                remedy="test on others",
            )
        # 0: the file cannot be read; it is named when it is to be scored.
        if not {item.grid_size for item in theirs} - {0} <= grids:
            raise UsageError(f"the test cohort {name} lies on another grid", where=held.folder)


def prepare(
    inputs: Inputs, plan: StudyPlan, *, jobs: int, progress: Callable[[str], Progress]
) -> dict[str, str]:
    """Fit the cohort and make the synthetic scans that are stored; what is there is kept.

    The scans of smaller ratios are among those of the largest one, so one set serves all ratios. A set that is
    finished is not touched: other processes may be reading it. Scans without infection get no synthetic ones.

    Parameters
    ----------
    progress : callable
        Gives the progress of a stage by its name.

    Returns
    -------
    dict of str to str
        Sentence by scan whose synthetic scans could not be made.
    """
    arms = plan.arms
    if not any(arm.generator in FITTED for arm in arms):
        return {}
    cohort, folder = inputs.opened(), inputs.out / AUGMENTED
    cohort = Cohort(cohort.folder, infected(cohort.entries), cohort.sources)
    largest = max((arm.ratio for arm in arms if arm.generator == "offline"), default=0.0)
    settings = AugmentationSettings(Ratios(largest / 100.0), SEED)
    failed = _finished(folder, request(cohort, settings))
    if failed is not None:
        return {name: f"{name}: no synthetic scan could be made of it" for name in failed}
    prepare_folder(folder, cohort, settings, shard=None, force=False)
    fits = fits_for(cohort, None, folder, jobs=jobs, progress=progress("fit"))
    outcome = augment_cohort(
        cohort,
        folder,
        fits,
        settings,
        runner=functools.partial(run_isolated, jobs=jobs),
        progress=progress("augment"),
    )
    return outcome.failures


def infected(entries: Sequence[Entry]) -> list[Entry]:
    """The observed scans with an infection: those that synthetic ones are made of, by any generator."""
    return [entry for entry in entries if not entry.synthetic and entry.infected_ml]


def _finished(folder: Path, asked: dict[str, Any]) -> list[str] | None:
    """Names of the scans that failed in an augmentation that is complete; None when it is not, or is another."""
    mark = read_mark(folder)
    if mark is None or not (folder / "fits.json").is_file():
        return None
    known = mark["provenance"]
    same = {key: value for key, value in known.items() if key not in RUN_STATE} == asked
    return list(known.get("failed", [])) if same and known.get("complete") else None


def fold_of(cohort: Cohort, run: Run) -> FoldPlan:
    """The patients of a run's fold: the same for every method, ratio and seed."""
    return plan_folds(entries_for(cohort, "infection"), run.folds, SEED)[run.fold - 1]


def material_for(inputs: Inputs, run: Run, options: TrainingOptions) -> dict[str, Any]:
    """Return what a run trains and validates on, as keywords for `segmentation.training.run.train`."""
    cohort = inputs.opened()
    fold = fold_of(cohort, run)
    items = [item for item in items_of(cohort) if not item.synthetic]
    originals = [item for item in items if item.patient in fold.training]
    validation = [item for item in items if item.patient in fold.validation]
    entries = infected([cohort.find(*item.name.split("/", 1)) for item in originals])
    found: dict[str, Any] = {
        "originals": originals,
        "validation": validation,
        "synthetic": [],
        "sampler": None,
    }
    arm = run.arm
    if arm.generator == "offline":
        found["synthetic"] = _offline(inputs, cohort, entries, run.arm)
    elif arm.generator == "on-the-fly":
        fits = CohortFits.load(inputs.out / AUGMENTED / "fits.json")
        found["sampler"] = sampler_of(Cohort(cohort.folder, entries, cohort.sources), fits, options, kinds=1)
    elif arm.generator in KINDS:
        found["synthetic"] = _generated(cohort, entries, originals, arm)
    elif arm.generator == OBSERVED:
        found["synthetic"] = _observed(inputs, cohort, entries, arm)
    if arm.ratio and not found["synthetic"] and found["sampler"] is None:
        raise DataError(
            "there is no synthetic scan to train on at this ratio",
            got=f"{arm.ratio:g} % of {len(entries)} scans",
            remedy="study a larger ratio or more scans",
        )
    if "normalise" in arm.parts:
        for kind in ("originals", "validation", "synthetic"):
            found[kind] = [_without_normalisation(item) for item in found[kind]]
    return found


def _offline(inputs: Inputs, cohort: Cohort, entries: Sequence[Entry], arm: Arm) -> list[TrainingItem]:
    """The stored synthetic scans of some sources that belong to a ratio."""
    held = Cohort.open(inputs.out / AUGMENTED, sources=cohort)
    failed = set((read_mark(held.folder) or {}).get("provenance", {}).get("failed", []))
    made: dict[str, list[TrainingItem]] = {}
    for item in items_of(held):
        made.setdefault(item.name.rpartition("-sim")[0], []).append(item)
    items = []
    for entry in entries:
        if entry.name in failed:  # named by the study; the runs of every ratio go without
            continue
        count = len(plan_volumes(entry.patient, entry.scan, arm.ratio / 100.0, SEED))
        offered = made.get(entry.name, [])
        if len(offered) < count:
            raise DataError(
                "synthetic scans are missing",
                where=held.folder,
                got=f"{len(offered)} of {entry.name}",
                expected=count,
                remedy="remove the study's folder `augmented` and run it again",
            )
        # By number they are in the order of their days: a smaller ratio would get the shortest progressions.
        order = np.random.default_rng(seed_of("study", SEED, entry.patient, entry.scan)).permutation(
            len(offered)
        )
        items += [offered[place] for place in sorted(order[:count])]
    return items


def _observed(inputs: Inputs, cohort: Cohort, entries: Sequence[Entry], arm: Arm) -> list[TrainingItem]:
    """Other observed scans of the patients, as many as a generator would make; all where there are fewer."""
    more = inputs.more_scans()
    if more is None:
        raise UsageError("no cohort of more scans is named")
    known = {entry.content_sha256 for entry in cohort.entries} | {entry.name for entry in cohort.entries}
    offered: dict[str, list[TrainingItem]] = {}
    for item in items_of(more):
        if item.annotated and not item.synthetic and not {item.name, item.content_sha256} & known:
            offered.setdefault(item.patient, []).append(item)
    items = []
    for patient in dict.fromkeys(entry.patient for entry in entries):
        wanted = [
            plan_volumes(entry.patient, entry.scan, arm.ratio / 100.0, SEED)
            for entry in entries
            if entry.patient == patient
        ]
        there = offered.get(patient, [])
        order = np.random.default_rng(seed_of("study", SEED, patient)).permutation(len(there))
        items += [there[place] for place in sorted(order[: sum(map(len, wanted))])]
    return [replace(item, name=f"{item.name}-observed", synthetic=True) for item in items]


def _generated(
    cohort: Cohort, entries: Sequence[Entry], originals: Sequence[TrainingItem], arm: Arm
) -> list[TrainingItem]:
    by_name = {item.name: item for item in originals}
    readers = [functools.partial(cohort.read, entry) for entry in entries]
    items = []
    for made in generated(arm.generator, readers, readers, arm.ratio / 100.0, SEED):
        source = by_name[entries[made.target].name]
        items.append(
            replace(
                source,
                name=f"{source.name}-{arm.generator}{made.number}",
                synthetic=True,
                load=made.make,
                content_sha256=f"{arm.generator}/{SEED}/{made.number}/{source.content_sha256}",
            )
        )
    return items


def _without_normalisation(item: TrainingItem) -> TrainingItem:
    return replace(
        item,
        load=functools.partial(_unnormalised_of, item.load),
        content_sha256=f"unnormalised/{item.content_sha256}",
    )


def _unnormalised_of(load: Callable[[], Scan]) -> Scan:
    scan = load()
    if not scan.lungs.any():
        raise DataError("it has no lungs", where=scan.name)
    return unnormalised(scan)
