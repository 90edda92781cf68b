"""One scan played on and written out: the job of `lungcast simulate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from simulator.backwards import start_before
from simulator.cohort_fit import fit_cohort
from simulator.dynamics.engine import Controls, LesionState, start_state
from simulator.dynamics.parameters import TransitionParameters
from simulator.figure_style import save_figure
from simulator.figures import volumes_figure
from simulator.film import FORMATS, Film, formats_here
from simulator.fits import CohortFits, StoredFit
from simulator.population_file import load_population
from simulator.progression import (
    DEFAULT_DYNAMICS,
    DEFAULT_JUMP,
    frame_transitions,
    frame_volumes,
    progress,
    with_reference,
    write_frame,
    write_lungs,
    write_observed,
    write_volumes,
)
from simulator.seeding import Where, seed_infection
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, UsageError
from standard_space.files import sha256_of, write_mark
from standard_space.progress import Progress, silent
from standard_space.scan import Scan
from standard_space.version import lungcast_version
from standard_space.window import CONSOLIDATION_HU

LEAST_HU, MOST_HU = -1024.0, 3071.0

COARSE_SHARE = 0.1
"""Volumes on the scan's own grid that differ by more from those of the standard space are told."""


def check_request(
    cohort: Cohort,
    entry: Entry,
    *,
    days: float,
    every: float,
    fits_path: str | Path | None,
    seeds: int | None,
    from_t0: bool,
    population_path: str | Path | None,
    consolidation_hu: float,
    films: Sequence[str] | None = None,
) -> None:
    """Find what is wrong with a request (`simulate_scan`) before any folder is made or emptied.

    Raises
    ------
    UsageError, DataError, ReadError
        Options that cannot be or do not go together, stored fits or a population that cannot be read.
    """
    frame_transitions(days, every)
    formats_here(films)
    if not LEAST_HU <= consolidation_hu <= MOST_HU:  # NaN is neither
        raise UsageError(
            "the cut to consolidation is no HU of tissue", got=consolidation_hu,
            expected=f"{LEAST_HU:g} to {MOST_HU:g}",
        )  # fmt: skip
    if seeds is not None and seeds < 1:
        raise UsageError("the number of seeds is too small", got=seeds, expected="1 or more")
    if from_t0 and seeds is not None:
        raise UsageError("an infection starts from seeds or from Y_t0, not both", remedy="leave one out")
    if population_path is not None:
        if seeds is None:
            raise UsageError(
                "a population gives the dynamics of new infections, so it needs seeds",
                remedy="add --seeds, or give --fits instead of --population",
            )
        load_population(population_path)
    if seeds is None and entry.infected_ml is None:
        raise DataError(
            "there is no fit for a scan without an infection mask",
            where=entry.name,
            remedy="start an infection in it with --seeds, or fill the manifest's infection column",
        )
    if fits_path is not None and seeds is None:
        CohortFits.load(fits_path).of(entry)
    if from_t0:
        annotated = [other for other in cohort.by_patient()[entry.patient] if other.infected_ml is not None]
        first = next((other for other in annotated if not other.synthetic), None)
        if first is not None and first.scan != entry.scan:
            raise DataError(
                "Y_t0 lies before a patient's first annotated scan",
                where=entry.name,
                got=f"a scan that {first.scan} goes before",
                remedy=f"start from {first.scan}, or leave --from-t0 out",
            )


