"""Commands of the dynamics: fit and simulate."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import WITH_FORCE, Console, count, example, force_option, shared_options, table
from cli.fit_tables import fit_rows, population_rows
from cli.options import FILE, controls_of, jobs_option, jump_option, loss_option, morphology, seed_option


@click.command(epilog=example("lungcast fit cohort --json fits.json --figures figures --intervals profile"))
@click.argument("cohort", type=FILE)
@click.option("--json", "json_path", type=FILE, required=True, help="Where to store the fits.")
@click.option("--figures", type=FILE, help="Folder for one figure per pair.")
@loss_option
@click.option(
    "--intervals",
    type=click.Choice(["wald", "profile"]),
    default="wald",
    show_default=True,
    help="95 % intervals from standard errors, or from profiles (up to a second more per pair).",
)
@click.option(
    "--population",
    type=FILE,
    help="Also store mean and spread over the patients, for `lungcast simulate --population`.",
)
@jobs_option
@shared_options()
def fit(
    console: Console,
    cohort: Path,
    json_path: Path,
    figures: Path | None,
    loss: str,
    intervals: str,
    population: Path | None,
    jobs: int,
) -> None:
    """Fit the eight transition parameters of every adjacent pair of scans in COHORT.

    A patient's first scan is paired with Y_t0, three days earlier, so one scan is enough. A patient with three
    scans or more also gets one joint fit of the whole series.
    """
    from simulator.cohort_fit import fit_cohort
    from simulator.figure_style import save_figure
    from simulator.fit_figure import fit_figure
    from simulator.population_file import population_of, save_population
    from standard_space.cohort import Cohort
    from standard_space.errors import DataError, LungcastError
    from standard_space.files import check_output_file

    for path in (json_path, population):
        check_output_file(path)
    opened = Cohort.open(cohort)
    with console.progress("fit") as progress:
        fits = fit_cohort(opened, loss=loss, intervals=intervals, joint=True, jobs=jobs, progress=progress)
    if not fits.fits and not fits.failures:
        raise DataError(
            "nothing could be fitted",
            where=cohort,
            got="; ".join(f"{name}: {reason}" for name, reason in sorted(fits.skipped.items())[:3])
            or "no scans",
            remedy="fill the manifest's infection column, or start an infection by `lungcast simulate --seeds`",
        )
    fits.save(json_path)
    written: dict[str, str | Path] = {"fits": json_path}
    for stored in fits.fits:
        if stored.notes():
            console.note(f"{stored.name}: {'; '.join(stored.notes())}")
    for series in fits.joint:
        console.note(f"{series.patient}, one W for {len(series.scans)} scans: {'; '.join(series.fit.notes)}")
    if figures is not None:
        with console.progress("figures") as progress:
            for done, stored in enumerate(fits.fits):
                progress(stored.name, done, len(fits.fits))
                name = f"{stored.patient}_{stored.from_scan}_{stored.to_scan}.png"
                save_figure(fit_figure(stored), figures / name)
        written["figures"] = figures
    if fits.fits:
        console.say(table(fit_rows(fits)))
        console.say(
            "An interval marked < or > runs to the limit of the model: the data do not close it there."
        )
    failures = dict(fits.failures)
    if population is not None:
        try:
            found = population_of(fits)
            save_population(found, fits, population)
        except LungcastError as error:
            failures["population"] = str(error)
        else:
            written["population"] = population
            for line in found.notes:
                console.note(f"population: {line}")
            console.say(table(population_rows(found)))
    console.say(f"{len(fits.fits)} pairs fitted:")
    console.wrote(written)
    notes = {name: [text] for name, text in fits.skipped.items()}
    console.finish(failures, notes, nothing_done=not fits.fits)


@click.command(
    epilog=example("lungcast simulate cohort --patient p1 --scan s2 --days 3 --every 0.5 --seed 1 out")
)
@click.argument("cohort", type=FILE)
@click.argument("out", type=FILE)
@click.option("--patient", required=True, help="Patient, as in the manifest.")
@click.option("--scan", required=True, help="Scan to start from.")
@click.option("--days", default=3.0, show_default=True, help="How far to play on, days.")
@click.option("--every", default=0.5, show_default=True, help="Time between written scans, days.")
@seed_option
@click.option(
    "--fits", "fits_path", type=FILE, help="Stored fits; else the patient is fitted, and that is stored."
)
@click.option("--seeds", type=int, help="Start from this many new seeds instead of the annotation.")
@click.option(
    "--from-t0",
    is_flag=True,
    help="Start three days before SCAN, the patient's first, from the constructed state Y_t0.",
)
@click.option(
    "--population",
    "population_path",
    type=FILE,
    help="With --seeds: dynamics drawn from this population (`lungcast fit --population`) by --seed.",
)
@click.option(
    "--where",
    type=click.Choice(["subpleural", "anywhere"]),
    default="subpleural",
    show_default=True,
    help="Where seeds are placed.",
)
@jump_option
@click.option(
    "--consolidation-hu", default=-200.0, show_default=True, help="Clinical cut to consolidation, HU."
)
@click.option(
    "--film",
    "films",
    type=click.Choice(["gif", "mp4"]),
    multiple=True,
    help="Film to write; can be given twice. When absent: GIF, and MP4 where ffmpeg is.",
)
@morphology
@force_option
@shared_options(WITH_FORCE)
def simulate(
    console: Console,
    cohort: Path,
    out: Path,
    patient: str,
    scan: str,
    days: float,
    every: float,
    seed: int,
    fits_path: Path | None,
    seeds: int | None,
    from_t0: bool,
    population_path: Path | None,
    where: str,
    jump: int,
    consolidation_hu: float,
    films: tuple[str, ...],
    spread: float,
    seeded_share: float,
    clustering: float,
    correlation_mm: float,
    force: bool,
) -> None:
    """Play the infection of one scan on: a NIfTI series on the scan's own grid, volumes as CSV, a film.

    The images are what the standard space holds, brought back: smoother than the original everywhere. The finer
    the cohort's --grid, the nearer they are.

    With --seeds the infection starts anew in any scan, annotated or not, with a documented default dynamics or
    one drawn from a population. With --from-t0 an onset that nobody saw is played: from a tenth of the infected
    voxels at the recovery limit, three days before the first scan, by the dynamics that lead from there to it.
    """
    from simulator.simulation import check_request, simulate_scan
    from standard_space.cohort import Cohort
    from standard_space.files import prepare_output_folder

    controls = controls_of(spread, seeded_share, clustering, correlation_mm)
    opened = Cohort.open(cohort)
    entry = opened.find(patient, scan)
    check_request(
        opened,
        entry,
        days=days,
        every=every,
        fits_path=fits_path,
        seeds=seeds,
        from_t0=from_t0,
        population_path=population_path,
        consolidation_hu=consolidation_hu,
        films=films or None,
    )
    prepare_output_folder(out, "simulation", force=force)
    with console.stages() as stage:
        rows, notes = simulate_scan(
            opened,
            entry,
            out,
            days=days,
            every=every,
            seed=seed,
            fits_path=fits_path,
            seeds=seeds,
            from_t0=from_t0,
            population_path=population_path,
            where="subpleural" if where == "subpleural" else "anywhere",
            jump=jump,
            controls=controls,
            consolidation_hu=consolidation_hu,
            films=films or None,
            progress_to=stage("simulate"),
            film_progress_to=stage("film"),
        )
    for line in notes:
        console.note(line)
    shown = [["day", "infected ml", "GGO ml", "consolidation ml", "written mask ml"]]
    keys = ("infected_ml", "ggo_ml", "consolidation_ml", "written_ml")
    shown += [[f"{row['day']:.2f}", *(f"{row[key]:.2f}" for key in keys)] for row in rows]
    console.say(table(shown))
    console.say(
        f"GGO and consolidation by the clinical cut at {consolidation_hu:g} HU. {count(len(rows), 'scan')}, "
        f"named by the days since {patient}/{scan}:"
    )
    written = {f"film ({path.suffix[1:]})": path for path in sorted(out.glob("progression.*"))}
    console.wrote({"series": out, "volumes": out / "volumes.csv", **written})
