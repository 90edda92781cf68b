"""The paper's augmented set, 402 volumes of 512^3: time, memory, disk, and what reading it costs.

    python benchmarks/augment.py --json augment.json [--docs] [--work FOLDER]

The 201 scans are 20 phantom scans reused under 201 names, so they come from the system's cache after their first
reading and not 201 times from the disk. Making and embedding the phantoms takes some ten minutes on two cores and
is not part of what is timed; --work keeps them for the next time. Nothing else should run.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks.augment_cohort import make_scans, reuse  # noqa: E402
from benchmarks.augment_measures import MemoryOfAll, slice_costs, whole_volume_peer  # noqa: E402
from benchmarks.machine import into_docs, machine, markdown, rows_markdown, target, versions  # noqa: E402
from simulator.audit import audit_cohort  # noqa: E402
from simulator.augmentation import AugmentationSettings, replay  # noqa: E402
from simulator.augmentation_plan import Ratios, plan_volumes  # noqa: E402
from simulator.augmentation_run import augment_cohort, prepare_folder  # noqa: E402
from simulator.cohort_fit import fit_cohort  # noqa: E402
from simulator.fits import CohortFits  # noqa: E402
from standard_space.cohort import Cohort  # noqa: E402
from standard_space.folders import folder_lock  # noqa: E402
from standard_space.jobs import run_isolated  # noqa: E402

JOBS = 2
REFERENCE_VOXELS = 380_000
"""The lesion load of the engine's benchmark after 200 transitions (docs/dynamics.md)."""


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True)
@click.option("--docs", is_flag=True, help="Update docs/augmentation.md.")
@click.option("--work", type=click.Path(path_type=Path), help="Keep the phantom scans here.")
@click.option("--scans", default=201, show_default=True, help="Names that the scans are reused under.")
def main(json_path: Path, docs: bool, work: Path | None, scans: int) -> None:
    """Measure; some quarter of an hour, most of it for making the phantoms."""
    begun = time.perf_counter()

    def say(what: str) -> None:
        click.echo(f"{time.perf_counter() - begun:5.0f} s  {what} ...")

    with tempfile.TemporaryDirectory() as scratch:
        place = work or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        say("20 phantom scans of 512^3")
        originals = make_scans(place, JOBS)
        shutil.rmtree(place / "set", ignore_errors=True)
        cohort = reuse(originals, place / "set", scans)
        say(f"fit and augment {scans} scans at 200 %")
        run = augment(cohort, place)
        say("storage, slices and whole volumes")
        stored = storage(place, cohort)
        say("audit")
        audited = audit(originals, place)
        say("sampler and trajectories on one core")
        fresh = on_the_fly(originals, place)
        content: dict[str, Any] = {
            "benchmark": "augment",
            "machine": machine(),
            "versions": versions(),
            "targets": targets(run, stored, fresh["sampler"], scans),
            "run": run,
            "storage": stored,
            "audit": audited,
            **fresh,
        }
    json_path.write_text(json.dumps(content, indent=2) + "\n")
    text = tables(content, scans)
    click.echo(text)
    if docs:
        into_docs(ROOT / "docs" / "augmentation.md", "benchmarks/augment.py", text)
        into_docs(ROOT / "docs" / "on_the_fly.md", "benchmarks/augment.py", fresh_table(fresh))


