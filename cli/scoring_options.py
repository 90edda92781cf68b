"""Options of the commands that score and tune models."""

from __future__ import annotations

import click

# The rules of `segmentation.aggregation`, written out so that help needs no PyTorch; a test keeps them the same.
RULE_NAMES = ("sum>t", "mean", "weighted", "product", "majority", "logistic", "svm")


def rule_option(flag: str):  # type: ignore[no-untyped-def]
    """The choice of an aggregation rule under a flag."""
    return click.option(
        flag,
        "rule",
        type=click.Choice(RULE_NAMES),
        help="How the views' probabilities become a mask; quote sum>t.  [default: sum>t; mean for rivals]",
    )


GRID = click.option(
    "--grid",
    "space",
    type=click.Choice(["native", "standard"]),
    default="native",
    show_default=True,
    help="Score on each image's own grid, or on the standard one.",
)
NSD_TOLERANCE = click.option(
    "--nsd-tolerance-mm",
    type=float,
    default=2.0,
    show_default=True,
    help="Of the normalised surface Dice (DeepMind's definition).",
)
