"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from segmentation.methods import METHODS

if TYPE_CHECKING:
    from simulator.dynamics.engine import Controls

FILE = click.Path(path_type=Path)
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
METHOD = click.option(
    "--method",
    type=click.Choice(METHODS),
    default=METHODS[0],
    show_default=True,
    help="What is trained: the paper's method or a rival (extra `baselines`).",
)
ENCODER_WEIGHTS = click.option(
    "--encoder-weights",
    type=FILE,
    help="Of --method transfer: an r3d_18 state_dict to start from; random when absent.",
)
THRESHOLD = click.option(
    "--threshold",
    type=float,
    help="On the sum of the three probabilities, 0..3 (0..1 for other rules); the model's own when absent.",
)


def controls_of(spread: float, seeded_share: float, clustering: float, correlation_mm: float) -> Controls:
    """The morphology controls, or an error for the user."""
    from simulator.dynamics.engine import Controls
    from simulator.dynamics.errors import ParameterError
    from standard_space.errors import UsageError

    try:
        return Controls(spread, seeded_share, clustering, correlation_mm)
    except ParameterError as error:
        raise UsageError(str(error)) from None


def morphology(command):  # type: ignore[no-untyped-def]
    """The four options of `Controls`."""
    for option in (
        click.option(
            "--correlation-mm", default=6.0, show_default=True, help="Scale of the texture; 0 is off."
        ),
        click.option(
            "--clustering", default=0.5, show_default=True, help="How clustered consolidation grows, 0..1."
        ),
        click.option(
            "--seeded-share", default=0.0, show_default=True, help="Share of births away from lesions, 0..1."
        ),
        click.option(
            "--spread", default=2.0, show_default=True, help="0 ragged and widespread ... 8 compact (gamma)."
        ),
    ):
        command = option(command)
    return command


seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="The same seed gives the same results.",
)
jump_option = click.option(
    "--jump",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Transitions (1/100 day) drawn at once.",
)
loss_option = click.option(
    "--loss",
    type=click.Choice(["l2", "poisson"]),
    default="l2",
    show_default=True,
    help="L2 in absolute counts (the paper's), or the Poisson likelihood.",
)
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Worker processes; they share the cores.",
)
sources_option = click.option(
    "--sources",
    type=FILE,
    help="The cohort that synthetic scans were made from; looked for beside them when absent.",
)
