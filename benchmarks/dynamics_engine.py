"""The voxel engine's part of `benchmarks/dynamics.py`: speed on one core, memory, scaling, threads, peers.

Everything timed runs on one core; memory is measured in a process of its own. Numba's kernels are compiled (or
read from its cache) before.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit

from benchmarks.dynamics_peers import PEERS, cost_share
from benchmarks.dynamics_scan import SPACING_MM, Chest, growing, with_lesions
from simulator.dynamics.engine import LesionState, advance, start_state
from simulator.dynamics.parameters import TransitionParameters
from simulator.dynamics.warmup import warm_up

ROOT = Path(__file__).resolve().parents[1]
TRANSITIONS = 200
RUNS = (("stepwise", 1, 200), ("jumps of 10", 10, 200), ("one jump of 100", 100, 100))
SIZES = (10_000, 50_000, 220_000, 1_000_000, 5_000_000)
SCALING_RUNS = ((1, 20), (10, 100), (100, 200))
PEER_CROP = 256

# Only what a caller needs is imported: the peak is the engine's, its input's, and that of Python with Numba.
MEMORY_RUNNER = """
import json, sys
import numpy as np
from simulator.dynamics.engine import advance, start_state
from simulator.dynamics.parameters import TransitionParameters
folder, jump, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
signal, infection, susceptible = (
    np.load(f"{folder}/{name}.npy") for name in ("signal", "infection", "susceptible")
)
w = TransitionParameters.from_json(json.load(open(f"{folder}/w.json")))
state = start_state(signal, infection, susceptible, tuple(json.loads(sys.argv[4])))
advance(state, w, steps, jump=jump, seed=1)
for line in open("/proc/self/status"):
    if line.startswith("VmHWM:"):
        print(int(line.split()[1]) * 1024 / 1e9)
