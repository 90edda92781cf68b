"""What an export costs at full size: seconds and memory a case, bytes a voxel.

    python benchmarks/export.py --json export.json [--docs]

Makes one phantom scan of 512^3 and two synthetic ones of it; some two minutes. Every export runs alone in a fresh
process on one core.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks.machine import into_docs, machine, markdown, rows_markdown, target, versions  # noqa: E402
from simulator.augmentation import AugmentationSettings  # noqa: E402
from simulator.augmentation_plan import Ratios  # noqa: E402
from simulator.augmentation_run import augment_cohort, prepare_folder  # noqa: E402
from simulator.cohort_fit import fit_cohort  # noqa: E402
from simulator.phantom import make_cohort  # noqa: E402
from standard_space.cohort import Cohort  # noqa: E402
from standard_space.errors import LungcastError  # noqa: E402
from standard_space.export.run import BYTES_PER_VOXEL, export_cohort  # noqa: E402
from standard_space.export.settings import ExportSettings  # noqa: E402
from standard_space.grid import StandardGrid  # noqa: E402
from standard_space.image_file import read_geometry  # noqa: E402
from standard_space.ingest import EmbedSettings, embed_cohort  # noqa: E402
from standard_space.jobs import peak_memory_gb, run_isolated  # noqa: E402

GRID = 512


def make_set(folder: Path) -> Path:
    """A scan of 512^3 and two synthetic ones of it."""
    make_cohort(folder / "d", patients=1, scans=1, grid=GRID, seed=7)
    embed_cohort(folder / "d" / "manifest.csv", folder / "c", EmbedSettings(StandardGrid(GRID)))
    cohort = Cohort.open(folder / "c")
    settings = AugmentationSettings(Ratios(2.0), seed=0)
    prepare_folder(folder / "a", cohort, settings)
    augment_cohort(cohort, folder / "a", fit_cohort(cohort), settings)
    return folder / "a"


def measure(task: tuple[Path, Path, str]) -> dict[str, Any]:
    """One export of the three cases; runs in a process of its own."""
    augmented, out, geometry = task
    begun = time.perf_counter()
    outcome = export_cohort(augmented, out, ExportSettings(geometry=geometry))  # type: ignore[arg-type]
    taken = time.perf_counter() - begun
    if outcome.failures:
        raise SystemExit(str(outcome.failures))
    images = sorted((out / "images").iterdir())
    size = read_geometry(images[0]).size
    voxels = len(images) * size[0] * size[1] * size[2]
    written = sum(path.stat().st_size for path in out.rglob("*.nii.gz"))
    return {
        "geometry": geometry,
        "voxels": "x".join(map(str, size)),
        "cases": len(images),
        "seconds_a_case": taken / len(images),
        "peak_gb": peak_memory_gb(),
        "bytes_a_voxel": written / voxels,
    }


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True)
@click.option("--docs", is_flag=True, help="Update docs/export.md.")
def main(json_path: Path, docs: bool) -> None:
    """Measure; some two minutes."""
    with tempfile.TemporaryDirectory() as name:
        augmented = make_set(Path(name))
        tasks = [(augmented, Path(name) / geometry, geometry) for geometry in ("native", "standard")]
        rows = []
        for _, result in run_isolated(measure, tasks, alone=True, jobs=2):
            if isinstance(result, LungcastError):
                raise SystemExit(str(result))
            rows.append(result)
    content = {
        "benchmark": "export",
        "machine": machine(),
        "versions": versions(),
        "targets": [
            target(
                "disk, image and labels, the larger of both geometries (the check asks for this target)",
                max(row["bytes_a_voxel"] for row in rows), "bytes a voxel", BYTES_PER_VOXEL, "at most",
            )
        ],
        "exports": rows,
    }  # fmt: skip
    json_path.write_text(json.dumps(content, indent=2) + "\n")
    header = ["geometry", "voxels", "cases", "time a case", "peak memory", "bytes a voxel"]
    table = [
        [
            row["geometry"],
            row["voxels"],
            str(row["cases"]),
            f"{row['seconds_a_case']:.1f} s",
            f"{row['peak_gb']:.1f} GB",
            f"{row['bytes_a_voxel']:.2f}",
        ]
        for row in rows
    ]
    text = "\n\n".join([rows_markdown(header, table), markdown(content["targets"], content["machine"])])
    click.echo(text)
    if docs:
        into_docs(ROOT / "docs" / "export.md", "benchmarks/export.py", text)


if __name__ == "__main__":
    main()
