"""Who is trained on, tuned on and tested on in each fold: whole patients, and nobody twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from segmentation.segmenter import seed_for
from segmentation.training.items import TrainingItem
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, UsageError
from standard_space.export.folds import folds_of_entries

VALIDATION_SHARE = 0.25
"""Of the training patients, where there are only two folds and none can be spared to validate on."""


@dataclass(frozen=True)
class FoldPlan:
    """The patients of one fold, sorted by name.

    Attributes
    ----------
    number : int
        From 1.
    test : tuple of str
        Scored; in no other fold's test.
    validation : tuple of str
        The rule and its threshold are tuned on them; may be empty.
    training : tuple of str
        All others with an annotated scan. Their synthetic scans are trained on, nobody else's are.
    """

    number: int
    test: tuple[str, ...]
    validation: tuple[str, ...]
    training: tuple[str, ...]


def entries_for(cohort: Cohort, target: str) -> list[Entry]:
    """Return a cohort's entries for `plan_folds`, their ``infected_ml`` that of the target, ml.

    For the lungs it is None unless the user gave a lung mask: what was found by a program is no annotation.

    Raises
    ------
    ScanFileError
        A scan file that has to be looked into is missing, damaged or altered.
    """
    if target == "infection":
        return cohort.entries

    def volume_ml(entry: Entry) -> float | None:
        own = not entry.synthetic and cohort.head(entry)["provenance"].get("lungs") == "user"
        return entry.lungs_ml if own else None

    return [replace(entry, infected_ml=volume_ml(entry)) for entry in cohort.entries]


def plan_folds(entries: Sequence[Entry], folds: int, seed: int) -> list[FoldPlan]:
    """Share the patients of a cohort out between folds.

    The folds are those that `lungcast export` gives the same cohort: about as many annotated scans in each,
    whatever the seed, so that other methods can be trained on them. From three folds on, a fold's validation
    patients are the test patients of the next one, so that everybody validates once; with two folds they are a
    quarter of the training patients, chosen by a hash of seed and name, at least one where there are two or more.
    Patients without an infected voxel cannot tune a threshold: where no validation patient has any, all are
    trained on instead.

    Parameters
    ----------
    entries : sequence of Entry
        Of the cohort, see `entries_for`; synthetic ones and those without annotation do not count.
    folds : int
        2 or more.
    seed : int

    Raises
    ------
    UsageError
        Fewer than two folds, or fewer patients than folds.
    """
    if folds < 2:
        raise UsageError("cross-validation needs at least two folds", got=folds)
    annotated = [entry for entry in entries if not entry.synthetic and entry.infected_ml is not None]
    patients = {entry.patient for entry in annotated}
    if len(patients) < folds:
        raise UsageError(
            "there are fewer patients with an annotated scan than folds",
            got=f"{len(patients)} patients",
            expected=f"{folds} or more",
            remedy="use fewer --folds" if len(patients) > 1 else "embed annotated scans of more patients",
        )
    infected = {entry.patient for entry in annotated if entry.infected_ml}
    fold_of = folds_of_entries(annotated, folds)
    plans = []
    for fold in range(folds):
        test = {patient for patient, number in fold_of.items() if number == fold}
        rest = patients - test
        if folds > 2:
            validation = {patient for patient in rest if fold_of[patient] == (fold + 1) % folds}
        else:
            count = max(1, round(VALIDATION_SHARE * len(rest))) if len(rest) > 1 else 0
            order = sorted(rest, key=lambda patient: (seed_for(seed, "validation", patient), patient))
            validation = set(order[:count])
        if not validation & infected:
            validation = set()
        plans.append(
            FoldPlan(fold + 1, *(tuple(sorted(who)) for who in (test, validation, rest - validation)))
        )
    return plans


def check_images(items: Sequence[TrainingItem]) -> None:
    """Refuse scans of which one image stands under several patients.

    Raises
    ------
    DataError
    """
    owners: dict[str, str] = {}
    for item in items:
        owner = owners.setdefault(item.image_sha256 or item.name, item.patient)
        if owner != item.patient:
            raise DataError(
                "one image stands under several patients: no fold could keep them apart",
                where=item.name,
                got=f"{owner} and {item.patient}",
                remedy="give them one patient's name in the manifest and embed again",
            )
