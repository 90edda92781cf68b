"""The studies behind docs/evidence.md: their cohorts, their plans, and where their results are stored.

    python -m benchmarks.evidence_studies WORK --shared ../shared/data --study ratios --jobs 2

makes what is missing of the cohorts in WORK, does the runs that are not done yet, and stores results.csv.gz and
study.json in docs/evidence/<study>/, and costs.csv of the studies in `TIMED`, during which the machine must do
nothing else. Called again it goes on. `python -m benchmarks.evidence --docs` makes the page of what is stored.
Some five hours on two cores for all of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks.evidence_data import painted_thoraces, untouched_thoraces  # noqa: E402
from cli.console import Console  # noqa: E402
from segmentation.study.material import Inputs  # noqa: E402
from segmentation.study.plan import StudyPlan  # noqa: E402
from segmentation.study.results_file import read_results, write_results  # noqa: E402
from segmentation.study.run import run_study  # noqa: E402
from segmentation.study.study_results import ABOUT, COSTS, RESULTS  # noqa: E402
from simulator.augmentation_run import parse_shard  # noqa: E402
from simulator.phantom.cohort import make_cohort  # noqa: E402
from standard_space.cohort import Cohort  # noqa: E402
from standard_space.errors import DataError, LungcastError  # noqa: E402
from standard_space.files import write_json, write_mark  # noqa: E402
from standard_space.grid import StandardGrid  # noqa: E402
from standard_space.ingest import EmbedSettings, embed_cohort, prepare_cohort  # noqa: E402

GRID = 128
SEEN = ("aurora-16", "boreas-64", "cirrus-128")
UNSEEN = ("delta-lowdose", "eos-spectral")
PATIENTS, FEW = 20, 6
TIMED = ("rivals",)
"""Studies whose times are published."""

RESULTS_STORED = "results.csv.gz"
RATIOS = (0.0, 50.0, 100.0, 200.0, 300.0, 400.0)
RIVALS = ("unet2d", "h-denseunet", "mpunet", "unet3d", "vnet3d", "mueller", "transfer", "covid-segnet")
REDUCED: dict[str, dict[str, Any]] = {
    "": {"validation_slices": 32},
    "three-way": {"width": 8},
    "unet2d": {"width": 16},
    "h-denseunet": {"width": 24},
    "mpunet": {"width": 8, "batch_size": 4},
    "unet3d": {"width": 8},
    "vnet3d": {"width": 4},
    "mueller": {"width": 8, "patch": 48},
    "transfer": {"width": 16},
    "covid-segnet": {"width": 16},
}
"""Narrower than published, each about as long to train on two cores as the three-way method (MPUNet longer)."""


@dataclass(frozen=True)
class Study:
    """A study of the page.

    Attributes
    ----------
    title : str
        Of its section.
    cohort : str
        That is cut into folds.
    plan : callable
        Gives the plan for a number of steps.
    """

    title: str
    cohort: str
    plan: Callable[[int], StudyPlan]


STUDIES = {
    "ratios": Study(
        "Ratios of synthetic to real scans, eight training patients, three seeds",
        "own",
        lambda steps: StudyPlan(
            ("three-way",),
            RATIOS,
            folds=(2,),
            seeds=(0, 1, 2),
            without=("combine",),
            choices=("rules",),
            settings=_settings(steps),
        ),
    ),
    "generators": Study(
        "Generators and components, eight training patients, one seed",
        "own",
        lambda steps: StudyPlan(
            ("three-way",),
            (0.0, 200.0),
            folds=(2,),
            generators=("offline", "on-the-fly", "copy-paste", "ellipsoids", "observed"),
            without=("normalise", "vary"),
            choices=("offsets",),
            settings=_settings(steps),
        ),
    ),
    "few": Study(
        "A handful of scans: generators, two training patients, three seeds",
        "few",
        lambda steps: StudyPlan(
            ("three-way",),
            (0.0, 200.0),
            folds=(2,),
            seeds=(0, 1, 2),
            generators=("offline", "on-the-fly", "copy-paste", "ellipsoids", "observed"),
            settings=_settings(steps),
        ),
    ),
    "long": Study(
        "Three times as many steps, eight training patients, one fold",
        "own",
        lambda steps: StudyPlan(
            ("three-way",),
            (0.0, 200.0),
            folds=(2,),
            fold_subset=(1,),
            generators=("offline", "observed"),
            settings=_settings(3 * steps),
        ),
    ),
    "rivals": Study(
        "Rivals, eight training patients, one seed",
        "own",
        lambda steps: StudyPlan(("three-way", *RIVALS), (0.0, 200.0), folds=(2,), settings=_settings(steps)),
    ),
    "mueller": Study(
        "Preprocessing, augmentation and folds of Müller et al.",
        "own",
        lambda steps: StudyPlan(
            ("mueller",),
            (0.0,),
            folds=(2, 3, 4, 5),
            without=("vary", "preprocess"),
            settings=_settings(steps),
        ),
    ),
}


def _settings(steps: int) -> dict[str, dict[str, Any]]:
    return {**REDUCED, "": {**REDUCED[""], "steps": steps}}


def make_cohorts(work: Path, shared: Path, jobs: int) -> None:
    """Make the cohorts that are not there: phantoms of seen and unseen scanners, real thoraces."""
    for name, patients, scans, seed, scanners in (
        ("own", PATIENTS, 2, 11, SEEN),
        ("more", PATIENTS, 6, 11, SEEN),
        ("other", 10, 1, 12, UNSEEN),
    ):
        if not _whole(work / name):
            images, manifest = work / f"{name}_images", work / f"{name}_images" / "manifest.csv"
            shutil.rmtree(images, ignore_errors=True)
            make_cohort(
                images,
                patients=patients,
                scans=scans,
                grid=GRID,
                seed=seed,
                lesions="fields",
                scanners=scanners,
            )
            settings = EmbedSettings(StandardGrid(GRID))
            prepare_cohort(manifest, work / name, settings, force=True)
            outcome = embed_cohort(manifest, work / name, settings, jobs=jobs)
            if outcome.failures:
                raise DataError("phantoms that cannot be embedded", where=work / name)
    real = work / "real"
    if not (_whole(real / "painted") and _whole(real / "untouched")):
        painted_thoraces(real / "painted", shared, StandardGrid(GRID), seed=7, patients=12, scans=1)
        untouched_thoraces(real / "untouched", shared, StandardGrid(GRID))
    if not _whole(work / "few"):
        cohort = Cohort.open(work / "own")
        few = sorted({entry.patient for entry in cohort.entries})[:FEW]
        shutil.rmtree(work / "few", ignore_errors=True)
        (work / "few").mkdir()
        entries = [entry for entry in cohort.entries if entry.patient in few]
        for entry in entries:
            os.link(cohort.path(entry), work / "few" / entry.file)
        Cohort.write_manifest(work / "few", entries)
        write_mark(work / "few", "cohort", {"complete": True})


def _whole(folder: Path) -> bool:
    try:
        return bool(Cohort.open(folder).entries)
    except LungcastError:
        return False


def store(study: Path, evidence: Path, title: str, *, costs: bool) -> None:
    """Copy a study's results, compressed, to where the page is made of; its costs where they count."""
    evidence.mkdir(parents=True, exist_ok=True)
    write_results(evidence / RESULTS_STORED, read_results(study / RESULTS))
    about = json.loads((study / ABOUT).read_text(encoding="utf-8"))
    write_json(evidence / ABOUT, {"title": title, "code": _commit(), **about})
    if costs:
        shutil.copyfile(study / COSTS, evidence / COSTS)
    else:
        (evidence / COSTS).unlink(missing_ok=True)


