"""Commands of the segmenter: train, segment, evaluate."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import Console, example, force_option, parse_window, shared_options

FILE = click.Path(path_type=Path)
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
THRESHOLD = click.option(
    "--threshold",
    type=float,
    help="On the sum of the three probabilities, 0..3; the model's own when absent.",
)


@click.command(epilog=example("lungcast train cohort model --augmented augmented --steps 2000"))
@click.argument("cohort", type=FILE)
@click.argument("model", type=FILE)
@click.option("--augmented", type=FILE, help="Synthetic scans from `lungcast augment`, trained on as well.")
@click.option("--steps", type=int, help="Optimiser steps per view  [default: 2000]")
@click.option(
    "--epochs", type=float, help="Instead of --steps: epochs of 64 slices per original scan and view."
)
@click.option("--batch", "batch_size", default=8, show_default=True, help="Slices per step.")
@click.option("--width", default=16, show_default=True, help="Channels of the networks' first level.")
@click.option(
    "--synthetic-share", default=0.5, show_default=True, help="Share of slices from synthetic scans."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="The same seed gives the same weights on a CPU.",
)
@DEVICE
@force_option
@shared_options
def train(
    console: Console,
    cohort: Path,
    model: Path,
    augmented: Path | None,
    steps: int | None,
    epochs: float | None,
    batch_size: int,
    width: int,
    synthetic_share: float,
    seed: int,
    device: str,
    force: bool,
) -> None:
    """Train the three networks (axial, coronal, sagittal) on COHORT and write them into the folder MODEL."""
    from segmentation.sampling import items_of
    from segmentation.training import TrainingOptions
    from segmentation.training import train as train_model
    from standard_space.cohort import Cohort
    from standard_space.files import prepare_output_folder, write_mark
    from standard_space.version import lungcast_version

    options = TrainingOptions(
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        width=width,
        synthetic_share=synthetic_share,
        seed=seed,
    )
    originals = Cohort.open(cohort)
    synthetic = None if augmented is None else Cohort.open(augmented, sources=originals)
    prepare_output_folder(model, "model", force=force)
    with console.progress("train") as progress:
        trained = train_model(
            items_of(originals),
            [] if synthetic is None else items_of(synthetic),
            options=options,
            device=device,
            progress=progress,
            note=console.note,
        )
    trained.save(model)
    write_mark(model, "model", {"lungcast_version": lungcast_version(), "model_id": trained.model_id})
    count = f"{trained.training['originals']} scans and {trained.training['synthetic']} synthetic ones"
    losses = [f"{view} {points[-1]['loss']:.3f}" for view, points in trained.training["history"].items()]
    console.say(f"Trained on {count}; last mean loss {', '.join(losses)}:")
    console.wrote({"model": model})


@click.command(epilog=example("lungcast segment model scan.nii.gz out"))
@click.argument("model", type=FILE)
@click.argument("image", type=FILE)
@click.argument("out", type=FILE)
@click.option("--lungs", type=FILE, help="Lung mask on the image's grid; found in the image when absent.")
@click.option("--window", help="LEVEL,WIDTH in HU; overrides the image's own.")
@THRESHOLD
@click.option(
    "--consolidation-hu", default=-200.0, show_default=True, help="Clinical cut to consolidation, HU."
)
@click.option(
    "--probability/--no-probability", default=True, show_default=True, help="Write the probability too."
)
@DEVICE
@force_option
@shared_options
def segment(
    console: Console,
    model: Path,
    image: Path,
    out: Path,
    lungs: Path | None,
    window: str | None,
    threshold: float | None,
    consolidation_hu: float,
    probability: bool,
    device: str,
    force: bool,
) -> None:
    """Segment IMAGE (a file or a DICOM folder) and write mask, probability and quantification.json into OUT.

    The NIfTI files lie on the image's own grid and open on top of it in any viewer.
    """
    from segmentation.model import ThreeWaySegmenter
    from segmentation.predict import image_stem, segment_image
    from standard_space.errors import UsageError
    from standard_space.files import prepare_output_folder, write_mark
    from standard_space.version import lungcast_version
    from standard_space.window import Window

    if not image.exists():
        raise UsageError("no such image", where=image)
    pair = parse_window(window)
    chosen = None if pair is None else Window(*pair, source="caller")
    loaded = ThreeWaySegmenter.load(model)
    prepare_output_folder(out, "segmentation", force=force)
    with console.progress("segment") as progress:
        report = segment_image(
            loaded,
            image,
            out,
            lungs=lungs,
            window=chosen,
            threshold=threshold,
            consolidation_hu=consolidation_hu,
            probability=probability,
            device=device,
            progress=progress,
        )
    write_mark(out, "segmentation", {"lungcast_version": lungcast_version(), "model_id": loaded.model_id})
    for line in report["notes"]:
        console.note(line)
    share = report["infected_share"]
    console.say(
        f"Infected {report['infection_ml']:.1f} ml of {report['lungs_ml']:.0f} ml lung"
        f"{'' if share is None else f' ({share:.1%})'}; consolidation cut at {consolidation_hu:g} HU:"
    )
    stem = image_stem(image)
    written: dict[str, str | Path] = {"mask": out / f"{stem}_infection.nii.gz"}
    if probability:
        written["probability"] = out / f"{stem}_probability.nii.gz"
    console.wrote({**written, "quantification": out / "quantification.json"})


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
