from dataclasses import replace

import numpy as np
import pytest

from simulator.backwards import scan_before, start_before
from simulator.dynamics.chain import propagate_covariance
from simulator.dynamics.engine import advance
from simulator.dynamics.fit import fit_pair
from simulator.series import observe, t0_counts
from standard_space.errors import DataError
from tests.simulator.scans import small_scan


def test_y_t0_is_a_tenth_at_the_recovery_limit_three_days_before() -> None:
    scan = small_scan(day=2.0)
    before = scan_before(scan, seed=4)
    assert (before.scan, before.day) == ("t0", -1.0)
    assert before.infection is not None
    assert scan.infection is not None
    assert before.infection.sum() == round(0.1 * scan.infection.sum())
    assert not (before.infection & ~scan.infection).any()
    inside = before.signal[scan.infection]
    assert inside.mean() == pytest.approx(-0.15, abs=1e-6)
    assert 0 < inside.std() < scan.signal[scan.infection].std()
    assert np.array_equal(before.signal[~scan.infection], scan.signal[~scan.infection])
    assert np.array_equal(before.infection, scan_before(scan, seed=4).infection)
    assert not np.array_equal(before.infection, scan_before(scan, seed=5).infection)


def test_played_forward_it_arrives_at_the_first_scan() -> None:
    scan = small_scan()
    observed = observe(scan).counts
    first = t0_counts(observed)
    fit = fit_pair(first, observed, 300)
    before, state = start_before(scan, seed=0)
    np.testing.assert_array_equal(state.counts(), first)
    advance(state, fit.parameters, 300, seed=1)
    assert not (state.mask() & ~scan.susceptible).any()
    mean, v = propagate_covariance(first, fit.parameters, 300)
    assert abs(state.counts().sum() - mean.sum()) < 4 * np.sqrt(v.sum())
    assert state.counts().sum() == pytest.approx(observed.sum(), rel=0.1)
    assert before.provenance["constructed"] == "Y_t0"


def test_nothing_to_go_back_from_is_said() -> None:
    scan = small_scan()
    with pytest.raises(DataError, match="no infection"):
        scan_before(replace(scan, infection=None), seed=0)
    with pytest.raises(DataError, match="no infection"):
        scan_before(replace(scan, infection=np.zeros_like(scan.lungs)), seed=0)
