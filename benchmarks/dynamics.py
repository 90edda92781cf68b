"""Chain, fit, voxel engine and jumps beside their peers, in one run.

    python benchmarks/dynamics.py --json dynamics.json [--docs]

Some five minutes on two cores, at most 4 GB of memory. What is timed runs on one core unless it says otherwise;
nothing else should run. `--docs` puts the tables into docs/dynamics.md and draws docs/jump_length.png.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

# One core: before Numba, NumPy's BLAS and torch count theirs.
for _name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import click  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks import jump_length  # noqa: E402
from benchmarks.dynamics_chain import pair_of_histograms, time_chain, time_fit  # noqa: E402
from benchmarks.dynamics_engine import (  # noqa: E402
    PEER_CROP,
    RUNS,
    TRANSITIONS,
    peak_memory_gb,
    time_engine,
    time_peers,
    time_scaling,
    time_threads,
)
from benchmarks.dynamics_scan import growing, make_chest  # noqa: E402
from benchmarks.dynamics_tables import make_targets, tables  # noqa: E402
from benchmarks.machine import into_docs, machine, versions  # noqa: E402
from simulator.dynamics.warmup import warm_up  # noqa: E402

SIZE, INFECTED, GROWN, LESIONS = 512, 220_000, 380_000, 14


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True)
@click.option("--docs", is_flag=True, help="Update docs/dynamics.md and docs/jump_length.png.")
def main(json_path: Path, docs: bool) -> None:
    """Measure everything; some five minutes."""
    begun = time.perf_counter()

    def say(what: str) -> None:
        click.echo(f"{time.perf_counter() - begun:4.0f} s  {what} ...")

    say("compile")
    warm_up()
    say("chain and fit")
    before, after, truth = pair_of_histograms()
    chain, fits = time_chain(before, truth), time_fit(before, after)
    say(f"a scan of {SIZE}^3")
    chest = make_chest(SIZE, INFECTED, LESIONS)
    w = growing(chest, GROWN, TRANSITIONS)
    say("engine")
    engine = time_engine(chest, w)
    active = 0.5 * (engine[0]["infected_before"] + engine[0]["infected_after"])
    crop = chest.crop(PEER_CROP)
    say("two lesions in two threads")
    threads = time_threads(crop, w)
    say("dense automata")
    peers = time_peers(chest, crop, w, active)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chest.save(folder)
        (folder / "w.json").write_text(json.dumps(w.to_json()))
        say("memory")
        memory = {run: peak_memory_gb(folder, jump, steps) for run, jump, steps in RUNS}
    say("scaling with the number of infected voxels")
    scaling = time_scaling(chest)
    del chest
    say("jump length")
    jumps = jump_length.study()
    content = {
        "benchmark": "dynamics",
        "machine": machine(),
        "versions": versions(),
        "targets": make_targets(chain, fits, engine, peers, memory, threads),
        "chain": chain,
        "fit": fits,
        "engine": engine,
        "peers": peers,
        "memory_gb": memory,
        "scaling": scaling,
        "threads": threads,
        "jump_length": jumps,
        "lesions": LESIONS,
        "births_per_ggo_voxel_and_transition": w.birth_rate,
        "infected_in_crop": threads["infected"],
        "seconds_of_the_benchmark": round(time.perf_counter() - begun, 1),
    }
    json_path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    parts = tables(content)
    click.echo("\n\n".join(parts.values()))
    if docs:
        for name, text in parts.items():
            into_docs(ROOT / "docs" / "dynamics.md", f"benchmarks/dynamics.py {name}", text)
        jump_length.draw(jumps, ROOT / "docs" / "jump_length.png")


if __name__ == "__main__":
    main()
