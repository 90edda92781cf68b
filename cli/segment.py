"""The command `segment`."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import Console, example, force_option, parse_window, shared_options
from cli.options import DEVICE, FILE, THRESHOLD


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
    from segmentation.segment_image import image_stem, segment_image
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
