"""Broken volumes are flagged or named, each for its reason; clean ones are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from simulator.audit import Audit, audit_cohort
from simulator.audit_checks import (
    CHANGED_OUTSIDE,
    DISTRIBUTION,
    GROWTH,
    NOT_FINITE,
    NOT_THE_CHAINS,
    OUTSIDE_LUNGS,
    OUTSIDE_SUSCEPTIBLE,
    Limits,
)
from simulator.audit_record import VolumeRow
from simulator.fits import CohortFits
from standard_space.cohort import Cohort, open_with_sources
from standard_space.errors import UsageError
from standard_space.scan import Scan
from tests.simulator.audits import augmented, break_volume, rewrite

NAME = "p0/b-sim2"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return augmented(tmp_path_factory.mktemp("audit"))


@pytest.fixture
def folder(clean: Path, tmp_path: Path) -> Path:
    shutil.copytree(clean.parent, tmp_path / "copy")
    return tmp_path / "copy" / "a"


def audited(folder: Path, **options: object) -> Audit:
    return audit_cohort(open_with_sources(folder), **options)  # type: ignore[arg-type]


def row(audit: Audit, name: str = NAME) -> VolumeRow:
    return next(item for item in audit.volumes if item.name == name)


def reasons(audit: Audit, name: str = NAME) -> set[str]:
    return {flag.reason for flag in row(audit, name).flags}


def test_clean_volumes_are_measured_and_not_flagged(clean: Path) -> None:
    cohort = open_with_sources(clean)
    audit = audit_cohort(cohort, fits=CohortFits.load(clean.parent / "fits.json"))
    assert audit.failures == {}
    assert [item.name for item in audit.volumes] == sorted(entry.name for entry in cohort.entries)
    assert len(audit.volumes) == 8
    assert audit.flagged == []
    assert len(audit.observed) == 4
    assert {item.ranges_from for item in audit.volumes if item.source.endswith("b")} == {"fits"}
    assert {item.ranges_from for item in audit.volumes if item.source.endswith("a")} == {"provenance"}


def test_numbers_are_those_of_the_whole_scan(clean: Path) -> None:
    cohort = open_with_sources(clean)
    audit = audit_cohort(cohort)
    for entry in cohort.entries:
        scan = cohort.read(entry)
        source = Cohort.open(clean.parent / "c").read(
            Cohort.open(clean.parent / "c").find(entry.patient, entry.scan[0])
        )
        found = row(audit, entry.name)
        signal = scan.signal[scan.infection]
        voxel_ml = scan.grid.voxel_volume_ml
        changed = (scan.signal != source.signal) | (scan.infection != source.infection)
        assert found.infected_ml == pytest.approx(scan.infection.sum() * voxel_ml)
        assert found.change_ml == pytest.approx((scan.infection.sum() - source.infection.sum()) * voxel_ml)
        assert found.signal["share_above"] == pytest.approx((signal >= 0).mean(), abs=0.01)
        assert found.signal["p50"] == pytest.approx(np.median(signal), abs=0.006)
        assert found.changed_voxels == changed.sum()
        assert found.changed_outside_lungs == (changed & ~scan.lungs).sum()
        assert found.days == pytest.approx(scan.day - source.day)


def infect_outside_the_lungs(scan: Scan, source: Scan) -> None:
    scan.infection.ravel()[np.flatnonzero(~scan.lungs & ~source.susceptible)[:3]] = True


def infect_a_vessel(scan: Scan, source: Scan) -> None:
    scan.infection.ravel()[np.flatnonzero(scan.lungs & ~source.susceptible)[0]] = True


def brighten_the_heart(scan: Scan, source: Scan) -> None:
    scan.signal.ravel()[np.flatnonzero(~scan.lungs & ~source.susceptible)[0]] += 0.25


def raise_the_signal(scan: Scan, source: Scan) -> None:
    scan.signal[scan.infection] += 0.1


def double_the_volume(scan: Scan, source: Scan) -> None:
    free = np.flatnonzero(source.susceptible & ~scan.infection)
    taken = free[: int(scan.infection.sum())]
    scan.signal.ravel()[taken] = np.median(scan.signal[scan.infection])
    scan.infection.ravel()[taken] = True


def infect_both_lungs(scan: Scan, source: Scan) -> None:
    scan.infection[...] = source.susceptible


def poison(scan: Scan, source: Scan) -> None:
    scan.signal.ravel()[np.flatnonzero(scan.infection)[0]] = np.nan


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (infect_outside_the_lungs, {OUTSIDE_LUNGS, OUTSIDE_SUSCEPTIBLE, CHANGED_OUTSIDE}),
        (infect_a_vessel, {OUTSIDE_SUSCEPTIBLE, CHANGED_OUTSIDE}),
        (brighten_the_heart, {CHANGED_OUTSIDE}),
        (raise_the_signal, {DISTRIBUTION}),
        (double_the_volume, {NOT_THE_CHAINS}),
        (infect_both_lungs, {NOT_THE_CHAINS, GROWTH, DISTRIBUTION}),
        (poison, {NOT_FINITE}),
    ],
)
def test_a_broken_volume_is_flagged_for_its_reason_alone(
    folder: Path, change: Callable[[Scan, Scan], None], expected: set[str]
) -> None:
    break_volume(folder, NAME, change)
    audit = audited(folder)
    assert audit.failures == {}
    assert [item.name for item in audit.flagged] == [NAME]
    assert expected <= reasons(audit)
    # A doubled volume shifts the distribution, and a few voxels more the volume: that much may come with it.
    assert reasons(audit) - expected <= {DISTRIBUTION, NOT_THE_CHAINS}
    for flag in row(audit).flags:
        assert not flag.low <= flag.value <= flag.high
    assert audit.summary()["flagged"] == 1
    json.dumps(audit.to_json(), allow_nan=False)


def test_counts_of_misplaced_voxels_are_exact(folder: Path) -> None:
    break_volume(folder, NAME, infect_outside_the_lungs)
    found = row(audited(folder))
    assert (found.infected_outside_lungs, found.infected_outside_susceptible) == (3, 3)
    flag = next(flag for flag in found.flags if flag.reason == OUTSIDE_LUNGS)
    assert (flag.value, flag.low, flag.high) == (3.0, 0.0, 0.0)


def test_a_damaged_volume_is_a_failure_and_the_rest_is_audited(folder: Path) -> None:
    path = folder / "p0_b-sim2.h5"
    path.write_bytes(path.read_bytes()[:3000])
    audit = audited(folder)
    assert list(audit.failures) == [NAME]
    assert len(audit.volumes) == 7
    assert audit.flagged == []


def test_altered_voxels_of_a_volume_are_a_failure(folder: Path) -> None:
    with h5py.File(folder / "p0_b-sim2.h5", "r+") as file:
        file["changed_signal"][0] = 0.3
    audit = audited(folder)
    assert "altered" in audit.failures[NAME]
    assert len(audit.volumes) == 7


@pytest.mark.parametrize(
    "head", [{"infected_voxels": 7}, {"provenance": {"plan": {}, "parameters": {}, "report": {}}}]
)
def test_an_altered_record_is_a_failure(folder: Path, head: dict[str, object]) -> None:
    rewrite(folder / "p0_b-sim2.h5", **head)
    assert "record" in audited(folder).failures[NAME]


def test_altered_voxels_of_a_source_are_a_failure_of_its_volumes(folder: Path) -> None:
    with h5py.File(folder.parent / "c" / "p0_b.h5", "r+") as file:
        file["signal"][0, 0, 0] = 0.3
    audit = audited(folder)
    assert sorted(audit.failures) == ["p0/b-sim1", "p0/b-sim2"]
    assert all("the scan file was altered" in text for text in audit.failures.values())
    assert len(audit.volumes) == 6


def test_a_missing_source_is_a_failure_of_its_volumes(folder: Path) -> None:
    sources = Cohort.open(folder.parent / "c")
    Cohort.write_manifest(sources.folder, [entry for entry in sources.entries if entry.name != "p0/b"])
    audit = audited(folder)
    assert sorted(audit.failures) == ["p0/b-sim1", "p0/b-sim2"]
    assert "missing" in audit.failures[NAME]


def test_limits_are_the_users(folder: Path) -> None:
    break_volume(folder, NAME, double_the_volume)
    assert GROWTH not in reasons(audited(folder))
    assert GROWTH in reasons(audited(folder, limits=Limits(growth_per_day=1.2)))
    assert NOT_THE_CHAINS not in reasons(audited(folder, limits=Limits(z=1e6)))
    for bad in ({"z": 0.0}, {"growth_per_day": 1.0}, {"signal": float("nan")}):
        with pytest.raises(UsageError, match="limit"):
            Limits(**bad)


def test_a_volume_without_a_plan_is_not_held_against_the_chain(folder: Path) -> None:
    break_volume(folder, NAME, lambda scan, source: None, keep_plan=False)
    audit = audited(folder)
    assert row(audit).chain_z is None
    assert row(audit).ranges_from == "not recorded"
    assert "1 volumes do not record" in audit.notes["chain"][0]


@pytest.mark.slow
def test_workers_change_nothing(clean: Path) -> None:
    assert audited(clean).to_json() == audited(clean, jobs=2).to_json()


def test_a_seed_draws_the_same_patches(clean: Path) -> None:
    alone, shared = audited(clean), audited(clean)
    assert alone.to_json() == shared.to_json()
    for one, other in zip(alone.patches, shared.patches, strict=True):
        assert (one.patient, one.volume) == (other.patient, other.volume)
        np.testing.assert_array_equal(one.real, other.real)
        np.testing.assert_array_equal(one.synthetic, other.synthetic)
    drawn_anew = audited(clean, seed=1)
    assert any((a.real != b.real).any() for a, b in zip(alone.patches, drawn_anew.patches, strict=True))


def test_fits_of_another_w_are_not_used(clean: Path) -> None:
    fits = CohortFits.load(clean.parent / "fits.json")
    for stored in fits.fits:
        stored.fit.parameters = fits.fits[0].fit.parameters
    audit = audited(clean, fits=fits)
    assert {item.ranges_from for item in audit.volumes if item.name.startswith("p1/b")} == {"provenance"}


def test_a_folder_without_volumes_is_refused(clean: Path) -> None:
    with pytest.raises(UsageError, match="no synthetic volume"):
        audit_cohort(Cohort.open(clean.parent / "c"))
