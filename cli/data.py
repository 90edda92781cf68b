"""Commands that make and look at data: phantom, embed, info."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import Console, example, force_option, shared_options, table

FILE = click.Path(path_type=Path)


@click.command(epilog=example("lungcast phantom data --patients 6 --scans 3 --grid 128 --seed 0"))
@click.argument("out", type=FILE)
@click.option("--patients", default=6, show_default=True, help="Number of patients.")
@click.option("--scans", default=3, show_default=True, help="Scans of each patient.")
@click.option("--grid", default=128, show_default=True, help="Coarseness: 128 is about 3 mm, 512 clinical.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="The same seed gives the same files.",
)
@click.option(
    "--lesions",
    type=click.Choice(["dynamics", "fields"]),
    default="dynamics",
    show_default=True,
    help="From lungcast's own model, or from random fields that share nothing with it (honest tests).",
)
@force_option
@shared_options
def phantom(
    console: Console, out: Path, patients: int, scans: int, grid: int, seed: int, lesions: str, force: bool
) -> None:
    """Write a phantom chest-CT cohort OUT: images in HU, masks, manifest.csv and the hidden truth.json."""
    from simulator.phantom import make_cohort
    from standard_space.files import prepare_output_folder, write_mark
    from standard_space.version import lungcast_version

    prepare_output_folder(out, "phantom", force=force)
    arguments = {"patients": patients, "scans": scans, "grid": grid, "seed": seed, "lesions": lesions}
    with console.progress("phantom") as progress:
        make_cohort(
            out, patients=patients, scans=scans, grid=grid, seed=seed, lesions=lesions, progress=progress
        )
    write_mark(out, "phantom", {"lungcast_version": lungcast_version(), **arguments})
    console.say(f"{patients} patients with {scans} scans each, lesions from {lesions}:")
    console.wrote({"manifest": out / "manifest.csv", "truth": out / "truth.json", "images": out / "images"})


@click.command(epilog=example("lungcast embed data/manifest.csv cohort --grid 128"))
@click.argument("manifest", type=FILE)
@click.argument("cohort", type=FILE)
@click.option("--grid", default=512, show_default=True, help="Voxels along each axis of the standard grid.")
@force_option
@shared_options
def embed(console: Console, manifest: Path, cohort: Path, grid: int, force: bool) -> None:
    """Embed every scan of MANIFEST into the standard space, as a folder COHORT of scan files.

    MANIFEST is a CSV with the columns patient,scan,day,image (date, ISO 8601, may replace day) and, optionally,
    infection,lungs,window_level,window_width,stage. Paths are relative to the CSV; image is a NIfTI, NRRD or MHA
    file or a folder with a DICOM series.
    """
    from standard_space.files import prepare_output_folder
    from standard_space.grid import StandardGrid
    from standard_space.ingest import embed_cohort
    from standard_space.manifest import read_manifest

    standard = StandardGrid(grid)
    read_manifest(manifest)  # what is wrong with it is said before anything is emptied
    prepare_output_folder(cohort, "cohort", force=force)
    with console.progress("embed") as progress:
        outcome = embed_cohort(manifest, cohort, standard, progress=progress)
    if outcome.entries:
        rows = [["scan", "day", "lungs ml", "infected ml"]]
        for entry in outcome.entries:
            infected = "-" if entry.infected_ml is None else f"{entry.infected_ml:.1f}"
            rows.append([entry.name, f"{entry.day:g}", f"{entry.lungs_ml:.0f}", infected])
        console.say(table(rows))
        console.say(f"{len(outcome.entries)} scans on the {grid}^3 standard grid:")
        console.wrote({"cohort": cohort})
    console.finish(outcome.failures, outcome.notes)


@click.command(epilog=example("lungcast info cohort/p1_s1.h5"))
@click.argument("path", type=FILE)
@shared_options
def info(console: Console, path: Path) -> None:
    """Say what PATH is (scan file, cohort, fits, model, any folder lungcast wrote), with its provenance."""
    import json

    from segmentation.describe import describe

    console.quiet = False
    what, details = describe(path)
    console.say(f"{path}: {what}")
    console.say(json.dumps(details, indent=2))
