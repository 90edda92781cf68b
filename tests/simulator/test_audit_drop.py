"""Dropped volumes are gone for good, and nothing else is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from simulator.audit import audit_cohort
from simulator.audit_checks import CHANGED_OUTSIDE
from simulator.audit_drop import drop_volumes
from standard_space.cohort import Cohort, open_with_sources
from standard_space.errors import UsageError
from standard_space.files import read_mark
from standard_space.folders import folder_lock
from tests.simulator.audits import augment_again, augmented, break_volume
from tests.simulator.test_audit import brighten_the_heart

NAME = "p0/b-sim2"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = augmented(tmp_path_factory.mktemp("drop"), patients=1)
    break_volume(folder, NAME, brighten_the_heart)
    return folder


@pytest.fixture
def folder(broken: Path, tmp_path: Path) -> Path:
    shutil.copytree(broken.parent, tmp_path / "copy")
    return tmp_path / "copy" / "a"


def names(folder: Path) -> list[str]:
    return [entry.name for entry in Cohort.open(folder).entries]


def test_flagged_volumes_go_and_augment_does_not_bring_them_back(folder: Path) -> None:
    before = {path.name for path in folder.iterdir()}
    kept = (folder / "p0_a-sim1.h5").read_bytes()
    flagged = audit_cohort(open_with_sources(folder), patches=False).flagged
    assert drop_volumes(folder, flagged) == [NAME]
    assert before - {path.name for path in folder.iterdir()} == {"p0_b-sim2.h5"}
    assert read_mark(folder)["provenance"]["dropped"] == {NAME: [CHANGED_OUTSIDE]}
    assert names(folder) == ["p0/a-sim1", "p0/a-sim2", "p0/b-sim1"]
    augment_again(folder.parent)
    assert names(folder) == ["p0/a-sim1", "p0/a-sim2", "p0/b-sim1"]
    assert not (folder / "p0_b-sim2.h5").exists()
    assert read_mark(folder)["provenance"]["dropped"] == {NAME: [CHANGED_OUTSIDE]}
    assert (folder / "p0_a-sim1.h5").read_bytes() == kept
    assert drop_volumes(folder, []) == []


def test_a_drop_that_was_killed_is_completed(folder: Path) -> None:
    path = folder / "p0_b-sim2.h5"
    content = path.read_bytes()
    flagged = audit_cohort(open_with_sources(folder), patches=False).flagged
    drop_volumes(folder, flagged)
    path.write_bytes(content)  # as if the run had died before it came to the file
    drop_volumes(folder, [])
    assert not path.exists()


def test_another_version_of_a_volume_is_not_dropped(folder: Path) -> None:
    flagged = audit_cohort(open_with_sources(folder), patches=False).flagged
    flagged[0].content_sha256 = "0" * 64
    with pytest.raises(UsageError, match="no longer the one"):
        drop_volumes(folder, flagged)
    assert NAME in names(folder)
    assert "dropped" not in read_mark(folder)["provenance"]


def test_a_folder_that_another_run_holds_is_left_alone(folder: Path) -> None:
    with folder_lock(folder), pytest.raises(UsageError, match="another run"):
        drop_volumes(folder, [])
    with pytest.raises(UsageError, match="only dropped from"):
        drop_volumes(folder.parent / "c", [])
