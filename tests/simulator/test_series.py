"""Series, Y_t0, pairs and stored fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.cohort_fit import fit_cohort
from simulator.fits import CohortFits
from simulator.series import observe, pairs, t0_counts, t0_mask, transitions_between
from standard_space.errors import DataError, ReadError
from tests.simulator.scans import cohort_of, small_scan


def test_an_observation_is_the_histogram_of_the_annotated_signal() -> None:
    scan = small_scan()
    seen = observe(scan)
    inside = scan.signal[scan.infection]
    by_hand, _ = np.histogram(inside, bins=np.arange(131) * 0.005 - 0.15)
    # Whole-HU signals fall on bin edges, where float noise decides: compare cumulative counts loosely.
    assert np.abs(np.cumsum(seen.counts) - np.cumsum(by_hand)).max() <= 0.02 * inside.size
    assert seen.counts.sum() + seen.clamped_low == inside.size
    assert seen.below + seen.above == seen.counts.sum()
    assert seen.infected_ml == pytest.approx(inside.size * scan.grid.voxel_volume_ml)


def test_voxels_below_the_recovery_limit_are_counted_but_not_fitted() -> None:
    scan = small_scan()
    place = tuple(np.argwhere(scan.infection)[:7].T)
    scan.signal[place] = -0.3
    seen = observe(scan)
    assert seen.clamped_low == 7
    assert seen.counts.sum() == scan.infection.sum() - 7


def test_observations_that_cannot_be_used_say_why() -> None:
    scan = small_scan()
    with pytest.raises(DataError, match="no infection mask"):
        observe(replace(scan, infection=None))
    with pytest.raises(DataError, match="mask is empty"):
        observe(replace(scan, infection=np.zeros_like(scan.infection)))
    broken = scan.signal.copy()
    broken[scan.infection] = np.nan
    with pytest.raises(DataError, match="not finite"):
        observe(replace(scan, signal=broken))
    with pytest.raises(DataError, match="below the recovery limit"):
        observe(replace(scan, signal=np.full_like(scan.signal, -0.25)))


def test_y_t0_is_a_tenth_at_the_recovery_limit() -> None:
    counts = t0_counts(np.full(130, 10.0))
    assert counts[0] == 130
    assert counts[1:].sum() == 0
    scan = small_scan()
    mask = t0_mask(scan.infection, seed=1)
    assert mask.sum() == round(0.1 * scan.infection.sum())
    assert not (mask & ~scan.infection).any()
    np.testing.assert_array_equal(mask, t0_mask(scan.infection, seed=1))
    assert (mask != t0_mask(scan.infection, seed=2)).any()


def test_pairs_begin_three_days_before_the_first_scan() -> None:
    series = [observe(small_scan(scan="a", day=2.0)), observe(small_scan(scan="b", day=4.5, shift=0.05))]
    first, second = pairs(series)
    assert (first.from_scan, first.to_scan, first.transitions) == ("t0", "a", 300)
    assert (second.from_scan, second.to_scan, second.transitions) == ("a", "b", 250)
    np.testing.assert_array_equal(second.before, series[0].counts)
    assert [pair.from_scan for pair in pairs(series[:1])] == ["t0"]
    with pytest.raises(DataError, match="does not run forward"):
        transitions_between(3.0, 3.0)


def test_a_cohort_is_fitted_with_failures_isolated(tmp_path: Path) -> None:
    healthy = small_scan(patient="q")
    cohort = cohort_of(
        tmp_path / "c",
        small_scan(scan="a"),
        small_scan(scan="b", day=3.0, shift=0.04),
        replace(healthy, infection=np.zeros_like(healthy.infection)),
        replace(small_scan(patient="r"), infection=None, native_infection=None),
    )
    fits = fit_cohort(cohort)
    assert [stored.name for stored in fits.fits] == ["p t0>a", "p a>b"]
    assert "mask is empty" in fits.failures["q/a"]
    assert list(fits.skipped) == ["r/a"]
    fits.save(tmp_path / "fits.json")
    again = CohortFits.load(tmp_path / "fits.json")
    assert again.fits[1].fit.parameters == fits.fits[1].fit.parameters
    entry = cohort.find("p", "b")
    assert again.of(entry).transitions == 300
    with pytest.raises(DataError, match="another version"):
        again.of(replace(entry, content_sha256="0"))
    with pytest.raises(DataError, match="mask is empty"):
        again.of(cohort.find("q", "a"))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"lungcast": "fits", "schema": 99}', '{"lungcast": "fits", "schema": 1}']
)
def test_damaged_fits_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "fits.json").write_text(text)
    with pytest.raises(ReadError, match="fits"):
        CohortFits.load(tmp_path / "fits.json")
    with pytest.raises(ReadError, match="no such fits file"):
        CohortFits.load(tmp_path / "absent.json")
