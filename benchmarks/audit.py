"""What the audit finds on clean volumes of phantoms: false alarms, and how well real and synthetic are told apart.

    python benchmarks/audit.py --json audit.json [--docs]

Some five minutes on two cores. All limits are at their defaults.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks.machine import into_docs, machine, rows_markdown, target, versions  # noqa: E402
from segmentation.realism import tell_apart  # noqa: E402
from simulator.audit import audit_cohort  # noqa: E402
from simulator.augmentation import AugmentationSettings  # noqa: E402
from simulator.augmentation_plan import Ratios  # noqa: E402
from simulator.augmentation_run import augment_cohort, prepare_folder  # noqa: E402
from simulator.cohort_fit import fit_cohort  # noqa: E402
from simulator.phantom import make_cohort  # noqa: E402
from standard_space.cohort import Cohort  # noqa: E402
from standard_space.grid import StandardGrid  # noqa: E402
from standard_space.ingest import EmbedSettings, embed_cohort, prepare_cohort  # noqa: E402
from standard_space.jobs import run_isolated  # noqa: E402

COHORTS = ((64, "dynamics", 10), (128, "dynamics", 8), (128, "fields", 8))
RATIO, JOBS = 3.0, 2


def study(folder: Path, grid: int, lesions: str, patients: int) -> dict[str, Any]:
    """One cohort: phantoms, fits, volumes, audit, classifier."""
    make_cohort(folder / "d", patients=patients, scans=2, grid=grid, seed=grid, lesions=lesions)
    settings = EmbedSettings(StandardGrid(grid))
    prepare_cohort(folder / "d" / "manifest.csv", folder / "c", settings)
    embed_cohort(folder / "d" / "manifest.csv", folder / "c", settings, jobs=JOBS)
    cohort = Cohort.open(folder / "c")
    fits = fit_cohort(cohort, jobs=JOBS)
    asked = AugmentationSettings(Ratios(RATIO), seed=1)
    prepare_folder(folder / "a", cohort, asked)
    runner = functools.partial(run_isolated, jobs=JOBS)
    outcome = augment_cohort(cohort, folder / "a", fits, asked, runner=runner)
    if outcome.failures:
        raise SystemExit(str(outcome.failures))
    begun = time.perf_counter()
    found = audit_cohort(Cohort.open(folder / "a", cohort), fits=fits, patches=True, jobs=JOBS)
    audited = time.perf_counter()
    told = tell_apart(found.patches)
    z = [row.chain_z for row in found.volumes if row.chain_z is not None]
    return {
        "grid": grid,
        "lesions": lesions,
        "patients": patients,
        "volumes": len(found.volumes),
        "flagged": len(found.flagged),
        "failed": len(found.failures),
        "z_sd": statistics.pstdev(z),
        "z_largest": max(abs(value) for value in z),
        "network": None if told.network is None else vars(told.network),
        "baseline": None if told.baseline is None else vars(told.baseline),
        "audit_s": audited - begun,
        "classifier_s": time.perf_counter() - audited,
    }


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True)
@click.option("--docs", is_flag=True, help="Update docs/audit.md.")
def main(json_path: Path, docs: bool) -> None:
    """Measure; some five minutes."""
    rows = []
    for grid, lesions, patients in COHORTS:
        click.echo(f"{grid}^3, {lesions} lesions, {patients} patients ...")
        with tempfile.TemporaryDirectory() as name:
            rows.append(study(Path(name), grid, lesions, patients))
    volumes, flagged = sum(row["volumes"] for row in rows), sum(row["flagged"] for row in rows)
    content = {
        "benchmark": "audit",
        "machine": machine(),
        "versions": versions(),
        "targets": [
            target("clean volumes flagged", 100 * flagged / volumes, "%", 1.0, "at most"),
        ],
        "cohorts": rows,
    }
    json_path.write_text(json.dumps(content, indent=2) + "\n")
    header = ["cohort", "clean volumes", "flagged", "z: sd (largest)", "AUC, network", "AUC, mean and sd"]
    text = rows_markdown(header, [table_row(row) for row in rows])
    click.echo(text)
    if docs:
        into_docs(ROOT / "docs" / "audit.md", "benchmarks/audit.py", text)


def table_row(row: dict[str, Any]) -> list[str]:
    """One cohort for the docs."""
    return [
        f"{row['grid']}^3, {row['lesions']} lesions, {row['patients']} patients",
        str(row["volumes"]),
        str(row["flagged"]),
        f"{row['z_sd']:.2f} ({row['z_largest']:.1f})",
        auc(row["network"]),
        auc(row["baseline"]),
    ]


def auc(found: dict[str, Any] | None) -> str:
    """An AUC with its interval."""
    if found is None:
        return "-"
    return f"{found['mean']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


if __name__ == "__main__":
    main()