"""


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process on one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def started(chest: Chest) -> LesionState:
    """`start_state` of a chest."""
    return start_state(chest.signal, chest.infection, chest.susceptible, SPACING_MM)


def time_engine(chest: Chest, w: TransitionParameters, repeats: int = 3) -> list[dict[str, Any]]:
    """Set-up and 200 transitions, stepwise and in jumps; 100 transitions at once. Medians."""
    rows = []
    warm_up()
    with one_core():
        for name, jump, steps in RUNS:
            setting_up, running = [], []
            for repeat in range(repeats):
                begun = time.perf_counter()
                state = started(chest)
                middle = time.perf_counter()
                advance(state, w, steps, jump=jump, seed=repeat)
                done = time.perf_counter()
                setting_up.append(middle - begun)
                running.append(done - middle)
            total = float(np.median(np.add(setting_up, running)))
            mean = 0.5 * (float(chest.infection.sum()) + state.n)
            rows.append(
                {
                    "run": name,
                    "jump": jump,
                    "transitions": steps,
                    "seconds": total,
                    "setup_seconds": float(np.median(setting_up)),
                    "infected_before": int(chest.infection.sum()),
                    "infected_after": state.n,
                    "exact": state.report.exact,
                    "ns_per_voxel_and_transition": float(np.median(running)) / steps / mean * 1e9,
                }
            )
            del state
    return rows


def peak_memory_gb(folder: Path, jump: int, steps: int) -> float | None:
    """Peak resident memory (10^9 bytes) of a process that loads a saved chest and plays it on; None without /proc.

    VmHWM of /proc/self/status is what ru_maxrss reports, less what the process was forked from.
    """
    if not Path("/proc/self/status").exists():
        return None
    spacing = "[" + ", ".join(map(repr, SPACING_MM)) + "]"
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_RUNNER, str(folder), str(jump), str(steps), spacing],
        cwd=ROOT,
        env={**os.environ, "NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"the memory run failed:\n{done.stderr}")
    return float(done.stdout)


def time_scaling(chest: Chest) -> list[dict[str, Any]]:
    """ns per infected voxel and transition against the number of infected voxels, at a constant number."""
    rows = []
    for size in SIZES:
        sized = with_lesions(chest, size, max(3, min(60, size // 15_000)), seed=2)
        number = int(sized.infection.sum())
        w = growing(sized, float(number), 200)
        state = started(sized)
        row: dict[str, Any] = {"infected": number}
        with one_core():
            advance(state, w, 1, jump=1, seed=0)  # fills the random field and the scratch space
            for jump, steps in SCALING_RUNS:
                repeats = 1 if size >= 1_000_000 else 3
                seconds, voxels = [], []
                for _ in range(repeats):
                    before = state.n
                    begun = time.perf_counter()
                    advance(state, w, steps, jump=jump, seed=0)
                    seconds.append(time.perf_counter() - begun)
                    voxels.append(0.5 * (before + state.n))
                row[f"jump_{jump}"] = float(np.median(np.array(seconds) / np.array(voxels))) / steps * 1e9
        rows.append(row)
        del state, sized
    return rows


@njit(nogil=True)
def _arithmetic(terms):  # type: ignore[no-untyped-def]
    total = 0.0
    for k in range(terms):
        total += np.sin(k * 1e-3)
    return total


def time_threads(chest: Chest, w: TransitionParameters) -> dict[str, Any]:
    """Two lesions after each other and in two threads: how much faster, and whether the bytes are the same.

    A loop of arithmetic that needs no memory is timed in the same way: what this machine has to give just now.
    """

    def play(seed: int) -> bytes:
        state = advance(states[seed].copy(), w, TRANSITIONS, jump=1, seed=seed)
        order = np.argsort(state.index)
        return state.index[order].tobytes() + state.bin[order].tobytes() + state.offset[order].tobytes()

    def both(work: Callable[[int], Any]) -> tuple[float, float, bool]:
        begun = time.perf_counter()
        serial = [work(0), work(1)]
        middle = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            threaded = list(pool.map(work, (0, 1)))
        return middle - begun, time.perf_counter() - middle, serial == threaded

    states = [started(chest), started(chest)]
    _arithmetic(10)
    lesions, loops = zip(
        *[(both(play), both(lambda _: _arithmetic(30_000_000))) for _ in range(3)], strict=True
    )
    serial, threaded = np.median([found[:2] for found in lesions], axis=0)
    loop_serial, loop_threaded = np.median([found[:2] for found in loops], axis=0)
    return {
        "infected": states[0].n,
        "serial_seconds": float(serial),
        "two_threads_seconds": float(threaded),
        "speedup": float(serial / threaded),
        "arithmetic_speedup": float(loop_serial / loop_threaded),
        "identical": all(found[2] for found in lesions),
    }


def time_peers(chest: Chest, crop: Chest, w: TransitionParameters, active: float) -> list[dict[str, Any]]:
    """Dense automata on one core: a transition of the crop, and scaled to the whole scan.

    Parameters
    ----------
    chest, crop
        The whole scan and the part of it that is timed.
    w : TransitionParameters
        As the engine plays them. The constant part of the births, meant for the whole scan, falls into the crop:
        a few hundred voxels, which cost a dense automaton nothing.
    active : float
        Mean number of infected voxels of the whole scan over the run.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        with one_core():
            for peer in PEERS:
                automaton = peer(crop, w, 0)
                automaton.step()  # compiled, buffers touched
                seconds = []
                for _ in range(3):
                    begun = time.perf_counter()
                    automaton.step()
                    seconds.append(time.perf_counter() - begun)
                step = float(np.median(seconds))
                whole = step * cost_share(chest, crop)
                rows.append(
                    {
                        "peer": peer.name,
                        "crop_seconds_per_transition": step,
                        "scan_seconds_per_transition": whole,
                        "scan_seconds_200_transitions": whole * TRANSITIONS,
                        "ns_per_voxel_and_transition": whole / active * 1e9,
                        "crop_ns_per_voxel_and_transition": step / automaton.counts().sum() * 1e9,
                    }
                )
                del automaton
    finally:
        torch.set_num_threads(threads)
    return rows
