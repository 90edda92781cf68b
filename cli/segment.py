"""Commands that segment: segment, threshold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.console import KEPT, WITH_FORCE, Console, example, force_option, parse_window, shared_options, table
from cli.options import DEVICE, FILE, THRESHOLD

if TYPE_CHECKING:
    from segmentation.results.lung_finder import LungFinder
    from segmentation.results.segment_image import SegmentOptions
    from segmentation.scan_predictor import ScanPredictor

CONSOLIDATION_HU = click.option(
    "--consolidation-hu",
    type=click.FloatRange(-1024, 3071),
    default=-200.0,
    show_default=True,
    help="Clinical cut to consolidation, HU.",
)
DICOM_SEG = click.option(
    "--dicom-seg",
    is_flag=True,
    help="Write a DICOM-SEG that opens on IMAGE, a DICOM folder (extra `dicom`). It carries the UIDs of study, "
    "series and slices, which no other output does.",
)


@click.command(epilog=example("lungcast segment model scan.nii.gz out"))
@click.argument("model", type=FILE)
@click.argument("image", type=FILE)
@click.argument("out", type=FILE)
@click.option(
    "--lungs",
    type=FILE,
    help="Lung mask on the image's grid, for a folder of scans a folder of masks with their names; or a model of "
    "the lungs. Found by classical operations when absent.",
)
@click.option(
    "--lobes",
    type=FILE,
    help="Lobe labels on the image's grid (or a folder of them), for shares and severity scores of the lobes.",
)
@click.option("--window", help="LEVEL,WIDTH in HU; overrides the image's own.")
@THRESHOLD
@CONSOLIDATION_HU
@click.option(
    "--probability/--no-probability", default=True, show_default=True, help="Write the probability too."
)
@DICOM_SEG
@DEVICE
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Of the networks; auto takes bfloat16 where it is faster.",
)
@click.option("--batch", type=click.IntRange(1), help="Slices per pass; chosen by the memory when absent.")
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Run the networks through torch.compile: slower for one scan, faster for many.",
)
@force_option
@shared_options(KEPT)
def segment(
    console: Console,
    model: Path,
    image: Path,
    out: Path,
    lungs: Path | None,
    lobes: Path | None,
    window: str | None,
    threshold: float | None,
    consolidation_hu: float,
    probability: bool,
    dicom_seg: bool,
    device: str,
    precision: str,
    batch: int | None,
    compiled: bool,
    force: bool,
) -> None:
    """Segment IMAGE (a file, a DICOM folder, or a folder of scans) into OUT.

    Masks and probability lie on the image's own grid and open on top of it in any viewer. A folder with DICOM
    files directly in it is one scan; any other is a folder of scans: its image files, and its subfolders with a
    DICOM series. Each of those gets a folder of its own in OUT. Scans that an earlier run with the same model and
    settings has done are kept; one that fails is named at the end (exit code 1) and the rest completes.
    """
    from segmentation.methods import load_segmenter, predictor_for
    from segmentation.results.lung_finder import LungFinder
    from segmentation.results.scan_folder import check_masks, scans_in
    from segmentation.results.segment_folder import check_writable, run_request
    from segmentation.results.segment_image import SegmentOptions
    from segmentation.segmenter import MODEL_FILE
    from standard_space.errors import UsageError
    from standard_space.folders import check_apart
    from standard_space.window import Window

    scans = scans_in(image)
    lungs_model = lungs if lungs is not None and (lungs / MODEL_FILE).is_file() else None
    masks = None if lungs_model else lungs
    for given, option in ((masks, "--lungs"), (lobes, "--lobes")):
        check_masks(given, option, folder=scans is not None)
    pair = parse_window(window)
    chosen = None if pair is None else Window(*pair, source="caller")
    loaded = load_segmenter(model)
    if loaded.target == "lungs" and (lungs or lobes):
        raise UsageError("this model finds the lungs: it takes neither --lungs nor --lobes", where=model)
    check_apart(out, [path for path in (model, image, lungs, lobes) if path is not None])
    options = SegmentOptions(chosen, threshold, consolidation_hu, probability, dicom_seg)
    predictor = predictor_for(loaded, device=device, batch=batch, precision=precision, compiled=compiled)
    finder = None
    if lungs_model is not None:
        lungs_loaded = load_segmenter(lungs_model)
        finder = LungFinder(predictor_for(lungs_loaded, device=device, batch=batch, precision=precision))
    asked = run_request(loaded, options, precision=precision, lung_finder=finder)
    check_writable(out)
    if scans is None:
        _one(console, predictor, image, out, masks, lobes, finder, options, asked, force)
    else:
        _many(console, predictor, scans, out, masks, lobes, finder, options, asked, force)


def _one(
    console: Console,
    predictor: ScanPredictor,
    image: Path,
    out: Path,
    lungs: Path | None,
    lobes: Path | None,
    finder: LungFinder | None,
    options: SegmentOptions,
    asked: dict[str, Any],
    force: bool,
) -> None:
    from segmentation.results.files import notes_of, result_files
    from segmentation.results.segment_folder import KIND, scan_request, segment_into, whole_report
    from segmentation.results.segment_image import ScanInput, prepare_scan
    from standard_space.folders import folder_lock, is_continued

    source = ScanInput(image, lungs, lobes)
    mine = scan_request(source, asked)
    continued = is_continued(out, KIND, mine, what="another segmentation", force=force)
    report = whole_report(out, source.stem, mine, options) if continued else None
    if report is not None:
        console.note("this scan was segmented before with the same model and settings; --force does it again")
    else:
        prepared = prepare_scan(source, predictor.model, options, lung_finder=finder)
        with folder_lock(out), console.progress("segment") as progress:
            report = segment_into(predictor, prepared, out, mine, options, progress=progress)
    for line in notes_of(report):
        console.note(line)
    _say(console, report, options.consolidation_hu)
    files = result_files(source.stem, report["target"], options.result_options(image))
    console.wrote({what: out / name for what, name in files.items()})


def _many(
    console: Console,
    predictor: ScanPredictor,
    scans: list[Path],
    out: Path,
    lungs: Path | None,
    lobes: Path | None,
    finder: LungFinder | None,
    options: SegmentOptions,
    asked: dict[str, Any],
    force: bool,
) -> None:
    from segmentation.results.segment_folder import prepare_folder, segment_folder
    from segmentation.results.summary import SUMMARY, summary_table
    from standard_space.folders import folder_lock

    target = predictor.model.target
    with folder_lock(out):
        prepare_folder(out, asked, force=force)
        with console.progress("segment") as progress:
            outcome = segment_folder(
                predictor,
                scans,
                out,
                asked,
                options,
                lungs=lungs,
                lobes=lobes,
                lung_finder=finder,
                progress=progress,
            )
    console.say(table(summary_table(outcome.reports, target)))
    before = f", {len(outcome.kept)} of them by an earlier run" if outcome.kept else ""
    cut = f"; consolidation cut at {options.consolidation_hu:g} HU" if target == "infection" else ""
    console.say(f"{len(outcome.reports)} of {len(scans)} scans segmented{before}{cut}:")
    console.wrote({"results": out, "summary": out / SUMMARY})
    if outcome.leftovers:
        names = ", ".join(outcome.leftovers[:3]) + (", ..." if len(outcome.leftovers) > 3 else "")
        console.note(f"{out} also holds results of scans that are not in the folder now: {names}")
    console.finish(outcome.failures, outcome.notes)


@click.command(epilog=example("lungcast threshold out scan.nii.gz out-1.6 --threshold 1.6"))
@click.argument("result", type=FILE)
@click.argument("image", type=FILE)
@click.argument("out", type=FILE)
@THRESHOLD
@CONSOLIDATION_HU
@click.option(
    "--lobes", type=FILE, help="Lobe labels on the image's grid; needed again where RESULT scores lobes."
)
@DICOM_SEG
@force_option
@shared_options(WITH_FORCE)
def threshold(
    console: Console,
    result: Path,
    image: Path,
    out: Path,
    threshold: float | None,
    consolidation_hu: float,
    lobes: Path | None,
    dicom_seg: bool,
    force: bool,
) -> None:
    """Write a RESULT of `lungcast segment` anew with another threshold, without running the networks.

    IMAGE is the one RESULT was made from: its HU are needed for what is measured. The files are those that
    `lungcast segment --threshold` would write.
    """
    from segmentation.aggregation import Aggregation
    from segmentation.results.files import ResultOptions, notes_of, result_files
    from segmentation.results.rethreshold import read_result, rethreshold
    from segmentation.results.segment_folder import KIND, check_writable
    from standard_space.errors import UsageError
    from standard_space.files import check_output_folder, prepare_output_folder, write_mark
    from standard_space.folders import check_apart, folder_lock
    from standard_space.version import lungcast_version

    if not image.exists():
        raise UsageError("no such image", where=image)
    check_apart(out, [path for path in (result, image, lobes) if path is not None])
    check_output_folder(out, KIND, force=force)
    check_writable(out)
    stored = read_result(result, image, lobes=lobes, dicom_seg=dicom_seg)
    Aggregation.from_json(stored.report["aggregation"]).at(threshold)
    with folder_lock(out):
        prepare_output_folder(out, KIND, force=force)
        report = rethreshold(stored, out, threshold=threshold, consolidation_hu=consolidation_hu)
        asked = {key: report[key] for key in ("model_id", "target", "aggregation", "image_sha256")}
        own = {"lungcast_version": lungcast_version(), "operation": "threshold", **asked}
        write_mark(out, KIND, {**own, "complete": True})
    for line in notes_of(report):
        console.note(line)
    _say(console, report, consolidation_hu)
    files = result_files(stored.stem, report["target"], ResultOptions(dicom_seg=stored.series))
    console.wrote({what: out / name for what, name in files.items()})


def _say(console: Console, report: dict[str, Any], consolidation_hu: float) -> None:
    """The result in a line or two."""
    if report["target"] == "lungs":
        console.say(f"Lungs {report['lungs_ml']:.0f} ml:")
        return
    share = report["infected_share"]
    console.say(
        f"Infected {report['infection_ml']:.1f} ml of {report['lungs_ml']:.0f} ml lung"
        f"{'' if share is None else f' ({share:.1%})'}; consolidation cut at {consolidation_hu:g} HU:"
    )
    if report["infection_ml"] == 0:
        console.note(
            "nothing was found: a healthy scan looks like this, and so does any scan to a model of too few steps"
        )
    scores = report["severity"]
    if scores is not None and scores["total"] is not None:
        console.say(f"CT severity score {scores['total']} of 25 (for research, not for diagnosis)")
