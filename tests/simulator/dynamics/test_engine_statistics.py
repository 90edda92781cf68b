"""The voxel engine against the chain: means within their standard errors, bins by chi-square with V."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from simulator.dynamics.chain import propagate_covariance
from simulator.dynamics.engine import Controls, advance
from simulator.dynamics.parameters import TransitionParameters
from tests.simulator.dynamics.test_engine import fingerprint
from tests.simulator.dynamics.test_regions import eight_lesions
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


def check_against_the_chain(
    results: np.ndarray, start: np.ndarray, w: TransitionParameters, steps: int, tests: int = 1
) -> None:
    """Totals within 3 standard errors and bins by chi-square with V; `tests` of a family share the level."""
    number = results.shape[0]
    mean, v = propagate_covariance(start, w, steps)
    limit = stats.norm.isf(stats.norm.sf(3.0) / tests)
    for part in (slice(0, 30), slice(30, 130), slice(0, 130)):
        error = np.sqrt(v[part, part].sum() / number)
        assert abs(results[:, part].sum(axis=1).mean() - mean[part].sum()) < limit * error
    g = groups(v)
    difference = g @ (results.mean(axis=0) - mean)
    chi_square = difference @ np.linalg.solve(g @ v @ g.T / number, difference)
    assert stats.chi2.sf(chi_square, g.shape[0]) > 1e-3 / tests


@pytest.mark.parametrize("controls", [OFF, ON], ids=["off", "on"])
@pytest.mark.parametrize("jump", [1, 10, 60])
@pytest.mark.parametrize("w", [GROWING, SHRINKING, STATIONARY], ids=["growing", "shrinking", "stationary"])
def test_engine_equals_the_chain(w: TransitionParameters, jump: int, controls: Controls) -> None:
    check_against_the_chain(runs(w, 60, jump, controls), lesion().counts(), w, 60)


SINGLE_CONTROLS = {
    "default": Controls(),
    "ragged": Controls(0.0, 0.0, 0.0, 0.0),
    "compact": Controls(8.0, 0.0, 0.0, 0.0),
    "seeded": Controls(2.0, 0.5, 0.0, 0.0),
    "clustered": Controls(2.0, 0.0, 1.0, 0.0),
    "textured": Controls(2.0, 0.0, 0.0, 6.0),
}


def drawn_parameters(number: int) -> list[TransitionParameters]:
    """W all over the region where lesions look like lesions; births small enough for the tissue there is."""
    rng = np.random.default_rng(2020)
    found = []
    for _ in range(number):
        a = np.exp(rng.uniform(np.log(0.02), np.log(0.3)))
        g, p_c, c = (1 - a) * rng.uniform(0.1, 0.95, 3)
        found.append(
            TransitionParameters(
                np.exp(rng.uniform(np.log(1e-4), np.log(0.008))), rng.uniform(0, 1), rng.uniform(0.01, 0.13),
                a, g, p_c, c, np.exp(rng.uniform(np.log(0.03), np.log(0.2))), 900,
            )
        )  # fmt: skip
    return found


@pytest.mark.slow
@pytest.mark.parametrize("jump", [1, 10, 100])
@pytest.mark.parametrize("name", SINGLE_CONTROLS)
def test_engine_equals_the_chain_with_every_control_and_many_w(name: str, jump: int) -> None:
    for w in (GROWING, SHRINKING, STATIONARY, *drawn_parameters(6)):
        results = runs(w, 100, jump, SINGLE_CONTROLS[name])
        check_against_the_chain(results, lesion().counts(), w, 100, tests=9 * 18)


@pytest.mark.parametrize("controls", [OFF, ON], ids=["off", "on"])
@pytest.mark.parametrize("jump", [1, 10])
def test_every_lesion_follows_the_chain_by_itself(jump: int, controls: Controls) -> None:
    # without births, nothing but the lesion's own voxels can be in its histogram
    w = TransitionParameters.from_array(STATIONARY.as_array() * np.array([1e-12, *[1] * 7]), 900)
    start = eight_lesions()
    number, before = 24, start.region_counts()
    found = np.zeros((8, number, 130))
    for seed in range(number):
        state = advance(start.copy(), w, 50, jump=jump, seed=seed, controls=controls)
        found[:, seed] = state.region_counts()[:8]
    for lesion_counts, results in zip(before, found, strict=True):
        check_against_the_chain(results, lesion_counts, w, 50, tests=8)
    # and lesions are independent of each other: the scan's total scatters as V says
    _, v = propagate_covariance(start.counts(), w, 50)
    ratio = found.sum(axis=0)[:, 30:].sum(axis=1).var(ddof=1) / v[30:, 30:].sum()
    assert 0.4 < ratio < 2.0


@pytest.mark.parametrize("jump", [1, 10, 40])
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
from tests.simulator.dynamics.test_engine import fingerprint
from tests.simulator.dynamics.test_regions import eight_lesions
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


def test_same_bytes_on_any_number_of_threads() -> None:
    def play(seed: int) -> str:
        return fingerprint(advance(lesion(), GROWING, 60, jump=seed + 1, seed=seed))

    alone = [play(seed) for seed in range(4)]
    for threads in (1, 2, 4):
        with ThreadPoolExecutor(threads) as pool:
            assert list(pool.map(play, range(4))) == alone


def test_a_checkpoint_goes_on_in_another_process(tmp_path: Path) -> None:
    whole = advance(lesion(), GROWING, 70, jump=10, seed=3)
    half = advance(lesion(), GROWING, 30, jump=10, seed=3)
    (tmp_path / "half.pickle").write_bytes(pickle.dumps(half))
    rest = f"""
import pickle, sys
from pathlib import Path
from simulator.dynamics.engine import advance
from tests.simulator.dynamics.test_engine import fingerprint
from tests.simulator.dynamics.twins import GROWING
state = pickle.loads(Path({str(tmp_path / "half.pickle")!r}).read_bytes())
sys.stdout.write(fingerprint(advance(state, GROWING, 40, jump=10, seed=3)))
"""
    done = subprocess.run([sys.executable, "-c", rest], capture_output=True, text=True, check=True)
    assert done.stdout == fingerprint(whole)


def test_same_bytes_in_another_process() -> None:
    assert digest({"PYTHONHASHSEED": "1", "NUMBA_NUM_THREADS": "1"}) == digest({"NUMBA_NUM_THREADS": "2"})


@pytest.mark.slow
def test_same_bytes_with_a_plain_instruction_set(tmp_path: object) -> None:
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    assert digest(plain) == digest({})
