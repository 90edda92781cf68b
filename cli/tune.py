"""The command `tune`."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import Console, example, shared_options
from cli.options import DEVICE, FILE
from cli.scoring_options import rule_option


@click.command(epilog=example("lungcast tune model validation_cohort --rule logistic"))
@click.argument("model", type=FILE)
@click.argument("cohort", type=FILE)
@rule_option("--rule")
@DEVICE
@shared_options()
def tune(console: Console, model: Path, cohort: Path, rule: str | None, device: str) -> None:
    """Learn a rule and its threshold for MODEL on the annotated scans of COHORT, and write them into MODEL.

    COHORT must hold no patient that the model was trained on. Its patients are remembered by hash: `evaluate`
    never counts them as held out. The networks stay as they are.
    """
    from segmentation.rule_in_folder import tune_folder
    from standard_space.cohort import Cohort

    with console.progress("tune") as progress:
        found = tune_folder(model, Cohort.open(cohort), rule=rule, device=device, progress=progress)
    chosen = found.tuned.aggregation
    learned = ""
    if chosen.weights is not None:
        weights = ", ".join(f"{weight:.4g}" for weight in chosen.weights)
        learned = f", weights of the views {weights}"
        if chosen.rule != "weighted":
            learned += f", bias {chosen.bias:.4g}"
    console.say(
        f"{chosen.rule}: threshold {chosen.threshold:g}{learned}; median Dice {found.tuned.median_dice:.3f} "
        f"on the standard grid of the {found.tuned.scans} scans it was tuned on:"
    )
    for text in found.left_out:
        console.note(f"left out: {text}")
    console.wrote({"model": model})
    console.finish(found.failures)
