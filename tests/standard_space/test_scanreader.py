"""Parts of a scan file: the same voxels as the whole, without loading it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from standard_space.embedding import embed
from standard_space.errors import ScanFileError, UsageError
from standard_space.grid import StandardGrid
from standard_space.scan import Scan
from standard_space.scanfile import write_scan
from standard_space.scanreader import open_scan
from tests.standard_space.bodies import body, geometry
from tests.standard_space.differences import write_as_difference
from tests.standard_space.test_scanfile import cohort_of, synthetic_of

BOXES = [
    np.s_[20:21, :, :],
    np.s_[:, 30:31, :],
    np.s_[10:30, 5:40, 47:48],
    np.s_[-9:, :, 3:3],
    np.s_[:, :, :],
]


@pytest.fixture(scope="module")
def scan() -> Scan:
    image, lungs, infection = body(geometry())
    return embed(image, StandardGrid(48), patient="p", scan="s", day=2.5, infection=infection, lungs=lungs)


@pytest.mark.parametrize("box", BOXES)
def test_a_box_is_that_part_of_the_whole(scan: Scan, tmp_path: Path, box) -> None:
    write_scan(tmp_path / "a.h5", scan)
    with open_scan(tmp_path / "a.h5") as reader:
        np.testing.assert_array_equal(
            reader.signal(box), scan.signal[box].astype(np.float16).astype(np.float32)
        )
        for layer in ("lungs", "left_lung", "airways", "vessels", "infection"):
            np.testing.assert_array_equal(reader.mask(layer, box), getattr(scan, layer)[box])
        assert (reader.window, reader.placement, reader.grid) == (scan.window, scan.placement, scan.grid)
        assert (reader.patient, reader.scan, reader.day) == ("p", "s", 2.5)


@pytest.mark.parametrize("box", BOXES)
def test_a_synthetic_scan_reads_as_a_full_one(scan: Scan, tmp_path: Path, box) -> None:
    sources = cohort_of(tmp_path / "c", scan)
    wanted = synthetic_of(scan)
    entry = sources.entries[0]
    write_as_difference(tmp_path / "sim.h5", wanted, sources.read(entry), entry.content_sha256)
    with pytest.raises(ScanFileError, match="differences from its source"):
        open_scan(tmp_path / "sim.h5")
    with open_scan(tmp_path / "sim.h5", sources.source_path) as reader:
        expected = wanted.signal[box].astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(reader.signal(box), expected)
        np.testing.assert_array_equal(reader.mask("infection", box), wanted.infection[box])
        np.testing.assert_array_equal(reader.mask("lungs", box), wanted.lungs[box])


def test_a_slice_does_not_load_the_volume(tmp_path: Path) -> None:
    image, lungs, infection = body(geometry())
    scan = embed(image, StandardGrid(192), infection=infection, lungs=lungs)
    write_scan(tmp_path / "a.h5", scan)
    with open_scan(tmp_path / "a.h5") as reader:
        tracemalloc.start()
        reader.signal(np.s_[90:91, :, :])
        reader.mask("lungs", np.s_[90:91, :, :])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < scan.signal.nbytes / 20


def test_mistakes_are_told(scan: Scan, tmp_path: Path) -> None:
    bare = Scan(**{**scan.__dict__, "infection": None, "native_infection": None})
    write_scan(tmp_path / "a.h5", bare)
    with open_scan(tmp_path / "a.h5") as reader:
        with pytest.raises(UsageError, match="no such layer"):
            reader.mask("heart", BOXES[0])
        with pytest.raises(UsageError, match="never annotated"):
            reader.mask("infection", BOXES[0])
        with pytest.raises(UsageError, match="steps of 1"):
            reader.signal(np.s_[::2, :, :])
    with pytest.raises(ScanFileError, match="no such scan file"):
        open_scan(tmp_path / "b.h5")