def simulate_scan(
    cohort: Cohort,
    entry: Entry,
    folder: str | Path,
    *,
    days: float,
    every: float,
    seed: int,
    fits_path: str | Path | None = None,
    seeds: int | None = None,
    from_t0: bool = False,
    population_path: str | Path | None = None,
    where: Where = "subpleural",
    jump: int = DEFAULT_JUMP,
    controls: Controls | None = None,
    consolidation_hu: float = CONSOLIDATION_HU,
    films: Sequence[str] | None = None,
    progress_to: Progress = silent,
    film_progress_to: Progress = silent,
) -> tuple[list[dict[str, float]], list[str]]:
    """Play a scan's infection on and write the series, its volumes, a figure and a film.

    Parameters
    ----------
    cohort, entry
        The scan to start from.
    folder : str or Path
        Where `dayXXX.XX_image.nii.gz`, `dayXXX.XX_infection.nii.gz`, `lungs.nii.gz`, `volumes.csv`,
        `volumes.png`, `observed.csv` (the patient's observed scans; not with `seeds`) and the films
        `progression.gif` and `progression.mp4` go.
    days, every : float
        Length, and time between written scans, days.
    seed : int
        Same seed, same bytes.
    fits_path : str or Path, optional
        Stored fits; when absent the patient's series is fitted and stored as `fits.json` in `folder`.
    seeds : int, optional
        Start from this many new seeds with `DEFAULT_DYNAMICS` instead of the scan's annotation.
    from_t0 : bool
        Start three days before the scan, the patient's first, from the constructed Y_t0 (`backwards`).
    population_path : str or Path, optional
        With `seeds`: dynamics drawn from this population (`lungcast fit --population`) by `seed`.
    where : {"subpleural", "anywhere"}
        Where seeds are placed.
    jump, controls
        See `simulator.dynamics.engine.advance`.
    consolidation_hu : float
        Clinical cut for the volumes, HU.
    films : sequence of {"gif", "mp4"}, optional
        Which films are written; when absent a GIF, and an MP4 where there is an encoder (`film.formats_here`).
    progress_to, film_progress_to : Progress
        Told of every day, then of every frame of a film.

    Returns
    -------
    rows : list of dict
        Rows of `volumes.csv`.
    notes : list of str
        What a user should know about the run.

    Raises
    ------
    UsageError
        When a population is given without seeds (a scan's own infection goes by its own fit), seeds with
        `from_t0`, or an MP4 film is asked for where nothing can write one.
    DataError
        When `from_t0` is asked of a scan that is not its patient's first annotated one, and as `cohort.read`;
        when a film of `films` could not be written, everything else being there.
    """
    check_request(
        cohort, entry, days=days, every=every, fits_path=fits_path, seeds=seeds, from_t0=from_t0,
        population_path=population_path, consolidation_hu=consolidation_hu, films=films,
    )  # fmt: skip
    folder = Path(folder)
    wanted = frame_transitions(days, every)
    scan = cohort.read(entry)
    kinds, film_notes = formats_here(films)
    notes: list[str] = []
    if seeds is not None:
        scan, state, parameters = _seeded(scan, seeds, where, seed, population_path, notes)
    else:
        state = None
        stored = _fitted(cohort, entry, folder, fits_path, notes)
        parameters = stored.fit.parameters
        if from_t0:
            scan, state = start_before(scan, seed)
            notes.append(
                "starts from the constructed Y_t0, three days before the scan: nothing there was observed"
            )
    film = Film(scan, origin=infection_origin(seeds, population_path is not None, from_t0))
    rows = []
    frames = progress(
        scan, parameters, days=days, every=every, seed=seed, jump=jump, controls=controls, state=state
    )
    report = None
    for number, frame in enumerate(frames):
        progress_to(f"day {frame.days:.2f}", number, len(wanted))
        written_ml = write_frame(frame, scan, folder)
        rows.append({**frame_volumes(frame, scan, consolidation_hu), "written_ml": written_ml})
        film.add(frame)
        report = frame.report
    notes += _coarseness(rows)
    write_volumes(rows, folder / "volumes.csv")
    write_lungs(scan, folder / "lungs.nii.gz")
    seen = [
        other
        for other in cohort.by_patient()[entry.patient]
        if seeds is None and other.infected_ml is not None and not other.synthetic
    ]
    (folder / "observed.csv").unlink(missing_ok=True)  # of an earlier run into the same folder
    if seen:
        write_observed(seen, folder / "observed.csv")
    observed = [
        (other.day, other.infected_ml)
        for other in seen
        if other.infected_ml is not None and scan.day <= other.day <= scan.day + days
    ]
    save_figure(volumes_figure(rows, observed), folder / "volumes.png")
    progress_to("done", len(wanted), len(wanted))
    for kind in FORMATS:
        (folder / f"progression.{kind}").unlink(missing_ok=True)
    undrawn: list[DataError] = []
    for kind in kinds:
        try:
            film.save(folder / f"progression.{kind}", progress=film_progress_to)
        except DataError as error:  # the volumes are there, and are worth more than their film
            undrawn.append(error)
    if report is not None:
        notes += report.notes()
    provenance = {
        "lungcast_version": lungcast_version(),
        "operation": "simulate",
        "source_sha256": entry.content_sha256,
        "days": days,
        "every": every,
        "seed": seed,
        "seeds": seeds,
        "from_t0": from_t0,
        "population_sha256": None if population_path is None else sha256_of(population_path),
        "where": where,
        "jump": jump,
        "controls": (controls or Controls()).to_json(),
        "consolidation_hu": consolidation_hu,
        "parameters": parameters.to_json(),
        "report": None if report is None else report.to_json(),
        "notes": notes,
    }
    write_mark(folder, "simulation", provenance)
    if undrawn and films is not None:
        raise undrawn[0]
    return rows, [*notes, *film_notes, *(str(error) for error in undrawn)]


