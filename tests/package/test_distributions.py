"""The sdist and the wheel, made and installed as a user would, far from the source tree (marker `package`)."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from standard_space.version import lungcast_version

ROOT = Path(__file__).parents[2]
PIP = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-c", str(ROOT / "constraints.txt"))

pytestmark = pytest.mark.package


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command away from the source tree; what it printed, then what it noted."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    shown = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert shown.returncode == 0, f"{command}\n{shown.stdout}\n{shown.stderr}"
    return shown.stdout + shown.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, made of what git knows, and the wheel, made of the sdist."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", out, source, cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """`lungcast` in a clean environment that holds the wheel and what it requires, nothing else."""
    place = tmp_path_factory.mktemp("clean")
    venv.create(place / "venv", with_pip=True)
    run(place / "venv/bin/python", *PIP, wheel, cwd=place)
    return lambda *arguments, cwd=place: run(place / "venv/bin/lungcast", *arguments, cwd=cwd)


def test_both_have_the_version_of_the_code(built: Path) -> None:
    version = lungcast_version()
    assert sorted(path.name for path in built.iterdir()) == [
        f"lungcast-{version}-py3-none-any.whl",
        f"lungcast-{version}.tar.gz",
    ]


def test_the_wheel_holds_the_code_and_what_it_shows_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {
        "standard_space",
        "simulator",
        "segmentation",
        "cli",
        f"lungcast-{lungcast_version()}.dist-info",
    }
    for name in (
        "segmentation/viewer/assets/index.html",
        "segmentation/viewer/assets/viewer.js",
        "standard_space/py.typed",
        "simulator/py.typed",
        "segmentation/py.typed",
        f"lungcast-{lungcast_version()}.dist-info/licenses/LICENSE",
    ):
        assert name in names
    assert any("niivue" in name.lower() for name in names)
    assert any("niivue" in name.lower() and "licen" in name.lower() for name in names)
    assert not any("__pycache__" in name for name in names)


def test_the_sdist_can_be_read_and_tested_without_the_repository(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "pyproject.toml"):
        assert name in names
    assert "docs/tutorial.md" in names
    assert "tests/cli/test_road.py" in names
    assert "benchmarks/demo.py" in names


def test_the_installed_wheel_does_the_work(installed: Callable[..., str], tmp_path: Path) -> None:
    assert f"version {lungcast_version()}" in installed("--version")
    assert "The demo would run here" in installed("doctor", cwd=tmp_path)
    for line in (
        "phantom data --patients 1 --scans 2 --grid 64 --seed 5 --lesions fields --quiet",
        "embed data/manifest.csv cohort --grid 64 --quiet",
        "fit cohort --json fits.json --figures figures --quiet",
        "simulate cohort --patient phantom5-01 --scan s2 --fits fits.json --days 1 --seed 1 simulation",
        "report simulation --html page --quiet",
        "augment cohort augmented --fits fits.json --ratio 100% --quiet",
        "train cohort model --augmented augmented --steps 2 --width 4 --quiet",
        "segment model data/images/phantom5-01_s1.nii.gz result --quiet",
    ):
        shown = installed(*line.split(), cwd=tmp_path)
        if line.startswith("simulate"):
            assert "lungcast[mp4]" in shown or (tmp_path / "simulation/progression.mp4").is_file()
    assert (tmp_path / "page/index.html").is_file()
    assert (tmp_path / "result/quantification.json").is_file()


def test_pipx_runs_it_without_installing(wheel: Path, tmp_path: Path) -> None:
    shown = run(
        sys.executable,
        *("-m", "pipx", "run", "--pip-args", f"-c {ROOT / 'constraints.txt'}", "--spec", wheel, "lungcast"),
        "--version",
        cwd=tmp_path,
        PIPX_HOME=str(tmp_path / "pipx"),
        PIPX_BIN_DIR=str(tmp_path / "bin"),
    )
    assert f"version {lungcast_version()}" in shown
