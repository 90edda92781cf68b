from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from standard_space import machine as module
from standard_space.machine import machine


def test_it_names_the_processor_and_its_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 avx512_bf16x amx_bf16\n")
    monkeypatch.setattr(module, "_CPUINFO", cpuinfo)
    found = machine()
    assert found["processor"] == "Some CPU @ 2 GHz"
    assert found["instructions"] == "avx2 amx_bf16"


def test_without_cpuinfo_it_says_what_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "none")
    found = machine()
    assert found["processor"] == (platform.processor() or platform.machine())
    assert found["instructions"] == ""
    assert found["cores"] == (os.cpu_count() or 1)
