"""The command `crossvalidate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.console import KEPT, Console, example, force_option, shared_options
from cli.options import DEVICE, FILE, METHOD, seed_option
from cli.scoring_options import GRID, NSD_TOLERANCE, rule_option


@click.command(epilog=example("lungcast crossvalidate cohort cv --folds 5 --augmented augmented"))
@click.argument("cohort", type=FILE)
@click.argument("out", type=FILE)
@METHOD
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="Of patients.")
@click.option("--augmented", type=FILE, help="Synthetic scans of COHORT, trained on with their patient.")
@click.option("--target", type=click.Choice(["infection", "lungs"]), default="infection", show_default=True)
@click.option("--steps", type=int, help="Optimiser steps per network (one per view).  [default: 2000]")
@click.option(
    "--epochs", type=float, help="Instead of --steps: epochs of 64 slices per original scan and view."
)
@click.option(
    "--batch", "batch_size", type=int, help="Slices or patches per step.  [default: 8; rivals: 2, 8 or 16]"
)
@click.option(
    "--patch",
    type=int,
    help="Side of training patches, voxels.  [default: 3/8 of the grid; rivals: theirs, in mm]",
)
@click.option(
    "--width", type=int, help="Channels of the networks' first level.  [default: 16; rivals: as published]"
)
@click.option(
    "--memory-mb", default=3000, show_default=True, help="For scans kept in memory; others take turns."
)
@rule_option("--aggregation")
@GRID
@NSD_TOLERANCE
@seed_option
@DEVICE
@force_option
@shared_options(KEPT)
def crossvalidate(
    console: Console,
    cohort: Path,
    out: Path,
    folds: int,
    augmented: Path | None,
    space: str,
    nsd_tolerance_mm: float,
    device: str,
    force: bool,
    **chosen: Any,
) -> None:
    """Train, tune and score a model per fold of COHORT's patients, and pool the scores in OUT.

    Every annotated scan is scored once, by a model that never saw its patient; rule and threshold are tuned on
    patients of the training folds. A run that was interrupted goes on when it is run again. A fold that fails is
    named at the end (exit code 1) and the rest completes.
    """
    from segmentation.crossvalidation.run import crossvalidate as run
    from segmentation.crossvalidation.table import format_crossvalidation
    from segmentation.evaluation.scan_scores import ScoringOptions
    from segmentation.methods import options_for
    from standard_space.cohort import Cohort

    # What is not named above is an option of training under its own name.
    options = options_for(**{name: value for name, value in chosen.items() if value is not None})
    opened = Cohort.open(cohort)
    with console.progress("crossvalidate") as progress:
        result = run(
            opened,
            out,
            folds=folds,
            augmented=None if augmented is None else Cohort.open(augmented, sources=opened),
            options=options,
            scoring=ScoringOptions(space, nsd_tolerance_mm),
            device=device,
            force=force,
            progress=progress,
        )
    if result.scores is not None:
        console.say(format_crossvalidation(result.scores, folds))
        if result.kept:
            console.say(f"{result.kept} folds were finished by an earlier run")
        console.wrote(
            {"scores": out / "scores.json", "table": out / "scores.csv", "figures": out / "figures"}
        )
    console.finish(result.failures, result.notes)
