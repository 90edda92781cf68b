from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from segmentation.study.records import Row
from segmentation.study.statistics import (
    Place,
    agreement_of,
    estimate,
    few_sentences,
    holm,
    median_of,
    paired,
    rmse_of,
    score,
    smallest_detectable,
    without_partner,
)
from standard_space.errors import UsageError
from tests.segmentation.study.synthetic import arm, results, row, without_infection

DICE = score("dice")
OFFLINE = {"generator": "offline", "ratio": 200.0}


def two_arms(effect: float, **how: object) -> tuple[list[Row], list[Row]]:
    rows = results([(arm(), 0.0), (arm(**OFFLINE), effect)], **how)  # type: ignore[arg-type]
    return [one for one in rows if one.ratio], [one for one in rows if not one.ratio]


def test_a_known_effect_is_found() -> None:
    found = paired(*two_arms(0.05, patients=20, seeds=(0, 1)))
    assert (found.scores, found.patients) == (80, 20)
    assert found.mean == pytest.approx(0.05, abs=0.01)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.05 < found.high
    assert found.p is not None
    assert found.p < 0.001
    assert found.effect == pytest.approx(1.0)
    assert found.excludes_zero


def test_no_effect_is_not_found() -> None:
    found = paired(*two_arms(0.0, patients=20))
    assert not found.excludes_zero
    assert found.p is not None
    assert found.p > 0.05
    assert found.detectable is not None
    assert 0.005 < found.detectable < 0.03


def test_folds_and_seeds_are_pooled_within_the_patient() -> None:
    first = [row(patient="a", fold=fold, seed=seed, dice=0.6) for fold in (1, 2) for seed in (0, 1)]
    first.append(row(patient="b", dice=0.9))
    second = [row(**OFFLINE, patient=one.patient, fold=one.fold, seed=one.seed, dice=0.5) for one in first]
    found = paired(first, second)
    assert (found.scores, found.patients) == (5, 2)
    assert found.mean == pytest.approx((0.1 + 0.4) / 2)
    assert (found.better, found.worse) == (2, 0)


def test_an_interval_draws_patients_not_scores() -> None:
    """Fifty copies of a patient's score must not make its interval any narrower."""
    few = [row(patient=f"p{k}", dice=0.4 + 0.1 * k) for k in range(5)]
    many = [row(patient=one.patient, scan=f"t{copy}", dice=one.dice) for one in few for copy in range(50)]
    one, other = estimate(few, DICE), estimate(many, DICE)
    assert (other.scores, other.patients) == (250, 5)
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
    assert median_of(few, DICE).value == pytest.approx(0.6)


def test_patients_of_the_same_name_in_two_cohorts_are_two() -> None:
    assert estimate([row(dice=0.2), row(cohort="moscow", dice=0.4)], DICE).patients == 2


def test_scans_without_infection_have_no_dice() -> None:
    rows = without_infection([row()], 3.0)
    assert estimate(rows, DICE).value is None
    scored = [row(dice=1.0, true_ml=0.0), row(patient="p1", dice=0.4)]
    assert estimate(scored, DICE).value == pytest.approx(0.4)
    found = paired(rows, rows)
    assert (found.patients, found.p, found.only_first) == (0, None, ())


def test_one_patient_has_no_interval() -> None:
    found = paired([row(dice=0.6)], [row(**OFFLINE, dice=0.5)])
    assert (found.patients, found.low, found.sd, found.detectable) == (1, None, None, None)
    assert found.p == 1.0
    assert not found.excludes_zero
    assert estimate([row()], DICE).low is None


def test_scores_without_a_partner_are_named() -> None:
    first, second = two_arms(0.1, patients=6)
    lacking = [one for one in second if one.fold != 3 and (one.patient, one.scan) != ("p00", "t1")]
    found = paired(first, lacking)
    assert found.scores == len(lacking)
    assert found.only_second == ()
    assert Place("own", "p00", "t1", 1, 0) in found.only_first
    assert (
        without_partner(found.only_first, lacking)
        == "all of fold 3, seed 0 (4 scans); p00/t1 (fold 1, seed 0)"
    )


def test_a_missing_score_is_a_missing_partner() -> None:
    first = [row(patient="a"), row(patient="b")]
    second = [row(**OFFLINE, patient="a"), row(**OFFLINE, patient="b", dice=None)]
    assert [place.patient for place in paired(first, second).only_first] == ["b"]


def test_only_equal_models_are_paired() -> None:
    """A fold's or a seed's own difficulty cancels only when it is the same on both sides."""
    first = [row(patient="a", seed=0, dice=0.9), row(patient="a", seed=1, dice=0.3)]
    second = [row(**OFFLINE, patient="a", seed=1, dice=0.2)]
    assert paired(first, second).mean == pytest.approx(0.1)


def test_different_numbers_of_folds_are_paired_by_scan() -> None:
    first = [row(folds=2, fold=1, dice=0.5, cohort="moscow"), row(folds=2, fold=2, dice=0.7, cohort="moscow")]
    second = [row(folds=5, fold=fold, dice=0.4, cohort="moscow") for fold in range(1, 6)]
    found = paired(first, second)
    assert (found.scores, found.mean) == (1, pytest.approx(0.2))
    assert (found.only_first, found.only_second) == ((), ())


def test_one_configuration_against_one() -> None:
    with pytest.raises(UsageError, match="one configuration"):
        paired([row(), row(method="unet2d")], [row(**OFFLINE)])


def test_holm() -> None:
    assert holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06])
    assert holm([0.6, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("patients", [8, 30])
def test_the_smallest_detectable_difference_is_found_four_times_in_five(patients: int) -> None:
    shift = smallest_detectable(0.5, patients)
    assert shift is not None
    rng = np.random.default_rng(0)
    draws = rng.normal(shift, 0.5, (4000, patients))
    found = np.mean(stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=0.02)


def test_what_can_never_be_shown_is_not_called_detectable() -> None:
    assert smallest_detectable(0.1, 5) is None
    assert smallest_detectable(0.1, 6) is not None
    assert smallest_detectable(None, 20) is None
    assert smallest_detectable(0.0, 20) is None
    assert smallest_detectable(1.0, 5000) == pytest.approx((1.96 + 0.8416) / 5000**0.5, rel=1e-2)


def test_few_folds_or_patients_are_said() -> None:
    assert few_sentences("own", 5, 15) == []
    assert "2 folds and 40 patients are few" in few_sentences("own", 2, 40)[0]
    assert "1 fold and 4 patients are few" in few_sentences("own", 1, 4)[0]
    assert "p cannot fall below 0.125" in few_sentences("own", 1, 4)[0]
    assert "p cannot" not in few_sentences("own", 5, 14)[0]


def test_quantification() -> None:
    rows = [
        row(
            patient=f"p{k}",
            true_share=0.01 * k,
            predicted_share=0.01 * k + 0.002,
            true_ml=k,
            predicted_ml=k - 3 * (k > 3),
        )
        for k in range(1, 6)
    ]
    assert rmse_of(rows, "share").value == pytest.approx(0.002)
    assert agreement_of(rows, "share").pearson == pytest.approx(1.0)
    assert agreement_of(rows, "ml").worst == pytest.approx(3.0)
    assert rmse_of(rows, "ml").value == pytest.approx((9 * 2 / 5) ** 0.5)
    assert rmse_of([row(true_share=None)], "share").value is None
