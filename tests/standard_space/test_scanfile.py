"""Scan files and cohorts: exact round trips, sparse synthetic scans, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from standard_space.cohort import Cohort, Entry
from standard_space.embedding import embed
from standard_space.errors import ScanFileError, UsageError
from standard_space.files import write_mark
from standard_space.grid import StandardGrid
from standard_space.scan import Scan
from standard_space.scanfile import is_whole, read_meta, read_scan, write_scan
from tests.standard_space.bodies import body, geometry
from tests.standard_space.differences import write_as_difference


@pytest.fixture(scope="module")
def scan() -> Scan:
    image, lungs, infection = body(geometry())
    return embed(image, StandardGrid(48), patient="p", scan="s", day=2.5, infection=infection, lungs=lungs)


def test_round_trip(scan: Scan, tmp_path: Path) -> None:
    write_scan(tmp_path / "a.h5", scan)
    back = read_scan(tmp_path / "a.h5")
    for name in ("lungs", "left_lung", "airways", "vessels", "infection", "native_infection", "native_lungs"):
        np.testing.assert_array_equal(getattr(back, name), getattr(scan, name))
    np.testing.assert_array_equal(back.signal, scan.signal.astype(np.float16).astype(np.float32))
    for name in ("patient", "scan", "day", "stage", "grid", "window", "placement", "provenance"):
        assert getattr(back, name) == getattr(scan, name)


def test_lobes_and_sides_are_optional(scan: Scan, tmp_path: Path) -> None:
    lobes = (scan.lungs * 11).astype(np.uint8)
    write_scan(tmp_path / "with.h5", Scan(**{**scan.__dict__, "lobes": lobes}))
    np.testing.assert_array_equal(read_scan(tmp_path / "with.h5").lobes, lobes)
    write_scan(tmp_path / "bare.h5", Scan(**{**scan.__dict__, "left_lung": None}))
    bare = read_scan(tmp_path / "bare.h5")
    assert bare.lobes is None
    assert bare.left_lung is None
    assert bare.right_lung is None
    right = read_scan(tmp_path / "with.h5").right_lung
    np.testing.assert_array_equal(right, scan.lungs & ~scan.left_lung)


def test_never_annotated_differs_from_annotated_empty(scan: Scan, tmp_path: Path) -> None:
    bare = Scan(**{**scan.__dict__, "infection": None, "native_infection": None})
    empty = Scan(**{**scan.__dict__, "infection": np.zeros_like(scan.lungs), "native_infection": None})
    write_scan(tmp_path / "bare.h5", bare)
    write_scan(tmp_path / "empty.h5", empty)
    assert read_scan(tmp_path / "bare.h5").infection is None
    again = read_scan(tmp_path / "empty.h5").infection
    assert again is not None
    assert not again.any()


def test_the_same_scan_gives_the_same_bytes(scan: Scan, tmp_path: Path) -> None:
    digests = {write_scan(tmp_path / name, scan) for name in ("a.h5", "b.h5")}
    assert len(digests) == 1
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def synthetic_of(scan: Scan) -> Scan:
    signal = scan.signal.astype(np.float16).astype(np.float32)
    infection = scan.infection.copy()
    place = np.argwhere(scan.susceptible & ~scan.infection)[:40]
    signal[tuple(place.T)] = 0.123
    infection[tuple(place.T)] = True
    return Scan(
        **{
            **scan.__dict__,
            "scan": "s-sim1",
            "day": 3.0,
            "signal": signal,
            "infection": infection,
            "native_infection": None,
            "native_lungs": None,
        }
    )


def cohort_of(folder: Path, scan: Scan) -> Cohort:
    folder.mkdir(exist_ok=True)
    digest = write_scan(folder / "p_s.h5", scan)
    Cohort.write_manifest(folder, [Entry.of(scan, "observed", "p_s.h5", digest)])
    write_mark(folder, "cohort", {})
    return Cohort.open(folder)


def test_a_synthetic_scan_is_sparse_and_reads_as_a_full_one(scan: Scan, tmp_path: Path) -> None:
    sources = cohort_of(tmp_path / "c", scan)
    wanted = synthetic_of(scan)
    entry = sources.entries[0]
    write_as_difference(tmp_path / "sim.h5", wanted, sources.read(entry), entry.content_sha256)
    back = read_scan(tmp_path / "sim.h5", sources.find_source)
    np.testing.assert_array_equal(back.signal, wanted.signal.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(back.infection, wanted.infection)
    with h5py.File(tmp_path / "sim.h5") as file:
        assert len(file["step"]) == 40
    assert str(tmp_path) not in json.dumps(read_meta(tmp_path / "sim.h5"))


def test_a_synthetic_scan_needs_its_source(scan: Scan, tmp_path: Path) -> None:
    sources = cohort_of(tmp_path / "c", scan)
    entry = sources.entries[0]
    write_as_difference(tmp_path / "sim.h5", synthetic_of(scan), scan, entry.content_sha256)
    with pytest.raises(ScanFileError, match="differences from its source"):
        read_scan(tmp_path / "sim.h5")
    altered = Scan(**{**scan.__dict__, "signal": scan.signal + 0.01})
    changed = cohort_of(tmp_path / "c", altered)
    with pytest.raises(ScanFileError, match="altered"):
        read_scan(tmp_path / "sim.h5", changed.find_source)
    changed.entries.clear()
    with pytest.raises(ScanFileError, match="missing"):
        read_scan(tmp_path / "sim.h5", changed.find_source)


def test_damaged_and_foreign_files_get_one_sentence(scan: Scan, tmp_path: Path) -> None:
    whole = tmp_path / "whole.h5"
    write_scan(whole, scan)
    (tmp_path / "cut.h5").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.h5").write_text("not HDF5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs.update({"lungcast": "scan", "schema": 0, "content_sha256": "", "meta": "{}"})
    for name, message in {
        "cut.h5": "not a readable scan file",
        "text.h5": "not a readable scan file",
        "foreign.h5": "not a lungcast scan",
        "old.h5": "another schema version",
        "absent.h5": "no such scan file",
    }.items():
        with pytest.raises(ScanFileError, match=message) as caught:
            read_scan(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_cohort_finds_its_scans(scan: Scan, tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "c", scan)
    assert cohort.find("p", "s").day == 2.5
    with pytest.raises(UsageError, match="one of p"):
        cohort.find("q", "s")
    with pytest.raises(UsageError, match="one of s"):
        cohort.find("p", "t")
    with pytest.raises(UsageError, match="not a lungcast cohort"):
        Cohort.open(tmp_path)
    (tmp_path / "c" / "manifest.csv").write_text("patient,scan\np,s\n")
    with pytest.raises(ScanFileError, match="damaged"):
        Cohort.open(tmp_path / "c")


def test_a_failed_write_leaves_nothing(scan: Scan, tmp_path: Path) -> None:
    broken = Scan(**{**scan.__dict__, "provenance": {"x": float("nan")}})
    with pytest.raises(ValueError, match="JSON"):
        write_scan(tmp_path / "a.h5", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_altered_is_not_whole(scan: Scan, tmp_path: Path) -> None:
    write_scan(tmp_path / "a.h5", scan)
    assert is_whole(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["signal"][20, 20, 20] = 0.25
    assert not is_whole(tmp_path / "a.h5")
    assert not is_whole(tmp_path / "absent.h5")


def test_bytes_do_not_depend_on_when_python_lets_go(
    scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scan(tmp_path / "a.h5", scan)
    write_as_difference(tmp_path / "d.h5", synthetic_of(scan), scan, "0" * 64)
    held, create = [], h5py.Group.create_dataset

    def create_and_hold(*args, **kwargs):
        held.append(create(*args, **kwargs))
        return held[-1]

    monkeypatch.setattr(h5py.Group, "create_dataset", create_and_hold)
    write_scan(tmp_path / "b.h5", scan)
    write_as_difference(tmp_path / "e.h5", synthetic_of(scan), scan, "0" * 64)
    assert len(held) > 6
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert (tmp_path / "d.h5").read_bytes() == (tmp_path / "e.h5").read_bytes()
