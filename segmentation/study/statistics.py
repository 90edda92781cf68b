"""Means, paired differences and power; the patient is the unit throughout.

Scans of a patient, and what models of several folds and seeds make of a scan, are not independent: they are pooled
within the patient, and patients are drawn and tested as a whole.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from segmentation.evaluation.comparison import SIGNIFICANCE, paired_test
from segmentation.evaluation.metrics import ShareErrors, share_errors
from segmentation.evaluation.summary import Statistic, bootstrap_interval, mean, median, root_mean_square
from segmentation.study.records import Row
from standard_space.errors import UsageError

POWER = 0.8
FEWEST_FOLDS = 3
FEWEST_PATIENTS = 15
"""With fewer folds or patients a report says that its tests are weak."""

NAMED = 10
"""Scans without a partner that a sentence names before it counts the others."""

Values = NDArray[np.float64]
Value = Callable[[Row], float | None]


@dataclass(frozen=True)
class Estimate:
    """A statistic of some scores.

    Attributes
    ----------
    scores, patients : int
        How many went in; a scan scored by several models counts for each of them.
    value : float or None
        None without scores.
    low, high : float or None
        Of the 95 % bootstrap interval by patient; None with fewer than two patients.
    """

    scores: int
    patients: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Place:
    """One score, as it is paired: a scan and the model that found it.

    Attributes
    ----------
    fold : int or None
        None where folds were averaged, because the two sides were cut into different numbers of them.
    """

    cohort: str
    patient: str
    scan: str
    fold: int | None
    seed: int


@dataclass(frozen=True)
class Difference:
    """A paired difference, first minus second.

    Attributes
    ----------
    scores, patients : int
        Pairs, and the patients they belong to.
    mean, low, high : float or None
        Mean over patients of their mean difference, with its 95 % interval (None below two patients).
    median : float or None
    better, worse : int
        Patients above and below zero.
    effect : float or None
        Matched-pairs rank-biserial correlation, -1 to 1.
    p, smallest_p : float or None, float
        Of the two-sided Wilcoxon signed-rank test, and the least it could be with these patients.
    p_method : str
    sd : float or None
        Of the patients' differences; None below two.
    detectable : float or None
        See `smallest_detectable`.
    only_first, only_second : tuple of Place
        Scores without a partner; they are not in the difference.
    """

    scores: int
    patients: int
    mean: float | None
    low: float | None
    high: float | None
    median: float | None
    better: int
    worse: int
    effect: float | None
    p: float | None
    smallest_p: float
    p_method: str
    sd: float | None
    detectable: float | None
    only_first: tuple[Place, ...]
    only_second: tuple[Place, ...]

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def score(name: str) -> Value:
    """Return what reads a score of a row, one of `SCORES`; None for a scan without infection, however scored."""

    def value(row: Row) -> float | None:
        found: float | None = getattr(row, name)
        return found if row.infected else None

    return value


def by_patient(rows: Iterable[Row], value: Value) -> list[Values]:
    """Gather the values of each patient's rows, patients by cohort and name; None is left out."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        found = value(row)
        if found is not None:
            groups.setdefault((row.cohort, row.patient), []).append(found)
    return [np.array(groups[patient]) for patient in sorted(groups)]


def estimate(rows: Iterable[Row], value: Value, statistic: Statistic = mean) -> Estimate:
    """Return a statistic over all scores with its interval, patients drawn with all of theirs.

    Parameters
    ----------
    rows : iterable of Row
    value : callable
        Of a row; for example ``score("dice")``.
    statistic : callable
        `mean`, `median` or `root_mean_square` of `segmentation.evaluation.summary`.
    """
    groups = by_patient(rows, value)
    if not groups:
        return Estimate(0, 0, None, None, None)
    values = np.concatenate(groups)
    low, high = bootstrap_interval(groups, statistic) or (None, None)
    return Estimate(values.size, len(groups), float(statistic(values)), low, high)


def median_of(rows: Iterable[Row], value: Value) -> Estimate:
    """Return the median with its interval, see `estimate`."""
    return estimate(rows, value, median)


def rmse_of(rows: Iterable[Row], unit: str) -> Estimate:
    """Return the RMSE of the found against the true "share" or "ml" with its interval, see `estimate`."""

    def error(row: Row) -> float | None:
        found, true = _quantities(row, unit)
        return None if found is None or true is None else found - true

    return estimate(rows, error, root_mean_square)


def agreement_of(rows: Iterable[Row], unit: str) -> ShareErrors:
    """Compare the found with the true "share" or "ml" over the rows that have both."""
    pairs = [
        (found, true)
        for found, true in (_quantities(row, unit) for row in rows)
        if found is not None and true is not None
    ]
    return share_errors([found for found, _ in pairs], [true for _, true in pairs])


