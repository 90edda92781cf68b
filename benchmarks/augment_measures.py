"""What is measured of an augmentation: memory of all processes, sizes on disk, slices, whole volumes as peers."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from simulator.augmentation_plan import VolumePlan
from simulator.dynamics.engine import Controls, advance, start_state
from simulator.dynamics.parameters import TransitionParameters
from standard_space.cohort import Cohort, Entry
from standard_space.image import write_volume
from standard_space.restore import restore_mask, restore_volume
from standard_space.scan import Scan
from standard_space.scanfile import write_scan
from standard_space.scanreader import open_scan
from standard_space.window import AIR_HU

SLICES = {"axial": 0, "coronal": 1, "sagittal": 2}


class MemoryOfAll:
    """Highest sum of the resident memory of this process and all below it, GB, looked at every 50 ms.

    Pages that processes share are counted once for each of them, so the truth is a little less.
    """

    def __enter__(self) -> MemoryOfAll:
        self.peak_gb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.peak_gb = max(self.peak_gb, _resident_gb(_self_and_below()))


def _self_and_below() -> set[str]:
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[folder.name] = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
    family = {Path("/proc/self").resolve().name}
    while True:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        if not more:
            return family
        family |= more


def _resident_gb(processes: set[str]) -> float:
    pages = 0
    for pid in processes:
        try:
            pages += int((Path("/proc") / pid / "statm").read_text().split()[1])
        except OSError:
            continue
    return pages * 4096 / 1e9


def seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Median time of a call, the first one left out."""
    work()
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def slice_costs(augmented: Cohort, entry: Entry, source: Path) -> list[dict[str, Any]]:
    """Time of one slice through the infection's middle, of a synthetic scan and of its source."""
    rows = []
    with augmented.open_scan(entry) as synthetic, open_scan(source) as plain:
        whole = synthetic.mask("infection", np.s_[:, :, :])
        for name, axis in SLICES.items():
            middle = int(np.argmax(whole.sum(axis=tuple(other for other in range(3) if other != axis))))
            box = tuple(slice(middle, middle + 1) if a == axis else slice(None) for a in range(3))
            costs = [
                seconds(lambda reader=reader, box=box: reader.signal(box)) for reader in (synthetic, plain)
            ]
            rows.append({"slice": name, "synthetic_ms": 1e3 * costs[0], "plain_ms": 1e3 * costs[1]})
    return rows


def whole_volume_peer(
    source: Scan, w: TransitionParameters, plan: VolumePlan, jump: int, folder: Path
) -> dict[str, float]:
    """One volume without crops and differences: played on the whole grid and written as a whole."""
    begun = time.perf_counter()
    state = start_state(source.signal, source.infection, source.susceptible, source.grid.spacing_mm)
    advance(state, w, plan.transitions, jump=jump, seed=plan.seed, controls=Controls())
    scan = Scan(**{**source.__dict__, "signal": state.signal_volume(), "infection": state.mask()})
    played = time.perf_counter()
    write_scan(folder / "whole.h5", scan)
    written = time.perf_counter()
    hu = np.rint(restore_volume(scan.window.to_hu(scan.signal), scan.placement, fill=AIR_HU))
    native = scan.placement.native
    write_volume(folder / "image.nii.gz", hu.astype(np.int16), native)
    write_volume(folder / "mask.nii.gz", restore_mask(scan.infection, scan.placement), native)
    exported = time.perf_counter()
    return {
        "play_s": played - begun,
        "scan_file_s": written - played,
        "scan_file_mb": (folder / "whole.h5").stat().st_size / 1e6,
        "nifti_s": exported - written,
        "nifti_mb": sum((folder / n).stat().st_size for n in ("image.nii.gz", "mask.nii.gz")) / 1e6,
    }
