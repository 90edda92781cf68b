"""What an installation and its machine are, and whether the demo would run there."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

from packaging.requirements import Requirement

from segmentation.doctor_trials import trials
from standard_space.jobs import core_count
from standard_space.machine import machine
from standard_space.memory import memory
from standard_space.version import lungcast_version

DEMO_MEMORY_GB = 2.0
"""The demo's peak is about 1.1 GB (README); the rest is for what else runs."""
DEMO_DISK_GB = 0.5

_EXTRAS_OF_DEVELOPERS = ("test", "test-interop", "test-package", "bench", "docs", "dev")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    topic, name : str
        What it belongs to, and what it is.
    value : str
        What was found.
    problem : bool
        The demo would not run because of it.
    remedy : str
        What to do about it; of something that is no problem, what would bring more.
    """

    topic: str
    name: str
    value: str
    problem: bool = False
    remedy: str = ""


def examine(folder: str | Path) -> list[Finding]:
    """Look at the installation, the machine and a folder for results, and try every library once.

    Parameters
    ----------
    folder : str or Path
        Where results would be written; need not exist. What is tried there is removed again.

    Returns
    -------
    list of Finding
        By topic: lungcast, machine, packages, extras, GPU, trials.
    """
    return [
        *_installation(),
        *_machine(),
        *_disk(Path(folder)),
        *_packages(),
        *_extras(),
        *_gpus(),
        *(
            Finding("trials", trial.name, trial.value, trial.failed, trial.remedy)
            for trial in trials(_existing(Path(folder)))
        ),
    ]


def _installation() -> list[Finding]:
    return [
        Finding("lungcast", "version", lungcast_version()),
        Finding("lungcast", "Python", f"{sys.version.split()[0]} at {sys.executable}"),
    ]


def _machine() -> list[Finding]:
    found, room = machine(), memory()
    cores = f"{core_count()} of {found['cores']} cores"
    parts = (found["processor"], cores, found["instructions"])
    known = [
        Finding("machine", "system", str(found["system"])),
        Finding("machine", "processor", ", ".join(str(part) for part in parts if part)),
    ]
    set_here = [f"{name}={os.environ[name]}" for name in _THREAD_VARIABLES if name in os.environ]
    if set_here:
        known.append(Finding("machine", "environment", " ".join(set_here)))
    usable = room.total_gb if room.free_gb is None else room.free_gb
    free = "unknown" if room.free_gb is None else f"{room.free_gb:.1f} GB"
    short = usable < DEMO_MEMORY_GB
    remedy = f"close other programs or ask for more: the demo wants {DEMO_MEMORY_GB:g} GB" if short else ""
    known.append(Finding("machine", "memory", f"{room.total_gb:.1f} GB, free {free}", short, remedy))
    return known


def _disk(folder: Path) -> list[Finding]:
    free = shutil.disk_usage(_existing(folder)).free / 1e9
    short = free < DEMO_DISK_GB
    remedy = f"free some space: the demo wants {DEMO_DISK_GB:g} GB" if short else ""
    return [Finding("machine", "disk", f"{free:.1f} GB free at {folder}", short, remedy)]


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    there = folder.absolute()
    while not there.is_dir():
        there = there.parent
    return there


def _packages() -> list[Finding]:
    needed = [one for one in _requirements() if _applies(one, "")]
    if not needed:
        remedy = "run `pip install .` in the project's folder"
        return [Finding("packages", "lungcast", "not installed", True, remedy)]
    return [_package("packages", one, f"run `pip install '{one.name}{one.specifier}'`") for one in needed]


def _extras() -> list[Finding]:
    found = []
    for extra in _distribution("Provides-Extra"):
        if extra in _EXTRAS_OF_DEVELOPERS:
            continue
        for one in _requirements():
            if _applies(one, extra) and not _applies(one, ""):
                package = _package(
                    "extras", one, f"`pip install 'lungcast[{extra}]'` brings it", needed=False
                )
                found.append(Finding("extras", extra, f"{one.name} {package.value}", remedy=package.remedy))
    return found


def _package(topic: str, one: Requirement, remedy: str, *, needed: bool = True) -> Finding:
    try:
        held = version(one.name)
    except PackageNotFoundError:
        return Finding(topic, one.name, "missing", needed, remedy)
    if one.specifier.contains(held, prereleases=True):
        return Finding(topic, one.name, held)
    return Finding(topic, one.name, f"{held}, wanted {one.specifier}", needed, remedy)


def _requirements() -> list[Requirement]:
    return [Requirement(text) for text in _distribution("Requires-Dist")]


def _applies(one: Requirement, extra: str) -> bool:
    return one.marker is None or one.marker.evaluate({"extra": extra})


def _distribution(field: str) -> list[str]:
    try:
        return [str(text) for text in metadata("lungcast").get_all(field) or []]
    except PackageNotFoundError:
        return []


def _gpus() -> list[Finding]:
    try:
        import torch
    except (ImportError, OSError):
        return []  # its trial says why
    if torch.cuda.is_available():
        found = []
        for index in range(torch.cuda.device_count()):
            known = torch.cuda.get_device_properties(index)
            value = f"{known.name}, {known.total_memory / 2**30:.0f} GB, CUDA {torch.version.cuda}"
            found.append(Finding("GPU", f"cuda:{index}", value))
        return found
    if torch.version.cuda:
        return [Finding("GPU", "none", "PyTorch is made for CUDA but finds no GPU", remedy=_DRIVER)]
    remedy = _CUDA_BUILD if shutil.which("nvidia-smi") else ""
    return [
        Finding("GPU", "none", "PyTorch is a build for the CPU: everything runs, more slowly", remedy=remedy)
    ]


_DRIVER = "if there is one, look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES"
_CUDA_BUILD = (
    "there is an NVIDIA driver here: https://pytorch.org/get-started says how to install a CUDA build"
)