def paired(first: Sequence[Row], second: Sequence[Row], value: Value | None = None) -> Difference:
    """Compare two configurations on the scans both have.

    Rows are paired by (cohort, patient, scan, fold, seed). Where the two were cut into different numbers of folds,
    fold 1 of one is not fold 1 of the other: then a scan's scores are averaged over folds first.

    Parameters
    ----------
    first, second : sequence of Row
        Each of one configuration.
    value : callable, optional
        Of a row; Dice when absent.

    Raises
    ------
    UsageError
        One side holds several configurations.
    """
    value = value or score("dice")
    configurations = [{row.configuration for row in side} for side in (first, second)]
    for side in configurations:
        if len(side) > 1:
            names = sorted(configuration.label for configuration in side)
            raise UsageError("only one configuration can be compared with one other", got="; ".join(names))
    folds = {configuration.folds for side in configurations for configuration in side}
    ones, others = (_scores(side, value, keep_folds=len(folds) < 2) for side in (first, second))
    differences: dict[tuple[str, str], list[float]] = {}
    for place in sorted(ones.keys() & others.keys(), key=_in_order):
        differences.setdefault((place.cohort, place.patient), []).append(ones[place] - others[place])
    groups = [np.array(values) for values in differences.values()]
    tested = paired_test(groups)
    means = [float(values.mean()) for values in groups]
    sd = statistics.stdev(means) if len(means) > 1 else None
    low, high = tested["mean_interval"] or (None, None)
    return Difference(
        scores=sum(values.size for values in groups),
        patients=tested["patients"],
        mean=tested["mean"],
        low=low,
        high=high,
        median=tested["median"],
        better=tested["better"],
        worse=tested["worse"],
        effect=tested["rank_biserial"],
        p=tested["p"],
        smallest_p=tested["smallest_p"],
        p_method=tested["p_method"],
        sd=sd,
        detectable=smallest_detectable(sd, len(means)),
        only_first=tuple(sorted(ones.keys() - others.keys(), key=_in_order)),
        only_second=tuple(sorted(others.keys() - ones.keys(), key=_in_order)),
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values for their number [Holm, Scand J Stat 6:65, 1979]; None stays None and is not counted."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        corrected[place] = least
    return corrected


def smallest_detectable(
    sd: float | None, patients: int, *, power: float = POWER, significance: float = SIGNIFICANCE
) -> float | None:
    """Return the smallest mean difference that a paired t test of so many patients finds with this power.

    For the signed-rank test it is a little more (5 % at a normal distribution) or less. None where it says
    nothing: no SD, fewer than two patients, or so few that the signed-rank test can never reach the significance.

    Parameters
    ----------
    sd : float or None
        Of the patients' paired differences.
    patients : int
    power, significance : float
        0 to 1; the test is two-sided.
    """
    if sd is None or sd == 0 or patients < 2 or not can_be_shown(patients, significance=significance):
        return None
    free = patients - 1
    limit = float(stats.t.ppf(1 - significance / 2, free))

    def lacking(shift: float) -> float:
        found = stats.nct.sf(limit, free, shift) + stats.nct.cdf(-limit, free, shift)
        return float(found) - power

    # Far beyond this SciPy's noncentral t is NaN; here the power is above 0.99 for every number of patients.
    shift = optimize.brentq(lacking, 0.0, limit + 4.0)
    return float(shift) * sd / math.sqrt(patients)


def can_be_shown(patients: int, *, significance: float = SIGNIFICANCE) -> bool:
    """Whether the signed-rank test of so many patients can reach the significance at all."""
    return patients > 0 and 2.0 ** (1 - patients) <= significance


def few_sentences(name: str, folds: int, patients: int) -> list[str]:
    """Say that a cohort's folds or patients are few; nothing where they are not."""
    if folds >= FEWEST_FOLDS and patients >= FEWEST_PATIENTS:
        return []
    text = (
        f"{name}: {_count(folds, 'fold')} and {_count(patients, 'patient')} are few (fewer than {FEWEST_FOLDS} "
        f"folds or {FEWEST_PATIENTS} patients): intervals are too narrow, only large differences can be shown"
    )
    if not can_be_shown(patients):
        floor = f"{2.0 ** (1 - patients):.3g}" if patients else "1"
        text += f"; p cannot fall below {floor}, so no difference of any size can be shown"
    return [text]


def without_partner(places: Sequence[Place], partners: Iterable[Row]) -> str:
    """Name scores without a partner: whole models first, then the first few scans one by one.

    Parameters
    ----------
    places : sequence of Place
        The scores.
    partners : iterable of Row
        Of the other side: a model of which it has nothing is named as a whole.
    """
    have = {(row.cohort, row.fold, row.seed) for row in partners} | {
        (row.cohort, None, row.seed) for row in partners
    }
    models: dict[str, int] = {}
    scans = []
    for place in places:
        model = f"seed {place.seed}" if place.fold is None else f"fold {place.fold}, seed {place.seed}"
        if (place.cohort, place.fold, place.seed) in have:
            scans.append(f"{place.patient}/{place.scan} ({model})")
        else:
            models[model] = models.get(model, 0) + 1
    told = [f"all of {model} ({_count(number, 'scan')})" for model, number in models.items()]
    told += scans[:NAMED]
    if len(scans) > NAMED:
        told.append(f"{len(scans) - NAMED} more")
    return "; ".join(told)


def _scores(rows: Iterable[Row], value: Value, *, keep_folds: bool) -> dict[Place, float]:
    groups: dict[Place, list[float]] = {}
    for row in rows:
        found = value(row)
        if found is not None:
            place = Place(row.cohort, row.patient, row.scan, row.fold if keep_folds else None, row.seed)
            groups.setdefault(place, []).append(found)
    return {place: statistics.fmean(values) for place, values in groups.items()}


def _in_order(place: Place) -> tuple[str, str, str, int, int]:
    return place.cohort, place.patient, place.scan, place.fold or 0, place.seed


def _quantities(row: Row, unit: str) -> tuple[float | None, float | None]:
    return getattr(row, f"predicted_{unit}"), getattr(row, f"true_{unit}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
