"""The voxel engine against the chain: means within their standard errors, bins by chi-square with V."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from simulator.dynamics.chain import propagate_covariance
from simulator.dynamics.engine import Controls, advance
from simulator.dynamics.parameters import TransitionParameters
from tests.simulator.dynamics.twins import GROWING, SHRINKING, STATIONARY, lesion

RUNS = 64
OFF = Controls(gamma=0.0, consolidation_clustering=0.0, correlation_mm=0.0)
ON = Controls(gamma=3.0, seeded_share=0.2, consolidation_clustering=1.0, correlation_mm=5.0)


def runs(
    w: TransitionParameters, steps: int, jump: int, controls: Controls, number: int = RUNS
) -> np.ndarray:
    start = lesion()
    results = np.zeros((number, 130))
    for seed in range(number):
        state = advance(start.copy(), w, steps, jump=jump, seed=1000 + seed, controls=controls)
        assert state.report.exact
        results[seed] = state.counts()
    return results


def groups(v: np.ndarray) -> np.ndarray:
    """Indicator matrix of neighbouring bins merged until their variance reaches 5."""
    rows, start = [], 0
    for stop in range(1, 131):
        if v[start:stop, start:stop].sum() >= 5:
            row = np.zeros(130)
            row[start:stop] = 1
            rows.append(row)
            start = stop
    return np.array(rows)


@pytest.mark.parametrize("controls", [OFF, ON], ids=["off", "on"])
@pytest.mark.parametrize("jump", [1, 10, 60])
@pytest.mark.parametrize("w", [GROWING, SHRINKING, STATIONARY], ids=["growing", "shrinking", "stationary"])
def test_engine_equals_the_chain(w: TransitionParameters, jump: int, controls: Controls) -> None:
    # counts do not depend on the controls (tested elsewhere), so one seed range serves; both are run anyway
    steps = 60
    results = runs(w, steps, jump, controls)
    mean, v = propagate_covariance(lesion().counts(), w, steps)
    for part in (slice(0, 30), slice(30, 130), slice(0, 130)):
        error = np.sqrt(v[part, part].sum() / RUNS)
        assert abs(results[:, part].sum(axis=1).mean() - mean[part].sum()) < 3 * error
    g = groups(v)
    difference = g @ (results.mean(axis=0) - mean)
    chi_square = difference @ np.linalg.solve(g @ v @ g.T / RUNS, difference)
    assert stats.chi2.sf(chi_square, g.shape[0]) > 1e-3


@pytest.mark.parametrize("jump", [1, 10])
def test_engine_scatters_as_v_says(jump: int) -> None:
    number = 200
    results = runs(GROWING, 40, jump, OFF, number)
    _, v = propagate_covariance(lesion().counts(), GROWING, 40)
    g = groups(v)
    ratio = (results @ g.T).var(axis=0, ddof=1) / np.diag(g @ v @ g.T)
    assert ratio.mean() == pytest.approx(1, abs=0.07)
    total = results.sum(axis=1).var(ddof=1) / v.sum()
    assert total == pytest.approx(1, abs=4 * np.sqrt(2 / number))


def test_tests_would_notice_a_bias() -> None:
    # the same statistics with a birth rate that is 6 % off must fail: 3 standard errors are that sharp
    biased = TransitionParameters.from_array(
        GROWING.as_array() * np.array([1.06, 1, 1, 1, 1, 1, 1, 1]), GROWING.reference_ggo_voxels
    )
    results = runs(biased, 60, 10, OFF)
    mean, v = propagate_covariance(lesion().counts(), GROWING, 60)
    assert abs(results.sum(axis=1).mean() - mean.sum()) > 3 * np.sqrt(v.sum() / RUNS)


DIGEST = """
import sys
from tests.simulator.dynamics.test_engine import fingerprint
from tests.simulator.dynamics.twins import GROWING, SHRINKING, lesion
from simulator.dynamics.engine import Controls, advance
state = advance(lesion(), GROWING, 40, jump=1, seed=11, controls=Controls(seeded_share=0.1))
advance(state, SHRINKING, 60, jump=10, seed=11, controls=Controls(seeded_share=0.1))
sys.stdout.write(fingerprint(state))
"""


def digest(extra: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", DIGEST],
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_same_bytes_in_another_process() -> None:
    assert digest({"PYTHONHASHSEED": "1", "NUMBA_NUM_THREADS": "1"}) == digest({"NUMBA_NUM_THREADS": "2"})


@pytest.mark.slow
def test_same_bytes_with_a_plain_instruction_set(tmp_path: object) -> None:
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    assert digest(plain) == digest({})