def infection_origin(seeds: int | None, from_population: bool, from_t0: bool) -> str:
    """Where a simulation's infection comes from, for everyone who sees its film or its page alone.

    Parameters
    ----------
    seeds, from_t0
        See `simulate_scan`.
    from_population : bool
        Whether the dynamics of seeds were drawn from a population.
    """
    if seeds is not None:
        dynamics = "dynamics of a population" if from_population else "default dynamics"
        return f"a made-up infection from {seeds} seeds, {dynamics}"
    return f"simulated by the patient's fitted dynamics{', from a constructed onset' if from_t0 else ''}"


def _coarseness(rows: Sequence[dict[str, float]]) -> list[str]:
    """A note when the written masks hold another volume than the standard space."""
    apart = max(
        rows, key=lambda row: abs(row["written_ml"] - row["infected_ml"]) / max(row["infected_ml"], 1e-9)
    )
    if abs(apart["written_ml"] - apart["infected_ml"]) <= COARSE_SHARE * apart["infected_ml"]:
        return []
    return [
        f"on the scan's own grid the written mask of day {apart['days_since_scan']:.2f} holds "
        f"{apart['written_ml']:.2f} ml, in the standard space {apart['infected_ml']:.2f} ml: the lesion is small "
        "beside the voxels of one of them; both are in volumes.csv"
    ]


def seeded_scan(scan: Scan, infection: np.ndarray) -> Scan:
    """The same scan with new seeds as its only infection; earlier annotation counts as tissue as it is."""
    return replace(scan, infection=infection, native_infection=None)


def _seeded(
    scan: Scan, seeds: int, where: Where, seed: int, population_path: str | Path | None, notes: list[str]
) -> tuple[Scan, LesionState, TransitionParameters]:
    infection = seed_infection(scan, seeds, where=where, seed=seed)
    scan = seeded_scan(scan, infection)
    state = start_state(scan.signal, infection, scan.susceptible, scan.grid.spacing_mm, recovery_limit=True)
    if population_path is None:
        notes.append("seeded with the documented default dynamics, not with a fit")
        return scan, state, with_reference(DEFAULT_DYNAMICS, state)
    population = load_population(population_path)
    notes.append(
        f"seeded with dynamics drawn from a population of {population.patients} patients by seed {seed}"
    )
    notes += [f"population: {line}" for line in population.notes]
    return scan, state, with_reference(population.draw(seed), state)


def _fitted(
    cohort: Cohort, entry: Entry, folder: Path, fits_path: str | Path | None, notes: list[str]
) -> StoredFit:
    if fits_path is not None:
        stored = CohortFits.load(fits_path).of(entry)
    else:
        own = [other for other in cohort.entries if other.patient == entry.patient]
        fits = fit_cohort(Cohort(cohort.folder, own, cohort.sources))
        stored = fits.of(entry)
        fits.save(folder / "fits.json")
        notes.append(f"no --fits given: fitted {stored.name} now and stored it in {folder / 'fits.json'}")
    notes += [f"{stored.name}: {line}" for line in stored.fit.notes]
    return stored
