"""The command `evaluate`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.console import Console, example, shared_options
from cli.options import DEVICE, FILE, THRESHOLD
from cli.scoring_options import GRID, NSD_TOLERANCE

if TYPE_CHECKING:
    from segmentation.segmenter import Segmenter
    from standard_space.cohort import Cohort
    from standard_space.progress import Progress


@click.command(epilog=example("lungcast evaluate model cohort --json scores.json --figures figures"))
@click.argument("model", type=FILE)
@click.argument("cohort", type=FILE)
@click.option("--json", "json_path", type=FILE, help="Where to write the scores.")
@click.option("--csv", "csv_path", type=FILE, help="Where to write one line per scan.")
@click.option("--figures", type=FILE, help="Folder for box plots, Bland-Altman plots and the worst cases.")
@click.option("--against", type=FILE, help="Another model, compared patient by patient (Wilcoxon).")
@GRID
@NSD_TOLERANCE
@THRESHOLD
@DEVICE
@shared_options()
def evaluate(
    console: Console,
    model: Path,
    cohort: Path,
    json_path: Path | None,
    csv_path: Path | None,
    figures: Path | None,
    against: Path | None,
    space: str,
    nsd_tolerance_mm: float,
    threshold: float | None,
    device: str,
) -> None:
    """Score MODEL on the annotated scans of COHORT.

    Scans of patients that the model was trained or tuned on (known by hash) are reported apart from held-out ones.
    A scan that fails is named at the end (exit code 1) and the rest is scored.
    """
    from segmentation.evaluation.cohort_scores import evaluate as score
    from segmentation.evaluation.comparison import compare, format_comparison
    from segmentation.evaluation.scan_scores import ScoringOptions
    from segmentation.evaluation.tables import format_scores, scores_csv
    from segmentation.methods import load_segmenter
    from standard_space.cohort import Cohort
    from standard_space.errors import LungcastError, UsageError
    from standard_space.files import check_output_file, write_json, write_text
    from standard_space.jobs import told

    options = ScoringOptions(space, nsd_tolerance_mm)
    for path in (json_path, csv_path, None if figures is None else figures / "figure.png"):
        check_output_file(path)
    loaded, opened = load_segmenter(model), Cohort.open(cohort)
    other = None if against is None else load_segmenter(against)
    if other is not None and other.target != loaded.target:
        raise UsageError(
            "the two models find different things", where=against, got=other.target, expected=loaded.target
        )
    if other is not None and other.grid_size != loaded.grid_size:
        raise UsageError(
            "the two models lie on different grids, and no cohort is on both",
            where=against,
            got=other.grid_size,
            expected=loaded.grid_size,
        )
    with console.progress("evaluate") as progress:
        scores = score(loaded, opened, threshold=threshold, device=device, options=options, progress=progress)
    console.say(format_scores(scores))
    if any(row["true_ml"] for row in scores["scans"]) and not any(
        row["predicted_ml"] for row in scores["scans"]
    ):
        console.note(
            f"the model found nothing in any scan: too few training steps, or a threshold too high ({model})"
        )
    failures: dict[str, str] = dict(scores["failures"])
    written: dict[str, str | Path] = {}
    if json_path is not None:
        write_json(json_path, scores)
        written["scores"] = json_path
    if csv_path is not None:
        write_text(csv_path, scores_csv(scores["scans"]))
        written["table"] = csv_path
    if figures is not None:
        with console.progress("figures") as progress:
            _draw(loaded, opened, scores, figures, threshold, device, progress)
        written["figures"] = figures
    if other is not None:
        with console.progress("evaluate against") as progress:
            rival = told(
                functools.partial(score, other, device=device, options=options, progress=progress), opened
            )
        if isinstance(rival, LungcastError):
            failures["against"] = f"against: {rival}"
        else:
            comparison = compare(scores, rival)
            console.say()
            console.say(
                format_comparison(comparison, (f"MODEL {loaded.model_id}", f"AGAINST {other.model_id}"))
            )
            failures |= {f"{name} (against)": text for name, text in rival["failures"].items()}
            if json_path is not None:
                write_json(json_path, {**scores, "against": rival, "comparison": comparison})
    if written:
        console.wrote(written)
    console.finish(failures)


def _draw(
    model: Segmenter,
    cohort: Cohort,
    scores: dict[str, Any],
    folder: Path,
    threshold: float | None,
    device: str,
    progress: Progress,
) -> None:
    from segmentation.evaluation.figures import draw_scores
    from segmentation.methods import predictor_for

    predictor = predictor_for(model, device=device)

    def found(row: Any) -> Any:
        scan = cohort.read(cohort.find(row["patient"], row["scan"]))
        return scan, predictor.predict(scan, threshold=threshold).mask

    draw_scores(scores, folder, found, subject=f"model {model.model_id}", progress=progress)
