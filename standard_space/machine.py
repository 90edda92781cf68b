"""What the project runs on, for the record of what was measured."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def machine() -> dict[str, Any]:
    """Return processor, cores, the vector instructions that matter here, system and Python.

    Returns
    -------
    dict
        ``processor``, ``instructions`` (separated by blanks; empty where they are not known), ``system`` and
        ``python``: str. ``cores``: int.
    """
    name, flags = platform.processor() or platform.machine(), ""
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
            if line.startswith("flags"):
                flags = f"{line} "
    return {
        "processor": name,
        "cores": os.cpu_count() or 1,
        "instructions": " ".join(flag for flag in _INSTRUCTIONS if f" {flag} " in flags),
        "system": platform.system(),
        "python": platform.python_version(),
    }
