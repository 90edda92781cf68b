"""The paper's set for the benchmark: 20 phantom scans of 512^3, reused under 201 names."""

from __future__ import annotations

import json
from pathlib import Path

import h5py

from simulator.phantom import make_cohort
from standard_space.cohort import Cohort
from standard_space.errors import LungcastError
from standard_space.files import write_mark
from standard_space.grid import StandardGrid
from standard_space.ingest import EmbedSettings, embed_cohort
from standard_space.jobs import run_isolated

PATIENTS, SCANS, GRID = 10, 2, 512


def make_scans(folder: Path, jobs: int) -> Cohort:
    """Phantom patients with two scans each, embedded; taken as they are where an earlier run left them."""
    done = folder / "cohorts.json"
    parts = [folder / f"part{number}" for number in range(jobs)]
    if not done.is_file():
        each = [PATIENTS // jobs + (number < PATIENTS % jobs) for number in range(jobs)]
        tasks = list(zip(parts, each, range(jobs), strict=True))
        _all(run_isolated(_make_part, tasks, jobs=jobs))
        for part in parts:
            (part / "c").mkdir(exist_ok=True)
            outcome = embed_cohort(
                part / "data" / "manifest.csv", part / "c", EmbedSettings(StandardGrid(GRID)), jobs=jobs
            )
            if outcome.failures:
                raise SystemExit(str(outcome.failures))
        done.write_text(json.dumps({"patients": PATIENTS, "scans": SCANS, "grid": GRID}))
    opened = [Cohort.open(part / "c") for part in parts]
    entries = [(cohort.path(entry), entry) for cohort in opened for entry in cohort.entries]
    return _renamed(folder / "c", entries, len(entries))


def _make_part(task: tuple[Path, int, int]) -> None:
    folder, patients, seed = task
    make_cohort(folder / "data", patients=patients, scans=SCANS, grid=GRID, seed=50 + seed)


def _all(results) -> None:  # type: ignore[no-untyped-def]
    for _, result in results:
        if isinstance(result, LungcastError):
            raise SystemExit(str(result))


def reuse(cohort: Cohort, folder: Path, count: int) -> Cohort:
    """The same scans under `count` names, in pairs of one patient, as small files that link to the first ones."""
    return _renamed(folder, [(cohort.path(entry), entry) for entry in cohort.entries], count)


def _renamed(folder: Path, scans: list, count: int) -> Cohort:  # type: ignore[type-arg]
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number in range(count):
        source, entry = scans[number % len(scans)]
        patient, scan = f"p{number // SCANS + 1:03d}", f"s{number % SCANS + 1}"
        file = f"{patient}_{scan}.h5"
        with h5py.File(source, "r") as known, h5py.File(folder / file, "w") as linked:
            for name, value in known.attrs.items():
                linked.attrs[name] = value
            meta = {**json.loads(known.attrs["meta"]), "patient": patient, "scan": scan}
            linked.attrs["meta"] = json.dumps(meta)
            for dataset in known:
                link = known.get(dataset, getlink=True)
                there = link.filename if isinstance(link, h5py.ExternalLink) else str(source.resolve())
                linked[dataset] = h5py.ExternalLink(there, dataset)
        entries.append(type(entry)(**{**entry.__dict__, "patient": patient, "scan": scan, "file": file}))
    Cohort.write_manifest(folder, entries)
    write_mark(folder, "cohort", {})
    return Cohort.open(folder)
