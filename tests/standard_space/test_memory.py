from __future__ import annotations

import os
from pathlib import Path

import pytest

from standard_space import memory as module
from standard_space.memory import memory

GB = 2**30


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 6 GB free, whose process is in no group."""
    (tmp_path / "meminfo").write_text(f"MemTotal:  99 kB\nMemAvailable:  {6 * 2**20} kB\n")
    monkeypatch.setattr(module, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(module, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(module, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 8 * GB // 4096}.__getitem__)
    return tmp_path


def group(system: Path, path: str, **files: str) -> None:
    folder = system / "groups" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_without_limits_it_is_the_machine_s(system: Path) -> None:
    assert memory() == module.Memory(8.0, 6.0)


def test_a_limit_anywhere_above_the_process_counts(system: Path) -> None:
    (system / "own").write_text("0::/slurm/job7/step\n")
    group(system, "slurm/job7/step", memory__max="max", memory__current=str(GB))
    group(system, "slurm/job7", memory__max=str(4 * GB), memory__current=str(GB))
    assert memory() == module.Memory(4.0, 3.0)


def test_cached_files_do_not_count_as_used(system: Path) -> None:
    (system / "own").write_text("0::/\n")
    group(
        system,
        "",
        memory__max=str(4 * GB),
        memory__current=str(3 * GB),
        memory__stat=f"anon 5\ninactive_file {2 * GB}\n",
    )
    assert memory() == module.Memory(4.0, 3.0)


def test_first_version_of_groups(system: Path) -> None:
    (system / "own").write_text("5:cpu,cpuacct:/elsewhere\n3:memory:/docker/abc\n")
    group(system, "memory", memory__limit_in_bytes=str(2 * GB), memory__usage_in_bytes=str(GB))
    assert memory() == module.Memory(2.0, 1.0)


def test_a_limit_above_the_machine_s_memory_says_nothing(system: Path) -> None:
    (system / "own").write_text("3:memory:/\n")
    group(system, "memory", memory__limit_in_bytes=str(2**63 - 4096), memory__usage_in_bytes=str(GB))
    assert memory() == module.Memory(8.0, 6.0)


def test_a_system_that_does_not_say_what_is_free(system: Path) -> None:
    (system / "meminfo").unlink()
    assert memory() == module.Memory(8.0, None)


def test_of_this_machine() -> None:
    found = memory()
    assert found.total_gb > 0
    assert found.free_gb is None or 0 <= found.free_gb <= found.total_gb
