"""Commands of augmented sets: augment, replay, merge."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import KEPT, Console, duration, example, force_option, shared_options, table
from cli.options import (
    FILE,
    controls_of,
    jobs_option,
    jump_option,
    morphology,
    seed_option,
    sources_option,
)


@click.command(
    epilog=example("lungcast augment cohort augmented --fits fits.json --ratio 200% --seed 0 --jobs 2")
)
@click.argument("cohort", type=FILE)
@click.argument("augmented", metavar="AUG", type=FILE)
@click.option(
    "--fits", "fits_path", type=FILE, help="Stored fits; else they are made once. AUG keeps a copy."
)
@click.option(
    "--ratio", default="200%", show_default=True, help="Synthetic scans per scan: 200%, 50% or 1.5."
)
@click.option(
    "--stage-ratio",
    "stage_ratios",
    multiple=True,
    metavar="STAGE=RATIO",
    help="Another ratio for scans of a stage; may be repeated.",
)
@click.option(
    "--patient-ratio",
    "patient_ratios",
    multiple=True,
    metavar="PATIENT=RATIO",
    help="Another ratio for a patient, before any stage's; may be repeated.",
)
@seed_option
@jump_option
@morphology
@click.option(
    "--trajectories", is_flag=True, help="Also store every scan's whole trajectory, to draw any day from."
)
@jobs_option
@click.option(
    "--shard",
    metavar="I/N",
    help="Only every N-th scan from the I-th on, for job arrays; put together with `lungcast merge`.",
)
@click.option("--figures", type=FILE, help="Folder for a sheet of synthetic scans beside their sources.")
@click.option(
    "--dask",
    "dask_address",
    metavar="ADDRESS",
    help="Work on the Dask cluster with this scheduler (extra `dask`).",
)
@force_option
@shared_options(KEPT)
def augment(
    console: Console,
    cohort: Path,
    augmented: Path,
    fits_path: Path | None,
    ratio: str,
    stage_ratios: tuple[str, ...],
    patient_ratios: tuple[str, ...],
    seed: int,
    jump: int,
    spread: float,
    seeded_share: float,
    clustering: float,
    correlation_mm: float,
    trajectories: bool,
    jobs: int,
    shard: str | None,
    figures: Path | None,
    dask_address: str | None,
    force: bool,
) -> None:
    """Write new annotated scans AUG: every scan of COHORT played on by its fitted dynamics.

    A run that was interrupted, however it ended, is completed by running it again; the result is the same to the
    byte as that of one run, of --jobs, of shards, and of a cluster. A scan that fails is named at the end (exit
    code 1) and the rest completes.
    """
    import functools

    from simulator.augmentation import AugmentationSettings
    from simulator.augmentation_figure import chosen_for_sheet, sheet_figure
    from simulator.augmentation_plan import Ratios
    from simulator.augmentation_run import (
        augment_cohort,
        check_folder,
        fits_for,
        parse_shard,
        prepare_folder,
        stored_fits,
    )
    from simulator.dynamics.warmup import warm_up
    from simulator.figure_style import save_figure
    from standard_space.cluster import check_cluster, run_on_dask
    from standard_space.cohort import Cohort
    from standard_space.errors import LungcastError, UsageError
    from standard_space.files import check_output_file
    from standard_space.folders import folder_lock
    from standard_space.jobs import run_isolated

    if dask_address is not None and jobs != 1:
        raise UsageError("--jobs and --dask exclude each other", remedy="the cluster knows its own workers")
    controls = controls_of(spread, seeded_share, clustering, correlation_mm)
    ratios = Ratios.parse(ratio, stage_ratios, patient_ratios)
    settings = AugmentationSettings(ratios, seed, jump, controls, trajectories)
    part = parse_shard(shard)
    opened = Cohort.open(cohort)
    ratios.check_names(opened.entries)
    check_folder(augmented, opened, settings, shard=part, force=force)
    name = "augmented.png" if part is None else f"augmented_shard{part[0]}.png"
    sheet = None if figures is None else figures / name
    if sheet is not None and sheet.resolve().is_relative_to(augmented.resolve()):
        raise UsageError(
            "the figures lie in the folder of the synthetic scans",
            where=sheet,
            remedy="give --figures another folder",
        )
    check_output_file(sheet)
    given = stored_fits(opened, fits_path)
    if dask_address is not None:
        check_cluster(dask_address)
    runner = (
        functools.partial(run_isolated, jobs=jobs)
        if dask_address is None
        else functools.partial(run_on_dask, address=dask_address, warm_up=warm_up)
    )
    with folder_lock(augmented):
        prepare_folder(augmented, opened, settings, shard=part, force=force)
        with console.progress("fit") as progress:
            fits = fits_for(opened, given, augmented, jobs=jobs, progress=progress)
        with console.progress("augment") as progress:
            outcome = augment_cohort(
                opened, augmented, fits, settings, shard=part, runner=runner, progress=progress
            )
    if outcome.seconds:
        whole = sum(outcome.seconds.values())
        rows = [["stage", "time", "share"]]
        rows += [[name, duration(s), f"{s / whole:.0%}"] for name, s in outcome.seconds.items()]
        console.say(table(rows))
    observed = sum(not entry.synthetic for entry in opened.entries)
    of = f"{observed} scans" if part is None else f"shard {part[0]}/{part[1]}"
    before = f", {outcome.kept} of them by an earlier run" if outcome.kept else ""
    console.say(f"{len(outcome.entries)} synthetic scans of {of} at {ratios.cohort:.0%}{before}:")
    written = {"augmented": augmented, "fits": augmented / "fits.json"}
    failures = dict(outcome.failures)
    if sheet is not None and outcome.entries:
        with console.progress("draw") as progress:
            try:
                made = Cohort.open(augmented, sources=opened)
                chosen = chosen_for_sheet(outcome.entries)
                save_figure(sheet_figure(opened, made, chosen, progress=progress), sheet)
                written["sheet"] = sheet
            except (LungcastError, OSError) as error:
                # The scans are there, and are worth more than their picture.
                failures["sheet"] = f"the sheet {sheet}: {error}"
    console.wrote(written)
    left_out = {entry.name for entry in opened.entries if not entry.synthetic} <= set(outcome.notes)
    if not outcome.entries and left_out and part is None:
        failures["augmented"] = "augmented: there was no scan that could be played on; the notes say why"
    console.finish(failures, outcome.notes, nothing_done=not outcome.entries)


@click.command(epilog=example("lungcast replay augmented/p1_s1-sim1.h5"))
@click.argument("volume", type=FILE)
@sources_option
@click.option("--out", type=FILE, help="Keep the volume made again, as this file.")
@shared_options()
def replay(console: Console, volume: Path, sources: Path | None, out: Path | None) -> None:
    """Make one synthetic VOLUME again from its provenance and its source, and compare.

    Exit code 1 when other voxels come out.
    """
    import tempfile

    from simulator.augmentation import replay as replay_volume
    from standard_space.cohort import cohort_of_source
    from standard_space.errors import UsageError
    from standard_space.files import check_output_file

    check_output_file(out)
    if out is not None and out.exists():
        raise UsageError("the output exists", where=out, remedy="choose another")
    cohort = cohort_of_source(volume, sources)
    if cohort is None:
        raise UsageError("not a synthetic scan", where=volume)
    with tempfile.TemporaryDirectory() as scratch:
        made = out or Path(scratch) / volume.name
        same = replay_volume(volume, cohort, made)
    if same:
        console.say(f"{volume}: made again, the same bytes")
    else:
        console.say(
            f"{volume}: made again, the same voxels; the file's bytes differ (other library versions)"
        )
    if out is not None:
        console.wrote({"volume": out})


@click.command(epilog=example("lungcast merge part1 part2 --into augmented"))
@click.argument("shards", metavar="SHARD...", type=FILE, nargs=-1, required=True)
@click.option("--into", type=FILE, required=True, help="The folder to make.")
@force_option
@shared_options()
def merge(console: Console, shards: tuple[Path, ...], into: Path, force: bool) -> None:
    """Put all shards of one augmentation together, after finding them complete and every volume whole.

    The result is the same to the byte as that of one run without --shard. Exit code 1 when scans had failed in
    their shard.
    """
    from simulator.merge import merge_shards
    from standard_space.cohort import Cohort

    with console.progress("merge") as progress:
        failed = merge_shards(shards, into, force=force, progress=progress)
    console.say(f"{len(Cohort.open(into).entries)} synthetic scans of {len(shards)} shards:")
    console.wrote({"augmented": into})
    console.finish({name: f"{name}: failed in its shard, whose run says why" for name in failed})
