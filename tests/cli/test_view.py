from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from segmentation.viewer.server import ViewerServer
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.images import write_chest
from tests.segmentation.toys import toy_scan


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cohort"
    toy_cohort(folder, toy_scan("P1", "a"), replace(toy_scan("P1", "b", seed=1), day=2.0))
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_a_report_is_a_folder_that_says_where_it_is(cohort: Path, tmp_path: Path) -> None:
    done = run("report", cohort, "--html", tmp_path / "r")
    assert done.exit_code == 0, done.output
    assert "2 scans of 1 case, " in done.output
    assert str(tmp_path / "r" / "index.html") in done.output
    mark = json.loads((tmp_path / "r" / "lungcast.json").read_text())
    assert mark["lungcast"] == "report"
    assert run("report", cohort, "--html", tmp_path / "r").exit_code == 2
    assert run("report", cohort, "--html", tmp_path / "r", "--force").exit_code == 0


def test_a_report_into_its_own_cohort_is_refused(cohort: Path) -> None:
    refused = run("report", cohort, "--html", cohort, "--force")
    assert refused.exit_code == 2
    assert len(list(cohort.glob("*.h5"))) == 2


def test_a_scan_that_cannot_be_read_fails_by_name_and_the_rest_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    toy_cohort(folder, toy_scan("P1", "a"), toy_scan("P2", "a", seed=1))
    (folder / "P2_a.h5").write_bytes(b"nothing")
    done = run("report", folder, "--html", tmp_path / "r")
    assert done.exit_code == 1
    assert "P2 a" in done.output
    assert (tmp_path / "r" / "index.html").is_file()


def test_view_prints_its_address_and_ends_when_nobody_comes(cohort: Path) -> None:
    done = run("view", cohort, "--no-browser", "--once", "--patience", "0.2")
    assert done.exit_code == 0, done.output
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", done.stdout.strip())
    assert "nobody came" in done.stderr


def test_masks_and_images_belong_to_one_path(cohort: Path, tmp_path: Path) -> None:
    write_chest(tmp_path / "chest.nii.gz")
    refused = run(
        "report", tmp_path / "chest.nii.gz", cohort, "--infection", "m.nii.gz", "--html", tmp_path / "r"
    )
    assert refused.exit_code == 2
    assert "--infection belongs to one path" in refused.output
    assert not (tmp_path / "r").exists()


def test_what_is_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for command in (("report", "--html", tmp_path / "r"), ("view", "--once")):
        refused = run(command[0], tmp_path / "nothing", *command[1:])
        assert refused.exit_code == 2
        assert "no such file or folder" in refused.output
    assert not (tmp_path / "r").exists()


def test_ctrl_c_is_how_a_viewer_ends(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: ViewerServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ViewerServer, "wait", interrupted)
    done = run("view", cohort, "--no-browser")
    assert done.exit_code == 0, done.output
    assert "the viewer has ended" in done.stderr
