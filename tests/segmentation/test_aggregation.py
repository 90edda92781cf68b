from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segmentation.aggregation import LEARNED_RULES, RULES, Aggregation
from standard_space.errors import UsageError

PROBABILITY = st.floats(0.0, 1.0, width=32)
WEIGHTS = (0.5, 0.2, 0.3)


def a_rule(rule: str, threshold: float = 0.5) -> Aggregation:
    return Aggregation(
        rule,
        threshold,
        WEIGHTS if rule in LEARNED_RULES else None,
        0.25 if rule in ("logistic", "svm") else 0.0,
    )


def twin(rule: str, p: tuple[float, float, float]) -> float:
    """The table in the module's docstring, one voxel at a time."""
    weighted = sum(w * q for w, q in zip(WEIGHTS, p, strict=True))
    odds = [math.log(min(max(q, 1e-4), 1 - 1e-4) / (1 - min(max(q, 1e-4), 1 - 1e-4))) for q in p]
    return {
        "sum>t": sum(p) / 3,
        "mean": sum(p) / 3,
        "weighted": weighted,
        "product": (p[0] * p[1] * p[2]) ** (1 / 3),
        "majority": sorted(p)[1],
        "logistic": 1 / (1 + math.exp(-sum(w * o for w, o in zip(WEIGHTS, odds, strict=True)) - 0.25)),
        "svm": 1 / (1 + math.exp(-weighted - 0.25)),
    }[rule]


@pytest.mark.parametrize("rule", RULES)
@given(p=st.tuples(PROBABILITY, PROBABILITY, PROBABILITY))
def test_rules_equal_their_twins_and_stay_probabilities(rule: str, p: tuple[float, float, float]) -> None:
    views = torch.tensor(p, dtype=torch.float32).reshape(3, 1)
    kept = views.clone()
    found = float(a_rule(rule).combine(views)[0])
    assert found == pytest.approx(twin(rule, p), abs=2e-4)
    assert 0.0 <= found <= 1.0
    assert torch.equal(views, kept)


def test_a_rule_is_for_its_number_of_views() -> None:
    two, six = torch.full((2, 1), 0.5), torch.full((6, 1), 0.25)
    assert float(Aggregation("mean", 0.5).combine(six)) == 0.25
    assert float(Aggregation("weighted", 0.5, (0.1,) * 6).combine(six)) == pytest.approx(0.15)
    for rule in ("sum>t", "product", "majority", "svm"):
        with pytest.raises(UsageError, match="is for 3 views"):
            a_rule(rule).combine(two)


@given(p=st.tuples(PROBABILITY, PROBABILITY, PROBABILITY), cut=st.floats(0.0, 1.0, width=32))
def test_majority_is_two_of_three(p: tuple[float, float, float], cut: float) -> None:
    combined = Aggregation("majority", 0.5).combine(torch.tensor(p).reshape(3, 1))
    assert bool(combined[0] > cut) == (sum(q > np.float32(cut) for q in np.float32(p)) >= 2)


def test_the_default_is_the_paper_s_rule() -> None:
    rule = Aggregation()
    assert (rule.rule, rule.threshold, rule.cut) == ("sum>t", 2.0, 2.0 / 3.0)
    assert rule.at(1.5).cut == 0.5
    assert rule.at(None) is rule


@pytest.mark.parametrize("rule", RULES)
def test_rules_survive_json(rule: str) -> None:
    kept = a_rule(rule, 0.4)
    assert Aggregation.from_json(json.loads(json.dumps(kept.to_json()))) == kept


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"rule": "vote", "threshold": 1.0}, "unknown aggregation rule"),
        ({"rule": "sum>t", "threshold": 3.5}, "out of range"),
        ({"rule": "sum>t", "threshold": float("nan")}, "out of range"),
        ({"rule": "product", "threshold": 2.0}, "out of range"),
        ({"rule": "weighted", "threshold": 0.5}, "a finite weight for each view"),
        (
            {"rule": "svm", "threshold": 0.5, "weights": [1.0, 2.0, float("inf")], "bias": 0.0},
            "a finite weight for each view",
        ),
        (
            {"rule": "logistic", "threshold": 0.5, "weights": [1, 1, 1], "bias": "b"},
            "not an aggregation rule",
        ),
        ({"threshold": 2.0}, "not an aggregation rule"),
        (None, "not an aggregation rule"),
    ],
)
def test_what_is_no_rule_is_refused(content: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Aggregation.from_json(content)
