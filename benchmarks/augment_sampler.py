"""Sampler and trajectories on one core; run in a process of its own by `augment.py`.

    taskset -c 0 python benchmarks/augment_sampler.py COHORT FITS FOLDER

Prints JSON. Sources are in memory when the sampler is timed.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

for _name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from simulator.dynamics.engine import Controls, advance  # noqa: E402
from simulator.fits import CohortFits  # noqa: E402
from simulator.lung_crop import read_lung_crop  # noqa: E402
from simulator.sampler import ProgressionSampler  # noqa: E402
from simulator.trajectory import open_trajectory, write_trajectory  # noqa: E402
from standard_space.cohort import Cohort  # noqa: E402

VOLUMES = 60
DRAWN_DAYS = (0.5, 1.25, 2.0)


def timed(work: Any, repeats: int = 3) -> tuple[float, Any]:
    """Median seconds of a call, and its last result."""
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken), result


def sampler(cohort: Cohort, fits: CohortFits) -> dict[str, float]:
    """Volumes a second of the endless stream."""
    source = ProgressionSampler(cohort, fits, seed=0, memory_gb=8.0)
    if source.warm() < len(source.entries):
        raise SystemExit("the sources do not fit into memory")
    stream = iter(source)
    for _ in range(5):
        next(stream)
    begun = time.perf_counter()
    infected = [int(next(stream).infection.sum()) for _ in range(VOLUMES)]
    return {
        "per_second": VOLUMES / (time.perf_counter() - begun),
        "mean_infected_voxels": statistics.mean(infected),
        "sources": len(source.entries),
        "held_gb": source.held_gb,
    }


def trajectory(cohort: Cohort, fits: CohortFits, folder: Path) -> dict[str, Any]:
    """The trajectory of the scan with the median lesion: size, writing, opening, drawing."""
    entry = sorted(cohort.entries, key=lambda found: found.infected_ml or 0.0)[len(cohort.entries) // 2]
    w = fits.of(entry).fit.parameters
    crop = read_lung_crop(cohort, entry)
    path = folder / "trajectory.h5"
    written, _ = timed(lambda: write_trajectory(path, crop, w, seed=1), 2)
    opened, found = timed(lambda: open_trajectory(path, cohort, verify=False), 2)
    verified, _ = timed(lambda: open_trajectory(path, cohort), 2)
    rows = []
    for days in DRAWN_DAYS:
        drawn, _ = timed(lambda days=days: found.at(days))
        anew, _ = timed(
            lambda days=days: advance(
                crop.start(), w, round(100 * days), jump=10, seed=1, controls=Controls()
            ).signal_volume()
        )
        rows.append({"days": days, "drawn_ms": 1e3 * drawn, "from_the_start_ms": 1e3 * anew})
    return {
        "infected_voxels": int(crop.infection.sum()),
        "mb": path.stat().st_size / 1e6,
        "write_s": written,
        "open_s": opened,
        "open_and_verify_s": verified,
        "draws": rows,
    }


if __name__ == "__main__":
    opened_cohort, stored_fits = Cohort.open(sys.argv[1]), CohortFits.load(sys.argv[2])
    print(
        json.dumps(
            {
                "sampler": sampler(opened_cohort, stored_fits),
                "trajectory": trajectory(opened_cohort, stored_fits, Path(sys.argv[3])),
            }
        )
    )
