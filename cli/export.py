"""The command `export`: cohorts as files for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import KEPT, Console, example, force_option, shared_options
from cli.options import FILE, jobs_option, sources_option


@click.command(epilog=example("lungcast export augmented Dataset101_Lungs --format nnunet --jobs 2"))
@click.argument("source", metavar="SRC", type=FILE)
@click.argument("out", type=FILE)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["nifti", "nnunet", "monai"]),
    required=True,
    help="Plain NIfTI files, a raw dataset of nnU-Net v2, or NIfTI files with MONAI's datalist.",
)
@click.option(
    "--geometry",
    type=click.Choice(["native", "standard"]),
    default="native",
    show_default=True,
    help="Each scan's own grid, or the standard one; both lie on the original in a viewer.",
)
@click.option(
    "--labels",
    type=click.Choice(["infection", "ggo-consolidation"]),
    default="infection",
    show_default=True,
    help="One label, or two told apart by --consolidation-hu.",
)
@click.option(
    "--consolidation-hu",
    default=-200.0,
    show_default=True,
    help="Infection at or above it is consolidation, below it GGO.",
)
@click.option("--no-originals", is_flag=True, help="Leave observed scans out.")
@click.option(
    "--folds",
    type=click.IntRange(2),
    default=5,
    show_default=True,
    help="Folds of the cross-validation; a patient's scans stay in one.",
)
@sources_option
@jobs_option
@force_option
@shared_options(KEPT)
def export(
    console: Console,
    source: Path,
    out: Path,
    format_: str,
    geometry: str,
    labels: str,
    consolidation_hu: float,
    no_originals: bool,
    folds: int,
    sources: Path | None,
    jobs: int,
    force: bool,
) -> None:
    """Write the scans of SRC, a cohort or an augmented one, as images and labels for other programs into OUT.

    Of an augmented one, the observed scans that it was made from are written too. cases.csv lists every case with
    its kind and fold. With --format nnunet, OUT is the raw dataset's folder itself (DatasetNNN_Name).

    Run again with the same arguments, it continues.
    """
    from standard_space.export.run import export_cohort
    from standard_space.export.settings import ExportSettings

    settings = ExportSettings(
        format=format_,  # type: ignore[arg-type]
        geometry=geometry,  # type: ignore[arg-type]
        labels=labels,  # type: ignore[arg-type]
        consolidation_hu=consolidation_hu,
        originals=not no_originals,
        folds=folds,
    )
    with console.progress("export") as progress:
        outcome = export_cohort(
            source, out, settings, sources=sources, jobs=jobs, force=force, progress=progress
        )
    if outcome.rows:
        synthetic = sum(row.case.entry.synthetic for row in outcome.rows)
        patients = len({row.case.entry.patient for row in outcome.rows})
        before = f", {outcome.kept} of them by an earlier run" if outcome.kept else ""
        values = ", ".join(f"{value} {name}" for name, value in settings.label_values.items())
        console.say(
            f"{len(outcome.rows)} cases ({len(outcome.rows) - synthetic} observed, {synthetic} synthetic) of "
            f"{patients} patients{before}; {geometry} geometry; {outcome.folds or 'no'} folds"
        )
        cut = f"; cut at {consolidation_hu:g} HU" if labels == "ggo-consolidation" else ""
        console.say(f"labels: {values}{cut}")
        console.wrote({"export": out, **outcome.files})
    for line in outcome.remarks:
        console.note(line)
    console.finish(outcome.failures, outcome.notes)
