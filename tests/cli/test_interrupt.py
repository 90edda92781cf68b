"""Ctrl-C as a terminal sends it, to the command and to all its workers at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.console import KEPT
from cli.main import main
from standard_space.cohort import Cohort

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "data"
    words = ["phantom", str(folder), "--patients", "5", "--scans", "2", "--grid", "48", "--lesions", "fields"]
    made = CliRunner().invoke(main, words)
    assert made.exit_code == 0, made.output
    return folder / "manifest.csv"


@pytest.mark.parametrize("after", [0, 1, 4], ids=lambda after: f"after {after} scans")
def test_workers_end_without_a_word_and_the_same_command_goes_on(
    manifest: Path, tmp_path: Path, after: int
) -> None:
    words = ["embed", str(manifest), str(tmp_path / "cohort"), "--grid", "48", "--jobs", "2"]
    started = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *words, "--progress", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert started.stderr is not None
    seen = []
    for line in started.stderr:
        seen.append(line)
        if (
            line.startswith("{")
            and json.loads(line)["stage"] == "embed"
            and json.loads(line)["done"] >= after
        ):
            break
    os.killpg(started.pid, signal.SIGINT)
    _, rest = started.communicate(timeout=60)
    said = "".join(seen) + rest
    assert started.returncode == 130, said
    assert "Traceback" not in said
    assert f"interrupted; {KEPT}" in said
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 0, again.output
    assert len(Cohort.open(tmp_path / "cohort").entries) == 10


LONG_TASKS = """
import sys, time
from standard_space.jobs import run_isolated

def task(number):
    print("task", number, flush=True)
    time.sleep(60)

if __name__ == "__main__":
    print("begun", flush=True)
    list(run_isolated(task, range(4), jobs=2, fresh=sys.argv[1] == "fresh"))
"""


def running(folder: Path, script: str, way: str) -> subprocess.Popen[str]:
    """A script with workers, in a process group of its own as a terminal would start it."""
    (folder / "long_tasks.py").write_text(script)
    return subprocess.Popen(
        [sys.executable, "long_tasks.py", way],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("way", ["kept", "fresh"])
@pytest.mark.parametrize("moment", ["begun", "starting", "task"])
def test_long_tasks_end_whenever_ctrl_c_comes(tmp_path: Path, way: str, moment: str) -> None:
    """Also while workers start, when no task is in hand that could be ended."""
    started = running(tmp_path, LONG_TASKS, way)
    assert started.stdout is not None
    for line in started.stdout:
        if line.startswith("task" if moment == "task" else "begun"):
            break
    if moment == "starting":
        time.sleep(0.4)
    begun = time.monotonic()
    os.killpg(started.pid, signal.SIGINT)
    _, said = started.communicate(timeout=50)
    assert time.monotonic() - begun < 20  # most of it is what workers import
    assert "worker" not in said.lower()
    assert said.count("Traceback") == 1  # the script's own


def test_a_second_ctrl_c_ends_what_does_not_end_by_itself(tmp_path: Path) -> None:
    deaf = LONG_TASKS.replace("import sys, time", "import signal, sys, time").replace(
        "    time.sleep(60)", "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n    time.sleep(60)"
    )
    started = running(tmp_path, deaf, "kept")
    assert started.stdout is not None
    for _ in range(3):  # begun, and both tasks
        started.stdout.readline()
    time.sleep(0.3)
    os.killpg(started.pid, signal.SIGINT)
    time.sleep(1.0)
    assert started.poll() is None
    os.killpg(started.pid, signal.SIGINT)
    started.communicate(timeout=20)
    assert started.returncode != 0
