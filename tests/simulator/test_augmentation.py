"""One synthetic volume: pure, replayable, confined to susceptible tissue, sparse."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from simulator.augmentation import make_volume, replay
from simulator.augmentation_plan import VolumePlan
from simulator.dynamics.engine import RESULTS_REVISION, Controls, advance, start_state
from simulator.dynamics.parameters import TransitionParameters
from simulator.lung_crop import LungCrop, read_lung_crop
from standard_space.cohort import Cohort, open_with_sources
from standard_space.errors import DataError, ScanFileError, UsageError
from standard_space.files import write_mark
from standard_space.scan import Scan
from standard_space.scanfile import read_meta, read_scan
from tests.simulator.scans import cohort_of, small_scan

W = TransitionParameters(0.04, 0.5, 0.05, 0.3, 0.6, 0.5, 0.5, 0.1, 3000.0)
PLAN = VolumePlan(number=3, transitions=57, seed=11)


@pytest.fixture(scope="module")
def scan() -> Scan:
    return small_scan()


@pytest.fixture(scope="module")
def cohort(scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return cohort_of(tmp_path_factory.mktemp("cohort") / "c", scan)


@pytest.fixture(scope="module")
def crop(cohort: Cohort) -> LungCrop:
    return read_lung_crop(cohort, cohort.entries[0])


def test_a_crop_is_the_box_around_the_lungs(crop: LungCrop, scan: Scan) -> None:
    box = tuple(slice(c, c + n) for c, n in zip(crop.corner, crop.signal.shape, strict=True))
    np.testing.assert_array_equal(crop.signal, scan.signal[box])
    np.testing.assert_array_equal(crop.lungs, scan.lungs[box])
    np.testing.assert_array_equal(crop.infection, scan.infection[box])
    np.testing.assert_array_equal(crop.susceptible, scan.susceptible[box])
    outside = scan.susceptible.copy()
    outside[box] = False
    assert not outside.any()
    for axis in range(3):
        edges = np.moveaxis(crop.lungs | crop.infection, axis, 0)
        assert edges[0].any()
        assert edges[-1].any()
    flat = np.arange(crop.signal.size)
    np.testing.assert_array_equal(scan.signal.ravel()[crop.to_standard(flat)], crop.signal.ravel())


def test_a_volume_is_its_source_played_on_in_the_crop(crop: LungCrop, scan: Scan) -> None:
    volume = make_volume(crop, W, PLAN, jump=10, controls=Controls())
    state = start_state(crop.signal, crop.infection, crop.susceptible, crop.grid.spacing_mm)
    advance(state, W, 57, jump=10, seed=11, controls=Controls())
    signal, infection = scan.signal.copy(), scan.infection.copy()
    signal.ravel()[volume.difference.index] = volume.difference.signal
    infection.ravel()[volume.difference.index] = volume.difference.infection
    box = tuple(slice(c, c + n) for c, n in zip(crop.corner, crop.signal.shape, strict=True))
    np.testing.assert_array_equal(infection[box], state.mask())
    np.testing.assert_array_equal(signal[box].astype(np.float16), state.signal_volume().astype(np.float16))
    assert volume.infected_voxels == infection.sum()
    assert not (infection & ~scan.susceptible).any()
    assert (volume.scan, volume.day) == ("a-sim3", pytest.approx(0.57))
    # nothing is stored that did not change
    changed = (signal.astype(np.float16) != scan.signal.astype(np.float16)) | (infection != scan.infection)
    np.testing.assert_array_equal(np.flatnonzero(changed), volume.difference.index)


def test_a_source_without_infection_cannot_be_played_on(scan: Scan, tmp_path: Path) -> None:
    healthy = cohort_of(tmp_path / "c", replace(scan, infection=np.zeros_like(scan.infection)))
    with pytest.raises(DataError, match="no infection to play on"):
        make_volume(read_lung_crop(healthy, healthy.entries[0]), W, PLAN, jump=10, controls=Controls())
    bare = cohort_of(tmp_path / "b", replace(scan, infection=None, native_infection=None))
    with pytest.raises(DataError, match="no infection mask"):
        read_lung_crop(bare, bare.entries[0])


@pytest.fixture
def stored(cohort: Cohort, crop: LungCrop, tmp_path: Path) -> Path:
    path = tmp_path / "p_a-sim3.h5"
    make_volume(crop, W, PLAN, jump=10, controls=Controls(gamma=1.0)).write(path, crop.head)
    return path


def test_a_volume_is_replayed_to_the_same_bytes(cohort: Cohort, stored: Path, tmp_path: Path) -> None:
    assert replay(stored, cohort, tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == stored.read_bytes()
    head = read_meta(stored)
    assert head["provenance"]["plan"] == asdict(PLAN)
    assert head["provenance"]["controls"]["gamma"] == 1.0
    assert str(cohort.folder) not in str(head)


def test_what_cannot_be_replayed_is_told(
    cohort: Cohort, stored: Path, crop: LungCrop, scan: Scan, tmp_path: Path
) -> None:
    out = tmp_path / "again.h5"
    with pytest.raises(UsageError, match="not a volume that"):
        replay(cohort.path(cohort.entries[0]), cohort, out)
    other = tmp_path / "other.h5"
    tampered = make_volume(crop, W, PLAN, jump=10, controls=Controls())
    replace(tampered, provenance={**tampered.provenance, "jump": 5}).write(other, crop.head)
    with pytest.raises(DataError, match="differs from the stored one"):
        replay(other, cohort, out)
    with h5py.File(stored, "r+") as file:
        file["changed_signal"][5] = 0.3
    with pytest.raises(ScanFileError, match="damaged"):
        replay(stored, cohort, out)


def test_an_altered_or_missing_source_is_detected(
    stored: Path, crop: LungCrop, scan: Scan, tmp_path: Path
) -> None:
    brighter = cohort_of(tmp_path / "brighter", replace(scan, signal=scan.signal + np.float32(0.01)))
    empty = cohort_of(tmp_path / "empty", replace(scan, scan="z"))
    edited = cohort_of(tmp_path / "edited", scan)
    with h5py.File(edited.path(edited.entries[0]), "r+") as file:  # its hash still says what it was
        z, y, x = np.argwhere(scan.infection)[0]
        file["signal"][z, y, x] = 0.45
    for sources, message in ((brighter, "altered"), (empty, "missing")):
        with pytest.raises(ScanFileError, match=message):
            replay(stored, sources, tmp_path / "again.h5")
        with pytest.raises(ScanFileError, match=message):
            read_scan(stored, sources.find_source)
    with pytest.raises(ScanFileError, match="altered"):
        read_scan(stored, edited.find_source)
    with pytest.raises(ScanFileError, match="altered"):
        replay(stored, edited, tmp_path / "again.h5")


def test_sources_are_found_beside_the_volumes_by_their_hashes(
    cohort: Cohort, stored: Path, crop: LungCrop, scan: Scan, tmp_path: Path
) -> None:
    folder = tmp_path / "place" / "augmented"
    folder.mkdir(parents=True)
    entry = replace(
        cohort.entries[0],
        scan="a-sim3",
        kind="synthetic",
        file=stored.name,
        content_sha256=read_meta(stored)["content_sha256"],
    )
    stored.rename(folder / stored.name)
    Cohort.write_manifest(folder, [entry])
    write_mark(folder, "augmented", {"sources": {"p/a": cohort.entries[0].content_sha256}})
    with pytest.raises(UsageError, match="does not lie beside it"):
        open_with_sources(folder)
    cohort_of(folder.parent / "another", replace(scan, signal=scan.signal + np.float32(0.01)))
    with pytest.raises(UsageError, match="does not lie beside it"):
        open_with_sources(folder)
    cohort_of(folder.parent / "cohort", scan)
    broken = cohort_of(folder.parent / "broken", scan)
    (broken.folder / "manifest.csv").write_text("no manifest\n1\n")
    found = open_with_sources(folder)
    assert found.sources is not None
    assert found.sources.folder.name == "cohort"
    assert found.read(found.entries[0]).infection.any()
    given = open_with_sources(folder, cohort.folder)
    assert given.sources is not None
    assert given.sources.folder == cohort.folder


def test_the_engine_s_results_are_pinned() -> None:
    """When this fails, same seeds have come to give other volumes: raise RESULTS_REVISION and pin anew."""
    rng = np.random.default_rng(0)
    signal = rng.normal(-0.2, 0.04, (24, 22, 20)).astype(np.float32)
    infection = np.zeros(signal.shape, bool)
    infection[8:15, 7:15, 6:14] = True
    signal[infection] += np.float32(0.2)
    state = start_state(signal, infection, np.ones_like(infection), (1.0, 1.0, 1.0))
    advance(state, replace(W, reference_ggo_voxels=300.0), 80, jump=10, seed=4, controls=Controls())
    index, changed = state.changed()
    digest = hashlib.sha256(index.tobytes() + changed.astype(np.float16).tobytes()).hexdigest()
    assert (RESULTS_REVISION, digest[:16]) == (1, "83cbe215e92848e9")
