"""The command `crossvalidate`."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import Console, example, force_option, shared_options
from cli.options import DEVICE, FILE, seed_option
from cli.scoring_options import GRID, NSD_TOLERANCE, rule_option


@click.command(epilog=example("lungcast crossvalidate cohort cv --folds 5 --augmented augmented"))
@click.argument("cohort", type=FILE)
@click.argument("out", type=FILE)
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="Of patients.")
@click.option("--augmented", type=FILE, help="Synthetic scans of COHORT, trained on with their patient.")
@click.option("--steps", type=int, help="Optimiser steps per view  [default: 2000]")
@click.option("--batch", "batch_size", default=8, show_default=True, help="Slices per step.")
@click.option("--width", default=16, show_default=True, help="Channels of the networks' first level.")
@rule_option("--aggregation")
@GRID
@NSD_TOLERANCE
@seed_option
@DEVICE
@force_option
@shared_options
def crossvalidate(
    console: Console,
    cohort: Path,
    out: Path,
    folds: int,
    augmented: Path | None,
    steps: int | None,
    batch_size: int,
    width: int,
    rule: str,
    space: str,
    nsd_tolerance_mm: float,
    seed: int,
    device: str,
    force: bool,
) -> None:
    """Train, tune and score a model per fold of COHORT's patients, and pool the scores in OUT.

    Every annotated scan is scored once, by a model that never saw its patient; rule and threshold are tuned on
    patients of the training folds. A run that was interrupted goes on when it is run again. A fold that fails is
    named at the end (exit code 1) and the rest completes.
    """
    from segmentation.crossvalidation.run import crossvalidate as run
    from segmentation.crossvalidation.table import format_crossvalidation
    from segmentation.evaluation.scan_scores import ScoringOptions
    from segmentation.training import TrainingOptions
    from standard_space.cohort import Cohort

    opened = Cohort.open(cohort)
    with console.progress("crossvalidate") as progress:
        result = run(
            opened,
            out,
            folds=folds,
            augmented=None if augmented is None else Cohort.open(augmented, sources=opened),
            options=TrainingOptions(steps=steps, batch_size=batch_size, width=width, rule=rule, seed=seed),
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
