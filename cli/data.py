"""Commands that make, check, embed, restore and describe data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.console import (
    KEPT,
    WITH_FORCE,
    Console,
    duration,
    example,
    force_option,
    parse_window,
    shared_options,
    table,
)
from cli.options import FILE, jobs_option, sources_option

if TYPE_CHECKING:
    from standard_space.check import CheckReport, Problem
    from standard_space.ingest import EmbedSettings


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
@click.option(
    "--scanners",
    metavar="NAME[,NAME...]",
    help="Scanners that patients take in turn; an unknown name tells those there are. Default: drawn.",
)
@force_option
@shared_options(WITH_FORCE)
def phantom(
    console: Console,
    out: Path,
    patients: int,
    scans: int,
    grid: int,
    seed: int,
    lesions: str,
    scanners: str | None,
    force: bool,
) -> None:
    """Write a phantom chest-CT cohort OUT: images in HU, masks, manifest.csv and the hidden truth.json."""
    from simulator.phantom import make_cohort
    from simulator.phantom.scanner import scanners_named
    from standard_space.files import prepare_output_folder, write_mark
    from standard_space.version import lungcast_version

    arguments: dict[str, Any] = {
        "patients": patients,
        "scans": scans,
        "grid": grid,
        "seed": seed,
        "lesions": lesions,
    }
    if scanners is not None:
        names = [name.strip() for name in scanners.split(",")]
        scanners_named(names)  # before a folder is emptied
        arguments["scanners"] = names
    prepare_output_folder(out, "phantom", force=force)
    with console.progress("phantom") as progress:
        make_cohort(out, **arguments, progress=progress)
    write_mark(out, "phantom", {"lungcast_version": lungcast_version(), **arguments})
    console.say(f"{patients} patients with {scans} scans each, lesions from {lesions}:")
    console.wrote({"manifest": out / "manifest.csv", "truth": out / "truth.json", "images": out / "images"})


GRID = click.option(
    "--grid", default=512, show_default=True, help="Voxels along each axis of the standard grid."
)
WINDOW = click.option(
    "--window",
    help="LEVEL,WIDTH in HU, or auto (from the parenchyma), for scans whose row gives none. "
    "Default: lung-window DICOM tags, else -600,1600.",
)
LUNGMASK = click.option(
    "--lungmask",
    "lungmask_weights",
    type=FILE,
    help="lungmask weights (.pth) that find the lungs where the row gives no mask (extra `lungmask`).",
)


def _settings(grid: int, window: str | None, lungmask_weights: Path | None) -> EmbedSettings:
    from standard_space.errors import UsageError
    from standard_space.grid import StandardGrid
    from standard_space.ingest import EmbedSettings
    from standard_space.window import Window

    if lungmask_weights is not None and not lungmask_weights.is_file():
        raise UsageError("no such lungmask weights", where=lungmask_weights)
    pair = None if window == "auto" else parse_window(window)
    chosen = "auto" if window == "auto" else None if pair is None else Window(*pair, source="caller")
    return EmbedSettings(StandardGrid(grid), chosen, lungmask_weights)  # type: ignore[arg-type]


@click.command(epilog=example("lungcast check data/manifest.csv --jobs 2"))
@click.argument("manifest", type=FILE)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write everything found there.",
)
@GRID
@WINDOW
@LUNGMASK
@jobs_option
@click.option("--headers-only", is_flag=True, help="Leave voxels unread: damage in them goes unseen.")
@click.option(
    "--find-lungs", is_flag=True, help="Look for lungs in every scan without a mask; seconds a scan."
)
@click.option(
    "--trial/--no-trial",
    default=True,
    show_default=True,
    help="Embed the largest scan to predict costs from.",
)
@shared_options()
def check(
    console: Console,
    manifest: Path,
    json_path: Path | None,
    grid: int,
    window: str | None,
    lungmask_weights: Path | None,
    jobs: int,
    headers_only: bool,
    find_lungs: bool,
    trial: bool,
) -> None:
    """Look at every scan of MANIFEST before anything expensive starts.

    Prints one table of all scans with every problem and its remedy, and predicts time, memory and disk of
    `lungcast embed` with the same options. Exit code 1 when there is a problem.
    """
    from standard_space.check import check_cohort
    from standard_space.files import write_json

    settings = _settings(grid, window, lungmask_weights)
    with console.progress("check") as progress:
        report = check_cohort(
            manifest,
            settings,
            jobs=jobs,
            headers_only=headers_only,
            find_lungs=find_lungs,
            trial=trial,
            progress=progress,
        )
    if json_path is not None:
        write_json(json_path, report.to_json())
    _say_check(console, report)
    if json_path is not None:
        console.wrote({"check": json_path})
    if report.problem_count:
        raise click.exceptions.Exit(1)


def _say_check(console: Console, report: CheckReport) -> None:
    rows = [["scan", "voxels", "spacing mm", "axes", "window HU", "annotated", "finding"]]
    for scan in report.scans:
        where = scan.geometry
        head = [
            scan.scan,
            "-" if where is None else "x".join(map(str, where.size)),
            "-" if where is None else "x".join(f"{s:.3g}" for s in where.spacing_mm),
            "-" if where is None else where.orientation,
            "-" if scan.window is None else str(scan.window),
            "yes" if scan.annotated else "no",
        ]
        findings = [f"PROBLEM {_told(p)}" for p in scan.problems] + [f"note: {n}" for n in scan.notes]
        for number, finding in enumerate(findings or ["ok"]):
            rows.append([*(head if number == 0 else [""] * len(head)), finding])
    for problem in report.manifest_problems:
        rows.append(["-"] * 6 + [f"PROBLEM {_told(problem)}"])
    console.say(table(rows, left=(0, 3, 4, 5, 6)))
    usable = sum(not scan.problems for scan in report.scans)
    count = f"{report.problem_count} problem{'' if report.problem_count == 1 else 's'}"
    console.say(f"{usable} of {len(report.scans) + len(report.manifest_problems)} scans can be used; {count}")
    cost = report.prediction
    if cost is not None:
        console.say(
            f"embedding {usable} at {report.grid}^3 with --jobs {cost.jobs}: about {duration(cost.seconds)}, "
            f"{cost.memory_gb:.1f} GB of memory, {cost.disk_mb:.0f} MB of disk ({cost.free_disk_gb:.0f} GB free "
            f"here); from {cost.trial}: {cost.trial_seconds:.1f} s"
        )
        for shortage in cost.shortages():
            console.problem(f"not enough {shortage}")


def _told(problem: Problem) -> str:
    return " ".join(f"{problem.sentence()}{'' if problem.remedy is None else f'; {problem.remedy}'}".split())


@click.command(epilog=example("lungcast embed data/manifest.csv cohort --jobs 2"))
@click.argument("manifest", type=FILE)
@click.argument("cohort", type=FILE)
@GRID
@WINDOW
@LUNGMASK
@jobs_option
@force_option
@shared_options(KEPT)
def embed(
    console: Console,
    manifest: Path,
    cohort: Path,
    grid: int,
    window: str | None,
    lungmask_weights: Path | None,
    jobs: int,
    force: bool,
) -> None:
    """Embed every scan of MANIFEST into the standard space, as a folder COHORT of scan files.

    MANIFEST is a CSV with the columns patient,scan,day,image (date, ISO 8601, may replace day) and, optionally,
    infection,lungs,lobes,window_level,window_width,stage,scanner. Paths are relative to the CSV; image is a NIfTI,
    NRRD or MHA file or a folder with a DICOM series.

    Run again, it continues: scans already embedded from the same files with the same options are kept.
    """
    from standard_space.ingest import embed_cohort, prepare_cohort

    settings = _settings(grid, window, lungmask_weights)
    prepare_cohort(manifest, cohort, settings, force=force)
    with console.progress("embed") as progress:
        outcome = embed_cohort(manifest, cohort, settings, jobs=jobs, progress=progress)
    if outcome.entries:
        rows = [["scan", "day", "lungs ml", "infected ml"]]
        for entry in outcome.entries:
            infected = "-" if entry.infected_ml is None else f"{entry.infected_ml:.1f}"
            rows.append([entry.name, f"{entry.day:g}", f"{entry.lungs_ml:.0f}", infected])
        console.say(table(rows))
        before = f", {len(outcome.resumed)} of them by an earlier run" if outcome.resumed else ""
        console.say(f"{len(outcome.entries)} scans on the {grid}^3 standard grid{before}:")
        console.wrote({"cohort": cohort})
    console.finish(outcome.failures, outcome.notes, nothing_done=not outcome.entries)


@click.command(epilog=example("lungcast restore cohort/p1_a.h5 --what infection p1_a_infection.nii.gz"))
@click.argument("scan", type=FILE)
@click.argument("out", type=FILE)
@click.option(
    "--what",
    type=click.Choice(
        ["hu", "signal", "infection", "lungs", "left_lung", "right_lung", "airways", "vessels", "lobes"]
    ),
    default="infection",
    show_default=True,
    help="The layer.",
)
@sources_option
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
@shared_options()
def restore(console: Console, scan: Path, out: Path, what: str, sources: Path | None, force: bool) -> None:
    """Bring a layer of the scan file SCAN back to the scan's native grid and write it as the image OUT.

    OUT (.nii.gz, .nrrd, .mha) opens on top of the original scan in any viewer. It is what the standard grid holds,
    brought back, not a copy of the file that was embedded.
    """
    from standard_space.cohort import cohort_of_source
    from standard_space.errors import UsageError
    from standard_space.image import write_volume
    from standard_space.image_file import SUFFIXES
    from standard_space.restore import restore_layer
    from standard_space.scanfile import read_scan

    if not out.name.lower().endswith(SUFFIXES):
        raise UsageError("not an image format lungcast writes", where=out, expected=", ".join(SUFFIXES))
    if out.exists() and not force:
        raise UsageError(
            "the output exists", where=out, remedy="choose another or pass --force to replace it"
        )
    cohort = cohort_of_source(scan, sources)
    loaded = read_scan(scan, None if cohort is None else cohort.find_source)
    write_volume(out, restore_layer(loaded, what), loaded.placement.native)  # type: ignore[arg-type]
    console.say(f"{what} of {loaded.name} on its native grid, {loaded.placement.native.summary()}:")
    console.wrote({what: out})


@click.command(epilog=example("lungcast info cohort/p1_s1.h5"))
@click.argument("path", type=FILE)
@shared_options()
def info(console: Console, path: Path) -> None:
    """Say what PATH is (scan file, cohort, fits, model, any folder lungcast wrote), with its provenance."""
    import json

    from segmentation.describe import describe

    console.quiet = False
    what, details = describe(path)
    console.say(f"{path}: {what}")
    console.say(json.dumps(details, indent=2))