def _commit() -> str:
    """Return the commit of the code that runs, "+" behind it where files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--exclude=*", "--dirty=+", "--abbrev=10"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--shared", type=click.Path(path_type=Path), required=True, help="Folder of the real thoraces.")
@click.option("--study", "name", type=click.Choice(sorted(STUDIES)), required=True)
@click.option("--steps", default=1000, show_default=True, help="Per network.")
@click.option("--jobs", default=1, show_default=True)
@click.option("--shard", help="i/N")
@click.option("--evidence", type=click.Path(path_type=Path), default=ROOT / "docs" / "evidence")
def main(
    work: Path, shared: Path, name: str, steps: int, jobs: int, shard: str | None, evidence: Path
) -> None:
    """Do one of the studies and store its results."""
    console = Console(quiet=False)
    make_cohorts(work, shared, jobs)
    folder, plan = STUDIES[name].cohort, STUDIES[name].plan(steps)
    tests = {
        "other": work / "other",
        "painted": work / "real" / "painted",
        "untouched": work / "real" / "untouched",
    }
    more = work / "more" if "observed" in plan.generators else None
    with console.stages() as stage:
        outcome = run_study(
            Inputs((work / folder).resolve(), tests, (work / "studies" / name).resolve(), more),
            plan,
            shard=parse_shard(shard),
            jobs=jobs,
            stage=stage,
        )
    console.say(f"{outcome.done} of {outcome.planned} runs are done")
    if outcome.done:
        store(work / "studies" / name, evidence / name, STUDIES[name].title, costs=name in TIMED)
    console.finish(outcome.failures)


if __name__ == "__main__":
    main()
