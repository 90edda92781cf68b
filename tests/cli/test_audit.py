"""`lungcast audit` as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.audit import audit
from cli.console import LungcastGroup
from standard_space.cohort import Cohort
from tests.simulator.audits import augmented, break_volume
from tests.simulator.test_audit import brighten_the_heart

NAME = "p0/b-sim2"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return augmented(tmp_path_factory.mktemp("audit"))


@pytest.fixture
def folder(clean: Path, tmp_path: Path) -> Path:
    shutil.copytree(clean.parent, tmp_path / "copy")
    return tmp_path / "copy" / "a"


def lungcast(*arguments: str | Path) -> Result:
    group = LungcastGroup(commands=[audit])
    return CliRunner().invoke(group, ["audit", *(str(argument) for argument in arguments)])


def test_a_clean_folder_is_measured(clean: Path, tmp_path: Path) -> None:
    result = lungcast(
        clean,
        "--fits",
        clean.parent / "fits.json",
        "--json",
        tmp_path / "a.json",
        "--figures",
        tmp_path / "figs",
    )
    assert result.exit_code == 0, result.output
    assert "flagged: 0 volumes" in result.output
    assert "8 volumes of 4 scans of 2 patients" in result.output
    assert "2 patients are few" in result.output
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["realism"]["patients"] == 2
    assert len(content["volumes"]) == 8
    assert str(tmp_path) not in (tmp_path / "a.json").read_text()
    for name in ("signals", "volumes", "patches"):
        assert (tmp_path / "figs" / f"{name}.png").stat().st_size > 10_000


def test_flags_leave_exit_code_0_and_drop_is_asked_for(folder: Path) -> None:
    break_volume(folder, NAME, brighten_the_heart)
    result = lungcast(folder, "--no-classifier")
    assert result.exit_code == 0, result.output
    assert "signal changed outside susceptible tissue" in result.output
    assert "nothing was removed" in result.output
    assert len(Cohort.open(folder).entries) == 8
    result = lungcast(folder, "--no-classifier", "--drop")
    assert result.exit_code == 0, result.output
    assert "dropped 1 volumes" in result.output
    assert NAME not in {entry.name for entry in Cohort.open(folder).entries}


def test_a_damaged_volume_gives_exit_code_1_and_stays(folder: Path) -> None:
    path = folder / "p0_b-sim2.h5"
    path.write_bytes(path.read_bytes()[:3000])
    result = lungcast(folder, "--no-classifier", "--drop")
    assert result.exit_code == 1
    assert "p0_b-sim2.h5" in result.output
    assert "7 volumes of 4 scans" in result.output
    assert path.exists()


def test_mistakes_are_one_sentence(clean: Path, tmp_path: Path) -> None:
    for arguments in (
        (tmp_path / "nowhere",),
        (clean, "--max-growth", "1"),
        (clean.parent / "c", "--no-classifier"),
        (clean, "--json", tmp_path),
    ):
        result = lungcast(*arguments)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
