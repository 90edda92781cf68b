"""A stored trajectory gives any day exactly, and other textures and seeds from its keyframes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from simulator.dynamics.chain import propagate
from simulator.dynamics.engine import Controls, advance
from simulator.dynamics.parameters import TransitionParameters
from simulator.lung_crop import LungCrop, read_lung_crop
from simulator.trajectory import Trajectory, default_keyframes, open_trajectory, write_trajectory
from standard_space.cohort import Cohort
from standard_space.errors import DataError, ScanFileError, UsageError
from tests.simulator.scans import cohort_of, small_scan

SEED = 11


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return cohort_of(
        tmp_path_factory.mktemp("cohort") / "c",
        small_scan(scan="a"),
        small_scan(scan="b", day=3.0, shift=0.04),
    )


@pytest.fixture(scope="module")
def parameters() -> TransitionParameters:
    """Lively dynamics: many births, many recoveries."""
    return TransitionParameters(
        birth_rate=0.02,
        linked_share=0.5,
        entry_signal=0.08,
        absorption_rate=0.3,
        ggo_growth_rate=0.4,
        conversion_probability=0.5,
        consolidation_growth_rate=0.5,
        stiffness=0.5,
        reference_ggo_voxels=150.0,
    )


@pytest.fixture(scope="module")
def crop(cohort: Cohort) -> LungCrop:
    return read_lung_crop(cohort, cohort.find("p", "b"))


@pytest.fixture(scope="module")
def written(
    tmp_path_factory: pytest.TempPathFactory, crop: LungCrop, parameters: TransitionParameters
) -> Path:
    path = tmp_path_factory.mktemp("trajectory") / "p_b.h5"
    write_trajectory(path, crop, parameters, SEED)
    return path


@pytest.fixture(scope="module")
def trajectory(written: Path, cohort: Cohort) -> Trajectory:
    return open_trajectory(written, cohort)


@pytest.mark.parametrize("transitions", [1, 37, 50, 51, 60, 100, 149, 150, 163, 200, 247])
def test_every_day_of_its_own_is_that_of_an_uninterrupted_run(
    trajectory: Trajectory, crop: LungCrop, parameters: TransitionParameters, transitions: int
) -> None:
    state = advance(crop.start(), parameters, transitions, jump=10, seed=SEED)
    drawn = trajectory.at(transitions / 100)
    np.testing.assert_array_equal(drawn.signal, state.signal_volume())
    np.testing.assert_array_equal(drawn.infection, state.mask())
    np.testing.assert_array_equal(drawn.lungs, crop.lungs)
    assert drawn.provenance["report"] == state.report.to_json()
    assert drawn.day == 3.0 + transitions / 100
    assert drawn.provenance["branch_transition"] == min(transitions // 50 * 50, 200)


@pytest.mark.parametrize(
    "controls", [Controls(correlation_mm=0.0, consolidation_clustering=0.0, gamma=1.0), None]
)
@pytest.mark.parametrize("jump", [1, 7, 100])
def test_other_jumps_and_controls(
    tmp_path: Path,
    crop: LungCrop,
    cohort: Cohort,
    parameters: TransitionParameters,
    jump: int,
    controls: Controls | None,
) -> None:
    write_trajectory(tmp_path / "t.h5", crop, parameters, SEED, jump, controls)
    opened = open_trajectory(tmp_path / "t.h5", cohort)
    state = advance(crop.start(), parameters, 123, jump=jump, seed=SEED, controls=controls)
    drawn = opened.at(1.23)
    assert drawn.provenance["branch_transition"] > 0
    np.testing.assert_array_equal(drawn.signal, state.signal_volume())


def test_default_keyframes_are_where_jumps_meet() -> None:
    assert default_keyframes(10) == default_keyframes(1) == default_keyframes(50) == (0, 50, 100, 150, 200)
    assert default_keyframes(7) == (0, 56, 112, 168)
    assert default_keyframes(100) == (0, 100, 200)
    assert default_keyframes(300) == (0,)


def test_another_seed_shares_the_past_and_has_its_own_future(trajectory: Trajectory, crop: LungCrop) -> None:
    own, other, late = trajectory.at(1.5), trajectory.at(1.5, seed=5), trajectory.at(1.5, branch_days=0.0)
    np.testing.assert_array_equal(own.signal, late.signal)
    assert other.provenance["branch_transition"] == 100
    assert (own.infection != other.infection).any()
    fresh = trajectory.at(1.5, seed=5, branch_days=0.0)
    state = advance(crop.start(), trajectory.parameters, 150, jump=10, seed=5)
    np.testing.assert_array_equal(fresh.signal, state.signal_volume())
    shared = trajectory.at(1.0).infection
    kept = (other.infection & own.infection & shared).sum() / (own.infection & shared).sum()
    assert kept > 0.8
    assert (own.infection != other.infection).sum() < (own.infection != fresh.infection).sum()


def test_another_texture_has_the_same_distribution(trajectory: Trajectory, crop: LungCrop) -> None:
    controls = Controls(gamma=0.5, consolidation_clustering=0.0, correlation_mm=2.0)
    susceptible = crop.susceptible
    expected = propagate(crop.start().counts(), trajectory.parameters, 150).sum()
    totals = []
    for seed in range(24):
        drawn = trajectory.at(1.5, seed=seed, controls=controls, branch_days=0.0)
        totals.append(int(drawn.infection.sum()))
        assert not (drawn.infection & ~susceptible).any()
        outside = ~(susceptible | crop.infection)
        np.testing.assert_array_equal(drawn.signal[outside], crop.signal[outside])
    error = np.std(totals, ddof=1) / np.sqrt(len(totals))
    assert error > 0
    assert abs(np.mean(totals) - expected) < 4 * error
    # From a keyframe the numbers of the last stretch are the engine's own, whatever the texture.
    branched = trajectory.at(1.5, controls=controls)
    own = trajectory.at(1.5)
    assert (own.infection != branched.infection).any()
    assert own.infection.sum() == branched.infection.sum()


def test_a_draw_is_made_again_from_its_provenance(trajectory: Trajectory) -> None:
    drawn = trajectory.at(1.77, seed=9, controls=Controls(gamma=1.0))
    again = trajectory.remake(json.loads(json.dumps(drawn.provenance)))
    np.testing.assert_array_equal(drawn.signal, again.signal)
    np.testing.assert_array_equal(drawn.infection, again.infection)
    assert drawn.provenance == again.provenance
    with pytest.raises(UsageError, match="not drawn from this trajectory"):
        trajectory.remake({**drawn.provenance, "trajectory_sha256": "0"})


def test_a_file_is_the_same_bytes_and_names_no_path(
    tmp_path: Path, written: Path, crop: LungCrop, cohort: Cohort, parameters: TransitionParameters
) -> None:
    digest = write_trajectory(tmp_path / "again.h5", crop, parameters, SEED)
    content = written.read_bytes()
    assert (tmp_path / "again.h5").read_bytes() == content
    assert digest == open_trajectory(written, cohort).content_sha256
    assert str(cohort.folder).encode() not in content
    other = write_trajectory(tmp_path / "other.h5", crop, parameters, SEED + 1)
    assert other != digest
    assert len(content) < 120_000  # mostly HDF5's own housekeeping: 3.4 MB at 512^3 with 200,000 voxels


@pytest.mark.parametrize("keyframes", [(0, 25), (50, 50), (100, 50), (-10, 0)])
def test_keyframes_that_cannot_be_used(
    tmp_path: Path, crop: LungCrop, parameters: TransitionParameters, keyframes: tuple[int, ...]
) -> None:
    with pytest.raises(UsageError, match="keyframes"):
        write_trajectory(tmp_path / "t.h5", crop, parameters, 1, keyframes=keyframes)
    assert not (tmp_path / "t.h5").exists()


def test_no_keyframes_but_the_source(
    tmp_path: Path, crop: LungCrop, cohort: Cohort, parameters: TransitionParameters
) -> None:
    write_trajectory(tmp_path / "t.h5", crop, parameters, SEED, keyframes=(0,))
    drawn = open_trajectory(tmp_path / "t.h5", cohort).at(0.4)
    state = advance(crop.start(), parameters, 40, jump=10, seed=SEED)
    np.testing.assert_array_equal(drawn.signal, state.signal_volume())


def test_days_and_branches_that_cannot_be_drawn(trajectory: Trajectory) -> None:
    assert trajectory.keyframe_days == (0.0, 0.5, 1.0, 1.5, 2.0)
    for days in (0.0, -1.0, float("nan"), 1e5):
        with pytest.raises(UsageError, match="day cannot be drawn"):
            trajectory.at(days)
    for branch_days in (0.7, 1.5):
        with pytest.raises(UsageError, match="no keyframe before the day"):
            trajectory.at(1.2, branch_days=branch_days)


def test_a_margin_lies_around(written: Path, cohort: Cohort, trajectory: Trajectory) -> None:
    wide = open_trajectory(written, cohort, margin_mm=1e4).at(1.2)
    tight = trajectory.at(1.2)
    assert wide.signal.shape == (48, 48, 48)
    box = tuple(slice(c, c + s) for c, s in zip(tight.corner, tight.signal.shape, strict=True))
    np.testing.assert_array_equal(wide.signal[box], tight.signal)
    assert wide.infection.sum() == tight.infection.sum()


def test_an_altered_or_missing_source_is_told(tmp_path: Path, written: Path, cohort: Cohort) -> None:
    folder = tmp_path / "c"
    shutil.copytree(cohort.folder, folder)
    path = folder / cohort.find("p", "b").file
    with h5py.File(path, "r+") as file:
        file["signal"][20, 20, 20] = 0.125
    with pytest.raises(ScanFileError, match="altered"):
        open_trajectory(written, Cohort.open(folder))
    other = cohort_of(tmp_path / "d", small_scan(scan="b", day=3.0, shift=0.02))
    with pytest.raises(ScanFileError, match="altered"):
        open_trajectory(written, other)
    without = cohort_of(tmp_path / "e", small_scan(scan="a"))
    with pytest.raises(ScanFileError, match="missing"):
        open_trajectory(written, without)
    path.unlink()
    with pytest.raises(ScanFileError, match="no such scan file"):
        open_trajectory(written, Cohort.open(folder))


def _change_a_bin(file: h5py.File) -> None:
    file["000100/bin"][5] = file["000100/bin"][5] ^ 1


def _change_the_seed(file: h5py.File) -> None:
    file.attrs["meta"] = json.dumps({**json.loads(file.attrs["meta"]), "seed": SEED + 1})


def _drop_a_keyframe(file: h5py.File) -> None:
    del file["000100"]


def _drop_a_layer(file: h5py.File) -> None:
    del file["000100/birth"]


def _change_the_schema(file: h5py.File) -> None:
    file.attrs["schema"] = 99


def _change_the_kind(file: h5py.File) -> None:
    file.attrs["lungcast"] = "scan"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_change_a_bin, "trajectory was altered"),
        (_change_the_seed, "trajectory was altered"),
        (_drop_a_keyframe, "trajectory was altered"),
        (_drop_a_layer, "not a readable trajectory"),
        (_change_the_schema, "another schema version"),
        (_change_the_kind, "not a lungcast trajectory"),
    ],
)
def test_an_altered_file_is_told(
    tmp_path: Path, written: Path, cohort: Cohort, change: Any, told: str
) -> None:
    path = tmp_path / "t.h5"
    shutil.copy(written, path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ScanFileError, match=told):
        open_trajectory(path, cohort)


def test_a_damaged_or_missing_file_is_told(tmp_path: Path, written: Path, cohort: Cohort) -> None:
    content = bytearray(written.read_bytes())
    for cut in (0, 100, len(content) // 2):
        (tmp_path / "cut.h5").write_bytes(content[:cut])
        with pytest.raises(ScanFileError, match="not a readable trajectory"):
            open_trajectory(tmp_path / "cut.h5", cohort)
    with pytest.raises(ScanFileError, match="no such trajectory"):
        open_trajectory(tmp_path / "none.h5", cohort)


def test_a_scan_free_of_infection_has_no_trajectory(tmp_path: Path, crop: LungCrop, parameters: Any) -> None:
    healthy = replace(crop, infection=np.zeros_like(crop.infection))
    with pytest.raises(DataError, match="no infection"):
        write_trajectory(tmp_path / "t.h5", healthy, parameters, 1)
