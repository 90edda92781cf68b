"""Ratios and what is drawn from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.augmentation_plan import Ratios, parse_ratio, plan_volumes
from standard_space.cohort import Entry
from standard_space.errors import UsageError

ENTRY = Entry("p1", "a", 0.0, "early", "observed", "p1_a.h5", "0" * 64, 1000.0, 5.0)


@pytest.mark.parametrize(
    ("text", "ratio"), [("200%", 2.0), ("50 %", 0.5), ("1.5", 1.5), ("0%", 0.0), ("0", 0.0), (" 3 ", 3.0)]
)
def test_ratios(text: str, ratio: float) -> None:
    assert parse_ratio(text) == ratio


@pytest.mark.parametrize("text", ["-50%", "nan", "inf", "many", "", "%", "50%%"])
def test_bad_ratios(text: str) -> None:
    with pytest.raises(UsageError, match="ratio"):
        parse_ratio(text)


def test_a_ratio_keeps_its_floor_and_one_more_by_chance() -> None:
    counts = [len(plan_volumes("p", f"s{k}", 1.5, seed=0)) for k in range(400)]
    assert set(counts) == {1, 2}
    assert 160 < counts.count(2) < 240
    assert plan_volumes("p", "s", 0.0, seed=0) == []


def test_plans_are_drawn_within_200_transitions_without_repetition() -> None:
    plans = plan_volumes("p", "s", 200.0, seed=3)
    assert sorted(plan.transitions for plan in plans) == list(range(1, 201))
    assert len({plan.seed for plan in plans}) == 200
    assert [plan.number for plan in plans] == list(range(1, 201))
    assert plan_volumes("p", "s", 2.0, seed=3) == plan_volumes("p", "s", 2.0, seed=3)
    assert plan_volumes("p", "s", 2.0, seed=3) != plan_volumes("p", "s", 2.0, seed=4)
    assert len(plan_volumes("p", "s", 201.0, seed=3)) == 201


def test_the_most_particular_ratio_counts() -> None:
    ratios = Ratios.parse("200%", ["early=50%", "late = 0%"], ["p2=3"])
    assert ratios.of(ENTRY) == 0.5
    assert ratios.of(replace(ENTRY, stage="late")) == 0.0
    assert ratios.of(replace(ENTRY, stage=None)) == 2.0
    assert ratios.of(replace(ENTRY, patient="p2")) == 3.0
    ratios.check_names([ENTRY, replace(ENTRY, patient="p2", stage="late")])


@pytest.mark.parametrize("text", ["early", "=50%", "early=", "early=half"])
def test_a_named_ratio_needs_name_and_ratio(text: str) -> None:
    with pytest.raises(UsageError, match=r"NAME=RATIO|ratio"):
        Ratios.parse("200%", [text])


def test_a_name_given_twice_or_unknown_is_told() -> None:
    with pytest.raises(UsageError, match="two ratios for one name"):
        Ratios.parse("200%", ["early=50%", "early=60%"])
    with pytest.raises(UsageError, match=r"no scan has this stage.*got late, expected one of early"):
        Ratios.parse("200%", ["late=50%"]).check_names([ENTRY])
    with pytest.raises(UsageError, match=r"no scan has this patient.*got p9, expected one of p1"):
        Ratios.parse("200%", [], ["p9=50%"]).check_names([ENTRY])
