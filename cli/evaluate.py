"""The command `evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import Console, example, shared_options
from cli.options import DEVICE, FILE, THRESHOLD


@click.command(epilog=example("lungcast evaluate model cohort --json scores.json"))
@click.argument("model", type=FILE)
@click.argument("cohort", type=FILE)
@click.option("--json", "json_path", type=FILE, help="Where to write the scores.")
@THRESHOLD
@DEVICE
@shared_options
def evaluate(
    console: Console,
    model: Path,
    cohort: Path,
    json_path: Path | None,
    threshold: float | None,
    device: str,
) -> None:
    """Score MODEL on the annotated scans of COHORT, on their native grids.

    Scans of patients that the model was trained on (known by hash) are reported apart from held-out ones.
    """
    from segmentation.evaluate import evaluate as score
    from segmentation.evaluate import format_scores
    from segmentation.model import ThreeWaySegmenter
    from standard_space.cohort import Cohort
    from standard_space.files import write_json

    loaded, opened = ThreeWaySegmenter.load(model), Cohort.open(cohort)
    with console.progress("evaluate") as progress:
        scores = score(loaded, opened, threshold=threshold, device=device, progress=progress)
    console.say(format_scores(scores))
    if json_path is not None:
        write_json(json_path, scores)
        console.wrote({"scores": json_path})
