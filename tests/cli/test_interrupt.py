"""Ctrl-C as a terminal sends it, to the command and to all its workers at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.console import KEPT
from cli.main import main
from standard_space.cohort import Cohort


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
