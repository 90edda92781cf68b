"""Infections started in real thoraces that have none: volumes over eight days, and a picture.

    python benchmarks/healthy.py --json healthy.json [--data FOLDER] [--docs]

The CT that slicerio ships is always there (`pip install -e .[test]`); the others come from the folder of real
chests of the development tree (../shared/data), unless `--data` names another. Two minutes.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import slicerio

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks.machine import into_docs, machine, rows_markdown, target, versions  # noqa: E402
from simulator.dynamics.engine import start_state  # noqa: E402
from simulator.figure_style import INFECTION_COLOUR, TRUTH_COLOUR, new_figure, save_figure  # noqa: E402
from simulator.figures import best_slices, show_slice  # noqa: E402
from simulator.progression import (  # noqa: E402
    CONSOLIDATION_HU,
    DEFAULT_DYNAMICS,
    Frame,
    frame_volumes,
    progress,
    with_reference,
)
from simulator.seeding import seed_infection  # noqa: E402
from simulator.shape import count_components, join_share  # noqa: E402
from standard_space.cohort import Cohort  # noqa: E402
from standard_space.scan import Scan  # noqa: E402

SEEDS, DAYS, RUNS = 12, 8.0, 8
SHOWN_DAYS = (0.0, 2.0, 4.0, 6.0, 8.0)
PICTURE_GRID, PICTURE_SEED, PICTURE_DAYS = 256, 3, (3.0, 5.5, 8.0)

CHESTS = (
    ("LIDC-IDRI 0001", "lidc_0001/cxr.nii.gz", ""),
    (
        "elastix baseline, right lung",
        "elastix_lung_pair/3DCT_lung_baseline.mha",
        "elastix_lung_pair/3DCT_lung_baseline_mask.mha",
    ),
    (
        "elastix follow-up, right lung",
        "elastix_lung_pair/3DCT_lung_followup.mha",
        "elastix_lung_pair/3DCT_lung_followup_mask.mha",
    ),
    ("Lung-PET-CT-Dx A0002, DICOM", "dicom_lung_pet_ct_dx_a0002", ""),
)


def embedded(folder: Path, data: Path, grid: int, every: bool) -> Iterator[tuple[str, Scan]]:
    """Names and embedded scans of what is there."""
    found = [("CTChest4 (slicerio)", slicerio.get_testdata_file("CTChest4.nrrd"), "")]
    for name, image, lungs in CHESTS if every else ():
        if (data / image).exists():
            found.append((name, str(data / image), str(data / lungs) if lungs else ""))
    manifest = folder / f"manifest{grid}.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "scan", "day", "image", "lungs"])
        writer.writerows([f"p{k}", "a", 0, image, lungs] for k, (_, image, lungs) in enumerate(found))
    command = "import sys; from cli.main import main; main(sys.argv[1:])"
    out = folder / f"cohort{grid}"
    done = subprocess.run(
        [sys.executable, "-c", command, "embed", str(manifest), str(out), "--grid", str(grid), "--quiet"],
        cwd=ROOT,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit("lungcast embed failed")
    cohort = Cohort.open(out)
    for k, (name, _, _) in enumerate(found):
        yield name, cohort.read(cohort.find(f"p{k}", "a"))


def play(scan: Scan, seed: int, every: float) -> tuple[Scan, list[Frame]]:
    """The scan with its seeds, and its frames: what `lungcast simulate --seeds 12 --where subpleural` does."""
    seeds = seed_infection(scan, SEEDS, where="subpleural", seed=seed)
    seeded = replace(scan, infection=seeds, native_infection=None)
    state = start_state(seeded.signal, seeds, seeded.susceptible, scan.grid.spacing_mm, recovery_limit=True)
    w = with_reference(DEFAULT_DYNAMICS, state)
    return seeded, list(progress(seeded, w, days=DAYS, every=every, seed=seed, state=state))


def measure(name: str, scan: Scan) -> dict[str, Any]:
    """Volumes over several runs, and what the last frames look like in numbers."""
    volumes, shares, joins, pieces, forbidden, clipped = [], [], [], [], 0, 0
    for seed in range(RUNS):
        seeded, frames = play(scan, seed, every=2.0)
        volumes.append([frame_volumes(frame, seeded)["infected_ml"] for frame in frames])
        last = frames[-1]
        dense = last.infection & (last.signal >= scan.window.signal_of(CONSOLIDATION_HU))
        shares.append(float(dense.sum() / last.infection.sum()))
        joins.append(join_share(dense, last.infection))
        pieces.append(count_components(last.infection, scan.grid.spacing_mm, least_ml=0.1))
        forbidden += int((last.infection & (scan.airways | scan.vessels | ~scan.lungs)).sum())
        clipped += last.report.unplaced
    ml = np.array(volumes)
    return {
        "chest": name,
        "lungs_ml": float(scan.lungs.sum() * scan.grid.voxel_volume_ml),
        "median_ml": np.median(ml, axis=0).round(2).tolist(),
        "lowest_ml": ml.min(axis=0).round(2).tolist(),
        "highest_ml": ml.max(axis=0).round(2).tolist(),
        "consolidation_share": float(np.median(shares)),
        "join_share": float(np.nanmedian(joins)),
        "components": float(np.median(pieces)),
        "voxels_in_airways_vessels_or_outside": forbidden,
        "unplaced_births": clipped,
    }


def draw(scan: Scan, path: Path) -> None:
    """Three days of one progression: plain above, annotation and consolidation below."""
    seeded, frames = play(scan, PICTURE_SEED, every=0.5)
    shown = [frame for frame in frames if frame.days in PICTURE_DAYS]
    index = best_slices(seeded, shown[-1].infection)["axial"]
    cut = scan.window.signal_of(CONSOLIDATION_HU)
    figure, axes = new_figure(8.4, 4.5, 2, len(shown))
    for column, frame in enumerate(shown):
        ml = frame_volumes(frame, seeded)["infected_ml"]
        dense = frame.infection & (frame.signal >= cut)
        contours = [(frame.infection, INFECTION_COLOUR), (dense, TRUTH_COLOUR)]
        show_slice(axes[0, column], scan, "axial", index, signal=frame.signal)
        show_slice(axes[1, column], scan, "axial", index, signal=frame.signal, contours=contours)
        axes[0, column].set_title(f"day {frame.days:g}: {ml:.0f} ml", fontsize=9)
    save_figure(figure, path)


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True)
@click.option("--data", type=click.Path(path_type=Path), default=ROOT.parent / "shared" / "data")
@click.option("--docs", is_flag=True, help="Update docs/dynamics.md and docs/healthy.png.")
def main(json_path: Path, data: Path, docs: bool) -> None:
    """Play progressions in every chest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [measure(*chest) for chest in embedded(folder, data, 128, every=True)]
        if docs:
            ((_, scan),) = embedded(folder, data, PICTURE_GRID, every=False)
            draw(scan, ROOT / "docs" / "healthy.png")
    forbidden = sum(row["voxels_in_airways_vessels_or_outside"] for row in rows)
    content = {
        "benchmark": "healthy",
        "machine": machine(),
        "versions": versions("slicerio"),
        "targets": [
            target("infected voxels in airways, vessels or outside the lungs", forbidden, "", 0, "at most")
        ],
        "days": SHOWN_DAYS,
        "runs": RUNS,
        "chests": rows,
    }
    json_path.write_text(json.dumps(content, indent=2) + "\n")
    text = table(content)
    click.echo(text)
    if docs:
        into_docs(ROOT / "docs" / "dynamics.md", "benchmarks/healthy.py", text)


def table(content: dict[str, Any]) -> str:
    """The Markdown of all chests."""
    header = ["chest", *(f"day {day:g}, ml" for day in SHOWN_DAYS)]
    header += ["consolidation", "its join share", "components over 0.1 ml", "in airways, vessels, outside"]
    rows = []
    for row in content["chests"]:
        triples = zip(row["median_ml"], row["lowest_ml"], row["highest_ml"], strict=True)
        rows.append(
            [
                row["chest"],
                *(f"{middle:.0f} ({low:.0f} to {high:.0f})" for middle, low, high in triples),
                f"{row['consolidation_share']:.2f}",
                f"{row['join_share']:.2f}",
                f"{row['components']:.0f}",
                str(row["voxels_in_airways_vessels_or_outside"]),
            ]
        )
    return "\n\n".join(
        [
            f"{SEEDS} subpleural seeds, {RUNS} runs a chest at 128^3: median volume (lowest to highest); the last "
            f"four columns are medians on day {DAYS:g}, by the clinical cut at {CONSOLIDATION_HU:g} HU:",
            rows_markdown(header, rows),
        ]
    )


if __name__ == "__main__":
    main()