def augment(cohort: Cohort, place: Path) -> dict[str, Any]:
    """Fits and volumes as `lungcast fit` and `lungcast augment` make them with --jobs 2, from nothing."""
    shutil.rmtree(place / "a", ignore_errors=True)
    settings = AugmentationSettings(Ratios(2.0), seed=0)
    moments: list[float] = []
    with MemoryOfAll() as memory:
        begun = time.perf_counter()
        fits = fit_cohort(cohort, jobs=JOBS)
        fits.save(place / "fits.json")
        fitted = time.perf_counter()
        with folder_lock(place / "a"):
            prepare_folder(place / "a", cohort, settings)
            outcome = augment_cohort(
                cohort,
                place / "a",
                CohortFits.load(place / "fits.json"),
                settings,
                runner=functools.partial(run_isolated, jobs=JOBS),
                progress=lambda item, done, total: moments.append(time.perf_counter()),
            )
        ended = time.perf_counter()
    if outcome.failures or fits.failures:
        raise SystemExit(f"{outcome.failures} {fits.failures}")
    half, last = moments[len(moments) // 2], moments[-1]
    at_work = {name: value / JOBS for name, value in outcome.seconds.items()}
    stages = {"fit": fitted - begun, **at_work}
    return {
        "volumes": len(outcome.entries),
        "seconds": ended - begun,
        "peak_gb": memory.peak_gb,
        # the first moment is the start: worker processes begin after it
        "second_half_over_first": (last - half) / (half - moments[1]),
        "stages_s": {**stages, "starting processes, waiting": ended - begun - sum(stages.values())},
        "mb": sum(path.stat().st_size for path in (place / "a").glob("*.h5")) / 1e6,
        "mean_infected_ml": sum(e.infected_ml or 0.0 for e in outcome.entries) / len(outcome.entries),
    }


def storage(place: Path, cohort: Cohort) -> dict[str, Any]:
    """The volume nearest to the reference load, beside its source and beside whole volumes."""
    augmented = Cohort.open(place / "a", cohort)
    source_of = {entry.name: entry for entry in cohort.entries}
    voxel_ml = 512.0 * 334.0 * 334.0 / 512**3 / 1000.0
    entry = min(
        augmented.entries, key=lambda found: abs((found.infected_ml or 0.0) / voxel_ml - REFERENCE_VOXELS)
    )
    source = source_of[f"{entry.patient}/{entry.scan.rpartition('-sim')[0]}"]
    plain_bytes = os.stat(os.path.realpath(_linked(cohort.path(source)))).st_size
    plan = plan_volumes(source.patient, source.scan, 2.0, 0)[int(entry.scan.rpartition("-sim")[2]) - 1]
    w = CohortFits.load(place / "fits.json").of(source).fit.parameters
    same = replay(augmented.path(entry), augmented, place / "replayed.h5")
    return {
        "infected_voxels": round((entry.infected_ml or 0.0) / voxel_ml),
        "synthetic_mb": augmented.path(entry).stat().st_size / 1e6,
        "plain_mb": plain_bytes / 1e6,
        "replayed_to_the_same_bytes": same,
        "slices": slice_costs(augmented, entry, cohort.path(source)),
        "whole": whole_volume_peer(cohort.read(source), w, plan, 10, place),
    }


def _linked(path: Path) -> str:
    import h5py

    with h5py.File(path, "r") as file:
        return str(file.get("signal", getlink=True).filename)


def audit(originals: Cohort, place: Path) -> dict[str, float]:
    """Time and memory of an audit, without the classifier, by the number of its sources."""
    shutil.rmtree(place / "small", ignore_errors=True)
    settings = AugmentationSettings(Ratios(2.0), seed=0)
    prepare_folder(place / "small", originals, settings)
    runner = functools.partial(run_isolated, jobs=JOBS)
    fits = fit_cohort(originals, jobs=JOBS)
    augment_cohort(originals, place / "small", fits, settings, runner=runner)
    with MemoryOfAll() as memory:
        begun = time.perf_counter()
        found = audit_cohort(Cohort.open(place / "small", originals), fits=fits, jobs=JOBS)
        taken = time.perf_counter() - begun
    if found.failures:
        raise SystemExit(str(found.failures))
    return {
        "sources": len(originals.entries),
        "volumes": len(found.volumes),
        "flagged": len(found.flagged),
        "seconds": taken,
        "peak_gb": memory.peak_gb,
    }


def on_the_fly(originals: Cohort, place: Path) -> dict[str, Any]:
    """Sampler and trajectories, in a process of its own on one core."""
    fit_cohort(originals, jobs=JOBS).save(place / "sampler_fits.json")
    core = str(min(os.sched_getaffinity(0)))
    command = ["taskset", "-c", core, sys.executable, str(ROOT / "benchmarks" / "augment_sampler.py")]
    command += [str(originals.folder), str(place / "sampler_fits.json"), str(place)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def targets(
    run: dict[str, Any], stored: dict[str, Any], sampled: dict[str, float], scans: int
) -> list[dict[str, object]]:
    """The issue's numbers, and the peers of the same run."""
    whole = stored["whole"]
    peer_minutes = (whole["play_s"] + whole["scan_file_s"]) * run["volumes"] / JOBS / 60
    worst = max(stored["slices"], key=lambda row: row["synthetic_ms"] / row["plain_ms"])
    share = 100 * stored["synthetic_mb"] / stored["plain_mb"]
    return [
        target(
            f"{scans} scans at 200 %: {run['volumes']} volumes of 512^3 on 2 cores, fits and writing included "
            "(peer: played on whole grids and written whole, without reading and fits)",
            run["seconds"] / 60, "min", 8.0, "at most", peer_minutes,
        ),
        target("peak memory of all processes, two workers", run["peak_gb"], "GB", 4.0, "at most"),
        target(
            "second half of the scans over the first, time", run["second_half_over_first"], "", 1.2, "at most"
        ),
        target(
            f"size of a volume with {stored['infected_voxels']} infected voxels, share of its source's file "
            "(peer: the volume as a whole scan file)",
            share, "%", 1.0, "at most", 100 * whole["scan_file_mb"] / stored["plain_mb"],
        ),
        target(
            f"one {worst['slice']} slice, over the plain scan's (the worst of three axes)",
            worst["synthetic_ms"] / worst["plain_ms"], "", 1.3, "at most",
        ),
        target(
            f"sampler: volumes of 512^3 a second on one core, "
            f"{sampled['mean_infected_voxels']:.0f} infected voxels each "
            "(peer: played on whole grids by jumps of 10)",
            sampled["per_second"], "/s", 3.0, "at least", 1.0 / whole["play_s"],
        ),
    ]  # fmt: skip


def tables(content: dict[str, Any], scans: int) -> str:
    """For docs/augmentation.md."""
    run, stored, audited = content["run"], content["storage"], content["audit"]
    whole = run["seconds"]
    stages = [[name, f"{s:.1f} s", f"{s / whole:.0%}"] for name, s in run["stages_s"].items()]
    slices = [
        [row["slice"], f"{row['synthetic_ms']:.1f} ms", f"{row['plain_ms']:.1f} ms"]
        for row in stored["slices"]
    ]
    peer = stored["whole"]
    kept = f"{stored['synthetic_mb']:.2f} MB, written with the others"
    forms = [
        ["difference from its source", kept],
        ["whole scan file", f"{peer['scan_file_mb']:.0f} MB in {peer['scan_file_s']:.1f} s"],
        ["native .nii.gz and mask", f"{peer['nifti_mb']:.0f} MB in {peer['nifti_s']:.1f} s"],
    ]
    return "\n\n".join(
        [
            f"The {scans} scans are 20 phantom scans under {scans} names, read from the system's cache.",
            markdown(content["targets"], content["machine"]),
            f"Where the {whole:.0f} s go (time at work divided by the two workers); the set takes "
            f"{run['mb']:.0f} MB, {run['mean_infected_ml']:.0f} ml are infected in a volume on average:",
            rows_markdown(["stage", "time", "share"], stages),
            f"One volume with {stored['infected_voxels']} infected voxels, kept in three ways:",
            rows_markdown(["form", "size"], forms),
            "Reading one slice of it, through the middle of the infection:",
            rows_markdown(["slice", "synthetic", "its source"], slices),
            f"`lungcast audit --jobs 2` of {audited['volumes']} such volumes of {audited['sources']} scans takes "
            f"{audited['seconds']:.0f} s and {audited['peak_gb']:.1f} GB without the classifier; "
            f"{audited['flagged']} are flagged.",
        ]
    )


def fresh_table(fresh: dict[str, Any]) -> str:
    """For docs/on_the_fly.md."""
    sampled, kept = fresh["sampler"], fresh["trajectory"]
    draws = [
        [f"{row['days']:g}", f"{row['drawn_ms']:.0f} ms", f"{row['from_the_start_ms']:.0f} ms"]
        for row in kept["draws"]
    ]
    return "\n\n".join(
        [
            f"On one core, with {sampled['sources']} scans of 512^3 in memory ({sampled['held_gb']:.1f} GB), the "
            f"sampler makes {sampled['per_second']:.1f} volumes a second, "
            f"{sampled['mean_infected_voxels']:.0f} infected voxels each on average.",
            f"A trajectory of a scan with {kept['infected_voxels']} infected voxels takes {kept['mb']:.1f} MB and "
            f"{kept['write_s']:.1f} s to write; opening it takes {kept['open_s']:.1f} s, and "
            f"{kept['open_and_verify_s']:.1f} s when every voxel of the source is checked. Drawing a day from it, "
            "beside playing there from the start by jumps of 10:",
            rows_markdown(["day", "from the trajectory", "from the start"], draws),
        ]
    )


if __name__ == "__main__":
    main()
