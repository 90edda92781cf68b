"""Progressions, seeds, and what is written of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from simulator.progression import DEFAULT_DYNAMICS, frame_transitions, progress, start, with_reference
from simulator.seeding import seed_infection
from simulator.simulation import simulate_scan
from standard_space.errors import DataError, UsageError
from standard_space.image import read_image, read_mask
from tests.simulator.scans import cohort_of, small_scan


def test_frames_are_where_they_were_asked_for() -> None:
    assert frame_transitions(2.0, 0.5) == [0, 50, 100, 150, 200]
    assert frame_transitions(1.0, 0.4) == [0, 40, 80, 100]
    for days, every in ((0.0, 1.0), (1.0, 0.0), (-1.0, 0.5), (float("nan"), 1.0)):
        with pytest.raises(UsageError, match="too small"):
            frame_transitions(days, every)


def test_a_progression_starts_at_the_scan_and_stays_in_susceptible_tissue() -> None:
    scan = small_scan()
    parameters = with_reference(DEFAULT_DYNAMICS, start(scan))
    frames = list(progress(scan, parameters, days=1.0, every=0.5, seed=1))
    assert [frame.days for frame in frames] == [0.0, 0.5, 1.0]
    np.testing.assert_array_equal(frames[0].infection, scan.infection)
    np.testing.assert_allclose(frames[0].signal, scan.signal, atol=1e-6)
    for frame in frames:
        assert not (frame.infection & ~scan.susceptible).any()
        assert frame.counts.sum() == frame.infection.sum()
    assert (frames[-1].infection != scan.infection).any()
    again = list(progress(scan, parameters, days=1.0, every=0.5, seed=1))
    np.testing.assert_array_equal(again[-1].signal, frames[-1].signal)
    other = list(progress(scan, parameters, days=1.0, every=0.5, seed=2))
    assert (other[-1].infection != frames[-1].infection).any()


def test_seeds_lie_near_the_pleura_in_susceptible_tissue() -> None:
    scan = small_scan()
    seeds = seed_infection(scan, 5, seed=3)
    assert seeds.any()
    assert not (seeds & ~scan.susceptible).any()
    assert not (seeds & scan.infection).any()
    np.testing.assert_array_equal(seeds, seed_infection(scan, 5, seed=3))
    with pytest.raises(UsageError, match="number of seeds"):
        seed_infection(scan, 0)
    with pytest.raises(DataError, match="no room"):
        seed_infection(scan, 10**7)


def test_a_simulation_is_written_on_the_native_grid(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "c", small_scan(scan="a"), small_scan(scan="b", day=2.0, shift=0.03))
    rows, notes = simulate_scan(cohort, cohort.find("p", "a"), tmp_path / "s", days=1.0, every=0.5, seed=1)
    names = sorted(path.name for path in (tmp_path / "s").iterdir())
    assert "day000.50_image.nii.gz" in names
    assert {"fits.json", "progression.gif", "volumes.csv", "volumes.png", "lungcast.json"} <= set(names)
    native = small_scan().placement.native
    image = read_image(tmp_path / "s" / "day001.00_image.nii.gz")
    assert image.geometry.same_as(native)
    mask = read_mask(tmp_path / "s" / "day001.00_infection.nii.gz", native)
    assert mask.sum() * native.voxel_volume_ml == pytest.approx(rows[-1]["infected_ml"], rel=0.15)
    lungs = read_mask(tmp_path / "s" / "lungs.nii.gz", native)
    assert (mask & ~lungs).sum() <= 0.05 * mask.sum()
    assert lungs.sum() > mask.sum()
    with open(tmp_path / "s" / "observed.csv", newline="") as handle:
        seen = list(csv.DictReader(handle))
    assert [(row["scan"], float(row["day"])) for row in seen] == [("a", 0.0), ("b", 2.0)]
    assert float(seen[1]["infected_ml"]) == pytest.approx(cohort.find("p", "b").infected_ml, abs=1e-3)
    with open(tmp_path / "s" / "volumes.csv", newline="") as handle:
        written = list(csv.DictReader(handle))
    assert [float(row["days_since_scan"]) for row in written] == [0.0, 0.5, 1.0]
    assert any("fitted p t0>a now" in note for note in notes)


def test_a_scan_without_infection_can_be_seeded(tmp_path: Path) -> None:
    bare = small_scan()
    bare.infection = None
    bare.native_infection = None
    cohort = cohort_of(tmp_path / "c", bare)
    rows, notes = simulate_scan(
        cohort, cohort.find("p", "a"), tmp_path / "s", days=1.0, every=1.0, seed=1, seeds=4
    )
    assert rows[0]["infected_ml"] > 0
    assert any("seeded" in note for note in notes)
    assert not (tmp_path / "s" / "observed.csv").exists()
    with pytest.raises(DataError, match="no fit"):
        simulate_scan(cohort, cohort.find("p", "a"), tmp_path / "s2", days=1.0, every=1.0, seed=1)
