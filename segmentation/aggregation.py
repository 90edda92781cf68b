"""How the views' probabilities become one: a named rule, kept in the model [paper III-D, S1].

Every rule gives a combined probability, 0 to 1, and a mask where that exceeds a cut, so that the combined
probability can be brought to another grid, stored, and cut anew.

========  =============================================  ======================
rule      combined probability                           infected where
========  =============================================  ======================
sum>t     mean of the three                              their sum > threshold
mean      mean of all                                    it > threshold
weighted  weighted mean, weights learned                 it > threshold
product   cube root of their product                     it > threshold
majority  median of the three                            it > threshold
logistic  logistic function of weighted log odds         it > threshold
svm       logistic function of a linear machine's score  it > threshold
========  =============================================  ======================

The median exceeds a threshold exactly where at least two of the three do. The paper's rule is ``sum>t``, t = 2.
``mean`` and the learned rules serve methods with any number of views, ``mean`` those with one as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from standard_space.errors import UsageError

RULES = ("sum>t", "mean", "weighted", "product", "majority", "logistic", "svm")
LEARNED_RULES = ("weighted", "logistic", "svm")

DEFAULT_THRESHOLD = 2.0
"""Infected where the sum of the three probabilities exceeds this [paper III-D]."""

LOG_ODDS_EPSILON = 1e-4
"""Probabilities are kept this far from 0 and 1 before their odds are taken."""


@dataclass(frozen=True)
class Aggregation:
    """A rule and its numbers.

    Parameters
    ----------
    rule : str
        One of `RULES`.
    threshold : float
        On the sum of the three probabilities (0 to 3) for ``sum>t``, on the combined probability (0 to 1) for
        every other rule.
    weights : tuple of float, optional
        Of the views, in the three-way method's order of ``VIEWS`` (xy, yz, xz), for the learned rules.
    bias : float
        Of the logistic and svm rules.

    Raises
    ------
    UsageError
        Unknown rule, a threshold out of range, or a learned rule without its weights.
    """

    rule: str = "sum>t"
    threshold: float = DEFAULT_THRESHOLD
    weights: tuple[float, ...] | None = None
    bias: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UsageError("unknown aggregation rule", got=self.rule, expected=", ".join(RULES))
        check_threshold(self.threshold, self.rule)
        if self.rule not in LEARNED_RULES:
            return
        numbers = (*(self.weights or ()), self.bias)
        if len(numbers) < 2 or not all(map(math.isfinite, numbers)):
            raise UsageError(
                f"the rule {self.rule} needs a finite weight for each view",
                got=self.weights,
                remedy="learn them with `lungcast tune`",
            )

    @property
    def cut(self) -> float:
        """The threshold on the combined probability, 0 to 1."""
        return self.threshold / 3.0 if self.rule == "sum>t" else self.threshold

    @property
    def view_count(self) -> int | None:
        """How many views the rule is for; None for any number."""
        if self.rule in LEARNED_RULES:
            return len(self.weights or ())
        return None if self.rule == "mean" else 3

    def at(self, threshold: float | None) -> Aggregation:
        """Return the same rule with another threshold; None changes nothing.

        Raises
        ------
        UsageError
            The threshold is out of range.
        """
        return self if threshold is None else replace(self, threshold=float(threshold))

    def combine(self, views: Tensor) -> Tensor:
        """Return the combined probability.

        Parameters
        ----------
        views : Tensor (views, ...)
            Probabilities, 0 to 1, in the order of the method's views; any device. Not changed.

        Returns
        -------
        Tensor (...)
            0 to 1, dtype and device of `views`.

        Raises
        ------
        UsageError
            Another number of views than the rule has weights for, or than it is made for.
        """
        wanted = self.view_count
        if wanted not in (None, views.shape[0]):
            raise UsageError(f"the rule {self.rule} is for {wanted} views", got=views.shape[0])
        if self.rule in ("sum>t", "mean"):
            return views.mean(dim=0)
        if self.rule == "product":
            return views.prod(dim=0).pow_(1.0 / 3.0)
        if self.rule == "majority":
            # Of three: the larger of the smaller two of any order.
            low, high = torch.minimum(views[0], views[1]), torch.maximum(views[0], views[1])
            return torch.maximum(low, torch.minimum(high, views[2]))
        features = torch.logit(views, LOG_ODDS_EPSILON) if self.rule == "logistic" else views
        weights = self.weights or ()
        score = features[0] * weights[0]
        for view, weight in zip(features[1:], weights[1:], strict=True):
            score += view * weight
        if self.rule == "weighted":
            return score.clamp_(0.0, 1.0)
        return torch.sigmoid_(score.add_(self.bias))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        content: dict[str, Any] = {"rule": self.rule, "threshold": self.threshold}
        if self.rule in LEARNED_RULES:
            content["weights"] = None if self.weights is None else list(self.weights)
            content["bias"] = self.bias
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Aggregation:
        """The rule of plain values.

        Raises
        ------
        UsageError
            Not a rule's values.
        """
        try:
            weights = content.get("weights")
            return cls(
                str(content["rule"]),
                float(content["threshold"]),
                None if weights is None else tuple(float(weight) for weight in weights),
                float(content.get("bias", 0.0)),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"not an aggregation rule ({error!r})", got=content) from None


def usual_threshold(rule: str) -> float:
    """Return a rule's threshold before tuning: even odds for ``mean`` and learned rules, else the paper's."""
    if rule == "mean" or rule in LEARNED_RULES:
        return 0.5
    return DEFAULT_THRESHOLD if rule == "sum>t" else DEFAULT_THRESHOLD / 3.0


def check_threshold(threshold: float, rule: str = "sum>t") -> None:
    """Refuse a threshold that is out of a rule's range.

    Raises
    ------
    UsageError
        Outside 0 to 3 for ``sum>t``, outside 0 to 1 for every other rule, or not a number.
    """
    highest = 3.0 if rule == "sum>t" else 1.0
    if not 0.0 <= threshold <= highest:
        scale = "the sum of three probabilities" if rule == "sum>t" else f"the probability combined by {rule}"
        raise UsageError(
            f"the threshold on {scale} is out of range", got=threshold, expected=f"0 to {highest:g}"
        )
