"""What `lungcast doctor` says, on this machine and on broken ones."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from segmentation import doctor, doctor_trials
from segmentation.doctor import Finding, examine
from standard_space.memory import Memory


def named(findings: list[Finding], topic: str, name: str) -> Finding:
    (found,) = [one for one in findings if (one.topic, one.name) == (topic, name)]
    return found


def problems(findings: list[Finding]) -> list[str]:
    return [one.name for one in findings if one.problem]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    return examine(tmp_path_factory.mktemp("results"))


def test_the_demo_would_run_here(here: list[Finding]) -> None:
    assert problems(here) == []
    assert named(here, "packages", "torch").value == version("torch")
    assert {one.name for one in here if one.topic == "trials"} == {
        "folder",
        "Numba",
        "PyTorch",
        "h5py",
        "SimpleITK",
        "matplotlib",
        "films",
    }


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    examine(tmp_path / "not" / "there")
    assert list(tmp_path.iterdir()) == []


def test_extras_of_users_are_named_those_of_developers_are_not(here: list[Finding]) -> None:
    extras = {one.name for one in here if one.topic == "extras"}
    assert {"baselines", "dicom", "lungmask"} <= extras
    assert not extras & {"test", "dev", "bench", "test-interop"}


def test_a_missing_package_is_a_problem_a_missing_extra_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(name: str) -> str:
        if name in ("scipy", "monai"):
            raise PackageNotFoundError(name)
        return "1.2" if name == "h5py" else version(name)

    monkeypatch.setattr(doctor, "version", without)
    found = examine(tmp_path)
    assert named(found, "packages", "scipy").value == "missing"
    assert "pip install 'scipy" in named(found, "packages", "scipy").remedy
    assert named(found, "packages", "h5py").value.startswith("1.2, wanted >=")
    assert named(found, "extras", "baselines").value == "monai missing"
    assert "lungcast[baselines]" in named(found, "extras", "baselines").remedy
    assert sorted(problems(found)) == ["h5py", "scipy"]


def test_an_installation_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "metadata", none)
    assert problems(examine(tmp_path)) == ["lungcast"]


def test_too_little_memory_and_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "memory", lambda: Memory(4.0, 0.5))
    monkeypatch.setattr(doctor, "DEMO_DISK_GB", 1e9)
    found = examine(tmp_path)
    assert problems(found) == ["memory", "disk"]
    assert named(found, "machine", "memory").value == "4.0 GB, free 0.5 GB"


def test_free_memory_that_is_not_known_is_judged_by_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "memory", lambda: Memory(8.0, None))
    assert problems(examine(tmp_path)) == []


def test_variables_that_change_threads_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP_NUM_THREADS=1" in named(examine(tmp_path), "machine", "environment").value


@pytest.mark.parametrize(
    "error", [ImportError("libgomp.so.1: no such file"), RuntimeError("a\nb"), OSError()]
)
def test_a_trial_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(folder: Path) -> str:
        raise error

    attempts: list[tuple[str, str, Callable[[Path], str]]] = [
        ("broken", "reinstall it", broken),
        ("whole", "", lambda folder: "works"),
    ]
    monkeypatch.setattr(doctor_trials, "_ATTEMPTS", attempts)
    first, second = doctor_trials.trials(tmp_path)
    assert first.failed
    assert first.remedy == "reinstall it"
    assert first.value.startswith(type(error).__name__)
    assert "\n" not in first.value
    assert not second.failed


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor_trials.tempfile, "TemporaryDirectory", refuse)
    assert "folder" in problems(examine(tmp_path))
