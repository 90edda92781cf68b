"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("lungcast", "numpy", "numba", "scipy", "SimpleITK", "torch", "h5py")


def machine() -> dict[str, str | int]:
    """Processor, cores, and the vector instructions that matter here."""
    name, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
            if line.startswith("flags"):
                flags = line
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "processor": name,
        "cores": os.cpu_count() or 1,
        "instructions": " ".join(flag for flag in known if f" {flag}" in flags),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of lungcast and what it stands on."""
    return {name: version(name) for name in PACKAGES}


def target(
    name: str, value: float, unit: str, target: float, direction: str, peer: float | None = None
) -> dict[str, object]:
    """One measured target; `direction` is "at most" or "at least"."""
    met = value <= target if direction == "at most" else value >= target
    return {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "target": target,
        "direction": direction,
        "met": met,
        "peer": None if peer is None else round(peer, 4),
        "ratio": None if not peer else round(value / peer, 3),
    }


def markdown(targets: list[dict[str, object]], measured_on: dict[str, str | int]) -> str:
    """A table for the docs."""
    lines = ["| measured | value | target | peer | ratio |", "|---|---|---|---|---|"]
    for row in targets:
        mark = "" if row["met"] else " (missed)"
        goal = f"{row['direction']} {row['target']} {row['unit']}{mark}".strip()
        peer = "" if row["peer"] is None else str(row["peer"])
        ratio = "" if row["ratio"] is None else str(row["ratio"])
        lines.append(f"| {row['name']} | {row['value']} {row['unit']} | {goal} | {peer} | {ratio} |")
    lines += ["", f"Machine: {', '.join(f'{key} {value}' for key, value in measured_on.items())}."]
    return "\n".join(lines)
