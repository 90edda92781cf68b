"""How much memory this process may use: of the machine, or less where a container or a cluster's job limits it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Memory of this process, GB of 2^30 bytes.

    Attributes
    ----------
    total_gb : float
        Of the machine, or the limit of the group of processes it runs in when that is less.
    free_gb : float or None
        Of that, what is not in use; None where the system does not say.
    """

    total_gb: float
    free_gb: float | None


def memory() -> Memory:
    """Return what this process may use; limits of Docker, Kubernetes and Slurm (cgroups 1 and 2) count."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    free = _available_gb()
    for limit_gb, used_gb in _limits():
        total = min(total, limit_gb)
        if free is not None:
            free = min(free, max(0.0, limit_gb - used_gb))
    return Memory(total, free)


def _available_gb() -> float | None:
    if not _MEMINFO.is_file():
        return None
    for line in _MEMINFO.read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    return None


def _limits() -> list[tuple[float, float]]:
    """Limit and use, GB, of every group that this process is in and that has a limit."""
    if not _OWN_GROUPS.is_file():
        return []
    found = []
    for line in _OWN_GROUPS.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = _GROUPS, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = _GROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # Inside a container the path may be the host's, which is not there; the root then is the container's own.
        own = root / path.strip("/")
        for folder in (own, *(up for up in own.parents if up.is_relative_to(root))):
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None:
                found.append((limit / 2**30, (used - _reclaimable(folder)) / 2**30))
    return found


def _number(path: Path) -> int | None:
    """Bytes in a file of a group; None when there is no such file, or no limit ("max")."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _reclaimable(folder: Path) -> int:
    """Bytes that a group has in use for files read a while ago: the system gives them back when asked for."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
