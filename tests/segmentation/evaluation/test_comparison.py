from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from segmentation.evaluation.comparison import compare, format_comparison, paired_test
from tests.segmentation.evaluation.test_summary import row


def scores(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"scans": list(rows)}


def exact_p(differences: list[float]) -> float:
    """Every sign of every difference, counted."""
    values = np.array(differences)
    ranks = stats.rankdata(np.abs(values))
    observed = (ranks * (values > 0)).sum()
    centre = ranks.sum() / 2
    sums = [(ranks * np.array(signs)).sum() for signs in itertools.product((0, 1), repeat=len(values))]
    return float(np.mean(np.abs(np.array(sums) - centre) >= abs(observed - centre) - 1e-9))


@pytest.mark.parametrize(
    "differences",
    [[0.1, 0.2, -0.05, 0.4, 0.3], [0.1, 0.1, -0.1, 0.2, 0.2, 0.5, -0.3], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]],
)
def test_p_is_exact_with_few_patients_ties_or_not(differences: list[float]) -> None:
    found = paired_test([np.array([value]) for value in differences])
    assert found["p"] == pytest.approx(exact_p(differences))
    assert found["p_method"] == "exact"
    assert found["smallest_p"] == 2.0 ** (1 - len(differences))


def test_many_patients() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 1.0, 30)
    found = paired_test([values[k : k + 1] for k in range(30)])
    assert (found["p_method"], found["patients"]) == ("exact", 30)
    assert found["p"] == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)
    assert (
        paired_test([np.round(values[k : k + 1], 1) for k in range(30)])["p_method"] == "normal approximation"
    )
    low, high = found["mean_interval"]
    assert low < values.mean() < high


def test_a_patient_is_one_observation() -> None:
    found = paired_test([np.array([0.1, 0.3, -0.1]), np.array([0.2]), np.array([0.0])])
    assert (found["patients"], found["better"], found["worse"]) == (3, 2, 0)
    assert found["mean"] == pytest.approx(0.1)
    assert found["rank_biserial"] == 1.0
    assert found["smallest_p"] == 0.5  # two patients differ


def test_no_difference_and_no_patient() -> None:
    same = paired_test([np.zeros(2), np.zeros(1)])
    assert (same["p"], same["p_method"], same["smallest_p"]) == (1.0, "no patient differs", 1.0)
    assert paired_test([])["p"] is None
    assert paired_test([np.array([0.4])])["p"] == 1.0


def test_equal_differences_tie_and_none_is_none_whatever_the_last_digits() -> None:
    """0.3 - 0.2 is not 0.2 - 0.1 in floats, and 0.1 + 0.2 is not 0.3."""
    noisy = [0.3 - 0.2, 0.2 - 0.1, -(0.9 - 0.8), 0.5 - 0.3, 0.9 - 0.6, (0.1 + 0.2) - 0.3]
    assert len({abs(value) for value in noisy[:3]}) > 1
    assert noisy[5] != 0.0
    clean = [0.1, 0.1, -0.1, 0.2, 0.3, 0.0]
    found, expected = (paired_test([np.array([value]) for value in values]) for values in (noisy, clean))
    assert found == expected
    assert (found["better"], found["worse"], found["smallest_p"]) == (4, 1, 2.0**-4)
    assert found["rank_biserial"] == pytest.approx((2 + 2 - 2 + 4 + 5) / 15)


@pytest.mark.parametrize(
    ("knows", "warned"), [((True, False), ["AGAINST b"]), ((False, True), ["MODEL a"]), ((True, True), [])]
)
def test_a_model_that_does_not_know_its_patients_is_named(
    knows: tuple[bool, bool], warned: list[str]
) -> None:
    first, second = (
        {**scores(*(row(f"P{k}", "1", dice + 0.01 * k) for k in range(7))), "knows_its_patients": known}
        for dice, known in zip((0.5, 0.4), knows, strict=True)
    )
    found = compare(first, second)
    assert found["knows_its_patients"] == list(knows)
    text = format_comparison(found, ("MODEL a", "AGAINST b"))
    lines = [line for line in text.splitlines() if "does not know its training patients" in line]
    assert [line.removeprefix("warning: ").split(" was ")[0] for line in lines] == warned


def test_only_scans_held_out_for_both_are_compared() -> None:
    first = scores(
        row("A", "1", 0.9), row("B", "1", 0.8), row("C", "1", 0.7, group="training"), row("D", "1", 0.6)
    )
    second = scores(
        row("A", "1", 0.5), row("B", "1", 0.8, group="validation"), row("C", "1", 0.1), row("D", "1", 0.8)
    )
    found = compare(first, second)
    assert (found["scans"], found["patients"]) == (2, 2)
    dice = found["metrics"]["dice"]
    assert dice["mean"] == pytest.approx((0.4 - 0.2) / 2)
    assert (dice["better"], dice["worse"]) == (1, 1)
    # |found - true| of shares is less where Dice is more.
    assert found["metrics"]["share_error"]["mean"] == pytest.approx(-0.01)
    text = format_comparison(found, ("MODEL a", "AGAINST b"))
    assert "MODEL a minus AGAINST b, 2 scans of 2 patients held out for both" in text
    assert "warning: too few patients differ for this test: p for Dice cannot fall below 0.5" in text


def test_nothing_held_out_is_said_and_gives_no_p() -> None:
    found = compare(scores(row("A", "1", 0.9, group="training")), scores(row("A", "1", 0.5)))
    assert found["metrics"] == {}
    assert "nothing to compare" in format_comparison(found, ("MODEL a", "AGAINST b"))


def test_enough_patients_need_no_warning() -> None:
    first = scores(*(row(f"P{k}", "1", 0.5 + 0.01 * k) for k in range(7)))
    second = scores(*(row(f"P{k}", "1", 0.4) for k in range(7)))
    text = format_comparison(compare(first, second), ("MODEL a", "AGAINST b"))
    assert "warning" not in text
    assert "0.0156" in text
